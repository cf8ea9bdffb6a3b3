"""The components of a model that is a mixture, beside its centres: ``model/mixture.parquet``, and its projection."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.artifacts.codec import sha256
from distclust.artifacts.model import MODEL, model_directory
from distclust.artifacts.record import as_storage
from distclust.data.storage import Storage
from distclust.errors import StorageError

MIXTURE = "mixture.parquet"
PROJECTION = "projection.parquet"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StoredMixture:
    """A mixture as a model stores it.

    Attributes
    ----------
    covariance_type : str
        ``full``, ``tied``, ``diag`` or ``spherical``.
    weights : (k,) float64
    means : (k, m) float64
        In the coordinates of the source; of a projected mixture, in those of the projection.
    covariances : float64
        (k, m, m) full, (m, m) tied, (k, m) diag, (k,) spherical.
    axes : (d, m) or (d,) float64 or None
        What rows, less the centre of the model, are multiplied by.
    """

    covariance_type: str
    weights: Floats
    means: Floats
    covariances: Floats
    axes: Floats | None = None


def save_mixture(storage: Storage, mixture: StoredMixture) -> dict[str, Any]:
    """Write a mixture into a run directory; return what `load_mixture` needs to find it again.

    One row a component: ``component``, ``weight``, ``mean`` and ``covariance``, lists of float64, the latter row by
    row; a tied covariance is in every row. The projection has a row for each column of the source.
    """
    k, m = mixture.means.shape
    spread = mixture.covariances
    if mixture.covariance_type == "tied":
        spread = np.broadcast_to(spread, (k, m, m))
    table = pa.table(
        {
            "component": np.arange(k, dtype=np.int32),
            "weight": mixture.weights,
            "mean": _lists(mixture.means),
            "covariance": _lists(spread.reshape(k, -1)),
        }
    )
    found: dict[str, Any] = {"covariance_type": mixture.covariance_type, "digest": _put(storage, MIXTURE, table)}
    if mixture.axes is not None:
        axes = mixture.axes if mixture.axes.ndim == 1 else _lists(mixture.axes)
        table = pa.table({"column": np.arange(len(mixture.axes), dtype=np.int32), "axes": axes})
        found["projection_digest"] = _put(storage, PROJECTION, table)
    return found


def load_mixture(place: Storage | str | Path, described: dict[str, Any]) -> StoredMixture:
    """Read what `save_mixture` wrote.

    Parameters
    ----------
    place : Storage, str or Path
        Run directory or model directory.
    described : dict
        What it returned, from model.json.

    Raises
    ------
    StorageError
        A file is missing, or another one.
    """
    storage = model_directory(as_storage(place))
    table = _get(storage, MIXTURE, described["digest"])
    means, spread = _rows(table.column("mean")), _rows(table.column("covariance"))
    (k, m), kind = means.shape, described["covariance_type"]
    covariances = {
        "full": lambda: spread.reshape(k, m, m),
        "tied": lambda: spread[0].reshape(m, m),
        "diag": lambda: spread,
        "spherical": lambda: spread[:, 0],
    }[kind]()
    axes = None
    if "projection_digest" in described:
        column = _get(storage, PROJECTION, described["projection_digest"]).column("axes")
        axes = column.to_numpy() if pa.types.is_floating(column.type) else _rows(column)
    return StoredMixture(kind, table.column("weight").to_numpy(), means, covariances, axes)


def _lists(rows: Floats) -> pa.Array:
    element = pa.field("element", pa.float64(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(rows).reshape(-1)), type=pa.list_(element, rows.shape[1])
    )


def _rows(column: pa.ChunkedArray) -> Floats:
    lists = column.combine_chunks()
    flat: Floats = np.array(lists.flatten().to_numpy(), np.float64)
    return flat.reshape(len(lists), lists.type.list_size)


def _put(storage: Storage, name: str, table: pa.Table) -> str:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    storage.put(f"{MODEL}/{name}", data)
    return sha256(data)


def _get(storage: Storage, name: str, digest: str) -> pa.Table:
    restore = "Restore the file, or run the fit again."
    try:
        data = storage.read(name)
    except FileNotFoundError as error:
        raise StorageError("is missing.", where=storage.where(name), do=restore) from error
    if sha256(data) != digest:
        raise StorageError("is not the file that model.json describes.", where=storage.where(name), do=restore)
    return pq.read_table(pa.BufferReader(data)).combine_chunks()
