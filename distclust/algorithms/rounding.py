"""Whole rows into clusters of bounded sizes: what prices leave over is moved where that costs least.

Prices bring sizes near their bounds; the rows at the borders decide the rest. In a round every row names its next best
places. The driver then moves rows one at a time along the cheapest chain of clusters from one that has too many rows
to one that has room: successive shortest paths over clusters, by regret and, among equals, row id (Ahuja, Magnanti and
Orlin, *Network Flows*, 1993, chapter 9). A chain passes through full clusters, each of which gives up the row that
costs it least, so that no row has to cross the space between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.chains import move_along_chains
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import distance_table
from distclust.kernels.transport import next_best
from distclust.ops.prices import PricedCenters
from distclust.ops.profile import PreparedData
from distclust.stats.proposals import Proposals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]

TABLE_VALUES = 1 << 20
"""Values of a table of distances that a step holds at a time."""

MOST_PROPOSALS = 1 << 18
"""Of each kind that travel to the driver in a round: 6 MB."""

BUNDLE = 0.02
"""Rows move along the same chain as long as it costs no more than this much of the mean cost of a row above its first
use; beyond, the cheapest chain is looked for anew."""


def tiles(block: Block, n_clusters: int) -> Iterator[slice]:
    """Cut the rows of a block so that a table of their distances to all centres stays small."""
    rows = max(16, TABLE_VALUES // n_clusters)
    for start in range(0, block.n, rows):
        yield slice(start, min(start + rows, block.n))


@dataclass(frozen=True)
class PlaceCounts:
    """Rows in each place; the last one is no cluster."""

    exact: ClassVar[bool] = True

    counts: Ints

    def merge(self, other: PlaceCounts) -> PlaceCounts:
        """Combine the counts of two disjoint sets of rows."""
        return PlaceCounts(self.counts + other.counts)


@dataclass(frozen=True)
class CountStep:
    """Count the rows in each place."""

    def __call__(self, block: Block, rule: PricedCenters, context: StepContext) -> PlaceCounts:
        """Count the rows of a block."""
        places, _ = rule.places(block, context)
        return PlaceCounts(np.bincount(places, minlength=len(rule) + 1).astype(np.int64))


@dataclass(frozen=True)
class RoundValue:
    """What a round shares.

    Attributes
    ----------
    rule : PricedCenters
    supply : (k + 1,) int64
        Rows that each place can give up.
    room : (k + 1,) int64
        Rows that each place can take.
    need : int
        Rows to move in all.
    """

    rule: PricedCenters
    supply: Ints
    room: Ints
    need: int


@dataclass(frozen=True)
class RoundStats:
    """Proposals of rows to move to their next best places, and directly to a place with room."""

    exact: ClassVar[bool] = True

    near: Proposals
    direct: Proposals

    def merge(self, other: RoundStats) -> RoundStats:
        """Combine the proposals of two disjoint sets of rows."""
        return RoundStats(self.near.merge(other.near), self.direct.merge(other.direct))


@dataclass(frozen=True)
class RoundStep:
    """Collect the proposals of a block."""

    def __call__(self, block: Block, value: RoundValue, context: StepContext) -> RoundStats:
        """Collect the proposals of a block."""
        rule = value.rule
        places, named = rule.places(block, context)
        sqnorms = row_sqnorm(block.x)
        room = (value.room > 0).astype(np.uint8)
        targets, regrets = np.empty((block.n, 3), np.int32), np.empty((block.n, 3))
        for tile in tiles(block, len(rule)):
            table = distance_table(block.x[tile], rule.packed)
            targets[tile], regrets[tile] = next_best(table, rule.outside - sqnorms[tile], places[tile], room)
        # A row that was moved in an earlier round may only be moved on to where there is room. It may be better off
        # there; a chain takes that as free.
        np.maximum(regrets, 0.0, out=regrets)
        near = (targets >= 0) & ~named[:, None]
        near[:, 2] = False
        direct = (targets >= 0) & (value.supply[places] > 0)[:, None]
        direct[:, :2] = False

        def proposals(chosen: npt.NDArray[np.bool_]) -> Proposals:
            at, which = np.nonzero(chosen)
            ids, own = block.row_ids[at], places[at]
            return Proposals.select(MOST_PROPOSALS, value.need, regrets[at, which], ids, own, targets[at, which])

        return RoundStats(proposals(near), proposals(direct))


def count_places(engine: Engine, data: PreparedData, rule: PricedCenters) -> Ints:
    """Return the rows in each place; the last one is no cluster."""
    with engine.share(rule) as shared:
        found: PlaceCounts = engine.fold(data.pinned, CountStep(), PlaceCounts.merge, shared, label="balance: count")
    return found.counts


def repair_round(
    engine: Engine, data: PreparedData, rule: PricedCenters, sizes: Ints, bounds: tuple[Ints, Ints], step: float
) -> tuple[PricedCenters, Ints] | None:
    """Move rows until sizes are within bounds, or proposals run out; None where nothing is left to do.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    rule : PricedCenters
    sizes : (k + 1,) int64
        Rows in each place under the rule.
    bounds : tuple
        Least and most rows of each place.
    step : float
        Cost by which a chain may grow before another is looked for.

    Returns
    -------
    rule : PricedCenters
        With the rows that moved.
    sizes : (k + 1,) int64
        After the moves.
    """
    lowest, highest = bounds
    over, under = np.maximum(sizes - highest, 0), np.maximum(lowest - sizes, 0)
    if over.any():
        supply, room, need = over, np.maximum(highest - sizes, 0), int(over.sum())
    elif under.any():
        supply, room, need = np.maximum(sizes - lowest, 0), under, int(under.sum())
    else:
        return None
    with engine.share(RoundValue(rule, supply, room, need)) as shared:
        found: RoundStats = engine.fold(data.pinned, RoundStep(), RoundStats.merge, shared, label="balance: repair")
    moved, gained = _moves(found, supply, room, need, step)
    placed = dict(zip(rule.moved_ids.tolist(), rule.moved_to.tolist(), strict=True)) | moved
    ids = np.array(sorted(placed), np.int64)
    to = np.array([placed[row] for row in ids.tolist()], np.int32)
    return PricedCenters(rule.rows, rule.prices, rule.outside, ids, to), sizes + gained


def _moves(found: RoundStats, supply: Ints, room: Ints, need: int, step: float) -> tuple[dict[int, int], Ints]:
    """Return the rows that move and where to, and by how much the sizes change."""
    both = (found.near, found.direct)
    regrets, row_ids, sources, targets = (
        np.concatenate([getattr(part, name) for part in both]) for name in ("regrets", "row_ids", "sources", "targets")
    )
    order = np.lexsort((row_ids, regrets, targets, sources))
    ids, rows = np.unique(row_ids[order], return_inverse=True)
    moved_to = np.full(len(ids), -1, np.int32)
    left, free = supply.copy(), room.copy()
    move_along_chains(sources[order], targets[order], regrets[order], rows, left, free, need, step, moved_to)
    moved = np.flatnonzero(moved_to >= 0)
    gained = (room - free) - (supply - left)
    return dict(zip(ids[moved].tolist(), moved_to[moved].tolist(), strict=True)), gained
