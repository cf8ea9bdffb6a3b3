"""Exact totals of a block: one number a row, weighted, as two integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels.lloyd import fixed_sums
from distclust.stats.fixed import FixedPair


def weighted_total(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None, scale: float) -> FixedPair:
    """Return the total of ``w * value``.

    Parameters
    ----------
    values : float64 [n]
        Not negative.
    weights : float64 [n] or None
        None for 1.
    scale : float
        See `distclust.stats.fixed.scale_for`.

    Examples
    --------
    >>> weighted_total(np.array([0.5, 2.0]), np.array([2.0, 1.0]), 4.0).total()
    3.0
    """
    out = FixedPair.zeros(1, scale)
    fixed_sums(values, weights, np.zeros(len(values), np.int32), out.scale, out.high, out.low)
    return out
