"""Plugins by name: found in the metadata of what is installed, imported when first used.

Listing imports nothing. A plugin that fails to import breaks its own name and no other.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowcore.errors import AmbiguousPlugin, BrokenPlugin, OptionError, UnknownPlugin, explain, near
from flowcore.hookspecs import hook_manager
from flowcore.installed import declared, normal

if TYPE_CHECKING:
    import pluggy

__all__ = [
    "GROUPS",
    "PluginInfo",
    "find",
    "hooks",
    "identifier",
    "install_hint",
    "load",
    "names",
    "own_version",
    "plugins",
]

#: What a group's plugins are called in messages.
GROUPS = {
    "flowcore.sinks": "sink",
    "flowcore.actions": "action pack",
    "flowcore.executors": "executor",
    "flowcore.hooks": "hook plugin",
}

# The project's own plugins, so that a name that is not installed can say what to install.
_OWN = {
    ("flowcore.sinks", "tf-queue"): "'flowcore-tf-queue[cpu]'",
    ("flowcore.sinks", "null"): "flowcore-null",
    ("flowcore.sinks", "numpy-buffer"): "flowcore-numpy-buffer",
    ("flowcore.actions", "arrays"): "flowcore-arrays",
    ("flowcore.executors", "processes"): "flowcore-processes",
    ("flowcore.executors", "ray"): "flowcore-ray",
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One installed plugin, as its distribution's metadata declares it; nothing is imported.

    Attributes:
        name: of the entry point.
        group: the entry-point group, such as ``flowcore.sinks``.
        distribution: name of the distribution that declares it.
        version: of that distribution.
        target: what the name stands for, ``module:attribute``.
    """

    name: str
    group: str
    distribution: str
    version: str
    target: str

    def load(self) -> object:
        """Import and return the plugin.

        Raises:
            BrokenPlugin: the import failed; its own exception is the cause.
        """
        try:
            module, _, attribute = self.target.partition("[")[0].partition(":")
            names = filter(None, attribute.strip().split("."))
            return reduce(getattr, names, import_module(module.strip()))
        except (Exception, SystemExit) as error:  # whatever a stranger's import raises
            raise BrokenPlugin(
                explain(
                    f"{GROUPS[self.group]} {self.name!r} could not be imported: "
                    f"{type(error).__name__}: {error}",
                    where=f"{self.target}, of the distribution {self.distribution} {self.version}",
                    next=f"repair or uninstall {self.distribution}; flowcore plugins --check tries "
                    "all",
                )
            ) from error


def own_version() -> str:
    """Return the version of flowcore that runs."""
    return str(sys.modules["flowcore"].__version__)


def plugins(group: str | None = None) -> list[PluginInfo]:
    """Return what is installed, sorted by group and name; nothing is imported.

    ``FLOWCORE_DISABLE_PLUGINS`` and ``FLOWCORE_ENABLE_PLUGINS`` (comma-separated names or
    distributions) leave some out.

    Args:
        group: one entry-point group (``flowcore.sinks``), or all.

    Raises:
        OptionError: there is no such group.
    """
    if group is not None and group not in GROUPS:
        raise OptionError(
            explain(
                f"no entry-point group is called {group!r}",
                why=f"there are {', '.join(GROUPS)}",
                next=near(group, GROUPS),
            )
        )
    disabled = _listed("FLOWCORE_DISABLE_PLUGINS")
    enabled = _listed("FLOWCORE_ENABLE_PLUGINS")

    def allowed(info: PluginInfo) -> bool:
        called = {normal(info.name), normal(info.distribution)}
        wanted = not enabled or called & enabled or info.distribution == "flowcore"
        return bool(wanted) and not called & disabled

    return [info for info in _installed() if group in (None, info.group) and allowed(info)]


def names(group: str) -> list[str]:
    """Return the distinct names that are installed in ``group``, sorted."""
    return sorted({info.name for info in plugins(group)})


def identifier(name: str) -> str:
    """Return a plugin's name as Python needs it in an attribute: ``tf-queue`` as ``tf_queue``."""
    return name.replace("-", "_")


