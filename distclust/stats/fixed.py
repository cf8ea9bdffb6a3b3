"""Fixed-point scales: how sums of reals become sums of integers, which are exact in any order.

A term t is added as rint(t * 2^s). Integer addition wraps modulo 2^64, which is a group: whatever happens on the
way, the total is right as long as the total itself fits, so a scale is chosen from a bound of the total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

TOTAL_BITS = 60
"""Bits of a total: 63 less one for the rounding of the terms, one for a bound that was itself rounded, one to spare."""

TERM_BITS = 52
"""Bits of one term: a float64 product has 53, so more would store noise; also what converts fast to an integer."""

FRACTION_BITS = 28
"""Bits below the high word of a pair; 2^34 terms of 2^27 stay under 2^61."""


def scale_for(total_bound: float, term_bound: float | None = None) -> float:
    """Return the largest power of two at which a total of at most ``total_bound`` fits an int64.

    Parameters
    ----------
    total_bound : float
        Upper bound of |sum of terms|, over all rows of the dataset.
    term_bound : float, optional
        Upper bound of one |term|.

    Returns
    -------
    float
        2**s; 1.0 where nothing is to be summed.
    """
    if not (total_bound > 0 and math.isfinite(total_bound)):
        return 1.0
    bits = TOTAL_BITS - math.frexp(total_bound)[1]
    if term_bound is not None and term_bound > 0:
        bits = min(bits, TERM_BITS - math.frexp(term_bound)[1])
    return math.ldexp(1.0, max(-1000, min(1000, bits)))


def scales_for(
    total_bounds: npt.NDArray[np.float64], term_bounds: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Return `scale_for` of each column."""
    terms = [None] * len(total_bounds) if term_bounds is None else [float(t) for t in term_bounds]
    return np.array([scale_for(float(b), t) for b, t in zip(total_bounds, terms, strict=True)], dtype=np.float64)


def wrap(total: int) -> int:
    """Return ``total`` as the int64 that modular addition gives."""
    return (total + 2**63) % 2**64 - 2**63


@dataclass(frozen=True)
class FixedPair:
    """Totals of reals as two integers each: a high word and 28 bits below it.

    The pair keeps its precision where the scale had to be chosen for a bound far above the total
    (one outlier decides the bound, everything else the total).

    Attributes
    ----------
    high, low : int64 arrays of one shape
        Sums of rint(t * scale) and of the remainders times 2**28.
    scale : float
        A power of two.
    """

    high: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    scale: float

    @classmethod
    def zeros(cls, n: int, scale: float) -> FixedPair:
        """Return ``n`` totals of nothing."""
        return cls(np.zeros(n, np.int64), np.zeros(n, np.int64), scale)

    def merge(self, other: FixedPair) -> FixedPair:
        """Add totals element by element."""
        if self.scale != other.scale:
            raise ValueError("totals of different scales cannot be merged")
        return FixedPair(self.high + other.high, self.low + other.low, self.scale)

    def values(self) -> npt.NDArray[np.float64]:
        """Return the totals as float64, each rounded once or twice."""
        return (self.high.astype(np.float64) + self.low.astype(np.float64) / 2.0**FRACTION_BITS) / self.scale

    def total(self) -> float:
        """Return the exact sum of all totals, rounded once."""
        whole = sum(int(h) for h in self.high) << FRACTION_BITS
        return math.ldexp(whole + sum(int(v) for v in self.low), -FRACTION_BITS) / self.scale


@dataclass(frozen=True)
class SumScales:
    """The scales of one dataset, fixed after its moments are known and the same for every pass.

    Attributes
    ----------
    columns : (d,) float64
        For sums of w * x, by column: a column of huge values must not coarsen the others.
    mass : float
        For sums of w.
    """

    columns: npt.NDArray[np.float64] = field(repr=False)
    mass: float
