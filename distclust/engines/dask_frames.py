"""Dask data frames and arrays, written once as Parquet by the cluster that holds them."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client

from distclust.data.storage import open_storage
from distclust.errors import UsageError

VECTOR = "vector"
"""Name of the column that holds the rows of an array."""

ROW_GROUP_BYTES = 16 << 20


def stage_dask(frame: Any, directory: str, client: Client | None = None) -> list[str]:
    """Write a Dask data frame or array as Parquet, one file per partition, by tasks where the partitions are.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or dask.array.Array
        An array has two dimensions; its rows become a fixed-size list column ``vector``. A data frame keeps its
        columns and loses its index.
    directory : str
        Path or URI that the workers and the driver see.
    client : distributed.Client, optional
        Who computes; default: the current client, or Dask's own threads if there is none.

    Returns
    -------
    list of str
        The files in row order, without those of empty partitions.

    Raises
    ------
    UsageError
        Another Dask collection, or an array that does not have two dimensions.
    StorageError
        The directory cannot be written.
    """
    if getattr(frame, "ndim", None) != 2:
        raise UsageError(
            f"A Dask {type(frame).__name__} has no rows of vectors; allowed are a data frame and an array "
            "of two dimensions.",
            do="Convert it with dask.array or dask.dataframe.",
        )
    is_array = hasattr(frame, "rechunk")
    pieces = frame.rechunk({1: -1}).to_delayed().ravel() if is_array else frame.to_delayed()
    storage = open_storage(directory)
    names = [f"part-{i:06d}.parquet" for i in range(len(pieces))]
    writer = dask.delayed(_write_rows if is_array else _write_frame, pure=False)
    tasks = [writer(piece, storage.uri, name) for piece, name in zip(pieces, names, strict=True)]
    counts = dask.compute(*tasks) if client is None else client.gather(client.compute(tasks))
    return [f"{storage.uri}/{name}" for name, count in zip(names, counts, strict=True) if count]


def _write_rows(rows: npt.NDArray[Any], uri: str, name: str) -> int:
    values = np.ascontiguousarray(rows).reshape(-1)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values), rows.shape[1])
    return _write(pa.table({VECTOR: vectors}), uri, name)


def _write_frame(rows: Any, uri: str, name: str) -> int:
    return _write(pa.Table.from_pandas(rows, preserve_index=False), uri, name)


def _write(table: pa.Table, uri: str, name: str) -> int:
    """Write a file aside and rename it, so that a task may run twice; return the number of rows."""
    n_rows: int = table.num_rows
    if n_rows:
        group = max(1024, ROW_GROUP_BYTES * n_rows // max(1, table.nbytes))
        with open_storage(uri).open_output(name) as file:
            pq.write_table(table, file, row_group_size=group, compression="none", use_dictionary=False)
    return n_rows
