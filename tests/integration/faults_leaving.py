"""What becomes of the action that is running when its run is left."""

from __future__ import annotations

import time

import psutil
from faults_batches import let_go, until
from faults_ways import THREADS

__all__ = ["action_after"]

_SOON = 2.0  # seconds in which an action that is to be ended has ended


def action_after(executor, folder):
    """Say what became of an action that waits; it is let go if it still does."""
    if not (folder / "waits").exists():
        return "no action is running"
    end = time.monotonic() + (_SOON if executor not in THREADS else 0)
    while True:
        if (folder / "interrupted").exists():
            return "the action is interrupted"
        if not psutil.pid_exists(int((folder / "waits").read_text())):
            return "the action is ended"
        if time.monotonic() >= end:
            break
        time.sleep(0.01)
    let_go(folder)
    until((folder / "ended").exists, "the action was ended, and its process was not")
    return "the action runs to its end"
