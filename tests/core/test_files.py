"""The index over files: what patterns match, what the ids are, and what is refused."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from flowcore import Batch, Dataset, action
from flowcore.errors import OptionError
from flowcore.files import FilesIndex


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder, which is the current one, with files in ``images`` and below."""
    monkeypatch.chdir(tmp_path)
    for name in ["b.png", "a.png", "c.txt", "more/d.png", "more/deep/e.png", ".hidden.png"]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        ("images/*.png", ["a.png", "b.png"]),
        (Path("images") / "*.png", ["a.png", "b.png"]),
        ("images/**/*.png", ["a.png", "b.png", "d.png", "e.png"]),
        ("images/**", ["a.png", "b.png", "c.txt", "d.png", "e.png"]),
        ("images/?.txt", ["c.txt"]),
        ("images/a.png", ["a.png"]),
        (["images/*.txt", "images/a*", "images/*.png"], ["a.png", "b.png", "c.txt"]),
        ("./images/../images/a.png", ["a.png"]),
    ],
    ids=repr,
)
def test_ids_are_the_names_of_the_files_that_patterns_match_sorted_by_path(folder, patterns, ids):
    index = FilesIndex(patterns)
    assert list(index) == ids
    assert index.positions(ids).tolist() == list(range(len(ids)))


def test_a_path_is_absolute_so_that_it_is_right_in_another_folder(folder, monkeypatch):
    index = FilesIndex("images/**/*.png")
    monkeypatch.chdir("/")
    assert index.path("e.png") == folder / "images/more/deep/e.png"
    assert index.path("e.png").read_text() == "more/deep/e.png"


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert FilesIndex("~/images/*.txt").path("c.txt") == folder / "images/c.txt"


def test_the_current_folder_may_have_the_signs_of_patterns_in_its_name(folder, monkeypatch):
    odd = folder / "images[1]"
    odd.mkdir()
    (odd / "x.png").touch()
    monkeypatch.chdir(odd)
    assert FilesIndex("*.png").path("x.png") == odd / "x.png"


def test_folders_may_be_the_items(folder):
    assert list(FilesIndex("images/**/*", folders=True)) == ["more", "deep"]
    assert FilesIndex("images/*", folders=True).path("more") == folder / "images/more"


def test_ids_may_be_names_without_the_suffix(folder):
    index = FilesIndex("images/*.png", name="stem")
    assert list(index) == ["a", "b"]
    assert index.path("b") == folder / "images/b.png"


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        ("images/**/*.png", ["a.png", "b.png", "more/d.png", "more/deep/e.png"]),
        ("images/more/*.png", ["d.png"]),
        ("images/more/*/*.png", ["deep/e.png"]),
        (["images/more/*.png", "images/more/deep/*.png"], ["d.png", "deep/e.png"]),
    ],
    ids=repr,
)
def test_ids_may_be_paths_from_the_folder_that_the_patterns_have_in_common(folder, patterns, ids):
    index = FilesIndex(patterns, name="path")
    assert list(index) == ids
    assert all(index.path(id_).name == Path(id_).name for id_ in ids)


def test_names_that_are_repeated_are_listed_with_their_paths_and_the_way_out(folder):
    for name in ["images/more/a.png", "images/more/deep/b.png"]:
        (folder / name).touch()
    with pytest.raises(OptionError, match="several files each: 2") as raised:
        FilesIndex("images/**/*.png")
    assert f"'a.png': {folder}/images/a.png; 'a.png': {folder}/images/more/a.png" in str(
        raised.value
    )
    assert 'name="path"' in str(raised.value)
    assert len(FilesIndex("images/**/*.png", name="path")) == 6


def test_stems_that_are_repeated_are_listed(folder):
    (folder / "images/a.jpg").touch()
    with pytest.raises(OptionError, match=r"'a': .*a\.jpg; 'a': .*a\.png"):
        FilesIndex("images/a.*", name="stem")


def test_only_the_first_of_many_repeated_names_are_listed(folder):
    for number in range(9):
        (folder / f"images/{number}").mkdir()
        (folder / f"images/{number}/same.png").touch()
    with pytest.raises(OptionError, match="and 4 more"):
        FilesIndex("images/*/same.png")


def test_a_pattern_that_matches_nothing_says_where_it_looked(folder):
    with pytest.raises(OptionError, match=r"no file matches 'images/\*\.jpg'") as raised:
        FilesIndex(["images/*.png", "images/*.jpg"])
    assert f"in {folder}/images" in str(raised.value)


