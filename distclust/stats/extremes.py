"""The first m rows of a dataset in some order that does not depend on the partitioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distclust.kernels.random import hash_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _either(first: npt.NDArray[Any], second: npt.NDArray[Any], keep: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Return rows of two arrays end to end, without laying them end to end."""
    out = np.empty((len(keep), first.shape[1]), np.result_type(first, second))
    mine = keep < len(first)
    out[mine] = first[keep[mine]]
    out[~mine] = second[keep[~mine] - len(first)]
    return out


@dataclass(frozen=True)
class FarRows:
    """The at most ``limit`` rows farthest from their centres, by (-squared distance, row id).

    Attributes
    ----------
    limit : int
        Most rows kept.
    sqdist : (m,) float64
        Squared distance to the row's centre, descending.
    row_ids : (m,) int64
    rows : (m, d) float32 or float64
    labels : (m,) int32
        Cluster that each row belongs to.
    weights : (m,) float64
    """

    exact: ClassVar[bool] = True

    limit: int
    sqdist: Floats
    row_ids: Ints
    rows: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int32]
    weights: Floats

    def merge(self, other: FarRows) -> FarRows:
        """Keep the farthest of both."""
        sqdist = np.concatenate([self.sqdist, other.sqdist])
        row_ids = np.concatenate([self.row_ids, other.row_ids])
        keep = np.lexsort((row_ids, -sqdist))[: self.limit]
        return FarRows(
            self.limit,
            sqdist[keep],
            row_ids[keep],
            _either(self.rows, other.rows, keep),
            np.concatenate([self.labels, other.labels])[keep],
            np.concatenate([self.weights, other.weights])[keep],
        )


@dataclass(frozen=True)
class KeyedRows:
    """The at most ``limit`` rows of smallest key, by (key, row id): a sample that is the same in any partitioning.

    Attributes
    ----------
    limit : int
        Most rows kept.
    keys : (m,) float64 or uint64, ascending
    row_ids : (m,) int64
    rows : (m, d)
    weights : (m,) float64
    """

    exact: ClassVar[bool] = True

    limit: int
    keys: npt.NDArray[Any]
    row_ids: Ints
    rows: npt.NDArray[Any]
    weights: Floats

    @classmethod
    def select(
        cls,
        limit: int,
        keys: npt.NDArray[Any],
        row_ids: Ints,
        rows: npt.NDArray[Any],
        weights: Floats | None,
    ) -> KeyedRows:
        """Build from unordered rows; copies only those that it keeps."""
        if len(keys) > 4 * limit:  # a full sort of a block would cost more than the pass over its rows
            near = np.argpartition(keys, limit)[: limit + 1]
            near = np.flatnonzero(keys <= keys[near].max())
        else:
            near = np.arange(len(keys))
        keep = near[np.lexsort((row_ids[near], keys[near]))[:limit]]
        return cls(
            limit, keys[keep], row_ids[keep], rows[keep], np.ones(len(keep)) if weights is None else weights[keep]
        )

    @classmethod
    def by_hash(cls, limit: int, row_ids: Ints, rows: npt.NDArray[Any], weights: Floats | None) -> KeyedRows:
        """Build with the row hash as key: the hash-prefix sample."""
        return cls.select(limit, hash_rows(row_ids), row_ids, rows, weights)

    @classmethod
    def join(cls, parts: Sequence[KeyedRows]) -> KeyedRows:
        """Keep the smallest keys of all parts, of which there is one at least: `merge` of many at once."""
        if len(parts) == 1:
            return parts[0]
        keys, row_ids, rows, weights = (
            np.concatenate(arrays)
            for arrays in zip(*((part.keys, part.row_ids, part.rows, part.weights) for part in parts), strict=True)
        )
        return cls.select(parts[0].limit, keys, row_ids, rows, weights)

    def merge(self, other: KeyedRows) -> KeyedRows:
        """Keep the smallest keys of both."""
        keys = np.concatenate([self.keys, other.keys])
        row_ids = np.concatenate([self.row_ids, other.row_ids])
        keep = np.lexsort((row_ids, keys))[: self.limit]
        return KeyedRows(
            self.limit,
            keys[keep],
            row_ids[keep],
            _either(self.rows, other.rows, keep),
            np.concatenate([self.weights, other.weights])[keep],
        )

    def in_id_order(self) -> KeyedRows:
        """Return the same rows ordered by row id."""
        order = np.argsort(self.row_ids, kind="stable")
        return KeyedRows(self.limit, self.keys[order], self.row_ids[order], self.rows[order], self.weights[order])
