"""Principal axes and unit variances: exact distributed moments, and rows seen through them.

The moments are integer sums of one pass; the axes come from them on the driver. Rows are projected once, in float64,
when the node cache writes their blocks, so whatever runs on the projected rows knows nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.engines.protocol import Engine
from distclust.errors import UsageError
from distclust.kernels.eigen import symmetric_eigen
from distclust.kernels.nearest import project_rows
from distclust.ops.profile import PreparedData
from distclust.ops.scatter import scatter_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """What centred rows are multiplied by, and back.

    Attributes
    ----------
    scale : (d,) float64
        Columns are multiplied by it first: reciprocal standard deviations, or ones.
    vectors : (d, m) float64 or None
        Principal axes of the scaled columns, orthonormal; None for all columns as they are.
    stretch : (m,) float64
        Projected columns are multiplied by it: reciprocal standard deviations where they are whitened, or ones.
    explained : float
        Share of the variance that the axes keep; 1.0 without them.
    """

    scale: Floats
    vectors: Floats | None
    stretch: Floats
    explained: float

    @property
    def axes(self) -> Floats:
        """(d, m), or (d,) without principal axes: see `distclust.data.refs.BlockView`."""
        if self.vectors is None:
            return self.scale * self.stretch
        return np.ascontiguousarray(self.scale[:, None] * self.vectors * self.stretch)

    @property
    def n_components(self) -> int:
        """Columns of projected rows."""
        return len(self.stretch)

    def forward(self, rows: Floats) -> Floats:
        """Return centred rows projected."""
        wide = np.ascontiguousarray(rows, np.float64)
        return wide * self.axes if self.vectors is None else np.asarray(project_rows(wide, self.axes))

    def backward(self, rows: Floats) -> Floats:
        """Return the centred rows of least length, in units of `scale`, that projected ones are seen as."""
        narrow = np.ascontiguousarray(rows / self.stretch)
        wide = narrow if self.vectors is None else project_rows(narrow, np.ascontiguousarray(self.vectors.T))
        return np.asarray(wide / self.scale)


def projection_of(
    engine: Engine,
    data: PreparedData,
    *,
    zscore: bool = False,
    pca: int | float | None = None,
    whiten: bool = False,
) -> Projection:
    """Find principal axes of all rows: one pass with ``pca``, none without.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    zscore : bool, default=False
        Scale the columns to unit variance first; constant columns stay as they are.
    pca : int or float, optional
        Number of axes; or, below 1, the share of the variance that they have to keep.
    whiten : bool, default=False
        Scale the projected columns to unit variance.

    Raises
    ------
    UsageError
        ``pca`` is out of range.
    """
    d, variance = data.width, data.moments.variance
    scale = np.where(zscore & (variance > 0), 1.0 / np.sqrt(np.where(variance > 0, variance, 1.0)), 1.0)
    if pca is None:
        left = variance * scale**2
        stretch = 1.0 / np.sqrt(np.where(left > 0, left, 1.0)) if whiten else np.ones(d)
        return Projection(scale, None, stretch, 1.0)
    whole = not isinstance(pca, float)
    if (whole and not 1 <= pca <= d) or (not whole and not 0 < pca < 1):
        raise UsageError(
            f"pca == {pca!r}, must be a number of components, 1 to {d}, or a share of the variance between 0 and 1.",
            where=data.source.describe_place(),
        )
    values, vectors = principal_axes(scatter_of(engine, data).covariance * np.outer(scale, scale))
    total = np.cumsum(values)
    if not total[-1] > 0:
        values, total = np.ones(d), np.arange(1.0, d + 1)
    kept = total / total[-1]
    m = int(pca) if whole else int(np.searchsorted(kept, pca)) + 1
    stretch = 1.0 / np.sqrt(np.where(values[:m] > 0, values[:m], 1.0)) if whiten else np.ones(m)
    return Projection(scale, np.ascontiguousarray(vectors[:, :m]), stretch, float(kept[m - 1]))


def principal_axes(covariance: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues, descending and not negative, and eigenvectors, whose largest entry is positive."""
    values, vectors = symmetric_eigen(covariance)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]
