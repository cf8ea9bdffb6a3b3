from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from pyspark import SparkContext, cloudpickle
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession

from distclust.data.node import NodeConfig
from distclust.data.sources import open_source
from distclust.engines import spark, spark_session
from distclust.engines.code import code_version
from distclust.engines.events import Note, TaskRetried
from distclust.engines.local import LocalEngine
from distclust.engines.open import open_engine
from distclust.engines.protocol import CancelToken, EngineOptions
from distclust.engines.spark import SparkEngine, stage_spark
from distclust.engines.spark_failures import read_abort
from distclust.engines.spark_probe import make_probe, read_infos
from distclust.engines.spark_worker import freeze, thaw
from distclust.errors import CancelledError, DataError, EngineLostError, StorageError, UsageError
from distclust.testing.engine_suite import NPY_VIEW, EngineSuite, npy_refs
from distclust.testing.steps import FloatSum, FloatSums, Indices, Trouble, WeightedIds, add, count, join, note
from tests.engines.spark_cluster import connect_server, free_port, standalone_cluster

# Workers have no tests package on their path when the tests run from elsewhere.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIZES = (7, 1, 40, 3, 3, 90, 2, 5)


@dataclass(frozen=True)
class ErrorBesideSleeper:
    """Fail in the first partition; in the last, sleep until stopped, or else leave a note."""

    diary: Path
    kind: str = "data"

    def __call__(self, block, value, context):
        if context.index == len(SIZES) - 1:
            note(self.diary, "asleep")
            time.sleep(60)
            note(self.diary, "slept")
        elif context.index == 0 and self.kind == "data":
            while not count(self.diary, "asleep"):
                time.sleep(0.02)
            raise DataError("found at once")
        return 1


@dataclass(frozen=True)
class KillExecutor:
    """Kill the JVM above this Python worker, once."""

    diary: Path

    def __call__(self, block, value, context):
        if context.index == 0 and not count(self.diary, "killed"):
            note(self.diary, "killed")
            psutil.Process().parent().parent().kill()
            time.sleep(60)
        return WeightedIds()(block, value, context)


@dataclass(frozen=True)
class Executor:
    """Tell which executor runs the partition."""

    def __call__(self, block, value, context):
        return os.environ["SPARK_EXECUTOR_DIRS"]


@dataclass(frozen=True)
class ScratchDirectory:
    """Tell whether the run has scratch on the worker's node."""

    def __call__(self, block, value, context):
        return Path(value).exists()


class Local:
    """A class that workers cannot import."""

    def __init__(self, number):
        self.number = number

    def __add__(self, other):
        return Local(self.number + other.number)


@dataclass(frozen=True)
class LocalClasses:
    def __call__(self, block, value, context):
        return Local(value.number * context.index)


@pytest.fixture
def diary(tmp_path):
    path = tmp_path / "diary"
    path.mkdir()
    return path


@pytest.fixture
def refs(tmp_path):
    return npy_refs(tmp_path, SIZES)


def total(refs):
    """Fold the row ids on local threads."""
    with LocalEngine(2) as engine:
        return engine.fold(engine.pin(refs, NPY_VIEW, label="rows"), WeightedIds(), add, 1, label="local")


@pytest.fixture(scope="class")
def context():
    with SparkEngine.open("spark", EngineOptions(retries=EngineSuite.retries)) as engine:
        yield engine.context


@pytest.fixture(scope="class")
def session(context):
    return SparkSession(context)


