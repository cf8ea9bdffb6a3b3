"""Passes with given medoids: scores of sets, labels, bounds; the same bits in any cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distclust.data.sources import open_source
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.errors import DataError, UsageError
from distclust.ops.assign import predict
from distclust.ops.measured import MeasuredData, measure_rows
from distclust.ops.medoids import MedoidSet, distances_to_medoids, label_by_medoids, score_sets
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import cut, random_sizes

PLAIN = ("sqeuclidean", "euclidean", "cosine", "manhattan", "chebyshev", "hamming")
CDIST = {"manhattan": "cityblock"}


def measured(engine: Engine, X: np.ndarray, sizes: list[int] | None = None, **how: Any) -> MeasuredData:
    source = open_source(X, weights=how.pop("weights", None))
    return measure_rows(engine, source, cut(source, engine, sizes or [len(X)]), **how)


def rows_for(metric: Any, dtype: str = "float64", n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(1)
    if metric == "jaccard":
        return rng.integers(0, 256, (n, 5)).astype(np.uint8)
    if metric == "haversine":
        return np.stack([rng.uniform(-1.5, 1.5, n), rng.uniform(-3, 3, n)], axis=1)
    X = rng.normal(size=(n, 6)).astype(dtype)
    return np.round(X) if metric == "hamming" else X


@pytest.mark.parametrize("metric", PLAIN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_and_labels_are_those_of_the_whole_table(metric: str, dtype: str) -> None:
    X = rows_for(metric, dtype)
    weights = np.random.default_rng(2).choice([0.0, 1.0, 2.5], len(X))
    first, second = X[[5, 77, 130]], X[[1, 2, 3, 250]]
    with LocalEngine(2) as engine:
        data = measured(engine, X, [100, 200], metric=metric, weights=weights)
        sets = [MedoidSet(rows, data.measure) for rows in (first, second)]
        scores = score_sets(engine, data, sets)
        labels = predict(engine, data.pinned, sets[0])
        stats = label_by_medoids(engine, data, sets[0])
        there = distances_to_medoids(engine, data.pinned, sets[0])
    for rows, score in zip((first, second), scores, strict=True):
        D = np.sort(cdist(X.astype(float), rows.astype(float), CDIST.get(metric, metric)), axis=1)
        assert score.loss == pytest.approx((weights * D[:, 0]).sum(), rel=1e-9, abs=1e-9)
        ratio = np.divide(D[:, 0], D[:, 1], out=np.ones(len(D)), where=D[:, 1] > 0)
        assert score.silhouette == pytest.approx((weights * (1 - ratio)).sum() / weights.sum(), rel=1e-9)
    assert stats.inertia.total() == pytest.approx(scores[0].loss, rel=1e-12)
    assert np.array_equal(stats.counts, np.bincount(labels, minlength=3))
    assert np.array_equal(there.argmin(axis=1), labels)


@pytest.mark.parametrize("metric", [*PLAIN, "jaccard", "haversine"])
def test_partitions_and_engines_agree_on_every_bit(metric: str) -> None:
    rng = np.random.default_rng(3)
    X = rows_for(metric)
    with LocalEngine(2) as local, HostileEngine(1) as hostile:
        seen = set()
        for engine, parts in ((local, 1), (local, 5), (hostile, 7)):
            data = measured(engine, X, random_sizes(rng, len(X), parts), metric=metric)
            sets = [MedoidSet(X[at], data.measure) for at in ([5, 77], [9, 8, 250])]
            (a, b), stats = score_sets(engine, data, sets), label_by_medoids(engine, data, sets[1])
            seen.add((a.loss, a.silhouette, b.loss, b.silhouette, stats.labels_digest, stats.inertia.total()))
        assert len(seen) == 1


def test_one_medoid_has_no_second() -> None:
    X = rows_for("euclidean")
    with LocalEngine(1) as engine:
        data = measured(engine, X, metric="euclidean")
        (score,) = score_sets(engine, data, [MedoidSet(X[:1], data.measure)])
    assert score.silhouette == 0
    assert score.loss == pytest.approx(cdist(X, X[:1]).sum())


def scaled_distance(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += (i + 1) * abs(a[i] - b[i])
    return total


def negative_distance(a: np.ndarray, b: np.ndarray) -> float:
    return a[0] - b[0]


def test_a_function_is_a_metric() -> None:
    X = rows_for("euclidean")
    with LocalEngine(2) as engine, HostileEngine(6) as hostile:
        data = measured(engine, X, [150, 150], metric=scaled_distance)
        (score,) = score_sets(engine, data, [MedoidSet(X[:4], data.measure)])
        pickled = measured(hostile, X, [40, 150, 110], metric=scaled_distance)
        assert score_sets(hostile, pickled, [MedoidSet(X[:4], pickled.measure)]) == [score]
        bad = measured(engine, X, metric=negative_distance)
        with pytest.raises(UsageError, match="returned a value that is negative or not finite"):
            score_sets(engine, bad, [MedoidSet(X[:4], bad.measure)])
    D = cdist(X * np.arange(1, 7), X[:4] * np.arange(1, 7), "cityblock")
    assert score.loss == pytest.approx(D.min(axis=1).sum())


def test_rows_that_do_not_fit_the_metric_are_refused() -> None:
    X = rows_for("euclidean")
    with LocalEngine(1) as engine:
        with pytest.raises(UsageError, match=r"'jaccard' compares sets as packed bits.*float64.*numpy\.packbits"):
            measured(engine, X, metric="jaccard")
        with pytest.raises(UsageError, match="the rows have 6 columns"):
            measured(engine, X, metric="haversine")
        with pytest.raises(UsageError, match=r"'gower' compares columns.*--columns"):
            measured(engine, X, metric="gower")
        with pytest.raises(UsageError, match=r"Unknown metric 'eucledian'.*Did you mean 'euclidean'"):
            measured(engine, X, metric="eucledian")
        with pytest.raises(UsageError, match="would overflow float32"):
            measured(engine, (X * 1e20).astype(np.float32), metric="sqeuclidean")
        X[7, 2] = np.nan
        with pytest.raises(DataError, match="array row 7: value 2 of the vector is NaN"):
            measured(engine, X, metric="manhattan")
        data = measured(engine, X, metric="manhattan", on_bad_rows="drop")
        assert (data.n_rows, data.n_bad) == (299, 1)
