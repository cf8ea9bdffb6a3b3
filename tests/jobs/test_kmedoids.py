"""k-medoids on the command line: vectors and mixed tables, models, new rows, resume, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust.config import KMedoidsJob
from distclust.engines.events import Event, IterationEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError
from distclust.workflows.common import Session
from distclust.workflows.kmedoids import run_kmedoids
from tests.jobs.conftest import BLOBS, ROWS, digests

PENGUINS = "species,island,bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,sex"


@pytest.fixture
def medoids(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``kmedoids`` on vectors into ``tmp_path / "out"``, with further arguments."""

    def call(*more: object) -> Result:
        command = ("kmedoids", dataset, "--column", "embedding", "-k", BLOBS, "-o", tmp_path / "out")
        return cli(*command, "--engine", "local[2]", *more)

    return call


@pytest.fixture
def penguins(cli: Callable[..., Result], shared_data: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``kmedoids`` on the penguins, with missing values and texts, into ``tmp_path / "out"``."""

    def call(*more: object) -> Result:
        data = shared_data / "mixed" / "penguins.parquet"
        command = ("kmedoids", data, "--columns", PENGUINS, "--metric", "gower", "-k", 6, "-o", tmp_path / "out")
        return cli(*command, "--id-column", "id", *more)

    return call


def naive_gower(table: pa.Table) -> np.ndarray:
    """Return the matrix of a table, pair by pair as the definition says."""
    total, shared = 0.0, 0.0
    for name in PENGUINS.split(","):
        column = table.column(name).to_numpy(zero_copy_only=False)
        there = np.array([value is not None and value == value for value in column])
        if pa.types.is_string(table.schema.field(name).type):
            apart = (column[:, None] != column[None, :]).astype(float)
        else:
            numbers = column.astype(float)
            apart = abs(numbers[:, None] - numbers[None, :]) / np.nanmax(numbers - np.nanmin(numbers))
        both = there[:, None] & there[None, :]
        total, shared = total + np.where(both, apart, 0), shared + both
    return total / shared


def test_a_run_leaves_medoids_with_their_places(medoids: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = medoids("--id-column", "key", "--metric", "manhattan")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for said in (f"{out} is complete", "medoid silhouette", "found by    fasterpam", f"{out}/model/medoids.parquet"):
        assert said in result.stdout
    found = pq.read_table(out / "model" / "medoids.parquet")
    centers = pq.read_table(out / "model" / "centers.parquet")
    rows = pa.concat_tables([pq.read_table(dataset / name) for name in ("a.parquet", "b.parquet")])
    ids = found.column("row_id").to_pylist()
    assert found.column("key").to_pylist() == [f"row-{i}" for i in ids]
    assert centers.column("vector").to_pylist() == rows.column("embedding").take(pa.array(ids)).to_pylist()
    for row_id, file, at in zip(ids, found["file"].to_pylist(), found["file_row"].to_pylist(), strict=True):
        assert pq.read_table(file).column("key")[at].as_py() == f"row-{row_id}"
    labels = pq.read_table(out / "labels")
    assert np.bincount(labels.column("cluster").to_numpy()).tolist() == centers.column("size").to_pylist()
    assert centers.column("size").to_numpy().sum() == ROWS


def test_a_mixed_table_is_clustered_end_to_end(
    penguins: Callable[..., Result], cli: Callable[..., Result], shared_data: Path, tmp_path: Path
) -> None:
    result = penguins("--json")
    summary = json.loads(result.stdout)["summary"]
    table = pq.read_table(shared_data / "mixed" / "penguins.parquet")
    D = naive_gower(table)
    found = pq.read_table(tmp_path / "out" / "model" / "medoids.parquet")
    ids = found.column("row_id").to_numpy()
    near = D[:, ids].min(axis=1)
    assert summary["loss"] == pytest.approx(near.sum())
    second = np.sort(D[:, ids], axis=1)[:, 1]
    assert summary["medoid_silhouette"] == pytest.approx((1 - near / second).mean())
    chosen = table.take(pa.array(ids))
    for name in PENGUINS.split(","):
        assert found.column(name).to_pylist() == chosen.column(name).cast(found.column(name).type).to_pylist()
    labels = pq.read_table(tmp_path / "out" / "labels").sort_by("id")
    assert labels.column("cluster").to_pylist() == D[:, ids].argmin(axis=1).tolist()
    assert labels.column("distance").to_numpy() == pytest.approx(near, abs=1e-6)
    again = digests(cli("assign", tmp_path / "out", shared_data / "mixed" / "penguins.parquet", "--id-column", "id",
                        "-o", tmp_path / "again", "--json"))  # fmt: skip
    assert again == digests(result)


def test_new_rows_may_have_new_categories(
    penguins: Callable[..., Result], cli: Callable[..., Result], shared_data: Path, tmp_path: Path
) -> None:
    penguins()
    table = pq.read_table(shared_data / "mixed" / "penguins.parquet")
    found = pq.read_table(tmp_path / "out" / "model" / "medoids.parquet")
    new = table.take(found.column("row_id")).set_column(
        table.schema.get_field_index("island"), "island", pa.array(["Elsewhere"] * 6)
    )
    pq.write_table(new, tmp_path / "new.parquet")
    result = cli("assign", tmp_path / "out", tmp_path / "new.parquet", "-o", tmp_path / "again")
    assert result.exit_code == 0, result.output
    labels = pq.read_table(tmp_path / "again" / "labels")
    assert labels.column("cluster").to_pylist() == list(range(6))
    there = np.sum([new.column(name).is_valid().to_numpy() for name in PENGUINS.split(",")], axis=0)
    assert labels.column("distance").to_numpy() == pytest.approx(1 / there)


@pytest.mark.parametrize("method", ["auto", "clara", "onebatch"])
def test_engines_and_partitions_agree(medoids: Callable[..., Result], method: str) -> None:
    how = ("--json", "--overwrite", "--method", method, "--matrix-bytes", "1KB", "--batch-size", 50)
    one = digests(medoids(*how, "--engine", "local[1]"))
    assert digests(medoids(*how, "--engine", "local[3]", "--target-bytes", "2KB")) == one


def test_mixed_tables_agree_on_dask_and_spark(penguins: Callable[..., Result]) -> None:
    how = ("--json", "--overwrite", "--matrix-bytes", "1KB", "--batch-size", 60)
    one = digests(penguins(*how))
    assert digests(penguins(*how, "--engine", "dask", "--target-bytes", "4KB")) == one
    assert digests(penguins(*how, "--engine", "spark", "--target-bytes", "5KB")) == one


def test_a_stopped_run_goes_on_with_the_same_bits(
    medoids: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    how = {"method": "onebatch", "rtol": 0.0, "batch_size": 30}
    whole = json.loads(medoids("--json", "--method", "onebatch", "--rtol", 0, "--batch-size", 30).stdout)
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, IterationEnded) and event.iteration == 2:
            cancel.cancel()

    job = KMedoidsJob(data=str(dataset), column="embedding", k=BLOBS, output=str(tmp_path / "stopped"), **how)
    with pytest.raises(CancelledError):
        run_kmedoids(job, Session(emit, cancel))
    resumed = json.loads(cli("resume", tmp_path / "stopped", "--json").stdout)
    assert resumed["digests"] == whole["digests"]
    assert resumed["summary"]["passes"] == whole["summary"]["passes"] > 2
    assert cli("verify", tmp_path / "stopped").exit_code == 0
    shown = cli("inspect", tmp_path / "stopped").stdout
    assert "centre" in shown
    assert "found by" in shown


def test_k_is_chosen(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "kmedoids"\ndata = "{dataset}"\ncolumn = "embedding"\nk = "auto"\nk_max = 9\n'
        f'output = "{tmp_path / "auto"}"\n'
    )
    result = cli("run", job)
    assert result.exit_code == 0, result.output
    assert f"k           {BLOBS}, chosen from 2 to 9" in result.stdout


def test_scores_are_for_euclidean_runs(
    medoids: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path
) -> None:
    medoids()
    result = cli("evaluate", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["silhouette"] > 0.5
    medoids("--overwrite", "--metric", "chebyshev")
    result = cli("evaluate", tmp_path / "out")
    assert result.exit_code == 2
    assert "the run's metric is 'chebyshev'" in result.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--metric", "euclid"), "metric == 'euclid'"),
        (("--metric", "mine:distance"), "a job loads no code"),
        (("-k", "many"), "an integer of at least 1, or 'auto', is needed"),
        (("-k", 901), "n_samples=900 should be >= n_clusters=901"),
        (("--categorical", "key"), "it is for metric 'gower' only"),
        (("--metric", "gower"), "have to be named"),
        (("--method", "fasterpam", "--matrix-bytes", "1MB"), "--matrix-bytes"),
        (("--metric", "jaccard"), "numpy.packbits"),
    ],
)
def test_what_cannot_work_is_refused(medoids: Callable[..., Result], more: tuple[object, ...], said: str) -> None:
    result = medoids(*more)
    assert result.exit_code in (2, 3)
    assert said in result.stderr


def test_texts_need_gower_and_models_their_columns(
    penguins: Callable[..., Result], cli: Callable[..., Result], shared_data: Path, tmp_path: Path
) -> None:
    result = penguins("--metric", "manhattan")
    assert result.exit_code == 2
    assert "column 'species' has type" in result.stderr
    assert "--metric gower" in result.stderr
    penguins()
    data = shared_data / "mixed" / "penguins.parquet"
    result = cli("assign", tmp_path / "out", data, "-o", tmp_path / "x", "--columns", "species,sex")
    assert result.exit_code == 2
    assert "the model was fitted on" in result.stderr
    result = cli("assign", tmp_path / "out", data, "-o", tmp_path / "x", "--balanced")
    assert result.exit_code == 2
    assert "the model is one of k-medoids" in result.stderr
