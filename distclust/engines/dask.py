"""The Dask engine: one fat task per thread of the cluster, the shared value inside it."""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from asyncio import run_coroutine_threadsafe
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Self

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.deploy import Cluster

from distclust.data.cache import node_cache
from distclust.data.node import NodeConfig
from distclust.engines.base import BaseEngine
from distclust.engines.code import code_version
from distclust.engines.dask_frames import stage_dask as write_frame
from distclust.engines.dask_worker import (
    WorkerInfo,
    abandon,
    carry,
    close_cache,
    path_identity,
    probe,
    run_on_worker,
    stuck_tasks,
)
from distclust.engines.job import Job
from distclust.engines.protocol import EngineInfo, EngineOptions, Shared
from distclust.engines.task import RETRYABLE, TaskOutcome
from distclust.errors import DistclustError, EngineLostError, UsageError
from distclust.kernels.slices import usable_cores

CONNECT_SECONDS = 20
"""How long to try to reach a scheduler, at first and after its connection broke. Dask's own default is 30."""

WORKER_SECONDS = 120
"""How long to wait for a first worker, and for another one when all are gone: a batch system needs a while."""

POLL_SECONDS = 0.2
"""How often to look at the cancel token and the connection while tasks run."""

LOOK_SECONDS = 2
"""How often to ask the scheduler about workers and stuck tasks while no task ends."""

CARRIED_BYTES = 1 << 20
"""A larger value goes to the scheduler once, as a task's result, and on from worker to worker. Below, a copy in each
task is quicker. Never scattered: what is scattered dies with its worker, a task's result is computed again."""


class _DaskShared(Shared):
    """A value, pickled once; in each task, or behind a future if it is large."""

    def __init__(self, value: Any, client: Client) -> None:
        super().__init__(value)
        self.token = uuid.uuid4().hex
        self.carrier: bytes | Future | None = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        if len(self.carrier) > CARRIED_BYTES:
            # Dask warns of a large graph from 10 MB on; a large value is meant here, and sent once.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": len(self.carrier) * 2}):
                self.carrier = client.submit(carry, self.carrier, key=f"value-{self.token}", pure=False)

    def __exit__(self, *exc: object) -> None:
        self.carrier = None  # the last reference to a future releases it on the cluster
        super().__exit__(*exc)


