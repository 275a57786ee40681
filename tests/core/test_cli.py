"""The command line: what it prints, and with which code it ends."""

import subprocess
import sys

import pytest

import flowcore
from flowcore.cli import main

PIPES = """
import flowcore as fc
class Numbers(fc.Batch):
    @fc.action
    def load(self): self.data = self.positions; return self
    @fc.action
    def fail(self): raise ValueError("broken")
dataset = fc.Dataset(10, Numbers)
pipe = dataset.p.load()
failing = pipe.fail()
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Be in a folder with a module of pipelines."""
    (tmp_path / "cli_pipes.py").write_text(PIPES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("cli_")]:
        del sys.modules[name]


@pytest.fixture
def files_sink(install):
    """Have a sink called ``files`` installed, that has two options."""
    install(
        "files-sink",
        "[flowcore.sinks]\nfiles = files_sink:Files\n",
        files_sink="""
from flowcore import Sink
class Files(Sink):
    def __init__(self, folder, size=1): self.asked = folder, size
    def put(self, item, cancel): pass
    @property
    def result(self): return self.asked
""",
    )


def test_plugins_lists_what_is_installed(capsys):
    assert main(["plugins"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["group", "name", "distribution", "target"]
    assert [
        "flowcore.executors",
        "threads",
        "flowcore",
        flowcore.__version__,
        "flowcore.executors.threads:ThreadsExecutor",
    ] in rows


def test_plugins_imports_nothing_and_check_says_what_is_broken(install, capsys):
    install(
        "bad-plugin",
        "[flowcore.sinks]\nbad = cli_bad_plugin:Sink\n",
        cli_bad_plugin="raise OSError('no such device')",
    )
    assert main(["plugins"]) == 0
    assert "BROKEN" not in capsys.readouterr().out
    assert main(["plugins", "--check"]) == 1
    printed = capsys.readouterr().out
    assert "cli_bad_plugin:Sink  BROKEN" in printed
    assert "OSError: no such device" in printed
    assert "threads:ThreadsExecutor  BROKEN" not in printed


@pytest.mark.usefixtures("folder")
def test_describe_prints_the_steps(capsys):
    assert main(["describe", "cli_pipes:pipe"]) == 0
    assert capsys.readouterr().out == "Pipeline over 10 items, Numbers\n  1. .load()\n"


@pytest.mark.usefixtures("folder")
def test_a_dataset_stands_for_its_empty_pipeline(capsys):
    assert main(["describe", "cli_pipes:dataset"]) == 0
    assert capsys.readouterr().out == "Pipeline over 10 items, Numbers\n"


@pytest.mark.usefixtures("folder")
def test_run_prints_the_report(capsys):
    command = "run cli_pipes:pipe --batch-size 4 --n-epochs 2 --drop-last --shuffle --seed 7"
    assert main([*command.split(), "--prefetch", "2", "--num-workers", "1"]) == 0
    table = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert (table["batches"], table["items"], table["seed"]) == ("4", "16", "7")


@pytest.mark.usefixtures("folder", "files_sink")
def test_run_sends_the_batches_into_a_sink_with_its_options(capsys):
    options = ["--sink-option", "folder=out", "--sink-option", "size=3"]
    assert main(["run", "cli_pipes:pipe", "--batch-size=5", "--sink=files", *options]) == 0
    assert "files: ('out', 3)" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_run_may_skip_what_fails(capsys):
    assert main(["run", "cli_pipes:failing", "--batch-size", "5", "--on-error", "skip"]) == 0
    assert "skipped batch 1 of epoch 0" in capsys.readouterr().out


MISTAKES = {
    "describe cli_pipes": "MODULE:PIPELINE",
    "describe cli_pipes:": "MODULE:PIPELINE",
    "describe :pipe": "MODULE:PIPELINE",
    "describe .cli_pipes:pipe": "MODULE:PIPELINE",
    "describe cli_nowhere:pipe": "no module 'cli_nowhere'",
    "describe cli_pipes.py:pipe": "leave .py off: cli_pipes:pipe",
    "describe cli_pipes:pip": "did you mean 'pipe'",
    "describe cli_pipes:number": "int, not a pipeline",
    "run cli_pipes:pipe --batch-size 0": "batch_size must be an int of at least 1",
    "run cli_pipes:pipe --batch-size 2 --prefetch -1": "prefetch",
    "run cli_pipes:pipe --batch-size 2 --executor thraeds": "did you mean 'threads'",
    "run cli_pipes:pipe --batch-size 2 --sink nowhere": "no sink is called 'nowhere'",
    "run cli_pipes:pipe --batch-size 2 --sink-option a=1": "--sink-option needs --sink",
    "run cli_pipes:pipe --batch-size 2 --sink files": "'folder'",
    "run cli_pipes:pipe --batch-size 2 --sink files --sink-option folder": "KEY=VALUE",
    "run cli_pipes:pipe --batch-size 2 --sink files --sink-option x=1": "takes: folder, size",
}


@pytest.mark.usefixtures("folder", "files_sink")
@pytest.mark.parametrize(("command", "said"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_gets_a_message_and_the_exit_code_2(command, said, capsys):
    assert main(command.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("folder", "files_sink")
@pytest.mark.parametrize(
    "value", ["{[]: 1}", "'", "1" * 5000, "(" * 300], ids=lambda text: text[:8]
)
def test_a_sink_option_that_is_no_literal_is_text(value, capsys):
    command = ["run", "cli_pipes:pipe", "--batch-size=5", "--sink=files"]
    assert main([*command, "--sink-option", f"folder={value}"]) == 0
    assert "files:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "fly", "run", "run m:p --batch-size x", "plugins --chekc"])
def test_a_command_that_does_not_exist_ends_with_code_2(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(command.split())
    assert "usage: flowcore" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_an_error_in_an_action_keeps_its_traceback():
    with pytest.raises(ValueError, match="broken"):
        main(["run", "cli_pipes:failing", "--batch-size", "5"])


def test_an_import_that_fails_inside_of_the_module_keeps_its_traceback(folder):
    (folder / "cli_importing.py").write_text("import cli_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="cli_not_there"):
        main(["describe", "cli_importing:pipe"])


@pytest.mark.usefixtures("folder")
def test_a_ctrl_c_ends_with_code_130(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(flowcore.Pipeline, "run", interrupted)
    assert main(["run", "cli_pipes:pipe", "--batch-size", "5"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_python_m_flowcore_finds_modules_in_the_current_folder(folder):
    # -P, as PYTHONSAFEPATH, keeps the interpreter from adding the folder itself
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flowcore", "run", "cli_pipes:pipe", "--batch-size", "4"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["batches", "3"]


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"flowcore {flowcore.__version__}\n"
