"""Scores beside scikit-learn's and naive ones; the same bits on any engine and cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.cluster
import sklearn.metrics as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.ops import evaluate as evaluation
from distclust.ops.centers import CenterSet
from distclust.ops.evaluate import Evaluation, evaluate
from distclust.ops.labels import NearestLabels
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.ops.labelled import HeldClasses, HeldLabels, peer_scores

REL = 1e-9
SPARK_IRIS = 0.6564679231
"""Squared-Euclidean silhouette of iris under its three species, from the tests of Spark's ClusteringEvaluator."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as engine:
        yield engine


def table(shared_data: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    found = pq.read_table(shared_data / "labelled" / f"{name}.parquet")
    columns = [name for name in found.column_names if name.startswith("x")]
    return np.column_stack([found[c].to_numpy() for c in columns]).astype(float), found["label"].to_numpy()


def score(
    engine: Engine,
    X: np.ndarray,
    labels: np.ndarray,
    k: int | None = None,
    *,
    sizes: list[int] | None = None,
    **how: Any,
) -> Evaluation:
    """Score labels about the clusters' means, or about 0 where they have no rows."""
    classes = how.pop("classes", None)
    centers = np.zeros((k or labels.max() + 1, X.shape[1]))
    rows = X / np.linalg.norm(X, axis=1, keepdims=True) if how.get("metric") == "cosine" else X
    for j in np.unique(labels):
        centers[j] = rows[labels == j].mean(axis=0)
    with prepared(engine, X, sizes, precision=how.pop("precision", "float64"), **how) as data:
        shared = CenterSet((centers - data.offset).astype(data.view.dtype))
        return evaluate(engine, data, HeldLabels(labels), shared, classes=classes)


def flat(found: Evaluation) -> list[Any]:
    """Return everything that must be equal, bit for bit."""
    out: list[Any] = []
    for value in asdict(found).values():
        parts = value.values() if isinstance(value, dict) else [value]
        out += [part.tobytes() if isinstance(part, np.ndarray) else repr(part) for part in parts]
    return out


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("name", ["iris", "wine", "ecoli", "yeast", "s1", "unbalance"])
def test_scores_are_those_of_scikit_learn(engine: Engine, shared_data: Path, name: str, k: int) -> None:
    X, _ = table(shared_data, name)
    labels = sklearn.cluster.KMeans(k, n_init=1, random_state=0).fit_predict(X)
    found = score(engine, X, labels)
    for name, expected in peer_scores(X, labels).items():
        assert getattr(found, name) == pytest.approx(expected, rel=REL), name
    inertia = sum(((X[labels == j] - X[labels == j].mean(0)) ** 2).sum() for j in range(k))
    assert found.inertia == pytest.approx(inertia, rel=REL)


def test_iris_has_the_silhouette_that_spark_and_matlab_have(engine: Engine, shared_data: Path) -> None:
    X, species = table(shared_data, "iris")
    labels = np.unique(species, return_inverse=True)[1]
    assert score(engine, X, labels).silhouette == pytest.approx(0.6566670179, abs=1e-10)
    # Their figure is of the UCI copy of the table, which misprints rows 35 and 38 of Fisher's paper.
    assert X[34].tolist() == [4.9, 3.1, 1.5, 0.2]
    X[[34, 37]] = [4.9, 3.1, 1.5, 0.1]
    assert score(engine, X, labels).silhouette == pytest.approx(SPARK_IRIS, abs=1e-10)


def test_float32_rows_agree_to_about_seven_digits_which_is_why_evaluate_uses_float64(
    engine: Engine, shared_data: Path
) -> None:
    X, _ = table(shared_data, "unbalance")
    labels = sklearn.cluster.KMeans(8, n_init=1, random_state=0).fit_predict(X)
    exact, rounded = (score(engine, X, labels, precision=p).davies_bouldin for p in ("float64", "float32"))
    assert exact is not None
    assert 1e-9 < abs(rounded - exact) / exact < 1e-6


def test_tight_clusters_far_from_zero_keep_their_digits(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 6
    noise = rng.normal(size=(600, 5)) * 1e-3
    X = noise + rng.normal(size=(6, 5))[labels] * 50 + 1e6
    found = score(engine, X, labels)
    # Rows as they are stored, brought near zero exactly, so that scikit-learn keeps its digits too.
    for name, expected in peer_scores(X - 1e6, labels).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-8), name


def test_cosine_scores_are_those_of_unit_rows(engine: Engine, shared_data: Path) -> None:
    X, _ = table(shared_data, "wine")
    labels = sklearn.cluster.KMeans(4, n_init=1, random_state=0).fit_predict(X)
    found = score(engine, X, labels, metric="cosine")
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for name, expected in peer_scores(unit, labels).items():
        assert getattr(found, name) == pytest.approx(expected, rel=REL), name
    assert found.silhouette == pytest.approx(peer.silhouette_score(X, labels, metric="cosine"), rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_that_of_scikit_learn(engine: Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, 500)
    labels = np.where(rng.random(500) < 0.5, truth, rng.integers(0, 9, 500))
    names = tuple(f"class {t}" if known else None for t, known in zip(truth, rng.random(500) < 0.9, strict=True))
    known = np.array([name is not None for name in names])
    found = score(engine, rng.normal(size=(500, 3)), labels, 9, classes=HeldClasses(names)).agreement
    assert found is not None
    assert (found.rows, found.unknown, found.n_classes) == (known.sum(), 500 - known.sum(), 6)
    assert found.adjusted_rand == pytest.approx(peer.adjusted_rand_score(truth[known], labels[known]), rel=REL)
    mutual = peer.normalized_mutual_info_score(truth[known], labels[known])
    assert found.normalized_mutual_information == pytest.approx(mutual, rel=REL)
    counts = peer.cluster.contingency_matrix(truth[known], labels[known])
    assert found.purity == pytest.approx(counts.max(axis=0).sum() / known.sum(), rel=REL)


def test_limits_of_agreement(engine: Engine) -> None:
    X, n = np.random.default_rng(0).normal(size=(60, 2)), 60
    ids = np.arange(n) % 3

    def agreement(truth: list[str | None], labels: np.ndarray) -> Any:
        return score(engine, X, labels, 3, classes=HeldClasses(tuple(truth))).agreement

    same = agreement([f"{i}" for i in ids], ids)
    assert (same.adjusted_rand, same.normalized_mutual_information, same.purity) == (1.0, pytest.approx(1.0), 1.0)
    one = agreement(["a"] * n, ids)
    assert (one.adjusted_rand, one.normalized_mutual_information, one.purity) == (0.0, 0.0, 1.0)
    both = agreement(["a"] * n, np.zeros(n, int))
    assert (both.adjusted_rand, both.normalized_mutual_information, both.purity) == (1.0, 1.0, 1.0)
    assert agreement([None] * n, ids) is None


def naive_silhouettes(X: np.ndarray, labels: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return silhouettes by all pairs: a row against the weight of its cluster less its own."""
    D = ((X[:, None] - X[None]) ** 2).sum(2)
    out = np.zeros(len(X))
    for i in range(len(X)):
        means = {}
        for j in np.unique(labels[w > 0]):
            inside = labels == j
            weight = w[inside].sum() - (w[i] if labels[i] == j else 0.0)
            means[j] = (w[inside] * D[i, inside]).sum() / weight if weight > 0 else None
        own = means.pop(labels[i], None)
        if own is not None and means:
            other = min(v for v in means.values() if v is not None)
            out[i] = (other - own) / max(other, own)
    return out


@pytest.mark.parametrize("seed", range(3))
def test_weighted_scores_are_the_naive_ones(engine: Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 120)
    labels[labels == 4] = 3
    labels[7] = 4  # alone in its cluster
    X, w = rng.normal(size=(120, 3)) + labels[:, None], rng.choice([0.0, 0.5, 1.0, 3.0], 120)
    w[7] = 2.0
    found = score(engine, X, labels, 6, weights=w)
    naive = naive_silhouettes(X, labels, w)
    assert naive[7] == 0
    assert found.silhouette == pytest.approx((w * naive).sum() / w.sum(), rel=REL)
    by_cluster = [(w * naive)[labels == j].sum() / w[labels == j].sum() for j in range(5)]
    assert found.silhouettes[:5] == pytest.approx(by_cluster, rel=REL)
    assert np.isnan(found.silhouettes[5]), "an empty cluster has none"
    assert found.rows.empty == 1


def test_a_weight_is_that_many_copies_of_the_row(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 90)
    X, w = rng.normal(size=(90, 3)) + labels[:, None], rng.integers(0, 4, 90)
    copies, copied = np.repeat(X, w, axis=0), np.repeat(labels, w)
    found = score(engine, X, labels, weights=w.astype(float))
    expected = peer_scores(copies, copied)
    for name in ("davies_bouldin", "calinski_harabasz"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=REL), name
    assert found.weights.max_share == np.bincount(copied).max() / len(copied)
    assert found.rows.max_share == np.bincount(labels).max() / len(labels)


def test_simplified_silhouette_is_the_naive_one(engine: Engine) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 4))
    centers = rng.normal(size=(6, 4))
    centers[5] = 100  # no row is near it: no cluster to compare with
    D = np.sqrt(((X[:, None] - centers[None]) ** 2).sum(2))
    labels = D.argmin(1)
    with prepared(engine, X, precision="float64") as data:
        rows = CenterSet(centers - data.offset)
        found = evaluate(engine, data, NearestLabels(rows), rows)
        assert np.array_equal(found.clusters.rows, np.bincount(labels, minlength=6))
    two = np.sort(D[:, :5], axis=1)[:, :2]
    assert found.simplified_silhouette == pytest.approx((1 - two[:, 0] / two[:, 1]).mean(), rel=REL)


def test_scores_that_need_two_clusters_are_missing_without_them(engine: Engine) -> None:
    X = np.random.default_rng(0).normal(size=(9, 2))
    for labels in (np.zeros(9, int), np.arange(9)):
        found = score(engine, X, labels)
        scores = (found.silhouette, found.simplified_silhouette, found.davies_bouldin, found.calinski_harabasz)
        assert scores == (None, None, None, None)


def test_clusters_at_one_place_are_neither_near_nor_far(engine: Engine) -> None:
    X = np.repeat(np.random.default_rng(0).normal(size=(2, 3)), 41, axis=0)
    found = score(engine, X, np.arange(82) // 41 + 2 * (np.arange(82) % 2))
    assert (found.silhouette, found.davies_bouldin) == (0.0, 0.0)
    found = score(engine, X, np.arange(82) // 41)
    assert (found.silhouette, found.davies_bouldin) == (1.0, 0.0)


def test_tiles_do_not_show(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    X, labels = rng.normal(size=(500, 3)), rng.integers(0, 7, 500)
    whole = flat(score(engine, X, labels))
    monkeypatch.setattr(evaluation, "_TABLE_VALUES", 50)
    assert flat(score(engine, X, labels)) == whole


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    metric=st.sampled_from(["euclidean", "cosine"]),
    precision=st.sampled_from(["float64", "float32"]),
    weighted=st.booleans(),
    k=st.integers(1, 9),
)
def test_engines_and_cuts_agree_on_every_bit(seed: int, metric: str, precision: str, weighted: bool, k: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 200))
    X = rng.normal(size=(n, int(rng.integers(1, 7)))) * rng.choice([1.0, 1e3], (n, 1)) + rng.choice([0.0, 1e4])
    labels = rng.integers(0, k, n)
    how: dict[str, Any] = {"metric": metric, "precision": precision}
    how["weights"] = rng.choice([0.5, 1.0, 7.0], n) if weighted else None
    how["classes"] = HeldClasses(tuple(rng.choice(["a", "b", "ü", None], n)))
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        whole = flat(score(local, X, labels, k, **how))
        assert flat(score(local, X, labels, k, sizes=random_sizes(rng, n, 5), **how)) == whole
        assert flat(score(hostile, X, labels, k, sizes=random_sizes(rng, n, 6), **how)) == whole


def test_nearest_labels_score_like_the_same_labels_held(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    X, centers = rng.normal(size=(400, 3)), rng.normal(size=(5, 3))
    with prepared(engine, X, precision="float64") as data:
        rows = CenterSet(centers - data.offset)
        labels = assign_nearest(np.ascontiguousarray(X - data.offset), pack_centers(rows.rows))[0]
        found = evaluate(engine, data, NearestLabels(rows), rows)
        held = evaluate(engine, data, HeldLabels(labels), rows)
    assert flat(replace(found, agreement=None)) == flat(held)
