"""Choosing k from the command line: a table, a plot, models; the bits of single runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.algorithms import kmeans
from distclust.errors import CancelledError
from tests.jobs.conftest import BLOBS, ROWS, digests, subprocess_environment

KS = (2, 3, BLOBS, 8)


@pytest.fixture
def swept(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``sweep`` on the dataset into ``tmp_path / "sweep"``, with further arguments."""

    def call(*more: object) -> Result:
        ks = ",".join(map(str, KS))
        return cli("sweep", dataset, "--column", "embedding", "-k", ks, "-o", tmp_path / "sweep", *more)

    return call


def test_every_k_has_the_digest_and_the_model_of_its_own_run(
    cli: Callable[..., Result], swept: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    options = ("--seed", 7, "--weight-column", "weight", "--n-init", 2, "--max-iter", 6)
    found = digests(swept(*options, "--engine", "local[2]", "--json"))
    assert set(found) == {f"k{k}" for k in KS}
    for k in KS:
        alone = cluster(*options, "-k", k, "-o", tmp_path / f"alone{k}", "--json")
        assert found[f"k{k}"] == digests(alone)["centers"]
        here, there = (
            run / "model" / "centers.parquet" for run in (tmp_path / f"sweep/models/k{k}", tmp_path / f"alone{k}")
        )
        assert here.read_bytes() == there.read_bytes()


def test_a_model_of_a_sweep_labels_rows(
    cli: Callable[..., Result],
    swept: Callable[..., Result],
    cluster: Callable[..., Result],
    dataset: Path,
    tmp_path: Path,
) -> None:
    swept()
    labelled = cli("assign", tmp_path / "sweep" / f"models/k{BLOBS}", dataset, "-o", tmp_path / "labels", "--json")
    assert digests(labelled)["labels"] == digests(cluster("--json"))["labels"]


def test_files_of_a_sweep(swept: Callable[..., Result], tmp_path: Path) -> None:
    result = swept()
    assert result.exit_code == 0, result.output
    out = tmp_path / "sweep"
    table = pq.read_table(out / "sweep.parquet")
    assert table.column("k").to_pylist() == list(KS)
    assert np.all(np.diff(table.column("inertia").to_numpy()) < 0)
    found = json.loads((out / "sweep.json").read_text())
    assert found["best"] == {"elbow": BLOBS, "simplified_silhouette": BLOBS, "calinski_harabasz": BLOBS}
    assert set(found["rules"]) == set(found["best"])
    assert found["candidates"] == table.to_pylist()
    plot = (out / "sweep.svg").read_text()
    for said in (f"elbow: k = {BLOBS}", "simplified silhouette", "Calinski-Harabasz"):
        assert said in plot
    listed = {file["path"] for file in json.loads((out / "manifest.json").read_text())["files"]}
    assert {"sweep.parquet", "sweep.json", "sweep.svg", f"models/k{BLOBS}/model/model.json"} <= listed


def test_the_summary_is_a_table(cli: Callable[..., Result], swept: Callable[..., Result], tmp_path: Path) -> None:
    result = swept()
    for said in (f"{ROWS} × ", f"elbow {BLOBS}", "Calinski-Harabasz", f"{tmp_path}/sweep/sweep.svg", "manifest.json"):
        assert said in result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[-len(KS) :]] == [str(k) for k in KS]
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["profile", "cache", "sweep", "write"]
    for again in (swept(), cli("inspect", tmp_path / "sweep")):
        assert again.exit_code == 0, again.output
        assert f"elbow {BLOBS}" in again.stdout
    assert json.loads(cli("inspect", tmp_path / "sweep", "--json").stdout)["state"] == "complete"
    assert cli("verify", tmp_path / "sweep").exit_code == 0


@pytest.mark.parametrize("ks", ["1", "1,2", f"{BLOBS}"])
def test_few_k_are_fine(cli: Callable[..., Result], dataset: Path, tmp_path: Path, ks: str) -> None:
    result = cli("sweep", dataset, "--column", "embedding", "-k", ks, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["summary"]
    assert found["best"]["elbow"] is None
    assert [one["simplified_silhouette"] is None for one in found["candidates"]] == [k == "1" for k in ks.split(",")]
    assert pq.read_table(tmp_path / "out" / "sweep.parquet").num_rows == len(ks.split(","))


def test_a_stopped_sweep_resumes_with_the_same_bits(
    cli: Callable[..., Result], swept: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests(swept("--json", "-o", tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(kmeans, "block_centers", stop)
        assert swept().exit_code == 5
    assert not (tmp_path / "sweep" / "manifest.json").exists()
    resumed = cli("resume", tmp_path / "sweep", "--json")
    assert "goes on from its last checkpoint" in resumed.stderr
    assert digests(resumed) == whole


def stop(*_: Any, **__: Any) -> None:
    raise CancelledError("The run was cancelled.")


def test_a_job_file_sweeps(
    cli: Callable[..., Result], swept: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "sweep"\ndata = "{dataset}"\ncolumn = "embedding"\nk = {sorted(KS, reverse=True)}\n'
        f'output = "{tmp_path / "by-file"}"\n'
    )
    assert digests(cli("run", job, "--json")) == digests(swept("--json"))


@pytest.mark.parametrize(
    ("ks", "said"), [("3,x", "k.1 == 'x'"), ("0,3", "k.0 == '0'"), (",", "k == ','"), ("901", "n_clusters=901")]
)
def test_wrong_k_are_refused(cli: Callable[..., Result], dataset: Path, tmp_path: Path, ks: str, said: str) -> None:
    result = cli("sweep", dataset, "--column", "embedding", "-k", ks, "-o", tmp_path / "out")
    assert result.exit_code in (2, 3)
    assert said in result.stderr


def test_without_matplotlib_there_is_a_note_and_no_plot(dataset: Path, tmp_path: Path) -> None:
    program = """
import sys
sys.modules["matplotlib"] = None
from distclust.cli.main import main
main()
"""
    command = ["sweep", str(dataset), "--column", "embedding", "-k", "2,3", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        check=True,
        env=subprocess_environment(),
    )
    assert 'No plot was drawn: that needs matplotlib, pip install "distclust[report]".' in done.stderr
    assert "plot      none: pip install" in done.stdout
    assert not (tmp_path / "out" / "sweep.svg").exists()
    assert (tmp_path / "out" / "manifest.json").exists()