class TestEmbedded(EngineSuite):
    @pytest.fixture
    def opened(self, context):
        return lambda options: SparkEngine.open(context, options)

    def test_context_of_the_caller_stays_open(self, context, refs):
        with open_engine(context) as engine:
            assert engine.info.slots == len(os.sched_getaffinity(0))
        assert context.parallelize([1, 2]).sum() == 3

    def test_session_and_word_use_the_active_context(self, context):
        with open_engine(SparkSession(context)) as first, open_engine("spark") as second:
            assert first.context is second.context is context
        with pytest.raises(UsageError, match="cannot have a second"):
            open_engine("spark://127.0.0.1:1")

    def test_lost_python_worker(self, engine, refs, diary, events):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        assert engine.fold(pinned, Trouble("kill", 2, diary, times=1), add, 1, label="kill") == total(refs)
        assert count(diary, "trouble") == 1
        assert [event.attempt for event in events if isinstance(event, TaskRetried)] == [1]

    def test_python_worker_lost_again_and_again(self, engine, refs, diary):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        with pytest.raises(EngineLostError, match=r"failed 3 times, last with its worker was lost \(Python worker"):
            engine.fold(pinned, Trouble("kill", 2, diary), add, 1, label="kill")
        assert count(diary, "trouble") == self.retries + 1
        assert engine.fold(pinned, WeightedIds(), add, 1, label="after") == total(refs)

    def test_classes_of_the_driver_travel_by_value(self, engine, refs):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        result = engine.fold(pinned, LocalClasses(), add, Local(10), label="classes")
        assert type(result) is Local
        assert result.number == 10 * sum(range(len(SIZES)))

    def test_error_does_not_wait_for_other_tasks(self, engine, refs, diary):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        with pytest.raises(DataError, match="found at once"):
            engine.fold(pinned, ErrorBesideSleeper(diary), add, label="early")
        assert (count(diary, "asleep"), count(diary, "slept")) == (1, 0)

    def test_cancel_ends_tasks_in_flight(self, context, refs, diary, tmp_path):
        cancel = CancelToken()
        node = NodeConfig(token="run-2", scratch=str(tmp_path / "scratch"))
        with SparkEngine.open(context, EngineOptions(cancel=cancel, node=node)) as engine:
            threading.Thread(target=cancel_when_asleep, args=(cancel, diary)).start()
            with pytest.raises(CancelledError):
                engine.fold(engine.pin(refs, NPY_VIEW, label="rows"), ErrorBesideSleeper(diary, ""), add, label="long")
        assert count(diary, "slept") == 0
        assert not list((tmp_path / "scratch").rglob("run-2*"))

    def test_interrupt_ends_the_job(self, engine, refs, diary):
        interrupt = InterruptWhenAsleep(diary)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                engine.fold(engine.pin(refs, NPY_VIEW, label="rows"), ErrorBesideSleeper(diary, ""), add, label="long")
        finally:
            signal.signal(signal.SIGINT, before)
        assert count(diary, "slept") == 0

    def test_large_value_is_released(self, engine):
        files = set(Path(engine.context._temp_dir).iterdir())
        with engine.share(np.zeros(100_000)) as shared:
            assert len(set(Path(engine.context._temp_dir).iterdir()) - files) == 1
        assert set(Path(engine.context._temp_dir).iterdir()) == files
        assert shared.value is None

    def test_close_removes_the_scratch(self, context, refs, tmp_path):
        node = NodeConfig(token="run-1", scratch=str(tmp_path / "scratch"))
        with SparkEngine.open(context, EngineOptions(node=node)) as engine:
            engine.map(engine.pin(refs, NPY_VIEW, label="rows"), Indices(), label="fill")
            assert list((tmp_path / "scratch").rglob("run-1*"))
        assert not list((tmp_path / "scratch").rglob("run-1*"))

    def test_frame_becomes_files_in_row_order(self, session, tmp_path):
        rows = session.range(0, 100, 1, 7).selectExpr("id", "array(cast(id as float), -1f) as vector", "'x' as text")
        (tmp_path / "out").mkdir()
        stage_spark(rows, str(tmp_path / "out"))
        files = open_source(tmp_path / "out", column="vector").files
        assert len(files) == 7
        table = pq.ParquetDataset([file.uri for file in files]).read()
        assert table["id"].to_pylist() == list(range(100))
        assert table["vector"].to_pylist()[99] == [99.0, -1.0]

    def test_frame_of_mllib_vectors(self, session, tmp_path):
        rows = session.createDataFrame([(1, Vectors.dense(1, 2, 3)), (2, Vectors.sparse(3, {1: 5.0}))], ["id", "v"])
        stage_spark(rows.coalesce(1), str(tmp_path / "out"))
        (file,) = open_source(tmp_path / "out", column="v").files
        assert pq.read_table(file.uri)["v"].to_pylist() == [[1, 2, 3], [0, 5, 0]]

    def test_frame_needs_an_empty_directory(self, session, tmp_path):
        (tmp_path / "old.parquet").write_bytes(b"")
        with pytest.raises(UsageError, match="not empty"):
            stage_spark(session.range(3), str(tmp_path))

    def test_frame_that_cannot_be_computed(self, session, tmp_path):
        rows = session.range(3).selectExpr("raise_error('no such thing') as x")
        with pytest.raises(StorageError, match="could not write the data frame.*no such thing"):
            stage_spark(rows, str(tmp_path / "out"))


