"""Kernels of PPP against numpy: cells, products by group, content hashes, rows between means."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.cells import expected_distances, weighted_means, weighted_scatter
from distclust.kernels.content import hash_content
from distclust.kernels.linear import cholesky_upper, inverse_upper
from distclust.kernels.lloyd import LOW_PART
from distclust.kernels.pairs import MARGIN, count_between, count_columns
from distclust.kernels.scatter import add_products


@pytest.mark.parametrize(("c", "k", "d"), [(1, 1, 1), (7, 3, 2), (40, 5, 9)])
def test_cells_against_their_rows(c: int, k: int, d: int) -> None:
    rng = np.random.default_rng(c)
    rows = rng.normal(size=(c, 12, d)) + rng.normal(size=(c, 1, d)) * 5
    means = rows.mean(axis=1)
    spreads = np.einsum("cri,crj->cij", rows - means[:, None], rows - means[:, None]) / 12
    centers = rng.normal(size=(k, d))
    a = rng.normal(size=(k, d, d))
    covariances = a @ np.swapaxes(a, 1, 2) + np.eye(d)
    factors = inverse_upper(cholesky_upper(covariances)[0])
    found = expected_distances(means, spreads, centers, factors)
    for j in range(k):
        off = rows - centers[j]
        distances = np.einsum("cri,ij,crj->cr", off, np.linalg.inv(covariances[j]), off)
        assert found[:, j] == pytest.approx(distances.mean(axis=1))
    shares = rng.uniform(size=(c, k))
    mass, middles = weighted_means(shares, means)
    assert mass == pytest.approx(shares.sum(axis=0))
    assert middles * mass[:, None] == pytest.approx(shares.T @ means)
    wanted = [sum(s * (o.T @ o) / 12 for s, o in zip(shares[:, j], rows - centers[j], strict=True)) for j in range(k)]
    assert weighted_scatter(shares, means, spreads, centers) == pytest.approx(np.array(wanted))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
def test_products_by_group(dtype: str, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 4)).astype(dtype)
    weights = rng.uniform(size=200) if weighted else None
    slots = rng.integers(-1, 3, 200).astype(np.int32)
    hi, lo = np.zeros((3, 10), np.int64), np.zeros((3, 10), np.int64)
    add_products(x, weights, slots, 2.0**20, hi, lo)
    again_hi, again_lo = np.zeros_like(hi), np.zeros_like(lo)
    order = rng.permutation(200)
    for part in np.array_split(order, 3):
        add_products(x[part], None if weights is None else weights[part], slots[part], 2.0**20, again_hi, again_lo)
    assert np.array_equal(hi, again_hi)
    assert np.array_equal(lo, again_lo)
    w = np.ones(200) if weights is None else weights
    for slot in range(3):
        wanted = (x.astype(float).T * (w * (slots == slot))) @ x.astype(float)
        assert (hi[slot] + lo[slot] / LOW_PART) / 2.0**20 == pytest.approx(wanted[np.triu_indices(4)], rel=1e-9)


def test_content_hashes_tell_rows_and_not_places_apart() -> None:
    x = np.random.default_rng(0).normal(size=(5000, 3))
    hashes = hash_content(x)
    assert len(np.unique(hashes)) == 5000
    assert np.array_equal(hash_content(x[::-1].copy()), hashes[::-1])
    assert np.bincount((hashes >> np.uint64(62)).astype(int)) == pytest.approx([1250] * 4, rel=0.1)
    assert np.array_equal(hash_content(np.array([[0.0]])), hash_content(np.array([[-0.0]])))
    assert len(np.unique(hash_content(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])))) == 3


def test_rows_between_means() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 3)) * 2
    labels = rng.integers(0, 3, 500).astype(np.int32)
    a = rng.normal(size=(3, 3))
    covariance = a @ a.T + np.eye(3)
    factor = inverse_upper(cholesky_upper(covariance[None])[0])[0]
    first, second = np.zeros(3), np.array([1.0, 2.0, 0.5])
    apart = factor.T @ (second - first)
    reach = float(np.linalg.norm(apart))
    direction = factor @ apart / reach
    windows, counts = np.zeros((1, 3), np.int64), np.zeros((1, 16), np.int64)
    places = np.array([[0.0, 0.45 * reach, reach, reach / 6]])
    members = np.array([[0, 2]], np.int32)
    count_between(x, labels, members, first[None], factor[None], direction[None], places, 1.5, windows, counts)
    y = (x - first) @ factor
    t = y @ apart / reach
    near = (y**2).sum(axis=1) - t**2 <= 1.5
    wanted = [(near & (np.abs(t - place) <= reach / 6)).sum() for place in places[0, :3]]
    assert windows[0].tolist() == wanted
    inside = np.clip(t[labels != 1], -MARGIN, reach + MARGIN)
    assert counts[0].tolist() == np.histogram(inside, 16, (-MARGIN, reach + MARGIN))[0].tolist()


def test_columns_by_cluster() -> None:
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(300, 2)), rng.integers(-1, 2, 300).astype(np.int32)
    counts = np.zeros((2, 2, 8), np.int64)
    count_columns(x, labels, np.full(2, -2.0), np.full(2, 2.0), counts)
    for j in range(2):
        for i in range(2):
            inside = np.clip(x[labels == j, i], -2, 2 - 1e-9)
            assert counts[j, i].tolist() == np.histogram(inside, 8, (-2, 2))[0].tolist()
