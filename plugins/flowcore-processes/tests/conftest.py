from flowcore.testing import install, no_leaks

__all__ = ["install", "no_leaks"]