def cancel_when_asleep(cancel, diary):
    while not count(diary, "asleep"):
        time.sleep(0.02)
    cancel.cancel()


class InterruptWhenAsleep(threading.Thread):
    """Press Ctrl-C when the sleeper sleeps."""

    def __init__(self, diary):
        super().__init__()
        self.diary = diary

    def run(self):
        while not count(self.diary, "asleep"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)


class TestSession:
    def test_lost_jvm_and_a_new_session(self, refs, diary, tmp_path, capfd):
        step = ErrorBesideSleeper(diary, "")
        handler = signal.getsignal(signal.SIGINT)
        paths = list(sys.path)
        with SparkEngine.open("spark", EngineOptions()) as engine:
            assert signal.getsignal(signal.SIGINT) is handler
            jvm = SparkContext._gateway.proc
            threading.Thread(target=kill_when_asleep, args=(jvm, diary)).start()
            pinned = engine.pin(refs, NPY_VIEW, label="rows")
            with (
                pytest.raises(EngineLostError, match="session is gone") as caught,
                engine.share(np.zeros(99_999)) as value,
            ):
                engine.fold(pinned, step, add, value, label="long")
            assert caught.value.exit_code == 4
            with pytest.raises(EngineLostError, match="session is gone"):
                engine.fold(pinned, WeightedIds(), add, 1, label="late")
        node = NodeConfig(token="run-4", scratch=str(tmp_path / "scratch"))
        with SparkEngine.open("spark:local[1]", EngineOptions(node=node)) as engine:
            assert engine.info.slots == 1
            pinned = engine.pin(refs, NPY_VIEW, label="rows")
            assert engine.fold(pinned, WeightedIds(), add, 1, label="anew") == total(refs)
            scratch = engine._session.scratch
        assert not scratch.exists()
        assert not (tmp_path / "scratch" / "run-4").exists()
        assert sys.path == paths
        assert SparkContext._gateway is None
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "spec", ["spark://127.0.0.1:{}", "sc://127.0.0.1:{}", "spark://127.0.0.1:{0},127.0.0.1:{0}"]
    )
    def test_nobody_answers(self, spec):
        with pytest.raises(EngineLostError, match="No Spark server answers"):
            open_engine(spec.format(free_port()))

    def test_address_without_port(self):
        with pytest.raises(UsageError, match="no host:port"):
            open_engine("spark://127.0.0.1:x")

    def test_no_spark_object(self):
        with pytest.raises(UsageError, match="Cannot open a Spark engine"):
            SparkEngine.open(3, EngineOptions())

    @pytest.mark.parametrize(
        ("master", "python", "loopback"),
        [
            (None, sys.executable, True),
            ("local[2]", sys.executable, True),
            ("local-cluster[2,1,1024]", sys.executable, True),
            ("yarn", "env/bin/python", False),
            ("k8s://https://10.0.0.1:443", "env/bin/python", False),
        ],
    )
    def test_settings_fit_the_master(self, monkeypatch, master, python, loopback):
        seen = {}

        def launch(master, settings, *, same_machine):
            seen.update(settings, python=os.environ["PYSPARK_PYTHON"], same_machine=same_machine)

        monkeypatch.setattr(spark_session, "_launch", launch)
        monkeypatch.setenv("PYSPARK_PYTHON", "env/bin/python")
        spark_session.start(master, 4)
        assert seen["spark.master"] == (master or f"local[{len(os.sched_getaffinity(0))},4]")
        assert (seen["python"], seen["same_machine"]) == (python, loopback)
        assert ("spark.driver.host" in seen) == loopback
        assert seen["spark.task.maxFailures"] == "4"
        assert os.environ["PYSPARK_PYTHON"] == "env/bin/python"


def kill_when_asleep(process, diary):
    while not count(diary, "asleep"):
        time.sleep(0.02)
    process.kill()


