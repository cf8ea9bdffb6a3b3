"""The m nearest centres of every row, with exact distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.refs import Metric
from distclust.engines.protocol import Engine, Pinned, StepContext
from distclust.errors import UsageError
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.top import list_nearest
from distclust.ops.centers import CenterSet

Ints32 = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def check_top(top: int, n_clusters: int, what: str = "top") -> None:
    """Raise `UsageError` unless so many centres can be listed."""
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or not 1 <= top <= n_clusters:
        raise UsageError(
            f"{what} == {top!r}, must be an integer from 1 to the number of centres, {n_clusters}.",
            do="Ask for fewer, or use a model with more clusters.",
        )


def top_centers(block: Block, centers: CenterSet, top: int) -> tuple[Ints32, Floats]:
    """Return the nearest centres of every row of a block, and squared distances.

    They are chosen as labels are, so the first is the row's label; the others follow by exact squared distance, the
    lowest index first among equals.

    Returns
    -------
    indices : (n, top) int32
    sqdist : (n, top) float64
        From differences taken in float64, as for labels.
    """
    indices, _ = list_nearest(block.x, centers.packed, top)
    columns = [np.ascontiguousarray(indices[:, c]) for c in range(top)]
    sqdist = np.stack([row_sqdist(block.x, centers.rows, column) for column in columns], axis=1)
    order = np.zeros(indices.shape, np.intp)
    order[:, 1:] = np.lexsort((indices[:, 1:], sqdist[:, 1:]), axis=1) + 1
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(sqdist, order, axis=1)


@dataclass(frozen=True)
class NeighborsStep:
    """Nearest centres and distances of every row of a partition in input order; -1 and NaN for a dropped row."""

    top: int
    metric: Metric

    def __call__(self, block: Block, centers: CenterSet, context: StepContext) -> tuple[Floats, Ints32]:
        """List the centres of a block."""
        indices, sqdist = top_centers(block, centers, self.top)
        shape = (block.ref.n_rows, self.top)
        distances, out = np.full(shape, np.nan), np.full(shape, -1, np.int32)
        distances[block.positions] = sqdist / 2 if self.metric == "cosine" else np.sqrt(sqdist)
        out[block.positions] = indices
        return distances, out


def kneighbors(engine: Engine, pinned: Pinned, centers: CenterSet, top: int, metric: Metric) -> tuple[Floats, Ints32]:
    """Return distances to the nearest centres of all rows and the centres, in input order, on the driver."""
    with engine.share(centers) as shared:
        parts = engine.map(pinned, NeighborsStep(top, metric), shared, label="neighbors")
    return np.concatenate([distances for distances, _ in parts]), np.concatenate([found for _, found in parts])
