"""Two levels on the command line: what is written, labelled, inspected, planned, resumed; equal bits on all engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.algorithms import two_level
from distclust.artifacts.model import load_model
from distclust.config import AssignJob, KMeansJob
from distclust.errors import UsageError
from distclust.ops import assign as labelling
from distclust.ops.routing import RoutedCenters
from distclust.workflows.assign import run_assign
from distclust.workflows.kmeans import run_kmeans
from tests.jobs.conftest import write_rows
from tests.recovery.cases import bits_of, labels_of

K = 90


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3000 x 6 in three files."""
    rng = np.random.default_rng(9)
    X = (rng.normal(size=(30, 6))[rng.integers(0, 30, 3000)] * 5 + rng.normal(size=(3000, 6))).astype(np.float32)
    place = tmp_path_factory.mktemp("rows")
    for i in range(3):
        write_rows(place / f"{i}.parquet", X[i * 1000 : (i + 1) * 1000], first_id=i * 1000)
    return place


def job(rows: Path, output: Path, **more: Any) -> KMeansJob:
    settings: dict[str, Any] = {"column": "embedding", "k": K, "seed": 2, "strategy": "two-level", "engine": "local[2]"}
    return KMeansJob(data=str(rows), output=str(output), **{**settings, **more})


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label by routing, and keep statistics of labels in files, as with very many clusters."""
    monkeypatch.setattr(two_level, "EXACT_CLUSTERS", 10)
    monkeypatch.setattr(two_level, "LABEL_PROBES", 2)
    monkeypatch.setattr(labelling, "STATS_BYTES", 0)


def test_a_run_leaves_cells_beside_the_centers_and_no_work_files(rows: Path, tmp_path: Path) -> None:
    outcome = run_kmeans(job(rows, tmp_path / "out"))
    model = load_model(tmp_path / "out")
    cells = pq.read_table(tmp_path / "out" / "model" / "cells.parquet")
    assert len(model.centers) == K
    assert model.parent is not None
    assert np.bincount(model.parent, minlength=len(cells)).tolist() == cells.column("clusters").to_pylist()
    assert (outcome.summary["strategy"], outcome.summary["labels"]) == ("two-level", "nearest")
    assert model.parameters["n_cells"] == len(cells) == outcome.summary["n_cells"]
    assert not (tmp_path / "out" / "two-level").exists()
    assert sorted(os.listdir(tmp_path / "out" / "commits")) == ["labels"]


@pytest.mark.parametrize("engine", ["local[1]", "dask", "spark"])
def test_engines_and_partitions_agree(engine: str, rows: Path, tmp_path: Path) -> None:
    first = run_kmeans(job(rows, tmp_path / "a"))
    other = run_kmeans(job(rows, tmp_path / "b", engine=engine, target_bytes=9000))
    assert other.digests == first.digests
    assert bits_of(tmp_path / "b") == bits_of(tmp_path / "a")


@pytest.mark.usefixtures("routed")
def test_routed_labels_are_found_again_by_assign(rows: Path, tmp_path: Path) -> None:
    outcome = run_kmeans(job(rows, tmp_path / "out"))
    assert (outcome.summary["labels"], outcome.summary["label_probes"]) == ("routed", 2)
    assert 0.5 < outcome.summary["label_exact_share"] <= 1
    assert sorted(os.listdir(tmp_path / "out" / "commits")) == ["labels"]
    again = run_assign(AssignJob(data=str(rows), model=str(tmp_path / "out"), output=str(tmp_path / "again")))
    assert again.digests == outcome.digests
    assert labels_of(tmp_path / "again") == labels_of(tmp_path / "out")


@pytest.mark.usefixtures("routed")
def test_statistics_of_committed_labels_are_read_back(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_kmeans(job(rows, tmp_path / "whole", target_bytes=9000))
    blocks: list[int] = []
    labels = RoutedCenters.labels

    def stop_in_the_middle(rule: RoutedCenters, block: Any, context: Any) -> np.ndarray:
        blocks.append(block.ref.index)
        if len(blocks) == 5:
            raise KeyboardInterrupt
        return labels(rule, block, context)

    with monkeypatch.context() as patch:
        patch.setattr(RoutedCenters, "labels", stop_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            run_kmeans(job(rows, tmp_path / "out", target_bytes=9000, engine="local[1]"))
    committed = os.listdir(tmp_path / "out" / "commits" / "labels")
    assert sorted(os.listdir(tmp_path / "out" / "commits" / "label-stats")) == sorted(committed)
    assert 4 <= len(committed) < whole.summary["rows"] // 300, "some are labelled, some are not"
    assert run_kmeans(job(rows, tmp_path / "out")).digests == whole.digests


def test_what_is_said_of_it(rows: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    options = ("--column", "embedding", "-k", str(K), "--strategy", "two-level")
    out = str(tmp_path / "out")
    said = cli("kmeans", str(rows), *options, "-o", out).stdout
    assert "cells; labels by the nearest of all centres" in said
    assert "over all rows" in said
    assert f"Largest 10 of {K} clusters" in cli("inspect", out).stdout
    planned = cli("plan", str(rows), *options).stdout
    assert "Two levels: 9 cells" in planned


@pytest.mark.usefixtures("routed")
def test_the_share_of_exact_labels_is_said(rows: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    options = ("--column", "embedding", "-k", str(K), "--strategy", "two-level")
    said = cli("kmeans", str(rows), *options, "-o", str(tmp_path / "out")).stdout
    assert "labels by the nearest of the centres in 2 cells, which is the nearest of all for" in said


def test_it_refuses_several_initialisations(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="n_init above 1"):
        run_kmeans(job(rows, tmp_path / "out", n_init=2))


def test_a_run_killed_again_and_again_gives_the_bits(rows: Path, tmp_path: Path) -> None:
    whole = run_kmeans(job(rows, tmp_path / "whole"))
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "distclust.cli.main", "kmeans", str(rows), "--column", "embedding", "-k", str(K),
        "--seed", "2", "--strategy", "two-level", "--engine", "local[2]", "-o", str(out), "--json",
    ]  # fmt: skip
    for stage in ("group", "cluster", "neighbors", "refine"):
        _kill_in(command, out, stage)
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(ended.stdout)["digests"] == whole.digests
    assert bits_of(out) == bits_of(tmp_path / "whole")


def _kill_in(command: list[str], out: Path, stage: str) -> None:
    """Start the run and kill it with -9 as soon as it has written a file in a stage."""
    first = {"group": "rows", "cluster": "groups-0", "neighbors": "neighbors", "refine": "labels-1"}[stage]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    try:
        while not (out / "two-level" / first).exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (out / "manifest.json").exists()
