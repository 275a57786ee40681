"""Preloaded data: what it may be, how it is read, and what the errors say."""

import pickle
from collections import UserList

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import Batch, Dataset
from flowcore.errors import DataError, OptionError

N = 12
IMAGES = np.arange(N * 6, dtype="float32").reshape(N, 2, 3)
LABELS = np.arange(N) * 10
ROWS = [7, 2, 2 + 3, 0, 11]


def read(preloaded, rows=ROWS, batch_class=Batch):
    return Dataset(N, batch_class, preloaded).create_batch(rows).data


class Strict:
    """Records what it is asked for; takes only what ``kinds`` says."""

    def __init__(self, *kinds):
        self.kinds, self.asked = kinds, []

    def __len__(self):
        return N

    def __getitem__(self, at):
        self.asked.append(at)
        if not isinstance(at, self.kinds):
            raise TypeError(f"not by {type(at).__name__}")
        return IMAGES[at]


def stored(kind, folder):
    """Return `IMAGES` as a source of a kind, or skip where its library is not installed."""
    if kind == "a memory map":
        np.save(folder / "x.npy", IMAGES)
        return np.load(folder / "x.npy", mmap_mode="r")
    library = pytest.importorskip(kind.split()[0])
    if kind == "h5py dataset":
        return library.File(folder / "x.h5", "w").create_dataset("x", data=IMAGES, chunks=(5, 2, 3))
    if kind == "torch tensors":
        return [library.tensor(image) for image in IMAGES]
    array = library.open(
        str(folder / "z"), mode="w", shape=IMAGES.shape, chunks=(5, 2, 3), dtype="f4"
    )
    array[:] = IMAGES
    return array


STORED = ["a memory map", "h5py dataset", "zarr array", "torch tensors"]


@pytest.mark.parametrize("rows", [ROWS, [4, 5, 6], [6, 5, 4], [3], []], ids=repr)
@pytest.mark.parametrize("kind", STORED)
def test_a_stored_array_is_read_in_whatever_order(kind, rows, tmp_path):
    batch = read({"x": stored(kind, tmp_path)}, rows)["x"]
    np.testing.assert_array_equal(batch, IMAGES[rows])
    assert type(batch) is np.ndarray
    assert batch.dtype == IMAGES.dtype


@pytest.mark.parametrize("kind", STORED)
def test_a_batch_of_a_stored_array_may_be_written_to(kind, tmp_path):
    source = stored(kind, tmp_path)
    for rows in ([1, 2, 3], [5, 1]):
        read(source, rows)[...] = -1
    np.testing.assert_array_equal(np.stack([np.asarray(row) for row in source]), IMAGES)


@pytest.mark.parametrize("kind", STORED)
def test_several_workers_may_read_a_stored_array_at_once(kind, tmp_path):
    pipeline = Dataset(N, preloaded=stored(kind, tmp_path)).p
    workers = {"executor": "threads", "num_workers": 4, "prefetch": 8}
    for batch in pipeline.gen_batch(2, shuffle=True, seed=1, n_epochs=5, **workers):
        np.testing.assert_array_equal(batch.data, IMAGES[batch.positions])


def test_a_group_of_an_h5py_file_is_a_component_for_each_dataset(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"], file["labels"] = IMAGES, LABELS
        batch = read(file)
    np.testing.assert_array_equal(batch["images"], IMAGES[ROWS])
    np.testing.assert_array_equal(batch["labels"], LABELS[ROWS])


def test_h5py_reads_each_row_once_in_the_order_of_the_file_and_rows_in_a_row_as_a_slice():
    h5py = pytest.importorskip("h5py")

    class Recorded(h5py.Dataset):
        asked = []  # noqa: RUF012

        def __getitem__(self, at):
            self.asked.append(at)
            return super().__getitem__(at)

    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        dataset = Dataset(N, preloaded=Recorded(file.create_dataset("x", data=LABELS).id))
        part = dataset[[5, 3, 9, 4]]
        assert part.create_batch([9, 3, 5]).data.tolist() == [90, 30, 50]
        assert part.create_batch([5, 3, 4]).data.tolist() == [50, 30, 40]
    fancy, piece = Recorded.asked
    assert fancy.tolist() == [3, 5, 9]
    assert piece == slice(3, 6)


@given(st.lists(st.integers(0, N - 1)))
def test_repeated_rows_are_read_once_and_given_as_often_as_asked_for(rows):
    h5py = pytest.importorskip("h5py")
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        stored = file.create_dataset("x", data=IMAGES)
        np.testing.assert_array_equal(read(stored, rows), IMAGES[rows])


@pytest.mark.parametrize("kind", ["array", "chunked_array", "table"])
def test_arrow_columns_are_read_by_position(kind):
    pa = pytest.importorskip("pyarrow")
    names = [f"item {row}" for row in range(N)]
    if kind == "table":
        preloaded = pa.table({"labels": LABELS, "names": names})
    elif kind == "chunked_array":
        chunks = {"labels": LABELS, "names": names}.items()
        preloaded = {name: pa.chunked_array([v[:5], v[5:]]) for name, v in chunks}
    else:
        preloaded = {"labels": pa.array(LABELS), "names": pa.array(names)}
    batch = read(preloaded)
    batch["labels"] += 0  # it may be written to
    np.testing.assert_array_equal(batch["labels"], LABELS[ROWS])
    assert batch["names"].tolist() == [names[row] for row in ROWS]


def test_arrow_nulls_where_numpy_has_none_are_refused():
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"component 'x' is an Arrow column of int64 with 1 nulls"):
        Dataset(2, preloaded={"x": pa.array([1, None])})


