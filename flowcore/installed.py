"""What the installed distributions declare in some entry-point groups, read in one pass.

It is what `importlib_metadata.entry_points` finds, for less: of a distribution only
``entry_points.txt`` is read, and what it is called only if that names one of the groups. Where
`sys.path` has more than folders, or an import finder has distributions of its own, that library is
asked. A distribution whose metadata is damaged is left out, and hides no other one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from typing import TypeAlias

__all__ = ["Declared", "declared", "normal"]

Declared: TypeAlias = "tuple[str, str, str, str, str]"  # name, group, distribution, version, target

_FINDERS = {"PathFinder", "MetadataPathFinder"}  # Python's own, and that of importlib_metadata


def declared(groups: Collection[str]) -> Iterator[Declared]:
    """Generate what is declared in ``groups``, unordered; nothing is imported for it.

    Of a distribution that is installed several times, the first on `sys.path` counts; of several in
    one folder, that whose folder has the greatest name, as `importlib_metadata` has it.
    """
    return _in_folders(groups) if _only_folders() else _anywhere(groups)


def normal(name: str) -> str:
    """Return a distribution's name as installers compare it: ``Acme_Flow`` is ``acme-flow``."""
    name = name.lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


def _only_folders() -> bool:
    for finder in sys.meta_path:
        kind = finder if isinstance(finder, type) else type(finder)
        if hasattr(finder, "find_distributions") and kind.__name__ not in _FINDERS:
            return False
    return not any(path.endswith(".egg") or os.path.isfile(path) for path in _path())


def _path() -> list[str]:
    return [path or os.curdir for path in sys.path if isinstance(path, str)]  # the others are none


def _in_folders(groups: Collection[str]) -> Iterator[Declared]:
    seen: set[str] = set()
    for info, called in _infos():
        if called in seen:
            continue
        seen.add(called)
        text = _text(f"{info}/entry_points.txt")
        if text and any(group in text for group in groups):
            yield from _declared_in(info, text, groups)


def _infos() -> Iterator[tuple[str, str]]:
    """Generate the folders of metadata, each with the name of its distribution."""
    for folder in _path():
        try:
            children = os.listdir(folder)
        except OSError:  # such as python311.zip, which most installations do not have
            continue
        infos = [one for one in children if one.lower().endswith((".dist-info", ".egg-info"))]
        for info in sorted(infos, key=str.lower, reverse=True):
            yield f"{folder}/{info}", normal(info.rpartition(".")[0].partition("-")[0])


def _declared_in(info: str, text: str, groups: Collection[str]) -> Iterator[Declared]:
    distribution, version = _called(_text(f"{info}/METADATA") or _text(f"{info}/PKG-INFO"))
    if distribution and version:
        for name, group, target in _entries(text):
            if group in groups:
                yield name, group, distribution, version, target


def _text(path: str) -> str:
    """Return what is in a file of metadata; of one that cannot be read, nothing."""
    try:
        with open(path, "rb", 0) as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _called(metadata: str) -> tuple[str, str]:
    """Return the name and version that the head of some metadata gives; else ``""``."""
    fields: dict[str, str] = {}
    for line in metadata.splitlines():
        if not line:
            break
        key, _, value = line.partition(":")
        fields.setdefault(key.lower(), value.strip())
    return fields.get("name", ""), fields.get("version", "")


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Generate name, group and target of each entry point; a line that is none is passed over."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        name, equals, target = line.partition("=")
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif equals and not line.startswith("#"):
            yield name.strip(), group, target.strip()


def _anywhere(groups: Collection[str]) -> Iterator[Declared]:
    import importlib_metadata  # only here: it takes ten times as long to load as a look at folders

    seen: set[str] = set()
    for distribution in importlib_metadata.distributions():
        try:
            name, version = distribution.name, distribution.version
            entries = [one for one in distribution.entry_points if one.group in groups]
        except Exception:  # it is damaged; installers leave such folders behind
            continue
        if normal(name) not in seen:
            seen.add(normal(name))
            yield from ((one.name, one.group, name, version, one.value) for one in entries)
