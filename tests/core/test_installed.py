"""The look at installed metadata finds what `importlib_metadata` finds, and survives more.

The metadata is real: each test puts ``dist-info`` folders on ``sys.path``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import importlib_metadata
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.installed import declared, normal

GROUPS = ("flowcore.sinks", "flowcore.hooks")
ENVIRONMENT = [*sys.path]


def write(folder, info, entry_points=None, *, name="acme", version="1.0", file="METADATA"):
    """Write a folder of metadata."""
    path = Path(folder, info)
    path.mkdir(parents=True)
    (path / file).write_bytes(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no header\n".encode()
    )
    if entry_points is not None:
        text = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
        (path / "entry_points.txt").write_bytes(text)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def found():
    return sorted(declared(GROUPS))


def by_library():
    return sorted(
        (one.name, one.group, one.dist.name, one.dist.version, one.value)
        for one in importlib_metadata.entry_points()
        if one.group in GROUPS
    )


names = st.sampled_from(["acme", "Acme", "acme_flow", "acme-flow", "acme.flow", "zeta"])
lines = st.sampled_from(
    [
        *("[flowcore.sinks]", "[flowcore.hooks]", "[console_scripts]", "[ flowcore.sinks ]"),
        *("log = m:Log", "table=m:T [x]", "  watch =  m.n : W  ", "  # a = b", ""),
    ]
)
dists = st.tuples(
    names, st.sampled_from(["1.0", "1.1", "10.0"]), st.none() | st.lists(lines, max_size=8)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(dists, max_size=4), min_size=1, max_size=3))
def test_it_finds_what_the_library_finds(folders):
    with TemporaryDirectory() as base, pytest.MonkeyPatch.context() as patch:
        paths = [os.path.join(base, str(at)) for at in range(len(folders))]
        for path, contents in zip(paths, folders, strict=True):
            for name, version, text in contents:
                info = f"{name}-{version}.dist-info"
                if not os.path.exists(os.path.join(path, info)):
                    joined = None if text is None else "\n".join(text)
                    write(path, info, joined, name=name, version=version)
        patch.setattr(sys, "path", paths)
        importlib_metadata.MetadataPathFinder.invalidate_caches()
        assert found() == by_library()


def test_of_two_in_one_folder_the_one_with_the_greater_name_counts(folder):
    for version in ("1.0", "1.1"):
        text = f"[flowcore.sinks]\nlog = m{version}:Log"
        write(folder, f"acme-{version}.dist-info", text, version=version)
    assert found() == [("log", "flowcore.sinks", "acme", "1.1", "m1.1:Log")]


def test_one_without_entry_points_hides_an_older_self_with_some(folder, tmp_path, monkeypatch):
    write(tmp_path / "near", "acme-2.0.dist-info")
    write(tmp_path / "far", "Acme-1.0.dist-info", "[flowcore.sinks]\nlog = m:Log")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "near"), str(tmp_path / "far")])
    assert found() == []


def test_an_egg_info_folder_is_metadata_too(folder):
    write(folder, "acme.egg-info", "[flowcore.sinks]\nlog = m:Log", file="PKG-INFO")
    assert found() == [("log", "flowcore.sinks", "acme", "1.0", "m:Log")]


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe[flowcore.sinks]\nlog", b"[flowcore.sinks]\nno equals sign\n[", b"[flowcore.sinks]"],
)
def test_entry_points_that_cannot_be_read_hide_no_other(folder, text):
    write(folder, "damaged-1.0.dist-info", text, name="damaged")
    write(folder, "acme-1.0.dist-info", "[flowcore.sinks]\nlog = m:Log")
    assert found() == [("log", "flowcore.sinks", "acme", "1.0", "m:Log")]


@pytest.mark.parametrize("head", ["", "Version: 1.0\n", "Name: damaged\n", "\nName: d\nVersion: 1"])
def test_one_that_does_not_say_what_it_is_called_is_left_out(folder, head):
    info = write(folder, "damaged-1.0.dist-info", "[flowcore.sinks]\nlost = m:S")
    (info / "METADATA").write_text(head)
    assert found() == []


def test_a_file_in_place_of_a_folder_of_metadata_is_passed_over(folder):
    (folder / "acme-1.0.egg-info").write_text("Name: acme\nVersion: 1.0\n")
    (folder / "other-1.0.dist-info" / "entry_points.txt").mkdir(parents=True)
    assert found() == []


def test_lines_may_end_as_on_windows(folder):
    info = write(folder, "acme-1.0.dist-info", "[flowcore.sinks]\r\nlog = m:Log\r\n")
    (info / "METADATA").write_bytes(b"Name: acme\r\nVersion: 1.0\r\n\r\nVersion: none\r\n")
    assert found() == [("log", "flowcore.sinks", "acme", "1.0", "m:Log")]


def test_what_is_in_an_archive_is_found(folder, monkeypatch):
    archive = folder / "all.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("acme-1.0.dist-info/METADATA", "Name: acme\nVersion: 1.0\n")
        packed.writestr("acme-1.0.dist-info/entry_points.txt", "[flowcore.sinks]\nlog = m:Log")
    # Behind it are the folders of the environment: who reads archives may be imported only now.
    monkeypatch.setattr(sys, "path", [str(archive), *ENVIRONMENT])
    assert ("log", "flowcore.sinks", "acme", "1.0", "m:Log") in found()


def test_what_an_import_finder_of_its_own_has_is_found(folder, tmp_path, monkeypatch):
    path = write(tmp_path / "elsewhere", "acme-1.0.dist-info", "[flowcore.sinks]\nlog = m:Log")

    class Finder:
        def find_spec(self, name, path=None, target=None):
            return None

        def find_distributions(self, context):
            return [importlib_metadata.PathDistribution(path)]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert found() == [("log", "flowcore.sinks", "acme", "1.0", "m:Log")]


@pytest.mark.parametrize("path", ["not/there", b"bytes", 7, None])
def test_what_is_no_folder_on_the_path_is_passed_over(folder, monkeypatch, path):
    monkeypatch.setattr(sys, "path", [path, str(folder)])
    write(folder, "acme-1.0.dist-info", "[flowcore.sinks]\nlog = m:Log")
    assert len(found()) == 1


@given(st.text("aB-_.9", min_size=1))
def test_a_name_is_normal_once_and_for_all(name):
    assert normal(normal(name)) == normal(name) == normal(name.upper())


def test_a_look_loads_neither_the_library_nor_a_parser_of_mail():
    code = (
        "import flowcore, sys; assert flowcore.plugins('flowcore.executors')\n"
        "print({'importlib_metadata', 'importlib.metadata', 'email.message'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
