"""flowcore: batch pipelines that feed models.

A pipeline is a lazy recipe of actions over batches of an index; an executor, chosen by name, makes
batches in parallel; a sink, chosen by name, is where they go. Everything but the core is a plugin.
"""

from flowcore import errors
from flowcore.batch import Batch, action
from flowcore.dataset import Dataset
from flowcore.executors.base import Executor, Outcome, Task, Work
from flowcore.hookspecs import hookimpl
from flowcore.index import Index
from flowcore.pipeline import Pipeline
from flowcore.plugins import PluginInfo, plugins
from flowcore.run.handles import Feed, Run
from flowcore.run.report import Report, Trouble
from flowcore.sinks import Cancel, Sink, SinkRun, sink

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cancel",
    "Dataset",
    "Executor",
    "Feed",
    "Index",
    "Outcome",
    "Pipeline",
    "PluginInfo",
    "Report",
    "Run",
    "Sink",
    "SinkRun",
    "Task",
    "Trouble",
    "Work",
    "__version__",
    "action",
    "errors",
    "hookimpl",
    "plugins",
    "sink",
]
