"""What all actions of the pack have in common: the arrays they take, and those they leave alone."""

import numpy as np
import pytest

import flowcore as fc
import flowcore_arrays as arrays
from flowcore.errors import DataError, OptionError
from flowcore.testing import ActionsContract

N = 12
IMAGES = np.arange(N * 6 * 5 * 3, dtype="uint8").reshape(N, 6, 5, 3)
LABELS = np.arange(N) % 4

# Every action on arrays, as a step on images and as a call on a batch.
ACTIONS = {
    "apply": ((np.negative,), {}),
    "cast": (("float32",), {}),
    "crop": (((4, 4),), {"random": True}),
    "flip": ((2,), {}),
    "normalize": ((), {}),
    "one_hot": ((256,), {}),
    "pad": (((8, 8),), {}),
}
# Those from files and to files, which `TestTheContract` makes in the current folder.
FILES = {
    "dump": (("new/{id}-{epoch}.npy",), {"overwrite": True}),
    "load": (("old/{id}.npy",), {"components": "images"}),
}
every_action = pytest.mark.parametrize(
    ("action", "args", "options"), [(name, *call) for name, call in ACTIONS.items()]
)


class TestTheContract(ActionsContract):
    pack = arrays
    calls = {name: [call] for name, call in {**ACTIONS, **FILES}.items()}  # noqa: RUF012

    @pytest.fixture
    def dataset(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "old").mkdir()
        for id_, image in enumerate(IMAGES):
            np.save(f"old/{id_}.npy", image + 1)
        return fc.Dataset(N, preloaded={"images": IMAGES})


def batch(**data) -> fc.Batch:
    n = len(next(iter(data.values())))
    return fc.Batch(np.arange(n), data=data, seed=0)


def test_the_pack_is_a_namespace_of_a_pipeline():
    assert dir(fc.Dataset(4).p.arrays) == sorted(arrays.__all__) == sorted([*ACTIONS, *FILES])


def test_steps_follow_each_other():
    pipeline = (
        fc.Dataset(N, preloaded={"images": IMAGES, "labels": LABELS})
        .p.arrays.crop((4, 4), components="images")
        .arrays.cast("float32", components="images")
        .arrays.one_hot(4, components="labels")
    )

    made = pipeline.next_batch(5)

    assert (made.images.shape, made.images.dtype) == ((5, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(made.labels, np.eye(4)[LABELS[:5]])


@every_action
def test_an_action_needs_no_pipeline_and_no_names(action, args, options):
    named = batch(images=IMAGES)
    unnamed = fc.Batch(np.arange(N), data=IMAGES, seed=0)

    assert getattr(arrays, action)(named, *args, **options) is named
    assert getattr(arrays, action)(unnamed, *args, **options) is unnamed
    np.testing.assert_array_equal(unnamed.data, named.images)


@every_action
def test_an_action_leaves_a_new_array_that_is_the_batchs_own(action, args, options):
    made = getattr(arrays, action)(batch(images=IMAGES), *args, **options).images

    assert not np.shares_memory(made, IMAGES)
    assert made.flags.writeable
    assert made.flags.c_contiguous


@pytest.mark.parametrize(
    ("action", "args"),
    [("cast", ("uint8",)), ("crop", ((6, 5),)), ("pad", ((6, 5),)), ("flip", (2, 0)),
     ("normalize", (0, 1)), ("apply", (np.asarray,))],
)  # fmt: skip
def test_an_action_that_has_nothing_to_do_leaves_a_new_array_too(action, args):
    given = IMAGES.copy()

    assert not np.shares_memory(getattr(arrays, action)(batch(x=given), *args).x, given)


@every_action
def test_a_batch_of_no_items_stays_one(action, args, options):
    empty = batch(images=IMAGES[:0])

    assert len(getattr(arrays, action)(empty, *args, **options).images) == 0


def test_an_array_that_a_batch_was_given_is_not_written_to():
    # Not by a dataset, whose batches have copies: the batch holds the caller's own array.
    images = IMAGES.copy()
    made = fc.Batch(range(N), data=images)

    arrays.normalize(arrays.flip(made, 1, 1.0))

    assert images.tobytes() == IMAGES.tobytes()
    assert not np.shares_memory(made.data, images)


def test_several_components_are_named_in_one_call():
    made = arrays.cast(batch(a=LABELS, b=LABELS, c=LABELS), "int8", components=("a", "c"))

    assert (made.a.dtype, made.b.dtype, made.c.dtype) == (np.int8, LABELS.dtype, np.int8)


def test_declared_components_of_a_batch_class_are_found():
    class Digits(fc.Batch):
        components = ("images", "labels")

    made = fc.Dataset(N, Digits, preloaded=(IMAGES, LABELS)).p.arrays.cast(
        "f4", components="images"
    )

    assert made.next_batch(4).images.dtype == np.float32


def test_lists_are_taken_for_arrays():
    np.testing.assert_array_equal(arrays.pad(batch(x=[[1], [2]]), 2).x, [[1, 0], [2, 0]])


def test_of_several_components_one_must_be_named():
    with pytest.raises(DataError, match="'images', 'labels'") as caught:
        arrays.cast(batch(images=IMAGES, labels=LABELS), "float32")

    assert "components='images'" in str(caught.value)


def test_a_component_that_is_not_there_is_an_error_with_a_near_match():
    with pytest.raises(DataError, match="no component 'imags'") as caught:
        arrays.cast(batch(images=IMAGES), "float32", components="imags")

    assert "did you mean 'images'?" in str(caught.value)


def test_a_component_that_is_not_loaded_is_an_error():
    class Digits(fc.Batch):
        components = ("images", "labels")

    with pytest.raises(DataError, match="component 'labels' is not loaded"):
        arrays.cast(Digits([1, 2], data={"images": IMAGES[:2]}), "int8", components="labels")


@pytest.mark.parametrize(
    ("data", "components", "problem"),
    [
        pytest.param(None, None, "no data yet", id="no data"),
        pytest.param((IMAGES, LABELS), None, "tuple of 2 arrays that have no names", id="a tuple"),
        pytest.param(IMAGES, "images", "its data has no names", id="names for unnamed data"),
        pytest.param(IMAGES[:3], None, r"each of 12 items .* shape \(3,", id="another length"),
        pytest.param(np.float32(1), None, r"each of 12 items .* shape \(\)", id="a number"),
        pytest.param([[1], [2, 3]], None, "makes no array", id="ragged"),
    ],
)
def test_data_that_is_no_array_of_the_items_is_an_error(data, components, problem):
    with pytest.raises(DataError, match=problem):
        arrays.cast(fc.Batch(np.arange(N), data=data), "float32", components=components)


@pytest.mark.parametrize("components", [(), 3, ("x", 1)])
def test_components_are_names(components):
    with pytest.raises(OptionError, match="components must be a name or several"):
        arrays.cast(batch(x=LABELS), "float32", components=components)


def test_an_action_that_fails_leaves_every_component_as_it_was():
    failing = batch(good=LABELS, bad=LABELS + 10)

    with pytest.raises(DataError):
        arrays.one_hot(failing, 4, components=("good", "bad"))

    assert failing.good is LABELS


def test_an_error_says_which_batch_and_which_component():
    pipeline = fc.Dataset(N, preloaded={"labels": LABELS}).p.arrays.one_hot(3)

    with pytest.raises(DataError, match=r"component 'labels' of <Batch 0 of epoch 0, 6 items"):
        pipeline.run(batch_size=6)
