"""Label files: one per partition, rows in input order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.data.refs import PartitionRef


def labels_table(
    ref: PartitionRef,
    ids: pa.Array,
    id_name: str,
    positions: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int32],
    distances: npt.NDArray[np.floating[Any]],
) -> pa.Table:
    """Put a partition's labels into input order beside its ids.

    Parameters
    ----------
    ref : PartitionRef
        The partition.
    ids : (ref.n_rows,) Arrow array
        Ids in input order; see `distclust.data.decode.read_ids`.
    id_name : str
        Name of the id column.
    positions : (n,) int64 array
        Positions of the labelled rows within the partition, in any order; see `Block.positions`.
    labels : (n,) int32 array
        Clusters.
    distances : (n,) float32 or float64 array
        Distances to the assigned centre.

    Returns
    -------
    pyarrow.Table
        Columns ``id_name``, ``cluster`` (int32) and ``distance``; null in both for rows that were dropped as bad.
    """
    return pa.table(
        {
            id_name: ids,
            "cluster": _in_order(ref.n_rows, positions, labels.astype(np.int32, copy=False)),
            "distance": _in_order(ref.n_rows, positions, distances),
        }
    )


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file: the same bytes for the same table and pyarrow version."""
    sink = pa.BufferOutputStream()
    # Distances hardly repeat: a dictionary would be tried, and dropped, for every row group.
    pq.write_table(table, sink, compression="zstd", use_dictionary=["cluster"], write_statistics=True)
    return sink.getvalue().to_pybytes()


def _in_order(n_rows: int, positions: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.Array:
    column = np.zeros(n_rows, values.dtype)
    column[positions] = values
    if len(positions) == n_rows:
        return pa.array(column)
    missing = np.ones(n_rows, bool)
    missing[positions] = False
    return pa.array(column, mask=missing)
