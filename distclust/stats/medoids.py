"""What passes over the rows leave behind for k-medoids: losses of candidate sets, and the best rows to swap in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distclust.stats.fixed import FixedPair

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MedoidScores:
    """Losses of several sets of medoids over the same rows.

    Attributes
    ----------
    loss : FixedPair of s totals
        Sum of w * dissimilarity to the nearest medoid, for each set.
    silhouette : FixedPair of s totals
        Sum of w * (1 - nearest / second nearest), for each set.
    mass : FixedPair of one total
        Sum of w.
    """

    exact: ClassVar[bool] = True

    loss: FixedPair
    silhouette: FixedPair
    mass: FixedPair

    def merge(self, other: MedoidScores) -> MedoidScores:
        """Combine the scores of two disjoint sets of rows."""
        return MedoidScores(
            self.loss.merge(other.loss), self.silhouette.merge(other.silhouette), self.mass.merge(other.mass)
        )


@dataclass(frozen=True)
class BestRows:
    """For each group the at most ``limit`` rows of lowest value, by (group, value, row id).

    Attributes
    ----------
    limit : int
        Most rows of a group.
    groups : (m,) int64
    values : (m,) float64
    row_ids : (m,) int64
    rows : (m, d)
    """

    exact: ClassVar[bool] = True

    limit: int
    groups: Ints
    values: Floats
    row_ids: Ints
    rows: npt.NDArray[Any]

    @classmethod
    def none(cls, limit: int, like: npt.NDArray[Any]) -> BestRows:
        """Return no rows, of the width and type of others."""
        return cls(limit, np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), like[:0])

    @classmethod
    def select(cls, limit: int, groups: Ints, values: Floats, row_ids: Ints, rows: npt.NDArray[Any]) -> BestRows:
        """Build from unordered rows; copies only those that it keeps."""
        keep = _first(limit, groups, values, row_ids)
        return cls(limit, groups[keep], values[keep], row_ids[keep], rows[keep])

    def merge(self, other: BestRows) -> BestRows:
        """Keep the lowest of both."""
        return BestRows.select(
            self.limit,
            np.concatenate([self.groups, other.groups]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.row_ids, other.row_ids]),
            np.concatenate([self.rows, other.rows]),
        )


def _first(limit: int, groups: Ints, values: Floats, row_ids: Ints) -> npt.NDArray[np.intp]:
    order = np.lexsort((row_ids, values, groups))
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]) if len(order) else order
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return order[rank < limit]
