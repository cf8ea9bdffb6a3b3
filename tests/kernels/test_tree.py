"""Descent and splits against naive twins."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.lloyd import LOW_PART, accumulate, fixed_sums, row_sqdist
from distclust.kernels.tree import descend, split_rows

DTYPES = ("float32", "float64")


def random_tree(rng: np.random.Generator, m: int) -> np.ndarray:
    """A binary tree of 2m + 1 nodes, grown at random leaves; node 0 is the root."""
    children = np.full((2 * m + 1, 2), -1, np.int32)
    leaves = [0]
    for i in range(m):
        node = leaves.pop(int(rng.integers(len(leaves))))
        children[node] = (2 * i + 1, 2 * i + 2)
        leaves += [2 * i + 1, 2 * i + 2]
    return children


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "m"), [(0, 3, 2), (1, 1, 0), (60, 1, 5), (60, 17, 9), (33, 130, 3)])
def test_rows_go_to_the_nearer_child(n: int, d: int, m: int, dtype: str) -> None:
    rng = np.random.default_rng([n, d])
    children = random_tree(rng, m)
    centers = rng.integers(-3, 4, (len(children), d)).astype(dtype)  # whole numbers: ties occur and are exact
    x = rng.integers(-3, 4, (n, d)).astype(dtype)
    nodes = np.zeros(n, np.int32)
    descend(x, centers, children, nodes)
    for row, leaf in zip(x, nodes, strict=True):
        at = 0
        while children[at, 0] >= 0:
            first, second = ((row - centers[child]) @ (row - centers[child]) for child in children[at])
            at = children[at, 0] if first <= second else children[at, 1]
        assert at == leaf


def test_rows_go_on_from_where_they_are() -> None:
    rng = np.random.default_rng(0)
    children = random_tree(rng, 6)
    centers, x = rng.normal(size=(13, 4)), rng.normal(size=(50, 4))
    nodes, halfway = np.zeros(50, np.int32), np.zeros(50, np.int32)
    descend(x, centers, children, nodes)
    upper = children.copy()
    upper[children[0].max() :] = -1
    descend(x, centers, upper, halfway)
    descend(x, centers, children, halfway)
    assert np.array_equal(nodes, halfway)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_sides_are_summed_as_clusters_are(weighted: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    n, d, p = 90, 19, 4
    x, points = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(2 * p, d)).astype(dtype)
    points[1] = points[0]  # ties go to the first side
    weights = rng.random(n) if weighted else None
    slots = rng.integers(-1, p, n).astype(np.int32)
    widths = np.zeros(p)
    widths[3] = 5.0
    scales = np.full(d, 2.0**40)
    sums, mass, counts = np.zeros((2 * p, d), np.int64), np.zeros(2 * p, np.int64), np.zeros(2 * p, np.int64)
    hi, lo = np.zeros(2 * p, np.int64), np.zeros(2 * p, np.int64)
    split_rows(x, weights, slots, points, widths, scales, 2.0**30, 2.0**20, sums, mass, counts, hi, lo)

    first, second = (np.where(slots < 0, -1, 2 * slots + i).astype(np.int32) for i in (0, 1))
    to_first, to_second = row_sqdist(x, points, first), row_sqdist(x, points, second)
    looking = slots == 3
    side = np.where((to_second < to_first) & ~looking, second, first)
    along = np.clip((to_first - to_second) / 5.0, -1, 1)
    assert abs(along[looking]).max() == 1, "some are cut off"
    own = np.ones(n) if weights is None else weights
    twin = np.zeros_like(sums), np.zeros_like(mass), np.zeros_like(counts)
    accumulate(x, own * np.where(looking, along, 1.0), side, scales, 2.0**30, *twin)
    assert all(np.array_equal(a, b) for a, b in zip((sums, mass, counts), twin, strict=True))
    whole, rest = np.zeros_like(hi), np.zeros_like(lo)
    counted = np.where(looking, -1, side).astype(np.int32)
    fixed_sums(np.minimum(to_first, to_second), weights, counted, 2.0**20, whole, rest)
    assert np.array_equal(hi, whole)
    assert np.array_equal(lo, rest)
    assert abs(rest).max() <= LOW_PART * n
    assert counts[1] == 0


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="children is int32 of shape"):
        descend(np.zeros((2, 1)), np.zeros((3, 1)), np.zeros((2, 2), np.int32), np.zeros(2, np.int32))
