"""The medoids of a model as rows of the dataset, beside its centres: ``model/medoids.parquet``."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from distclust.artifacts.codec import sha256
from distclust.artifacts.model import MODEL
from distclust.data.storage import Storage

MEDOIDS = "medoids.parquet"


def save_medoids(storage: Storage, medoids: pa.Table) -> str:
    """Write the medoids into a run directory; return the file's digest.

    Parameters
    ----------
    storage : Storage
        Run directory; its model.json is written after this.
    medoids : pyarrow.Table
        ``cluster``, ``row_id``, ``file``, ``file_row``, then what names or describes the rows. For readers: models are
        applied by their centres.
    """
    buffer = io.BytesIO()
    pq.write_table(medoids, buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    storage.put(f"{MODEL}/{MEDOIDS}", data)
    return sha256(data)
