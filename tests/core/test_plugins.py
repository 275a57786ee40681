"""Plugins are found by name in the metadata of what is installed, and imported when first used.

The metadata is real: each test puts ``dist-info`` folders on ``sys.path``.
"""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

import flowcore as fc
from flowcore.cli import main
from flowcore.errors import (
    AmbiguousPlugin,
    ArgumentError,
    BrokenPlugin,
    PluginError,
    UnknownAction,
    UnknownPlugin,
)

if TYPE_CHECKING:
    from pathlib import Path

SINK = """
import flowcore

class TheSink(flowcore.Sink):
    def put(self, item, cancel):
        pass
"""

EXECUTOR = """
import flowcore
from flowcore.executors.serial import SerialExecutor

class TheExecutor(SerialExecutor):
    run_options = {"region": "where its machines are"}
    made = []

    def __init__(self, num_workers, region="here"):
        super().__init__()
        self.made.append((num_workers, region))
"""

PACK = """
from flowcore import action

run_options = {"language": "what greetings are in"}

@action
def greet(batch, greeting="hello"):
    batch.data = f"{greeting} in {batch.options.get('language', 'English')}"
    return batch

def unmarked(batch):
    return batch
"""


class Site:
    """A folder of installed distributions, first on ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: set[str] = set()
        self._ticks = itertools.count()

    def install(self, name: str, entry_points: str, version: str = "1.0", **modules: str) -> Path:
        """Make a distribution, with its modules by name; return its folder of metadata."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, source in modules.items():
            (self.folder / f"{module}.py").write_text(source)
        self.modules |= set(modules)
        self.changed()
        return info

    def uninstall(self, info: Path) -> None:
        """Remove what `install` returned."""
        shutil.rmtree(info)
        self.changed()

    def changed(self) -> None:
        """Let the folder's time pass: two changes may fall into one tick of its clock."""
        now = self.folder.stat().st_mtime_ns
        os.utime(self.folder, ns=(now, now + 1_000_000_000 * (1 + next(self._ticks))))
        importlib.invalidate_caches()

    def fresh(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in a process of its own, which has the same distributions."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder.parent,
            env=os.environ | {"PYTHONPATH": str(self.folder)} | variables,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWCORE_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("FLOWCORE_ENABLE_PLUGINS", raising=False)
    site = Site(folder)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def only_the_core():
    others = {info.distribution for info in fc.plugins()} - {"flowcore"}
    if others:
        pytest.skip(f"needs the core alone; installed too: {', '.join(sorted(others))}")


def listed(distribution: str) -> list[tuple[str, str]]:
    return [(info.group, info.name) for info in fc.plugins() if info.distribution == distribution]


class TestListing:
    def test_a_plugin_is_listed_with_what_its_metadata_says(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = acme_log:Log\n", version="2.1")
        (info,) = (info for info in fc.plugins() if info.distribution == "acme")
        assert (info.name, info.group, info.distribution, info.version, info.target) == (
            "log", "flowcore.sinks", "acme", "2.1", "acme_log:Log",
        )  # fmt: skip

    def test_the_list_is_sorted_by_group_name_and_distribution(self, site):
        site.install("zeta", "[flowcore.sinks]\nb = m:B\na = m:A\n[flowcore.actions]\nz = m\n")
        site.install("acme", "[flowcore.sinks]\nb = m:B\n[flowcore.hooks]\nh = m\n")
        infos = [info for info in fc.plugins() if info.distribution in ("zeta", "acme")]
        assert [(info.group, info.name, info.distribution) for info in infos] == [
            ("flowcore.actions", "z", "zeta"),
            ("flowcore.hooks", "h", "acme"),
            ("flowcore.sinks", "a", "zeta"),
            ("flowcore.sinks", "b", "acme"),
            ("flowcore.sinks", "b", "zeta"),
        ]

    def test_a_group_can_be_listed_alone(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = m:Log\n[flowcore.actions]\ntext = m\n")
        assert "text" in [info.name for info in fc.plugins("flowcore.actions")]
        assert "log" not in [info.name for info in fc.plugins("flowcore.actions")]

    def test_the_cores_own_executors_are_plugins_like_all_others(self):
        assert listed("flowcore") == [
            ("flowcore.executors", "serial"),
            ("flowcore.executors", "threads"),
        ]

    def test_entry_points_of_other_groups_are_not_plugins(self, site):
        site.install("acme", "[console_scripts]\nacme = m:main\n[flowcore.other]\nx = m:X\n")
        assert listed("acme") == []

    def test_listing_completing_and_failing_to_find_import_nothing(self, site):
        site.install(
            "acme",
            "[flowcore.sinks]\nlog = acme_mod:Log\n[flowcore.actions]\ntext = acme_mod\n"
            "[flowcore.executors]\ncloud = acme_mod:Cloud\n[flowcore.hooks]\nwatch = acme_mod\n",
            acme_mod="raise AssertionError('imported')",
        )
        fc.plugins()
        assert {"put_into_log", "text"} <= set(dir(fc.Pipeline()))
        with pytest.raises(UnknownPlugin):
            fc.sink("lag")
        with pytest.raises(UnknownAction):
            fc.Dataset(2).p.test  # noqa: B018
        assert "acme_mod" not in sys.modules

    def test_importing_flowcore_imports_no_plugin(self, site):
        site.install("acme", "[flowcore.hooks]\nwatch = acme_mod\n", acme_mod="raise SystemExit(9)")
        done = site.fresh("-c", "import flowcore; flowcore.plugins()")
        assert (done.returncode, done.stderr) == (0, "")

    def test_of_a_distribution_that_is_on_the_path_twice_the_first_counts(
        self, site, tmp_path, monkeypatch
    ):
        site.install("acme", "[flowcore.sinks]\nold = m:S\n", version="1.0")
        (tmp_path / "nearer").mkdir()
        monkeypatch.syspath_prepend(tmp_path / "nearer")
        Site(tmp_path / "nearer").install("acme", "[flowcore.sinks]\nnew = m:S\n", version="2.0")
        assert listed("acme") == [("flowcore.sinks", "new")]

    def test_a_distribution_whose_metadata_is_damaged_does_not_hide_the_others(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = m:Log\n")
        (site.install("damaged", "[flowcore.sinks]\nlost = m:S\n") / "METADATA").unlink()
        assert listed("acme") == [("flowcore.sinks", "log")]


class TestATarget:
    @pytest.mark.parametrize("target", ["m_mod:Out.In", "m_mod : Out.In [extra]", " m_mod:Out.In "])
    def test_it_may_be_an_attribute_of_an_attribute_with_spaces_and_extras(self, site, target):
        source = SINK.replace("TheSink", "In")
        source += "\nclass Out:\n    pass\nOut.In = In\n"
        site.install("acme", f"[flowcore.sinks]\nlog = {target}\n", m_mod=source)
        assert type(fc.sink("log")).__name__ == "In"

    def test_it_may_be_a_module_of_a_package(self, site):
        (site.folder / "pack").mkdir()
        (site.folder / "pack" / "words.py").write_text(PACK)
        site.install("acme", "[flowcore.actions]\nspeech = pack.words\n")
        assert dir(fc.Pipeline().speech) == ["greet"]
        site.modules |= {"pack", "pack.words"}

    @pytest.mark.parametrize("target", ["", ":Log", ".m:Log", "not a module:Log"])
    def test_one_that_names_nothing_is_a_broken_plugin(self, site, target):
        site.install("acme", f"[flowcore.sinks]\nlog = {target}\n")
        with pytest.raises(BrokenPlugin, match="sink 'log' could not be imported"):
            fc.sink("log")


class TestAnUnknownName:
    def test_it_is_refused_with_the_names_that_are_installed(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = m:Log\ntable = m:Table\n")
        with pytest.raises(UnknownPlugin, match="no sink is called 'xyz'") as caught:
            fc.sink("xyz")
        assert {"log", "table"} <= set(_part("why", caught).partition(": ")[2].split(", "))

    def test_a_near_match_is_offered(self, site):
        site.install("acme", "[flowcore.sinks]\nparquet = m:P\n")
        with pytest.raises(UnknownPlugin) as caught:
            fc.sink("parket")
        assert "did you mean 'parquet'?" in _part("next", caught)

    @pytest.mark.usefixtures("only_the_core")
    @pytest.mark.parametrize(
        ("asked", "package"),
        [
            ("tf-queue", "'flowcore-tf-queue[cpu]'"),
            ("tf-que", "'flowcore-tf-queue[cpu]'"),
            ("null", "flowcore-null"),
            ("numpy-buffer", "flowcore-numpy-buffer"),
            ("numpybuffer", "flowcore-numpy-buffer"),
        ],
    )
    def test_for_the_projects_own_sinks_the_package_to_install_is_named(self, asked, package):
        with pytest.raises(UnknownPlugin) as caught:
            fc.sink(asked)
        assert f"pip install {package}" in _part("next", caught)

    @pytest.mark.usefixtures("only_the_core")
    def test_put_into_a_sink_of_the_project_that_is_not_installed_names_its_package(self):
        with pytest.raises(UnknownPlugin, match="no sink is called 'tf-queue'") as caught:
            fc.Dataset(3).p.put_into_tf_queue(queue=object())
        assert "pip install 'flowcore-tf-queue[cpu]'" in _part("next", caught)

    @pytest.mark.usefixtures("only_the_core")
    def test_an_action_pack_of_the_project_that_is_not_installed_names_its_package(self):
        with pytest.raises(AttributeError, match="called 'arrays'") as caught:
            fc.Dataset(3).p.arrays.cast("float32")
        assert "pip install flowcore-arrays" in _part("next", caught)

    def test_a_pipeline_has_no_such_attribute(self):
        assert not hasattr(fc.Pipeline(), "put_into_nowhere")

    @pytest.mark.parametrize("prefetch", [None, 0, 2])
    def test_an_executor_is_refused_before_the_run_begins(self, prefetch):
        with pytest.raises(UnknownPlugin, match="no executor is called 'thread'") as caught:
            fc.Dataset(3).p.gen_batch(1, executor="thread", prefetch=prefetch)
        assert "did you mean 'threads'?" in _part("next", caught)


class TestABrokenPlugin:
    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("def", "SyntaxError: invalid syntax"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("", "AttributeError: module 'acme_mod' has no attribute 'Log'"),
        ],
    )
    def test_the_error_names_the_distribution_and_the_reason(self, site, source, reason):
        site.install("acme", "[flowcore.sinks]\nlog = acme_mod:Log\n", acme_mod=source)
        with pytest.raises(BrokenPlugin, match="sink 'log' could not be imported") as caught:
            fc.Dataset(3).p.put_into_log()
        assert reason in str(caught.value)
        assert _part("where", caught) == "acme_mod:Log, of the distribution acme 1.0"
        assert type(caught.value.__cause__).__name__ == reason.partition(":")[0]

    def test_other_names_of_the_same_distribution_are_not_affected(self, site):
        site.install(
            "acme",
            "[flowcore.sinks]\nbad = acme_bad:Bad\ngood = acme_good:TheSink\n",
            acme_bad="1 / 0",
            acme_good=SINK,
        )
        with pytest.raises(BrokenPlugin):
            fc.sink("bad")
        assert isinstance(fc.sink("good"), fc.Sink)

    def test_it_works_once_it_is_repaired_in_the_same_process(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = acme_mod:TheSink\n", acme_mod="1 / 0")
        with pytest.raises(BrokenPlugin):
            fc.sink("log")
        (site.folder / "acme_mod.py").write_text(SINK)
        site.changed()
        assert isinstance(fc.sink("log"), fc.Sink)

    def test_an_action_pack_breaks_when_an_action_of_it_is_asked_for(self, site):
        site.install("acme", "[flowcore.actions]\ntext = acme_mod\n", acme_mod="1 / 0")
        pack = fc.Dataset(3).p.text
        with pytest.raises(BrokenPlugin, match="action pack 'text' could not be imported"):
            pack.lower()

    def test_a_hook_plugin_is_left_out_of_the_runs_with_one_warning(self, site):
        site.install("acme", "[flowcore.hooks]\nwatch = acme_mod\n", acme_mod="1 / 0")
        with pytest.warns(RuntimeWarning, match="'watch' could not be imported") as warned:
            reports = [fc.Dataset(3).p.run(1) for _ in range(2)]
        assert [report.batches for report in reports] == [3, 3]
        assert len(warned) == 1


class TestANameOfTwoDistributions:
    @pytest.fixture(autouse=True)
    def two(self, site):
        for name in ("acme", "rival-flow"):
            module = f"{name[:4]}_mod"
            site.install(
                name,
                f"[flowcore.sinks]\nlog = {module}:TheSink\n"
                f"[flowcore.executors]\ncloud = {module}_executor:TheExecutor\n"
                f"[flowcore.actions]\nspeech = {module}_pack\n",
                **{module: SINK, f"{module}_executor": EXECUTOR, f"{module}_pack": PACK},
            )

    @pytest.mark.parametrize(
        "use",
        [
            pytest.param(lambda pipeline: fc.sink("log"), id="fc.sink"),
            pytest.param(lambda pipeline: pipeline.put_into("log"), id="put_into"),
            pytest.param(lambda pipeline: pipeline.put_into_log(), id="put_into_log"),
            pytest.param(lambda pipeline: pipeline.gen_batch(1, sink="log"), id="sink="),
            pytest.param(lambda pipeline: pipeline.gen_batch(1, executor="cloud"), id="executor="),
            pytest.param(lambda pipeline: pipeline.speech.greet(), id="pack"),
        ],
    )
    def test_it_is_an_error_on_use_that_names_both_and_how_to_choose(self, use):
        with pytest.raises(AmbiguousPlugin, match="acme and rival-flow each declare") as caught:
            use(fc.Dataset(3).p)
        assert "name one of them: 'acme:" in _part("next", caught)

    @pytest.mark.parametrize(
        ("name", "module"), [("acme:log", "acme_mod"), ("rival-flow:log", "riva_mod")]
    )
    def test_with_the_distributions_name_before_it_it_is_that_ones(self, name, module):
        assert type(fc.sink(name)).__module__ == module
        (step,) = fc.Dataset(3).p.put_into(name).steps
        assert type(step.sink).__module__ == module
        assert "acme_mod" not in sys.modules or "riva_mod" not in sys.modules

    @pytest.mark.parametrize("spelling", ["Rival_Flow", "rival.flow", "RIVAL-FLOW"])
    def test_a_distributions_name_may_be_spelled_as_installers_let_it(self, spelling, monkeypatch):
        assert type(fc.sink(f"{spelling}:log")).__module__ == "riva_mod"
        monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", spelling)
        assert listed("rival-flow") == []

    def test_a_sink_is_called_by_its_plain_name_in_the_results(self):
        pipeline = fc.Dataset(3, preloaded=np.arange(3)).p
        assert list(pipeline.put_into("acme:log").run(1).results) == ["log"]
        assert list(pipeline.run(1, sink="acme:log").results) == ["log"]

    def test_an_executor_is_chosen_so_too(self):
        assert fc.Dataset(3).p.run(1, executor="acme:cloud", prefetch=1).batches == 3
        assert sys.modules["acme_mod_executor"].TheExecutor.made

    def test_a_distribution_that_does_not_declare_the_name_is_refused(self):
        with pytest.raises(UnknownPlugin, match="no sink is called 'flowcore:log'"):
            fc.sink("flowcore:log")

    def test_it_is_plain_again_when_one_of_them_is_disabled(self, monkeypatch):
        monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "acme")
        assert type(fc.sink("log")).__module__ == "riva_mod"

    def test_the_same_name_in_two_groups_is_two_names(self, site):
        site.install("third", "[flowcore.actions]\nlog = third_mod\n", third_mod=PACK)
        assert fc.Dataset(3).p.log.greet().next_batch(1).data == "hello in English"


SWITCHES = [
    ({}, {"serial", "threads", "log", "table", "text"}),
    ({"FLOWCORE_DISABLE_PLUGINS": "log"}, {"serial", "threads", "table", "text"}),
    ({"FLOWCORE_DISABLE_PLUGINS": "acme"}, {"serial", "threads", "text"}),
    ({"FLOWCORE_DISABLE_PLUGINS": " log, words ,"}, {"serial", "threads", "table"}),
    ({"FLOWCORE_ENABLE_PLUGINS": "table"}, {"serial", "threads", "table"}),
    ({"FLOWCORE_ENABLE_PLUGINS": "acme"}, {"serial", "threads", "log", "table"}),
    ({"FLOWCORE_ENABLE_PLUGINS": "log,text"}, {"serial", "threads", "log", "text"}),
    (
        {"FLOWCORE_ENABLE_PLUGINS": "acme", "FLOWCORE_DISABLE_PLUGINS": "log"},
        {"serial", "threads", "table"},
    ),
    ({"FLOWCORE_ENABLE_PLUGINS": "", "FLOWCORE_DISABLE_PLUGINS": "threads,acme,words"}, {"serial"}),
]


class TestSwitchingOff:
    @pytest.fixture(autouse=True)
    def two(self, site):
        site.install(
            "acme", "[flowcore.sinks]\nlog = acme_mod:TheSink\ntable = m:T\n", acme_mod=SINK
        )
        site.install("words", "[flowcore.actions]\ntext = m\n")

    @pytest.mark.parametrize(("variables", "names"), SWITCHES)
    def test_the_environment_disables_or_enables_by_name_and_by_distribution(
        self, monkeypatch, variables, names
    ):
        fc.plugins()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        known = {"flowcore", "acme", "words"}
        assert {info.name for info in fc.plugins() if info.distribution in known} == names

    @pytest.mark.parametrize(("variables", "names"), SWITCHES[1::5])
    def test_a_program_that_is_started_so_sees_the_same(self, site, variables, names):
        done = site.fresh(
            "-c",
            "import flowcore as fc\n"
            "known = {'flowcore', 'acme', 'words'}\n"
            "print(*(info.name for info in fc.plugins() if info.distribution in known))",
            **variables,
        )
        assert (set(done.stdout.split()), done.stderr) == (names, "")

    def test_a_name_that_is_switched_off_says_so(self, monkeypatch):
        monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "acme")
        with pytest.raises(UnknownPlugin) as caught:
            fc.sink("log")
        assert _part("next", caught) == "switched off by the environment: log, table"

    def test_a_plugin_of_the_project_that_is_switched_off_is_not_to_be_installed(
        self, site, monkeypatch
    ):
        site.install("flowcore-null", "[flowcore.sinks]\nnull = m:S\n")
        monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "null")
        with pytest.raises(UnknownPlugin) as caught:
            fc.sink("null")
        assert _part("next", caught) == "switched off by the environment: null"


class TestInstallingWhileTheProcessRuns:
    def test_what_is_installed_is_seen(self, site):
        with pytest.raises(UnknownPlugin):
            fc.sink("log")
        site.install("acme", "[flowcore.sinks]\nlog = acme_mod:TheSink\n", acme_mod=SINK)
        assert isinstance(fc.sink("log"), fc.Sink)

    def test_what_is_uninstalled_is_gone(self, site):
        info = site.install("acme", "[flowcore.sinks]\nlog = acme_mod:TheSink\n", acme_mod=SINK)
        assert isinstance(fc.sink("log"), fc.Sink)
        site.uninstall(info)
        with pytest.raises(UnknownPlugin):
            fc.sink("log")
        assert not hasattr(fc.Pipeline(), "put_into_log")

    def test_a_folder_that_is_put_on_the_path_is_seen(self, tmp_path, monkeypatch):
        Site(tmp_path).install("acme", "[flowcore.sinks]\nlog = m:Log\n")
        assert listed("acme") == []
        monkeypatch.syspath_prepend(tmp_path)
        assert listed("acme") == [("flowcore.sinks", "log")]


class TestAnObjectOfTheWrongKind:
    @pytest.mark.parametrize("target", ["Plain", "number", "make"])
    def test_a_sink_that_is_none_is_refused_with_its_distribution(self, site, target):
        site.install(
            "acme",
            f"[flowcore.sinks]\nlog = acme_mod:{target}\n",
            acme_mod="class Plain: pass\nnumber = 3\ndef make(): return 3\n",
        )
        with pytest.raises(PluginError, match="sink 'log'") as caught:
            fc.sink("log")
        assert f"acme_mod:{target}, of the distribution acme" in str(caught.value)

    @pytest.mark.parametrize("target", ["Plain", "number", "make"])
    def test_an_executor_that_is_none_is_refused_with_its_distribution(self, site, target):
        site.install(
            "acme",
            f"[flowcore.executors]\ncloud = acme_mod:{target}\n",
            acme_mod="class Plain: pass\nnumber = 3\ndef make(num_workers): return 3\n",
        )
        with pytest.raises(PluginError, match="executor 'cloud'") as caught:
            fc.Dataset(3).p.run(1, executor="cloud", prefetch=1)
        assert f"acme_mod:{target}, of the distribution acme" in str(caught.value)

    def test_a_function_of_a_pack_that_is_not_marked_is_no_action(self, site):
        site.install("acme", "[flowcore.actions]\nspeech = acme_mod\n", acme_mod=PACK)
        with pytest.raises(UnknownAction, match="'speech' has no action 'unmarked'") as caught:
            fc.Dataset(3).p.speech.unmarked()
        assert _part("why", caught) == "it has: greet"


class TestAnExecutor:
    @pytest.fixture
    def made(self, site):
        site.install(
            "acme", "[flowcore.executors]\ncloud = acme_mod:TheExecutor\n", acme_mod=EXECUTOR
        )
        return importlib.import_module("acme_mod").TheExecutor.made

    def test_it_is_made_with_num_workers_and_its_own_options(self, made):
        fc.Dataset(3).p.run(1, executor="cloud", num_workers=3, region="moon")
        assert made == [(3, "moon")]

    def test_an_option_of_its_own_that_is_not_given_has_its_default(self, made):
        fc.Dataset(3).p.run(1, executor="cloud", num_workers=2)
        assert made == [(2, "here")]

    def test_its_option_is_unknown_to_a_run_without_it(self, made):
        with pytest.raises(ArgumentError, match="unknown option 'region'"):
            fc.Dataset(3).p.run(1, executor="threads", region="moon")

    def test_an_option_that_nobody_declares_is_refused_with_what_it_declares(self, made):
        with pytest.raises(ArgumentError, match="unknown option 'regoin'") as caught:
            fc.Dataset(3).p.run(1, executor="cloud", num_workers=1, regoin="moon")
        assert "region (where its machines are)" in _part("why", caught)
        assert "did you mean 'region'?" in _part("next", caught)


class TestAnActionPack:
    @pytest.fixture
    def pipeline(self, site):
        site.install("acme", "[flowcore.actions]\nspeech-acts = acme_mod\n", acme_mod=PACK)
        return fc.Dataset(4).p

    def test_its_actions_are_steps_under_its_name_as_an_identifier(self, pipeline):
        assert pipeline.speech_acts.greet("hi").next_batch(2).data == "hi in English"

    def test_its_arguments_are_checked_where_the_step_is_written(self, pipeline):
        with pytest.raises(ArgumentError, match=r"speech_acts\.greet\(greeting='hello'\)"):
            pipeline.speech_acts.greet(loud=True)

    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_a_run_option_that_it_declares_is_on_the_batch(self, pipeline, prefetch):
        run = pipeline.speech_acts.greet().gen_batch(2, prefetch=prefetch, language="Dutch")
        assert [batch.data for batch in run] == ["hello in Dutch"] * 2

    def test_its_run_option_is_unknown_to_a_pipeline_without_it(self, pipeline):
        with pytest.raises(ArgumentError, match="unknown option 'language'"):
            pipeline.run(2, language="Dutch")

    def test_it_may_be_an_object(self, site):
        source = (
            "from flowcore import action\n"
            "class Pack:\n"
            "    @action\n"
            "    def count(self, batch):\n"
            "        batch.data = len(batch)\n"
            "        return batch\n"
            "pack = Pack()\n"
        )
        site.install("acme", "[flowcore.actions]\nnumbers = acme_mod:pack\n", acme_mod=source)
        assert dir(fc.Pipeline().numbers) == ["count"]
        assert fc.Dataset(4).p.numbers.count().next_batch(3).data == 3


class TestTheCommand:
    @pytest.fixture(autouse=True)
    def good_and_bad(self, site):
        site.install("acme", "[flowcore.sinks]\nlog = acme_mod:TheSink\n", "2.1", acme_mod=SINK)
        site.install("broken", "[flowcore.sinks]\nbad = bad_mod:Bad\n", bad_mod="1 / 0")

    def test_plugins_lists_all_and_imports_none(self, capsys):
        assert main(["plugins"]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["flowcore.sinks", "log", "acme", "2.1", "acme_mod:TheSink"] in rows
        assert ["flowcore.sinks", "bad", "broken", "1.0", "bad_mod:Bad"] in rows
        assert not {"acme_mod", "bad_mod"} & set(sys.modules)

    def test_plugins_check_marks_what_is_broken_says_why_and_fails(self, capsys):
        assert main(["plugins", "--check"]) == 1
        printed = capsys.readouterr().out
        assert [line.split()[1] for line in printed.splitlines() if "BROKEN" in line] == ["bad"]
        assert "ZeroDivisionError: division by zero" in printed

    def test_plugins_check_succeeds_where_the_broken_one_is_disabled(self, monkeypatch):
        monkeypatch.setenv("FLOWCORE_DISABLE_PLUGINS", "broken")
        assert main(["plugins", "--check"]) == 0

    @pytest.mark.parametrize(("arguments", "code"), [(["plugins"], 0), (["plugins", "--check"], 1)])
    def test_a_process_of_its_own_has_that_exit_code(self, site, arguments, code):
        done = site.fresh("-m", "flowcore", *arguments)
        assert (done.returncode, done.stderr) == (code, "")


def _part(name: str, caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Return one of the four parts of an error's message."""
    lines = (line.strip() for line in str(caught.value).splitlines())
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
