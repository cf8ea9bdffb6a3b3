"""Shape of the rows: the profile of the source, and exact first and second moments of the centred rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.stats.extremes import KeyedRows
from distclust.stats.fixed import FRACTION_BITS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BadRow:
    """One row that cannot be clustered: where it is and what is wrong with it."""

    where: str
    """File, row group, row in the file."""
    row_id: int
    found: str


@dataclass(frozen=True)
class ProfileStats:
    """What the source holds, before any transform.

    Attributes
    ----------
    n_rows : int
        Good rows.
    minimum, maximum : (d,) float64
        Over the good rows (of the unit rows, where rows are made unit).
    max_weight : float
        Largest weight; 1.0 without weights.
    n_bad : int
        Rows with NaN or infinity, and zero rows where rows are made unit.
    first_bad : BadRow or None
        The bad row of lowest row id.
    sample : KeyedRows
        First good rows by row hash, as float64, as stored in the source.
    """

    exact: ClassVar[bool] = True

    n_rows: int
    minimum: Floats
    maximum: Floats
    max_weight: float
    n_bad: int
    first_bad: BadRow | None
    sample: KeyedRows

    def merge(self, other: ProfileStats) -> ProfileStats:
        """Combine the profiles of two disjoint sets of rows."""
        bad = [b for b in (self.first_bad, other.first_bad) if b is not None]
        return ProfileStats(
            self.n_rows + other.n_rows,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            max(self.max_weight, other.max_weight),
            self.n_bad + other.n_bad,
            min(bad, key=lambda b: b.row_id) if bad else None,
            self.sample.merge(other.sample),
        )


@dataclass(frozen=True)
class MomentStats:
    """Exact column moments of the centred rows.

    Attributes
    ----------
    n_rows : int
    mass : int
        Fixed-point sum of the weights.
    sums, abs_sums : (d,) int64
        Fixed-point sums of w * x and w * |x|.
    squares_high, squares_low : (d,) int64
        Fixed-point pairs, sums of w * x^2.
    """

    exact: ClassVar[bool] = True

    n_rows: int
    mass: int
    sums: Ints
    abs_sums: Ints
    squares_high: Ints
    squares_low: Ints

    def merge(self, other: MomentStats) -> MomentStats:
        """Combine the moments of two disjoint sets of rows."""
        return MomentStats(
            self.n_rows + other.n_rows,
            self.mass + other.mass,
            self.sums + other.sums,
            self.abs_sums + other.abs_sums,
            self.squares_high + other.squares_high,
            self.squares_low + other.squares_low,
        )


@dataclass(frozen=True)
class Moments:
    """Moments as real numbers.

    Attributes
    ----------
    n_rows : int
    mass : float
        Sum of the weights.
    mean : (d,) float64
        Weighted mean of the centred rows.
    variance : (d,) float64
        Weighted population variance.
    abs_sums : (d,) float64
        Sums of w * |x|: the bound of every cluster's sum.
    sum_squares : float
        Sum of w * ||x||^2 of the centred rows.
    """

    n_rows: int
    mass: float
    mean: Floats
    variance: Floats
    abs_sums: Floats
    sum_squares: float

    @classmethod
    def from_stats(cls, stats: MomentStats, scales: Floats, square_scales: Floats, mass_scale: float) -> Moments:
        """Undo the fixed-point scales."""
        mass = stats.mass / mass_scale
        squares = (stats.squares_high.astype(float) + stats.squares_low.astype(float) / 2.0**FRACTION_BITS) / (
            square_scales
        )
        mean = stats.sums.astype(float) / scales / mass
        variance = np.maximum(squares / mass - mean**2, 0.0)
        return cls(
            stats.n_rows, mass, mean, variance, stats.abs_sums.astype(float) / scales, float(np.cumsum(squares)[-1])
        )
