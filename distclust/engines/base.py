"""What all engines have in common; an engine adds how it runs the tasks of a job and how it closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from distclust.data.refs import PartitionRef, View
from distclust.engines.events import Emit, Event, Note
from distclust.engines.job import Job, balance
from distclust.engines.protocol import EngineInfo, EngineOptions, Merge, Pinned, Shared, Step
from distclust.errors import UsageError


class BaseEngine(ABC):
    """An engine that runs jobs; see `distclust.engines.protocol.Engine` for what the calls promise.

    Parameters
    ----------
    info : EngineInfo
        A subclass may replace ``self.info`` when its cluster grows or shrinks.
    options : EngineOptions
        What cuts across all calls.
    """

    tasks_per_slot: ClassVar[int] = 1

    def __init__(self, info: EngineInfo, options: EngineOptions) -> None:
        self.info = info
        self.options = replace(options, emit=_once(options.emit))
        self._closed = False

    @abstractmethod
    def _run(self, job: Job, shared: Shared) -> None:
        """Run the tasks of ``job`` until it is done. ``shared.value`` is what the steps get."""

    @abstractmethod
    def _close(self) -> None:
        """Release workers and scratch; called once."""

    def _refresh(self) -> None:  # noqa: B027 - a hook; the local engine has nothing to refresh
        """Bring ``self.info`` up to date; called before each job."""

    def _cut(self, refs: Sequence[PartitionRef]) -> list[tuple[int, int]]:
        """Group partitions into tasks: contiguous runs, about ``tasks_per_slot`` for each slot."""
        return balance(refs, self.info.slots * self.tasks_per_slot)

    def pin(self, refs: Sequence[PartitionRef], view: View, *, label: str) -> Pinned:
        """Bind references to a view; nothing is read.

        Raises
        ------
        UsageError
            In-memory data on an engine whose workers are other processes.
        """
        if not self.info.sees_driver_memory and any(ref.format == "memory" for ref in refs):
            raise UsageError(
                f"Arrays in this process's memory cannot be read by the workers of the {self.info.name} engine.",
                where=label,
                do="Write them as Parquet or .npy where the workers can read them, or use the local engine.",
            )
        return Pinned(tuple(refs), view, label)

    def share(self, value: Any) -> Shared:
        """Make a value readable by tasks until the ``with`` ends."""
        return Shared(value)

    def map(self, pinned: Pinned, step: Step, value: Any = None, *, label: str) -> list[Any]:
        """Run ``step`` on every partition; results in partition order, none for no partitions."""
        return self._job(pinned, step, None, value, label).results()

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """Run ``step`` on every partition and merge the partials into one.

        Raises
        ------
        UsageError
            No partitions: there is nothing that the fold could return.
        """
        if not pinned.refs:
            raise UsageError("A fold needs at least one partition, found none.", where=f"stage {label!r}")
        return self._job(pinned, step, merge, value, label).total()

    def close(self) -> None:
        """Release what the engine holds; twice is harmless."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _job(self, pinned: Pinned, step: Step, merge: Merge | None, value: Any, label: str) -> Job:
        if self._closed:
            raise UsageError(f"The {self.info.name} engine is closed.", where=f"stage {label!r}", do="Open a new one.")
        self.options.cancel.check()
        self._refresh()
        job = Job(pinned, step, merge, label=label, options=self.options, runs=self._cut(pinned.refs))
        if job.done:
            return job
        if not isinstance(value, Shared):
            with self.share(value) as shared:
                self._run(job, shared)
        elif value.released:
            raise UsageError(
                "The shared value was released before this use.",
                where=f"stage {label!r}",
                do="Use it inside its `with` block.",
            )
        else:
            self._run(job, value)
        return job


def _once(emit: Emit) -> Emit:
    """Pass every event on, but each note only once in the life of an engine."""
    said: set[str] = set()

    def emit_once(event: Event) -> None:
        if isinstance(event, Note):
            if event.message in said:
                return
            said.add(event.message)
        emit(event)

    return emit_once