def test_arrow_nulls_of_floats_are_nan():
    pa = pytest.importorskip("pyarrow")
    data = Dataset(2, preloaded=pa.array([1.5, None])).create_batch([1, 0]).data
    np.testing.assert_array_equal(data, [np.nan, 1.5])


def test_an_arrow_table_with_two_columns_of_one_name_is_refused():
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataError, match="'x' cannot be the name"):
        Dataset(1, preloaded=table)


def test_pandas_is_read_by_position_and_not_by_label():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"labels": LABELS, "names": [f"item {row}" for row in range(N)]})
    frame.index = range(N)[::-1]
    batch = read(frame)
    batch["labels"] += 0
    np.testing.assert_array_equal(batch["labels"], LABELS[ROWS])
    assert batch["names"].tolist() == [f"item {row}" for row in ROWS]
    np.testing.assert_array_equal(read(frame["labels"]), LABELS[ROWS])


def test_columns_without_names_are_refused():
    pd = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="0 cannot be the name of a component"):
        Dataset(N, preloaded=pd.DataFrame(IMAGES[:, 0]))


class Pairs(Batch):
    components = ("images", "labels")


def test_items_of_a_torch_dataset_that_are_tuples_become_components():
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))
    for source in (pairs, torch.utils.data.Subset(pairs, range(N))):
        batch = read(source, batch_class=Pairs)
        np.testing.assert_array_equal(batch["images"], IMAGES[ROWS])
        np.testing.assert_array_equal(batch["labels"], LABELS[ROWS])


class Items(UserList):
    """A sequence of objects, read item by item."""


@pytest.mark.parametrize(
    "items",
    [
        list(zip(IMAGES, LABELS, strict=True)),
        [{"images": image, "labels": label} for image, label in zip(IMAGES, LABELS, strict=True)],
    ],
    ids=["tuples", "dicts"],
)
def test_tuples_and_dicts_in_a_sequence_become_components(items):
    batch = read(Items(items), batch_class=Pairs)
    np.testing.assert_array_equal(batch["images"], IMAGES[ROWS])
    np.testing.assert_array_equal(batch["labels"], LABELS[ROWS])
    assert not np.shares_memory(batch["images"], IMAGES)


def test_items_of_several_shapes_stay_objects_that_are_the_batchs_own():
    items = Items([np.arange(row) for row in range(N)])
    batch = read(items)
    assert [item.tolist() for item in batch] == [list(range(row)) for row in ROWS]
    batch[0][...] = -1
    assert items[ROWS[0]].tolist() == list(range(ROWS[0]))


def test_dicts_with_other_entries_than_the_first_are_refused():
    with pytest.raises(DataError, match="item 1 has the entries"):
        Dataset(2, preloaded=Items([{"a": 1}, {"a": 1, "b": 2}])).create_batch([0, 1])


def test_a_range_is_preloaded_data():
    assert read(range(100, 100 + N)).tolist() == [100 + row for row in ROWS]


def test_several_items_are_asked_for_at_once_where_the_source_can():
    class Many:
        asked = []  # noqa: RUF012

        def __len__(self):
            return N

        def __getitem__(self, row):
            raise AssertionError

        def __getitems__(self, rows):
            self.asked.append(rows)
            return [LABELS[row] for row in rows]

    assert read(Many()).tolist() == LABELS[ROWS].tolist()
    assert Many.asked == [ROWS]


def test_an_object_that_takes_positions_is_asked_once_a_batch():
    source = Strict(np.ndarray)
    np.testing.assert_array_equal(read(source), IMAGES[ROWS])
    asked, alone = source.asked  # and once for the first alone, to see that it is the same
    assert (asked.tolist(), alone) == (ROWS, ROWS[0])


