"""Bisecting k-means on the command line: files, resume, labels by the tree of new rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.artifacts.tree import load_tree
from distclust.config import BisectJob
from distclust.engines.events import Event, IterationEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError, StorageError
from distclust.workflows.bisect import run_bisect
from distclust.workflows.common import Session
from tests.jobs.conftest import ROWS, digests

K = 12


@pytest.fixture
def bisect(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``bisect`` into ``tmp_path / "out"``, with further arguments."""

    def call(*more: object) -> Result:
        return cli("bisect", dataset, "--column", "embedding", "-k", K, "-o", tmp_path / "out", *more)

    return call


def test_a_run_leaves_centres_tree_and_labels(bisect: Callable[..., Result], tmp_path: Path) -> None:
    result = bisect("--id-column", "key", "--engine", "local[2]")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for said in (f"{out} is complete", "splits deep", f"{out}/model/tree.parquet", f"clusters  {K}, largest"):
        assert said in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["profile", "cache", "bisect", "label", "write"]
    centers, tree = (pq.read_table(out / "model" / name) for name in ("centers.parquet", "tree.parquet"))
    assert tree.column("node").to_pylist() == list(range(K, 2 * K - 1))
    assert tree.column("parent").to_pylist()[-1] is None
    below = {node: {first, second} for node, first, second in zip(*tree.select([0, 2, 3]).columns, strict=True)}
    for cluster, parent in enumerate(centers.column("parent")):
        assert any(child.as_py() == cluster for child in below[parent])
    labels = pq.read_table(out / "labels")
    assert np.bincount(labels.column("cluster").to_numpy()).tolist() == centers.column("size").to_pylist()
    assert tree.column("size").to_pylist()[-1] == ROWS


def test_new_rows_are_labelled_as_the_model_says(
    bisect: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    trained = digests(bisect("--json"))
    again = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "again", "--json"))
    assert again["labels"] == trained["labels"]
    nearest = digests(bisect("--labels", "nearest", "--overwrite", "--json"))
    assert nearest["centers"] == trained["centers"]
    assert nearest["labels"] != trained["labels"]
    again = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "nearest", "--json"))
    assert again["labels"] == nearest["labels"]


def test_engines_and_partitions_agree(bisect: Callable[..., Result]) -> None:
    one = digests(bisect("--json", "--engine", "local[1]"))
    assert digests(bisect("--overwrite", "--json", "--engine", "local[3]", "--target-bytes", "2KB")) == one


def test_a_stopped_run_goes_on_with_the_same_bits(
    bisect: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    whole = json.loads(bisect("--json").stdout)
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, IterationEnded) and event.iteration == 7:
            cancel.cancel()

    job = BisectJob(data=str(dataset), column="embedding", k=K, output=str(tmp_path / "stopped"))
    with pytest.raises(CancelledError):
        run_bisect(job, Session(emit, cancel))
    resumed = json.loads(cli("resume", tmp_path / "stopped", "--json").stdout)
    assert resumed["digests"] == whole["digests"]
    assert resumed["summary"]["passes"] == whole["summary"]["passes"]
    history = json.loads(cli("inspect", tmp_path / "stopped", "--json").stdout)["history"]
    assert [entry["iteration"] for entry in history] == list(range(1, whole["summary"]["passes"] + 1))


def test_one_cluster_and_a_job_file(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'kind = "bisect"\ndata = "{dataset}"\ncolumn = "embedding"\nk = 1\noutput = "{tmp_path / "one"}"\n')
    trained = digests(cli("run", job, "--json"))
    again = digests(cli("assign", tmp_path / "one", dataset, "-o", tmp_path / "labels", "--json"))
    assert again["labels"] == trained["labels"]


def test_a_damaged_tree_is_refused(
    bisect: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    bisect()
    path = tmp_path / "out" / "model" / "tree.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    result = cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "labels")
    assert result.exit_code == StorageError.exit_code
    assert "tree.parquet" in result.stderr
    path.unlink()
    with pytest.raises(StorageError, match=r"tree\.parquet: is missing"):
        load_tree(tmp_path / "out", "")
    assert cli("verify", tmp_path / "out").exit_code == 3


def test_bad_settings_are_refused(bisect: Callable[..., Result]) -> None:
    result = bisect("--bisecting-strategy", "random")
    assert result.exit_code == 2
    assert "bisecting_strategy" in result.stderr
