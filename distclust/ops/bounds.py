"""Assignment with bounds that rows keep from pass to pass; the labels are those of `nearest_labels`."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.state import RowState
from distclust.engines.protocol import StepContext
from distclust.kernels.bounded import (
    MOST_DIMS,
    Bounds,
    QuickCenters,
    QuickRows,
    assign_bounded,
    bounds_bytes,
    first_bounds,
    level_falls,
    quick_bytes,
    quick_centers,
    quick_rows,
)
from distclust.ops.centers import CenterSet

Labels = npt.NDArray[np.int32]

LEAST_CLUSTERS_BY_WIDTH = ((768, 32), (256, 64), (128, 128), (48, 256))
"""From how many clusters on bounds pay, by least dimensions; below 48 never. 25 passes with bounds (making them
included) over 25 without, processor time, 30 000 to 150 000 rows near a subspace, float32, a Xeon with AVX-512 VNNI,
2026-11-29:

========== ==== ==== ==== ==== ==== ==== ====
dimensions k=32   64  128  256  500 1000 2000
========== ==== ==== ==== ==== ==== ==== ====
32                        1.15 0.80 0.63 0.57
48                        0.85 0.73 0.64 0.56
64         2.34 1.13 0.96 0.86 0.77 0.61 0.52
96         1.92 1.09 0.95 0.87 0.80 0.64 0.48
128        1.65 1.01 0.91 0.81 0.70 0.54 0.45
256        1.26 0.95 0.85 0.73 0.61 0.49
384        1.03 0.90 0.84 0.69 0.59 0.47
768        0.89 0.85 0.79 0.70 0.60 0.47
========== ==== ==== ==== ==== ==== ==== ====

Rows of a mixture in all dimensions gain less: 0.96 at (256, 64), 0.95 at (128, 128), 1.00 at (48, 256), 1.08 at
(96, 128). ``tests/bench/kmeans_passes.py`` prints the pass by pass figures of larger sets."""

MOST_MOVED = 0.25
"""Share of the rows that may still change cluster: about one in three do in a second pass, one in five in a third."""

LEVELS = 255
REACH = 1.0
"""Bounds tell distances apart up to so many times the root mean squared distance, above a row's nearest centre."""

MOST_BYTES_PER_VALUE = 16
"""Bounds take about n * k bytes, and the rounded rows two for each of the n * d values; no more bounds than so many for
each of these."""


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

    def labels(self, block: Block, old: Labels | None, context: StepContext) -> Labels:
        """Return the nearest centre of every row.

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
            return known
        bounds = self._take_bounds(block, context)
        if bounds is None or old is None:
            now = self.centers
            rounded = None if now.screened is None else now.rounded(block, context)
            labels, bounds = first_bounds(block.x, now.rows, now.packed, self.step, now.screened, rounded)
        else:
            quick = _take_quick(block, context)
            labels, _ = assign_bounded(
                block.x, quick, old, self.quick, self.falls, bounds, self.step, lambda: self.centers.packed
            )
            context.state.whole.give("quick", str(block.n), quick.data)
        state.put("labels", tag, labels)
        state.give("bounds", self._tag(self.centers), bounds.data)
        return labels

    def _take_bounds(self, block: Block, context: StepContext) -> Bounds | None:
        n, k = block.n, len(self.centers)
        if self.previous is None:
            return None
        data = _take(context.state, "bounds", self._tag(self.previous), bounds_bytes(n, k))
        return None if data is None else Bounds(data, n, k)

    def _tag(self, centers: CenterSet) -> str:
        return f"{centers.tag}-{self.step.hex()}"


def _take(state: RowState, kind: str, tag: str, size: int) -> npt.NDArray[np.uint8] | None:
    """Take so many bytes from a state; None if it has others, or none."""
    data = state.take(kind, tag)
    return None if data is None or data.shape != (size,) or data.dtype != np.uint8 else data


def _take_quick(block: Block, context: StepContext) -> QuickRows:
    """Return the rows as they are compared with centres: from the state, where they stay whatever the centres."""
    data = _take(context.state.whole, "quick", str(block.n), quick_bytes(block.n, block.d))
    return quick_rows(block.x) if data is None else QuickRows(data, block.n, block.d)
