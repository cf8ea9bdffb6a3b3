"""Rows summed by the leaves of a tree, and a sample of rows that does not depend on their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.content import hash_content
from distclust.kernels.lloyd import accumulate
from distclust.kernels.scatter import add_products
from distclust.ops.profile import PreparedData
from distclust.ops.tree import CenterTree
from distclust.stats.cells import CellStats
from distclust.stats.extremes import KeyedRows
from distclust.stats.fixed import SumScales, scale_for

QUARTERS = 4
"""Parts that rows are dealt into by their content: halves of the rows are pairs of them."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CellValue:
    """What a pass over the leaves shares.

    Attributes
    ----------
    tree : CenterTree
    grown_from : str
        Tag of the tree of the pass before.
    slots : (m,) int32
        Group of every node's rows; -1 for none.
    n_groups : int
    scales : SumScales
    product_scale : float
    """

    tree: CenterTree
    grown_from: str
    slots: npt.NDArray[np.int32]
    n_groups: int
    scales: SumScales
    product_scale: float


@dataclass(frozen=True)
class CellStep:
    """Sum rows and their products by leaf; by leaf and quarter, where rows are dealt."""

    quarters: bool = False

    def __call__(self, block: Block, value: CellValue, context: StepContext) -> CellStats:
        """Sum a block."""
        slots = value.slots[value.tree.leaves(block, context, value.grown_from)]
        n_groups = value.n_groups
        if self.quarters:
            quarter = (hash_content(block.x) >> np.uint64(62)).astype(np.int32)
            slots = np.where(slots < 0, -1, slots * QUARTERS + quarter).astype(np.int32)
            n_groups *= QUARTERS
        out = CellStats.zeros(n_groups, block.d)
        sums, scales = out.sums, value.scales
        accumulate(block.x, block.weights, slots, scales.columns, scales.mass, sums.sums, sums.mass, sums.counts)
        add_products(block.x, block.weights, slots, value.product_scale, out.high, out.low)
        return out


def product_scale_of(data: PreparedData) -> float:
    """Return the scale of sums of products: none is larger than the sum of squared lengths."""
    return scale_for(2.0 * data.moments.sum_squares)


def sum_cells(
    engine: Engine,
    data: PreparedData,
    tree: CenterTree,
    nodes: npt.NDArray[np.int32],
    *,
    grown_from: str = "",
    quarters: bool = False,
) -> CellStats:
    """Return the sums of the rows of some leaves: one fold.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    tree : CenterTree
    nodes : (g,) int32
        Leaves; group i are the rows of ``nodes[i]``.
    grown_from : str, optional
        See `CenterTree.leaves`.
    quarters : bool, default=False
        Deal the rows of each leaf into four groups by their content, 4 i ... 4 i + 3.
    """
    slots = np.full(len(tree), -1, np.int32)
    slots[nodes] = np.arange(len(nodes), dtype=np.int32)
    value = CellValue(tree, grown_from, slots, len(nodes), data.scales, product_scale_of(data))
    with engine.share(value) as shared:
        stats: CellStats = engine.fold(data.pinned, CellStep(quarters), CellStats.merge, shared, label="cells")
    return stats


@dataclass(frozen=True)
class ContentSampleStep:
    """The rows of lowest content hash."""

    limit: int

    def __call__(self, block: Block, value: None, context: StepContext) -> KeyedRows:
        """Take those of a block."""
        return KeyedRows.select(self.limit, hash_content(block.x), block.row_ids, block.x, block.weights)


def sample_by_content(engine: Engine, data: PreparedData, limit: int) -> Floats:
    """Return up to ``limit`` rows, the same whatever the order of the rows, float64; equal rows come together."""
    step = ContentSampleStep(limit)
    found: KeyedRows = engine.fold(data.pinned, step, KeyedRows.merge, label="sample")
    rows: Floats = found.rows.astype(np.float64)
    return rows
