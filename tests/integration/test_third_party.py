"""A stranger's plugins, built as wheels and installed beside the core's in a fresh environment.

``tests/third_party`` holds three projects that are no part of ours: ``acme-flow`` has one plugin of
each kind, ``rival-flow`` a sink of the same name, and ``broken-flow`` cannot be imported. Each test
says which are installed, so none depends on what another left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)  # the first test builds the core's wheel and installs NumPy


class Environment:
    """A virtual environment that holds the core, and the strangers that a test asks for."""

    def __init__(self, folder: Path) -> None:
        scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
        self.python, self.flowcore = scripts / "python", scripts / "flowcore"
        self._folder = folder
        self._strangers: set[str] = set()
        # uv, beside this Python or on the PATH (tox-uv puts it there), is much faster than pip.
        found = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        uv = shutil.which("uv", path=found)
        if uv is None:
            self._pip = [self.python, "-m", "pip"]
            self._checked(sys.executable, "-m", "venv", folder)
        else:
            self._pip = [uv, "pip"]
            self._checked(uv, "venv", "--python", sys.executable, folder)
        self._checked(*self._pip, "install", ROOT)

    def hold(self, *strangers: str) -> None:
        """Have exactly these installed."""
        if surplus := self._strangers - {*strangers}:
            self._checked(*self._pip, "uninstall", *surplus)
        if missing := {*strangers} - self._strangers:
            projects = [ROOT / "tests" / "third_party" / name for name in missing]
            self._checked(*self._pip, "install", *projects)
        self._strangers = {*strangers}

    def start(self, *command: str | Path, **variables: str) -> subprocess.Popen[str]:
        """Start a program away from the checkout, whose flowcore it would import otherwise."""
        outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ours = {"UV_PYTHON": str(self.python), "PIP_YES": "1"}  # where to install; do not ask
        return subprocess.Popen(
            command,
            cwd=self._folder.parent,
            env=outer | ours | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *arguments: str | Path, **variables: str) -> Any:
        """Run a Python program that prints JSON, and return what it printed."""
        program = "import json, sys, numpy as np, flowcore as fc\n" + code
        return json.loads(self._checked(self.python, "-c", program, *arguments, **variables))

    def _checked(self, *command: str | Path, **variables: str) -> str:
        process = self.start(*command, **variables)
        printed, problem = process.communicate()
        assert process.returncode == 0, problem
        return printed


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("third-party") / "environment")


def test_a_strangers_plugins_are_listed_with_their_distribution_and_nothing_is_imported(
    environment,
):
    environment.hold("acme-flow")
    listed, imported = environment.run("""
listed = [
    [info.group, info.name, info.version, info.target]
    for info in fc.plugins()
    if info.distribution == "acme-flow"
]
print(json.dumps([listed, "acme_flow" in sys.modules]))
""")
    assert listed == [
        ["flowcore.actions", "text", "1.0.0", "acme_flow.text"],
        ["flowcore.executors", "background", "1.0.0", "acme_flow.background:BackgroundExecutor"],
        ["flowcore.hooks", "stopwatch", "1.0.0", "acme_flow.stopwatch:stopwatch"],
        ["flowcore.sinks", "json-lines", "1.0.0", "acme_flow.json_lines:JSONLinesSink"],
    ]
    assert not imported


def test_a_strangers_actions_and_sink_are_steps_of_a_pipeline(environment, tmp_path):
    environment.hold("acme-flow")
    environment.run(
        """
texts = np.array(["To be", "or NOT to", "be be be"])
pipeline = fc.Dataset(["a", "b", "c"], preloaded=texts).p.text.lower()
pipeline.put_into_json_lines(path=sys.argv[1]).run(batch_size=2)
pipeline.text.bag_of_words(buckets=1).put_into_json_lines(path=sys.argv[2]).run(batch_size=2)
print("null")
""",
        tmp_path / "lower.jsonl",
        tmp_path / "words.jsonl",
    )
    assert rows(tmp_path / "lower.jsonl") == [
        {"id": "a", "data": "to be"},
        {"id": "b", "data": "or not to"},
        {"id": "c", "data": "be be be"},
    ]
    assert [row["data"] for row in rows(tmp_path / "words.jsonl")] == [[2.0], [3.0], [3.0]]


def test_a_strangers_sink_leaves_the_file_of_an_earlier_run_alone_when_a_run_fails(
    environment, tmp_path
):
    environment.hold("acme-flow")
    path = tmp_path / "out.jsonl"
    path.write_text("earlier\n")
    environment.run(
        """
class Failing(fc.Batch):
    @fc.action
    def fail_late(self):
        if self.number == 2:
            raise ZeroDivisionError
        return self

pipeline = fc.Dataset(3, Failing, np.arange(3)).p.fail_late()
try:
    pipeline.put_into_json_lines(path=sys.argv[1]).run(batch_size=1)
except ZeroDivisionError:
    print("null")
""",
        path,
    )
    assert path.read_text() == "earlier\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_strangers_executor_runs_the_tasks_of_a_run(environment):
    environment.hold("acme-flow")
    threads, noise, expected = environment.run("""
import threading

class Traced(fc.Batch):
    @fc.action
    def trace(self):
        self.data = self.rng.random(len(self))
        self.thread = threading.current_thread().name
        return self

def batches(**options):
    return list(fc.Dataset(5, Traced).p.trace().gen_batch(2, shuffle=True, seed=7, **options))

