"""k-means that starts from the centres of an earlier run: equal bits, identity, resume, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from distclust import KMeans
from distclust.artifacts.model import Model, load_model
from distclust.config import KMeansJob
from distclust.engines.events import Event, IterationEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError, UsageError
from distclust.workflows.common import Session
from distclust.workflows.kmeans import run_kmeans
from tests.jobs.conftest import BLOBS, WIDTH, digests, write_rows


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """Rows of another day: 700 x 6, one cloud, so that there is something to do."""
    rows = np.random.default_rng(8).normal(size=(700, WIDTH)).astype(np.float32)
    write_rows(tmp_path / "new" / "a.parquet", rows * 9)
    return tmp_path / "new"


@pytest.fixture
def started(
    cli: Callable[..., Result], cluster: Callable[..., Result], stream: Path, tmp_path: Path
) -> Callable[..., Result]:
    """Run ``kmeans --warm-start`` on other rows with the model of a fresh run, with further arguments."""
    assert cluster().exit_code == 0

    def call(*more: object) -> Result:
        return cli("kmeans", stream, "--warm-start", tmp_path / "out", "-o", tmp_path / "warm", "--rtol", 0, *more)

    return call


def rows_of(directory: Path) -> np.ndarray:
    column = pq.read_table(directory, columns=["embedding"]).column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, WIDTH)


def test_it_gives_the_bits_of_these_first_centres(started: Callable[..., Result], stream: Path, tmp_path: Path) -> None:
    result = started("--json")
    assert result.exit_code == 0, result.output
    model, first = load_model(tmp_path / "warm"), load_model(tmp_path / "out")
    X = rows_of(stream)
    for init in (first.centers, first, tmp_path / "out", tmp_path / "out" / "model"):
        km = KMeans(BLOBS, init=init, max_iter=100, rtol=0.0, engine="local[1]").fit(X)
        assert np.array_equal(km.cluster_centers_, model.centers), type(init)
    summary = json.loads(result.stdout)["summary"]
    assert summary["clusters"] == BLOBS
    assert summary["iterations"] > 2


def test_the_model_is_in_the_record_and_in_the_identity(
    started: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    assert started().exit_code == 0
    record = json.loads((tmp_path / "warm" / "run.json").read_text())
    first = load_model(tmp_path / "out")
    assert record["config"]["warm_start"] == first.vectors_digest
    assert record["config"]["n_clusters"] == BLOBS
    assert record["config"]["column"] == "embedding"
    assert record["how"]["warm_start"] == str(tmp_path / "out")
    assert load_model(tmp_path / "warm").parameters["warm_start"] == first.vectors_digest
    assert "nothing was done" in started("-k", BLOBS, "--column", "embedding").stdout
    cluster("--seed", 3, "--max-iter", 1, "--init", "random", "--overwrite")
    refused = started()
    assert refused.exit_code == 2
    assert "warm_start" in refused.stderr


def test_engines_partitions_and_places_agree(started: Callable[..., Result], tmp_path: Path) -> None:
    one = digests(started("--json", "--engine", "local[1]"))
    assert digests(started("--json", "--overwrite", "--engine", "local[3]", "--target-bytes", "2KB")) == one
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    moved = started("--json", "--warm-start", tmp_path / "elsewhere" / "model")
    assert json.loads(moved.stdout)["already_complete"]


def test_a_stopped_run_goes_on_with_the_same_bits(
    started: Callable[..., Result], cli: Callable[..., Result], stream: Path, tmp_path: Path
) -> None:
    whole = digests(started("--json"))
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, IterationEnded) and event.iteration == 2:
            cancel.cancel()

    stopped = tmp_path / "stopped"
    job = KMeansJob(data=str(stream), warm_start=str(tmp_path / "out"), rtol=0, output=str(stopped))
    with pytest.raises(CancelledError):
        run_kmeans(job, Session(emit, cancel))
    assert digests(cli("resume", stopped, "--json")) == whole


def test_a_stream_of_runs_each_starts_from_the_one_before(
    started: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    assert started().exit_code == 0
    third = cli("kmeans", dataset, "--warm-start", tmp_path / "warm", "-o", tmp_path / "third", "--json")
    assert digests(third).keys() == {"centers", "labels"}
    assert cli("verify", tmp_path / "third").exit_code == 0
    inspected = cli("inspect", tmp_path / "third")
    assert f"warm_start={load_model(tmp_path / 'warm').vectors_digest}" in inspected.stdout


def test_the_tree_of_bisect_and_a_job_file_start_too(
    cli: Callable[..., Result], dataset: Path, stream: Path, tmp_path: Path
) -> None:
    assert cli("bisect", dataset, "--column", "embedding", "-k", 4, "-o", tmp_path / "tree").exit_code == 0
    job = tmp_path / "job.toml"
    job.write_text(
        f'kind = "kmeans"\ndata = "{stream}"\nwarm_start = "{tmp_path / "tree"}"\noutput = "{tmp_path / "o"}"\n'
    )
    assert cli("run", job).exit_code == 0
    assert len(load_model(tmp_path / "o").centers) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-k", BLOBS + 1), 2, f"k == {BLOBS + 1}, but the model to start from has {BLOBS} clusters"),
        (("--metric", "cosine"), 2, "fitted under the metric 'euclidean'; 'cosine' is asked for"),
        (("--columns", "x0,x1"), 3, f"the rows have 2 values, the model's centres have {WIDTH}"),
        (("--init", "random"), 2, "leave out init"),
        (("--n-init", 2), 2, "leave out n_init"),
        (("--warm-start", "nowhere"), 2, "there is no model"),
    ],
)
def test_what_does_not_fit_is_refused(
    started: Callable[..., Result], tmp_path: Path, arguments: tuple[object, ...], code: int, said: str
) -> None:
    result = started(*arguments)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "warm").exists()


def test_clusters_are_needed_without_a_start(cli: Callable[..., Result], dataset: Path) -> None:
    for command in (("kmeans", dataset, "-o", "out"), ("plan", dataset)):
        result = cli(*command, "--column", "embedding")
        assert result.exit_code == 2
        assert "key 'k' is missing" in result.stderr


def test_python_refuses_a_model_of_another_metric(stream: Path) -> None:
    X = rows_of(stream)
    model = Model("kmeans/1", X[:2], np.ones(2, np.int64), np.zeros(2), "cosine", "", None, None, {})
    with pytest.raises(
        UsageError, match="init: the model was fitted under the metric 'cosine'; 'euclidean' is asked for"
    ):
        KMeans(2, init=model).fit(X)


def test_a_run_without_a_start_keeps_its_identity(tmp_path: Path) -> None:
    assert "warm_start" not in KMeansJob(data="x", k=3, output=str(tmp_path)).what()
