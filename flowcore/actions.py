"""The mark of an action, and the making of an action of a batch from a function of one item."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from flowcore.errors import ActionError, ArgumentError, DataError, OptionError, explain
from flowcore.items import Item, map_items

if TYPE_CHECKING:
    from flowcore.batch import Batch

__all__ = ["ActionMark", "action", "action_mark"]

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__flowcore_action__"


@dataclass(frozen=True, slots=True)
class ActionMark:
    """What `action` leaves on a function.

    ``lock`` is held while the action runs, if it is a singleton: all runs of the process meet here.
    It is reentrant, as such an action may run a pipeline with the same action in its own thread.
    """

    singleton: bool = False
    each: Literal["item"] | None = None
    concurrency: int | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process, with a function that goes by value, without the lock."""
        return ActionMark, (self.singleton, self.each, self.concurrency)


@overload
def action(function: Function, /) -> Function: ...
@overload
def action(*, singleton: bool = False) -> Callable[[Function], Function]: ...
@overload
def action(
    *, singleton: bool = False, each: Literal["item"] | None, concurrency: int | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def action(
    function: Any = None,
    /,
    *,
    singleton: bool = False,
    each: Literal["item"] | None = None,
    concurrency: int | None = None,
) -> Any:
    """Mark a function ``batch -> batch`` as an action that pipelines may name.

    Used on methods of a batch class and on the functions of an action pack, with or without
    parentheses. The function stays as it is and can be called directly. It runs in a worker of the
    run; if it is ``async def``, on the run's event loop in that process, while the worker waits. A
    direct call of such a one gives a coroutine.

    With ``each="item"`` it is a function of one `Item`, and is called for each of the batch. It
    returns the item; or a dict of the components that are new; or the value, if the batch has no
    components or a single one. When all are done, each component that was set is made of the items'
    values: one array of equally shaped numbers, strings or dates, else an array of objects. A
    component that is set for some items keeps the others' entries; one that is set for none stays
    the object it is. What is called by the name is then an action of the batch. The items run one
    after the other in the worker; with ``concurrency`` also in helper threads of the run; or,
    ``async def``, as tasks on the event loop. A direct call uses this thread, or a loop of its own.

    Args:
        singleton: let only one batch at a time be in this action, in this process. A direct call is
            not held back.
        each: ``"item"`` for a function of an item.
        concurrency: of ``each="item"``: at most so many items of a batch at once. By default one,
            and all of them for ``async def``.

    Raises:
        OptionError: a value of ``each`` or ``concurrency`` that cannot be.
        ArgumentError: a function of an item without a parameter for it, or with a yield.
    """
    _check_options(each, concurrency)

    def mark(function: Any) -> Any:
        marked = function if each is None else _each_item(function, concurrency)
        setattr(marked, _MARK, ActionMark(singleton, each, concurrency))
        return marked

    return mark if function is None else mark(function)


def action_mark(function: object) -> ActionMark | None:
    """Return what `action` left on ``function``, ``None`` if it is no action."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, ActionMark) else None


def _check_options(each: object, concurrency: object) -> None:
    if each not in (None, "item"):
        raise OptionError(f"each must be 'item', or left out, got {each!r}")
    if concurrency is None:
        return
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise OptionError(f"concurrency must be a positive int, or None, got {concurrency!r}")
    if each is None:
        raise OptionError(
            explain("concurrency is of items", next=f"@action(each='item', {concurrency=})")
        )


def _each_item(function: Callable[..., Any], concurrency: int | None) -> Callable[..., Any]:
    """Return the action of a batch that runs ``function(item, ...)`` on each of its items.

    Raises:
        ArgumentError: ``function`` has no parameter for the item, or a yield.
    """
    _check_function(function)
    is_async = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def run(batch: Batch, /, *args: Any, **kwargs: Any) -> Batch:
        async def call_async(item: Item) -> Item:
            return _settled(item, await function(item, *args, **kwargs))

        def call(item: Item) -> Item:
            return _settled(item, function(item, *args, **kwargs))

        _put_together(batch, map_items(call_async if is_async else call, batch, concurrency))
        return batch

    return run


def _check_function(function: Callable[..., Any]) -> None:
    name = getattr(function, "__name__", repr(function))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = "has a yield, so it returns no item"
    elif not any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()
    ):
        problem = "has no parameter for the item"
    else:
        return
    raise ArgumentError(
        explain(
            f"the per-item action {name!r} {problem}",
            next=f"write it as: def {name}(item, ...): ...; return item",
        )
    )


def _settled(item: Item, made: Any) -> Item:
    """Return the item, with what its function returned; its large arrays are in their stacks.

    Raises:
        ActionError: that is nothing, or no value of an item.
    """
    if made is not item:
        wrong = made is None or isinstance(made, Item)
        if wrong or inspect.isawaitable(made):
            if inspect.iscoroutine(made):
                made.close()  # else it would warn that it was never awaited
            raise ActionError(
                explain(
                    f"a per-item action returned {made!r:.60}",
                    next="end it with: return item" if wrong else "write it as: async def",
                )
            )
        item.data = made
    new = item._new
    for name in new:
        new[name] = item._stacks.put(name, item._row, new[name])
    return item


def _put_together(batch: Batch, items: list[Item]) -> None:
    """Set what the items were given as components of the batch, or as its data."""
    names = dict.fromkeys(name for item in items for name in item._new)
    if "data" in names and len(names) > 1:
        raise DataError(f"per-item actions set {', '.join(names)}: components, or data, not both")
    new = {
        name: items[0]._stacks.stacked(name, [_value(item, name) for item in items])
        for name in names
    }
    if "data" in new:
        batch.data = new["data"]
    elif new:
        batch.data = {**(batch.data or {}), **new}


def _value(item: Item, name: str) -> Any:
    batch = item._batch
    loaded = batch.data is not None if name == "data" else name in (batch.data or ())
    if name in item._new or loaded:
        return getattr(item, name)
    raise DataError(
        explain(
            f"{name!r} was set for other items, and not for item {item.id!r}",
            where=repr(batch),
            next="set it for every item, as it has no value from before",
        )
    )
