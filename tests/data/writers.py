"""Datasets for tests: the same rows in every format and shape that distclust reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.data.block import Block
from distclust.data.cache import NodeCache
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.sources import Source

DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")
LIST_KINDS = ("list", "large_list", "fixed", "tensor")


def make_rows(n: int, d: int, dtype: str = "float32", seed: int = 0) -> npt.NDArray[Any]:
    """Return small whole numbers that every type holds exactly, no row zero."""
    rows = np.random.default_rng(seed).integers(1, 100, (n, d))
    return rows.astype(dtype)


def vectors(x: npt.NDArray[Any], kind: str = "list") -> pa.Array:
    """Return rows as an Arrow list array."""
    n, d = x.shape
    values = pa.array(x.reshape(-1))
    if kind == "list":
        return pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32) * d, values)
    if kind == "large_list":
        return pa.LargeListArray.from_arrays(np.arange(n + 1, dtype=np.int64) * d, values)
    fixed = pa.FixedSizeListArray.from_arrays(values, d)
    if kind == "tensor":
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(values.type, [d]), fixed)
    return fixed


def make_table(x: npt.NDArray[Any], kind: str = "list", **columns: Any) -> pa.Table:
    """Return a table with the column ``embedding`` and whatever else is given."""
    return pa.table({"embedding": vectors(x, kind), **columns})


def write_parquet(path: Path, table: pa.Table, group: int = 50) -> Path:
    """Write row groups of ``group`` rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def write_ipc(
    path: Path, table: pa.Table, group: int = 50, stream: bool = False, compression: str | None = None
) -> Path:
    """Write record batches of ``group`` rows, in the file or the stream format."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=group)
    return path


def open_blocks(
    cache: NodeCache, source: Source, view: BlockView, target_bytes: int = 1 << 20, min_partitions: int = 1
) -> list[Block]:
    """Return the blocks of all partitions, copied out of the cache."""
    blocks = []
    for ref in plan_partitions(source, target_bytes, min_partitions):
        with cache.open(ref, view) as block:
            assert isinstance(block, Block)
            weights = None if block.weights is None else block.weights.copy()
            blocks.append(Block(block.x.copy(), block.row_ids.copy(), weights, ref, view))
    return blocks


def in_id_order(blocks: Sequence[Block]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return (row ids, rows) of all blocks, by row id."""
    ids = np.concatenate([block.row_ids for block in blocks])
    order = np.argsort(ids)
    return ids[order], np.concatenate([block.x for block in blocks])[order]
