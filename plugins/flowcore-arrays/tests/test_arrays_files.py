"""The actions from files and to files: `load` and `dump`."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import flowcore as fc
import flowcore_arrays as arrays
from flowcore.errors import ArgumentError, DataError, OptionError
from flowcore.files import FilesIndex

IMAGES = np.arange(24, dtype="float32").reshape(4, 2, 3)
LABELS = np.array([5, 6, 7, 8])
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Make an empty folder the current one."""
    monkeypatch.chdir(tmp_path)


def dataset(**data):
    return fc.Dataset(NAMES, preloaded=data or {"images": IMAGES, "labels": LABELS})


def everything(dataset=None):
    """Return all items as a batch."""
    return (dataset or globals()["dataset"]()).create_batch(NAMES)


def names(folder="."):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.*"))


def test_what_was_dumped_by_items_is_loaded_again_in_whatever_order():
    dataset().p.arrays.dump("out/{id}.npy", components="images").run(3)

    batch = arrays.load(fc.Batch(["c", "a"]), "out/{id}.npy")

    assert names("out") == ["a.npy", "b.npy", "c.npy", "d.npy"]
    np.testing.assert_array_equal(batch.data, IMAGES[[2, 0]])
    assert batch.data.dtype == IMAGES.dtype


def test_an_npz_file_holds_several_components_by_name():
    arrays.dump(everything(), "{id}.npz")

    batch = arrays.load(fc.Batch(["d", "b"]), "{id}.npz")

    assert batch.components == ("images", "labels")
    np.testing.assert_array_equal(batch.images, IMAGES[[3, 1]])
    np.testing.assert_array_equal(batch.labels, LABELS[[3, 1]])
    with np.load("a.npz") as file:  # as NumPy's own
        np.testing.assert_array_equal(file["images"], IMAGES[0])


def test_some_of_several_components_are_written_and_read():
    arrays.dump(
        everything(dataset(x=LABELS, y=LABELS + 1, z=LABELS + 2)), "{id}.npz", components=("x", "z")
    )
    assert arrays.load(fc.Batch(NAMES), "{id}.npz").components == ("x", "z")
    assert arrays.load(fc.Batch(NAMES), "{id}.npz", components="z").data.keys() == {"z"}


def test_a_component_may_have_the_name_of_an_option_of_numpy():
    arrays.dump(everything(dataset(file=LABELS, allow_pickle=LABELS)), "{id}.npz")
    assert arrays.load(fc.Batch(["b"]), "{id}.npz").file.tolist() == [6]


def test_a_class_says_which_arrays_of_an_archive_to_take():
    class Pictures(fc.Batch):
        components = ("images",)

    arrays.dump(everything(), "{id}.npz")
    assert arrays.load(Pictures(["a"]), "{id}.npz").data.keys() == {"images"}


def test_what_is_loaded_stands_beside_what_is_there():
    arrays.dump(everything(), "{id}.npy", components="images")
    batch = arrays.load(everything(dataset(labels=LABELS)), "{id}.npy", components="images")
    assert batch.components == ("labels", "images")
    np.testing.assert_array_equal(batch.labels, LABELS)
    np.testing.assert_array_equal(batch.images, IMAGES)


@pytest.mark.parametrize("name", ["{number}-{epoch}.npy", "{number}-{epoch}.npz"])
def test_a_file_may_hold_a_batch(name):
    pipeline = dataset(images=IMAGES).p
    pipeline.arrays.dump(name, each="batch").run(3, n_epochs=2)

    loaded = fc.Dataset(NAMES).p.arrays.load(name, each="batch", components="images")

    assert len(names()) == 4
    for batch in loaded.gen_batch(3, n_epochs=2):
        np.testing.assert_array_equal(batch.images, IMAGES[batch.positions])


def test_a_file_of_a_batch_of_another_size_is_an_error():
    np.save("0.npy", IMAGES)
    with pytest.raises(DataError, match="one entry for each of 2 items"):
        arrays.load(fc.Batch(["a", "b"]), "{number}.npy", each="batch")


def test_items_of_several_shapes_become_an_array_of_objects_and_files_again():
    for length, name in enumerate(NAMES):
        np.save(f"{name}.npy", np.arange(length))

    batch = arrays.load(fc.Batch(NAMES), "{id}.npy", components="lines")

    assert [line.tolist() for line in batch.lines] == [[], [0], [0, 1], [0, 1, 2]]
    arrays.dump(batch, "again/{id}.npy")
    assert np.load("again/d.npy").tolist() == [0, 1, 2]


def test_numbers_are_an_array_of_them():
    arrays.dump(everything(), "{id}.npy", components="labels")
    assert arrays.load(fc.Batch(NAMES), "{id}.npy").data.tolist() == LABELS.tolist()


