"""With `path`: files that appear under their name when they are complete, or not at all."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import DataError, OptionError

HOW = [pytest.param({"prefetch": 0}, id="inline"), pytest.param({"prefetch": 2}, id="threads")]


class Numbers(fc.Batch):
    @fc.action
    def fail_at(self, number):
        if self.number == number:
            raise ZeroDivisionError("no such batch")
        return self


def numbers(length=10):
    return fc.Dataset(length, Numbers, np.arange(length)).p


def photos(length=6):
    parts = {"images": np.arange(length * 4.0).reshape(length, 2, 2), "labels": np.arange(length)}
    return fc.Dataset(length, preloaded=parts).p


def listed(folder):
    """All that is below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("how", HOW)
def test_one_array_is_a_npy_file(tmp_path, how):
    numbers().put_into_numpy_buffer(path=tmp_path / "x.npy").run(4, **how)
    assert listed(tmp_path) == ["x.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(10))


def test_several_components_are_a_folder_with_a_file_for_each(tmp_path):
    photos().put_into_numpy_buffer(path=str(tmp_path / "all")).run(4)
    assert listed(tmp_path) == ["all", "all/images.npy", "all/labels.npy"]
    images = np.load(tmp_path / "all" / "images.npy")
    np.testing.assert_array_equal(images, np.arange(24.0).reshape(6, 2, 2))


def test_a_tuple_is_a_folder_with_numbered_files(tmp_path):
    pipeline = photos().put_into_numpy_buffer(path=tmp_path / "all", get_tensor=fc.Batch.get_tensor)
    images, labels = pipeline.run(4).results["numpy-buffer"]
    assert listed(tmp_path / "all") == ["0.npy", "1.npy"]
    assert (images.shape, labels.shape) == ((6, 2, 2), (6,))


@given(
    length=st.integers(1, 30),
    batch_size=st.integers(1, 9),
    taken=st.none() | st.integers(0, 3),
    drop_last=st.booleans(),
)
def test_the_file_holds_the_batches_joined_or_is_not_there(
    tmp_path_factory, length, batch_size, taken, drop_last
):
    folder = tmp_path_factory.mktemp("any")
    pipeline = numbers(length).put_into_numpy_buffer(path=folder / "x.npy")
    batches = length // batch_size if drop_last else -(-length // batch_size)
    if not batches:
        with pytest.raises(DataError, match="no batch was delivered"):
            pipeline.run(batch_size, drop_last=drop_last)
        assert listed(folder) == []
        return
    with pipeline.gen_batch(batch_size, drop_last=drop_last) as run:
        delivered = [batch.data for _, batch in zip(range(taken or batches), run, strict=False)]
    if len(delivered) == batches:
        np.testing.assert_array_equal(np.load(folder / "x.npy"), np.concatenate(delivered))
    else:
        assert listed(folder) == []


def test_skipped_batches_are_not_in_the_file(tmp_path):
    pipeline = numbers(6).fail_at(1).put_into_numpy_buffer(path=tmp_path / "x.npy")
    pipeline.run(2, on_error="skip")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), [0, 1, 4, 5])


def test_more_items_than_the_dataset_has_are_all_in_the_file(tmp_path):
    pipeline = numbers(3).put_into_numpy_buffer(
        path=tmp_path / "x.npy", get_tensor=lambda batch: np.repeat(batch.data, 5)
    )
    pipeline.run(2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.repeat([0, 1, 2], 5))


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(np.array(["2020", "NaT"], "M8[s]"), id="times"),
        pytest.param(np.array(["a", "äöü"]), id="text"),
        pytest.param(np.array([(1, 0.5), (2, 1.5)], [("a", "i4"), ("b", "f8")]), id="records"),
        pytest.param(np.zeros((2, 0)), id="items without values"),
        pytest.param(np.arange(2, dtype=">i4"), id="big-endian"),
        pytest.param(np.asfortranarray(np.arange(6).reshape(2, 3)), id="Fortran order"),
    ],
)
def test_any_dtype_but_objects_is_written_as_it_is(tmp_path, items):
    pipeline = fc.Dataset(2).p.put_into_numpy_buffer(
        path=tmp_path / "x.npy", get_tensor=lambda batch: items[batch.positions]
    )
    pipeline.run(1)
    written = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert written.dtype == items.dtype
    np.testing.assert_array_equal(written, items)


def test_the_result_is_a_read_only_memory_map_after_the_end(tmp_path):
    result = numbers().put_into_numpy_buffer(path=tmp_path / "x.npy").run(4).results["numpy-buffer"]
    assert isinstance(result, np.memmap)
    assert not result.flags.writeable
    assert result.filename == str(tmp_path / "x.npy")
    np.testing.assert_array_equal(result, np.arange(10))


