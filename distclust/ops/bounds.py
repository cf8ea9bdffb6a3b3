"""Assignment with bounds that rows keep from pass to pass; the labels are those of `nearest_labels`."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.bounded import (
    GroupedCenters,
    assign_bounded,
    bounds_shape,
    empty_bounds,
    group_centers,
    group_order,
    longest_moves,
)
from distclust.kernels.lloyd import row_sqdist, row_sqnorm
from distclust.ops.centers import CenterSet

LEAST_CLUSTERS = 64
LEAST_WIDTH = 32
MOST_MOVED = 0.15
"""Share of the rows that may still change cluster. Bounds cost about one more pass to build and are worthless while
centres move far; measured on minipile (64 900 x 384, k = 1000) and on 200 000 x 128, k = 1000."""

PANEL = 16
"""Centres that share a bound (8 under float64, as many as a vector of the kernels holds)."""

MOST_BOUNDS_PER_VALUE = 2
"""Bounds take n * k / 16 values; no more than so many times the n * d of the rows."""


class Grouping:
    """How centres are grouped, the same from pass to pass so that bounds stay what they are.

    Parameters
    ----------
    order : int32 [k]
        See `distclust.kernels.bounded.group_order`.
    """

    def __init__(self, order: npt.NDArray[np.int32]) -> None:
        self.order = order
        self.tag = hashlib.sha256(order.tobytes()).hexdigest()[:12]

    @classmethod
    def of(cls, centers: CenterSet) -> Grouping:
        """Group centres that are near each other."""
        return cls(group_order(centers.rows))


def bounds_pay(n_clusters: int, width: int, moved_share: float) -> bool:
    """Tell whether the next passes are cheaper with bounds."""
    return (
        n_clusters >= LEAST_CLUSTERS
        and width >= LEAST_WIDTH
        and n_clusters / PANEL <= MOST_BOUNDS_PER_VALUE * width
        and moved_share <= MOST_MOVED
    )


class BoundedPass:
    """Two passes' centres under one grouping, packed once per process.

    Parameters
    ----------
    grouping : Grouping
    previous, centers : CenterSet
        Of the pass before, and of this one.
    """

    def __init__(self, grouping: Grouping, previous: CenterSet, centers: CenterSet) -> None:
        self.grouping = grouping
        self.previous = previous
        self.centers = centers

    def __reduce__(self) -> tuple[type[BoundedPass], tuple[Grouping, CenterSet, CenterSet]]:
        return BoundedPass, (self.grouping, self.previous, self.centers)

    @cached_property
    def grouped(self) -> GroupedCenters:
        """The centres of this pass, packed; never travels."""
        return group_centers(self.centers.rows, self.grouping.order)

    @cached_property
    def moves(self) -> npt.NDArray[np.float32]:
        """The longest move in each group."""
        return longest_moves(self.previous.rows, self.centers.rows, self.grouping.order)

    def labels(self, block: Block, old: npt.NDArray[np.int32], context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row.

        Parameters
        ----------
        block : Block
        old : int32 [n]
            Labels under ``previous``.
        context : StepContext
            Bounds are taken from and given to its state; without them all distances are computed.
        """
        state, tag = context.state, self.centers.tag
        known = state.get("labels", tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        bounds = state.take("bounds", f"{self.previous.tag}-{self.grouping.tag}")
        if bounds is None or bounds.shape != bounds_shape(block.n, self.grouped) or bounds.dtype != np.float32:
            bounds = empty_bounds(block.n, self.grouped)
        near = row_sqdist(block.x, self.centers.rows, old)
        labels, _ = assign_bounded(block.x, row_sqnorm(block.x), near, old, self.grouped, self.moves, bounds)
        state.put("labels", tag, labels)
        state.give("bounds", f"{tag}-{self.grouping.tag}", bounds)
        return labels