def test_what_an_object_takes_is_tried_once_and_then_known():
    source = Strict(int)
    dataset = Dataset(N, preloaded=source)
    for _ in range(2):
        np.testing.assert_array_equal(dataset.create_batch([4, 1]).data, IMAGES[[4, 1]])
    kinds = [type(at).__name__ for at in source.asked]
    assert kinds == ["ndarray", "ndarray", "int", "int", "int", "int", "int"]


class Broken:
    """Takes positions, but item 3 cannot be read."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return N

    def __getitem__(self, at):
        self.asked.append(at)
        if np.any(np.asarray(at) == 3):
            raise ValueError("a damaged item")
        return LABELS[at]


def test_an_error_of_the_data_is_not_taken_for_a_source_that_takes_one_at_a_time():
    source = Broken()
    dataset = Dataset(N, preloaded=source)
    with pytest.raises(ValueError, match="damaged"):
        dataset.create_batch([1, 3])
    source.asked.clear()
    assert dataset.create_batch([1, 2]).data.tolist() == [10, 20]
    assert [np.asarray(at).tolist() for at in source.asked] == [[1, 2], 1]
    assert dataset.create_batch([2, 4]).data.tolist() == [20, 40]
    assert np.asarray(source.asked[-1]).tolist() == [2, 4]


def test_an_error_of_a_source_says_which_component_and_which_positions():
    with pytest.raises(ValueError, match="damaged") as raised:
        Dataset(N, preloaded={"x": LABELS, "y": Broken()}).create_batch([3, 4, 5, 6])
    assert raised.value.__notes__ == [
        "flowcore: while reading component 'y', positions [3, 4, 5, ...]"
    ]


def test_an_object_that_gives_another_number_of_entries_is_an_error():
    class Whole:
        def __getitem__(self, at):
            return LABELS

    with pytest.raises(DataError, match="asked for 5 positions, the preloaded object gave 12"):
        read(Whole())


def test_a_list_of_unequal_items_is_kept_as_objects():
    batch = Dataset(2, preloaded={"x": [[1], [1, 2]]}).create_batch([1, 0])
    assert batch.x.tolist() == [[1, 2], [1]]


def test_a_tuple_for_a_component_is_its_items():
    assert Dataset(2, preloaded={"x": (5, 6)}).create_batch([1]).x.tolist() == [6]


@pytest.mark.parametrize("preloaded", [{}, ()], ids=repr)
def test_preloaded_data_of_nothing_is_refused(preloaded):
    with pytest.raises(DataError, match="is an empty"):
        Dataset(2, preloaded=preloaded)


@pytest.mark.parametrize("preloaded", [{1: [1, 2]}, {None: [1, 2]}], ids=repr)
def test_components_need_names_that_are_strings(preloaded):
    with pytest.raises(DataError, match="names must be strings"):
        Dataset(2, preloaded=preloaded)


@pytest.mark.parametrize(
    "part", [{1, 2}, iter([1, 2]), "ab", {"y": [1, 2]}, np.float32(1)], ids=repr
)
def test_a_component_that_cannot_be_read_by_positions_is_refused_by_name(part):
    with pytest.raises(DataError, match="component 'x'"):
        Dataset(2, preloaded={"x": part})


def test_a_dataset_with_data_can_be_sent_to_another_process():
    dataset = pickle.loads(
        pickle.dumps(Dataset(N, preloaded={"x": IMAGES, "y": Items(LABELS)})[3:])
    )
    batch = dataset.create_batch([7, 3])
    np.testing.assert_array_equal(batch.x, IMAGES[[7, 3]])
    assert batch.y.tolist() == [70, 30]


def test_an_unknown_component_is_refused_without_reading_anything():
    source = Strict(np.ndarray)
    with pytest.raises(DataError, match="no component is called 'imgs'"):
        Dataset(N, Pairs, {"imgs": source})
    assert source.asked == []


def test_names_of_columns_that_a_batch_needs_are_refused():
    with pytest.raises(OptionError, match="components cannot be called 'index'"):
        Dataset(2, preloaded={"index": [1, 2]})


class RowMinusMean:
    """Meant for one position; takes an array too, and then gives something else."""

    rows = np.arange(40.0).reshape(10, 4) ** 2

    def __len__(self):
        return 10

    def __getitem__(self, at):
        row = self.rows[at]
        return row - row.mean()


class SeededByPosition:
    def __len__(self):
        return 10

    def __getitem__(self, at):
        return np.random.default_rng(at).normal(size=4)


@pytest.mark.parametrize("source", [RowMinusMean(), SeededByPosition()], ids=["mean", "seed"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_code_for_one_position_gives_its_items_in_batches_of_every_size(source, batch_size):
    batches = Dataset(10, preloaded=source).p.gen_batch(batch_size)
    found = np.concatenate([batch.data for batch in batches])
    np.testing.assert_array_equal(found, [source[at] for at in range(10)])
