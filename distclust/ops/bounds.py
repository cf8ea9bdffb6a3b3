"""Assignment with bounds that rows keep from pass to pass; the labels are those of `nearest_labels`."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.bounded import (
    MOST_DIMS,
    Bounds,
    QuickCenters,
    assign_bounded,
    bounds_bytes,
    first_bounds,
    level_falls,
    quick_centers,
)
from distclust.kernels.lloyd import row_sqdist
from distclust.ops.centers import CenterSet

Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

LEAST_CLUSTERS_BY_WIDTH = ((256, 32), (128, 64), (96, 128), (48, 256))
"""From how many clusters on bounds pay, by least dimensions; below 48 never. Twelve passes with bounds (making them
included) over twelve without, rows near a subspace, float32, one thread of an Emerald Rapids, 2026-11-23:

========== ==== ==== ==== ==== ==== ==== ====
dimensions k=32   64  128  256  500 1000 2000
========== ==== ==== ==== ==== ==== ==== ====
16                                  1.44
32                        1.08      0.66
48                             0.73
64                   1.02 0.75 0.59 0.47 0.53
96                        0.61
128             0.84 0.64 0.49 0.36
256             0.62 0.51
384        0.72 0.59 0.43
768        0.79 0.60
========== ==== ==== ==== ==== ==== ==== ====

``tests/bench/kmeans_passes.py`` prints the pass by pass figures of larger sets."""

MOST_MOVED = 0.25
"""Share of the rows that may still change cluster: about one in three do in a second pass, one in five in a third."""

LEVELS = 255
REACH = 1.0
"""Bounds tell distances apart up to so many times the root mean squared distance, above a row's nearest centre."""

MOST_BYTES_PER_VALUE = 16
"""Bounds take about n * k bytes; no more than so many for each of the n * d values of the rows."""


def bounds_pay(n_clusters: int, width: int, moved_share: float) -> bool:
    """Tell whether the next passes are cheaper with bounds."""
    least = min((k for d, k in LEAST_CLUSTERS_BY_WIDTH if width >= d), default=n_clusters + 1)
    possible = width <= MOST_DIMS and n_clusters <= MOST_BYTES_PER_VALUE * width
    return possible and n_clusters >= least and moved_share <= MOST_MOVED


def level_step(mean_sqdist: float) -> float:
    """Return the distance between two levels of bounds, from the mean squared distance of rows to their centres."""
    return REACH / LEVELS * max(float(np.sqrt(mean_sqdist)), 1e-30)


class BoundedPass:
    """Two passes' centres, made ready once per process.

    Parameters
    ----------
    step : float
        Distance between two levels of the bounds; the same from pass to pass.
    previous, centers : CenterSet
        Of the pass before (None in a first one), and of this one.
    """

    def __init__(self, step: float, previous: CenterSet | None, centers: CenterSet) -> None:
        self.step = step
        self.previous = previous
        self.centers = centers

    def __reduce__(self) -> tuple[type[BoundedPass], tuple[float, CenterSet | None, CenterSet]]:
        return BoundedPass, (self.step, self.previous, self.centers)

    @cached_property
    def quick(self) -> QuickCenters:
        """The centres of this pass, rounded; never travels."""
        return quick_centers(self.centers.rows)

    @cached_property
    def falls(self) -> npt.NDArray[np.uint8]:
        """How far the bounds of each centre fall."""
        assert self.previous is not None
        return level_falls(self.previous.rows, self.centers.rows, self.step)

    def assign(self, block: Block, old: Labels | None, context: StepContext) -> tuple[Labels, Floats]:
        """Return the nearest centre of every row, and the squared distance to it.

        Parameters
        ----------
        block : Block
        old : int32 [n] or None
            Labels under ``previous``; None in a first pass.
        context : StepContext
            Bounds are taken from and given to its state; without them all distances are computed.
        """
        state, tag = context.state, self.centers.tag
        known = state.get("labels", tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known, row_sqdist(block.x, self.centers.rows, known)
        bounds = self._take(block.n, context)
        if bounds is None or old is None:
            now = self.centers
            rounded = None if now.screened is None else now.rounded(block, context)
            labels, sqdist, bounds = first_bounds(block.x, now.rows, now.packed, self.step, now.screened, rounded)
        else:
            labels, sqdist, _ = assign_bounded(
                block.x, old, self.quick, self.falls, bounds, self.step, lambda: self.centers.packed
            )
        state.put("labels", tag, labels)
        state.give("bounds", self._tag(self.centers), bounds.data)
        return labels, sqdist

    def _take(self, n: int, context: StepContext) -> Bounds | None:
        data = None if self.previous is None else context.state.take("bounds", self._tag(self.previous))
        size = bounds_bytes(n, len(self.centers))
        if data is None or data.shape != (size,) or data.dtype != np.uint8:
            return None
        return Bounds(data, n, len(self.centers))

    def _tag(self, centers: CenterSet) -> str:
        return f"{centers.tag}-{self.step.hex()}"
