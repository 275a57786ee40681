"""flowcore: batch pipelines that feed models.

A pipeline is a lazy recipe of actions over batches of an index; an executor, chosen by name, makes
batches in parallel; a sink, chosen by name, is where they go. Everything but the core is a plugin.
"""

from flowcore import errors, samplers
from flowcore.actions import action
from flowcore.batch import Batch
from flowcore.compose import concat, mix
from flowcore.dataset import Dataset
from flowcore.executors.base import Executor, Outcome, Running, Task, TaskGroup, Work
from flowcore.files import FilesIndex
from flowcore.hookspecs import BatchFailed, hookimpl
from flowcore.index import Index
from flowcore.items import Item
from flowcore.memory import aligned_empty
from flowcore.pipeline import Pipeline
from flowcore.plugins import PluginInfo, plugins
from flowcore.rows import stacked
from flowcore.run.handles import Feed, Run
from flowcore.run.report import Report, Trouble
from flowcore.sampler import BatchSampler, Sampler
from flowcore.shard import Shard
from flowcore.sinks import Cancel, Sink, SinkRun, sink
from flowcore.values import B, R, V

__version__ = "0.1.0"

__all__ = [
    "B",
    "Batch",
    "BatchFailed",
    "BatchSampler",
    "Cancel",
    "Dataset",
    "Executor",
    "Feed",
    "FilesIndex",
    "Index",
    "Item",
    "Outcome",
    "Pipeline",
    "PluginInfo",
    "R",
    "Report",
    "Run",
    "Running",
    "Sampler",
    "Shard",
    "Sink",
    "SinkRun",
    "Task",
    "TaskGroup",
    "Trouble",
    "V",
    "Work",
    "__version__",
    "action",
    "aligned_empty",
    "concat",
    "errors",
    "hookimpl",
    "mix",
    "plugins",
    "samplers",
    "sink",
    "stacked",
]
