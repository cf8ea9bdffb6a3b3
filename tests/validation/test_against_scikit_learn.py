"""Beside scikit-learn on real rows: same start, same number of passes, same inertia; same centres, same labels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.cluster
from sklearn.exceptions import ConvergenceWarning

from distclust import KMeans


def _embeddings(shared_data: Path, name: str) -> np.ndarray:
    column = pq.read_table(shared_data / name, columns=["embedding"]).column("embedding").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def _table(shared_data: Path, name: str) -> np.ndarray:
    table = pq.read_table(shared_data / "labelled" / f"{name}.parquet")
    names = [c for c in table.column_names if c.startswith("x")]
    return np.column_stack([table.column(c).to_numpy() for c in names]).astype(np.float64)


def _peer(X: np.ndarray, init: np.ndarray, passes: int) -> sklearn.cluster.KMeans:
    model = sklearn.cluster.KMeans(len(init), init=init, n_init=1, max_iter=passes, tol=0, algorithm="lloyd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def _exact_inertia(X: np.ndarray, centers: np.ndarray) -> float:
    total = 0.0
    for rows in np.array_split(X.astype(np.float64), 1 + len(X) // 2000):
        d = (rows**2).sum(1)[:, None] - 2 * rows @ centers.T.astype(float) + (centers.astype(float) ** 2).sum(1)
        total += float(np.maximum(d, 0).min(axis=1).sum())
    return total


@pytest.mark.parametrize("passes", [1, 3, 10])
@pytest.mark.parametrize(("name", "k"), [("minipile", 50), ("clinc150", 150)])
def test_embeddings_reach_the_same_inertia(name: str, k: int, passes: int, shared_data: Path) -> None:
    X = _embeddings(shared_data, name)
    init = X[np.random.default_rng(0).choice(len(X), k, replace=False)]
    ours = KMeans(k, init=init, max_iter=passes, tol=0, rtol=0).fit(X)
    peer = _peer(X, init, passes)
    assert ours.inertia_ == pytest.approx(peer.inertia_, rel=1e-3)
    assert ours.inertia_ == pytest.approx(_exact_inertia(X, ours.cluster_centers_), rel=1e-5)
    assert ours.n_iter_ == peer.n_iter_


@pytest.mark.parametrize("name", ["s1", "s4", "a3", "unbalance", "wine", "ecoli", "yeast", "iris"])
def test_tables_reach_the_same_inertia_and_labels(name: str, shared_data: Path) -> None:
    X = _table(shared_data, name)
    init = X[np.random.default_rng(1).choice(len(X), 8, replace=False)]
    ours = KMeans(8, init=init, tol=0, rtol=0).fit(X)
    peer = _peer(X, init, 300)
    assert ours.inertia_ == pytest.approx(peer.inertia_, rel=1e-3)
    assert ours.cluster_centers_.dtype == np.float64


@pytest.mark.parametrize("name", ["minipile", "clinc150"])
def test_labels_under_the_same_centres_are_equal_but_for_proven_ties(name: str, shared_data: Path) -> None:
    X = _embeddings(shared_data, name)
    ours = KMeans(200, max_iter=5, random_state=0).fit(X)
    peer = _peer(X[:400], X[:200], 1)
    peer.cluster_centers_ = ours.cluster_centers_
    theirs = peer.predict(X)
    differ = np.flatnonzero(theirs != ours.labels_)
    assert len(differ) < len(X) / 1000
    rows, centers = X[differ].astype(np.float64), ours.cluster_centers_.astype(np.float64)
    mine = ((rows - centers[ours.labels_[differ]]) ** 2).sum(1)
    other = ((rows - centers[theirs[differ]]) ** 2).sum(1)
    assert np.abs(mine - other).max(initial=0.0) < 1e-5, "rows labelled apart must lie between their two centres"


def test_seeding_is_as_good_as_greedy_kmeans_plus_plus(shared_data: Path) -> None:
    X = _embeddings(shared_data, "clinc150")[::4]
    ours = np.mean([KMeans(60, max_iter=20, random_state=s).fit(X).inertia_ for s in range(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = np.mean(
            [sklearn.cluster.KMeans(60, n_init=1, max_iter=20, random_state=s).fit(X).inertia_ for s in range(3)]
        )
    assert ours < 1.01 * peer
