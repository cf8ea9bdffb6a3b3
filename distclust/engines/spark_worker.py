"""How tasks travel to Spark's Python workers and back, and what runs there; the same with and without Connect."""

from __future__ import annotations

import gc
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark import Broadcast, TaskContext, cloudpickle
from pyspark.accumulators import Accumulator, AccumulatorParam

from distclust.data.cache import node_cache
from distclust.data.node import NodeConfig
from distclust.data.scratch import scratch_root, sweep
from distclust.engines.code import code_version
from distclust.engines.job import Job
from distclust.engines.spark_failures import Abort
from distclust.engines.task import Failure, Task, TaskOutcome, run_task
from distclust.errors import UsageError


LEAVE_SECONDS = 5.0
"""How long to wait for other processes to give up their share in a run's scratch."""


class Frozen(NamedTuple):
    """A pickled object whose arrays are beside the pickle, so that large ones are copied once and not three times."""

    pickled: bytes
    buffers: tuple[Any, ...]
    """`pickle.PickleBuffer` where it was made, bytes or bytearray where it arrived."""

    @property
    def n_bytes(self) -> int:
        """Size of all that travels."""
        return len(self.pickled) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


def freeze(value: Any) -> Frozen:
    """Pickle an object; classes of the driver's ``__main__`` travel by value."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return Frozen(pickled, tuple(buffers))


def thaw(frozen: Frozen) -> Any:
    """Return the object."""
    return pickle.loads(frozen.pickled, buffers=frozen.buffers)


class FromTask:
    """A value that travels in the task itself."""

    def __init__(self, frozen: Frozen) -> None:
        self._frozen = frozen

    def __call__(self) -> Frozen:
        """Return the frozen value."""
        return self._frozen


class FromBroadcast:
    """A value that executors fetch once and keep."""

    def __init__(self, broadcast: Broadcast[Frozen]) -> None:
        self._broadcast = broadcast

    def __call__(self) -> Frozen:
        """Return the frozen value, always the same object in one process."""
        return self._broadcast.value


class Alarms(AccumulatorParam[list[tuple[str, bytes]]]):
    """Collects the reports of tasks that end their job, each with the job's name, while the job still runs."""

    def zero(self, value: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return nothing collected."""
        return []

    def addInPlace(  # noqa: N802  (Spark's name)
        self, value1: list[tuple[str, bytes]], value2: list[tuple[str, bytes]]
    ) -> list[tuple[str, bytes]]:
        """Return both together."""
        return [*value1, *value2]


class Order(NamedTuple):
    """A task on its way to a worker."""

    number: int
    attempt: int
    """How often the driver has seen it fail."""
    task: Task


class Report(NamedTuple):
    """An outcome on its way to the driver."""

    number: int
    losses: int
    """How often Spark ran the task in vain before."""
    outcome: TaskOutcome


def make_orders(job: Job, numbers: Iterable[int]) -> list[bytes]:
    """Pickle the tasks of a job with these numbers."""
    return [cloudpickle.dumps(Order(n, job.attempts[n], job.tasks[n]), protocol=5) for n in numbers]


def accept_reports(job: Job, reports: Iterable[bytes], retries: int) -> list[int]:
    """Hand reports to the job, on the driver; return the numbers of the tasks that must run again."""
    again = []
    for pickled in reports:
        report: Report = pickle.loads(pickled)
        for _ in range(min(report.losses, retries - job.attempts[report.number])):
            job.lost(report.number, "its worker was lost")
        if not job.accept(report.number, report.outcome):
            again.append(report.number)
    return again


def take_abort(job: Job, numbers: Sequence[int], abort: Abort) -> None:
    """Return if a job that Spark gave up should be tried again; raise what the user should read if not."""
    if abort.kind != "worker":
        raise abort.error(f"stage {job.label!r}")
    for _ in range(abort.failures):
        job.lost(numbers[abort.task], f"its worker was lost ({abort.reason})")


@dataclass(frozen=True)
class TaskRunner:
    """Run the orders of one Spark partition.

    Attributes
    ----------
    version : str
        The driver's `code_version`.
    value : callable
        Returns the shared value, in its frozen form.
    alarm : Accumulator or None
        Hears of errors at once, where the outcomes themselves come to the driver only with the last task's.
    job : str
        Name of the job, for the alarm.
    """

    version: str
    value: Callable[[], Frozen]
    alarm: Accumulator[list[tuple[str, bytes]]] | None
    job: str

    def __call__(self, orders: Iterable[bytes]) -> Iterator[bytes]:
        """Yield a pickled `Report` for each order."""
        # A task that does not exhaust its input costs its worker process.
        for order in list(orders):
            yield self.run(order)

    def run(self, pickled: bytes) -> bytes:
        """Return a pickled `Report`. Whatever goes wrong comes back inside it."""
        order: Order = pickle.loads(pickled)
        context = TaskContext.get()
        losses = 0 if context is None else context.attemptNumber()
        outcome = self._outcome(order, losses)
        try:
            report = cloudpickle.dumps(Report(order.number, losses, outcome), protocol=5)
        except Exception as error:
            outcome = _failed(order.task, error)
            report = cloudpickle.dumps(Report(order.number, losses, outcome), protocol=5)
        if self.alarm is not None and _ends_the_job(outcome):
            self.alarm.add([(self.job, report)])
        return report

    def _outcome(self, order: Order, losses: int) -> TaskOutcome:
        if code_version() != self.version:
            return TaskOutcome(
                error=UsageError(
                    f"The worker runs distclust {code_version()}, the driver {self.version}; they must be equal.",
                    where=f"stage {order.task.label!r}",
                    do="Install the driver's distclust on all nodes, and start the Spark session anew.",
                )
            )
        try:
            value = _load(self.value())
        except Exception as error:
            return _failed(order.task, error)
        outcome = run_task(order.task, value, order.attempt + losses)
        _settle(type(order.task.step))
        return outcome


class CacheCloser:
    """Close the node cache of a run in a worker process, and see that its scratch goes."""

    def __init__(self, node: NodeConfig) -> None:
        self._node = node

    def __call__(self, rows: Iterable[bytes]) -> Iterator[bytes]:
        """Do it once, whatever the rows."""
        list(rows)
        leave_node(self._node)
        yield b""


def leave_node(node: NodeConfig) -> None:
    """Close this process's node cache; wait a little for the other processes of the run, the last of which may be dying.

    A cancelled task goes on for two seconds before Spark kills its process, which then cannot clean up any more.
    """
    node_cache(node).close()
    root = scratch_root(node.scratch)
    end = time.monotonic() + LEAVE_SECONDS
    while not node.keep and (root / node.token).exists() and time.monotonic() < end:
        sweep(root)
        time.sleep(0.05)


_loaded: tuple[Frozen | None, Any] = (None, None)


def _load(frozen: Frozen) -> Any:
    """Thaw a value once per process: what it computes of itself on first use stays with it."""
    global _loaded
    if _loaded[0] is not frozen:
        _loaded = frozen, thaw(frozen)
    return _loaded[1]


_settled: set[type] = set()


def _settle(step: type) -> None:
    """Take what this kind of step has loaded out of the garbage collector's sight.

    Spark's worker loop collects garbage after each task; with numba loaded that costs more than the task.
    """
    if step not in _settled:
        _settled.add(step)
        gc.collect()
        gc.freeze()


def _failed(task: Task, error: Exception) -> TaskOutcome:
    return TaskOutcome(failure=Failure(error, f"stage {task.label!r}", traceback.format_exc()))


def _ends_the_job(outcome: TaskOutcome) -> bool:
    return outcome.error is not None or (outcome.failure is not None and not outcome.failure.retryable)
