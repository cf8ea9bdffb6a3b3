"""The first promise for k-medoids: equal bits on every engine, in every partitioning, after loss and resume."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from distclust.config import AssignJob
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.assign import run_assign
from tests.recovery.cases import Bits, Case, bits_of, labels_of, regroup, run_bits
from tests.recovery.killing import Killer, command_of, events_of, kill_at, pass_ended


@pytest.fixture(params=["medoids", "diamonds"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture
def bits(case: Case, request: pytest.FixtureRequest) -> Bits:
    return request.getfixturevalue("diamonds_bits" if case.data.suffix else "medoids_bits")


@pytest.mark.parametrize("engine", ["local[1]", "dask", "local-cluster[2,1,1024]"])
def test_engines_agree(engine: str, case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", engine=engine)) == bits


def test_the_hostile_engine_agrees(case: Case, bits: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=5, options=options, harm=0.05)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert run_bits(case.job(tmp_path / "out", target_bytes="3MB")) == bits


def test_regrouped_files_agree(medoids: Case, medoids_bits: Bits, tmp_path: Path) -> None:
    files = regroup(medoids.data, tmp_path / "data", rows_per_file=9_973, row_group=777)
    assert run_bits(medoids.at(files).job(tmp_path / "out")) == medoids_bits


def test_another_seed_does_not_agree(medoids: Case, medoids_bits: Bits, tmp_path: Path) -> None:
    assert run_bits(medoids.job(tmp_path / "out", seed=8)) != medoids_bits, "the comparison must be able to fail"


def test_a_run_killed_twice_and_resumed_gives_the_bits(case: Case, bits: Bits, tmp_path: Path) -> None:
    run = tmp_path / "out"
    kill_at(command_of(case, run, "--engine", "local[2]"), run, pass_ended(1, None))
    kill_at(command_of(case, run, "--engine", "local[1]"), run, pass_ended(3, None))
    begun = len(events_of(run))
    subprocess.run(command_of(case, run, "--engine", "local[2]"), check=True, capture_output=True)
    passes = sum(e["event"] == "IterationEnded" for e in events_of(run)[begun:])
    whole = json.loads((run / "manifest.json").read_text())["summary"]["history"]
    # The pass whose end was the sign to kill may not have been saved yet.
    assert 0 < passes <= len(whole) - 2, "the last run goes on from the second one's checkpoint"
    assert bits_of(run) == bits


def test_a_lost_dask_worker_changes_no_bit(case: Case, bits: Bits, tmp_path: Path) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)) as dask:
        killer = Killer(lambda: next(iter(dask.workers.values())).pid, pass_ended(1, "swap"), delay=0.01)
        job = case.job(tmp_path / "out", engine=dask.scheduler_address.replace("tcp://", "dask://"))
        assert run_bits(job, killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0


def test_labelling_with_the_stored_model_gives_the_labels_of_the_run(case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out")) == bits
    run_assign(AssignJob(data=str(case.data), output=str(tmp_path / "again"), model=str(tmp_path / "out")))
    assert labels_of(tmp_path / "again") == bits.labels
