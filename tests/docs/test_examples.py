"""Every Python block of the README files and the docs is run, a page from top to bottom.

The blocks of a page share names: a page is one program. A text block that follows at once is what
the block prints, where ``...`` stands for anything, and a fraction, which may be a time, for any
other. A block with a title, such as
``toml title="pyproject.toml"`` or ``python title="tests/test_words.py"``, is a file. A page that
has them is a project too: its files are there for the blocks, its plugins appear installed as its
``pyproject.toml`` says, and its tests are run at last.
"""

import gc
import os
import re
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
from pytest_examples import find_examples

from flowcore.testing import install

__all__ = ["install"]

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("plugins/*/README.md"))]
BUILT = ROOT / "docs" / "_build"

PAGES = [
    pytest.param(path, list(blocks), id=path.relative_to(ROOT).as_posix())
    for path, blocks in groupby(
        find_examples(*READMES, *(ROOT / "docs").rglob("*.md")), key=lambda block: block.path
    )
    if BUILT not in path.parents
]

FILE = re.compile(r'^```\w+ title="(?P<name>[^"]+)"\n(?P<text>.*?)^```$', re.M | re.S)
OUTPUT = re.compile(r"\s*^ *```text\n(?P<text>.*?)^ *```$", re.M | re.S)


@pytest.mark.parametrize(("path", "blocks"), PAGES)
def test_the_page_runs_from_top_to_bottom(path, blocks, install, tmp_path, monkeypatch, capsys):
    gc.collect()  # of pages before this one: it leaves the runs that they have left open
    monkeypatch.chdir(tmp_path)
    page = path.read_text("utf-8")
    files = {file["name"]: file["text"] for file in FILE.finditer(page)}
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, "utf-8")
    places = [tmp_path / "src"]
    if "pyproject.toml" in files:
        places.append(installed(tomllib.loads(files["pyproject.toml"])["project"], install))
    monkeypatch.syspath_prepend(tmp_path / "src")

    program = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    for block in blocks:
        if "title" not in block.prefix_settings():
            # Not pytest-examples' own way to run it, whose made-up tracebacks upset pytest.
            source = "\n" * block.start_line + block.source  # so that errors show the page's lines
            exec(compile(source, path, "exec"), vars(program))
            printed = capsys.readouterr().out
            rest = "".join(page.splitlines(keepends=True)[block.end_line :])
            if shown := OUTPUT.match(rest):
                assert is_like(printed, shown["text"]), printed
    if Path("tests").exists():
        run_tests(places)


def is_like(printed, shown):
    """Return whether a block printed what the page shows."""
    printed, shown = (re.sub(r" *[\d,]+\.\d+", " #", text) for text in (printed, dedent(shown)))
    return re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".*"), printed, re.S) is not None


def installed(project, install):
    """Make the page's distribution appear installed, and return the folder of its metadata."""
    lines = []
    for group, names in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    return install(project["name"], "\n".join(lines), version=project["version"])


def run_tests(places):
    """Run the page's tests as its reader would, in a process of their own."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "tests"]
    path = os.pathsep.join(map(str, places))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