@pytest.fixture(scope="class")
def events():
    return []


@pytest.fixture(scope="class")
def engine(events):
    with standalone_cluster() as (url, _), open_engine(url, EngineOptions(emit=events.append)) as engine:
        yield engine


class TestStandalone:
    """A master and two workers, on two loopback addresses that Spark takes for two hosts."""

    def test_cluster_is_seen(self, engine, events):
        assert engine.info.name == "spark"
        assert engine.info.slots == 2
        assert engine.info.shared_storage
        assert not [event for event in events if isinstance(event, Note)]

    def test_partitions_stay_where_they_were(self, engine, refs):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        places = [tuple(engine.map(pinned, Executor(), label="where")) for _ in range(6)]
        assert len(set(places)) == 1
        assert len(set(places[0])) == 2

    def test_same_bits_as_local(self, engine, refs):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        with LocalEngine(3) as local:
            expected = local.fold(local.pin(refs, NPY_VIEW, label="rows"), FloatSums(), FloatSum.merge, label="sum")
        assert engine.fold(pinned, FloatSums(), FloatSum.merge, label="sum") == expected
        value = np.arange(100_000)
        assert engine.fold(pinned, Indices(), join, value, label="large") == list(range(len(SIZES)))

    def test_lost_executor(self, engine, refs, diary, events):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        assert engine.fold(pinned, KillExecutor(diary), add, 1, label="kill") == total(refs)
        assert count(diary, "killed") == 1
        assert [event.attempt for event in events if isinstance(event, TaskRetried)] == [1]
        assert engine.fold(pinned, WeightedIds(), add, 1, label="after") == total(refs)


@pytest.fixture(scope="class")
def server():
    with connect_server() as (url, process):
        yield url, process


@pytest.fixture(scope="class")
def connected(server):
    """Give a session of Spark Connect; a session's first job starts Python workers of its own."""
    with open_engine(server[0]) as engine:
        yield engine._session


class TestConnect(EngineSuite):
    @pytest.fixture
    def opened(self, connected):
        return lambda options: open_engine(connected, options)

    def test_what_it_has(self, engine):
        assert (engine.info.name, engine.info.slots, engine.info.shared_storage) == ("spark", 2, True)

    def test_lost_python_worker(self, engine, refs, diary, events):
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        assert engine.fold(pinned, Trouble("kill", 2, diary, times=1), add, 1, label="kill") == total(refs)
        assert [event.attempt for event in events if isinstance(event, TaskRetried)] == [1]

    def test_cancel_ends_tasks_in_flight(self, connected, refs, diary, tmp_path):
        cancel = CancelToken()
        node = NodeConfig(token="run-3", scratch=str(tmp_path / "scratch"))
        with open_engine(connected, EngineOptions(cancel=cancel, node=node)) as engine:
            threading.Thread(target=cancel_when_asleep, args=(cancel, diary)).start()
            with pytest.raises(CancelledError):
                engine.fold(engine.pin(refs, NPY_VIEW, label="rows"), ErrorBesideSleeper(diary, ""), add, label="long")
            assert list((tmp_path / "scratch").rglob("run-3*"))
        assert count(diary, "slept") == 0
        assert not list((tmp_path / "scratch").rglob("run-3*"))

    def test_lost_server(self, server, refs, diary):
        with open_engine(server[0], EngineOptions()) as engine:
            threading.Thread(target=kill_when_asleep, args=(server[1], diary)).start()
            with pytest.raises(EngineLostError, match="server, or its session, is gone"):
                engine.fold(engine.pin(refs, NPY_VIEW, label="rows"), ErrorBesideSleeper(diary, ""), add, label="long")


def test_frozen_values_copy_arrays_once():
    value = {"a": np.arange(1000), "b": np.zeros((3, 4), order="F"), "c": [1, "x"], "d": np.arange(10)[::2]}
    frozen = freeze(value)
    assert len(frozen.pickled) < 1000 < 8000 + 96 < frozen.n_bytes
    thawed = thaw(cloudpickle.loads(cloudpickle.dumps(frozen)))
    for key in "abd":
        np.testing.assert_array_equal(thawed[key], value[key])
    assert thawed["c"] == [1, "x"]


