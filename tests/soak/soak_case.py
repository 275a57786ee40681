"""One case of the soak: a recipe, its faults and the ways to run it, all drawn from a seed."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from soak_batches import (
    DEADLY,
    NAMES,
    Fault,
    Foreseen,
    SideBatch,
    SmallSink,
    SoakBatch,
    keep_batch,
    keep_item,
    noise_of,
)

import flowcore as fc
from flowcore.testing.batches import Broken, Seen, seen

__all__ = ["EARLY", "Case", "Expected", "draw"]

#: How a consumer may leave a run.
EARLY = "close", "delete", "raise", "feed left"
COMPLETE = "end", "next_batch", "resume", "feed", "run", "killed from outside"


@dataclass(frozen=True)
class Expected:
    """What a serial run gives.

    Attributes:
        batches: as the consumer sees them.
        noise: of each batch, which is what sinks are given.
        kind: name of the class of what it fails of.
        report: of the run.
    """

    batches: list[Seen]
    noise: list[Any]
    kind: str | None
    report: Any


@dataclass(frozen=True)
class Case:
    """What is drawn; see `draw`.

    Attributes:
        executor: its kind.
        making: arguments of the executor.
        steps: of the recipe: functions from pipeline to pipeline.
        options: of the run.
        prefetch: of the run.
        ways: how the consumer takes the batches, in one run after the other.
        keeps: how many batches the consumer keeps.
    """

    seed: int
    executor: str
    making: dict[str, Any]
    items: int
    width: int
    in_place: bool
    steps: tuple[Any, ...]
    faults: tuple[Fault, ...]
    faults_at: int
    sinks: tuple[str, ...]
    options: dict[str, Any]
    prefetch: int
    ways: tuple[str, ...]
    keeps: int
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def breaks_pool(self) -> bool:
        """Whether it has faults that the pool of the standard library does not survive."""
        return self.executor == "process pool" and any(one.kind in DEADLY for one in self.faults)

    def pipeline(self, folder, *, foreseen: bool = False):
        """Return the pipeline; a foreseen fault is an exception that a serial run can raise."""
        faults = self.faults
        if foreseen:
            lasting = [one for one in faults if not one.once]
            faults = tuple(replace(one, foreseen=True) for one in lasting)
            if self.breaks_pool:
                faults = tuple(one for one in faults if one.kind not in DEADLY)
        pipe = self._source()
        for at, step in enumerate((*self.steps, None)):
            if at == self.faults_at:
                pipe = pipe.go_wrong(faults, str(folder))
            pipe = pipe if step is None else _STEPS[step](pipe, self)
        if not foreseen:
            for sink in self.sinks:
                pipe = _SINKS[sink](pipe, self)
        return pipe

    def expected(self, folder) -> Expected:
        """Return what a serial run gives."""
        run = self.pipeline(folder, foreseen=True).gen_batch(**self.options)
        batches: list[Seen] = []
        noise, kind = [], None
        try:
            for batch in run:
                batches += seen([batch])
                noise.append(batch.noise)
        except Foreseen as error:
            kind = NAMES[error.args[0]]
        except Broken:
            kind = "Broken"
        return Expected(batches, noise, kind, run.report)

    def _source(self):
        first = fc.Dataset(self.items, SoakBatch).p.load_wide(self.width, self.in_place)
        if not self.parts.get("mixed"):
            return first
        other = fc.Dataset(range(self.items, self.items + self.parts["mixed"]), SoakBatch)
        return fc.mix([first, other.p.load_wide(self.width, self.in_place)], [2, 1], stop="all")


_STEPS = {
    "item": lambda pipe, case: pipe.jitter(),
    "threads": lambda pipe, case: pipe.jitter_at_once(case.parts["bad"]),
    "async": lambda pipe, case: pipe.jitter_async(),
    "async batch": lambda pipe, case: pipe.double(),
    "filter": lambda pipe, case: pipe.filter(keep_batch),
    "filter items": lambda pipe, case: pipe.filter(keep_item, each="item"),
    "join": lambda pipe, case: pipe.join(fc.Dataset(case.items, SideBatch).p.load_side()),
    "rebatch": lambda pipe, case: pipe.rebatch(case.parts["rebatch"]),
}

_SINKS = {
    "null": lambda pipe, case: pipe.put_into_null(),
    "collect": lambda pipe, case: pipe.put_into_numpy_buffer(get_tensor=noise_of),
    "buffer": lambda pipe, case: pipe.put_into_numpy_buffer(
        get_tensor=noise_of, capacity=case.parts["capacity"]
    ),
    "small": lambda pipe, case: pipe.put_into(SmallSink(case.parts["capacity"])),
}


def draw(seed: int) -> Case:
    """Return the case of a seed."""
    rng = random.Random(seed)
    executor = rng.choices(
        ["serial", "threads", "processes", "process pool", "thread pool"], [1, 2, 7, 1, 1]
    )[0]
    ordered = rng.random() < 0.75
    mixed = rng.choice([0, 0, 0, 7])
    steps = _draw_steps(rng, ordered=ordered, mixed=mixed)
    options: dict[str, Any] = {
        "batch_size": rng.randint(1, 7),
        "shuffle": rng.random() < 0.5,
        "seed": rng.randrange(1000),
        "n_epochs": rng.choice([1, 1, 2]),
        "drop_last": rng.random() < 0.2,
        "ordered": ordered,
        "retries": rng.choice([0, 0, 1, 2]),
        "on_error": rng.choice(["raise", "skip", "skip_items"]) if ordered else "skip",
    }
    if rng.random() < 0.2:
        world = rng.randint(2, 3)
        uneven = "short" if "rebatch" in steps else rng.choice(["pad", "drop", "short"])
        options.update(shard=(rng.randrange(world), world), uneven=uneven)
    ways = _draw_ways(rng)
    prefetch = 0 if executor == "serial" else rng.randint(1, 6)
    making = {"num_workers": rng.randint(1, 3)} if prefetch else {}
    if executor == "processes":
        making["slots"] = rng.choice([None, None, 0, 1, 4])
        making["threads_per_worker"] = rng.choice([1, 1, 2])
    items = rng.randint(1, 60)
    faults = _draw_faults(rng, executor, making, options, ways)
    if any(fault.kind == "hang" for fault in faults):
        making["timeout"] = 3.0
    if executor == "processes" and not faults and rng.random() < 0.3:
        ways = (*ways[:-1], "killed from outside")
    one_bounded = any("feed" in way for way in ways)
    return Case(
        seed=seed,
        executor=executor,
        making=making,
        items=items,
        width=rng.choice([1, 100, 5_000, 30_000]),
        in_place=rng.random() < 0.5,
        steps=steps,
        faults=faults,
        faults_at=rng.randint(0, len(steps)),
        sinks=_draw_sinks(rng, ways, most_bounded=1 if one_bounded else 2),
        options=options,
        prefetch=prefetch,
        ways=ways,
        keeps=rng.choice([0, 0, 3, 40]),
        parts={
            "mixed": mixed,
            "bad": tuple(rng.sample(range(items), min(items, rng.choice([0, 0, 1, 2])))),
            "rebatch": rng.randint(1, 9),
            "capacity": rng.randint(1, 3),
        },
    )


def _draw_steps(rng, *, ordered, mixed) -> tuple[str, ...]:
    steps = rng.choices(["item", "threads", "async", "async batch"], k=rng.randint(0, 3))
    steps += rng.sample(["filter", "filter items"], rng.choice([0, 0, 1, 2]))
    rng.shuffle(steps)
    if not mixed and rng.random() < 0.3:
        steps.insert(0, "join")
    if ordered and rng.random() < 0.3:
        steps.insert(rng.randint(0, len(steps)), "rebatch")
    return tuple(steps)


def _draw_ways(rng) -> tuple[str, ...]:
    first = [rng.choice(EARLY + COMPLETE[:-1]) for _ in range(rng.choice([0, 0, 1, 2]))]
    return (*first, rng.choice(COMPLETE[:-1]))


def _draw_sinks(rng, ways, *, most_bounded) -> tuple[str, ...]:
    sinks = rng.sample(["null", "collect"], rng.choice([0, 0, 1, 2]))
    if "run" not in ways:
        sinks += rng.sample(["buffer", "small"], rng.randint(0, most_bounded))
    return tuple(sinks)


def _draw_faults(rng, executor, making, options, ways) -> tuple[Fault, ...]:
    kinds = ["error"]
    if executor in ("processes", "process pool"):
        kinds += ["unpicklable error", "kill", "exit"]
        if not {"run", "feed", "feed left"} & set(ways):  # where a batch is not sent back
            kinds += ["unpicklable result"]
    if executor == "processes":
        kinds += ["hang"]
    numbers = rng.sample(range(12), rng.choice([0, 0, 1, 1, 2, 3]))
    again = options["retries"] and options["on_error"] != "skip_items"
    faults, deadly = [], 0
    for number in numbers:
        kind = rng.choice(kinds)
        deadly += kind in DEADLY
        if kind in DEADLY and making.get("threads_per_worker", 1) > 1 and deadly > 1:
            continue  # a batch that was lost in company has one attempt less
        once = rng.random() < 0.6 and (again or kind in ("kill", "exit"))
        faults.append(Fault(number, kind, once and kind != "unpicklable result"))
    return tuple(faults)
