"""`KMeans` as scikit-learn's users know it, on arrays, tables and datasets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distclust import KMeans
from distclust.algorithms import two_level
from distclust.engines.local import LocalEngine
from distclust.errors import DataError, UsageError
from tests.estimators.checks import checks_of


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize(("estimator", "check"), checks_of(KMeans(engine="local[2]")))
def test_scikit_learn_estimator_checks(estimator: KMeans, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, 0.3, (200, 5)) for m in (-4, 0, 4)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weighted_example_of_scikit_learn(dtype: type) -> None:
    # sklearn/cluster/tests/test_k_means.py, test_kmeans_results
    X = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]], dtype)
    km = KMeans(2, init=np.array([[0, 0], [1, 1]], dtype)).fit(X, sample_weight=[3, 1, 1, 3])
    assert km.labels_.tolist() == [0, 0, 1, 1]
    assert km.inertia_ == 0.375
    assert km.cluster_centers_.tolist() == [[0.125, 0], [0.875, 1]]
    assert km.n_iter_ == 2
    assert km.cluster_centers_.dtype == dtype


def test_relocation_example_of_scikit_learn() -> None:
    # test_kmeans_relocated_clusters: two centres start far from all rows and are moved to the farthest ones
    X = np.array([[0, 0], [0.5, 0], [0.5, 1], [1, 1]])
    km = KMeans(2, init=np.array([[0.5, 0.5], [3.0, 3.0]])).fit(X)
    assert km.inertia_ == 0.25
    assert km.n_iter_ == 3
    assert sorted(km.cluster_centers_.tolist()) in ([[0.25, 0], [0.75, 1]], [[0.25, 0.0], [0.75, 1.0]])


def test_duplicates_give_fewer_clusters_and_scikit_learns_warning() -> None:
    X = np.array([[1.0, 2.0]] * 5 + [[3.0, 4.0]] * 5)
    with pytest.warns(
        ConvergenceWarning, match=r"Number of distinct clusters \(2\) found smaller than n_clusters \(3\)"
    ):
        km = KMeans(3, random_state=0).fit(X)
    assert sorted(km.cluster_centers_.tolist()) == [[1, 2], [3, 4]]
    assert km.inertia_ == 0


def test_huge_offsets_do_not_hurt() -> None:
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(m, 0.1, (100, 2)) for m in (-1, 1)])
    near = KMeans(2, random_state=0).fit(X)
    far = KMeans(2, random_state=0).fit(X + 1.7e9)
    assert np.array_equal(near.labels_, far.labels_)
    assert far.cluster_centers_ - 1.7e9 == pytest.approx(near.cluster_centers_, abs=1e-5)


def test_cosine_ignores_length(blobs: np.ndarray) -> None:
    X = np.concatenate([blobs[:200], blobs[400:]])
    lengths = np.random.default_rng(2).uniform(0.1, 9, (len(X), 1))
    a = KMeans(2, metric="cosine", random_state=0).fit(X)
    b = KMeans(2, metric="cosine", random_state=0).fit(X * lengths)
    assert (a.labels_ == b.labels_).mean() in (0.0, 1.0)
    assert np.linalg.norm(a.cluster_centers_, axis=1) == pytest.approx([1, 1])
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert a.transform(X) == pytest.approx(1 - unit @ a.cluster_centers_.T, abs=1e-6)


def test_zero_rows_under_cosine_are_named(blobs: np.ndarray) -> None:
    X = blobs.copy()
    X[37] = 0
    with pytest.raises(DataError, match=r"row 37: the vector is zero, which has no direction"):
        KMeans(2, metric="cosine").fit(X)
    km = KMeans(2, metric="cosine", on_bad_rows="drop", random_state=0).fit(X)
    assert np.flatnonzero(km.labels_ == -1).tolist() == [37]


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (-np.inf, "-inf")])
def test_rows_that_are_not_finite_are_named(blobs: np.ndarray, value: float, name: str) -> None:
    X = blobs.copy()
    X[37, 1] = value
    named = rf"array row 37: value 1 of the vector is {name}\..*on_bad_rows='drop'"
    fitted = KMeans(3, random_state=0).fit(blobs)
    for asked in (KMeans(3).fit, KMeans(3).partial_fit, fitted.predict, fitted.transform, fitted.score):
        with pytest.raises(DataError, match=named):
            asked(X)
    km = KMeans(3, on_bad_rows="drop", random_state=0).fit(X)
    assert np.flatnonzero(km.labels_ == -1).tolist() == [37]
    assert np.array_equal(km.predict(X), km.labels_)


def test_an_array_of_centres_and_every_init_finds_the_blobs(blobs: np.ndarray) -> None:
    for init in ("k-means||", "k-means++", "random", blobs[[0, 300, 500]]):
        km = KMeans(3, init=init, random_state=0, n_init=3).fit(blobs)
        assert sorted(np.bincount(km.labels_).tolist()) == [200, 200, 200], init
        assert km.score(blobs) == pytest.approx(-km.inertia_)
        assert np.array_equal(km.predict(blobs), km.labels_)
        assert np.array_equal(km.transform(blobs).argmin(axis=1), km.labels_)


def test_equal_random_state_equal_bits_and_other_threads(blobs: np.ndarray) -> None:
    fits = [KMeans(5, random_state=3, engine=engine).fit(blobs) for engine in ("local[1]", "local[4]", LocalEngine(2))]
    for other in fits[1:]:
        assert np.array_equal(fits[0].cluster_centers_, other.cluster_centers_)
        assert np.array_equal(fits[0].labels_, other.labels_)
    assert not np.array_equal(fits[0].cluster_centers_, KMeans(5, random_state=4).fit(blobs).cluster_centers_)


def test_clone_pickle_set_output_and_feature_names(blobs: np.ndarray) -> None:
    frame = pd.DataFrame(blobs, columns=list("abcde"))
    km = KMeans(3, random_state=0).set_output(transform="pandas").fit(frame)
    assert km.feature_names_in_.tolist() == list("abcde")
    assert km.get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2"]
    assert list(km.transform(frame).columns) == ["kmeans0", "kmeans1", "kmeans2"]
    again = pickle.loads(pickle.dumps(km))
    assert np.array_equal(again.predict(frame), km.labels_)
    with pytest.raises(NotFittedError):
        clone(km).predict(frame)


def test_without_labels_the_same_centres(blobs: np.ndarray) -> None:
    labelled = KMeans(3, random_state=0, engine="local[1]").fit(blobs)
    km = KMeans(3, random_state=0, engine="local[1]", compute_labels=False)
    assert km.fit_predict(blobs).tobytes() == labelled.labels_.tobytes()
    assert km.cluster_centers_.tobytes() == labelled.cluster_centers_.tobytes()
    assert km.inertia_ == km.history_[-1]["inertia"] >= labelled.inertia_ * (1 - 1e-12)
    for name in ("labels_", "counts_"):
        assert not hasattr(km, name)
    with pytest.raises(UsageError, match=r"computed no labels.*how many rows each centre.*compute_labels=True"):
        km.partial_fit(blobs)
    # What an earlier fit has left must not be taken for this one's.
    labelled.set_params(compute_labels=False).fit(blobs)
    assert not hasattr(labelled, "labels_")
    with pytest.raises(UsageError, match="computed no labels"):
        labelled.partial_fit(blobs)
    assert km.set_params(compute_labels=True).fit(blobs).partial_fit(blobs).n_steps_ == 1
    with pytest.raises(UsageError, match=r"compute_labels == 'no', must be True or False"):
        KMeans(3, compute_labels="no").fit(blobs)  # type: ignore[arg-type]


def test_clone_keeps_a_live_engine(blobs: np.ndarray) -> None:
    with LocalEngine(1) as engine:
        km = clone(KMeans(3, engine=engine, random_state=0))
        assert km.engine is engine
        pipe = make_pipeline(StandardScaler(), km).fit(blobs)
        assert len(pipe[-1].cluster_centers_) == 3


@pytest.fixture(scope="module")
def dataset(blobs: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dataset")
    for i, rows in enumerate(np.array_split(blobs, 4)):
        table = pa.table({"v": list(rows), "w": np.full(len(rows), 2.0)} | dict(zip("abcde", rows.T, strict=True)))
        pq.write_table(table, directory / f"part-{i}.parquet")
    return directory


def test_datasets_and_tables_give_the_bits_of_arrays(blobs: np.ndarray, dataset: Path) -> None:
    array = KMeans(4, random_state=0).fit(blobs)
    table = pq.read_table(dataset)
    files = sorted(dataset.glob("*.parquet"))
    inputs: list[tuple[Any, dict[str, Any]]] = [
        (str(dataset), {"column": "v"}),
        (dataset, {"columns": list("abcde")}),
        (files, {"column": "v"}),
        (table, {"column": "v"}),
        (table, {"columns": list("abcde")}),
        (pl.from_arrow(table).select("v"), {"column": "v"}),
        (pd.DataFrame(blobs), {}),
        (pl.DataFrame(blobs), {}),
    ]
    for X, names in inputs:
        km = KMeans(4, random_state=0).fit(X, **names)
        assert np.array_equal(km.cluster_centers_, array.cluster_centers_), type(X)
        assert np.array_equal(km.labels_, array.labels_)
        assert np.array_equal(km.predict(X, **names), array.labels_)
        assert km.score(X, **names) == -array.inertia_


def test_weight_column_and_sample_weight_agree(blobs: np.ndarray, dataset: Path) -> None:
    a = KMeans(4, random_state=0).fit(dataset, column="v", weight_column="w")
    b = KMeans(4, random_state=0).fit(blobs, sample_weight=np.full(len(blobs), 2.0))
    assert np.array_equal(a.cluster_centers_, b.cluster_centers_)
    assert a.inertia_ == b.inertia_


def test_errors_say_what_to_do(blobs: np.ndarray, dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown init 'kmeans\+\+'.*Did you mean 'k-means\+\+'"):
        KMeans(3, init="kmeans++").fit(blobs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"n_clusters == 0, must be an integer of at least 1"):
        KMeans(0).fit(blobs)
    with pytest.raises(UsageError, match="init is an array of shape"):
        KMeans(3, init=blobs[:2]).fit(blobs)
    with pytest.raises(UsageError, match="init has 2 columns, the rows have 5"):
        KMeans(3, init=np.zeros((3, 2))).fit(blobs)
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        KMeans(3).fit(blobs[:2])
    with pytest.raises(UsageError, match=r"Unknown metric 'cosin'.*Did you mean 'cosine'"):
        KMeans(3, metric="cosin").fit(blobs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="are for datasets, not for arrays"):
        KMeans(3).fit(blobs, column="v")
    with pytest.raises(UsageError, match="Name the dataset's weight_column"):
        KMeans(3).fit(dataset, sample_weight=np.ones(600), column="v")
    with pytest.raises(UsageError, match="X has 1 features, but KMeans is expecting 5"):
        KMeans(3, random_state=0).fit(dataset, column="v").predict(dataset, columns=["w"])


@pytest.mark.parametrize("exact", [True, False])
def test_two_levels_label_new_rows_as_they_labelled_their_own(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_level, "EXACT_CLUSTERS", 1000 if exact else 10)
    monkeypatch.setattr(two_level, "LABEL_PROBES", 2)
    X = np.random.default_rng(3).normal(size=(2000, 4)).astype(np.float32)
    km = KMeans(60, strategy="two-level", random_state=0, engine="local[2]").fit(X)
    assert km.cluster_centers_.shape == (60, 4)
    assert np.array_equal(km.predict(X), km.labels_)
    assert np.array_equal(pickle.loads(pickle.dumps(km)).predict(X), km.labels_)
    assert km.score(X) == -km.inertia_
    away = ((X[:, None].astype(np.float64) - km.cluster_centers_[None]) ** 2).sum(axis=2)
    nearest = away.argmin(axis=1)
    assert (np.array_equal(km.labels_, nearest)) == exact
    assert km.inertia_ == pytest.approx(away[np.arange(2000), km.labels_].sum(), rel=1e-5)
    weights = np.arange(2000.0) % 4
    km = KMeans(60, strategy="two-level", random_state=0, engine="local[2]").fit(X, sample_weight=weights)
    assert km.counts_.tolist() == np.bincount(km.labels_, weights, minlength=60).tolist()
    assert np.array_equal(km.partial_fit(X[:500]).predict(X[:500]), km.labels_)
