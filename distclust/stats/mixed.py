"""What columns of numbers and categories hold: extent, sorted categories, missing values; exact in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.stats.moments import BadRow

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MixedStats:
    """A profile of columns.

    Attributes
    ----------
    n_rows : int
        Good rows: at least one value, no infinity.
    minimum, maximum : (d,) float64
        Over the numbers of the good rows; infinite for columns of categories and for columns without any number.
    missing : (d,) int64
        Good rows without a value.
    categories : tuple
        For each column its distinct categories in sorted order, None for a column of numbers.
    max_weight : float
        Largest weight; 1.0 without weights.
    n_bad : int
    first_bad : BadRow or None
        The bad row of lowest row id.
    """

    exact: ClassVar[bool] = True

    n_rows: int
    minimum: Floats
    maximum: Floats
    missing: npt.NDArray[np.int64]
    categories: tuple[tuple[str, ...] | None, ...]
    max_weight: float
    n_bad: int
    first_bad: BadRow | None

    def merge(self, other: MixedStats) -> MixedStats:
        """Combine the profiles of two disjoint sets of rows."""
        bad = [b for b in (self.first_bad, other.first_bad) if b is not None]
        return MixedStats(
            self.n_rows + other.n_rows,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.missing + other.missing,
            tuple(_union(a, b) for a, b in zip(self.categories, other.categories, strict=True)),
            max(self.max_weight, other.max_weight),
            self.n_bad + other.n_bad,
            min(bad, key=lambda b: b.row_id) if bad else None,
        )


def _union(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if a is None or b is None or a == b:
        return a
    return tuple(sorted({*a, *b}))
