"""A sweep gives each k the bits of a run of its own, in the passes of the longest; the rule of the elbow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.sweep import KNEE_DEPTH, Candidate, fit_sweep, knee
from distclust.artifacts.checkpoint import Checkpoints
from distclust.data.storage import open_storage
from distclust.engines.events import Event, StageEnded, TaskEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops import bounds
from distclust.ops.assign import assign
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans_bits import KINDS, adversarial


def blobs(n: int = 4000, k: int = 9, d: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, d))[rng.integers(0, k, n)] * 20 + rng.normal(size=(n, d))


def bits(one: Candidate) -> tuple[Any, ...]:
    """Return what must not depend on the engine or the cut."""
    return (
        one.result.vectors.tobytes(),
        [(h.inertia, h.shift, h.moved, h.reassigned) for h in one.result.history],
        one.clusters.rows.tolist(),
        one.clusters.inertia.values().tobytes(),
        one.simplified_silhouette,
        one.calinski_harabasz,
    )


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    init=st.sampled_from(["k-means||", "k-means++", "random"]),
    metric=st.sampled_from(["euclidean", "cosine"]),
    weighted=st.booleans(),
    n_init=st.integers(1, 2),
    fit_mode=st.sampled_from(["full", "progressive"]),
)
def test_every_k_has_the_bits_of_a_run_of_its_own(
    seed: int, kind: str, init: Any, metric: Any, weighted: bool, n_init: int, fit_mode: Any
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 150)), int(rng.integers(1, 6))
    X = adversarial(rng, n, d, kind)
    how: dict[str, Any] = {"weights": rng.uniform(0.1, 3, n) if weighted else None, "metric": metric}
    how["on_bad_rows"] = "drop"
    settings: dict[str, Any] = {"init": init, "metric": metric, "n_init": n_init, "max_iter": 5, "seed": seed}
    settings["fit_mode"] = fit_mode
    ks = sorted(set(rng.integers(1, 14, 4).tolist()))
    configs = [KMeansConfig(n_clusters=k, rtol=0, allow_fewer=True, **settings) for k in ks]
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        with prepared(local, X, **how) as data:
            together = fit_sweep(local, data, configs)
            for one, config in zip(together, configs, strict=True):
                alone = fit_kmeans(local, data, config)
                assert one.result.vectors.tobytes() == alone.vectors.tobytes()
                assert one.result.n_iter == alone.n_iter
                stats = assign(local, data, alone.centers)
                assert one.clusters.rows.tolist() == stats.counts.tolist()
                assert one.inertia == stats.inertia.total()
        with prepared(hostile, X, random_sizes(rng, n, 6), **how) as data:
            assert [bits(one) for one in fit_sweep(hostile, data, configs)] == [bits(one) for one in together]


def test_bounds_of_each_k_are_its_own() -> None:
    X = np.random.default_rng(0).normal(size=(3000, 40))
    configs = [KMeansConfig(n_clusters=k, seed=1, rtol=0, max_iter=15) for k in (64, 80)]
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        together = fit_sweep(engine, data, configs)
        for one, config in zip(together, configs, strict=True):
            plain = fit_kmeans(engine, data, replace(config, algorithm="lloyd"))
            assert one.result.vectors.tobytes() == plain.vectors.tobytes()
            assert sum(h.moved < len(X) / 10 for h in plain.history) > 2, "or no bounds were kept"


def rows_read(events: list[Event]) -> int:
    return sum(event.rows for event in events if isinstance(event, TaskEnded))


def test_a_sweep_reads_the_rows_as_often_as_its_longest_k() -> None:
    X, ks = blobs(), [2, 5, 9, 20]
    configs = [KMeansConfig(n_clusters=k, seed=3) for k in ks]
    events: list[Event] = []
    with LocalEngine(2, EngineOptions(emit=events.append)) as engine, prepared(engine, X) as data:
        alone = []
        for config in configs:
            events.clear()
            fit_kmeans(engine, data, config)
            alone.append(rows_read(events))
        events.clear()
        fit_sweep(engine, data, configs)
    scores = 2 * len(X)
    assert rows_read(events) == max(alone) + scores
    assert max(alone) + scores < sum(alone) / 1.5, "or the test shows nothing"
    assert [event.stage for event in events if isinstance(event, StageEnded)] == ["sweep"]


class Run:
    """A place for checkpoints."""

    def __init__(self, directory: Path) -> None:
        self._storage = open_storage(directory)

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self._storage, name)


def test_a_cancelled_sweep_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    X = blobs()
    configs = [KMeansConfig(n_clusters=k, seed=2, rtol=0, tol=0, max_iter=8) for k in (3, 9, 25)]
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        whole = fit_sweep(engine, data, configs)
    passes: list[int] = []
    for stop_after in (2, 4, 1000):
        cancel, events = CancelToken(), list[Event]()

        def emit(event: Event, cancel: CancelToken = cancel, events: Any = events, last: int = stop_after) -> None:
            events.append(event)
            if sum(isinstance(e, TaskEnded) and "lloyd" in e.label for e in events) == last:
                cancel.cancel()

        with (
            LocalEngine(1) as plain,
            prepared(plain, X) as data,
            LocalEngine(1, EngineOptions(emit=emit, cancel=cancel)) as engine,
        ):
            if stop_after == 1000:
                again = fit_sweep(engine, data, configs, Run(tmp_path), checkpoint_seconds=3600)
            else:
                with pytest.raises(CancelledError):
                    fit_sweep(engine, data, configs, Run(tmp_path), checkpoint_seconds=3600)
        passes.append(sum(isinstance(e, TaskEnded) and "lloyd" in e.label for e in events))
    assert [bits(one) for one in again] == [bits(one) for one in whole]
    assert 0 < passes[-1] < max(one.result.n_iter for one in whole), "it began where it was stopped"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "kmeans-k25",
        "kmeans-k3",
        "kmeans-k9",
    ]


def test_too_many_clusters_for_the_rows_are_an_error_and_equal_k_too() -> None:
    with LocalEngine(2) as engine, prepared(engine, blobs(n=30)) as data:
        with pytest.raises(DataError, match="n_samples=30 should be >= n_clusters=31"):
            fit_sweep(engine, data, [KMeansConfig(n_clusters=k) for k in (2, 31)])
        with pytest.raises(UsageError, match=r"n_clusters are \[2, 2\]; they must be different"):
            fit_sweep(engine, data, [KMeansConfig(n_clusters=2)] * 2)


def test_scores_point_to_the_number_of_blobs() -> None:
    ks = [3, 6, 9, 12, 20]
    with LocalEngine(2) as engine, prepared(engine, blobs()) as data:
        found = fit_sweep(engine, data, [KMeansConfig(n_clusters=k) for k in ks])
    assert knee(ks, [one.inertia for one in found]) == 9
    assert max(found, key=lambda one: one.simplified_silhouette or 0).n_clusters == 9
    assert max(found, key=lambda one: one.calinski_harabasz or 0).n_clusters == 9


@pytest.mark.parametrize("d", [2, 8, 64])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_rows_without_clusters_have_no_knee(kind: str, d: int) -> None:
    rng, ks = np.random.default_rng(0), [5, 10, 20, 40, 80]
    X = rng.random((4000, d)) if kind == "uniform" else rng.normal(size=(4000, d))
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        found = fit_sweep(engine, data, [KMeansConfig(n_clusters=k, max_iter=20) for k in ks])
    assert knee(ks, [one.inertia for one in found]) is None


def test_limits_of_the_knee() -> None:
    assert knee([2, 4], [9.0, 1.0]) is None
    assert knee([2, 4, 8], [9.0, 1.0, 0.0]) is None, "at 0 every row is a centre"
    line = [100 * k**-0.5 for k in (2, 4, 8, 16)]
    assert knee([2, 4, 8, 16], line) is None
    line[2] *= np.exp(-1.01 * KNEE_DEPTH)
    assert knee([2, 4, 8, 16], line) == 8


def test_all_k_share_the_rows_that_bounds_need_rounded(
    bounds_always: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded: list[int] = []
    quick_rows = bounds.quick_rows
    monkeypatch.setattr(bounds, "quick_rows", lambda x: rounded.append(len(x)) or quick_rows(x))
    X = np.random.default_rng(0).normal(size=(4000, 40)).astype(np.float32)
    configs = [KMeansConfig(n_clusters=k, seed=1, fit_mode="full", rtol=0, max_iter=12) for k in (20, 30, 40)]
    with LocalEngine(2) as engine, prepared(engine, X, [1500, 2500]) as data:
        fit_sweep(engine, data, configs)
    assert len(bounds_always) >= 3 * 2 * 5
    assert sorted(rounded) == [1500, 2500]
