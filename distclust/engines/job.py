"""One map or fold as the driver sees it: its tasks, and what becomes of their outcomes.

Engines only run tasks. Retries, errors, events and the assembly of results are here, once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distclust.data.refs import PartitionRef
from distclust.engines.events import Note, TaskEnded, TaskRetried
from distclust.engines.protocol import EngineOptions, Merge, Pinned, Step
from distclust.engines.task import Failure, Task, TaskOutcome
from distclust.engines.tree import Part, Partials
from distclust.errors import EngineLostError


class Job:
    """Tasks of one map or fold, and the results so far.

    An engine runs every task of ``tasks``, hands each outcome to `accept`, runs again what `accept` or `lost`
    ask for, and returns when `done`.

    Parameters
    ----------
    pinned : Pinned
        Partitions and view.
    step, merge
        See `distclust.engines.protocol`; ``merge`` is None for a map.
    label : str
        Human name.
    options : EngineOptions
        Retries, events, node configuration.
    runs : sequence of (start, stop)
        Which partitions make a task; contiguous, in order, covering all. See `balance`.

    Attributes
    ----------
    tasks : tuple of Task
        In partition order.
    attempts : list of int
        For each task, how often it failed so far: the number of its next attempt.
    """

    def __init__(
        self,
        pinned: Pinned,
        step: Step,
        merge: Merge | None,
        *,
        label: str,
        options: EngineOptions,
        runs: Sequence[tuple[int, int]],
    ) -> None:
        n = len(pinned.refs)
        self.label = label
        self.tasks = tuple(
            Task(start, pinned.refs[start:stop], pinned.view, step, merge, label, options.node, n)
            for start, stop in runs
        )
        self.attempts = [0] * len(self.tasks)
        self._options = options
        self._open = set(range(len(self.tasks)))
        self._results: list[Part] = []
        self._partials = Partials(n, merge) if merge is not None else None

    @property
    def done(self) -> bool:
        """Whether every task has an accepted outcome."""
        return not self._open

    def accept(self, number: int, outcome: TaskOutcome) -> bool:
        """Take the outcome of task ``number``; False asks the engine to run the task again.

        A second outcome of a task that is done already is ignored.

        Raises
        ------
        DistclustError
            The step's own, or `EngineLostError` after too many attempts.
        Exception
            An error of the program inside a step, with its place and the worker's traceback as a note.
        """
        for message in outcome.notes:
            self._options.emit(Note(message=message))
        if number not in self._open:
            return True
        if outcome.error is not None:
            raise outcome.error
        if outcome.failure is not None:
            self._fail(number, outcome.failure)
            return False
        for part in outcome.parts:
            if self._partials is None:
                self._results.append(part)
            else:
                self._partials.add(*part)
        self._open.remove(number)
        self._options.emit(TaskEnded(label=self.label, rows=outcome.rows, seconds=outcome.seconds))
        return True

    def lost(self, number: int, reason: str) -> None:
        """Take note that the worker of task ``number`` died; the engine runs the task again.

        Raises
        ------
        EngineLostError
            The task was lost more often than ``options.retries``.
        """
        task = self.tasks[number]
        where = f"stage {self.label!r}, partitions {task.refs[0].index}-{task.refs[-1].index}"
        self._retry(number, reason, where, cause=None)

    def results(self) -> list[Any]:
        """Return the results of a map in partition order."""
        return [part.value for part in sorted(self._results, key=lambda part: part.start)]

    def total(self) -> Any:
        """Return the one partial of a fold."""
        assert self._partials is not None
        (part,) = self._partials.parts()
        return part.value

    def _fail(self, number: int, failure: Failure) -> None:
        if not failure.retryable:
            remote = failure.exception.__traceback__ is None  # pickling drops it
            failure.exception.add_note(f"in {failure.where}\n{failure.trace}" if remote else f"in {failure.where}")
            raise failure.exception
        reason = f"{type(failure.exception).__name__}: {failure.exception}"
        self._retry(number, reason, failure.where, failure.exception)

    def _retry(self, number: int, reason: str, where: str, cause: Exception | None) -> None:
        self.attempts[number] += 1
        attempt = self.attempts[number]
        if attempt > self._options.retries:
            raise EngineLostError(
                f"failed {attempt} times, last with {reason}.",
                where=where,
                do="Check the file, the storage and the workers' memory, then go on with `distclust resume OUT`.",
            ) from cause
        self._options.emit(TaskRetried(label=self.label, reason=reason, attempt=attempt))


def balance(refs: Sequence[PartitionRef], n_tasks: int) -> list[tuple[int, int]]:
    """Cut partitions into at most ``n_tasks`` contiguous, non-empty runs of about equal numbers of rows.

    Parameters
    ----------
    refs : sequence of PartitionRef
        In partition order.
    n_tasks : int
        At least 1.

    Returns
    -------
    list of (start, stop)
        In order; they cover all partitions.
    """
    weights = [ref.n_rows + 1 for ref in refs]  # + 1: partitions of no rows still cost a visit
    total = sum(weights)
    runs: list[tuple[int, int]] = []
    before, last = 0, -1
    for position, weight in enumerate(weights):
        slot = (2 * before + weight) * n_tasks // (2 * total)  # where the partition's middle falls
        if slot == last:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
            last = slot
        before += weight
    return runs
