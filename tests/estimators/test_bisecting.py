"""`BisectingKMeans` as scikit-learn's users know it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from distclust import BisectingKMeans
from distclust.errors import UsageError
from tests.estimators.checks import checks_of


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize(("estimator", "check"), checks_of(BisectingKMeans(engine="local[2]")))
def test_scikit_learn_estimator_checks(estimator: BisectingKMeans, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, 0.3, (200, 5)) for m in (-6, -4, 3, 8)])


@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
def test_three_groups_of_scikit_learn(strategy: Any) -> None:
    # sklearn/cluster/tests/test_bisect_k_means.py, test_three_clusters
    X = np.array([[1, 1], [10, 1], [3, 1], [10, 0], [2, 1], [10, 2], [10, 8], [10, 9], [10, 10]])
    km = BisectingKMeans(3, bisecting_strategy=strategy).fit(X)
    by_center = {tuple(center): label for label, center in enumerate(km.cluster_centers_.round(5).tolist())}
    wanted = [by_center[c] for c in [(2, 1), (10, 1), (10, 9)]]
    assert km.labels_.tolist() == [wanted[i] for i in (0, 1, 0, 1, 0, 1, 2, 2, 2)]
    assert np.array_equal(km.predict(X), km.labels_)


def test_weights_are_repetitions(blobs: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    times = rng.integers(1, 4, len(blobs))
    weighted = BisectingKMeans(7, precision="float64").fit(blobs, sample_weight=times)
    repeated = BisectingKMeans(7, precision="float64").fit(np.repeat(blobs, times, axis=0))
    assert weighted.cluster_centers_ == pytest.approx(repeated.cluster_centers_, rel=1e-9)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-9)


def test_tree_and_nearest_labels(blobs: np.ndarray) -> None:
    tree = BisectingKMeans(30).fit(blobs)
    nearest = BisectingKMeans(30, labels="nearest").fit(blobs)
    assert np.array_equal(tree.cluster_centers_, nearest.cluster_centers_)
    assert nearest.inertia_ < tree.inertia_
    assert np.array_equal(nearest.labels_, nearest.transform(blobs).argmin(axis=1))
    for km in (tree, nearest):
        assert np.array_equal(km.predict(blobs), km.labels_)
        assert km.score(blobs) == pytest.approx(-km.inertia_)
    assert tree.children_.shape == (29, 2)
    assert tree.inner_centers_[-1] == pytest.approx(blobs.mean(axis=0), abs=1e-6)


def test_clone_pickle_and_one_cluster(blobs: np.ndarray) -> None:
    km = BisectingKMeans(5).fit(blobs)
    again = pickle.loads(pickle.dumps(km))
    assert np.array_equal(again.predict(blobs), km.labels_)
    assert np.array_equal(clone(km).fit(blobs).labels_, km.labels_), "nothing is drawn"
    one = BisectingKMeans(1).fit(blobs)
    assert one.cluster_centers_[0] == pytest.approx(blobs.mean(axis=0), abs=1e-6)
    assert (one.predict(blobs) == 0).all()


def test_duplicates_give_fewer_clusters_and_scikit_learns_warning() -> None:
    X = np.array([[1.0, 2.0]] * 5 + [[3.0, 4.0]] * 5)
    with pytest.warns(ConvergenceWarning, match=r"Number of distinct clusters \(2\) found smaller than n_clusters"):
        km = BisectingKMeans(3).fit(X)
    assert sorted(km.cluster_centers_.tolist()) == [[1, 2], [3, 4]]
    assert km.inertia_ == 0


def test_cosine_ignores_length(blobs: np.ndarray) -> None:
    X = np.random.default_rng(5).normal(size=(300, 4)) + np.repeat(np.eye(4)[:3] * 5, 100, axis=0)
    lengths = np.random.default_rng(2).uniform(0.1, 9, (len(X), 1))
    a = BisectingKMeans(3, metric="cosine").fit(X)
    b = BisectingKMeans(3, metric="cosine").fit(X * lengths)
    assert np.array_equal(a.labels_, b.labels_)
    assert np.ptp(np.bincount(a.labels_)) <= 4
    assert np.linalg.norm(a.cluster_centers_, axis=1) == pytest.approx(np.ones(3))


def test_a_dataset_gives_the_bits_of_an_array(blobs: np.ndarray, tmp_path: Path) -> None:
    for i, rows in enumerate(np.array_split(blobs, 3)):
        pq.write_table(pa.table({"v": list(rows)}), tmp_path / f"part-{i}.parquet")
    array = BisectingKMeans(9).fit(blobs)
    dataset = BisectingKMeans(9, engine="local[3]").fit(tmp_path, column="v")
    assert np.array_equal(array.cluster_centers_, dataset.cluster_centers_)
    assert np.array_equal(array.labels_, dataset.labels_)
    assert np.array_equal(array.labels_, dataset.predict(tmp_path, column="v"))


def test_errors_say_what_to_do(blobs: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"Unknown labels 'nearst'.*Did you mean 'nearest'"):
        BisectingKMeans(3, labels="nearst").fit(blobs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_clusters=3"):
        BisectingKMeans(3).fit(blobs[:2])
    with pytest.raises(UsageError, match="are for datasets, not for arrays"):
        BisectingKMeans(3).fit(blobs, column="v")
