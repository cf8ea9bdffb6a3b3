"""Groups of rows by count, mass, mean and covariance: exact sums that merge, and what they say as real numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.stats.codec import arrays_from_bytes, arrays_to_bytes
from distclust.stats.fixed import FRACTION_BITS, SumScales
from distclust.stats.lloyd import ClusterSums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CellStats:
    """Fixed-point sums of rows and of their products, by group.

    Attributes
    ----------
    sums : ClusterSums of g entries
    high, low : (g, p) int64
        Sums of w x x^T, upper triangle row by row; two parts as in `FixedPair`.
    """

    exact: ClassVar[bool] = True

    sums: ClusterSums
    high: Ints
    low: Ints

    @classmethod
    def zeros(cls, n_groups: int, width: int) -> CellStats:
        """Return the sums of no rows."""
        pairs = (n_groups, width * (width + 1) // 2)
        return cls(ClusterSums.zeros(n_groups, width), np.zeros(pairs, np.int64), np.zeros(pairs, np.int64))

    def merge(self, other: CellStats) -> CellStats:
        """Combine the statistics of two disjoint sets of rows."""
        return CellStats(self.sums.merge(other.sums), self.high + other.high, self.low + other.low)

    def grouped(self, groups: Ints, n_groups: int) -> CellStats:
        """Add groups up: group i becomes part of ``groups[i]``, or of none where that is -1."""
        out = CellStats.zeros(n_groups, self.sums.sums.shape[1])
        kept = groups >= 0
        for total, part in (
            (out.sums.sums, self.sums.sums),
            (out.sums.mass, self.sums.mass),
            (out.sums.counts, self.sums.counts),
            (out.high, self.high),
            (out.low, self.low),
        ):
            np.add.at(total, groups[kept], part[kept])
        return out

    def to_bytes(self) -> bytes:
        """Encode without pickle."""
        arrays = {"sums": self.sums.sums, "mass": self.sums.mass, "counts": self.sums.counts}
        return arrays_to_bytes("cells/1", {**arrays, "high": self.high, "low": self.low})

    @classmethod
    def from_bytes(cls, data: bytes) -> CellStats:
        """Decode what `to_bytes` wrote."""
        a = arrays_from_bytes("cells/1", data)
        clusters = np.arange(len(a["mass"]), dtype=np.int64)
        return cls(ClusterSums(clusters, a["sums"], a["mass"], a["counts"]), a["high"], a["low"])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Cells:
    """Groups of rows as real numbers; those without mass have mean and covariance 0.

    Attributes
    ----------
    counts : (c,) int64
    mass : (c,) float64
    means : (c, d) float64
    spreads : (c, d, d) float64
        Covariances, as the population's.
    """

    counts: Ints
    mass: Floats
    means: Floats
    spreads: Floats

    @classmethod
    def of(cls, stats: CellStats, scales: SumScales, product_scale: float) -> Cells:
        """Undo the scales of sums."""
        mass = stats.sums.mass / scales.mass
        full = np.where(mass > 0, mass, 1.0)[:, None]
        means = stats.sums.sums / scales.columns / full
        means[mass == 0] = 0.0
        d = means.shape[1]
        products = (stats.high + stats.low / 2.0**FRACTION_BITS) / product_scale / full
        rows, columns = np.triu_indices(d)
        spreads = np.zeros((len(mass), d, d))
        spreads[:, rows, columns] = products - means[:, rows] * means[:, columns]
        spreads[:, columns, rows] = spreads[:, rows, columns]
        diagonal = np.arange(d)
        spreads[:, diagonal, diagonal] = np.maximum(spreads[:, diagonal, diagonal], 0.0)
        spreads[mass == 0] = 0.0
        return cls(stats.sums.counts, mass, means, spreads)

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def width(self) -> int:
        """Number of dimensions."""
        return self.means.shape[1]

    def take(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        """Return some of the cells."""
        return Cells(self.counts[chosen], self.mass[chosen], self.means[chosen], self.spreads[chosen])
