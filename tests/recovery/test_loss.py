"""Equal bits after loss: runs killed with -9 and resumed, Dask workers and Spark executors killed in an iteration."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.recovery.cases import Bits, Case, bits_of, run_bits
from tests.recovery.killing import Killer, command_of, events_of, executors, kill_at, pass_ended


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_run_killed_twice_and_resumed_gives_the_bits(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    run = tmp_path / "out"
    kill_at(command_of(case, run, "--engine", "local[2]"), run, pass_ended(2))
    kill_at(command_of(case, run, "--engine", "local[1]"), run, pass_ended(4))
    begun = len(events_of(run))
    subprocess.run(command_of(case, run, "--engine", "local[2]"), check=True, capture_output=True)
    passes = sum(e["event"] == "IterationEnded" for e in events_of(run)[begun:])
    whole = json.loads((run / "manifest.json").read_text())["summary"]["history"]
    # The pass whose end was the sign to kill may not have been saved yet.
    assert 0 < passes <= len(whole) - 3, "the last run goes on from the second one's checkpoint"
    assert bits_of(run) == bits


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_lost_dask_worker_changes_no_bit(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)) as dask:
        killer = Killer(lambda: next(iter(dask.workers.values())).pid, pass_ended(1), delay=0.01)
        job = case.job(tmp_path / "out", engine=dask.scheduler_address.replace("tcp://", "dask://"))
        assert run_bits(job, killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0


@pytest.mark.parametrize("name", ["minipile", "wide"])
def test_a_lost_spark_executor_changes_no_bit(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    case: Case = request.getfixturevalue(name)
    bits: Bits = request.getfixturevalue(f"{name}_bits")
    killer = Killer(lambda: executors()[0], pass_ended(1), delay=0.05)
    job = case.job(tmp_path / "out", engine="local-cluster[2,1,1024]")
    assert run_bits(job, killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0
