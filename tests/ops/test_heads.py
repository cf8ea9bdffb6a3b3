"""Axes for cheaper assignment: found where rows lie near a subspace, none where they do not, and never a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.data.block import Block
from distclust.data.cache import node_cache
from distclust.data.state import MemoryState
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels._machine import machine
from distclust.kernels.heads import HeadAxes, head_axes
from distclust.kernels.rounded import RoundedRows, round_rows
from distclust.ops import heads, rounded
from distclust.ops.centers import CenterSet
from distclust.ops.heads import best_size, find_head, principal_vectors
from tests.algorithms.rows import prepared


@pytest.fixture
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as opened:
        yield opened


def near_subspace(n: int, d: int, rank: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, rank))
    rows = centers[rng.integers(40, size=n)] + 0.5 * rng.normal(size=(n, rank))
    turn = np.linalg.qr(rng.normal(size=(d, rank)))[0]
    return (rows @ turn.T + noise * rng.normal(size=(n, d))).astype(np.float32)


def test_axes_are_those_of_the_singular_vectors() -> None:
    rows = near_subspace(900, 200, 20, 0.01).astype(np.float64)
    found = principal_vectors(rows, 48)
    exact = np.linalg.svd(rows, full_matrices=False)[2][:20].T
    assert found.T @ found == pytest.approx(np.eye(48), abs=1e-9)
    assert np.linalg.svd(exact.T @ found[:, :20])[1] == pytest.approx(1.0, abs=1e-3)


def test_fewer_axes_are_found_than_asked_for_where_the_rank_is_lower() -> None:
    rows = np.zeros((50, 200))
    rows[:, 3] = np.arange(50.0)
    rows[:, 7] = np.arange(50.0) % 7
    found = principal_vectors(rows, 48)
    assert found.shape[1] == 2
    assert found.T @ found == pytest.approx(np.eye(2), abs=1e-9)


def test_rows_without_a_subspace_get_no_axes() -> None:
    rng = np.random.default_rng(1)
    everywhere = rng.normal(size=(1500, 240))
    assert best_size(everywhere, principal_vectors(everywhere, 64), [48, 64], 1000) is None
    flat = near_subspace(1500, 240, 30, 0.01).astype(np.float64)
    assert best_size(flat, principal_vectors(flat, 64), [48, 64], 1000) == 48


def test_small_work_few_columns_and_float64_get_no_axes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    X = near_subspace(2500, 240, 30, 0.01)
    with prepared(engine, X, [2500]) as data:
        assert find_head(engine, data, 1000) is None, "too little work"
        monkeypatch.setattr(heads, "LEAST_WORK", 0.0)
        assert isinstance(find_head(engine, data, 1000), HeadAxes)
        monkeypatch.setattr(heads, "LEAST_WIDTH", 241)
        assert find_head(engine, data, 1000) is None, "too few columns"
    monkeypatch.setattr(heads, "LEAST_WIDTH", 1)
    with prepared(engine, X, [2500], precision="float64") as data:
        assert find_head(engine, data, 1000) is None, "float64"


def test_a_plain_fit_with_axes_has_the_bits_of_one_without(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    X = near_subspace(3000, 240, 30, 0.02)
    config = KMeansConfig(n_clusters=100, seed=3, max_iter=8, fit_mode="full")
    with prepared(engine, X, [1000, 2000]) as data:
        plain = fit_kmeans(engine, data, config)
        assert plain.centers.head is None
        monkeypatch.setattr(heads, "LEAST_WORK", 0.0)
        monkeypatch.setattr(heads, "WORTH_IT", 100.0)
        found = fit_kmeans(engine, data, config)
        lloyd = fit_kmeans(engine, data, replace(config, algorithm="lloyd"))
    assert found.centers.head is not None
    assert lloyd.centers.head is None, "plain Lloyd is plain"
    assert np.array_equal(found.vectors, plain.vectors)
    assert np.array_equal(lloyd.vectors, plain.vectors)
    assert [vars(entry) | {"seconds": 0} for entry in found.history] == [
        vars(entry) | {"seconds": 0} for entry in plain.history
    ]


def test_axes_are_part_of_a_progressive_fit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    X = near_subspace(6000, 240, 30, 0.02)
    config = KMeansConfig(n_clusters=256, seed=3, max_iter=12, fit_mode="progressive")
    with prepared(engine, X, [2000, 4000]) as data:
        without = fit_kmeans(engine, data, config)
        monkeypatch.setattr(heads, "LEAST_WORK", 0.0)
        monkeypatch.setattr(heads, "WORTH_IT", 100.0)
        found = fit_kmeans(engine, data, config)
        lloyd = fit_kmeans(engine, data, replace(config, algorithm="lloyd"))
    with prepared(engine, X) as data:
        whole = fit_kmeans(engine, data, config)
    assert found.centers.head is not None
    assert np.array_equal(lloyd.vectors, found.vectors)
    assert np.array_equal(whole.vectors, found.vectors)
    assert found.history[-1].inertia == pytest.approx(without.history[-1].inertia, rel=0.02)


def test_axes_change_no_label_and_rows_are_rounded_once_on_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(x: np.ndarray, head: HeadAxes | None = None, known: RoundedRows | None = None) -> RoundedRows:
        assert head is not None
        made.append(len(x))
        return round_rows(x, head, known)

    monkeypatch.setattr(rounded, "round_rows", counted)
    X = near_subspace(300, 80, 10, 0.02)
    head = head_axes(np.linalg.svd(X.astype(float), full_matrices=False)[2][:16].T)
    with prepared(engine, X, [300]) as data:
        ref, cache = data.pinned.refs[0], node_cache(engine.options.node)
        with cache.open(ref, data.view) as block:
            assert isinstance(block, Block)
            context = StepContext("test", 0, 0, MemoryState())
            for seed in range(3):
                centers = block.x[np.random.default_rng(seed).choice(300, 70, replace=False)]
                found = CenterSet(centers, head, again=True).nearest(block, context)
                assert np.array_equal(found, CenterSet(centers).nearest(block, context))
    assert made == [300] * bool(machine().byte_products)
