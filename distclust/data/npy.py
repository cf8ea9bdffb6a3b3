"""``.npy`` files: the header, and runs of rows read by position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.files import open_file, reading
from distclust.data.refs import PartitionRef
from distclust.data.schema import ALLOWED, VALUE_TYPES
from distclust.data.survey import FileFacts, GroupFacts
from distclust.errors import DataError
from distclust.stats.codec import HEADER_LOCK

KIND = "npy"


class Header(NamedTuple):
    """Shape and place of the array in a file."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    by_columns: bool
    """Stored column after column (Fortran order)."""
    at: int
    """Byte of the first value."""


def survey(uri: str) -> FileFacts:
    """Read a file's header.

    Raises
    ------
    DataError
        The file is no npy file, is truncated, or its array is not two-dimensional and numeric.
    """
    with reading(uri, KIND), open_file(uri) as source:
        header = _header(uri, source)
        (n, d), size = header.shape, source.size()
    needed = header.at + n * d * header.dtype.itemsize
    if size < needed:
        raise DataError(
            f"not a readable npy file: it has {size} bytes, its header says {needed}.",
            where=uri,
            do="Write it again, or leave it out.",
        )
    return FileFacts(None, (GroupFacts(n),), header.dtype.newbyteorder("=").name, d)


def arrays(ref: PartitionRef, batch_rows: int) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of a partition, at most ``batch_rows`` at a time, in the file's type and byte order."""
    with reading(ref.uri, KIND), open_file(ref.uri) as source:
        header = _header(ref.uri, source)
        stop = min(ref.start + ref.n_rows, header.shape[0])
        for row in range(ref.start, stop, batch_rows):
            yield _rows(source, header, row, min(batch_rows, stop - row))


def _rows(source: pa.NativeFile, header: Header, row: int, m: int) -> npt.NDArray[Any]:
    (n, d), item = header.shape, header.dtype.itemsize
    if not header.by_columns:
        return _read(source, header.dtype, header.at + row * d * item, m * d).reshape(m, d)
    out = np.empty((m, d), header.dtype)
    for column in range(d):
        out[:, column] = _read(source, header.dtype, header.at + (column * n + row) * item, m)
    return out


def _read(source: pa.NativeFile, dtype: np.dtype[Any], at: int, count: int) -> npt.NDArray[Any]:
    source.seek(at)
    buffer = source.read_buffer(count * dtype.itemsize)
    if buffer.size < count * dtype.itemsize:
        raise pa.ArrowInvalid("it is shorter than its header says")
    return np.frombuffer(buffer, dtype, count)


def _header(uri: str, source: pa.NativeFile) -> Header:
    try:
        version = np.lib.format.read_magic(source)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with HEADER_LOCK:
            shape, by_columns, dtype = read(source)
    except ValueError as exc:
        raise pa.ArrowInvalid(str(exc)) from exc
    if len(shape) != 2:
        raise DataError(
            f"the array has {len(shape)} dimensions, 2 are needed: rows and columns.",
            where=uri,
            do="Save it with array.reshape(n_rows, -1).",
        )
    if dtype.newbyteorder("=").name not in VALUE_TYPES:
        raise DataError(f"the array has type {dtype}; {ALLOWED}.", where=uri, do="Save array.astype('float32').")
    return Header((shape[0], shape[1]), dtype, by_columns, source.tell())