LOST_WORKER = """An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 14.0 failed 3 times, most recent \
failure: Lost task 1.2 in stage 14.0 (TID 55) (127.0.0.1 executor driver): org.apache.spark.SparkException: Python \
worker exited unexpectedly (crashed)
\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator$$anonfun$1.applyOrElse(PythonRunner.scala:624)
Caused by: java.io.EOFException

Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2898)
"""
LOST_EXECUTOR = """Job aborted due to stage failure: Task 0 in stage 2.0 failed 4 times, most recent failure: Lost task \
0.3 in stage 2.0 (TID 9) (10.0.0.7 executor 3): ExecutorLostFailure (executor 3 exited caused by one of the running \
tasks) Reason: Command exited with code 137
Driver stacktrace:"""
NO_MODULE = """Job aborted due to stage failure: Task 0 in stage 1.0 failed 1 times, most recent failure: Lost task 0.0 \
in stage 1.0 (TID 1) (10.0.0.7 executor 1): org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/opt/spark/worker.py", line 1225, in main
    func, profiler, deserializer, serializer = read_command(pickleSer, infile)
ModuleNotFoundError: No module named 'distclust'

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
Driver stacktrace:"""
NO_PYTHON = """Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times, most recent failure: Lost task 0.3 \
in stage 1.0 (TID 4) (10.0.0.7 executor 1): java.io.IOException: Cannot run program "/venv/bin/python": error=2, No such \
file or directory
\tat java.base/java.lang.ProcessBuilder.start(ProcessBuilder.java:1143)
Driver stacktrace:"""


@pytest.mark.parametrize(
    ("text", "kind", "task", "failures", "reason"),
    [
        (LOST_WORKER, "worker", 1, 3, "Python worker exited unexpectedly (crashed)"),
        (
            LOST_EXECUTOR,
            "worker",
            0,
            4,
            "ExecutorLostFailure (executor 3 exited caused by one of the running tasks) Reason: "
            "Command exited with code 137",
        ),
        (NO_MODULE, "setup", 0, 1, "ModuleNotFoundError: No module named 'distclust'"),
        (NO_PYTHON, "setup", 0, 4, 'Cannot run program "/venv/bin/python": error=2, No such file or directory'),
        (
            "Job 7 cancelled as part of cancellation of all jobs",
            "cancelled",
            0,
            1,
            "Job 7 cancelled as part of cancellation of all jobs",
        ),
        (
            "org.apache.spark.SparkException: Job aborted: out of disk\n\tat x",
            "other",
            0,
            1,
            "Job aborted: out of disk",
        ),
    ],
)
def test_reasons_are_read_from_messages(text, kind, task, failures, reason):
    assert read_abort(text) == (kind, task, failures, reason)


def test_reasons_become_errors():
    assert isinstance(read_abort(NO_MODULE).error("here"), UsageError)
    assert "PYSPARK_PYTHON" in str(read_abort(NO_PYTHON).error("here"))
    assert isinstance(read_abort("Job 7 cancelled").error("here"), EngineLostError)
    assert str(read_abort("something else").error("here")) == "here: Spark gave up: something else"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": "ModuleNotFoundError: No module named 'numba'"}, r"cannot import distclust: ModuleNotFoundError"),
        ({"python": "3.9.1"}, r"has Python 3\.9\.1, the driver 3\."),
        ({"numba": "0.1"}, r"has numba 0\.1, the driver"),
        ({"distclust": "9.9+abc"}, r"has distclust 9\.9\+abc, the driver"),
    ],
)
def test_workers_must_fit_the_driver(change, message):
    (found,) = make_probe("")(iter([b""]))
    (info,) = read_infos([found], "spark://host")
    assert (info.distclust, info.sees_marker) == (code_version(), False)
    facts = {**cloudpickle.loads(found), **change}
    with pytest.raises(UsageError, match=message) as caught:
        read_infos([found, cloudpickle.dumps(facts)], "spark://host")
    assert caught.value.where.startswith(f"spark://host, {sys.executable} on ")


def test_no_executor_in_time(monkeypatch):
    monkeypatch.setattr(spark, "EXECUTOR_SECONDS", 0.0)
    with standalone_cluster(worker_hosts=()) as (url, _), pytest.raises(EngineLostError, match="No Spark executor"):
        open_engine(url)
