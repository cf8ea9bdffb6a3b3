"""Greedy k-means++ on rows in memory: scoring of trial centres (Arthur and Vassilvitskii, 2007)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument
from distclust.kernels._emit import SIZES, address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import SUMS, make_lane_potentials, make_row_sqdist

CANCELLED = 2.0**-8
"""Share of ||x||^2 under which float32 products leave fewer than about 16 good bits of a squared distance."""


@jit
def trial_potentials(table, sqnorms, weights, current, potentials):
    """Sum w * min(current, squared distance to trial) for every trial, in `SUMS` sums that are added in order.

    Parameters
    ----------
    table : (m, t) float32 or float64
        ||c||^2 - 2 x.c of every row and trial.
    sqnorms : (m,) float64
        ||x||^2.
    weights : (m,) float64
    current : (m,) float64
        Squared distance to the nearest centre chosen so far.
    potentials : (t,) float64, written
    """
    m, t = table.shape
    sums = np.zeros((SUMS, t))
    for i in range(m):
        square, weight, best, lane = sqnorms[i], weights[i], current[i], i % SUMS
        for j in range(t):
            d = max(np.float64(table[i, j]) + square, 0.0)
            sums[lane, j] += weight * min(d, best)
    for j in range(t):
        potentials[j] = 0.0
        for lane in range(SUMS):
            potentials[j] += sums[lane, j]


@jit
def accept_trial(rows, table, sqnorms, center, trial, current):
    """Lower ``current`` to the squared distance to one trial of the table.

    Where the product form has cancelled (a distance far below the row's own length) the distance is taken again
    from the differences: a chosen row and its duplicates must come out at exactly zero.

    Parameters
    ----------
    rows : (m, d) float32 or float64
    table, sqnorms, current
        As in `trial_potentials`; ``current`` is updated.
    center : (d,)
        The accepted trial.
    trial : int
        Its column in the table.
    """
    for i in range(table.shape[0]):
        d = np.float64(table[i, trial]) + sqnorms[i]
        if d < CANCELLED * sqnorms[i]:
            d = 0.0
            for j in range(rows.shape[1]):
                t = np.float64(rows[i, j]) - np.float64(center[j])
                d += t * t
        current[i] = min(current[i], d)


def choose_by_table(
    rows: np.ndarray,
    products: np.ndarray,
    norms: np.ndarray,
    sqnorms: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    draws: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Choose rows by weighted greedy k-means++ where the products of all of them are known.

    Scores are those of `trial_potentials` and `accept_trial`, bit for bit.

    Parameters
    ----------
    rows : float32 or float64 [m, d]
    products : [m, m], dtype of rows
        ``-2 x.c``, symmetric, as `distance_table` gives it for centres without norms.
    norms : [m], dtype of rows
        Squared lengths as `pack_centers` gives them.
    sqnorms : float64 [m]
        Squared lengths as `row_sqnorm` gives them.
    weights : float64 [m]
    draws : float64 [k, t]
        See `choose_seeds`.

    Returns
    -------
    int64 [at most k]

    Examples
    --------
    >>> rows = np.array([[0.0], [0.0], [5.0]])
    >>> norms = (rows**2).sum(axis=1)
    >>> found = choose_by_table(rows, -2 * rows @ rows.T, norms, norms, np.ones(3), np.full((3, 2), 0.5))
    >>> sorted(found.tolist())
    [1, 2]
    """
    m = len(rows)
    rows = read_argument(rows, "rows", ("float32", "float64"), (None, None))
    chosen = np.empty(len(draws), np.int64)
    count = _choose_kernel(rows.dtype.name)(
        rows,
        read_argument(products, "products", rows.dtype.name, (m, m)),
        read_argument(norms, "norms", rows.dtype.name, (m,)),
        read_argument(sqnorms, "sqnorms", "float64", (m,)),
        read_argument(weights, "weights", "float64", (m,)),
        read_argument(draws, "draws", "float64", (None, None)),
        np.empty(m),
        np.empty(m),
        np.empty(draws.shape[1], np.int64),
        chosen,
    )
    return chosen[:count]


@once
def _choose_kernel(dtype: str) -> Any:
    lane_potentials = make_lane_potentials(dtype)

    @jit(name=f"potential_{dtype}")
    def potential(products, norm, sqnorms, weights, current, lanes):
        m = products.shape[0]
        whole = m - m % SUMS
        lane_potentials(
            address(products), norm, address(sqnorms), address(weights), address(current), whole, address(lanes)
        )
        for i in range(whole, m):
            sqdist = max(np.float64(products[i] + norm) + sqnorms[i], 0.0)
            lanes[i - whole] += weights[i] * min(sqdist, current[i])
        total = 0.0
        for lane in range(SUMS):
            total += lanes[lane]
        return total

    @jit(name=f"choose_by_table_{dtype}")
    def choose(rows, products, norms, sqnorms, weights, draws, current, mass, picks, chosen):
        m, d = rows.shape
        k, trials = draws.shape
        lanes = np.empty(SUMS)
        for number in range(k):
            total = 0.0
            for i in range(m):
                total += weights[i] if number == 0 else weights[i] * current[i]
                mass[i] = total
            if number > 0 and not total > 0.0:
                return number
            tried = 1 if number == 0 else trials
            for j in range(tried):
                picks[j] = min(np.searchsorted(mass, draws[number, j] * total, side="right"), m - 1)
            best, lowest = 0, np.inf
            if number > 0:
                for j in range(trials):
                    left = potential(products[picks[j]], norms[picks[j]], sqnorms, weights, current, lanes)
                    if left < lowest:
                        best, lowest = j, left
            pick = picks[best]
            chosen[number] = pick
            for i in range(m):
                sqdist = np.float64(products[pick, i] + norms[pick]) + sqnorms[i]
                if number == 0 or sqdist < CANCELLED * sqnorms[i]:
                    sqdist = 0.0
                    for j in range(d):
                        t = np.float64(rows[i, j]) - np.float64(rows[pick, j])
                        sqdist += t * t
                current[i] = sqdist if number == 0 else min(current[i], sqdist)
        return k

    return choose


def choose_seeds(
    rows: np.ndarray, weights: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Choose rows by weighted greedy k-means++ in one call: for few rows, where a call for each seed would cost most.

    Parameters
    ----------
    rows : float32 or float64 [m, d]
        Rows, m >= 1.
    weights : float64 [m]
        Not negative.
    draws : float64 [k, t]
        Uniform numbers in [0, 1): t trials for each of k seeds; of the first seed only the first is used.

    Returns
    -------
    int64 [at most k]
        Positions of the seeds in the order of choice. Fewer where fewer rows of positive weight are distinct. Squared
        distances are taken in float64 as in `lloyd.row_sqdist`, and added in row order.

    Examples
    --------
    >>> rows = np.array([[0.0], [0.0], [5.0]])
    >>> sorted(choose_seeds(rows, np.ones(3), np.full((3, 2), 0.5)).tolist())
    [1, 2]
    """
    rows = read_argument(rows, "rows", ("float32", "float64"), (None, None))
    chosen = np.empty(len(draws), np.int64)
    count = _seeds_kernel(rows.dtype.name)(
        rows,
        weights_argument(weights, len(rows)),
        read_argument(draws, "draws", "float64", (None, None)),
        np.full(len(rows), np.inf),
        np.empty((2, len(rows))),
        np.empty(len(rows)),
        chosen,
    )
    return chosen[:count]


@once
def _seeds_kernel(dtype: str) -> Any:
    sqdist_of_row = make_row_sqdist(dtype)
    size = SIZES[dtype]

    @jit(name=f"choose_seeds_{dtype}")
    def choose_seeds(rows, weights, draws, current, tried, mass, chosen):
        m, d = rows.shape
        k, trials = draws.shape
        row_bytes = d * size
        rows_at = address(rows)
        for number in range(k):
            total = 0.0
            for i in range(m):
                total += weights[i] if number == 0 else weights[i] * current[i]
                mass[i] = total
            if not total > 0.0:
                return number
            best, best_potential, kept = -1, np.inf, 0
            for t in range(1 if number == 0 else trials):
                pick = min(np.searchsorted(mass, draws[number, t] * total, side="right"), m - 1)
                into = 1 - kept if best >= 0 else 0
                potential = 0.0
                for i in range(m):
                    sqdist = sqdist_of_row(rows_at + i * row_bytes, rows_at + pick * row_bytes, d)
                    sqdist = min(sqdist, current[i])
                    tried[into, i] = sqdist
                    potential += weights[i] * sqdist
                if best < 0 or potential < best_potential:
                    best, best_potential, kept = pick, potential, into
            for i in range(m):
                current[i] = tried[kept, i]
            chosen[number] = best
        return k

    return choose_seeds