def test_during_the_run_the_result_is_what_has_come_and_the_file_is_not_there(tmp_path):
    seen = []
    with numbers(5).put_into_numpy_buffer(path=tmp_path / "x.npy").gen_batch(2) as run:
        for _ in range(2):
            next(run)
            seen.append(np.array(run.report.results["numpy-buffer"]))
            assert not (tmp_path / "x.npy").exists()
    np.testing.assert_equal(seen, [np.arange(2), np.arange(4)])


@pytest.mark.parametrize("how", HOW)
def test_a_failed_run_leaves_no_file_and_no_temporary_one(tmp_path, how):
    pipeline = numbers().fail_at(2).put_into_numpy_buffer(path=tmp_path / "x.npy")
    with pytest.raises(ZeroDivisionError):
        pipeline.run(2, **how)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("how", HOW)
def test_a_left_run_leaves_no_file_and_no_result(tmp_path, how):
    with photos(20).put_into_numpy_buffer(path=tmp_path / "all").gen_batch(2, **how) as run:
        next(run)
    assert listed(tmp_path) == []
    assert run.report.results["numpy-buffer"] is None


def test_a_run_that_nobody_holds_any_more_leaves_no_file(tmp_path):
    run = numbers().put_into_numpy_buffer(path=tmp_path / "x.npy").gen_batch(2)
    next(run)
    del run
    assert listed(tmp_path) == []


def test_a_sink_that_cannot_be_opened_after_it_leaves_no_file(tmp_path):
    pipeline = numbers().put_into_numpy_buffer(path=tmp_path / "x.npy")
    later = tmp_path / "later"
    later.mkdir()
    pipeline = pipeline.put_into_numpy_buffer(path=later / "y.npy")
    later.rmdir()
    with pytest.raises(OptionError, match="there is no folder"):
        pipeline.run(2)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("ending", ["failed", "left"])
