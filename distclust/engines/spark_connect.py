"""The Spark engine over Spark Connect, which has no RDD, no broadcast and no JVM within reach.

Each job is a `mapInArrow` over a row per task. The shared value travels in the function, once per task; a job costs
about 150 ms, so for many short passes a session on a master (``spark://…``) is the better choice.
"""

from __future__ import annotations

import importlib
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import pyarrow as pa
from pyspark.errors import PySparkException

from distclust.engines.base import BaseEngine
from distclust.engines.code import code_version
from distclust.engines.job import Job
from distclust.engines.protocol import EngineInfo, EngineOptions, Shared
from distclust.engines.spark_failures import read_abort
from distclust.engines.spark_probe import make_probe, memory_per_slot, read_infos, visible_marker
from distclust.engines.spark_session import check_address
from distclust.engines.spark_worker import (
    CacheCloser,
    FromTask,
    TaskRunner,
    accept_reports,
    freeze,
    make_orders,
    take_abort,
)
from distclust.errors import DistclustError, EngineLostError, MissingExtraError

POLL_SECONDS = 0.1
"""How often to look at the cancel token while a job runs."""

_RECONNECTS = 4
"""About five seconds. By default the client tries for ten minutes to reach a server that is gone."""

_PLAN_CACHE = "spark.connect.session.planCache.enabled"
"""The server keeps the last plans of a session; ours hold the shared value, and soon fill its memory."""

_GONE = (
    "UNAVAILABLE",
    "SESSION_CLOSED",
    "SESSION_CHANGED",
    "SESSION_NOT_FOUND",
    "stopped SparkContext",
    "closed channel",
)


def is_connect(spec: object) -> bool:
    """Tell whether this is a session of Spark Connect, or the address of its server."""
    if isinstance(spec, str):
        return spec.startswith("sc://")
    return type(spec).__module__.startswith("pyspark.sql.connect.")


