"""Mean and covariance of all rows, exact in any partitioning: one fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.linear import congruence
from distclust.ops.mixture import Mixture, grid_of, labelled
from distclust.ops.profile import PreparedData

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scatter:
    """Weighted moments of all rows, in the coordinates of the blocks.

    Attributes
    ----------
    mean : (d,) float64
    covariance : (d, d) float64
        Population covariance, exactly symmetric.
    """

    mean: Floats
    covariance: Floats

    @property
    def about_origin(self) -> Floats:
        """(d, d) mean of x x^T."""
        return self.covariance + np.outer(self.mean, self.mean)


@dataclass(frozen=True)
class _OneCluster:
    def labels(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        return np.zeros(block.n, np.int32)


def scatter_of(engine: Engine, data: PreparedData) -> Scatter:
    """Return mean and covariance of all rows.

    Sums are taken of columns in units of their standard deviations, in fixed point: equal bits however the rows are
    cut, and no column's scale costs another one digits.
    """
    variance = np.where(data.moments.variance > 0, data.moments.variance, 1.0)
    about = Mixture("full", np.ones(1), data.moments.mean[None], np.diag(variance)[None])
    grid = grid_of(data)
    sums = labelled(engine, data.pinned, about, grid, _OneCluster(), label="scatter").moments(grid)
    shift = sums.first[0] / sums.mass[0]
    row, column = np.triu_indices(data.width)
    inner = np.zeros((1, data.width, data.width))
    inner[0, row, column] = sums.second[0] / sums.mass[0] - shift[row] * shift[column]
    inner[0, column, row] = inner[0, row, column]
    mean = data.moments.mean + shift * about.roots[0].diagonal()
    return Scatter(mean, congruence(about.roots, inner)[0])
