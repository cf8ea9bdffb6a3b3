"""Equal bits after loss: runs killed with -9 and resumed, Dask workers and Spark executors killed in an iteration."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from distclust.engines.events import Event, IterationEnded, TaskEnded
from tests.recovery.cases import Bits, Case, bits_of, run_bits

WAIT_SECONDS = 240


def events_of(run: Path) -> list[dict[str, object]]:
    path = run / "events.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def kill_at(command: list[str], run: Path, iteration: int) -> None:
    """Start a run and kill its process with -9 as soon as it has done ``iteration`` passes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while not any(e["event"] == "IterationEnded" and e["iteration"] == iteration for e in events_of(run)):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (run / "manifest.json").exists()


def command_of(case: Case, run: Path, *more: str) -> list[str]:
    options = [
        word
        for key, value in case.settings.items()
        for word in (
            "-k" if key == "k" else f"--{key.replace('_', '-')}",
            ",".join(value) if isinstance(value, tuple) else str(value),
        )
    ]
    return [sys.executable, "-m", "distclust.cli.main", case.kind, str(case.data), *options, "-o", str(run), *more]


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_run_killed_twice_and_resumed_gives_the_bits(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    run = tmp_path / "out"
    kill_at(command_of(case, run, "--engine", "local[2]"), run, 2)
    kill_at(command_of(case, run, "--engine", "local[1]"), run, 4)
    begun = len(events_of(run))
    subprocess.run(command_of(case, run, "--engine", "local[2]"), check=True, capture_output=True)
    passes = sum(e["event"] == "IterationEnded" for e in events_of(run)[begun:])
    whole = json.loads((run / "manifest.json").read_text())["summary"]["history"]
    # The pass whose end was the sign to kill may not have been saved yet.
    assert 0 < passes <= len(whole) - 3, "the last run goes on from the second one's checkpoint"
    assert bits_of(run) == bits


class Killer:
    """Kills one process, chosen when the time comes, shortly after the first full pass: in the middle of the next."""

    def __init__(self, choose: Callable[[], int], *, delay: float, stage: str = "lloyd") -> None:
        self._choose = choose
        self._stage = stage
        self._delay = delay
        self.killed: int | None = None
        self.tasks_after = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and self.killed is not None:
            self.tasks_after += 1
        if isinstance(event, IterationEnded) and (event.stage, event.iteration) == (self._stage, 1):
            threading.Timer(self._delay, self._kill).start()

    def _kill(self) -> None:
        pid = self._choose()
        os.kill(pid, signal.SIGKILL)
        self.killed = pid


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_lost_dask_worker_changes_no_bit(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)) as dask:
        killer = Killer(lambda: next(iter(dask.workers.values())).pid, delay=0.01)
        job = case.job(tmp_path / "out", engine=dask.scheduler_address.replace("tcp://", "dask://"))
        assert run_bits(job, killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0


def _executors() -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            if any("CoarseGrainedExecutorBackend" in word for word in process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_lost_spark_executor_changes_no_bit(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    killer = Killer(lambda: _executors()[0], delay=0.05)
    job = case.job(tmp_path / "out", engine="local-cluster[2,1,1024]")
    assert run_bits(job, killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0
