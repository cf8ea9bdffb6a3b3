"""Whole rows into clusters of bounded sizes: what prices leave over is moved where that costs least.

Prices bring sizes near their bounds; the rows at the borders decide the rest. In a round every row names its next best
places. The driver then moves rows one at a time along the cheapest chain of clusters from one that has too many rows
to one that has room: successive shortest paths over clusters, by regret and, among equals, row id (Ahuja, Magnanti and
Orlin, *Network Flows*, 1993, chapter 9). A chain passes through full clusters, each of which gives up the row that
costs it least, so that no row has to cross the space between them. Where sizes may vary, prices are no end in
themselves: chains that lower the cost without breaking a bound follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.chains import ChainEnds, move_along_chains
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
    supply : (k + 1,) bool
        Places that can give up rows.
    entry : (k + 1,) float64
        What it costs to end in a place; infinite without room.
    need : int
        Most rows to move.
    """

    rule: PricedCenters
    supply: npt.NDArray[np.bool_]
    entry: Floats
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
        targets, regrets = np.empty((block.n, 3), np.int32), np.empty((block.n, 3))
        for tile in tiles(block, len(rule)):
            table = distance_table(block.x[tile], rule.packed)
            targets[tile], regrets[tile] = next_best(table, rule.outside - sqnorms[tile], places[tile], value.entry)
        # A row that was moved in an earlier round may only be moved on to where there is room. It may be better off
        # there; a chain takes that as free.
        np.maximum(regrets, 0.0, out=regrets)
        near = (targets >= 0) & ~named[:, None]
        near[:, 2] = False
        direct = (targets >= 0) & value.supply[places][:, None]
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


@dataclass(frozen=True)
class Sizes:
    """Sizes of all places and their bounds; the last place is no cluster.

    Attributes
    ----------
    rows : (k + 1,) int64
    lowest, highest : (k + 1,) int64
    """

    rows: Ints
    lowest: Ints
    highest: Ints

    def ends(self, prices: Floats) -> tuple[ChainEnds, float] | None:
        """Return where the next chains begin and end, and what is to be taken from their costs; None without any.

        What is over goes first, then what is under is filled: the cheapest by regret, because prices say what room is
        scarce. When all sizes are within bounds, any chain may go that lowers the sum of squared distances. That is
        the sum of its regrets, plus the price of the place where it ends, less that of the place where it begins; the
        costs at the ends are made positive by a constant.
        """
        over, under = np.maximum(self.rows - self.highest, 0), np.maximum(self.lowest - self.rows, 0)
        surplus, space = np.maximum(self.rows - self.lowest, 0), np.maximum(self.highest - self.rows, 0)
        supply, room = (over, space) if over.any() else (surplus, under if under.any() else space)
        need = int(over.sum() or under.sum() or min(surplus.sum(), space.sum()))
        if not need:
            return None
        if not self.within:
            prices = np.zeros(len(prices))
        highest, lowest = float(prices[supply > 0].max()), float(prices[room > 0].min())
        leaving = np.where(supply > 0, highest - prices, np.inf)
        entry = np.where(room > 0, prices - lowest, np.inf)
        constant = highest - lowest
        return ChainEnds(supply, room, leaving, entry, need, constant if self.within else np.inf), constant

    @property
    def within(self) -> bool:
        """Whether all are within their bounds."""
        return bool(((self.rows >= self.lowest) & (self.rows <= self.highest)).all())


def repair_round(
    engine: Engine, data: PreparedData, rule: PricedCenters, sizes: Sizes, prices: Floats, step: float
) -> tuple[PricedCenters, Sizes, float] | None:
    """Move rows along chains until sizes are within bounds, or proposals run out; then, such as lower the cost.

    None where there is nothing to move.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    rule : PricedCenters
    sizes : Sizes
        Under the rule.
    prices : (k + 1,) float64
        Of all places.
    step : float
        Cost by which a chain may grow before another is looked for.

    Returns
    -------
    rule : PricedCenters
        With the rows that moved.
    sizes : Sizes
        After the moves.
    cost : float
        What the moves add to the sum of squared distances.
    """
    found_ends = sizes.ends(prices)
    if found_ends is None:
        return None
    ends, constant = found_ends
    with engine.share(RoundValue(rule, ends.supply > 0, ends.entry, ends.need)) as shared:
        found: RoundStats = engine.fold(data.pinned, RoundStep(), RoundStats.merge, shared, label="balance: repair")
    both = (found.near, found.direct)
    regrets, row_ids, sources, targets = (
        np.concatenate([getattr(part, name) for part in both]) for name in ("regrets", "row_ids", "sources", "targets")
    )
    order = np.lexsort((row_ids, regrets, targets, sources))
    ids, rows = np.unique(row_ids[order], return_inverse=True)
    moved_to = np.full(len(ids), -1, np.int32)
    left = ends._replace(supply=ends.supply.copy(), room=ends.room.copy())
    used, cost = move_along_chains(sources[order], targets[order], regrets[order], rows, left, step, moved_to)
    moved = np.flatnonzero(moved_to >= 0)
    placed = dict(zip(rule.moved_ids.tolist(), rule.moved_to.tolist(), strict=True))
    placed |= dict(zip(ids[moved].tolist(), moved_to[moved].tolist(), strict=True))
    named = np.array(sorted(placed), np.int64)
    to = np.array([placed[row] for row in named.tolist()], np.int32)
    gained = (ends.room - left.room) - (ends.supply - left.supply)
    return (
        PricedCenters(rule.rows, rule.prices, rule.outside, named, to),
        Sizes(sizes.rows + gained, sizes.lowest, sizes.highest),
        cost - used * constant,
    )