def test_data_without_a_name_goes_to_files_and_back():
    arrays.dump(fc.Batch(NAMES, data=IMAGES), "{id}.npy")
    np.testing.assert_array_equal(arrays.load(fc.Batch(NAMES), "{id}.npy").data, IMAGES)


@pytest.mark.parametrize("ids", [[3, 12], np.array(["2026-01-01", "2026-01-02"], "M8[D]")], ids=str)
def test_ids_are_written_as_the_pattern_says(ids):
    pattern = "{id:03}.npy" if isinstance(ids, list) else "{id}.npy"
    arrays.dump(fc.Batch(ids, data=LABELS[:2]), pattern)
    expected = (
        ["003.npy", "012.npy"] if isinstance(ids, list) else ["2026-01-01.npy", "2026-01-02.npy"]
    )
    assert names() == expected


def test_a_function_of_the_id_or_of_the_batch_may_say_the_path():
    arrays.dump(everything(), lambda id_: Path("x") / f"{id_}.npy", components="labels")
    assert names("x") == ["a.npy", "b.npy", "c.npy", "d.npy"]
    arrays.dump(everything(), lambda batch: f"y/{batch.index[0]}.npz", each="batch")
    assert names("y") == ["a.npz"]


def test_the_files_of_an_index_are_loaded_by_its_paths():
    arrays.dump(everything(), "deep/{id}/image.npy", components="images")
    index = FilesIndex("deep/*/*.npy", name="path")
    batch = fc.Dataset(index).p.arrays.load(index.path, components="images").next_batch(4)
    np.testing.assert_array_equal(batch.images, IMAGES)


def test_a_mapped_file_gives_the_same_and_is_not_written_to():
    for length, name in enumerate(NAMES):
        np.save(f"{name}.npy", np.arange(length))
    np.save("0.npy", LABELS)
    for options in ({"path": "{id}.npy"}, {"path": "{number}.npy", "each": "batch"}):
        read, mapped = (
            arrays.load(fc.Batch(NAMES), mmap=mmap, **options).data for mmap in (False, True)
        )
        assert list(map(str, read)) == list(map(str, mapped))
        for entry in mapped if mapped.dtype == object else [mapped]:
            entry[...] = -1
    assert np.load("d.npy").tolist() == [0, 1, 2]
    assert np.load("0.npy").tolist() == LABELS.tolist()


def test_a_batch_of_no_items_reads_and_writes_nothing():
    empty = fc.Batch([], data={"x": np.zeros((0, 3))})
    arrays.dump(empty, "{id}.npy")
    arrays.load(empty, "{id}.npy")
    assert (names(), empty.x.shape) == ([], (0, 3))


# Files that are there, or not


def test_a_file_that_is_not_there_is_named_with_the_id():
    arrays.dump(everything(), "{id}.npy", components="images")
    os.unlink("c.npy")
    with pytest.raises(FileNotFoundError, match=r"c\.npy") as raised:
        arrays.load(everything(), "{id}.npy", components="images")
    assert raised.value.__notes__ == ["flowcore: while reading c.npy, the file of item 'c'"]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"PK\x03\x04 not an archive"], ids=repr)
def test_a_damaged_file_is_named_with_the_id(content):
    Path("a.npy").write_bytes(content)
    kinds = (ValueError, EOFError, zipfile.BadZipFile)  # of NumPy
    with pytest.raises(kinds, match=r".+") as raised:
        arrays.load(fc.Batch(["a"]), "{id}.npy")
    assert raised.value.__notes__ == ["flowcore: while reading a.npy, the file of item 'a'"]


def test_a_file_that_is_there_is_an_error_and_stays_as_it_is():
    np.save("c.npy", LABELS)
    with pytest.raises(DataError, match=r"c\.npy is there already") as raised:
        arrays.dump(everything(), "{id}.npy", components="images")
    assert "overwrite=True" in str(raised.value)
    assert names() == ["c.npy"]
    np.testing.assert_array_equal(np.load("c.npy"), LABELS)


def test_files_are_replaced_where_that_is_asked_for():
    for data in (LABELS, LABELS + 1):
        arrays.dump(fc.Batch(NAMES, data=data), "{id}.npy", overwrite=True)
    assert np.load("d.npy") == 9


def test_a_file_that_cannot_be_written_in_whole_is_not_there():
    objects = np.empty(2, object)
    objects[:] = [np.arange(2), np.array([{}])]
    with pytest.raises(DataError, match="objects cannot be written") as raised:
        arrays.dump(fc.Batch(["a", "b"], data=objects), "{id}.npy")
    assert raised.value.__notes__ == ["flowcore: while writing b.npy, the file of item 'b'"]
    assert names() == ["a.npy"]


def test_a_file_that_fails_while_it_is_written_leaves_nothing():
    os.mkdir("a.npy")
    with pytest.raises(OSError, match=r"a\.npy"):
        arrays.dump(fc.Batch(["a"], data=LABELS[:1]), "{id}.npy", overwrite=True)
    assert names() == ["a.npy"]


