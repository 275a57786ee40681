"""A fixture for the tests of plugins: distributions that appear installed while a test runs."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Install", "install"]


class Install(Protocol):
    """What the fixture `install` gives to a test."""

    def __call__(
        self, name: str, entry_points: str = "", *, version: str = "1.0", **modules: str
    ) -> Path:
        """Make a distribution appear installed until the end of the test.

        Args:
            name: of the distribution.
            entry_points: the text of its ``entry_points.txt``.
            version: of the distribution.
            modules: the source of each of its top-level modules.

        Returns:
            The folder that it is in. Installed again, a distribution hides its older self.
        """
        ...


@pytest.fixture
def install(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Install]:
    """Return a function that makes a distribution appear installed, with real metadata."""
    made: list[str] = []

    def install(name: str, entry_points: str = "", *, version: str = "1.0", **modules: str) -> Path:
        # A folder for each: what is cached by a folder's time of change, which is too coarse to
        # tell two installations in one test apart, is not found for a new one.
        folder = tmp_path_factory.mktemp("installed")
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
        )
        (info / "entry_points.txt").write_text(entry_points, "utf-8")
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source, "utf-8")
            monkeypatch.delitem(sys.modules, module, raising=False)  # it would hide the new one
        made.extend(modules)
        monkeypatch.syspath_prepend(folder)
        return folder

    yield install
    for module in made:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
