"""Greedy k-means++ on rows in memory: scoring of trial centres (Arthur and Vassilvitskii, 2007)."""

from __future__ import annotations

import numpy as np

from distclust.kernels._jit import jit

CANCELLED = 2.0**-8
"""Share of ||x||^2 under which float32 products leave fewer than about 16 good bits of a squared distance."""


@jit
def trial_potentials(table, sqnorms, weights, current, potentials):
    """Sum w * min(current, squared distance to trial) for every trial, in row order.

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
    for j in range(t):
        potentials[j] = 0.0
    for i in range(m):
        square, weight, best = sqnorms[i], weights[i], current[i]
        for j in range(t):
            d = max(np.float64(table[i, j]) + square, 0.0)
            potentials[j] += weight * min(d, best)


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
