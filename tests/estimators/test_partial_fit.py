"""`KMeans.partial_fit`: running means by a plain twin, equal bits, beginnings, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone

from distclust import KMeans
from distclust.errors import DataError, UsageError
from distclust.testing.hostile import HostileEngine

D, K = 5, 4


def batches(dtype: type = np.float64, offset: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(K, D)) * 6
    sizes = (300, 1, 57, 800, 3)
    return [(middles[rng.integers(0, K, n)] + rng.normal(size=(n, D)) + offset).astype(dtype) for n in sizes]


def twin(
    centers: np.ndarray, parts: list[np.ndarray], weights: list[np.ndarray], mass: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each centre as the weighted mean of all rows that it was given, from sums over all rows so far."""
    centers, mass = centers.astype(np.longdouble), mass.astype(np.longdouble)
    for X, w in zip(parts, weights, strict=True):
        labels = ((X[:, None, :].astype(np.longdouble) - centers) ** 2).sum(axis=2).argmin(axis=1)
        sums = centers * mass[:, None]
        for row, weight, label in zip(X, w, labels, strict=True):
            sums[label] += weight * row.astype(np.longdouble)
            mass[label] += weight
        centers = np.where(mass[:, None] > 0, sums / np.where(mass > 0, mass, 1)[:, None], centers)
    return centers.astype(np.float64), mass.astype(np.float64)


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("weighted", [False, True])
def test_centres_are_the_means_of_all_rows_they_were_given(weighted: bool, offset: float) -> None:
    parts = batches(offset=offset)
    rng = np.random.default_rng(1)
    weights = [rng.integers(0, 4, len(X)) + (np.arange(len(X)) == 0.0) if weighted else np.ones(len(X)) for X in parts]
    init = parts[0][:K]
    km = KMeans(K, init=init, precision="float64", engine="local[2]")
    for X, w in zip(parts, weights, strict=True):
        km.partial_fit(X, sample_weight=w if weighted else None)
    centers, mass = twin(init, parts, weights, np.zeros(K))
    np.testing.assert_allclose(km.cluster_centers_, centers, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(km.counts_, mass, rtol=1e-12)
    assert km.n_steps_ == len(parts)
    assert km.labels_.shape == (len(parts[-1]),)
    assert np.array_equal(km.labels_, km.predict(parts[-1]))
    assert km.score(parts[-1], sample_weight=weights[-1]) == pytest.approx(-km.inertia_)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_goes_on_from_a_fit(weighted: bool) -> None:
    parts = batches()
    w = np.random.default_rng(2).uniform(0.5, 2, len(parts[0])) if weighted else np.ones(len(parts[0]))
    km = KMeans(K, random_state=0, precision="float64").fit(parts[0], sample_weight=w if weighted else None)
    fitted = km.cluster_centers_.copy()
    np.testing.assert_allclose(km.counts_, np.bincount(km.labels_, weights=w), rtol=1e-12)
    counts = km.counts_.copy()
    km.partial_fit(parts[3])
    centers, mass = twin(fitted, [parts[3]], [np.ones(len(parts[3]))], counts)
    np.testing.assert_allclose(km.cluster_centers_, centers, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(km.counts_, mass, rtol=1e-12)
    assert km.n_steps_ == 1
    again = km.fit(parts[0])
    assert again.n_steps_ == 0
    assert again.counts_.sum() == len(parts[0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_bits_do_not_depend_on_engine_or_partitions(metric: Any, tmp_path: Path) -> None:
    parts = batches(np.float32)
    rng = np.random.default_rng(3)
    files = []
    for i, X in enumerate(parts):
        files.append([str(tmp_path / f"{i}-{j}.parquet") for j in range(2)])
        for path, rows in zip(files[-1], np.array_split(X, [len(X) // 3]), strict=True):
            pq.write_table(pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), D)}), path)
    fits = []
    with HostileEngine(seed=int(rng.integers(99))) as hostile:
        for engine in ("local[1]", "local[3]", hostile, "files"):
            km = KMeans(K, metric=metric, random_state=5, engine="local[2]" if engine == "files" else engine)
            for X, paths in zip(parts, files, strict=True):
                km = km.partial_fit(paths, column="v") if engine == "files" else km.partial_fit(X)
            fits.append(km)
    for other in fits[1:]:
        assert other.cluster_centers_.tobytes() == fits[0].cluster_centers_.tobytes()
        assert other.labels_.tobytes() == fits[0].labels_.tobytes()
        assert other.counts_.tobytes() == fits[0].counts_.tobytes()
        assert other.inertia_ == fits[0].inertia_
    if metric == "cosine":
        assert np.linalg.norm(fits[0].cluster_centers_, axis=1) == pytest.approx(np.ones(K), abs=1e-6)


def test_a_stream_finds_what_one_fit_finds() -> None:
    parts = batches()
    km = KMeans(K, random_state=0)
    for X in parts:
        km.partial_fit(X)
    whole = KMeans(K, random_state=0, n_init=4).fit(np.concatenate(parts))
    assert -km.score(np.concatenate(parts)) <= 1.02 * whole.inertia_


def test_small_steps_are_not_lost_in_float32() -> None:
    # 2^24 rows' weight on a centre: a float32 centre of 1 would not move by 2^-26 at a time
    km = KMeans(1, init=np.array([[1.0]], np.float32), engine="local[1]")
    km.partial_fit(np.array([[1.0]], np.float32), sample_weight=[2.0**24])
    for _ in range(8):
        km.partial_fit(np.array([[1.25]], np.float32))
    assert km.cluster_centers_.dtype == np.float32
    assert km._running.centers[0, 0] == pytest.approx(1 + 2.0**-23, rel=1e-9)


def test_a_centre_without_rows_stays() -> None:
    km = KMeans(2, init=np.array([[0.0], [100.0]]), engine="local[1]").partial_fit([[1.0], [3.0]])
    assert km.cluster_centers_.tolist() == [[2], [100]]
    assert km.counts_.tolist() == [2, 0]
    km.partial_fit([[90.0]])
    assert km.cluster_centers_.tolist() == [[2], [90]]


def test_pickles_go_on_and_clones_begin_anew() -> None:
    parts = batches()
    km = KMeans(K, random_state=0).partial_fit(parts[0])
    again = pickle.loads(pickle.dumps(km)).partial_fit(parts[3])
    assert again.cluster_centers_.tobytes() == km.partial_fit(parts[3]).cluster_centers_.tobytes()
    assert clone(km).partial_fit(parts[0]).n_steps_ == 1


def test_bad_beginnings_are_refused() -> None:
    X = batches()[0]
    with pytest.raises(UsageError, match=r"n_samples=3 should be >= n_clusters=4\. Begin with a larger batch"):
        KMeans(K).partial_fit(X[:3])
    with pytest.raises(DataError, match="only 2 distinct rows were found in the first batch for 4 clusters"):
        KMeans(K).partial_fit(np.repeat(X[:2], 9, axis=0))
    with pytest.raises(UsageError, match="init has 2 columns, the rows have 5"):
        KMeans(K, init=np.zeros((K, 2))).partial_fit(X)
    km = KMeans(K, random_state=0).partial_fit(X)
    with pytest.raises(ValueError, match="X has 2 features, but KMeans is expecting 5"):
        km.partial_fit(X[:, :2])
    table = pa.table({"a": [1.0, 2.0]})
    with pytest.raises(UsageError, match="X has 1 features, but KMeans is expecting 5"):
        km.partial_fit(table, columns=["a"])
    assert km.n_steps_ == 1
