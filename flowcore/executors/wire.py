"""The way of a work to workers in other processes, and of an outcome back from there.

An outcome comes back as bytes of our own, so that what does not pickle, or not unpickle, is the
error of its batch: it neither breaks a pool nor leaves anybody waiting.
"""

from __future__ import annotations

import functools
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any, TypeAlias

from flowcore.errors import ActionError, PipelineError, explain
from flowcore.executors.base import Outcome, Work
from flowcore.items import Dropped

__all__ = ["Dumps", "pack", "unpack", "unsendable"]

Dumps: TypeAlias = "Callable[[object], bytes]"

_SENDING_BACK = "sending the batch back"  # the step of an outcome that does not pickle
_TRACE = "flowcore: its traceback in the worker:"  # how such a note begins
_CAUSES = 8  # how many errors that led to an error come back with it
_DEEPEST = 8  # how far into an object `unsendable` looks


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, protocol=5)


def pack(outcome: Outcome, dumps: Dumps = _dumps, dumps_batch: Dumps | None = None) -> bytes:
    """Return an outcome as bytes, in the worker; of what does not pickle, an error that says so.

    An exception keeps its class, its arguments, its attributes and its causes, and gets the text of
    its traceback as a note. One that does not pickle becomes a stand-in: an `ActionError` whose
    class has the same name.

    Args:
        outcome: of a task.
        dumps: pickles errors.
        dumps_batch: pickles batches and items; it may leave their buffers elsewhere.
    """
    try:
        if outcome.error is not None:
            return dumps((outcome.step, _error_parts(outcome.error, dumps)))
        dropped = [
            (item.id, item.position, item.action, _error_parts(item.error, dumps))
            for item in outcome.dropped
        ]
        return (dumps_batch or dumps)((outcome.batch, outcome.items, outcome.size, dropped))
    except Exception as error:
        problem = ActionError(
            explain(
                f"the batch cannot be sent back from its worker: {type(error).__name__}: {error}",
                why=_blamed(_parts_of(outcome), dumps),
                next="leave nothing on the batch that does not pickle, or use threads",
            )
        )
        return dumps((_SENDING_BACK, _error_parts(problem, dumps)))


def unpack(packed: bytes, buffers: Iterable[Any] = ()) -> Outcome:
    """Return the outcome that was packed, in the process of the run.

    Args:
        packed: what `pack` returned.
        buffers: those that ``dumps_batch`` left elsewhere, in their order.
    """
    parts = pickle.loads(packed, buffers=buffers)
    if len(parts) == 2:
        step, error = parts
        return Outcome(error=_error(*error), step=step)
    batch, items, size, dropped = parts
    return Outcome(batch, items, size=size, dropped=tuple(_dropped(*item) for item in dropped))


def unsendable(work: Work, error: BaseException, dumps: Dumps = _dumps) -> PipelineError:
    """Return the error of a work that cannot be pickled: it names the step, and the attribute."""
    return PipelineError(
        explain(
            f"the pipeline cannot be sent to other processes: {type(error).__name__}: {error}",
            where=_blamed(dict(work.parts()), dumps),
            next="make it in an action, or in worker_started of the batch class; a class or a "
            "function at the top level of a module goes by its name; or use threads",
        )
    )


# Errors


def _error_parts(error: BaseException, dumps: Dumps) -> tuple[Any, ...]:
    """Return what an error is made again of, all of it plain; its own pickle is inside as bytes."""
    # One error may be raised again and again: with one traceback as a note, the last.
    notes = [note for note in _notes(error) if not note.startswith(_TRACE)]
    error.__notes__ = notes
    trace = "".join(traceback.format_exception(error)).rstrip()
    error.__notes__ = [*notes, f"{_TRACE}\n{trace}"]
    return _with_causes(error, dumps, _CAUSES)


def _with_causes(error: BaseException, dumps: Dumps, most: int) -> tuple[Any, ...]:
    kind, cause = type(error), error.__cause__
    stand_in = kind.__name__, kind.__module__, _text(error), _notes(error)
    inner = None if cause is None or not most else _with_causes(cause, dumps, most - 1)
    return stand_in, _packed(error, dumps), inner


