"""Executes recipes: compiled once a run, driven through an executor, delivered in order."""