traced = batches(executor="background", prefetch=2)
print(json.dumps([
    [batch.thread for batch in traced],
    [batch.data.tolist() for batch in traced],
    [batch.data.tolist() for batch in batches(executor="serial")],
]))
""")
    assert threads == ["acme-background"] * 3
    assert noise == expected


def test_a_strangers_hook_plugin_sees_every_run(environment):
    environment.hold("acme-flow")
    delivered, calls, timed = environment.run("""
pipeline = fc.Dataset(6, preloaded=np.array(["a b"] * 6)).p.text.lower().text.bag_of_words()
pipeline.run(batch_size=2)
pipeline.run(batch_size=3, executor="threads", num_workers=2)
from acme_flow.stopwatch import stopwatch
print(json.dumps([stopwatch.delivered, stopwatch.calls, sorted(stopwatch.seconds)]))
""")
    assert delivered == 5
    assert calls == {"text.lower": 5, "text.bag_of_words": 5}
    assert timed == ["text.bag_of_words", "text.lower"]


def test_what_is_installed_and_uninstalled_while_a_program_runs_is_seen(environment):
    environment.hold()
    program = environment.start(
        environment.python,
        "-uc",
        """
import flowcore as fc

for _ in range(3):
    print(*(info.name for info in fc.plugins() if info.distribution == "acme-flow"))
    input()
""",
    )
    lists = []
    for strangers in ["acme-flow"], [], []:
        lists.append(program.stdout.readline().split())
        environment.hold(*strangers)
        program.stdin.write("\n")
        program.stdin.flush()
    _, problem = program.communicate()
    assert program.returncode == 0, problem
    assert lists == [[], ["text", "background", "stopwatch", "json-lines"], []]


def test_uninstalled_names_are_gone(environment):
    environment.hold()
    problems = environment.run("""
pipeline = fc.Dataset(3).p
attempts = [
    lambda: pipeline.put_into_json_lines(path="x"),
    lambda: pipeline.text,
    lambda: pipeline.run(1, executor="background"),
]
problems = []
for attempt in attempts:
    try:
        attempt()
    except fc.errors.FlowcoreError as problem:
        problems.append([type(problem).__name__, str(problem).partition("\\n")[0]])
print(json.dumps(problems))
""")
    assert problems == [
        ["UnknownPlugin", "no sink is called 'json-lines'"],
        ["UnknownAction", "no action, action pack or sink is called 'text'"],
        ["UnknownPlugin", "no executor is called 'background'"],
    ]


COUNT = """
names = sys.argv[1:]
found = []
for name in names:
    try:
        found.append(type(fc.sink(name, path="x")).__name__)
    except fc.errors.AmbiguousPlugin as problem:
        found.append(str(problem))
print(json.dumps(found))
"""


def test_a_name_that_two_distributions_declare_is_used_with_that_of_its_distribution(environment):
    environment.hold("acme-flow", "rival-flow")
    plain, acmes, rivals = environment.run(
        COUNT, "json-lines", "acme-flow:json-lines", "rival-flow:json-lines"
    )
    assert "acme-flow and rival-flow each declare the sink 'json-lines'" in plain
    assert "name one of them: 'acme-flow:json-lines'" in plain
    assert (acmes, rivals) == ("JSONLinesSink", "CountingSink")


def test_a_name_that_two_distributions_declare_is_plain_again_when_one_is_disabled(environment):
    environment.hold("acme-flow", "rival-flow")
    disabled = environment.run(COUNT, "json-lines", FLOWCORE_DISABLE_PLUGINS="acme-flow")
    enabled = environment.run(COUNT, "json-lines", FLOWCORE_ENABLE_PLUGINS="acme-flow")
    assert (disabled, enabled) == (["CountingSink"], ["JSONLinesSink"])


def test_a_broken_distribution_breaks_its_own_names_and_says_why(environment):
    environment.hold("acme-flow", "broken-flow")
    problem, sink, warned, batches = environment.run("""
import warnings

try:
    fc.Dataset(3).p.put_into_broken()
except fc.errors.BrokenPlugin as broken:
    problem = str(broken)
with warnings.catch_warnings(record=True, action="always") as warned:
    for _ in range(2):
        report = fc.Dataset(3).p.run(batch_size=1)
sink = type(fc.sink("json-lines", path="x")).__name__
print(json.dumps([problem, sink, [str(one.message) for one in warned], report.batches]))
""")
    assert "sink 'broken' could not be imported: ModuleNotFoundError" in problem
    assert "'a_library_that_is_not_installed'" in problem
    assert "broken_flow:BrokenSink, of the distribution broken-flow 0.3.0" in problem
    assert sink == "JSONLinesSink"
    assert [text.partition(" could")[0] for text in warned] == [
        "left out a hook plugin: hook plugin 'broken-hook'"
    ]
    assert batches == 3


@pytest.mark.parametrize(
    ("disabled", "exit_code", "broken"),
    [("", 1, 3), ("broken-flow", 0, 0), ("broken,broken-text", 1, 1)],
)
def test_flowcore_plugins_check_lists_what_is_broken_and_not_disabled(
    environment, disabled, exit_code, broken
):
    environment.hold("acme-flow", "broken-flow")
    command = environment.start(
        environment.flowcore, "plugins", "--check", FLOWCORE_DISABLE_PLUGINS=disabled
    )
    printed, problem = command.communicate()
    assert (command.returncode, problem) == (exit_code, "")
    assert printed.count("BROKEN") == broken
    assert printed.count("acme-flow 1.0.0") == 4


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
