"""What a step sees of a partition: a block of transformed rows, or the raw rows in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.refs import BlockView, PartitionRef, RawView, RecordView
from distclust.kernels.random import count_below


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of a partition in hash order: ascending ``hash_rows(row_ids)``.

    A random sample of the whole dataset is therefore a prefix of every block. Valid inside the ``with`` that
    opened it; the arrays belong to the cache and must not be written to.

    Attributes
    ----------
    x : (n, d) float32 or float64 array, C-contiguous
        Rows as the view asks: centred, of unit length.
    row_ids : (n,) int64 array
        Global row ids. Bad rows that the view drops are missing.
    weights : (n,) float64 array or None
        Row weights; None for 1.
    ref : PartitionRef
        Where the rows come from.
    view : BlockView
        How they became a block.
    """

    x: npt.NDArray[Any]
    row_ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64] | None
    ref: PartitionRef
    view: BlockView

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """(n,) positions of the rows in input order within the partition: ``row_ids - ref.offset``."""
        return self.row_ids - self.ref.offset

    def prefix(self, limit: int) -> Block:
        """Return the rows whose hash is below ``limit`` (0 ... 2**64): a random sample, the same in any cut."""
        count = count_below(self.row_ids, limit)
        weights = None if self.weights is None else self.weights[:count]
        return Block(self.x[:count], self.row_ids[:count], weights, self.ref, self.view)

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    @property
    def d(self) -> int:
        """Number of dimensions."""
        return int(self.x.shape[1])


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Some consecutive rows of a partition as the source has them.

    Attributes
    ----------
    values : (m, d) array, C-contiguous
        In the source's own type, float16 widened to float32. Bad rows are still there.
    weights : (m,) float64 array or None
        Row weights, checked: finite and not negative.
    start : int
        Position of the first row within the partition; its global row id is ``ref.offset + start``.
    """

    values: npt.NDArray[Any]
    weights: npt.NDArray[np.float64] | None
    start: int

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.values.shape[0])


@dataclass(frozen=True, eq=False)
class RawRows:
    """The rows of a partition, read from the source anew by each call of `batches`.

    Attributes
    ----------
    ref : PartitionRef
        Where the rows come from.
    view : RawView
        Columns and width, and what the reader should do with bad rows (`decode.bad_row_error` builds the error).
    read : callable
        Gives the batches.
    """

    ref: PartitionRef
    view: RawView
    read: Callable[[], Iterator[RawBatch]]

    def batches(self) -> Iterator[RawBatch]:
        """Yield the rows in input order, a few megabytes at a time."""
        return self.read()


@dataclass(frozen=True, eq=False)
class RecordRows:
    """The columns of a partition, read from the source anew by each call of `batches`.

    Attributes
    ----------
    ref : PartitionRef
        Where the rows come from.
    view : RecordView
        Which columns.
    read : callable
        Gives pairs of the position of the first row and a record batch of the features and the weight.
    """

    ref: PartitionRef
    view: RecordView
    read: Callable[[], Iterator[tuple[int, pa.RecordBatch]]]

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows in input order, a few megabytes at a time."""
        return self.read()
