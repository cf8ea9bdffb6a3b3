"""One body over engines and random partitionings: the same bits, whatever is thrown at the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distclust.algorithms import progressive, seeding
from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.ops.assign import assign, predict
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes


def fit_bits(
    engine: Engine, X: np.ndarray, sizes: list[int] | None, config: KMeansConfig, **how: Any
) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    with prepared(engine, X, sizes, metric=config.metric, **how) as data:
        result = fit_kmeans(engine, data, config)
        stats = assign(engine, data, result.centers)
        return (
            result.vectors.tobytes(),
            result.n_iter,
            [(h.inertia, h.shift, h.moved, h.reassigned) for h in result.history],
            predict(engine, data.pinned, result.centers).tobytes(),
            stats.inertia.total(),
            stats.counts.tolist(),
            stats.labels_digest,
        )


def adversarial(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    """Return rows that make trouble: duplicates, ties, offsets, outliers, collinear points."""
    X = rng.normal(size=(n, d))
    if kind == "duplicates":
        X = np.repeat(X[: max(1, n // 4)], 4, axis=0)[:n]
        X = np.concatenate([X, X[: n - len(X)]])
    elif kind == "grid":
        X = rng.integers(0, 3, (n, d)).astype(float)
    elif kind == "offset":
        X = X + 1e8
    elif kind == "outlier":
        X[rng.integers(n)] *= 1e7
    elif kind == "line":
        X = np.outer(rng.normal(size=n), rng.normal(size=d))
    return X


KINDS = ("plain", "duplicates", "grid", "offset", "outlier", "line")


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    init=st.sampled_from(["k-means||", "k-means++", "random"]),
    metric=st.sampled_from(["euclidean", "cosine"]),
    precision=st.sampled_from(["float32", "float64"]),
    weighted=st.booleans(),
    k=st.integers(1, 12),
)
def test_partitions_and_engines_agree_on_every_bit(
    seed: int, kind: str, init: Any, metric: Any, precision: str, weighted: bool, k: int
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 200)), int(rng.integers(1, 9))
    X = adversarial(rng, n, d, kind)
    weights = rng.choice([0.0, 0.5, 1.0, 7.0], n) if weighted else None
    if weights is not None:
        weights[:k] = 1.0
    config = KMeansConfig(n_clusters=k, init=init, metric=metric, max_iter=6, seed=seed, rtol=0, allow_fewer=True)
    how: dict[str, Any] = {"weights": weights, "precision": precision, "on_bad_rows": "drop"}
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        whole = fit_bits(local, X, None, config, **how)
        assert fit_bits(local, X, random_sizes(rng, n, 5), config, **how) == whole
        assert fit_bits(hostile, X, random_sizes(rng, n, 7), config, **how) == whole


@pytest.mark.parametrize("weighted", [False, True])
def test_the_rounds_of_scalable_seeding_agree(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "SAMPLE_ROWS_LEAST", 100)  # otherwise small data is seeded in memory
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6)) + rng.integers(0, 5, (3000, 1)) * 4
    weights = rng.uniform(0, 2, 3000) if weighted else None
    config = KMeansConfig(n_clusters=20, max_iter=5, seed=11)
    with LocalEngine(2) as local, HostileEngine(3) as hostile:
        whole = fit_bits(local, X, None, config, weights=weights)
        assert fit_bits(local, X, random_sizes(rng, 3000, 9), config, weights=weights) == whole
        assert fit_bits(hostile, X, random_sizes(rng, 3000, 6), config, weights=weights) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_change_no_bit(kind: str, bounds_always: list[int]) -> None:
    rng = np.random.default_rng(3)
    X = adversarial(rng, 4000, 40, kind)
    settings_: dict[str, Any] = {"n_clusters": 70, "max_iter": 25, "seed": 1, "rtol": 0, "tol": 0, "allow_fewer": True}
    with LocalEngine(2) as local, HostileEngine(1) as hostile:
        plain = fit_bits(local, X, None, KMeansConfig(**settings_, algorithm="lloyd"))
        assert not bounds_always
        assert fit_bits(local, X, random_sizes(rng, 4000, 5), KMeansConfig(**settings_)) == plain
        assert bounds_always
        if kind != "outlier":  # it pulls the centre of centring away, so that float32 cannot tell the others apart
            assert sum(bounds_always) < len(bounds_always) * 4000 / 5 * 70
        assert fit_bits(hostile, X, random_sizes(rng, 4000, 5), KMeansConfig(**settings_)) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_after_samples_change_no_bit(
    kind: str, bounds_always: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progressive, "LEAST_SAMPLE", 500)
    rng = np.random.default_rng(4)
    X = adversarial(rng, 4000, 40, kind)
    settings_: dict[str, Any] = {"n_clusters": 70, "max_iter": 9, "seed": 1, "rtol": 0, "tol": 0, "allow_fewer": True}
    settings_["fit_mode"] = "progressive"
    with LocalEngine(2) as local, HostileEngine(1) as hostile:
        plain = fit_bits(local, X, None, KMeansConfig(**settings_, algorithm="lloyd"))
        assert not bounds_always
        assert fit_bits(local, X, random_sizes(rng, 4000, 5), KMeansConfig(**settings_)) == plain
        assert bounds_always
        assert fit_bits(hostile, X, random_sizes(rng, 4000, 5), KMeansConfig(**settings_)) == plain


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(["euclidean", "cosine"]),
    precision=st.sampled_from(["float32", "float64"]),
    weighted=st.booleans(),
    share=st.sampled_from([0.02, 0.3, 0.95, 1.0]),
)
def test_bounds_change_no_bit_whatever_the_number_of_clusters(
    seed: int, kind: str, metric: Any, precision: str, weighted: bool, share: float, bounds_always: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 200)), int(rng.integers(1, 40))
    X = adversarial(rng, n, d, kind)
    weights = rng.choice([0.5, 1.0, 7.0], n) if weighted else None
    settings_: dict[str, Any] = {
        "n_clusters": max(1, int(share * n)), "init": "random", "metric": metric, "max_iter": 8, "seed": seed,
        "rtol": 0, "tol": 0, "allow_fewer": True,
    }  # fmt: skip
    how: dict[str, Any] = {"weights": weights, "precision": precision, "on_bad_rows": "drop"}
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        plain = fit_bits(local, X, None, KMeansConfig(**settings_, algorithm="lloyd"), **how)
        assert fit_bits(local, X, None, KMeansConfig(**settings_), **how) == plain
        assert fit_bits(hostile, X, random_sizes(rng, n, 3), KMeansConfig(**settings_), **how) == plain


def test_progressive_fits_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive, "LEAST_SAMPLE", 100)
    rng = np.random.default_rng(5)
    X = rng.normal(size=(5000, 6)) + rng.integers(0, 9, (5000, 1)) * 3
    weights = rng.uniform(0, 2, 5000)
    config = KMeansConfig(n_clusters=15, fit_mode="progressive", seed=2)
    with LocalEngine(2) as local, HostileEngine(2) as hostile:
        whole = fit_bits(local, X, None, config, weights=weights)
        assert fit_bits(local, X, random_sizes(rng, 5000, 9), config, weights=weights) == whole
        assert fit_bits(hostile, X, random_sizes(rng, 5000, 6), config, weights=weights) == whole
        with prepared(local, X, weights=weights) as data:
            rows = [h.rows for h in fit_kmeans(local, data, config).history]
    assert rows[0] == 15 * progressive.ROWS_PER_CENTER
    assert len(set(rows)) == 3
    assert rows == sorted(rows)
    assert rows[-1] == 5000


def test_bounds_change_no_bit_of_progressive_fits(monkeypatch: pytest.MonkeyPatch, bounds_always: list[int]) -> None:
    monkeypatch.setattr(progressive, "LEAST_SAMPLE", 100)
    rng = np.random.default_rng(5)
    X = rng.normal(size=(3000, 6)) + rng.integers(0, 9, (3000, 1)) * 3
    weights = rng.uniform(0, 2, 3000)
    settings_: dict[str, Any] = {"n_clusters": 15, "fit_mode": "progressive", "seed": 2}
    with LocalEngine(2) as local, HostileEngine(2) as hostile:
        plain = fit_bits(local, X, None, KMeansConfig(**settings_, algorithm="lloyd"), weights=weights)
        assert not bounds_always
        assert fit_bits(local, X, None, KMeansConfig(**settings_), weights=weights) == plain
        assert bounds_always
        assert fit_bits(hostile, X, random_sizes(rng, 3000, 4), KMeansConfig(**settings_), weights=weights) == plain
