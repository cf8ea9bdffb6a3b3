"""Rows shared out to centres at prices: soft shares and their totals, candidates, the next best choices.

Axis letters: n rows, k centres, m candidates of a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._jit import jit
from distclust.kernels.elementary import LN2_HIGH, LN2_LOW, LOG2_E, LOWEST, series

_FLOATS = ("float32", "float64")


def soft_sizes(
    costs: np.ndarray,
    candidates: npt.NDArray[np.int32],
    prices: npt.NDArray[np.float64],
    outside: float,
    sharpness: float,
    scale: float,
    sizes: npt.NDArray[np.int64],
) -> None:
    """Share out every row over its candidates by softmax, and add the shares to fixed-point totals, in place.

    A row's share of centre j is ``exp(sharpness * (prices[j] - cost))`` over the sum of these. The exponential is a
    fixed sequence of operations, so the bits are those of any machine.

    Parameters
    ----------
    costs : float32 or float64 [n, m]
        Of each row and candidate.
    candidates : int32 [n, m], or [0, m]
        Centres of the candidates; without rows, candidate j is centre j for every row.
    prices : float64 [k]
        What a centre pays.
    outside : float
        ``price - cost`` of belonging to no centre; minus infinity where that is not allowed.
    sharpness : float
        Inverse of the regularisation.
    scale : float
        Power of two; a term is ``rint(share * scale)``.
    sizes : int64 [k + 1]
        Totals of the terms; the last one is that of no centre.

    Examples
    --------
    >>> sizes = np.zeros(3, np.int64)
    >>> soft_sizes(np.array([[1.0, 1.0]]), np.empty((0, 2), np.int32), np.zeros(2), -np.inf, 1.0, 2.0**10, sizes)
    >>> sizes.tolist()
    [512, 512, 0]
    """
    costs = read_argument(costs, "costs", _FLOATS, (None, None))
    n, m = costs.shape
    prices = read_argument(prices, "prices", "float64", (None,))
    _soft_sizes(
        costs,
        read_argument(candidates, "candidates", "int32", (n if len(candidates) else 0, m)),
        prices,
        float(outside),
        float(sharpness),
        float(scale),
        np.empty(m + 1),
        np.empty(m + 1, np.int64),
        write_argument(sizes, "sizes", "int64", (len(prices) + 1,)),
    )


def best_candidates(
    table: np.ndarray, prices: npt.NDArray[np.float64], sqnorms: npt.NDArray[np.float64], m: int
) -> tuple[npt.NDArray[np.int32], np.ndarray]:
    """Return the m centres of lowest cost less price of every row, the lowest index first among equals.

    Parameters
    ----------
    table : float32 or float64 [n, k]
        ``||c||^2 - 2 x.c - price``.
    prices : float64 [k]
        That were subtracted.
    sqnorms : float64 [n]
        ``||x||^2``.
    m : int
        How many, 1 ... k.

    Returns
    -------
    candidates : int32 [n, m]
        In ascending order.
    costs : [n, m], dtype of table
        Squared distances, at least 0.

    Examples
    --------
    >>> table, prices = np.array([[3.0, -4.0, 2.0]]), np.array([0.0, 5.0, 0.0])
    >>> found, costs = best_candidates(table, prices, np.zeros(1), 2)
    >>> found.tolist(), costs.tolist()
    ([[1, 2]], [[1.0, 2.0]])
    """
    table = read_argument(table, "table", _FLOATS, (None, None))
    n, k = table.shape
    if not 1 <= m <= k:
        raise ValueError(f"m is {m}; 1 to the number of centres, {k}, is allowed.")
    candidates, costs = np.empty((n, m), np.int32), np.empty((n, m), table.dtype)
    # The m-th lowest value is the same however it is found; which of equal values come in is decided by index.
    thresholds = table.max(axis=1) if m == k else np.ascontiguousarray(np.partition(table, m - 1, axis=1)[:, m - 1])
    _gather_candidates(
        table,
        thresholds,
        read_argument(prices, "prices", "float64", (k,)),
        read_argument(sqnorms, "sqnorms", "float64", (n,)),
        candidates,
        costs,
    )
    return candidates, costs


def next_best(
    table: np.ndarray,
    outside: npt.NDArray[np.float64],
    own: npt.NDArray[np.int32],
    entry: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return where every row would go next, and what that adds to its cost.

    Parameters
    ----------
    table : float32 or float64 [n, k]
        Costs less prices; any constant may be missing from a row.
    outside : float64 [n]
        The same for belonging to no centre, which has number k; infinite where that is not allowed.
    own : int32 [n]
        Where the row is, 0 ... k.
    entry : float64 [k + 1]
        What it costs to end in a place, beside that; infinite where there is no room.

    Returns
    -------
    targets : int32 [n, 3]
        The best and the second best place but its own, and the best to end in but its own; -1 for none. The lowest
        number among equals.
    regrets : float64 [n, 3]
        Their costs less that of its own place, without entry; infinite where there is none.

    Examples
    --------
    >>> table, inf = np.array([[4.0, 1.0, 2.0, 8.0]]), np.inf
    >>> entry = np.array([inf, inf, inf, 0.0, inf])
    >>> targets, regrets = next_best(table, np.array([inf]), np.array([1], np.int32), entry)
    >>> targets.tolist(), regrets.tolist()
    ([[2, 0, 3]], [[1.0, 3.0, 7.0]])
    """
    table = read_argument(table, "table", _FLOATS, (None, None))
    n, k = table.shape
    targets, regrets = np.empty((n, 3), np.int32), np.empty((n, 3))
    _next_best(
        table,
        read_argument(outside, "outside", "float64", (n,)),
        read_argument(own, "own", "int32", (n,)),
        read_argument(entry, "entry", "float64", (k + 1,)),
        targets,
        regrets,
    )
    return targets, regrets


