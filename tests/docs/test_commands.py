"""The commands that the README promises are those that exist."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREPARED = "python3 -m venv .venv && .venv/bin/pip install -q tox-uv && .venv/bin/tox run"

BLOCKS = re.findall(
    r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
)
commands = [line for block in BLOCKS for line in block.splitlines() if line.startswith(PREPARED)]


def tox():
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", "utf-8")
    return config


def test_the_readme_has_two_commands_one_for_the_demo_and_one_for_the_tests():
    assert commands == [f"{PREPARED} -e demo", PREPARED]


def test_ci_runs_the_readmes_test_command_word_for_word():
    last = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1]
    assert last == commands[-1]


def test_the_demo_is_an_environment_of_tox_that_runs_an_example():
    script = re.fullmatch(r"python (\S+\.py).*", tox()["testenv:demo"]["commands"])
    assert (ROOT / script[1]).is_file()


@pytest.mark.parametrize("name", re.split(r",\s*", tox()["tox"]["env_list"].strip()))
def test_each_environment_of_a_plain_run_is_defined(name):
    sections = [section for section in tox().sections() if section.startswith("testenv:")]
    defined = {part for section in sections for part in re.findall(r"[\w-]+", section[8:])}
    assert name in defined | {"core"}  # core is what [testenv] itself says
