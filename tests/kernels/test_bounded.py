"""Bounded assignment gives the labels of the plain kernel, bit for bit, whatever the rows and however centres move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels.bounded import assign_bounded, empty_bounds, group_centers, group_order, longest_moves
from distclust.kernels.lloyd import row_sqdist, row_sqnorm
from distclust.kernels.nearest import assign_nearest, pack_centers

KINDS = ("plain", "clusters", "ties", "duplicates", "offset", "line", "tiny", "zeros")


def rows_of(kind: str, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return float64 rows that make trouble."""
    X = rng.normal(size=(n, d))
    if kind == "clusters":
        X = 0.1 * X + 3 * rng.normal(size=(12, d))[rng.integers(0, 12, n)]
    elif kind == "ties":
        X = rng.integers(-1, 2, (n, d)).astype(float)
    elif kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 5), n)]
    elif kind == "offset":
        X = X + 3e3
    elif kind == "line":
        X = np.outer(rng.normal(size=n), rng.normal(size=d))
    elif kind == "tiny":
        X = X * 1e-20
    elif kind == "zeros":
        X = np.zeros((n, d))
    return X


@settings(max_examples=150)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 11, 12, 13, 239, 240, 241, 700]),
    d=st.sampled_from([1, 2, 7, 33]),
    k=st.sampled_from([1, 2, 15, 16, 17, 40, 100]),
    dtype=st.sampled_from(["float32", "float64"]),
    step=st.sampled_from([0.0, 1e-6, 0.01, 0.5]),
)
def test_labels_are_those_of_the_plain_kernel_over_many_passes(
    kind: str, seed: int, n: int, d: int, k: int, dtype: str, step: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rows_of(kind, rng, n, d).astype(dtype)
    spread = float(np.abs(x).max(initial=1e-20))
    centers = rows_of(kind, rng, k, d).astype(dtype)
    order = group_order(centers)
    bounds = empty_bounds(n, group_centers(centers, order))
    labels, _ = assign_nearest(x, pack_centers(centers))
    previous = centers
    for _ in range(5):
        grouped = group_centers(centers, order)
        near = row_sqdist(x, centers, labels)
        found, tiles = assign_bounded(
            x, row_sqnorm(x), near, labels, grouped, longest_moves(previous, centers, order), bounds
        )
        expected, _ = assign_nearest(x, pack_centers(centers))
        assert np.array_equal(found, expected)
        assert tiles <= n * grouped.packed.panels.shape[0]
        labels, previous = found, centers
        centers = (centers + step * spread * rng.normal(size=centers.shape)).astype(dtype)


def test_bounds_are_below_every_distance() -> None:
    rng = np.random.default_rng(0)
    x = rows_of("clusters", rng, 500, 9).astype(np.float32)
    centers = rows_of("clusters", rng, 70, 9).astype(np.float32)
    order = group_order(centers)
    grouped = group_centers(centers, order)
    bounds = empty_bounds(500, grouped)
    labels = np.zeros(500, np.int32)
    still = np.zeros(grouped.packed.panels.shape[0], np.float32)
    for _ in range(3):
        labels, _ = assign_bounded(x, row_sqnorm(x), row_sqdist(x, centers, labels), labels, grouped, still, bounds)
        exact = np.sqrt(((x[:, None].astype(float) - centers[order][None]) ** 2).sum(-1))
        for p in range(len(still)):
            lowest = exact[:, 16 * p : 16 * p + 16].min(axis=1)
            assert (bounds[:, p].reshape(-1)[:500] <= lowest).all()


def test_far_groups_are_left_out() -> None:
    rng = np.random.default_rng(1)
    x = rows_of("clusters", rng, 2400, 16).astype(np.float32)
    centers = x[rng.choice(2400, 160, replace=False)]
    order = group_order(centers)
    grouped = group_centers(centers, order)
    bounds = empty_bounds(2400, grouped)
    still = np.zeros(grouped.packed.panels.shape[0], np.float32)
    labels, first = assign_bounded(
        x, row_sqnorm(x), np.full(2400, 1e9), np.zeros(2400, np.int32), grouped, still, bounds
    )
    _, second = assign_bounded(x, row_sqnorm(x), row_sqdist(x, centers, labels), labels, grouped, still, bounds)
    assert first == 2400 * len(still), "nothing is known yet"
    assert second < first / 3


def test_groups_hold_neighbours() -> None:
    rng = np.random.default_rng(2)
    blobs = np.repeat(10 * rng.normal(size=(8, 5)), 16, axis=0)
    centers = (blobs + 0.01 * rng.normal(size=blobs.shape)).astype(np.float32)
    mixed = rng.permutation(128)
    groups = mixed[group_order(centers[mixed])].reshape(8, 16) // 16
    assert (groups == groups[:, :1]).all()


@pytest.mark.parametrize("k", [1, 16, 33])
def test_an_order_holds_every_centre_once(k: int) -> None:
    assert sorted(group_order(np.zeros((k, 3), np.float32)).tolist()) == list(range(k))
