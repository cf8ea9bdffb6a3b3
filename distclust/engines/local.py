"""The embedded engine: threads of this process. Kernels release the GIL, so threads are enough."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import ClassVar

from distclust.data.cache import node_cache
from distclust.engines.base import BaseEngine
from distclust.engines.job import Job
from distclust.engines.protocol import EngineInfo, EngineOptions, Shared
from distclust.engines.task import TaskOutcome, run_task
from distclust.errors import UsageError
from distclust.kernels.slices import usable_cores


class LocalEngine(BaseEngine):
    """Run tasks on threads of this process.

    Parameters
    ----------
    n_threads : int, optional
        Tasks at the same time; default: the cores that this process may use.
    options : EngineOptions, optional
        Events, cancel token, retries, node configuration.

    Raises
    ------
    UsageError
        ``n_threads`` below 1.

    Examples
    --------
    >>> from distclust.engines.local import LocalEngine
    >>> with LocalEngine(2) as engine:
    ...     engine.info.slots
    2
    """

    # A thread task costs microseconds, so small tasks even out partitions of unequal cost.
    tasks_per_slot: ClassVar[int] = 4

    def __init__(self, n_threads: int | None = None, options: EngineOptions | None = None) -> None:
        slots = usable_cores() if n_threads is None else n_threads
        if slots < 1:
            raise UsageError(f"n_threads is {slots}, allowed are 1 and more.")
        info = EngineInfo("local", slots, usable_memory() // slots, sees_driver_memory=True, shared_storage=True)
        super().__init__(info, options or EngineOptions())
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="distclust")

    def _run(self, job: Job, shared: Shared) -> None:
        cancel = self.options.cancel
        ended: SimpleQueue[tuple[int, Future[TaskOutcome]]] = SimpleQueue()
        futures: dict[int, Future[TaskOutcome]] = {}
        abandoned = Event()
        value = shared.value

        def stopped() -> bool:
            return abandoned.is_set() or cancel.cancelled

        def start(number: int) -> None:
            future = self._pool.submit(run_task, job.tasks[number], value, job.attempts[number], stopped)
            futures[number] = future
            future.add_done_callback(lambda done: ended.put((number, done)))

        try:
            for number in range(len(job.tasks)):
                start(number)
            while not job.done:
                number, future = ended.get()
                cancel.check()
                if not job.accept(number, future.result()):
                    start(number)
        finally:
            # After an error, a cancel or Ctrl-C: nothing may still run on a value that the caller releases.
            abandoned.set()
            for future in futures.values():
                future.cancel()
            wait(futures.values())

    def _close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        node_cache(self.options.node).close()


def usable_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its control group's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such control group, or the word "max"
            continue
    return total