def test_the_file_of_an_earlier_run_stays_as_it_was(tmp_path, ending):
    pipeline = numbers(6).fail_at(2 if ending == "failed" else -1)
    numbers(4).put_into_numpy_buffer(path=tmp_path / "x.npy").run(2)
    run = pipeline.put_into_numpy_buffer(path=tmp_path / "x.npy").gen_batch(2)
    next(run), next(run)
    if ending == "failed":
        with pytest.raises(ZeroDivisionError):
            next(run)
    run.close()
    assert listed(tmp_path) == ["x.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(4))


def test_a_complete_run_replaces_the_file_of_an_earlier_one(tmp_path):
    earlier = numbers(4).put_into_numpy_buffer(path=tmp_path / "x.npy").run(2)
    numbers(6).put_into_numpy_buffer(path=tmp_path / "x.npy").run(2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(6))
    np.testing.assert_array_equal(earlier.results["numpy-buffer"], np.arange(4))


def test_a_complete_run_replaces_the_folder_of_an_earlier_one(tmp_path):
    for length in (4, 6):
        photos(length).put_into_numpy_buffer(path=tmp_path / "all").run(2)
    assert listed(tmp_path) == ["all", "all/images.npy", "all/labels.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "all" / "labels.npy"), np.arange(6))


def test_a_run_may_read_the_file_that_it_replaces(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    data = np.load(tmp_path / "x.npy", mmap_mode="r")
    doubled = fc.Dataset(5, preloaded=data).p.put_into_numpy_buffer(
        path=tmp_path / "x.npy", get_tensor=lambda batch: 2 * batch.data
    )
    doubled.run(2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), 2 * np.arange(5))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_of_two_runs_into_one_path_at_once_the_later_end_stays_whole(tmp_path, kind):
    make, path = (numbers, tmp_path / "x.npy") if kind == "file" else (photos, tmp_path / "all")
    first = make(4).put_into_numpy_buffer(path=path).gen_batch(2)
    second = make(6).put_into_numpy_buffer(path=path).gen_batch(2)
    for _ in zip(first, second, strict=False):
        pass
    list(second), list(first)
    assert len(first.report.results["numpy-buffer"]) == (4 if kind == "file" else 2)
    labels = np.load(path if kind == "file" else path / "labels.npy")
    np.testing.assert_array_equal(labels, np.arange(6))
    assert not [name for name in listed(tmp_path) if name.startswith(".")]


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_runs_that_end_at_once_in_several_threads_leave_one_of_them_whole(tmp_path, kind):
    def run(length):
        pipeline = make(length).put_into_numpy_buffer(path=path)
        together.wait()
        return pipeline.run(length).results["numpy-buffer"]

    make, path = (numbers, tmp_path / "x.npy") if kind == "file" else (photos, tmp_path / "all")
    together = threading.Barrier(4, timeout=10)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for length, result in zip((3, 4, 5, 6), pool.map(run, (3, 4, 5, 6)), strict=True):
                parts = [result] if kind == "file" else result.values()
                assert {len(part) for part in parts} == {length}
    files = [path] if kind == "file" else [path / "images.npy", path / "labels.npy"]
    assert len({len(np.load(file)) for file in files}) == 1
    assert len(listed(tmp_path)) == (1 if kind == "file" else 3)


def test_a_path_in_a_folder_that_does_not_exist_is_refused_where_the_step_is_written(tmp_path):
    with pytest.raises(OptionError, match=r"there is no folder(.|\n)*next: +make it first"):
        numbers().put_into_numpy_buffer(path=tmp_path / "missing" / "x.npy")


def test_a_folder_that_is_gone_when_the_run_starts_is_refused_then(tmp_path):
    (tmp_path / "out").mkdir()
    pipeline = numbers().put_into_numpy_buffer(path=tmp_path / "out" / "x.npy")
    (tmp_path / "out").rmdir()
    with pytest.raises(OptionError, match="there is no folder"):
        pipeline.run(2)


def test_a_path_that_the_system_refuses_is_refused_when_the_run_starts(tmp_path):
    pipeline = numbers().put_into_numpy_buffer(path=tmp_path / f"{'x' * 250}.npy")
    with pytest.raises(OptionError, match="cannot write in"):
        pipeline.run(2)


def test_a_relative_path_is_that_of_the_folder_where_the_step_is_written(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pipeline = numbers().put_into_numpy_buffer(path="x.npy")
    monkeypatch.chdir(tmp_path / "there")
    pipeline.run(2)
    assert listed(tmp_path) == ["here", "here/x.npy", "there"]


def test_one_array_needs_a_name_that_ends_in_npy(tmp_path):
    with pytest.raises(DataError, match=r"x\.npy'"):
        numbers().put_into_numpy_buffer(path=tmp_path / "x").run(2)
    assert listed(tmp_path) == []


def test_several_arrays_need_a_name_that_does_not_end_in_npy(tmp_path):
    with pytest.raises(DataError, match="several arrays go to a folder"):
        photos().put_into_numpy_buffer(path=tmp_path / "x.npy").run(2)
    assert listed(tmp_path) == []


@pytest.mark.parametrize(("name", "is_folder"), [("x.npy", True), ("x", False)])
def test_something_of_another_kind_under_the_name_is_refused(tmp_path, name, is_folder):
    (tmp_path / name).mkdir() if is_folder else (tmp_path / name).touch()
    with pytest.raises(OptionError, match="next:"):
        numbers().put_into_numpy_buffer(path=tmp_path / name)


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"notes\.txt"):
        photos().put_into_numpy_buffer(path=tmp_path)


def test_a_folder_with_arrays_of_other_names_is_never_replaced(tmp_path):
    (tmp_path / "all").mkdir()
    np.save(tmp_path / "all" / "weights.npy", np.ones(3))
    run = photos().put_into_numpy_buffer(path=tmp_path / "all").gen_batch(2)
    with pytest.raises(OptionError, match=r"weights\.npy"):
        next(run)
    assert listed(tmp_path) == ["all", "all/weights.npy"]


def test_a_file_that_is_put_into_the_folder_during_the_run_is_kept(tmp_path):
    pipeline = photos().put_into_numpy_buffer(path=tmp_path / "all")
    pipeline.run(2)
    run = pipeline.gen_batch(3)
    next(run)
    (tmp_path / "all" / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"notes\.txt"):
        list(run)
    assert (tmp_path / "all" / "notes.txt").read_text() == "mine"
    assert listed(tmp_path) == ["all", "all/images.npy", "all/labels.npy", "all/notes.txt"]


def test_a_component_whose_name_leads_out_of_the_folder_is_refused(tmp_path):
    pipeline = numbers().put_into_numpy_buffer(
        path=tmp_path / "all", get_tensor=lambda batch: {"../x": batch.data}
    )
    with pytest.raises(DataError, match=r"'\.\./x' cannot be the name of a file"):
        pipeline.run(2)
    assert listed(tmp_path) == []


def test_objects_are_refused(tmp_path):
    pipeline = numbers().put_into_numpy_buffer(
        path=tmp_path / "x.npy", get_tensor=lambda batch: batch.data.astype(object)
    )
    with pytest.raises(DataError, match="dtype object"):
        pipeline.run(2)
    assert listed(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
import numpy as np
import flowcore as fc

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes in a file, then OSError
try:
    fc.Dataset(100, preloaded=np.zeros((100, 10))).p.put_into_numpy_buffer(path=sys.argv[1]).run(5)
except OSError as error:
    print("OSError")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit for the size of a file")
def test_a_full_disk_is_an_error_and_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (done.stdout, done.stderr) == ("OSError\n", "")
    assert listed(tmp_path) == ["x.npy"]
    np.testing.assert_array_equal(np.load(path), np.arange(3))


def test_the_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other.npy").touch()
    (tmp_path / "other").mkdir()
    numbers().put_into_numpy_buffer(path=tmp_path / "x.npy").run(5)
    photos().put_into_numpy_buffer(path=tmp_path / "all").run(5)
    assert Path(tmp_path / "x.npy").stat().st_mode == (tmp_path / "other.npy").stat().st_mode
    assert Path(tmp_path / "all").stat().st_mode == (tmp_path / "other").stat().st_mode
