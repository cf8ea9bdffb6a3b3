"""From a dataset to labels and back: kmeans, assign, run, jobs/kmeans.py, what is printed and written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from typer.testing import Result

from tests.jobs.conftest import BLOBS, ROWS, WIDTH, digests, subprocess_environment

STAGES = ["profile", "cache", "seed", "lloyd", "label", "write"]
SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "kmeans.py"


def test_a_run_leaves_model_labels_and_manifest(cluster: Callable[..., Result], tmp_path: Path) -> None:
    result = cluster("--id-column", "key")
    assert result.exit_code == 0, result.output
    centers = pq.read_table(tmp_path / "out" / "model" / "centers.parquet")
    assert centers.num_rows == BLOBS
    assert {"cluster", "size", "inertia", "vector"} <= set(centers.column_names)
    labels = pq.read_table(tmp_path / "out" / "labels")
    assert labels.column_names == ["key", "cluster", "distance"]
    assert labels.column("key").to_pylist() == [f"row-{i}" for i in range(ROWS)]
    assert np.bincount(labels.column("cluster").to_numpy()).tolist() == centers.column("size").to_pylist()
    assert (tmp_path / "out" / "manifest.json").exists()


def test_the_summary_says_what_was_found_and_where_it_is(cluster: Callable[..., Result], tmp_path: Path) -> None:
    text = cluster().stdout
    out = tmp_path / "out"
    for said in (
        f"{out} is complete",
        f"{ROWS} × {WIDTH}",
        f"clusters    {BLOBS}, largest",
        "smallest",
        "inertia",
        "converged",
        "total",
        f"{out}/model/centers.parquet",
        f"{out}/labels/",
        f"{out}/manifest.json",
    ):
        assert said in text


def test_progress_is_a_line_a_stage_on_standard_error(cluster: Callable[..., Result]) -> None:
    result = cluster()
    assert [line.split()[0] for line in result.stderr.splitlines()] == STAGES
    assert "rows/s" in result.stderr
    assert not any(line.startswith(tuple(STAGES)) for line in result.stdout.splitlines())


def test_json_is_one_object_and_nothing_else(cluster: Callable[..., Result], tmp_path: Path) -> None:
    found = json.loads(cluster("--json").stdout)
    assert found["output"] == str(tmp_path / "out")
    assert found["already_complete"] is False
    assert found["summary"]["clusters"] == BLOBS
    assert set(found["digests"]) == {"centers", "labels"}
    assert set(found["summary"]["seconds"]) == {*STAGES, "total"}


def test_columns_are_the_same_rows_as_a_list(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    names = ",".join(f"x{i}" for i in range(WIDTH))
    single = cli("kmeans", dataset, "--columns", names, "-k", BLOBS, "-o", tmp_path / "single", "--json")
    assert digests(single) == digests(cluster("--json"))


def test_a_second_run_does_nothing_and_says_so(cluster: Callable[..., Result]) -> None:
    first = digests(cluster("--json"))
    again = cluster()
    assert again.exit_code == 0
    assert "complete already: nothing was done" in again.stdout
    assert again.stderr == ""
    assert digests(cluster("--json")) == first


def test_another_configuration_is_refused_unless_it_overwrites(cluster: Callable[..., Result]) -> None:
    first = digests(cluster("--json"))
    refused = cluster("--seed", 1)
    assert refused.exit_code == 2
    assert "seed" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert digests(cluster("--json")) == first
    assert digests(cluster("--metric", "cosine", "--overwrite", "--json")) != first


def test_assign_gives_training_rows_their_labels(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    trained = digests(cluster("--json"))
    result = cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "again", "--json")
    assert digests(result) == trained
    cli("assign", tmp_path / "out" / "model", dataset / "b.parquet", "-o", tmp_path / "new", "--id-column", "key")
    new = pq.read_table(tmp_path / "new" / "labels")
    old = pq.read_table(tmp_path / "out" / "labels").slice(500)
    assert new.column("key")[0].as_py() == "row-500"
    assert new.column("cluster").to_pylist() == old.column("cluster").to_pylist()


def test_a_job_file_does_the_same(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "kmeans"\ndata = "{dataset}"\ncolumn = "embedding"\nk = {BLOBS}\noutput = "{tmp_path / "by-file"}"\n'
    )
    assert digests(cli("run", job, "--json", "--engine", "local[1]")) == digests(cluster("--json"))
    moved = cli("run", job, "--json", "-o", tmp_path / "moved", "--memory", "128MB")
    assert json.loads(moved.stdout)["output"] == str(tmp_path / "moved")


def test_a_job_file_assigns(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    trained = digests(cluster("--json"))
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "assign"\nmodel = "{tmp_path / "out"}"\ndata = ["{dataset}"]\noutput = "{tmp_path / "by-file"}"\n'
    )
    assert digests(cli("run", job, "--json")) == trained


def test_the_job_script_does_what_the_command_does(
    cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    command = [sys.executable, SCRIPT, dataset, "--column", "embedding", "-k", str(BLOBS), "-o", tmp_path / "job"]

    def call(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, check=False, env=subprocess_environment()
        )

    assert json.loads(call("--json").stdout)["digests"] == digests(cluster("--json"))
    assert call("--metric", "l1").returncode == 2
