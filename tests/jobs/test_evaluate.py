"""Scores of finished runs from the command line, beside scikit-learn's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as peer
from typer.testing import Result

from tests.jobs.conftest import BLOBS, ROWS, WIDTH, write_rows
from tests.ops.labelled import peer_scores

REL = 1e-9


def rows_of(dataset: Path) -> np.ndarray:
    table = pq.read_table(dataset)
    return np.column_stack([table.column(f"x{i}").to_numpy() for i in range(WIDTH)])


def labels_of(run: Path) -> np.ndarray:
    return pq.read_table(run / "labels").column("cluster").to_numpy()


def scores(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def snapshot(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*")}


def add_truth(dataset: Path, name: str, values: Any) -> None:
    """Give the files of a dataset one more column."""
    at = 0
    for path in sorted(dataset.glob("*.parquet")):
        table = pq.read_table(path)
        pq.write_table(table.append_column(name, values.slice(at, table.num_rows)), path, row_group_size=200)
        at += table.num_rows


def test_scores_of_a_run_are_those_of_scikit_learn(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster()
    before = snapshot(tmp_path)
    found = scores(cli("evaluate", tmp_path / "out", "--json", "--engine", "local[2]"))
    X, labels = rows_of(dataset), labels_of(tmp_path / "out")
    for name, expected in peer_scores(X, labels).items():
        assert found[name] == pytest.approx(expected, rel=REL), name
    sizes = np.bincount(labels)
    assert found["balance"]["rows"]["max_share"] == sizes.max() / ROWS
    assert found["balance"]["rows"]["largest_over_smallest"] == sizes.max() / sizes.min()
    summary = json.loads((tmp_path / "out" / "manifest.json").read_text())["summary"]
    assert found["inertia"] == pytest.approx(summary["inertia"], rel=1e-6)
    assert (found["rows"], found["clusters"], found["truth"]) == (ROWS, BLOBS, None)
    assert snapshot(tmp_path) == before, "nothing was written"


@pytest.mark.parametrize("kind", ["words", "dictionary", "int64", "bool"])
def test_agreement_with_a_column(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2 if kind == "bool" else 7, ROWS)
    known = rng.random(ROWS) < 0.9
    words = pa.array([f"class {t}" if k else None for t, k in zip(truth, known, strict=True)])
    columns = {
        "words": words,
        "dictionary": words.dictionary_encode(),
        "int64": pa.array(truth, mask=~known),
        "bool": pa.array(truth == 1, mask=~known),
    }
    add_truth(dataset, "class", columns[kind])
    cluster()
    found = scores(cli("evaluate", tmp_path / "out", "--truth", "class", "--json"))["truth"]
    labels = labels_of(tmp_path / "out")[known]
    assert (found["column"], found["rows"], found["unknown"]) == ("class", known.sum(), ROWS - known.sum())
    assert found["adjusted_rand"] == pytest.approx(peer.adjusted_rand_score(truth[known], labels), rel=REL)
    mutual = peer.normalized_mutual_info_score(truth[known], labels)
    assert found["normalized_mutual_information"] == pytest.approx(mutual, rel=REL)


def test_the_table_says_it_all(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    add_truth(dataset, "class", pa.array(["a", "b", "c"] * (ROWS // 3)))
    cluster()
    result = cli("evaluate", tmp_path / "out", "--truth", "class")
    for said in (
        f"{tmp_path / 'out'}: kmeans/1, euclidean",
        f"{ROWS} × {WIDTH}",
        "silhouette (squared Euclidean)",
        "simplified silhouette",
        "Davies-Bouldin",
        "Calinski-Harabasz",
        "Gini coefficient",
        f"Against column 'class': {ROWS} rows of 3 classes",
        "adjusted Rand index",
        "normalized mutual information",
        "purity",
    ):
        assert said in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["profile", "cache", "evaluate"]


def test_an_output_gets_scores_and_clusters(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster("--weight-column", "weight")
    found = scores(cli("evaluate", tmp_path / "out", "-o", tmp_path / "scores", "--json"))
    assert sorted(os.listdir(tmp_path / "scores")) == ["clusters.parquet", "evaluation.json"]
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text()) == found
    table = pq.read_table(tmp_path / "scores" / "clusters.parquet")
    assert table.column_names == ["cluster", "rows", "weight", "inertia", "silhouette", "simplified_silhouette"]
    sizes = np.bincount(labels_of(tmp_path / "out"))
    assert table.column("rows").to_pylist() == sizes.tolist()
    mean = (table.column("silhouette").to_numpy() * sizes).sum() / ROWS
    assert mean == pytest.approx(found["silhouette"], rel=REL)


def test_an_assignment_is_scored_by_the_model_that_it_used(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster("--metric", "cosine")
    cli("assign", tmp_path / "out", dataset / "b.parquet", "-o", tmp_path / "labels")
    found = scores(cli("evaluate", tmp_path / "labels", "--json"))
    X, labels = rows_of(dataset / "b.parquet").astype(float), labels_of(tmp_path / "labels")
    assert found["silhouette"] == pytest.approx(peer.silhouette_score(X, labels, metric="cosine"), rel=1e-7)
    assert (found["kind"], found["metric"], found["rows"]) == ("assign/1", "cosine", 400)
    cluster("--metric", "cosine", "-k", BLOBS + 1, "--overwrite")
    refused = cli("evaluate", tmp_path / "labels")
    assert refused.exit_code == 7
    assert "the model is another one than that which the labels were found with" in refused.stderr


def test_dropped_rows_are_in_no_score(cli: Callable[..., Result], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(300, 3)) + np.arange(300)[:, None] % 3 * 9).astype(np.float32)
    bad = X.copy()
    bad[[0, 150, 299], 1] = np.nan
    write_rows(tmp_path / "bad.parquet", bad)
    rows = ("--column", "embedding", "--on-bad-rows", "drop")
    run = cli("kmeans", tmp_path / "bad.parquet", *rows, "-k", 3, "-o", tmp_path / "out")
    assert run.exit_code == 0, run.output
    found = scores(cli("evaluate", tmp_path / "out", "--json", "--engine", "local[1]", "--target-bytes", "1KB"))
    labels = pq.read_table(tmp_path / "out" / "labels").column("cluster").to_pylist()
    good = np.array([label is not None for label in labels])
    for name, expected in peer_scores(X[good], np.array(labels)[good].astype(int)).items():
        assert found[name] == pytest.approx(expected, rel=REL), name
    assert (found["rows"], found["bad_rows"]) == (297, 3)


@pytest.mark.parametrize("how", [("--engine", "local[1]", "--target-bytes", "3KB"), ("--engine", "dask")])
def test_engine_and_cut_change_no_digit(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    cluster("--target-bytes", "2KB")
    whole = scores(cli("evaluate", tmp_path / "out", "--truth", "key", "--json"))
    again = scores(cli("evaluate", tmp_path / "out", "--truth", "key", "--json", *how))
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


def test_moved_rows_are_named_by_data_and_other_rows_refused(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster("--target-bytes", "4KB")
    whole = scores(cli("evaluate", tmp_path / "out", "--json"))
    X = rows_of(dataset)
    shutil.move(dataset, tmp_path / "moved")
    assert cli("evaluate", tmp_path / "out").exit_code == 3
    moved = scores(cli("evaluate", tmp_path / "out", "--data", tmp_path / "moved", "--json"))
    assert {**moved, "seconds": 0} == {**whole, "seconds": 0}

    one = X.copy()
    one[600] += 3e-3
    write_rows(tmp_path / "changed.parquet", one)
    refused = cli("evaluate", tmp_path / "out", "--data", tmp_path / "changed.parquet")
    assert refused.exit_code == 3
    assert "row 600 of the dataset" in refused.stderr
    assert "these are not the rows that were labelled" in refused.stderr

    write_rows(tmp_path / "fewer.parquet", X[:-1])
    refused = cli("evaluate", tmp_path / "out", "--data", tmp_path / "fewer.parquet")
    assert refused.exit_code == 3
    assert f"{ROWS - 1} rows of {WIDTH} values; the run labelled {ROWS} rows" in refused.stderr


def test_files_that_changed_since_are_refused(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster()
    os.utime(dataset / "b.parquet", ns=(1, 1))
    refused = cli("evaluate", tmp_path / "out")
    assert refused.exit_code == 3
    assert "1 file(s) changed since the run read them" in refused.stderr
    assert "b.parquet" in refused.stderr
    assert cli("evaluate", tmp_path / "out", "--data", dataset).exit_code == 0


def test_what_cannot_be_scored_is_refused(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    assert "there is no run of distclust here" in cli("evaluate", tmp_path).stderr
    cluster()
    for name, code, said in (
        ("kye", 2, "no column 'kye'"),
        ("weight", 3, "the truth column 'weight' has type double; classes are strings, integers or booleans"),
    ):
        refused = cli("evaluate", tmp_path / "out", "--truth", name)
        assert (refused.exit_code, said in refused.stderr) == (code, True), refused.stderr
    refused = cli("evaluate", tmp_path / "out", "--memory", "lots")
    assert (refused.exit_code, "'lots' is not a size" in refused.stderr) == (2, True)
    (tmp_path / "out" / "manifest.json").unlink()
    assert "the run is not complete" in cli("evaluate", tmp_path / "out").stderr
    cli("sweep", dataset, "--column", "embedding", "-k", "2", "-o", tmp_path / "sweep")
    refused = cli("evaluate", tmp_path / "sweep")
    assert (refused.exit_code, "a run of kind 'sweep/1' has no labels" in refused.stderr) == (2, True)
