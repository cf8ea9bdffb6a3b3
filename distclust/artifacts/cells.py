"""The cells of a model of very many clusters, beside its centres: ``model/cells.parquet``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.artifacts.codec import sha256
from distclust.artifacts.model import MODEL, Vectors, read_model_table, table_vectors
from distclust.artifacts.record import as_storage
from distclust.data.storage import Storage

CELLS = "cells.parquet"


def save_cells(storage: Storage, vectors: Vectors, parents: npt.NDArray[np.int32]) -> str:
    """Write the cells into a run directory; return the digest under which `load_cells` finds them again.

    Parameters
    ----------
    storage : Storage
        Run directory; its model.json is written after this.
    vectors : (m, d) float32 or float64
        Centres of the cells, in the coordinates of the source.
    parents : (k,) int32
        Cell of each cluster, as in the column ``parent`` of the centres; for readers of the file.
    """
    m, d = vectors.shape
    element = pa.field("element", pa.from_numpy_dtype(vectors.dtype), nullable=False)
    table = pa.table(
        {
            "cell": np.arange(m, dtype=np.int32),
            "clusters": np.bincount(parents, minlength=m).astype(np.int64),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=pa.list_(element, d)),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    storage.put(f"{MODEL}/{CELLS}", data)
    return sha256(data)


def load_cells(place: Storage | str | Path, digest: str) -> Vectors:
    """Return the centres of the cells; see `read_model_table` for what is raised.

    Parameters
    ----------
    place : Storage, str or Path
        Run directory or model directory.
    digest : str
        As model.json says.
    """
    return table_vectors(read_model_table(as_storage(place), CELLS, digest))
