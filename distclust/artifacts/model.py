"""The model directory: centres as Parquet that any tool reads, and model.json that says what they are."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.artifacts.codec import decode_object, encode, sha256
from distclust.artifacts.record import MANIFEST, RUN, as_storage
from distclust.data.storage import Storage
from distclust.errors import StorageError, UsageError, unknown_name

MODEL = "model"
_DESCRIPTION = "model.json"
_CENTERS = "centers.parquet"
_FORMAT = 1
KINDS = {"kmeans": 1, "bisect": 1, "kmedoids": 1, "gmm": 1, "ppp": 1}
"""Kinds of models, and the newest version of each that is understood; written ``kmeans/1``."""
_ROW_GROUP_BYTES = 64 << 20

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """Centres of a finished run.

    Attributes
    ----------
    kind : str
        Name and version, such as ``kmeans/1``.
    centers : (k, d) float32 or float64 array
    sizes : (k,) int64 array
        Rows per cluster.
    inertias : (k,) float64 array
        Weighted sum of squared distances per cluster; of dissimilarities for k-medoids.
    parent : (k,) int32 array or None
        Cluster of the level above, where there are levels.
    center_offset : (d,) float64 array or None
        What was subtracted from the rows before they were compared.
    metric : str
    parameters : dict
        Plain values.
    vectors_digest : str
        SHA-256 of the centres' bytes, little endian, row by row: equal models have equal ones.
    """

    kind: str
    centers: Vectors
    sizes: npt.NDArray[np.int64]
    inertias: npt.NDArray[np.float64]
    metric: str
    vectors_digest: str
    parent: npt.NDArray[np.int32] | None = None
    center_offset: npt.NDArray[np.float64] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def save_model(
    storage: Storage,
    *,
    kind: str,
    centers: Vectors,
    sizes: npt.NDArray[np.int64],
    inertias: npt.NDArray[np.float64],
    metric: str,
    parent: npt.NDArray[np.int32] | None = None,
    center_offset: npt.NDArray[np.float64] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Model:
    """Write ``model/`` into a run directory; model.json last. Equal input gives equal bytes.

    Parameters
    ----------
    storage : Storage
        Run directory.
    kind, centers, sizes, inertias, metric, parent, center_offset, parameters
        See `Model`.

    Raises
    ------
    ValueError
        Shapes do not fit together, or centres are neither float32 nor float64.
    UsageError
        Unknown kind.
    """
    _check_kind(kind, storage.where(MODEL))
    if centers.ndim != 2 or centers.dtype not in (np.float32, np.float64):
        raise ValueError(f"centers: {centers.dtype} of {centers.ndim} dimensions; float32 or float64 of 2 are allowed")
    k, d = centers.shape
    for name, array, shape in (
        ("sizes", sizes, (k,)),
        ("inertias", inertias, (k,)),
        ("parent", parent, (k,)),
        ("center_offset", center_offset, (d,)),
    ):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: shape {array.shape}; {shape} is needed for centers of shape {centers.shape}")
    with storage.open_output(f"{MODEL}/{_CENTERS}") as file:
        written = _Hashing(file)
        _write_parquet(written, centers, sizes, inertias, parent)
    model = Model(
        kind, centers, sizes, inertias, metric, _vectors_digest(centers), parent, center_offset, dict(parameters or {})
    )
    description = {
        "format_version": _FORMAT,
        "kind": kind,
        "n_clusters": k,
        "n_dims": d,
        "dtype": centers.dtype.name,
        "metric": metric,
        "centers": {"file": _CENTERS, "bytes": written.size, "digest": written.digest.hexdigest()},
        "vectors_digest": model.vectors_digest,
        "center_offset": None if center_offset is None else [float(value) for value in center_offset],
        "parameters": model.parameters,
    }
    storage.put(f"{MODEL}/{_DESCRIPTION}", encode(description))
    return model


def load_model(place: Storage | str | Path) -> Model:
    """Read a model and check its digests.

    Parameters
    ----------
    place : Storage, str or Path
        Run directory or model directory.

    Raises
    ------
    UsageError
        There is no model, or one of an unknown kind or version.
    StorageError
        The files are not those that were written.
    """
    storage = model_directory(as_storage(place))
    where = storage.where(_DESCRIPTION)
    found = decode_object(storage.read(_DESCRIPTION), where)
    if found.get("format_version") != _FORMAT:
        raise UsageError(
            f"format version {found.get('format_version')!r}; this distclust reads {_FORMAT}.",
            where=where,
            do="Use the version of distclust that wrote it, or a newer one.",
        )
    _check_kind(found["kind"], where)
    data = _read_centers(storage)
    if sha256(data) != found["centers"]["digest"]:
        raise _damaged(storage, "is not the file that model.json describes")
    table = pq.read_table(pa.BufferReader(data))
    shape, dtype = (found["n_clusters"], found["n_dims"]), np.dtype(found["dtype"])
    centers = _to_numpy(_flat(table.column("vector")), dtype).reshape(shape)
    if _vectors_digest(centers) != found["vectors_digest"]:
        raise _damaged(storage, "holds other vectors than model.json describes")
    offset = found["center_offset"]
    return Model(
        kind=found["kind"],
        centers=centers,
        sizes=_to_numpy(table.column("size"), np.dtype(np.int64)),
        inertias=_to_numpy(table.column("inertia"), np.dtype(np.float64)),
        metric=found["metric"],
        vectors_digest=found["vectors_digest"],
        parent=_to_numpy(table.column("parent"), np.dtype(np.int32)) if not table.column("parent").null_count else None,
        center_offset=None if offset is None else np.array(offset, np.float64),
        parameters=found["parameters"],
    )


def check_metric(model: Model, metric: str, where: str) -> None:
    """Raise `UsageError` unless a model was fitted under a metric."""
    if model.metric != metric:
        raise UsageError(
            f"the model was fitted under the metric {model.metric!r}; {metric!r} is asked for.",
            where=where,
            do=f"Use the model's metric (metric={model.metric!r}, --metric {model.metric}), or another model.",
        )


def model_directory(storage: Storage) -> Storage:
    """Return the model directory of a run, or the storage itself where it is one; `UsageError` where it is neither."""
    if storage.exists(f"{MODEL}/{_DESCRIPTION}"):
        return storage.child(MODEL)
    if storage.exists(_DESCRIPTION):
        return storage
    if storage.exists(RUN) and not storage.exists(MANIFEST):
        raise UsageError(
            "the run has no model yet: it is not complete.", where=storage.where(), do="Resume it, or wait for its end."
        )
    raise UsageError(
        f"there is no model: neither {MODEL}/{_DESCRIPTION} nor {_DESCRIPTION}.",
        where=storage.where(),
        do="Name the run directory of a finished fit, or its model directory.",
    )


def read_model_table(storage: Storage, name: str, digest: str) -> pa.Table:
    """Read a Parquet file that lies beside the centres.

    Parameters
    ----------
    storage : Storage
        Run directory or model directory.
    name : str
        Of the file.
    digest : str
        As model.json says.

    Raises
    ------
    StorageError
        The file is missing, or another one.
    """
    directory = model_directory(storage)
    restore = "Restore the file, or run the fit again."
    try:
        data = directory.read(name)
    except FileNotFoundError as error:
        raise StorageError("is missing.", where=directory.where(name), do=restore) from error
    if sha256(data) != digest:
        raise StorageError("is not the file that model.json describes.", where=directory.where(name), do=restore)
    return pq.read_table(pa.BufferReader(data)).combine_chunks()


def table_vectors(table: pa.Table) -> Vectors:
    """Return the column ``vector`` of a table that was read whole."""
    vectors = table.column("vector").combine_chunks()
    found: Vectors = vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    return found


def _check_kind(kind: str, where: str) -> None:
    match = re.fullmatch(r"([a-z_]+)/([0-9]+)", kind)
    if match is None:
        raise UsageError(f"the kind of model {kind!r} is not written as a name and a version (kmeans/1).", where=where)
    name = match[1]
    if name not in KINDS:
        raise unknown_name("kind of model", name, KINDS).at(where)
    if int(match[2]) > KINDS[name]:
        raise UsageError(
            f"the model is of kind {kind!r}; this distclust reads {name} up to version {KINDS[name]}.",
            where=where,
            do="Use the version of distclust that wrote it, or a newer one.",
        )


class _Hashing(io.RawIOBase):
    """Passes bytes on to a file, and keeps their digest: a million centres are not held once more to be hashed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def _write_parquet(
    file: _Hashing,
    centers: Vectors,
    sizes: npt.NDArray[np.int64],
    inertias: npt.NDArray[np.float64],
    parent: npt.NDArray[np.int32] | None,
) -> None:
    k, d = centers.shape
    element = pa.field("element", pa.from_numpy_dtype(centers.dtype), nullable=False)
    schema = pa.schema(
        [
            pa.field("cluster", pa.int32(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("inertia", pa.float64(), nullable=False),
            pa.field("parent", pa.int32()),
            pa.field("vector", pa.list_(element, d), nullable=False),
        ]
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(centers.reshape(-1)), type=schema.field("vector").type)
    columns = [
        pa.array(np.arange(k, dtype=np.int32)),
        pa.array(sizes.astype(np.int64, copy=False)),
        pa.array(inertias.astype(np.float64, copy=False)),
        pa.nulls(k, pa.int32()) if parent is None else pa.array(parent.astype(np.int32, copy=False)),
        vectors,
    ]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        file,
        row_group_size=max(1, _ROW_GROUP_BYTES // (d * centers.itemsize)),
        compression="zstd",
        use_dictionary=False,
    )


def _read_centers(storage: Storage) -> bytes:
    try:
        return storage.read(_CENTERS)
    except FileNotFoundError as error:
        raise _damaged(storage, "is missing") from error


def _damaged(storage: Storage, what: str) -> StorageError:
    return StorageError(f"{what}.", where=storage.where(_CENTERS), do="Restore the file, or run the fit again.")


def _vectors_digest(centers: Vectors) -> str:
    return sha256(np.ascontiguousarray(centers, centers.dtype.newbyteorder("<")).data.cast("B"))


def _flat(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.flatten() for chunk in lists.chunks], lists.type.value_type)


def _to_numpy(column: pa.ChunkedArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(column.to_numpy(), dtype)
