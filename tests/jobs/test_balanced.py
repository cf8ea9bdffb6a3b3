"""Balanced assignment on the command line: sizes, report, resume, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.config import AssignJob
from distclust.engines.events import Event, TaskEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError
from distclust.workflows.assign import run_assign
from distclust.workflows.common import Session
from tests.jobs.conftest import BLOBS, ROWS, digests


@pytest.fixture
def balanced(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> Callable[..., Result]:
    """Run ``assign --balanced`` with the model of a fresh run, with further arguments."""
    assert cluster().exit_code == 0

    def call(*more: object) -> Result:
        return cli("assign", tmp_path / "out", dataset, "--balanced", "-o", tmp_path / "even", *more)

    return call


def sizes_of(run: Path) -> list[int]:
    clusters = pq.read_table(run / "labels").column("cluster").drop_null().to_numpy()
    return np.bincount(clusters, minlength=BLOBS).tolist()


def test_sizes_are_even_and_reported(balanced: Callable[..., Result], tmp_path: Path) -> None:
    result = balanced("--capacity-slack", 0, "--engine", "local[2]")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["profile", "cache", "balance", "label"]
    assert f"sizes     180 to 180, wanted {ROWS / BLOBS:.6g}; by the nearest centre" in result.stdout
    assert "of the inertia by the nearest centre" in result.stdout
    assert sizes_of(tmp_path / "even") == [ROWS // BLOBS] * BLOBS
    report = json.loads((tmp_path / "even" / "stats" / "balance.json").read_text())
    assert report["smallest"] == report["largest"] == 180
    assert report["cost_ratio"] > 1
    summary = json.loads(balanced("--capacity-slack", 0, "--json").stdout)["summary"]
    assert summary["balance"] == report


def test_slack_targets_and_rows_left_out(balanced: Callable[..., Result], tmp_path: Path) -> None:
    balanced()
    assert all(171 <= size <= 189 for size in sizes_of(tmp_path / "even"))
    balanced("--targets", "1,1,2,2,3", "--capacity-slack", 0, "--overwrite")
    assert sizes_of(tmp_path / "even") == [100, 100, 200, 200, 300]
    result = balanced("--targets", "model", "--capacity-slack", 0, "--overwrite", "--json")
    assert json.loads(result.stdout)["summary"]["balance"]["cost_ratio"] == 1
    result = balanced("--mass", 0.9, "--overwrite")
    assert "left out  90 rows" in result.stdout
    assert sum(sizes_of(tmp_path / "even")) == 810
    result = balanced("--penalty", 0.5, "--overwrite", "--json")
    report = json.loads(result.stdout)["summary"]["balance"]
    assert report["rounds"] == 0
    assert report["smallest"] >= report["nearest_smallest"]


def test_engines_and_partitions_agree(balanced: Callable[..., Result]) -> None:
    one = digests(balanced("--json", "--engine", "local[1]"))
    assert digests(balanced("--overwrite", "--json", "--engine", "local[3]", "--target-bytes", "2KB")) == one


def test_a_stopped_assignment_goes_on_with_the_same_bits(
    balanced: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    whole = json.loads(balanced("--json").stdout)
    cancel = CancelToken()
    seen = 0

    def emit(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, TaskEnded) and event.label == "balance: prices"
        if seen == 4:
            cancel.cancel()

    stopped = tmp_path / "stopped"
    job = AssignJob(data=str(dataset), model=str(tmp_path / "out"), balanced=True, output=str(stopped))
    with pytest.raises(CancelledError):
        run_assign(job, Session(emit, cancel))
    resumed = json.loads(cli("resume", stopped, "--json").stdout)
    assert resumed["digests"] == whole["digests"]
    assert resumed["summary"]["balance"] == whole["summary"]["balance"]


def test_a_job_file_balances(balanced: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "assign"\nmodel = "{tmp_path / "out"}"\ndata = "{tmp_path / "data"}"\noutput = "{tmp_path / "file"}"\n'
        "balanced = true\ntargets = [1, 1, 2, 2, 3.0]\n"
    )
    by_file = digests(cli("run", job, "--json"))
    assert by_file == digests(balanced("--targets", "1,1,2,2,3", "--json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--capacity-slack", 1), "capacity_slack"),
        (("--targets", "1,2"), "2 targets for 5 clusters"),
        (("--targets", "even"), "targets"),
        (("--mass", 0), "mass"),
        (("--penalty", -1), "penalty"),
    ],
)
def test_what_cannot_be_is_refused(balanced: Callable[..., Result], arguments: tuple[object, ...], said: str) -> None:
    result = balanced(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.replace("\n", " ")


def test_scores_are_of_all_rows(balanced: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path) -> None:
    balanced()
    scores = json.loads(cli("evaluate", tmp_path / "even", "--json").stdout)
    assert scores["run"] == str(tmp_path / "even")
    balanced("--mass", 0.9, "--overwrite")
    refused = cli("evaluate", tmp_path / "even")
    assert refused.exit_code == 2
    assert "left rows without a cluster" in refused.stderr


def test_options_of_balancing_need_it(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "labels", "--capacity-slack", 0.1)
    assert result.exit_code == 2
    assert "add --balanced" in result.stderr


def test_an_assignment_without_balancing_keeps_its_identity(tmp_path: Path) -> None:
    job = AssignJob(data="x", model="m", output=str(tmp_path))
    assert not {"balanced", "capacity_slack", "targets", "mass", "penalty"} & job.what().keys()
