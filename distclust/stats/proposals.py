"""Proposals to move rows from one cluster to another: the cheapest, the same in any grouping of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Proposals:
    """The at most ``limit`` cheapest moves, at most ``pair_limit`` of them between the same two clusters.

    Attributes
    ----------
    limit, pair_limit : int
    regrets : (p,) float64, ascending
        What a move adds to the cost.
    row_ids : (p,) int64
        Equal regrets are in the order of row ids, then of targets.
    sources, targets : (p,) int32
    """

    exact: ClassVar[bool] = True

    limit: int
    pair_limit: int
    regrets: Floats
    row_ids: Ints
    sources: Ints32
    targets: Ints32

    @classmethod
    def select(
        cls, limit: int, pair_limit: int, regrets: Floats, row_ids: Ints, sources: Ints32, targets: Ints32
    ) -> Proposals:
        """Build from proposals in any order."""
        order = np.lexsort((targets, row_ids, regrets))
        if len(order) > pair_limit:
            # A stable sort by pair keeps the order within each, so a place in its pair is a distance from its start.
            pairs = sources[order].astype(np.int64) << 32 | targets[order]
            by_pair = np.argsort(pairs, kind="stable")
            starts = np.flatnonzero(np.diff(pairs[by_pair], prepend=-1))
            lengths = np.diff(starts, append=len(order))
            place = np.empty(len(order), np.int64)
            place[by_pair] = np.arange(len(order)) - np.repeat(starts, lengths)
            order = order[place < pair_limit]
        keep = order[:limit]
        return cls(limit, pair_limit, regrets[keep], row_ids[keep], sources[keep], targets[keep])

    def merge(self, other: Proposals) -> Proposals:
        """Keep the cheapest of both."""
        return Proposals.select(
            self.limit,
            self.pair_limit,
            np.concatenate([self.regrets, other.regrets]),
            np.concatenate([self.row_ids, other.row_ids]),
            np.concatenate([self.sources, other.sources]),
            np.concatenate([self.targets, other.targets]),
        )
