"""The ``flowcore`` command: what is installed, and pipelines run or described by name."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from flowcore import __version__
from flowcore.dataset import Dataset
from flowcore.errors import BrokenPlugin, FlowcoreError, PipelineError, explain, near
from flowcore.pipeline import Pipeline
from flowcore.plugins import plugins as installed

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for something broken, 2 for a mistake."""
    options = _parser().parse_args(arguments)
    if sys.path[0] != "" and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return int(options.command(options))
    except FlowcoreError as error:
        notes = getattr(error, "__notes__", [])  # there are some if it came out of a batch
        print("\n".join([f"flowcore: {error}", *notes]), file=sys.stderr)
        return 1 if notes else 2
    except KeyboardInterrupt:
        print("flowcore: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("flowcore", description="Batch pipelines that feed models.")
    parser.add_argument("--version", action="version", version=f"flowcore {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plugins = commands.add_parser("plugins", help="list what is installed; imports nothing")
    plugins.add_argument("--check", action="store_true", help="import each, and say what is broken")
    plugins.set_defaults(command=_plugins)

    describe = commands.add_parser("describe", help="print the steps of a pipeline")
    describe.add_argument("pipeline", metavar="MODULE:PIPELINE")
    describe.set_defaults(command=_describe)

    run = commands.add_parser("run", help="run a pipeline to the end and print the report")
    run.add_argument("pipeline", metavar="MODULE:PIPELINE")
    run.add_argument("--batch-size", type=int, required=True)
    run.add_argument("--n-epochs", type=int, default=1)
    run.add_argument("--shuffle", action="store_true")
    run.add_argument("--seed", type=int)
    run.add_argument("--drop-last", action="store_true")
    run.add_argument("--prefetch", type=int)
    run.add_argument("--executor", metavar="NAME")
    run.add_argument("--num-workers", type=int)
    run.add_argument("--on-error", choices=("raise", "skip", "skip_items"), default="raise")
    run.add_argument("--retries", type=int, default=0)
    run.add_argument("--progress", action="store_true", help="say how far it is")
    run.add_argument("--sink", metavar="NAME", help="send the batches here, at the end")
    run.add_argument(
        "--sink-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of --sink; the value is read as a Python literal, else as text",
    )
    run.set_defaults(command=_run)
    return parser


def _plugins(options: argparse.Namespace) -> int:
    broken = 0
    rows = [("group", "name", "distribution", "target")]
    reasons = []
    for info in installed():
        rows.append(
            (info.group, info.name, f"{info.distribution} {info.version}", info.target),
        )
        if options.check:
            try:
                info.load()
            except BrokenPlugin as error:
                broken += 1
                rows[-1] = (*rows[-1][:3], f"{info.target}  BROKEN")
                reasons.append(str(error))
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*padded, row[3]]))
    for reason in reasons:
        print(f"\n{reason}")
    if options.check and not broken:
        print(f"all {len(rows) - 1} can be imported")
    return 1 if broken else 0


def _describe(options: argparse.Namespace) -> int:
    print(_load_pipeline(options.pipeline))
    return 0


def _run(options: argparse.Namespace) -> int:
    sink: object = options.sink
    if options.sink_option:
        if sink is None:
            raise PipelineError("--sink-option needs --sink")
        sink = (sink, dict(map(_key_value, options.sink_option)))
    report = _load_pipeline(options.pipeline).run(
        options.batch_size,
        options.shuffle,
        options.n_epochs,
        options.drop_last,
        options.prefetch,
        seed=options.seed,
        executor=options.executor,
        num_workers=options.num_workers,
        on_error=options.on_error,
        retries=options.retries,
        progress=options.progress,
        sink=sink,
    )
    print(report)
    return 0


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise PipelineError(f"--sink-option wants KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # as it documents
        return key, value


def _load_pipeline(target: str) -> Pipeline:
    """Import ``module:attribute``; a dataset stands for its empty pipeline."""
    name, colon, attribute = target.partition(":")
    if not (name and colon and attribute) or name.startswith("."):
        raise PipelineError(f"a pipeline is named MODULE:PIPELINE, got {target!r}")
    if name.endswith(".py"):
        raise PipelineError(
            explain(
                f"{name!r} is a file, and a module is wanted",
                next=f"leave .py off: {name.removesuffix('.py')}:{attribute}",
            )
        )
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise PipelineError(
            explain(
                f"there is no module {name!r}",
                where=f"the current folder, {os.getcwd()}, and the installed packages",
                next="write the module's name as in an import: folder.file:pipeline",
            )
        ) from None
    if not hasattr(module, attribute):
        runnable = (Pipeline, Dataset)
        known = [name for name, value in vars(module).items() if isinstance(value, runnable)]
        raise PipelineError(
            explain(
                f"module {name!r} has no {attribute!r}",
                why=f"its pipelines and datasets: {', '.join(known) or 'none'}",
                next=near(attribute, known),
            )
        )
    found = getattr(module, attribute)
    if isinstance(found, Dataset):
        return found.p
    if not isinstance(found, Pipeline):
        raise PipelineError(f"{target!r} is {type(found).__name__}, not a pipeline")
    return found
