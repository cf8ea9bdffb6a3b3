"""From a partition's rows to a block: transformed, and in hash order, with one batch in memory besides."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.data.block import RawBatch
from distclust.data.blockfile import Rows
from distclust.data.decode import bad_row_error, read_batches, scan_mixed
from distclust.data.refs import BlockView, PartitionRef
from distclust.errors import DataError
from distclust.kernels.moments import scan_rows, write_rows
from distclust.kernels.nearest import project_rows
from distclust.kernels.random import hash_rows

_COMPACT_ROWS = 1 << 12


def build_rows(ref: PartitionRef, view: BlockView, out: Rows) -> int:
    """Decode a partition into the arrays of a block.

    Parameters
    ----------
    ref : PartitionRef
        What to read.
    view : BlockView
        How to transform it.
    out : Rows
        Where to write, with room for all rows; in memory or over a file.

    Returns
    -------
    int
        Rows written: all, less the bad ones that the view drops.

    Raises
    ------
    DataError
        See `read_batches`; a bad row under ``on_bad_rows="error"``; a value beyond float32.
    """
    rank = _hash_ranks(ref, out.row_ids)
    center = np.zeros(view.width) if view.center is None else np.ascontiguousarray(view.center, np.float64)
    plain = view.axes is None and view.encoding is None
    dropped = []
    for batch in read_batches(ref, view.columns, view.width, encoding=view.encoding):
        good = np.arange(batch.n)
        target = rank[batch.start : batch.start + batch.n].astype(np.int64)
        # Rows that are written and finite were good: only where one is not, it is worth a reading to say which.
        if not (plain and write_rows(batch.values, center, view.unit_rows, good, target, out.x)):
            good = _good_rows(ref, view, batch, center)
            target = target[good]
            if view.axes is None:
                write_rows(batch.values, center, view.unit_rows, good, target, out.x)
            else:
                out.x[target] = _projected(ref, view, batch, center, good)
        if out.weights is not None and batch.weights is not None:
            out.weights[target] = batch.weights[good]
        if len(good) < batch.n:
            bad = np.setdiff1d(np.arange(batch.n), good, assume_unique=True)
            dropped.append(rank[batch.start + bad])
    return _close_gaps(out, np.concatenate(dropped)) if dropped else ref.n_rows


def _projected(
    ref: PartitionRef, view: BlockView, batch: RawBatch, center: npt.NDArray[np.float64], good: npt.NDArray[np.int64]
) -> npt.NDArray[Any]:
    """Return the good rows of a batch, multiplied by the axes of the view, in its type."""
    assert view.axes is not None
    rows = np.empty((len(good), view.width))
    write_rows(batch.values, center, view.unit_rows, good, np.arange(len(good), dtype=np.int64), rows)
    wide = rows * view.axes if view.axes.ndim == 1 else project_rows(rows, view.axes)
    _check_extent(ref, view, wide.min(axis=0, initial=0.0), wide.max(axis=0, initial=0.0))
    return wide.astype(view.dtype)


def _hash_ranks(ref: PartitionRef, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return each row's place in the block, and fill the block's row ids.

    With few dimensions these arrays weigh as much as the rows themselves, hence the care for their number.
    """
    order = np.argsort(hash_rows(np.arange(ref.offset, ref.offset + ref.n_rows, dtype=np.int64)))
    np.add(order, ref.offset, out=row_ids)
    small: type[np.int32 | np.int64] = np.int32 if ref.n_rows < 2**31 else np.int64
    rank: npt.NDArray[Any] = np.empty(ref.n_rows, small)
    rank[order] = np.arange(ref.n_rows, dtype=small)
    return rank


def _good_rows(
    ref: PartitionRef, view: BlockView, batch: RawBatch, center: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the places of the good rows of a batch; raise for a bad one that may not be dropped."""
    bad = np.zeros(batch.n, np.uint8)
    low, high = np.full(view.width, np.inf), np.full(view.width, -np.inf)
    if view.encoding is None:
        scan_rows(batch.values, view.unit_rows, low, high, bad)
    else:
        bad = scan_mixed(batch.values)
    if view.on_bad_rows == "error" and bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise bad_row_error(ref, batch.start + row, int(bad[row]), batch.values[row])
    if view.axes is None:
        _check_extent(ref, view, low - center, high - center)
    return np.flatnonzero(bad == 0).astype(np.int64, copy=False)


def _check_extent(
    ref: PartitionRef, view: BlockView, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
) -> None:
    """Float64 and integer sources may hold finite values that the block's type cannot."""
    extent = float(np.maximum(np.abs(low), np.abs(high)).max(initial=0.0, where=np.isfinite(low)))
    limit = float(np.finfo(view.dtype).max)
    if extent > limit:
        raise DataError(
            f"a value lies {extent:.3g} from the centre; {view.dtype} ends at {limit:.3g}.",
            where=ref.describe(),
            do="Scale the columns, or use precision='float64'.",
        )


def _close_gaps(out: Rows, gaps: npt.NDArray[np.int64]) -> int:
    """Move the kept rows to the front, in order; return their number."""
    kept = np.setdiff1d(np.arange(len(out.row_ids)), gaps, assume_unique=True)
    for array in (out.x, out.row_ids, out.weights):
        if array is not None:
            # Rows only move forward and each step reads before it writes, so this works in place.
            for at in range(0, len(kept), _COMPACT_ROWS):
                run = kept[at : at + _COMPACT_ROWS]
                array[at : at + len(run)] = array[run]
    return len(kept)
