"""The nearest centres of each row on the command line and in Python: lists, bits, resume, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist
from typer.testing import Result

from distclust import BisectingKMeans, KMeans
from distclust.artifacts.model import load_model
from distclust.config import AssignJob
from distclust.engines.events import Event, TaskEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError, UsageError
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.assign import run_assign
from distclust.workflows.common import Session
from tests.jobs.conftest import BLOBS, ROWS, WIDTH, digests, write_rows

TOP = 3


@pytest.fixture
def listed(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> Callable[..., Result]:
    """Run ``assign --top`` with the model of a fresh run, with further arguments."""
    assert cluster().exit_code == 0

    def call(*more: object) -> Result:
        return cli("assign", tmp_path / "out", dataset, "--top", TOP, "-o", tmp_path / "top", *more)

    return call


def rows_of(path: Path) -> np.ndarray:
    column = pq.read_table(path, columns=["embedding"]).column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, WIDTH).astype(np.float64)


def lists_of(run: Path) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    table = pq.read_table(run / "labels").combine_chunks()
    clusters, distances = (
        table.column(name).combine_chunks().flatten().to_numpy().reshape(-1, TOP)
        for name in ("top_clusters", "top_distances")
    )
    return table, clusters, distances


def test_lists_are_those_of_a_sorted_table(listed: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = listed("--json")
    assert result.exit_code == 0, result.output
    table, clusters, distances = lists_of(tmp_path / "top")
    assert table.column_names == ["row_id", "cluster", "distance", "top_clusters", "top_distances"]
    assert pa.types.is_fixed_size_list(table.schema.field("top_clusters").type)
    expected = cdist(rows_of(dataset), load_model(tmp_path / "out").centers)
    np.testing.assert_array_equal(clusters, np.argsort(expected, axis=1)[:, :TOP])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :TOP], rtol=2e-6)
    np.testing.assert_array_equal(clusters[:, 0], table.column("cluster").to_numpy())
    np.testing.assert_array_equal(distances[:, 0], table.column("distance").to_numpy())


def test_labels_and_their_digest_are_those_without_lists(
    listed: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    found = digests(listed("--json"))
    plain = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "plain", "--json"))
    assert found.keys() == {"centers", "labels", "top"}
    assert {name: found[name] for name in plain} == plain
    columns = ["row_id", "cluster", "distance"]
    a, b = (pq.read_table(tmp_path / run / "labels", columns=columns) for run in ("top", "plain"))
    assert a.equals(b)
    assert cli("verify", tmp_path / "top").exit_code == 0
    assert cli("evaluate", tmp_path / "top").exit_code == 0


def test_engines_and_partitions_agree(listed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    one = digests(listed("--json", "--engine", "local[1]"))
    assert digests(listed("--overwrite", "--json", "--engine", "local[3]", "--target-bytes", "2KB")) == one

    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=3, options=options)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert digests(listed("--overwrite", "--json", "--target-bytes", "3KB")) == one


def test_a_stopped_run_goes_on_with_the_same_bits(
    listed: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    whole = digests(listed("--json"))
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.label == "label":
            cancel.cancel()

    stopped = tmp_path / "stopped"
    job = AssignJob(
        data=str(dataset),
        model=str(tmp_path / "out"),
        top=TOP,
        output=str(stopped),
        engine="local[1]",
        target_bytes=4096,
    )
    with pytest.raises(CancelledError):
        run_assign(job, Session(emit, cancel))
    assert digests(cli("resume", stopped, "--json")) == whole


def test_duplicate_centres_come_in_order_of_their_index() -> None:
    centers = np.array([[4.0], [0.0], [4.0], [0.0]])
    km = KMeans(2, random_state=0, engine="local[1]").fit([[-6.0], [-2.0], [2.0], [6.0]])  # centred by 0: ties stay
    km.cluster_centers_ = centers
    distances, indices = km.kneighbors(np.array([[0.0], [4.0], [2.0]]), 4)
    assert indices.tolist() == [[1, 3, 0, 2], [0, 2, 1, 3], [0, 1, 2, 3]]
    assert distances.tolist() == [[0, 0, 4, 4], [0, 0, 4, 4], [2, 2, 2, 2]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_kneighbors_sorts_what_transform_measures(metric: Any) -> None:
    X = np.random.default_rng(1).normal(size=(300, 7))
    km = KMeans(20, metric=metric, random_state=0, precision="float64", engine="local[2]").fit(X)
    table = km.transform(X)
    distances, indices = km.kneighbors(X, n_neighbors=6)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, np.argsort(table, axis=1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(table, axis=1)[:, :6], atol=1e-12)
    np.testing.assert_array_equal(indices[:, 0], km.predict(X))
    np.testing.assert_array_equal(km.kneighbors(X, 6, return_distance=False), indices)


def test_distances_ascend_and_the_label_comes_first() -> None:
    rng = np.random.default_rng(2)
    X = (1000 + rng.normal(size=(2000, 3))).astype(np.float32)  # float32 scores tie often
    km = KMeans(150, random_state=0, max_iter=3, engine="local[2]").fit(X)
    distances, indices = km.kneighbors(X, 9)
    np.testing.assert_array_equal(indices[:, 0], km.predict(X))
    assert (np.diff(distances[:, 1:], axis=1) >= 0).all()
    assert (distances[:, 1] - distances[:, 0] >= -1e-3).all()
    assert all(len(set(row)) == 9 for row in indices.tolist())


def test_dropped_rows_have_no_list(cli: Callable[..., Result], listed: Callable[..., Result], tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(10, WIDTH)).astype(np.float32)
    rows[4] = np.nan
    write_rows(tmp_path / "bad" / "a.parquet", rows)
    command = ("assign", tmp_path / "out", tmp_path / "bad", "--top", TOP, "-o", tmp_path / "some")
    assert cli(*command, "--on-bad-rows", "drop").exit_code == 0
    table = pq.read_table(tmp_path / "some" / "labels")
    for name in ("cluster", "distance", "top_clusters", "top_distances"):
        assert [at for at, value in enumerate(table.column(name).to_pylist()) if value is None] == [4]
    km = KMeans(2, random_state=0, on_bad_rows="drop").fit(str(tmp_path / "bad"), column="embedding")
    distances, indices = km.kneighbors(str(tmp_path / "bad"), 2, column="embedding")
    assert indices[4].tolist() == [-1, -1]
    assert np.isnan(distances[4]).all()


def test_more_than_there_are_is_refused(
    listed: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    result = listed("--top", BLOBS + 1)
    assert result.exit_code == 2
    assert f"top == {BLOBS + 1}, must be an integer from 1 to the number of centres, {BLOBS}" in " ".join(
        result.stderr.split()
    )
    assert not (tmp_path / "top").exists()
    assert listed("--top", 0).exit_code == 2
    assert "leave out one of both" in listed("--balanced").stderr
    with pytest.raises(UsageError, match=r"n_neighbors == 9, must be .* the number of centres, 3"):
        KMeans(3, random_state=0).fit(rows_of(dataset)).kneighbors(rows_of(dataset), 9)


def test_a_tree_that_labels_is_refused(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    for labels, code in (("tree", 2), ("nearest", 0)):
        model = tmp_path / labels
        assert cli("bisect", dataset, "--column", "embedding", "-k", 4, "--labels", labels, "-o", model).exit_code == 0
        result = cli("assign", model, dataset, "--top", 2, "-o", tmp_path / f"{labels}-top")
        assert result.exit_code == code, result.output
    assert "bisect with --labels nearest" in " ".join(
        cli("assign", tmp_path / "tree", dataset, "--top", 2, "-o", tmp_path / "no").stderr.split()
    )
    tree = BisectingKMeans(4, engine="local[1]").fit(rows_of(dataset))
    assert tree.kneighbors(rows_of(dataset), 2, return_distance=False).shape == (ROWS, 2)


def test_a_job_file_lists(listed: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "assign"\nmodel = "{tmp_path / "out"}"\ndata = "{tmp_path / "data"}"\n'
        f'output = "{tmp_path / "file"}"\ntop = {TOP}\n'
    )
    assert digests(cli("run", job, "--json")) == digests(listed("--json"))
    assert json.loads((tmp_path / "file" / "run.json").read_text())["config"]["top"] == TOP


def test_an_assignment_without_lists_keeps_its_identity(tmp_path: Path) -> None:
    assert "top" not in AssignJob(data="x", model="m", output=str(tmp_path)).what()
