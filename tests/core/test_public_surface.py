"""The names and signatures that programs are written against, and what an import costs."""

import inspect
import os
import subprocess
import sys
from importlib.resources import files

import pytest

import flowcore as fc
from flowcore import errors

ASKED = "batch_size, shuffle=False, n_epochs=1, drop_last=False, prefetch=None, **options"

SIGNATURES = {
    "Dataset": "(index, batch_class=Batch, preloaded=None)",
    "Dataset.__len__": "(self)",
    "Dataset.pipeline": "(self)",
    "Dataset.create_batch": "(self, ids)",
    "Batch.get_tensor": "(self)",
    "Pipeline": "(recipe=None)",
    "Pipeline.next_batch": f"(self, {ASKED})",
    "Pipeline.gen_batch": f"(self, {ASKED})",
    "Pipeline.run": f"(self, {ASKED})",
    "Pipeline.feed": f"(self, {ASKED})",
    "Pipeline.reset": "(self)",
    "Pipeline.put_into": "(self, sink, /, **options)",
    "Pipeline.batch": "(self, number, epoch=0, *, batch_size, shuffle=False, seed=None, **options)",
    "Run.__len__": "(self)",
    "Run.__iter__": "(self)",
    "Run.__next__": "(self)",
    "Run.__enter__": "(self)",
    "Run.__exit__": "(self, *exc)",
    "Run.close": "(self)",
    "Feed.wait": "(self, timeout=None)",
    "Sink.open": "(self, run)",
    "Sink.prepare": "(self, batch)",
    "Sink.put": "(self, item, cancel)",
    "Sink.close": "(self, error)",
    "Cancel.is_set": "(self)",
    "Cancel.wait": "(self, timeout=None)",
    "Cancel.on_set": "(self, callback)",
    "Executor": "(num_workers)",
    "Executor.start": "(self, work)",
    "Executor.submit": "(self, task)",
    "Executor.close": "(self)",
    "sink": "(name, /, **options)",
    "plugins": "(group=None)",
}

PROPERTIES = {
    "Dataset": ["index", "p"],
    "Batch": ["data", "_data", "rng", "indices"],
    "Pipeline": ["steps"],
    "Run": ["seed", "report"],
    "Feed": ["report", "results"],
    "Report": ["results", "seconds"],
    "Sink": ["result"],
}


def find(dotted):
    value = fc
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def untyped(signature):
    """Return a signature as text without its annotations."""
    parameters = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    text = str(inspect.Signature(parameters))
    return text.replace("<class 'flowcore.batch.Batch'>", "Batch")


def test_every_public_name_is_there():
    assert set(fc.__all__) == {name for name in vars(fc) if name in fc.__all__}
    assert {
        "Batch",
        "Cancel",
        "Dataset",
        "Executor",
        "Feed",
        "Index",
        "Pipeline",
        "PluginInfo",
        "Report",
        "Run",
        "Sink",
        "SinkRun",
        "action",
        "errors",
        "hookimpl",
        "plugins",
        "sink",
    } <= set(fc.__all__)


@pytest.mark.parametrize(("name", "signature"), SIGNATURES.items(), ids=SIGNATURES)
def test_a_signature_is_as_promised(name, signature):
    assert untyped(inspect.signature(find(name))) == signature


@pytest.mark.parametrize("owner", PROPERTIES)
def test_a_property_is_as_promised(owner):
    for name in PROPERTIES[owner]:
        assert isinstance(inspect.getattr_static(find(owner), name), property), name


def test_an_action_is_marked_with_or_without_arguments():
    @fc.action
    def one(batch):
        return batch

    @fc.action(singleton=True)
    def other(batch):
        return batch

    dataset = fc.Dataset(1, type("Both", (fc.Batch,), {"one": one, "other": other}))
    assert [step.name for step in dataset.p.one().other().steps] == ["one", "other"]


def test_a_batch_has_the_attributes_that_are_promised():
    batch = fc.Dataset(["a", "b"], preloaded=[1, 2]).create_batch(["b"])
    names = [
        "index",
        "indices",
        "positions",
        "data",
        "_data",
        "number",
        "epoch",
        "rng",
        "components",
    ]
    assert all(hasattr(batch, name) for name in names)
    assert len(batch) == 1


def test_a_report_has_the_attributes_that_are_promised():
    report = fc.Dataset(4).p.run(2)
    assert (report.batches, report.items, report.epochs) == (2, 4, 1)
    assert (report.skipped, report.retried, report.results) == ([], [], {})
    assert report.seconds >= 0


def test_plugin_info_says_what_the_metadata_says():
    (serial,) = [info for info in fc.plugins("flowcore.executors") if info.name == "serial"]
    assert (serial.group, serial.distribution) == ("flowcore.executors", "flowcore")
    assert serial.version == fc.__version__
    assert serial.target == "flowcore.executors.serial:SerialExecutor"


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("PipelineError", ()),
        ("UnknownAction", (errors.PipelineError, AttributeError)),
        ("ArgumentError", (errors.PipelineError, TypeError)),
        ("OptionError", (errors.PipelineError, ValueError)),
        ("RunInProgress", ()),
        ("UnknownPlugin", (LookupError, AttributeError)),
        ("AmbiguousPlugin", ()),
        ("BrokenPlugin", ()),
        ("ActionError", (RuntimeError,)),
        ("DataError", (ValueError,)),
        ("SinkError", ()),
        ("Cancelled", ()),
        ("WorkerLost", ()),
    ],
)
def test_an_error_is_a_flowcore_error_and_what_a_caller_would_expect(name, bases):
    error = getattr(fc.errors, name)
    assert issubclass(error, (fc.errors.FlowcoreError, *bases))
    assert all(issubclass(error, base) for base in bases)


@pytest.mark.parametrize("name", sorted(set(fc.__all__) - {"__version__"}))
def test_a_public_name_says_what_it_is(name):
    value = getattr(fc, name)
    members = vars(value) if inspect.isclass(value) else {}
    public = [getattr(value, one) for one in members if not one.startswith("_")]
    assert inspect.getdoc(value)
    assert [one for one in public if inspect.isfunction(one) and not inspect.getdoc(one)] == []


def test_the_package_says_that_it_is_typed():
    assert files("flowcore").joinpath("py.typed").is_file()


def imported(statement, **environment):
    """Return the names of all modules that a new interpreter has after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_an_import_brings_in_no_framework_no_test_tool_and_no_plugin(install):
    folder = install(
        "loud-plugin",
        "\n".join(
            f"[flowcore.{group}]\nloud = loud_plugin"
            for group in ("sinks", "actions", "executors", "hooks")
        ),
        loud_plugin="raise SystemExit('a plugin was imported')",
    )
    statement = "import flowcore; flowcore.plugins(); dir(flowcore.Dataset(3).p)"
    modules = imported(statement, PYTHONPATH=str(folder))
    assert "flowcore" in modules
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & {
        "tensorflow",
        "torch",
        "jax",
        "pandas",
        "pytest",
        "hypothesis",
        "loud_plugin",
    }
    assert {name for name in tops if name.startswith("flowcore")} == {"flowcore"}
    assert not {name for name in modules if name.startswith(("flowcore.testing", "flowcore.cli"))}


def test_an_import_needs_only_what_the_core_depends_on():
    needed = imported("import importlib.metadata, numpy, pluggy, importlib_metadata")
    names = {name.partition(".")[0] for name in imported("import flowcore")}
    assert names - {name.partition(".")[0] for name in needed} - sys.stdlib_module_names == {
        "flowcore"
    }
