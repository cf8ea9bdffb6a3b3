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


def with_lists(
    table: pa.Table,
    ref: PartitionRef,
    positions: npt.NDArray[np.int64],
    clusters: npt.NDArray[np.int32],
    distances: npt.NDArray[np.float32],
) -> pa.Table:
    """Add the nearest clusters of each row, and their distances, to a partition's labels.

    Parameters
    ----------
    table : pyarrow.Table
        See `labels_table`.
    ref : PartitionRef
    positions : (n,) int64 array
        As for `labels_table`.
    clusters : (n, m) int32 array
    distances : (n, m) float32 array

    Returns
    -------
    pyarrow.Table
        With columns ``top_clusters`` and ``top_distances``: lists of m; null for rows that were dropped.
    """
    for name, values in (("top_clusters", clusters), ("top_distances", distances)):
        table = table.append_column(name, _lists_in_order(ref.n_rows, positions, values))
    return table


def encode_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file: the same bytes for the same table and pyarrow version."""
    sink = pa.BufferOutputStream()
    # Distances hardly repeat: a dictionary would be tried, and dropped, for every row group.
    dictionaries = ["cluster", "top_clusters.list.element"]
    pq.write_table(table, sink, compression="zstd", use_dictionary=dictionaries, write_statistics=True)
    return sink.getvalue().to_pybytes()


def _in_order(n_rows: int, positions: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.Array:
    column = np.zeros(n_rows, values.dtype)
    column[positions] = values
    if len(positions) == n_rows:
        return pa.array(column)
    missing = np.ones(n_rows, bool)
    missing[positions] = False
    return pa.array(column, mask=missing)


def _lists_in_order(n_rows: int, positions: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.Array:
    width = values.shape[1]
    rows = np.zeros((n_rows, width), values.dtype)
    rows[positions] = values
    missing = np.ones(n_rows, bool)
    missing[positions] = False
    kind = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False), width)
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind, mask=mask)
