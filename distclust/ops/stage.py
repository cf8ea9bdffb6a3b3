"""Rows in the driver's memory, written once as Parquet for engines whose workers are other processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.data.memory import lookup
from distclust.data.sources import Source, open_source

ROW_GROUP_BYTES = 16 << 20
VECTOR, WEIGHT, ID = "vector", "weight", "id"


def stage_memory(source: Source, directory: str | Path) -> Source:
    """Write an in-memory source to ``directory`` and open it there.

    Parameters
    ----------
    source : Source
        Of format ``memory``; any other is returned as it is.
    directory : str or Path
        A directory that driver and workers see.
    """
    if source.files[0].format != "memory":
        return source
    held = lookup(source.files[0].uri)
    values = np.ascontiguousarray(held.values)
    width = values.shape[1]
    columns: dict[str, pa.Array] = {VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)}
    if held.weights is not None:
        columns[WEIGHT] = pa.array(held.weights)
    if held.ids is not None:
        columns[ID] = held.ids
    path = Path(directory) / "rows.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = max(1024, ROW_GROUP_BYTES // (width * values.dtype.itemsize))
    pq.write_table(pa.table(columns), path, row_group_size=rows, compression="none", use_dictionary=False)
    return open_source(
        path,
        column=VECTOR,
        weight_column=WEIGHT if held.weights is not None else None,
        id_column=ID if held.ids is not None else None,
    )
