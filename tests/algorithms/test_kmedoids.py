"""k-medoids over engines: as good as the optimum on small data, the same bits everywhere, checkpoints, refusals."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distclust.algorithms import kmedoids
from distclust.algorithms.kmedoids import KMedoidsResult, fit_kmedoids
from distclust.algorithms.kmedoids_config import KMedoidsConfig
from distclust.data.sources import open_source
from distclust.engines.events import Event, IterationEnded
from distclust.engines.local import LocalEngine
from distclust.engines.open import open_engine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops.measured import MeasuredData, measure_rows
from distclust.ops.profile import plan
from distclust.ops.stage import stage_memory
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import cut, random_sizes
from tests.algorithms.test_kmeans import Run

METHODS = ("fasterpam", "clara", "onebatch")


@pytest.fixture
def engine() -> Engine:
    with LocalEngine(2) as opened:
        yield opened


def measured(
    engine: Engine, X: np.ndarray, sizes: list[int] | None = None, weights: np.ndarray | None = None, **how: Any
) -> MeasuredData:
    source = open_source(X, weights=weights)
    return measure_rows(engine, source, cut(source, engine, sizes or [len(X)]), **{"metric": "euclidean", **how})


def blobs(n: int, k: int, d: int = 3, seed: int = 0, dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(k, d))[rng.integers(0, k, n)] * 6 + rng.normal(size=(n, d))).astype(dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_small_data_are_solved_to_the_optimum(engine: Engine, method: Any, weighted: bool, k: int) -> None:
    X = blobs(25, 3)
    weights = np.random.default_rng(1).choice([0.0, 1.0, 3.0], len(X)) if weighted else None
    D = cdist(X, X) * (1 if weights is None else weights[:, None])
    best = min(D[:, list(chosen)].min(axis=1).sum() for chosen in combinations(range(len(X)), k))
    config = KMedoidsConfig(n_clusters=k, method=method, rtol=0)
    found = min(
        (fit_kmedoids(engine, measured(engine, X, [10, 15], weights), config), config)[0].loss
        for config in (config, KMedoidsConfig(n_clusters=k, method=method, rtol=0, seed=1))
    )
    assert found == pytest.approx(best, rel=0.03)
    assert found >= best * (1 - 1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_medoids_are_rows_in_the_order_of_their_ids(engine: Engine, method: Any) -> None:
    X = blobs(600, 5)
    data = measured(engine, X, [100, 500])
    result = fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=5, method=method))
    assert np.array_equal(X[result.row_ids], result.rows)
    assert (np.diff(result.row_ids) > 0).all()
    assert result.loss == pytest.approx(cdist(X, result.rows).min(axis=1).sum(), rel=1e-12)
    assert result.loss == min(one.loss for one in result.candidates)
    assert 0 < result.silhouette < 1
    assert result.method.partition(",")[0] == method


def bits(engine: Engine, data: MeasuredData, config: KMedoidsConfig) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    result = fit_kmedoids(engine, data, config)
    history = [(h.iteration, h.inertia, h.moved) for h in result.history]
    return result.row_ids.tolist(), result.rows.tobytes(), result.loss, result.silhouette, history, result.candidates


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan", "cosine", "jaccard"])
@pytest.mark.parametrize("weighted", [False, True])
def test_partitions_and_engines_agree_on_every_bit(
    metric: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    X: np.ndarray = blobs(900, 6, dtype="float32")
    if metric == "jaccard":
        X = rng.integers(0, 256, (900, 3)).astype(np.uint8)
    weights = rng.choice([0.0, 0.5, 2.0], len(X)) if weighted else None
    monkeypatch.setattr(kmedoids, "SAMPLE_ROWS", 300)
    monkeypatch.setattr(kmedoids, "FIRST_CANDIDATES", 50)
    config = KMedoidsConfig(n_clusters=6, metric=metric, sample_size=40, batch_size=60, matrix_bytes=1, seed=3)
    with LocalEngine(2) as local, HostileEngine(4) as hostile:
        whole = bits(local, measured(local, X, weights=weights, metric=metric), config)
        for engine, parts in ((local, 4), (hostile, 9)):
            data = measured(engine, X, random_sizes(rng, len(X), parts), weights, metric=metric)
            assert bits(engine, data, config) == whole
        other = KMedoidsConfig(n_clusters=6, metric=metric, sample_size=40, batch_size=60, matrix_bytes=1, seed=4)
        assert bits(local, measured(local, X, weights=weights, metric=metric), other) != whole


def test_worker_processes_agree(tmp_path: Path) -> None:
    X = blobs(3000, 6, dtype="float32")
    config = KMedoidsConfig(n_clusters=6, batch_size=80, matrix_bytes=1)
    with LocalEngine(2) as local, open_engine("dask") as dask:
        whole = bits(local, measured(local, X), config)
        source = stage_memory(open_source(X), tmp_path)
        data = measure_rows(dask, source, plan(dask, source, least=4), metric="euclidean")
        assert bits(dask, data, config) == whole


def test_all_rows_are_candidates(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmedoids, "FIRST_CANDIDATES", 8)
    X = blobs(4000, 8)
    data = measured(engine, X, [1000] * 4)
    result = fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=8, method="onebatch"))
    matrix = fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=8, method="fasterpam"))
    sampled = fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=8, method="clara", sample_size=40))
    assert result.history[0].moved > 0, "the first pass finds what eight candidates do not have"
    assert result.loss <= 1.005 * matrix.loss
    assert result.loss < sampled.loss


def test_auto_takes_the_matrix_where_it_fits(engine: Engine) -> None:
    data = measured(engine, blobs(500, 3))
    assert fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=3)).method == "fasterpam"
    large = fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=3, matrix_bytes=8 * 500**2 - 1))
    assert {"clara", "onebatch"} <= {one.method for one in large.candidates}
    with pytest.raises(UsageError, match=r"500 rows with each other: 2000000 bytes, 1999999.*--matrix-bytes"):
        fit_kmedoids(engine, data, KMedoidsConfig(n_clusters=3, method="fasterpam", matrix_bytes=8 * 500**2 - 1))


def test_equal_rows_and_as_many_clusters_as_rows(engine: Engine) -> None:
    X = np.repeat(blobs(6, 2), 3, axis=0)
    for method in METHODS:
        result = fit_kmedoids(engine, measured(engine, X), KMedoidsConfig(n_clusters=6, method=method, rtol=0))
        assert len(set(result.row_ids.tolist())) == 6
        whole = fit_kmedoids(engine, measured(engine, X), KMedoidsConfig(n_clusters=18, method=method))
        assert whole.loss == 0
    with pytest.raises(DataError, match=r"n_samples=18 should be >= n_clusters=19.*at most 18"):
        fit_kmedoids(engine, measured(engine, X), KMedoidsConfig(n_clusters=19))


def test_a_cancelled_fit_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmedoids, "FIRST_CANDIDATES", 8)
    X = blobs(3000, 8)
    config = KMedoidsConfig(n_clusters=8, method="onebatch", rtol=0)
    with LocalEngine(2) as engine:
        whole = fit_kmedoids(engine, measured(engine, X), config)
    assert whole.n_iter >= 4
    seen = 0
    again: KMedoidsResult | None = None
    for stop_after in (1, 2, 1000):
        cancel = CancelToken()
        left = stop_after

        def emit(event: Event, cancel: CancelToken = cancel) -> None:
            nonlocal left, seen
            if isinstance(event, IterationEnded):
                left, seen = left - 1, seen + 1
                if left == 0:
                    cancel.cancel()

        with LocalEngine(2) as quiet, LocalEngine(2, EngineOptions(emit=emit, cancel=cancel)) as engine:
            data = measured(quiet, X)
            if stop_after == 1000:
                again = fit_kmedoids(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
            else:
                with pytest.raises(CancelledError):
                    fit_kmedoids(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
    assert again is not None
    assert seen == whole.n_iter == again.n_iter, "no pass was done twice"
    assert again.row_ids.tolist() == whole.row_ids.tolist()
    assert again.loss == whole.loss


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="n_clusters == 0, must be an integer of at least 1 or 'auto'"):
        KMedoidsConfig(n_clusters=0)
    with pytest.raises(UsageError, match="rtol == -1"):
        KMedoidsConfig(n_clusters=2, rtol=-1)
    with pytest.raises(UsageError, match=r"Unknown method 'onebach'.*Did you mean 'onebatch'"):
        KMedoidsConfig(n_clusters=2, method="onebach")  # type: ignore[arg-type]


def test_k_is_chosen_by_the_medoid_silhouette_of_all_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(7, 2))[rng.integers(0, 7, 3000)] * 40 + rng.normal(size=(3000, 2))
    config = KMedoidsConfig(n_clusters="auto", k_max=12, matrix_bytes=1, seed=2)
    with LocalEngine(2) as local, HostileEngine(2) as hostile:
        result = fit_kmedoids(local, measured(local, X), config, Run(tmp_path))
        assert [one.k for one in result.choices] == [7, *(k for k in range(2, 13) if k != 7)]
        assert len(result.row_ids) == 7
        assert result.silhouette > 0.8
        assert max(one.silhouette for one in result.choices) == result.choices[0].silhouette
        again = fit_kmedoids(hostile, measured(hostile, X, random_sizes(rng, 3000, 6)), config)
        assert (again.choices, again.row_ids.tolist()) == (result.choices, result.row_ids.tolist())
        resumed = fit_kmedoids(local, measured(local, X), config, Run(tmp_path))
        assert (resumed.choices, resumed.loss) == (result.choices, result.loss)
        with pytest.raises(DataError, match="needs two rows or more"):
            fit_kmedoids(local, measured(local, X[:1]), config)
