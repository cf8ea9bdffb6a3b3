"""Centres with prices as a rule for labels: a row goes where its squared distance less the price is lowest."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import PackedCenters, assign_nearest, pack_centers

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]


class PricedCenters:
    """k centres with prices, and rows that are placed by name.

    Parameters
    ----------
    rows : (k, d) float32 or float64
        In the coordinates of the blocks.
    prices : (k,) float64
        In squared distance.
    outside : float, default=inf
        A row whose lowest squared distance less price is above this belongs to no cluster.
    moved_ids : (p,) int64, ascending
        Rows that are placed otherwise.
    moved_to : (p,) int32
        Where they are; k for no cluster.

    Attributes
    ----------
    tag : str
        Digest of centres and prices: the name under which rows keep the places that these give them.
    """

    def __init__(
        self,
        rows: Rows,
        prices: Floats,
        outside: float = float("inf"),
        moved_ids: Ints | None = None,
        moved_to: Ints32 | None = None,
    ) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.prices = prices
        self.outside = outside
        self.moved_ids = np.empty(0, np.int64) if moved_ids is None else moved_ids
        self.moved_to = np.empty(0, np.int32) if moved_to is None else moved_to
        head = repr((self.rows.shape, outside)).encode()
        self.tag = hashlib.sha256(head + self.rows.tobytes() + prices.tobytes()).hexdigest()[:24]

    def __reduce__(self) -> tuple[type[PricedCenters], tuple[Rows, Floats, float, Ints, Ints32]]:
        return PricedCenters, (self.rows, self.prices, self.outside, self.moved_ids, self.moved_to)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def packed(self) -> PackedCenters:
        """The centres as the kernels want them, squared norms less prices; never travels."""
        packed = pack_centers(self.rows)
        norms = packed.norms.astype(np.float64)
        norms[: len(self)] -= self.prices
        return packed.with_norms(norms.astype(packed.norms.dtype))

    def priced(self, block: Block, context: StepContext) -> Ints32:
        """Return the place of every row by prices alone, k for no cluster; remembered as advisory state."""
        known = context.state.get("priced", self.tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        places, scores = assign_nearest(block.x, self.packed)
        if np.isfinite(self.outside):
            out = scores.astype(np.float64) + row_sqnorm(block.x) > self.outside
            places = np.where(out, np.int32(len(self)), places)
        context.state.put("priced", self.tag, places)
        return places

    def places(self, block: Block, context: StepContext) -> tuple[Ints32, npt.NDArray[np.bool_]]:
        """Return the place of every row, and which rows are placed by name."""
        priced = self.priced(block, context)
        if not len(self.moved_ids):
            return priced, np.zeros(block.n, bool)
        at = np.minimum(np.searchsorted(self.moved_ids, block.row_ids), len(self.moved_ids) - 1)
        named = self.moved_ids[at] == block.row_ids
        return np.where(named, self.moved_to[at], priced), named

    def labels(self, block: Block, context: StepContext) -> Ints32:
        """Return the cluster of every row; -1 for none."""
        places, _ = self.places(block, context)
        return np.where(places == len(self), np.int32(-1), places)
