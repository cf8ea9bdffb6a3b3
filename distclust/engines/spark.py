"""The Spark engine: an RDD of task descriptions, one fat task per slot; no row passes through the JVM."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from pyspark import RDD, Broadcast, SparkContext
from pyspark.serializers import NoOpSerializer
from pyspark.sql import SparkSession

from distclust.data.cache import node_cache
from distclust.engines.base import BaseEngine
from distclust.engines.code import code_version
from distclust.engines.events import Note
from distclust.engines.job import Job
from distclust.engines.protocol import EngineInfo, EngineOptions, Shared
from distclust.engines.spark_connect import SparkConnectEngine, is_connect
from distclust.engines.spark_failures import QuietGateway, read_abort
from distclust.engines.spark_frames import stage_spark
from distclust.engines.spark_probe import make_probe, memory_per_slot, read_infos, visible_marker
from distclust.engines.spark_session import LOCAL_SOCKETS, SPARK_ERRORS, Session, start, wrap
from distclust.engines.spark_worker import (
    Alarms,
    CacheCloser,
    FromBroadcast,
    FromTask,
    Frozen,
    TaskRunner,
    accept_reports,
    freeze,
    leave_node,
    make_orders,
    take_abort,
)
from distclust.errors import DistclustError, EngineLostError, UsageError

__all__ = ["SparkEngine", "stage_spark"]

POLL_SECONDS = 0.1
"""How often to look at the cancel token and for early errors while a job runs."""

GRACE_SECONDS = 1.0
"""How long the other tasks may go on after an error. To cancel them costs their worker processes."""

EXECUTOR_SECONDS = 180.0
"""How long to wait for a first executor: YARN and Kubernetes need a while."""

SETTLE_SECONDS, SETTLE_ROUNDS = 1.0, 10
"""Other executors follow the first: data are cut for the slots that there are when none came for a second."""

CLOSE_SECONDS = 30.0
"""How long the workers may take to remove their scratch."""

CARRIED_BYTES = 1 << 15
"""A larger value is broadcast, which costs 10 ms and then 3 ms a MB. In the tasks, 30 MB took five times as long."""


class _SparkShared(Shared):
    """A value, pickled once; in each task, or broadcast if it is large."""

    def __init__(self, value: Any, session: Session) -> None:
        super().__init__(value)
        self._session = session
        self._broadcast: Broadcast[Frozen] | None = None
        self.carrier: FromTask | FromBroadcast
        frozen = freeze(value)
        if frozen.n_bytes > CARRIED_BYTES:
            self._broadcast = session.context.broadcast(frozen)
            self.carrier = FromBroadcast(self._broadcast)
        else:
            self.carrier = FromTask(frozen)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        broadcast, self._broadcast = self._broadcast, None
        if broadcast is not None and self._session.alive:
            with suppress(*SPARK_ERRORS):
                broadcast.destroy()


class SparkEngine(BaseEngine):
    """Run tasks in the Python workers of a Spark context.

    Parameters
    ----------
    session : Session
        A context, and who stops it; see `open`.
    options : EngineOptions, optional
        Events, cancel token, retries, node configuration.

    Attributes
    ----------
    context : SparkContext
        What the tasks run on.

    Raises
    ------
    UsageError
        The workers run another distclust or Python than the driver, or cannot import it.
    EngineLostError
        There are no executors.
    """

    def __init__(self, session: Session, options: EngineOptions | None = None) -> None:
        super().__init__(EngineInfo("spark", 1, 0, False, session.same_machine), options or EngineOptions())
        self._session = session
        self.context: SparkContext = session.context
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="distclust-spark")
        self._alarms = self.context.accumulator([], Alarms())
        self._hosts: tuple[str, ...] = ()
        self._places: tuple[object, RDD[bytes] | None] = (None, None)
        self._quiet = QuietGateway()
        logging.getLogger().addFilter(self._quiet)
        try:
            self._look_at_workers()
        except BaseException:
            self._release()
            raise

    @classmethod
    def open(cls, spec: object, options: EngineOptions) -> BaseEngine:
        """Open an engine.

        Parameters
        ----------
        spec : str, SparkSession or SparkContext
            ``"spark"`` starts a session on this machine's cores. ``"spark://host:7077"``, ``"yarn"``, ``"k8s://…"`` and
            ``"local-cluster[2,1,1024]"`` are masters as Spark names them, ``"spark:MASTER"`` is any other.
            ``"sc://host:15002"`` is a Spark Connect server. A session or context of the caller's stays open.
        options : EngineOptions
            Events, cancel token, retries, node configuration.

        Raises
        ------
        UsageError, EngineLostError
            See the class.
        MissingExtraError
            There is no Java, or no Spark Connect client.
        """
        if is_connect(spec):
            return SparkConnectEngine.open(spec, options)
        if isinstance(spec, SparkSession):
            return cls(wrap(spec.sparkContext), options)
        if isinstance(spec, SparkContext):
            return cls(wrap(spec), options)
        if not isinstance(spec, str):
            raise UsageError(
                f"Cannot open a Spark engine from a {type(spec).__qualname__}.",
                do="Give a SparkSession, a SparkContext or the name of a master.",
            )
        master = spec if spec.startswith("spark://") else spec.removeprefix("spark:")
        session = start(None if master == "spark" else master, options.retries + 1)
        try:
            return cls(session, options)
        except BaseException:
            session.stop()
            raise

    def share(self, value: Any) -> Shared:
        """Pickle a value for the tasks; a large one is broadcast."""
        try:
            return _SparkShared(value, self._session)
        except SPARK_ERRORS as error:
            raise self._lost(error) from error

    def _run(self, job: Job, shared: Shared) -> None:
        assert isinstance(shared, _SparkShared)
        numbers = list(range(len(job.tasks)))
        while numbers:
            name = _new_name()
            runner = TaskRunner(code_version(), shared.carrier, self._alarms, name)
            try:
                reports = self._submit(name, job.label, make_orders(job, numbers), runner, self.options.cancel.check)
            except SPARK_ERRORS as error:
                if not self._session.alive:
                    raise self._lost() from error
                take_abort(job, numbers, read_abort(str(error)))
            else:
                numbers = accept_reports(job, reports, self.options.retries)

    def _submit(
        self,
        name: str,
        label: str,
        rows: Sequence[bytes],
        function: Callable[[Iterable[bytes]], Iterator[bytes]],
        watch: Callable[[], None],
    ) -> list[bytes]:
        """Run a function on each row in a task of its own; return what they yield, or what an alarm told.

        ``watch`` is called while the job runs; what it raises ends the job.
        """
        self._alarms.value = []
        future = self._thread.submit(self._collect, name, label, rows, function)
        try:
            while not wait([future], POLL_SECONDS).done:
                watch()
                early = [report for job, report in self._alarms.value if job == name]
                if early:
                    wait([future], GRACE_SECONDS)
                    return early
            return future.result()
        finally:
            self._cancel(name, future)

    def _collect(
        self, name: str, label: str, rows: Sequence[bytes], function: Callable[[Iterable[bytes]], Iterator[bytes]]
    ) -> list[bytes]:
        """Run the job and wait for it; called in the engine's own thread, so that the driver's can be interrupted."""
        if not self._session.alive:
            raise ConnectionError("the Spark session is gone")
        self.context.setJobGroup(name, label)
        descriptions = self.context.parallelize(rows, len(rows))
        places = self._place(len(rows))
        if places is not None:
            descriptions = descriptions.zip(places).keys()
        return cast(list[bytes], descriptions.mapPartitions(function).collect())

    def _cancel(self, name: str, future: Future[list[bytes]]) -> None:
        """End a job that nobody waits for any more. Again and again: it may just be about to start."""
        while not future.done():
            try:
                self.context.cancelJobGroup(name)
            except SPARK_ERRORS:
                break
            wait([future], POLL_SECONDS)

    def _lost(self, error: Exception | None = None) -> DistclustError:
        """Say what became of the session, or why Spark gave up though it is well."""
        if error is not None and self._session.alive:
            return read_abort(str(error)).error(self.context.master)
        return EngineLostError(
            f"The Spark session is gone: its JVM ended or the session was stopped{self._session.last_words()}.",
            where=self.context.master,
            do="Look into the driver's memory; `distclust resume OUT` goes on from the last checkpoint.",
        )

    def _refresh(self) -> None:
        """Count slots and hosts anew: executors come and go."""
        if not self._session.alive:
            raise self._lost()
        try:
            slots = max(int(self.context.defaultParallelism), 1)
            if not self.context.master.startswith("local"):
                self._hosts = _executor_hosts(self.context)
        except SPARK_ERRORS as error:
            raise self._lost(error) from error
        if slots != self.info.slots:
            self.info = replace(self.info, slots=slots)

    def _place(self, n_tasks: int) -> RDD[bytes] | None:
        """Return an RDD with a preferred host for each task, always the same: the node's cache has the rows there.

        Spark would spread tasks at random, and every node would come to cache all rows.
        """
        if len(set(self._hosts)) < 2:
            return None
        key = n_tasks, self._hosts
        if self._places[0] != key:
            hosts = [self._hosts[number * len(self._hosts) // n_tasks] for number in range(n_tasks)]
            self._places = key, _placed(self.context, hosts)
        return self._places[1]

    def _look_at_workers(self) -> None:
        """Ask the workers what they are; a first job, so that mistakes show before any work."""
        self._refresh()
        with visible_marker() as marker:
            found = self._probe(marker)
            if not self.context.master.startswith("local") and self._wait_for_more():
                found = self._probe(marker)
        infos = read_infos(found, self.context.master)
        shared = self._session.same_machine or all(info.sees_marker for info in infos)
        self.info = replace(self.info, memory_per_slot=memory_per_slot(infos), shared_storage=shared)
        if self.context.getConf().get(LOCAL_SOCKETS, "false") != "true":
            self.options.emit(Note(message=f"Spark is quicker, 40 ms a pass, with {LOCAL_SOCKETS}=true."))

    def _probe(self, marker: str) -> list[bytes]:
        too_late = _deadline(EXECUTOR_SECONDS)

        def watch() -> None:
            self.options.cancel.check()
            too_late()

        try:
            return self._submit(_new_name(), "look at workers", [b""] * self.info.slots, make_probe(marker), watch)
        except TimeoutError:
            raise EngineLostError(
                f"No Spark executor ran a first job within {EXECUTOR_SECONDS:.0f} seconds.",
                where=self.context.master,
                do="Check that the cluster has free cores and memory.",
            ) from None
        except SPARK_ERRORS as error:
            raise self._lost(error) from error

    def _wait_for_more(self) -> bool:
        """Wait while executors still come up after the first; tell whether there are more slots than before."""
        first = self.info.slots
        for _ in range(SETTLE_ROUNDS):
            before = self.info.slots, self._hosts
            time.sleep(SETTLE_SECONDS)
            self._refresh()
            if before == (self.info.slots, self._hosts):
                break
        return self.info.slots != first

    def _close(self) -> None:
        our_processes = self._session.owned and self._session.same_machine
        if not our_processes and self._session.alive:
            rows = [b""] * self.info.slots
            closer = CacheCloser(self.options.node)
            with suppress(*SPARK_ERRORS):
                self._submit(_new_name(), "close caches", rows, closer, _deadline(CLOSE_SECONDS))
        self._release()
        self._session.stop()
        if our_processes:
            leave_node(self.options.node)
        else:
            node_cache(self.options.node).close()

    def _release(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        logging.getLogger().removeFilter(self._quiet)


def _new_name() -> str:
    return f"distclust-{uuid.uuid4().hex}"


def _deadline(seconds: float) -> Callable[[], None]:
    """Return a function that raises TimeoutError when so many seconds have passed."""
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise TimeoutError

    return check


def _executor_hosts(context: SparkContext) -> tuple[str, ...]:
    """Return the host of each executor, as Spark names it, sorted."""
    infos = context._jsc.sc().statusTracker().getExecutorInfos()
    hosts = Counter(str(info.host()) for info in infos)
    hosts[str(context.getConf().get("spark.driver.host"))] -= 1  # the driver is in the list too
    return tuple(sorted(hosts.elements()))


def _placed(context: SparkContext, hosts: Sequence[str]) -> RDD[bytes]:
    """Return an RDD of one empty row a partition, each with a preferred host; only Spark's Scala side can do it."""
    jvm = cast(Any, context._jvm)
    as_scala = jvm.scala.jdk.javaapi.CollectionConverters.asScala
    pairs = jvm.java.util.ArrayList()
    for host in hosts:
        pairs.add(jvm.scala.Tuple2(b"", as_scala(jvm.java.util.Collections.singletonList(host)).toSeq()))
    any_class = getattr(getattr(jvm.scala.reflect, "ClassTag$"), "MODULE$").AnyRef()
    rdd = context._jsc.sc().makeRDD(as_scala(pairs).toSeq(), any_class)
    return RDD(rdd.toJavaRDD(), context, NoOpSerializer())
