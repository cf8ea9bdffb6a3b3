"""Soft shares, candidates and next best places against naive twins; golden bits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distclust.kernels.transport import best_candidates, next_best, soft_sizes

NO_CANDIDATES = np.empty((0, 0), np.int32)


def shares(costs: np.ndarray, prices: np.ndarray, outside: float, sharpness: float) -> np.ndarray:
    values = np.concatenate([prices - costs.astype(np.longdouble), np.full((len(costs), 1), outside)], axis=1)
    powers = np.exp((values - values.max(axis=1, keepdims=True)) * sharpness)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sharpness", [1e-6, 0.1, 1.0, 300.0])
@pytest.mark.parametrize("outside", [-np.inf, -3.0])
def test_sizes_are_sums_of_softmax(sharpness: float, outside: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    costs, prices = (rng.random((80, 13)) * 10).astype(dtype), rng.normal(size=13)
    sizes = np.full(14, 7, np.int64)
    soft_sizes(costs, NO_CANDIDATES.reshape(0, 13), prices, outside, sharpness, 2.0**50, sizes)
    expected = shares(costs, prices, outside, sharpness).sum(axis=0)
    assert (sizes - 7) / 2.0**50 == pytest.approx(expected.astype(float), abs=1e-12)
    assert (sizes[-1] == 7) == (outside == -np.inf)


def test_candidates_take_all() -> None:
    rng = np.random.default_rng(1)
    costs, prices = rng.random((30, 4)), rng.normal(size=9)
    candidates = np.sort(rng.permuted(np.tile(np.arange(9), (30, 1)), axis=1)[:, :4], axis=1).astype(np.int32)
    sizes = np.zeros(10, np.int64)
    soft_sizes(costs, candidates, prices, -np.inf, 2.0, 2.0**40, sizes)
    full = np.full((30, 9), np.inf)
    np.put_along_axis(full, candidates.astype(np.int64), costs, axis=1)
    expected = shares(full, prices, -np.inf, 2.0).sum(axis=0)
    assert sizes / 2.0**40 == pytest.approx(expected.astype(float), abs=1e-9)


def test_a_share_has_the_same_bits_everywhere() -> None:
    # No normal variates and no exponential of numpy's: those are the machine's own.
    rng = np.random.default_rng(2)
    costs, prices = rng.random((500, 21)) * 40, rng.random(21)
    sizes = np.zeros(22, np.int64)
    soft_sizes(costs, NO_CANDIDATES.reshape(0, 21), prices, -8.0, 1.7, 2.0**51, sizes)
    golden = "81d0a1c59b692590245b9fa6d30eea09c7830c95f46b5303ff1cb8bb925e9274"
    assert hashlib.sha256(sizes.tobytes()).hexdigest() == golden


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("m", [1, 2, 7, 20])
def test_candidates_are_the_best_by_value_then_index(m: int, dtype: str) -> None:
    rng = np.random.default_rng(m)
    table = rng.integers(-4, 4, (60, 20)).astype(dtype)  # many ties
    prices, sqnorms = rng.integers(-3, 4, 20).astype(float), rng.integers(0, 9, 60).astype(float)
    candidates, costs = best_candidates(table, prices, sqnorms, m)
    for row in range(60):
        best = np.sort(np.lexsort((np.arange(20), table[row]))[:m])
        assert candidates[row].tolist() == best.tolist()
        assert costs[row].tolist() == np.maximum(table[row][best] + prices[best] + sqnorms[row], 0).tolist()
    assert costs.dtype == dtype
    with pytest.raises(ValueError, match="m is 21; 1 to the number of centres, 20"):
        best_candidates(table, prices, sqnorms, 21)


@pytest.mark.parametrize("closed", [False, True])
def test_next_best_places(closed: bool) -> None:
    rng = np.random.default_rng(3)
    n, k = 90, 6
    table = rng.integers(0, 9, (n, k)).astype(np.float32)
    outside = np.full(n, np.inf) if closed else rng.integers(0, 9, n).astype(float)
    own = rng.integers(0, k if closed else k + 1, n).astype(np.int32)
    inf = np.inf
    entry = np.array([inf, 2, inf, inf, 0, inf, inf if closed else 1])
    targets, regrets = next_best(table, outside, own, entry)
    whole = np.concatenate([table.astype(float), outside[:, None]], axis=1)
    for row in range(n):
        order = [j for j in np.lexsort((np.arange(k + 1), whole[row])) if j != own[row] and np.isfinite(whole[row, j])]
        free = sorted((whole[row, j] + entry[j], j) for j in order if np.isfinite(entry[j]))
        end = free[0][1]
        assert targets[row].tolist() == [order[0], order[1], end]
        assert regrets[row].tolist() == [whole[row, j] - whole[row, own[row]] for j in (order[0], order[1], end)]


def test_one_centre_has_no_next() -> None:
    targets, regrets = next_best(np.zeros((2, 1)), np.full(2, np.inf), np.zeros(2, np.int32), np.zeros(2))
    assert (targets == -1).all()
    assert (regrets == np.inf).all()
