"""What exists is documented, and what is documented exists."""

import inspect
import re
import tomllib
from configparser import ConfigParser
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import flowcore
from flowcore import errors, hookspecs, testing
from flowcore.run.settings import Settings

ROOT = Path(__file__).parents[2]


def read(path):
    return (ROOT / path).read_text("utf-8")


REFERENCE = read("docs/reference.md")
TESTS = [
    path.read_text("utf-8")
    for folder in ("tests", "plugins")
    for path in (ROOT / folder).rglob("test_*.py")
    if "docs" not in path.parts
]

HOOKS = {
    name: caller.spec.argnames
    for name, caller in vars(hookspecs.hook_manager().hook).items()
    if name.startswith("flowcore_")
}
OPTIONS = sorted({option.name for option in fields(Settings)} - {"plugin_options"})
EVENTS = sorted(
    name
    for name, value in vars(hookspecs).items()
    if name in hookspecs.__all__ and inspect.isclass(value)
)


def environments():
    """Return the environments of tox.ini, each ``testenv:{a,b}`` as its parts."""
    tox = ConfigParser(interpolation=None)
    tox.read_string(read("tox.ini"))
    listed = [name.strip() for name in tox["tox"]["env_list"].split(",")]
    sections = [
        re.findall(r"[\w-]+", section.removeprefix("testenv:"))
        for section in tox.sections()
        if section.startswith("testenv:")
    ]
    return sorted({*listed, *(name for names in sections for name in names)})


def test_there_are_hooks_options_and_environments_to_look_for():
    assert {"flowcore_batch_failed", "flowcore_worker_started"} <= set(HOOKS)
    assert {"batch_size", "stall_warning"} <= set(OPTIONS)
    assert {"core", "tf-queue", "null", "demo"} <= set(environments())


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented_with_its_arguments(hook):
    assert f"### `{hook}({', '.join(HOOKS[hook])})`\n" in read("docs/plugins/hooks.md")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_tested(hook):
    assert re.search(rf"^def test_{hook}_\w+\(", read("tests/core/test_hooks.py"), re.M)


@pytest.mark.parametrize("event", EVENTS)
def test_the_event_of_a_hook_is_in_the_reference(event):
    assert f".. autoclass:: flowcore.hookspecs.{event}\n" in REFERENCE


def default_of(field):
    """Return how the table writes the default of an option."""
    if field.name == "batch_size":
        return "required"
    default = field.default if field.default_factory is MISSING else field.default_factory()
    shown = default.__name__ if isinstance(default, type) else repr(default)
    return f"`{shown}`".replace("'", '"')


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_run_is_documented_with_its_default(option):
    (field,) = (field for field in fields(Settings) if field.name == option)
    assert re.search(rf"^\| `{option}` \| {re.escape(default_of(field))} \| \S", REFERENCE, re.M)


def test_the_options_in_the_table_are_those_of_a_run():
    table = REFERENCE.partition("## The options of a run")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == OPTIONS


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_run_is_used_in_a_test(option):
    assert any(re.search(rf"\b{option}\b\"?[=:]", text) for text in TESTS)


@pytest.mark.parametrize("name", sorted(set(flowcore.__all__) - {"__version__", "errors"}))
def test_a_public_name_is_in_the_reference(name):
    documented = rf"^\.\. auto\w+:: flowcore\.{name}\b|^`flowcore\.{name}`"
    assert re.search(documented, REFERENCE, re.M)


def test_all_exceptions_are_in_the_reference():
    assert ".. automodule:: flowcore.errors\n" in REFERENCE
    assert all(inspect.getdoc(getattr(errors, name)) for name in errors.__all__)


@pytest.mark.parametrize("name", testing.__all__)
def test_what_the_tests_of_plugins_use_is_in_the_reference(name):
    documented = rf"^\.\. autoclass:: flowcore\.testing\.{name}\(\)$|^`flowcore\.testing\.{name}`"
    assert re.search(documented, REFERENCE, re.M)


@pytest.mark.parametrize("environment", environments())
def test_an_environment_of_tox_is_documented(environment):
    assert re.search(rf"^\| `{environment}` \| \S", read("docs/development.md"), re.M)


def test_the_picture_of_the_house_shows_the_rooms_that_import_linter_holds():
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract["layers"] for contract in contracts if "layers" in contract)
    picture = re.search(r"^```text\n(.*?)^```$", read("docs/design/house.md"), re.M | re.S)
    assert [line.split()[0] for line in picture[1].splitlines()] == rooms[::-1]


def test_the_package_has_no_room_that_the_picture_does_not_show():
    modules = {path.stem for path in (ROOT / "flowcore").iterdir() if not path.name.startswith("_")}
    picture = re.search(r"^```text\n(.*?)^```$", read("docs/design/house.md"), re.M | re.S)
    assert modules - {"py"} == {line.split()[0] for line in picture[1].splitlines()}
