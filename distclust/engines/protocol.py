"""The engine protocol: six calls that local threads, Dask and Spark answer alike.

Rows never pass through an engine. What passes: partition references, one shared value, small mergeable
partials. The laws that every engine keeps are tests in `distclust.testing.engine_suite`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from distclust.data.block import Block, RawRows
from distclust.data.node import NodeConfig
from distclust.data.refs import PartitionRef, View
from distclust.data.state import RowState
from distclust.engines.events import Emit, ignore
from distclust.errors import CancelledError


@dataclass(frozen=True)
class StepContext:
    """What a step may know besides its rows and the shared value."""

    label: str
    """Human name of the map or fold."""
    index: int
    """Index of the partition."""
    attempt: int
    """0 for the first try. Results must not depend on it."""
    state: RowState
    """Advisory per-row arrays kept beside the block; may be empty at any time."""


class Step(Protocol):
    """A pure function of (rows, shared value): a picklable object, usually a frozen dataclass."""

    def __call__(self, block: Any, value: Any, context: StepContext, /) -> Any:
        """Return the partial, or the result, of one partition."""
        ...


Merge = Callable[[Any, Any], Any]
"""Associative, does not mutate its inputs; picklable (a function of a module, or an unbound method).

A partial whose class has ``exact = False`` is merged along a tree over partition index that depends on the
number of partitions alone; any other partial in whatever grouping is fastest.
"""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine has."""

    name: str
    """``local``, ``dask``, ``spark`` or ``hostile``."""
    slots: int
    """Tasks that run at the same time."""
    memory_per_slot: int
    """Bytes that one task may use."""
    sees_driver_memory: bool
    """Tasks can read arrays of the driver's process (``memory://`` references)."""
    shared_storage: bool
    """Workers and driver see the same paths."""


@dataclass(frozen=True)
class Pinned:
    """References with the view under which they are read; the same reference goes to the same node when it can."""

    refs: tuple[PartitionRef, ...]
    view: View
    label: str

    @property
    def n_rows(self) -> int:
        """Rows of all partitions, bad ones included."""
        return sum(ref.n_rows for ref in self.refs)


class Shared(AbstractContextManager["Shared"]):
    """A value that tasks can read; released at the end of the ``with``. Engines subclass it as they need."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.released = False

    def __exit__(self, *exc: object) -> None:
        self.value = None
        self.released = True


class CancelToken:
    """Set once, from a signal handler or another thread; engines look at it between tasks."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for a stop after the tasks in flight."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `CancelledError` if a stop was asked for."""
        if self._event.is_set():
            raise CancelledError(
                "The run was cancelled.", do="`distclust resume OUT` goes on from the last checkpoint."
            )


@dataclass(frozen=True)
class EngineOptions:
    """What cuts across all calls; given once, when the engine is opened."""

    emit: Emit = ignore
    """Takes every event."""
    cancel: CancelToken = field(default_factory=CancelToken)
    retries: int = 3
    """Further attempts after a task failed for I/O reasons or lost its worker."""
    node: NodeConfig = field(default_factory=NodeConfig)
    """Scratch, cache budget and memory of the nodes."""


class Engine(Protocol):
    """Where steps run. See `open_engine`."""

    info: EngineInfo
    options: EngineOptions

    def pin(self, refs: Sequence[PartitionRef], view: View, *, label: str) -> Pinned:
        """Bind references to a view. Affinity only: nothing is read."""
        ...

    def share(self, value: Any) -> Shared:
        """Make a value readable by tasks until the ``with`` ends."""
        ...

    def map(self, pinned: Pinned, step: Step, value: Any = None, *, label: str) -> list[Any]:
        """Run ``step`` on every partition; small results in partition order."""
        ...

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """Run ``step`` on every partition and merge the partials into one."""
        ...

    def close(self) -> None:
        """Stop what the engine started, remove its scratch; twice is harmless."""
        ...


__all__ = [
    "Block",
    "CancelToken",
    "Engine",
    "EngineInfo",
    "EngineOptions",
    "Merge",
    "Pinned",
    "RawRows",
    "Shared",
    "Step",
    "StepContext",
]