@jit
def _soft_sizes(costs, candidates, prices, outside, sharpness, scale, values, powers, sizes):
    n, m = costs.shape
    k = prices.shape[0]
    listed = candidates.shape[0] > 0
    two_to = powers.view(np.float64)
    for r in range(n):
        best = outside
        values[m] = outside
        for c in range(m):
            j = candidates[r, c] if listed else c
            value = prices[j] - np.float64(costs[r, c])
            values[c] = value
            best = max(best, value)
        for c in range(m + 1):
            x = max((values[c] - best) * sharpness, LOWEST)
            power = np.rint(x * LOG2_E)
            rest = (x - power * LN2_HIGH) - power * LN2_LOW
            powers[c] = (np.int64(power) + 1023) << 52
            values[c] = series(rest)
        for c in range(m + 1):
            values[c] *= two_to[c]
        mass = 0.0
        for c in range(m + 1):
            mass += values[c]
        for c in range(m):
            j = candidates[r, c] if listed else c
            sizes[j] += np.int64(np.rint(values[c] / mass * scale))
        sizes[k] += np.int64(np.rint(values[m] / mass * scale))


@jit
def _gather_candidates(table, thresholds, prices, sqnorms, candidates, costs):
    n, k = table.shape
    m = candidates.shape[1]
    for r in range(n):
        threshold = thresholds[r]
        below = 0
        for j in range(k):
            below += table[r, j] < threshold
        ties = m - below
        c = 0
        for j in range(k):
            value = table[r, j]
            if value > threshold or (value == threshold and ties == 0):
                continue
            ties -= value == threshold
            candidates[r, c] = j
            costs[r, c] = max(np.float64(value) + prices[j] + sqnorms[r], 0.0)
            c += 1


@jit
def _next_best(table, outside, own, entry, targets, regrets):
    n, k = table.shape
    for r in range(n):
        here = own[r]
        base = outside[r] if here == k else np.float64(table[r, here])
        first, second, free, ended = np.inf, np.inf, np.inf, np.inf
        first_at, second_at, free_at = -1, -1, -1
        for j in range(k + 1):
            value = outside[r] if j == k else np.float64(table[r, j])
            if j == here:
                continue
            if value < first:
                second, second_at = first, first_at
                first, first_at = value, j
            elif value < second:
                second, second_at = value, j
            if value + entry[j] < ended:
                ended = value + entry[j]
                free, free_at = value, j
        targets[r, 0], targets[r, 1], targets[r, 2] = first_at, second_at, free_at
        regrets[r, 0], regrets[r, 1], regrets[r, 2] = first - base, second - base, free - base