def _packed(error: BaseException, dumps: Dumps) -> bytes | None:
    """Return an error's own pickle; ``None`` if it has none that gives it back."""
    # By its own pickle where that keeps all, or by a call of its class with its arguments; else
    # without a call, as a class need not take the arguments that are in `args`; else, if its text
    # is another one each time, by its own again.
    parts = type(error), error.args, vars(error)
    forms = (error, True), ((*parts, True), True), ((*parts, False), False), (error, False)
    for made, strict in forms:
        try:
            packed = dumps(made)
            if _is_like(_made_again(packed), error, strict):
                return packed
        except Exception:
            continue
    return None


def _notes(error: BaseException) -> list[str]:
    return [*map(str, getattr(error, "__notes__", ()))]


def _is_like(found: BaseException, error: BaseException, strict: bool) -> bool:
    """Return whether an error that was made again is what it was. Its parts need not be equal."""
    return (
        type(found) is type(error)
        and len(found.args) == len(error.args)
        and vars(found).keys() == vars(error).keys()
        and (not strict or _text(found) == _text(error))
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"an error whose text cannot be made: {object.__repr__(error)}"


def _error(
    stand_in: tuple[str, str, str, list[str]], packed: bytes | None, cause: Any = None
) -> BaseException:
    error = _own_or_stand_in(stand_in, packed)
    if cause:
        error.__cause__ = _error(*cause)
    return error


def _own_or_stand_in(
    stand_in: tuple[str, str, str, list[str]], packed: bytes | None
) -> BaseException:
    if packed is not None:
        try:
            return _made_again(packed)
        except Exception:
            pass  # it could be made again there, and cannot here
    name, module, text, notes = stand_in
    error: ActionError = type(name, (ActionError,), {"__module__": module})(text)
    for note in notes:
        error.add_note(note)
    error.add_note("flowcore: the error itself could not be sent here; this stands for it")
    return error


def _made_again(packed: bytes) -> BaseException:
    parts = pickle.loads(packed)
    if isinstance(parts, BaseException):
        return parts
    kind, arguments, state, called = parts
    error: BaseException = kind(*arguments) if called else kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(state)
    return error


def _dropped(id_: Any, position: int, action: str, error: tuple[Any, ...]) -> Dropped:
    found: Any = _error(*error)
    return Dropped(id_, position, action, found)


# What does not pickle, and where it is


def _parts_of(outcome: Outcome) -> dict[str, object]:
    data = getattr(outcome.batch, "data", None)
    return {"batch.data": data, "batch": outcome.batch, "the item of a sink": outcome.items}


def _blamed(parts: dict[str, object], dumps: Dumps) -> str | None:
    """Return the way to the innermost thing that does not pickle, as text."""
    for name, part in parts.items():
        if not _pickles(part, dumps):
            return _way_into(name, part, dumps)
    return None


def _way_into(way: str, value: object, dumps: Dumps) -> str:
    for _ in range(_DEEPEST):
        found = next((part for part in _inside(value) if not _pickles(part[1], dumps)), None)
        if found is None:
            break
        way, value = way + found[0], found[1]
    return f"{way}, which is {value!r:.80}"


def _pickles(value: object, dumps: Dumps) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _inside(value: Any) -> Iterator[tuple[str, object]]:
    """Generate what a value holds, each part with how it is written."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"[{at}]", part) for at, part in enumerate(value))
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield from ((f"[{at}]", part) for at, part in enumerate(value.args))
        yield from ((f"[{key!r}]", part) for key, part in value.keywords.items())
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, type):
        yield from ((f".{name}", part) for name, part in vars(value).items())
    else:
        yield from ((f".{name}", part) for name, part in _attributes(value))


def _of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    inner = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((f", its variable {name}", cell.cell_contents) for name, cell in inner)
    known = function.__globals__
    named = (name for name in function.__code__.co_names if name in known)
    yield from ((f", the global {name}", known[name]) for name in named)
    yield from ((f".{name}", part) for name, part in vars(function).items())


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    for name in [*getattr(value, "__dict__", {}), *slots]:
        if hasattr(value, name):
            yield name, getattr(value, name)