def test_a_pattern_in_a_folder_that_is_not_there_says_so(folder):
    with pytest.raises(OptionError, match="there is no such folder"):
        FilesIndex("picture/*.png")


def test_a_folder_given_for_its_files_gets_the_pattern_of_them(folder):
    with pytest.raises(OptionError, match="it matches 1 folders") as raised:
        FilesIndex("images")
    assert "'images/*'" in str(raised.value)


def test_a_link_that_leads_nowhere_is_listed(folder):
    (folder / "images/broken.png").symlink_to(folder / "missing.png")
    with pytest.raises(OptionError, match="cannot be read") as raised:
        FilesIndex("images/*.png")
    assert f"{folder}/images/broken.png" in str(raised.value)


@pytest.fixture
def nobody():
    """Return a folder that all may read, and become a user whom permissions hold."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        user = os.geteuid()

        def become():
            if user == 0:
                os.seteuid(65534)

        yield Path(folder), become
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no permissions of this kind")
@pytest.mark.parametrize("locked", ["x.png", "sub", "sub/deep"])
def test_what_may_not_be_read_is_listed_and_not_left_out(nobody, locked):
    folder, become = nobody
    (folder / "sub/deep").mkdir(parents=True)
    for name in ["x.png", "y.png", "sub/z.png", "sub/deep/w.png"]:
        (folder / name).touch()
    (folder / locked).chmod(0)
    become()
    try:
        with pytest.raises(OptionError, match=r"1 of what .* leads to cannot be read") as raised:
            FilesIndex(folder / "**/*.png")
    finally:
        (os.seteuid(0) if os.getuid() == 0 else None)
        (folder / locked).chmod(0o755)
    assert str(folder / locked) in str(raised.value)


@pytest.mark.parametrize("patterns", [3, None, [], "", [""], [1], b"x", {"a": 1}.items()], ids=repr)
def test_what_is_no_pattern_is_refused(patterns):
    with pytest.raises(OptionError, match="FilesIndex needs a pattern"):
        FilesIndex(patterns)


def test_an_unknown_kind_of_name_is_refused(folder):
    with pytest.raises(OptionError, match="name must be"):
        FilesIndex("images/*.png", name="base")


def test_parts_of_a_dataset_of_files_know_the_paths(folder):
    dataset = Dataset(FilesIndex("images/**/*.png"))
    part = dataset[["e.png", "a.png"]]
    assert part.index.path("e.png") == folder / "images/more/deep/e.png"
    assert part.without(["e.png"]).index.path("a.png") == folder / "images/a.png"
    with pytest.raises(KeyError, match=r"b\.png"):
        part.index.path("b.png")


def test_two_datasets_of_files_make_one_that_knows_all_paths(folder):
    both = Dataset(FilesIndex("images/*.png")) | Dataset(FilesIndex("images/**/*.png"))
    assert list(both) == ["a.png", "b.png", "d.png", "e.png"]
    assert [both.index.path(id_).name for id_ in both] == list(both)


def test_files_of_one_name_in_two_datasets_are_not_taken_for_one(folder):
    (folder / "images/more/a.png").touch()
    one, other = (Dataset(FilesIndex(f"images/{at}*.png")) for at in ("", "more/"))
    with pytest.raises(OptionError, match=r"'a\.png': .*images/a.png; 'a\.png': .*more/a\.png"):
        one | other


def test_files_and_other_ids_make_no_index_together(folder):
    with pytest.raises(OptionError, match="FilesIndex and Index"):
        Dataset(FilesIndex("images/*.png")) | Dataset(["x"])


def test_a_copy_in_another_process_knows_the_paths(folder):
    index = pickle.loads(pickle.dumps(FilesIndex("images/*.png")))
    assert index.path("a.png") == folder / "images/a.png"
    assert index.ids(np.array([1])).tolist() == ["b.png"]


def test_a_batch_has_the_names_and_an_action_takes_the_paths_from_the_index(folder):
    index = FilesIndex("images/*.png")

    class Texts(Batch):
        @action
        def read(self):
            self.data = [index.path(id_).read_text() for id_ in self.index]
            return self

    (batch,) = Dataset(index, Texts).p.read().gen_batch(5)
    assert batch.data == ["a.png", "b.png"]