class _ConnectShared(Shared):
    """A value, pickled once, for each task to carry."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.carrier = FromTask(freeze(value))

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.carrier = FromTask(freeze(None))


class SparkConnectEngine(BaseEngine):
    """Run tasks in the Python workers behind a Spark Connect server.

    Parameters
    ----------
    session : pyspark.sql.connect.session.SparkSession
        It stays open when the engine closes, unless `open` made it.
    options : EngineOptions, optional
        Events, cancel token, retries, node configuration.

    Raises
    ------
    UsageError
        The workers run another distclust or Python than the driver, or cannot import it.
    EngineLostError
        The server does not answer.
    """

    def __init__(self, session: Any, options: EngineOptions | None = None) -> None:
        super().__init__(EngineInfo("spark", 1, 0, False, False), options or EngineOptions())
        self._session = session
        self._owned = False
        self._gone = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="distclust-spark")
        try:
            self._plan_cache = session.conf.get(_PLAN_CACHE, "true")
            session.conf.set(_PLAN_CACHE, "false")
            self._look_at_workers()
        except BaseException as error:
            self._thread.shutdown()
            if isinstance(error, PySparkException):
                raise self._lost(error) from error
            raise

    @classmethod
    def open(cls, spec: object, options: EngineOptions) -> Self:
        """Open an engine on ``"sc://host:15002"`` or a session of Spark Connect.

        Raises
        ------
        UsageError, EngineLostError
            See the class.
        MissingExtraError
            The client's packages are not installed.
        """
        if not isinstance(spec, str):
            return cls(spec, options)
        check_address(spec)
        try:
            client = importlib.import_module("pyspark.sql.connect.session")
            retries = importlib.import_module("pyspark.sql.connect.client.retries")
        except ImportError as error:  # its own message lists packages and versions
            raise MissingExtraError(
                f"Spark Connect needs more packages: {error}",
                where=spec,
                do='pip install "pyspark[connect]" "pandas<3"',
            ) from error
        # Not SparkSession.builder: that would turn the whole process to Connect.
        session = client.SparkSession.builder.remote(spec).create()
        session.client.set_retry_policies([retries.DefaultPolicy(max_retries=_RECONNECTS)])
        try:
            engine = cls(session, options)
        except BaseException:
            session.stop()
            raise
        engine._owned = True
        return engine

    def share(self, value: Any) -> Shared:
        """Pickle a value for the tasks."""
        return _ConnectShared(value)

    def _run(self, job: Job, shared: Shared) -> None:
        assert isinstance(shared, _ConnectShared)
        numbers = list(range(len(job.tasks)))
        while numbers:
            runner = TaskRunner(code_version(), shared.carrier, None, job.label)
            try:
                reports = self._submit(make_orders(job, numbers), runner, self.options.cancel.check)
            except PySparkException as error:
                if _is_gone(error):
                    raise self._lost(error) from None
                take_abort(job, numbers, read_abort(str(error)))
            else:
                numbers = accept_reports(job, reports, self.options.retries)

    def _submit(
        self, rows: Sequence[bytes], function: Callable[[Iterable[bytes]], Iterator[bytes]], watch: Callable[[], None]
    ) -> list[bytes]:
        """Run a function on each row in a task of its own; return what they yield.

        ``watch`` is called while the job runs; what it raises ends the job.
        """
        name = f"distclust-{uuid.uuid4().hex}"
        frame = self._session.range(0, len(rows), 1, len(rows)).mapInArrow(_in_arrow(rows, function), "result binary")
        future = self._thread.submit(self._collect, name, frame)
        try:
            while not wait([future], POLL_SECONDS).done:
                watch()
            return future.result()
        finally:
            self._cancel(name, future)

    def _collect(self, name: str, frame: Any) -> list[bytes]:
        self._session.addTag(name)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"\[RETRIES_EXCEEDED\]")  # the error that follows says it
                found: list[bytes] = frame.toArrow().column("result").to_pylist()
                return found
        finally:
            self._session.removeTag(name)

    def _cancel(self, name: str, future: Future[list[bytes]]) -> None:
        """End a job that nobody waits for any more. Again and again: it may just be about to start."""
        while not future.done():
            try:
                self._session.interruptTag(name)
            except PySparkException:
                break
            wait([future], POLL_SECONDS)

    def _look_at_workers(self) -> None:
        """Ask the workers what they are; as many tasks as Spark makes by itself is the number of slots."""
        with visible_marker() as marker:
            frame = self._session.range(0, 1 << 16).mapInArrow(_in_arrow(None, make_probe(marker)), "result binary")
            found = frame.toArrow().column("result").to_pylist()
        infos = read_infos(found, "Spark Connect")
        self.info = replace(
            self.info,
            slots=len(infos),
            memory_per_slot=memory_per_slot(infos),
            shared_storage=all(info.sees_marker for info in infos),
        )

    def _lost(self, error: PySparkException) -> DistclustError:
        if not _is_gone(error):
            return read_abort(str(error)).error("Spark Connect")
        self._gone = True
        return EngineLostError(
            "The Spark Connect server, or its session, is gone.",
            do="Start it again; `distclust resume OUT` goes on from the last checkpoint.",
        )

    def _close(self) -> None:
        if not self._gone:
            with suppress(PySparkException):
                self._submit([b""] * self.info.slots, CacheCloser(self.options.node), lambda: None)
                self._session.conf.set(_PLAN_CACHE, self._plan_cache)
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._owned:
            self._session.release_session_on_close = not self._gone
            self._session.stop()


def _in_arrow(
    rows: Sequence[bytes] | None, function: Callable[[Iterable[bytes]], Iterator[bytes]]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return a function on Arrow batches of row numbers; ``rows`` travel in it. Nested functions travel by value."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow

        numbers = [number for batch in batches for number in batch.column(0).to_pylist()]
        for result in function(rows[number] if rows is not None else b"" for number in numbers):
            yield pyarrow.RecordBatch.from_arrays([pyarrow.array([result], pyarrow.binary())], ["result"])

    return run


def _is_gone(error: PySparkException) -> bool:
    return any(word in str(error) for word in _GONE)