def find(group: str, name: str) -> PluginInfo:
    """Return what ``name`` or ``distribution:name`` stands for in ``group``, not yet imported.

    Raises:
        UnknownPlugin: nobody declares it.
        AmbiguousPlugin: several distributions do, and ``name`` does not say which.
    """
    distribution, _, plain = name.rpartition(":")
    claims = [
        info
        for info in plugins(group)
        if info.name == plain and normal(distribution) in ("", normal(info.distribution))
    ]
    if not claims:
        raise _unknown(group, name)
    if len(claims) > 1:
        owners = [info.distribution for info in claims]
        raise AmbiguousPlugin(
            explain(
                f"{' and '.join(owners)} each declare the {GROUPS[group]} {name!r}",
                next=f"name one of them: {owners[0] + ':' + name!r}; or uninstall the other",
            )
        )
    return claims[0]


def load(group: str, name: str) -> object:
    """Import and return what ``name`` or ``distribution:name`` stands for in ``group``.

    Raises:
        UnknownPlugin, AmbiguousPlugin: see `find`.
        BrokenPlugin: its import failed. Other names are not affected.
    """
    return find(group, name).load()


def hooks() -> pluggy.PluginManager:
    """Return the manager of the installed hook plugins, imported at the first call.

    One that cannot be imported is left out, with one warning.
    """
    key = tuple(plugins("flowcore.hooks"))
    with _lock:
        if key not in _managers:
            _managers.clear()
            _managers[key] = hook_manager()
            _register(_managers[key], key)
        return _managers[key]


# Runs may start in several threads. Reentrant: a hook plugin may run a pipeline while it is
# imported, and then has the hooks that are registered so far.
_lock = threading.RLock()
# The one of no plugins is made here, as a first batch waits for it otherwise.
_managers: dict[tuple[PluginInfo, ...], pluggy.PluginManager] = {(): hook_manager()}
_found: dict[tuple[object, ...], list[PluginInfo]] = {}


def _register(manager: pluggy.PluginManager, infos: tuple[PluginInfo, ...]) -> None:
    # Not pluggy's own loader: it imports all, and one that fails ends the program.
    for info in infos:
        try:
            plugin: Any = info.load()
            plugin = plugin() if isinstance(plugin, type) else plugin
            manager.register(plugin, name=f"{info.distribution}:{info.name}")
            manager.check_pending()
        except Exception as error:  # a stranger's code: its import, or a hook that we do not have
            manager.unregister(name=f"{info.distribution}:{info.name}")
            warnings.warn(f"left out a hook plugin: {error}", RuntimeWarning, stacklevel=2)


def _installed() -> list[PluginInfo]:
    # The metadata is read again when a folder of sys.path has changed, so that what was just
    # installed, or uninstalled, is seen.
    key = tuple((path, _modified(path)) for path in sys.path)
    found = _found.get(key)
    if found is None:
        infos = (PluginInfo(*one) for one in declared(GROUPS))
        found = sorted(infos, key=lambda info: (info.group, info.name, info.distribution))
        _found.clear()
        _found[key] = found
    return found


def _modified(path: str) -> int:
    try:
        return os.stat(path or os.curdir).st_mtime_ns
    except OSError:
        return 0


def _listed(variable: str) -> set[str]:
    parts = os.environ.get(variable, "").split(",")
    return {normal(part.strip()) for part in parts if part.strip()}


def install_hint(group: str, name: str) -> str:
    """Return how to install one of our own plugins; empty if it is none, or is installed."""
    package = _OWN.get((group, name))
    here = any((info.group, info.name) == (group, name) for info in _installed())
    return f"install it: pip install {package}" if package and not here else ""


def _unknown(group: str, name: str) -> UnknownPlugin:
    kind, installed = GROUPS[group], names(group)
    plain = name.rpartition(":")[2]
    hint = near(plain, {*installed, *(own for its, own in _OWN if its == group)} - {plain})
    nearest = hint.partition("'")[2].rpartition("'")[0]
    hints = [hint, install_hint(group, plain) or install_hint(group, nearest)]
    switched_off = {info.name for info in _installed() if info.group == group} - set(installed)
    if switched_off:
        hints.append(f"switched off by the environment: {', '.join(sorted(switched_off))}")
    return UnknownPlugin(
        explain(
            f"no {kind} is called {name!r}",
            why=f"installed {kind}s: {', '.join(installed) or 'none'}",
            next="; ".join(filter(None, hints)) or "flowcore plugins lists what is installed",
        )
    )
