"""PPP on the command line: files, explanation, resume, labels of new rows, engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.config import PPPJob
from distclust.engines.events import Event, IterationEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError
from distclust.workflows.common import Session
from distclust.workflows.ppp import run_ppp
from tests.jobs.conftest import BLOBS, ROWS, digests


@pytest.fixture
def ppp(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``ppp`` into ``tmp_path / "out"``, with further arguments."""

    def call(*more: object) -> Result:
        return cli("ppp", dataset, "--column", "embedding", "-o", tmp_path / "out", *more)

    return call


def test_a_run_leaves_clusters_labels_and_reasons(
    ppp: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path
) -> None:
    result = ppp("--id-column", "key", "--engine", "local[2]", "--top", "2")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for said in (f"{out} is complete", f"clusters   {BLOBS}, largest", f"{BLOBS} of them, stability", "to cut cells"):
        assert said in result.stdout
    labels = pq.read_table(out / "labels")
    names = ["key", "cluster", "distance", "probability", "log_density", "components", "responsibilities"]
    assert labels.column_names == names
    sizes = pq.read_table(out / "model" / "centers.parquet").column("size").to_pylist()
    assert np.bincount(labels.column("cluster").to_numpy()).tolist() == sizes
    report = json.loads(cli("explain", out, "--json").stdout)
    assert [verdict["rows"] for verdict in report["verdicts"]] == sizes
    assert report["clusters"] == BLOBS
    assert sum(sizes) == ROWS
    said = cli("explain", out).stdout
    for words in (f"{BLOBS} clusters.", "accepted: a deep valley", "lowest BIC at", "Hopkins", "separates"):
        assert words in said
    assert cli("verify", out).exit_code == 0
    assert "log-likelihood" in cli("inspect", out).stdout


def test_new_rows_are_labelled_as_the_model_says(
    ppp: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    trained = digests(ppp("--json"))
    again = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "again", "--json"))
    assert again["labels"] == trained["labels"]
    refused = cli("assign", tmp_path / "out", dataset, "--balanced", "-o", tmp_path / "even")
    assert refused.exit_code == 2
    assert "a mixture labels rows by probability" in refused.stderr


def test_partitions_and_threads_agree(ppp: Callable[..., Result]) -> None:
    one = digests(ppp("--json", "--engine", "local[1]"))
    assert digests(ppp("--overwrite", "--json", "--engine", "local[3]", "--target-bytes", "2KB")) == one


@pytest.mark.parametrize("engine", ["dask", "local-cluster[2,1,1024]"])
def test_engines_agree(ppp: Callable[..., Result], dataset: Path, tmp_path: Path, engine: str) -> None:
    here = digests(ppp("--json"))
    job = PPPJob(data=str(dataset), column="embedding", output=str(tmp_path / "there"), engine=engine)
    assert run_ppp(job).digests == here
    reports = [json.loads((tmp_path / name / "stats" / "ppp.json").read_text()) for name in ("out", "there")]
    assert reports[0] == reports[1]


def test_a_stopped_run_goes_on_with_the_same_bits(
    ppp: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    whole = json.loads(ppp("--json").stdout)
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, IterationEnded) and event.iteration == 5:
            cancel.cancel()

    job = PPPJob(data=str(dataset), column="embedding", output=str(tmp_path / "stopped"))
    with pytest.raises(CancelledError):
        run_ppp(job, Session(emit, cancel))
    unfinished = cli("explain", tmp_path / "stopped")
    assert unfinished.exit_code == 2
    assert "has no report yet" in unfinished.stderr
    resumed = json.loads(cli("resume", tmp_path / "stopped", "--json").stdout)
    assert resumed["digests"] == whole["digests"]


def test_what_cannot_be_explained_is_refused(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    nothing = cli("explain", tmp_path / "nowhere")
    assert nothing.exit_code == 2
    assert "there is no run of distclust here" in nothing.stderr
    cluster()
    other = cli("explain", tmp_path / "out")
    assert other.exit_code == 2
    assert "this is a run of kmeans; only those of ppp explain themselves" in other.stderr


def test_noise_is_one_cluster(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = np.random.default_rng(1).uniform(size=(600, 2))
    np.save(tmp_path / "noise.npy", rows)
    result = cli("ppp", tmp_path / "noise.npy", "-o", tmp_path / "noise")
    assert "one cluster: the rows are not clusterable" in result.stdout
    assert "One cluster: the rows are not clusterable." in cli("explain", tmp_path / "noise").stdout


def test_bad_settings_are_refused(ppp: Callable[..., Result]) -> None:
    result = ppp("--max-valley", "2")
    assert result.exit_code == 2
    assert "max_valley" in result.stderr
