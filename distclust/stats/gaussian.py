"""What one pass over the rows of a Gaussian mixture leaves behind: masses, whitened moments, log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distclust.kernels.mixture import LEVEL_BITS, Grid, MixtureSums
from distclust.stats.codec import arrays_from_bytes, arrays_to_bytes
from distclust.stats.fixed import wrap

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GaussianStats:
    """Fixed-point sums over rows x of weight w with responsibilities r, in whitened coordinates y of each component.

    ``y = U^T (x - mean)``, where U and mean are those of the mixture that the pass was made with. Sums of one `Grid`
    only can be merged; they are integers, so any grouping of the rows gives the same bits.

    Attributes
    ----------
    n_rows : int
        Rows.
    mass : (k,) int64
        Sums of w r.
    first : (levels, k, d) int64
        Sums of w r y; level l in units of 2^(24 l) times that of the grid.
    second : (levels, k, p) int64
        Sums of w r y y^T: the upper triangle row by row, p = d (d + 1) / 2, or the diagonal alone, p = d.
    log_density : (levels,) int64
        Sum of w ln p(x).
    doubt : int
        Sum of -w ln max r, what a row's own component lacks of certainty.
    """

    exact: ClassVar[bool] = True

    n_rows: int
    mass: Ints
    first: Ints
    second: Ints
    log_density: Ints
    doubt: int

    @classmethod
    def of(cls, n_rows: int, sums: MixtureSums) -> GaussianStats:
        """Wrap what `distclust.kernels.mixture.mixture_sums` returned for ``n_rows`` rows."""
        return cls(n_rows, sums.mass, sums.first, sums.second, sums.log_density, sums.doubt)

    def merge(self, other: GaussianStats) -> GaussianStats:
        """Combine the statistics of two disjoint sets of rows."""
        return GaussianStats(
            self.n_rows + other.n_rows,
            self.mass + other.mass,
            _add_levels(self.first, other.first),
            _add_levels(self.second, other.second),
            self.log_density + other.log_density,
            wrap(self.doubt + other.doubt),
        )

    def moments(self, grid: Grid) -> GaussianMoments:
        """Undo the units."""
        mass_unit, unit = grid.mass_unit * grid.weight, grid.unit * grid.weight
        return GaussianMoments(
            self.n_rows,
            self.mass.astype(np.float64) * mass_unit,
            _real(self.first) * np.float64(unit),
            _real(self.second) * np.float64(unit),
            float(_real(self.log_density)) * unit,
            self.doubt * mass_unit,
        )

    def to_bytes(self) -> bytes:
        """Encode without pickle."""
        arrays = {"mass": self.mass, "first": self.first, "second": self.second, "log_density": self.log_density}
        scalars = {"n_rows": np.int64(self.n_rows), "doubt": np.int64(self.doubt)}
        return arrays_to_bytes("gaussian/1", {**arrays, **scalars})

    @classmethod
    def from_bytes(cls, data: bytes) -> GaussianStats:
        """Decode what `to_bytes` wrote."""
        found: dict[str, Any] = dict(arrays_from_bytes("gaussian/1", data))
        return cls(**{**found, "n_rows": int(found["n_rows"]), "doubt": int(found["doubt"])})


@dataclass(frozen=True)
class GaussianMoments:
    """The sums of `GaussianStats` as real numbers, under the same names."""

    n_rows: int
    mass: Floats
    first: Floats
    second: Floats
    log_density: float
    doubt: float


def _add_levels(a: Ints, b: Ints) -> Ints:
    if len(a) < len(b):
        a, b = b, a
    total = a.copy()
    total[: len(b)] += b
    return total


def _real(levels: Ints) -> Any:
    """Return the sum over levels; the coarsest, which may be the largest, last."""
    total = levels[0].astype(np.float64)
    for level in range(1, len(levels)):
        total = total + levels[level] * 2.0 ** (LEVEL_BITS * level)
    return total