def test_objects_are_read_only_where_that_is_asked_for():
    np.save("a.npy", np.array([{"x": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.load(fc.Batch(["a"]), "{id}.npy")
    assert arrays.load(fc.Batch(["a"]), "{id}.npy", allow_pickle=True).data[0][0] == {"x": 1}


def test_an_array_that_a_file_lacks_is_named():
    arrays.dump(everything(), "{id}.npz")
    with pytest.raises(DataError, match=r"no array 'masks'.*\n.*images, labels") as raised:
        arrays.load(fc.Batch(["a"]), "{id}.npz", components="masks")
    assert raised.value.__notes__ == ["flowcore: while reading a.npz, the file of item 'a'"]


def test_files_with_other_arrays_than_the_first_are_an_error():
    np.savez("a.npz", x=1)
    np.savez("b.npz", x=1, y=2)
    with pytest.raises(DataError, match="not the same arrays: x; x, y"):
        arrays.load(fc.Batch(["a", "b"]), "{id}.npz")


# Mistakes


@pytest.mark.parametrize("write", [arrays.dump, arrays.load])
@pytest.mark.parametrize(
    ("path", "each"),
    [
        ("x.npy", "item"),
        ("{number}.npy", "item"),
        ("{id}{name}.npy", "item"),
        ("{id.real}.npy", "item"),
        ("{id:{number}}.npy", "item"),
        ("{id.npy", "item"),
        ("{id:04d}.npy", "item"),
        ("{id}.npy", "batch"),
        ("{epoch}.npy", "batch"),
        ("{}.npy", "batch"),
        ("", "item"),
        (3, "item"),
        (None, "item"),
        (lambda id_: 3, "item"),
        ("{id}.npy", "file"),
    ],
    ids=repr,
)
def test_a_path_that_does_not_tell_files_apart_is_refused(write, path, each):
    with pytest.raises(OptionError):
        write(fc.Batch(NAMES, data=LABELS), path, each=each)
    assert names() == []


@pytest.mark.parametrize("id_", ["../a", "/a", "x/../../a"])
def test_an_id_does_not_lead_out_of_the_folder(id_):
    with pytest.raises(DataError, match="leads out of the folder"):
        arrays.dump(fc.Batch([id_], data=LABELS[:1]), "out/{id}.npy")
    assert names() == []


@pytest.mark.parametrize("suffix", ["txt", "", "npyz"])
def test_a_file_to_write_has_the_suffix_of_its_kind(suffix):
    with pytest.raises(OptionError, match=r"end in \.npy"):
        arrays.dump(fc.Batch(NAMES, data=LABELS), f"{{id}}.{suffix}")


def test_two_items_cannot_have_one_file():
    with pytest.raises(DataError, match=r"1\.npy would be written twice"):
        arrays.dump(fc.Batch([1, 2], data=LABELS[:2]), lambda id_: "1.npy")


def test_an_npy_file_is_of_one_component():
    for components in (("images", "labels"), None):
        with pytest.raises((OptionError, DataError), match="2"):
            arrays.dump(everything(), "{id}.npy", components=components)
    np.save("a.npy", LABELS)
    with pytest.raises(OptionError, match="images, labels"):
        arrays.load(fc.Batch(["a"]), "{id}.npy", components=("images", "labels"))


def test_an_archive_needs_names():
    with pytest.raises(DataError, match="has no names"):
        arrays.dump(fc.Batch(NAMES, data=LABELS), "{id}.npz")


def test_data_without_a_name_is_not_lost_to_components_that_are_loaded():
    arrays.dump(everything(), "{id}.npz")
    with pytest.raises(DataError, match="data without a name"):
        arrays.load(fc.Batch(NAMES, data=LABELS), "{id}.npz")


def test_components_that_are_none_are_refused():
    with pytest.raises(DataError, match="no component 'masks'"):
        arrays.dump(everything(), "{id}.npy", components="masks")
    with pytest.raises(OptionError, match="must be a name"):
        arrays.dump(everything(), "{id}.npz", components=3)


def test_a_path_is_needed_where_the_step_is_written():
    with pytest.raises(ArgumentError, match="path"):
        dataset().p.arrays.load()


def test_a_second_try_with_overwrite_writes_the_same():
    class Flaky(fc.Batch):
        failed = False

        @fc.action
        def fail_once(self):
            if not Flaky.failed:
                Flaky.failed = True
                raise ValueError
            return self

    pipeline = fc.Dataset(NAMES, Flaky, preloaded=LABELS).p
    pipeline.arrays.dump("{id}.npy", overwrite=True).fail_once().run(4, retries=1)
    assert [int(np.load(f"{name}.npy")) for name in NAMES] == LABELS.tolist()
