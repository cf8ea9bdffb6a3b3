"""What travels instead of rows: references to partitions, and the view under which their rows are read.

A `PartitionRef` names a contiguous run of rows of one file; a `BlockView` says how these rows become a block
(columns, centring, unit length, what to do with bad rows). Both are small, frozen and picklable. A worker
opens the rows itself, through the node cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.data.categories import ColumnKind, Encoding

Format = Literal["parquet", "ipc", "npy", "memory"]
Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = ("euclidean", "cosine")


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a file's bytes without reading them: size, modification time (ns) and etag where there is one."""

    size: int
    mtime_ns: int = 0
    etag: str = ""


@dataclass(frozen=True)
class PartitionRef:
    """A contiguous run of rows of one file.

    Attributes
    ----------
    index : int
        Position among the partitions of the dataset, 0-based, in input order.
    uri : str
        File as pyarrow or fsspec opens it; ``memory://<token>`` for arrays of this process.
    format : {"parquet", "ipc", "npy", "memory"}
        How the file is read.
    groups : tuple of int
        Parquet row groups or IPC record batches that hold the rows; empty for npy and memory.
    start : int
        First row, counted from the first row of ``groups`` (of the file, where there are none).
    n_rows : int
        Number of rows.
    offset : int
        Global row id of the first row: its position in the sorted list of input files, then row order.
    fingerprint : Fingerprint
        The file as it was when planned; a file that changed since is an error.
    """

    index: int
    uri: str
    format: Format
    groups: tuple[int, ...]
    start: int
    n_rows: int
    offset: int
    fingerprint: Fingerprint

    def describe(self) -> str:
        """Name the place for an error message: file, row groups, rows."""
        groups = (
            f", row groups {self.groups[0]}-{self.groups[-1]}"
            if len(self.groups) > 1
            else (f", row group {self.groups[0]}" if self.groups else "")
        )
        return f"{self.uri}{groups}"


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes
    ----------
    vector : str or None
        A list, fixed-size-list or plain numeric column; None with ``features``, npy and arrays.
    features : tuple of str
        Plain numeric columns that together are the vector.
    id : str or None
        Column copied into the labels; None for the global row id.
    weight : str or None
        Column of non-negative row weights; None for 1.
    kinds : tuple of {"number", "category"}
        For mixed data, what each of ``features`` holds; they may have missing values. Empty for vectors.
    """

    vector: str | None = None
    features: tuple[str, ...] = ()
    id: str | None = None
    weight: str | None = None
    kinds: tuple[ColumnKind, ...] = ()


@dataclass(frozen=True, eq=False)
class BlockView:
    """How the rows of a partition become a block.

    Attributes
    ----------
    columns : Columns
        Where vector, id and weight are.
    width : int
        Number of dimensions; a row of another width is an error.
    center : (width,) float64 array or None
        Subtracted in float64 before the cast to ``dtype``; None subtracts nothing.
    unit_rows : bool
        Rows are divided by their Euclidean length (cosine).
    dtype : {"float32", "float64"}
        Type of the block's rows.
    on_bad_rows : {"error", "drop"}
        NaN, infinity and (with ``unit_rows``) zero rows; with an encoding, infinity and rows without any value.
    encoding : Encoding or None
        How columns of numbers and categories become rows. NaN is then a missing value.
    axes : (width, m) or (width,) float64 array or None
        Rows, centred and of unit length as asked, are multiplied by it in float64: projected on m directions, or scaled
        column by column.
    """

    columns: Columns
    width: int
    center: npt.NDArray[np.float64] | None = None
    unit_rows: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    on_bad_rows: Literal["error", "drop"] = "error"
    encoding: Encoding | None = None
    axes: npt.NDArray[np.float64] | None = None
    digest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        h = hashlib.sha256()
        h.update(repr((self.columns, self.width, self.unit_rows, self.dtype, self.on_bad_rows)).encode())
        h.update(b"" if self.center is None else np.ascontiguousarray(self.center, "<f8").tobytes())
        h.update(b"" if self.encoding is None else repr(self.encoding).encode())
        if self.axes is not None:
            h.update(repr(self.axes.shape).encode() + np.ascontiguousarray(self.axes, "<f8").tobytes())
        object.__setattr__(self, "digest", h.hexdigest()[:24])

    @property
    def block_width(self) -> int:
        """Number of dimensions of the block's rows."""
        return self.width if self.axes is None else int(self.axes.shape[-1])


@dataclass(frozen=True)
class RawView:
    """Rows as the source has them, streamed in batches and not cached: for the profile pass.

    ``sample_rows`` is not part of it: steps carry their own settings.
    """

    columns: Columns
    width: int
    unit_rows: bool = False
    on_bad_rows: Literal["error", "drop"] = "error"


@dataclass(frozen=True)
class RecordView:
    """Columns of numbers and categories as the source has them, streamed in record batches: for the mixed profile."""

    columns: Columns


View = BlockView | RawView | RecordView
"""What a step sees of a partition: a block of transformed rows, or the raw rows or records in batches."""
