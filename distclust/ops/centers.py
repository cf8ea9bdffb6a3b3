"""Centres as a shared value: identified by their bits, packed for the kernels once per process."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.nearest import PackedCenters, pack_centers
from distclust.kernels.screened import ScreenedCenters, assign_labels, screen_centers

Rows = npt.NDArray[np.floating]


class LabelRule(Protocol):
    """How rows are given to clusters: a function of (rows, rule), picklable; row state is advisory as ever."""

    def labels(self, block: Block, context: StepContext, /) -> npt.NDArray[np.int32]:
        """Return the cluster of every row; -1 for none."""
        ...


class CenterSet:
    """Centres in the coordinates and the type of the blocks.

    Parameters
    ----------
    rows : (k, d) float32 or float64
        Centred (and, under cosine, unit) coordinates.

    Attributes
    ----------
    tag : str
        Digest of the bits: the name under which rows keep what they know about these centres.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.tag = hashlib.sha256(repr(self.rows.shape).encode() + self.rows.tobytes()).hexdigest()[:24]

    def __reduce__(self) -> tuple[type[CenterSet], tuple[Rows]]:
        return CenterSet, (self.rows,)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row."""
        return nearest_labels(block, self, context)

    @cached_property
    def packed(self) -> PackedCenters:
        """The centres as the kernels want them; never travels."""
        return pack_centers(self.rows)

    @cached_property
    def screened(self) -> ScreenedCenters | None:
        """The centres rounded to bytes, where that saves work; never travels."""
        return screen_centers(self.rows, self.packed)

    def nearest(self, x: Rows) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row, the lowest one among equals."""
        return assign_labels(x, self.packed, self.screened)


def nearest_labels(block: Block, centers: CenterSet, context: StepContext) -> npt.NDArray[np.int32]:
    """Return the nearest centre of every row; remembered as advisory state, so that asking again is free."""
    known = context.state.get("labels", centers.tag)
    if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
        return known
    labels = centers.nearest(block.x)
    context.state.put("labels", centers.tag, labels)
    return labels
