from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from distributed import Client, LocalCluster

import distclust
from distclust.engines.events import TaskRetried
from distclust.engines.open import open_engine
from distclust.engines.protocol import EngineOptions
from distclust.errors import CancelledError, EngineLostError, UsageError
from distclust.testing.engine_suite import NPY_VIEW, EngineSuite, npy_refs
from distclust.testing.steps import (
    Arrivals,
    Indices,
    Process,
    RowIds,
    Seen,
    Sleeping,
    Trouble,
    WeightedIds,
    add,
    count,
    join,
)

PACKAGE_ROOT = str(Path(distclust.__file__).parents[1])


@pytest.fixture(scope="module")
def client():
    """Two worker processes with a nanny each, as a user starts them."""
    settings = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with LocalCluster(n_workers=2, **settings) as cluster, Client(cluster) as client:
        yield client


class TestDask(EngineSuite):
    @pytest.fixture
    def opened(self, client):
        return lambda options: open_engine(client, options)

    def test_client_stays_open(self, opened, client):
        with opened(EngineOptions()):
            pass
        assert client.status == "running"

    def test_same_partition_goes_to_the_same_worker(self, engine, pinned):
        first, second = (engine.map(pinned, Process(), label=label) for label in ("first", "second"))
        assert first == second
        assert len(set(first)) == engine.info.slots == 2

    def test_value_is_unpickled_once_per_process(self, engine, pinned, diary):
        with engine.share(Arrivals(diary)) as shared:
            for _ in range(3):
                engine.map(pinned, RowIds(), shared, label="ids")
        assert count(diary, "arrived") == engine.info.slots

    def test_killed_worker_costs_nothing_but_time(self, engine, pinned, diary, client):
        n = sum(self.sizes)
        step = Trouble("kill", 5, diary, times=2)
        assert engine.fold(pinned, step, add, 1, label="killed") == n * (n - 1) // 2
        assert count(diary, "trouble") == 2
        client.wait_for_workers(2, timeout=30)

    def test_outcome_that_died_with_its_worker_is_computed_again(self, engine, pinned, monkeypatch):
        fetch, lost = engine._fetch, []

        def late(done):
            if not lost:
                number, future = next(iter(done.items()))
                future._state.lose()  # as the scheduler tells, between the end of the task and the fetching
                lost.append(number)
            return fetch(done)

        monkeypatch.setattr(engine, "_fetch", late)
        assert engine.fold(pinned, Indices(), join, label="order") == list(range(len(self.sizes)))
        assert len(lost) == 1

    def test_large_value_survives_its_worker(self, engine, pinned, diary, client):
        value = np.arange(500_000, dtype=np.float64)
        with engine.share(value) as shared:
            engine.map(pinned, Trouble("kill", 5, diary, times=1, inner=RowIds()), shared, label="killed")
            seen = engine.map(pinned, Seen(), shared, label="seen")
        assert all(np.array_equal(got, value) for _, _, got in seen)
        client.wait_for_workers(2, timeout=30)

    def test_cluster_may_grow_and_shrink(self, engine, pinned, client):
        def fold():
            return engine.fold(pinned, Indices(), join, label="order")

        expected = list(range(len(self.sizes)))
        assert fold() == expected
        client.cluster.scale(3)
        client.wait_for_workers(3, timeout=60)
        assert (fold(), engine.info.slots) == (expected, 3)
        client.cluster.scale(2)
        while len(client.nthreads()) > 2:
            time.sleep(0.05)
        assert (fold(), engine.info.slots) == (expected, 2)

    def test_cancel_stops_tasks_in_flight_before_their_next_partition(self, opened, tmp_path, diary):
        options = EngineOptions()
        with opened(options) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [1] * 100), NPY_VIEW, label="suite")
            Timer(0.3, options.cancel.cancel).start()
            with pytest.raises(CancelledError):
                engine.map(pinned, Sleeping(0.1, diary), label="slow")
            settled = -1
            while settled != (settled := count(diary, "slept")):
                time.sleep(0.3)
        assert settled < 100


