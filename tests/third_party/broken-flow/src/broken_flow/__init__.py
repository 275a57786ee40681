"""Plugins whose import fails: their author forgot to declare a dependency."""

import a_library_that_is_not_installed

__all__ = ["a_library_that_is_not_installed"]
