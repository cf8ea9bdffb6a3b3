"""Tasks are data, and `run_task` is the one function that every engine calls on a worker.

A task covers a contiguous run of partitions and merges their partials before anything is sent back, because a task
of a cluster engine costs 3-30 ms whatever it does. Whatever goes wrong inside comes back as a value too, so that
all engines treat it alike (`distclust.engines.job`): only a lost worker looks different from engine to engine.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distclust.data.cache import NodeCache, node_cache
from distclust.data.node import NodeConfig
from distclust.data.refs import PartitionRef, View
from distclust.engines.protocol import Merge, Step, StepContext
from distclust.engines.tree import Part, Partials
from distclust.errors import CancelledError, DistclustError

RETRYABLE = (OSError, MemoryError, EOFError)
"""What another attempt may cure. A `DistclustError` never is, though `StorageError` is an `OSError`."""


@dataclass(frozen=True)
class Task:
    """A contiguous run of partitions of one map or fold."""

    start: int
    """Position of ``refs[0]`` among the partitions of the map or fold."""
    refs: tuple[PartitionRef, ...]
    view: View
    step: Step
    merge: Merge | None
    """None for a map: one result per partition."""
    label: str
    node: NodeConfig
    n_partitions: int
    """Partitions of the whole map or fold; fixes the tree of inexact partials."""

    @property
    def n_rows(self) -> int:
        """Rows of the task's partitions."""
        return sum(ref.n_rows for ref in self.refs)


@dataclass(frozen=True)
class Failure:
    """An exception that is no `DistclustError`, as it travels from the worker to the driver."""

    exception: Exception
    where: str
    """Stage, partition and file."""
    trace: str
    """The worker's traceback, formatted."""

    @property
    def retryable(self) -> bool:
        """Whether another attempt may cure it: I/O and memory; not an error of the program."""
        return isinstance(self.exception, RETRYABLE)

    def __reduce__(self) -> tuple[object, ...]:
        return Failure, (_portable(self.exception), self.where, self.trace)


@dataclass(frozen=True)
class TaskOutcome:
    """What a task sends back. At most one of ``error`` and ``failure`` is set; then ``parts`` is empty."""

    parts: tuple[Part, ...] = ()
    """Results of a map, or merged partials of a fold, with the partitions that they stand for."""
    error: DistclustError | None = None
    """Deterministic: to be raised once on the driver; names stage, partition and file."""
    failure: Failure | None = None
    rows: int = 0
    """Rows that the task touched."""
    seconds: float = 0.0
    """Time inside the task."""
    notes: tuple[str, ...] = ()
    """What the node cache has to say to the user."""


def run_task(task: Task, value: Any, attempt: int = 0, stopped: Callable[[], bool] | None = None) -> TaskOutcome:
    """Run a task's step on each of its partitions, on the worker.

    Parameters
    ----------
    task : Task
        What to do.
    value : object
        The shared value itself (not a `Shared`).
    attempt : int
        0 for the first try.
    stopped : callable, optional
        Asked before each partition.

    Raises
    ------
    CancelledError
        ``stopped`` said so. Everything else that is an `Exception` comes back in the outcome.
    """
    began = time.perf_counter()
    cache = node_cache(task.node)
    partials = Partials(task.n_partitions, task.merge) if task.merge is not None else None
    parts: list[Part] = []
    error: DistclustError | None = None
    failure: Failure | None = None
    rows = 0
    for position, ref in enumerate(task.refs, task.start):
        if stopped is not None and stopped():
            raise CancelledError("The run was cancelled.")
        try:
            part = _run_step(cache, task, ref, value, attempt)
            if partials is None:
                parts.append(Part(position, position + 1, part))
            else:
                partials.add(position, position + 1, part)
        except DistclustError as exc:
            error = exc.at(f"stage {task.label!r}, partition {ref.index}")
            break
        except Exception as exc:
            where = f"stage {task.label!r}, partition {ref.index}, {ref.describe()}"
            failure = Failure(exc, where, traceback.format_exc())
            break
        rows += ref.n_rows
    if error is not None or failure is not None:
        parts = []
    elif partials is not None:
        parts = partials.parts()
    seconds = time.perf_counter() - began
    return TaskOutcome(tuple(parts), error, failure, rows, seconds, tuple(cache.take_notes()))


def _run_step(cache: NodeCache, task: Task, ref: PartitionRef, value: Any, attempt: int) -> Any:
    with cache.open(ref, task.view) as block:
        context = StepContext(task.label, ref.index, attempt, cache.state(ref, task.view))
        return task.step(block, value, context)


def _portable(exception: Exception) -> Exception:
    """Return the exception, or a stand-in of the same retry class where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(exception))
    except Exception:
        text = f"{type(exception).__name__}: {exception}"
        return OSError(text) if isinstance(exception, RETRYABLE) else RuntimeError(text)
    return exception