class TestEmbedded:
    def test_leaves_nothing_behind(self, tmp_path):
        options = EngineOptions()
        engine = open_engine("dask", options)
        pinned = engine.pin(npy_refs(tmp_path, [5] * 8), NPY_VIEW, label="rows")
        workers = set(engine.map(pinned, Process(), label="pids"))
        assert os.getpid() not in workers
        assert engine.info.name == "dask"
        assert engine.info.shared_storage
        engine.close()
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]

    def test_each_lost_worker_is_reported(self, tmp_path):
        events = []
        diary = tmp_path / "diary"
        diary.mkdir()
        with open_engine("dask", EngineOptions(emit=events.append, retries=2)) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [5] * 4), NPY_VIEW, label="rows")
            with pytest.raises(EngineLostError, match="its worker died"):
                engine.fold(pinned, Trouble("kill", 1, diary), add, 1, label="deadly")
            assert engine.fold(pinned, WeightedIds(), add, 1, label="after") == 190
        assert count(diary, "trouble") == 3
        assert {event.reason for event in events if isinstance(event, TaskRetried)} == {"its worker died"}


@contextmanager
def process(module, *args, path=PACKAGE_ROOT, cwd):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", module, *args]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=cwd, env=environment, **quiet)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler process and its address."""
    file = tmp_path / "scheduler.json"
    args = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with process("distributed.cli.dask_scheduler", *args, cwd=tmp_path) as started:
        while not (file.exists() and file.read_text().endswith("}")):
            assert started.poll() is None
            time.sleep(0.05)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            address = client.scheduler.address
        yield started, address


def worker(address, cwd, path=PACKAGE_ROOT):
    args = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    return process("distributed.cli.dask_worker", address, *args, path=path, cwd=cwd)


class TestRemote:
    def test_lost_scheduler_ends_the_run(self, scheduler, tmp_path):
        started, address = scheduler
        diary = tmp_path / "diary"
        diary.mkdir()
        with worker(address, tmp_path), open_engine(address.replace("tcp", "dask")) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [1] * 300), NPY_VIEW, label="rows")
            assert len(engine.map(pinned, RowIds(), label="fine")) == 300
            Timer(0.5, started.send_signal, [signal.SIGKILL]).start()
            with pytest.raises(EngineLostError, match="is gone"):
                engine.map(pinned, Sleeping(0.1, diary), label="slow")
            with pytest.raises(EngineLostError, match="is gone"):
                engine.map(pinned, RowIds(), label="later")

    def test_nobody_answers(self, monkeypatch):
        monkeypatch.setattr("distclust.engines.dask.CONNECT_SECONDS", 1)
        with pytest.raises(EngineLostError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
            open_engine("tcp://127.0.0.1:9")

    def test_no_workers(self, scheduler, monkeypatch):
        monkeypatch.setattr("distclust.engines.dask.WORKER_SECONDS", 1)
        with pytest.raises(EngineLostError, match="no workers for 1 seconds"):
            open_engine(scheduler[1])

    def test_worker_with_another_version(self, scheduler, tmp_path):
        other = tmp_path / "other"
        for file in Path(distclust.__file__).parent.rglob("*.py"):
            copy = other / file.relative_to(PACKAGE_ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        changed = other / "distclust" / "errors.py"
        changed.write_text(changed.read_text() + "# changed\n")
        with (
            worker(scheduler[1], tmp_path, path=other),
            pytest.raises(UsageError, match=r"worker tcp://.* runs another distclust"),
        ):
            open_engine(scheduler[1])

    def test_worker_without_distclust(self, scheduler, tmp_path):
        bare = tmp_path / "bare"
        bare.mkdir()
        (bare / "distclust.py").write_text("raise ModuleNotFoundError('no distclust here')")
        with worker(scheduler[1], tmp_path, path=bare), pytest.raises(UsageError, match="cannot load distclust"):
            open_engine(scheduler[1])