class DaskEngine(BaseEngine):
    """Run tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Synchronous. It stays open when the engine closes.
    options : EngineOptions, optional
        Events, cancel token, retries, node configuration.

    Raises
    ------
    UsageError
        An asynchronous client, or workers or a scheduler that run another distclust than the driver.
    EngineLostError
        The scheduler does not answer, or has no workers.
    """

    def __init__(self, client: Client, options: EngineOptions | None = None) -> None:
        if client.asynchronous:
            raise UsageError("The Dask client is asynchronous.", do="Open it with asynchronous=False.")
        super().__init__(EngineInfo("dask", 1, 0, False, False), options or EngineOptions())
        self._client = client
        self._address = client.scheduler.address
        self._owned = ExitStack()
        self._workers: dict[str, WorkerInfo] = {}
        self._slots: list[str] = []
        self._refresh()
        limits = [worker.limit for worker in self._workers.values() if worker.limit]
        if limits and self.options.node.memory_bytes is None:
            # Dask restarts a worker at its limit and counts mapped blocks as the worker's own memory.
            node = replace(self.options.node, memory_bytes=min(limits) // 4)
            self.options = replace(self.options, node=node)

    @classmethod
    def open(cls, spec: object, options: EngineOptions) -> Self:
        """Open an engine on ``"dask"``, ``"dask://host:port"``, any Dask address, a client or a cluster.

        Raises
        ------
        UsageError, EngineLostError
            See the class.
        """
        if isinstance(spec, Client):
            return cls(spec, options)
        with ExitStack() as owned:
            if spec == "dask":
                spec = _start_cluster(options.node, owned)
            address = spec if isinstance(spec, Cluster) else str(spec).replace("dask://", "tcp://", 1)
            try:
                client = owned.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
            except (OSError, ValueError) as error:
                raise EngineLostError(
                    f"No Dask scheduler answers at {address}: {error}",
                    do="Start one with `dask scheduler`, check the address, or let 'dask' start a cluster of its own.",
                ) from error
            engine = cls(client, options)
            engine._owned = owned.pop_all()
        return engine

    def share(self, value: Any) -> Shared:
        """Pickle a value for the tasks; a large one is sent to the cluster once."""
        return _DaskShared(value, self._client)

    def _refresh(self) -> None:
        """Look which workers there are now; new ones must run the same code."""
        threads = self._wait_for_workers()
        if self._workers.keys() == threads.keys():
            return
        probes = _probe_cluster(self._client, [address for address in threads if address not in self._workers])
        self._workers = {a: self._workers.get(a) or probes[a] for a in threads if a in self._workers or a in probes}
        if not self._workers:  # all died while they were asked
            self._refresh()
            return
        self._slots = [address for address in sorted(self._workers) for _ in range(threads[address])]
        on_host = Counter(self._workers[address].host for address in self._slots)
        self.info = replace(
            self.info,
            slots=len(self._slots),
            memory_per_slot=min(
                w.limit // w.threads if w.limit else w.memory // on_host[w.host] for w in self._workers.values()
            ),
            shared_storage=all(w.sees_driver_paths for w in self._workers.values()),
        )

    def _run(self, job: Job, shared: Shared) -> None:
        assert isinstance(shared, _DaskShared)
        name = f"{job.label}-{uuid.uuid4().hex}"
        ended: SimpleQueue[str] = SimpleQueue()
        running: dict[str, tuple[int, Future]] = {}

        def start(number: int) -> None:
            attempt = job.attempts[number]
            key = f"{name}-{number}-{attempt}"
            home = [self._slots[number * len(self._slots) // len(job.tasks)]] if attempt == 0 else None
            future = self._client.submit(
                run_on_worker,
                job.tasks[number],
                shared.token,
                shared.carrier,
                attempt,
                name,
                key=key,
                workers=home,
                allow_other_workers=home is not None,
                pure=False,
            )
            running[key] = number, future
            future.add_done_callback(lambda _: ended.put(key))

        try:
            for number in range(len(job.tasks)):
                start(number)
            while not job.done:
                keys = self._wait(ended, name)
                for number in self._collect(job, dict(running.pop(key) for key in keys if key in running)):
                    start(number)
        finally:
            if running and self._client.status == "running":
                self._client.cancel([future for _, future in running.values()])
                self._everywhere(abandon, name)

    def _wait(self, ended: SimpleQueue[str], name: str) -> list[str]:
        """Wait until tasks ended or are known to be stuck; return their keys."""
        look_at_scheduler = time.monotonic() + LOOK_SECONDS
        while True:
            self.options.cancel.check()
            try:
                keys = [ended.get(timeout=POLL_SECONDS)]
            except Empty:
                self._check_connection()
                if time.monotonic() > look_at_scheduler:
                    self._wait_for_workers()
                    stuck: list[str] = self._client.run_on_scheduler(stuck_tasks, name)
                    if stuck:
                        return stuck
                    look_at_scheduler = time.monotonic() + LOOK_SECONDS
                continue
            while not ended.empty():
                keys.append(ended.get())
            return keys

    def _collect(self, job: Job, done: dict[int, Future]) -> list[int]:
        """Hand outcomes to the job; return the tasks that must run again."""
        outcomes = self._fetch(done)
        again = []
        for number, future in done.items():
            if number in outcomes:
                if not job.accept(number, outcomes[number]):
                    again.append(number)
                continue
            self._check_connection()
            error = future.exception() if future.status == "error" else None
            # "lost" where a worker died after its task had ended, and before its outcome was fetched.
            if error is None and future.status not in ("pending", "lost"):
                raise EngineLostError("A task was cancelled on the scheduler.", where=f"stage {job.label!r}")
            if error is None or isinstance(error, KilledWorker):
                job.lost(number, "its worker died")
            elif isinstance(error, RETRYABLE) and not isinstance(error, DistclustError):
                job.lost(number, f"{type(error).__name__}: {error}")
            else:  # not from a step: the task or its outcome could not be pickled or imported
                raise error
            again.append(number)
        return again

    def _fetch(self, done: dict[int, Future]) -> dict[int, TaskOutcome]:
        """Fetch outcomes; those of failed tasks, and those that died with their workers, are missing.

        Dask's `gather` would wait for these to be computed again, out of reach of cancel and retries, and for
        ever if they are stuck (see `stuck_tasks`).
        """
        while True:
            here = {number: future for number, future in done.items() if future.status == "finished"}
            gathering = run_coroutine_threadsafe(
                self._client.gather(here, errors="skip", asynchronous=True), self._client.loop.asyncio_loop
            )
            while not wait([gathering], POLL_SECONDS).done:
                self.options.cancel.check()
                self._check_connection()
                if any(future.status != "finished" for future in here.values()):
                    gathering.cancel()
            if not gathering.cancelled():
                outcomes: dict[int, TaskOutcome | None] = gathering.result()
                return {number: outcome for number, outcome in outcomes.items() if outcome is not None}

    def _wait_for_workers(self) -> dict[str, int]:
        """Return the number of threads of each worker, when there is one."""
        deadline = time.monotonic() + WORKER_SECONDS
        while time.monotonic() < deadline:
            self.options.cancel.check()
            self._check_connection()
            threads: dict[str, int] = self._client.nthreads()
            if threads:
                return threads
            time.sleep(POLL_SECONDS)
        raise EngineLostError(
            f"The Dask scheduler at {self._address} has had no workers for {WORKER_SECONDS} seconds.",
            do="Start workers with `dask worker`.",
        )

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise EngineLostError(
                f"The Dask scheduler at {self._address} is gone.",
                do="Start it again; `distclust resume OUT` goes on from the last checkpoint.",
            )

    def _everywhere(self, function: Callable[..., None], argument: object) -> None:
        """Call a function once in each worker process; what goes wrong there does not matter."""
        with suppress(OSError, TimeoutError):
            self._client.run(function, argument, on_error="ignore")

    def _close(self) -> None:
        if self._client.status == "running":
            self._everywhere(close_cache, self.options.node)
        node_cache(self.options.node).close()
        self._owned.close()


def stage_dask(frame: Any, directory: str, engine: object) -> list[str]:
    """Write a Dask data frame or array as Parquet; return the files in row order.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or dask.array.Array
        See `distclust.engines.dask_frames.stage_dask`.
    directory : str
        That workers and driver see.
    engine : object
        A `DaskEngine` or a live client computes the frame; with anything else it is Dask's current client, or threads.
    """
    client = engine._client if isinstance(engine, DaskEngine) else engine if isinstance(engine, Client) else None
    return write_frame(frame, directory, client)


def _start_cluster(node: NodeConfig, owned: ExitStack) -> LocalCluster:
    """Start a scheduler in this process and a worker process per core."""
    directory = owned.enter_context(TemporaryDirectory(prefix="distclust-dask-", dir=node.scratch))
    cluster = LocalCluster(
        n_workers=usable_cores(),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        silence_logs=logging.CRITICAL,
        local_directory=directory,
        # Blocks are memory-mapped: their pages count as the worker's memory, but are the kernel's to drop.
        memory_limit=0,
        # No dashboard, and port 8787 left to others. The engine counts retries: it must hear of each lost worker.
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0", "allowed_failures": 0},
    )
    return owned.enter_context(cluster)


def _probe_cluster(client: Client, addresses: list[str]) -> dict[str, WorkerInfo]:
    """Ask workers what they have; they, and the scheduler that unpacks the tasks, must run the driver's code."""
    try:
        versions = {"the scheduler": client.run_on_scheduler(code_version)}
        answers = client.run(probe, path_identity(Path.cwd()), workers=addresses, on_error="return")
        # A worker that dies while it is asked is none; whatever else goes wrong there is for the user to mend.
        answers = {address: answer for address, answer in answers.items() if not isinstance(answer, OSError)}
        for answer in answers.values():
            if isinstance(answer, Exception):
                raise answer
    except Exception as error:  # what Dask makes of an ImportError there depends on where and when it is raised
        raise UsageError(
            f"A worker or the scheduler cannot load distclust: {error}.",
            where=client.scheduler.address,
            do="Install the driver's distclust there.",
        ) from error
    infos: dict[str, WorkerInfo] = answers
    versions.update({f"worker {address}": info.version for address, info in infos.items()})
    for who, version in versions.items():
        if version != code_version():
            raise UsageError(
                f"{who} runs another distclust (code {version}) than the driver (code {code_version()}).",
                where=client.scheduler.address,
                do="Install the same version everywhere, and restart what runs an older one.",
            )
    return infos
