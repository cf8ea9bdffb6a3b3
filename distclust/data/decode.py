"""From files to rows: batches of raw values and weights, ids, and errors that name the row."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data import ipc, npy, parquet
from distclust.data.block import RawBatch
from distclust.data.categories import Encoding
from distclust.data.convert import RowError, batch_vectors, batch_weights, list_length, to_values
from distclust.data.encoding import encode_columns
from distclust.data.files import check_unchanged, reading
from distclust.data.memory import lookup
from distclust.data.refs import Columns, Format, PartitionRef
from distclust.data.schema import require_column
from distclust.errors import DataError, UsageError

BATCH_BYTES = 4 << 20
"""Float32 size of a batch: large enough to forget what a batch costs, small beside a block."""
MAX_BATCH_ROWS = 1 << 17
_ZERO_ROW = 2
"""`scan_rows` marks rows of zeros by it."""
_EMPTY_ROW, _INFINITE_ROW = 3, 4
"""`scan_mixed` marks rows without any value, and rows with infinity, by them."""


def default_batch_rows(width: int) -> int:
    """Return how many rows of a width make a batch of about 4 MB."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // (4 * width)))


def read_batches(
    ref: PartitionRef,
    columns: Columns,
    width: int,
    batch_rows: int | None = None,
    reference: str = "",
    encoding: Encoding | None = None,
) -> Iterator[RawBatch]:
    """Read the rows of a partition in input order.

    Parameters
    ----------
    ref : PartitionRef
        The partition.
    columns : Columns
        Where vectors and weights are.
    width : int
        Dimensions that every row must have.
    batch_rows : int, optional
        Most rows at a time; by default about 4 MB.
    reference : str, optional
        The file that set the width, for the error message.
    encoding : Encoding, optional
        How columns of numbers and categories become rows.

    Yields
    ------
    RawBatch
        Values in the source's type (float16 widened to float32), weights as float64.

    Raises
    ------
    DataError
        The file changed or is damaged; a vector is null or has another width; a weight is null, negative or not
        finite.
    OSError
        The file cannot be read now; another attempt may succeed.
    """
    start = 0
    batch_rows = batch_rows or default_batch_rows(width)
    if encoding is not None:
        for start, batch in read_records(ref, columns, batch_rows):
            yield RawBatch(encode_columns(encoding, batch), record_weights(ref, columns, start, batch), start)
        return
    for values, weights in _parts(ref, columns, width, batch_rows, reference):
        yield RawBatch(values, weights, start)
        start += len(values)
    _check_count(ref, start)


def read_records(
    ref: PartitionRef, columns: Columns, batch_rows: int | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Read the features and the weight of a partition's rows in input order, as the source has them.

    Yields
    ------
    (position of the first row, record batch)

    Raises
    ------
    DataError
        The file changed or is damaged.
    OSError
        The file cannot be read now; another attempt may succeed.
    """
    _check(ref)
    start = 0
    for batch in _record_batches(ref, _used(columns), batch_rows or default_batch_rows(len(columns.features))):
        yield start, batch
        start += batch.num_rows
    _check_count(ref, start)


def record_weights(
    ref: PartitionRef, columns: Columns, start: int, batch: pa.RecordBatch
) -> npt.NDArray[np.float64] | None:
    """Return the weights of a record batch that begins at row ``start`` of a partition; `DataError` for a bad one."""
    try:
        return batch_weights(batch, columns)
    except RowError as error:
        raise DataError(error.message, where=place(ref, start + error.row), do=error.do) from None


def _check_count(ref: PartitionRef, found: int) -> None:
    if found != ref.n_rows:
        raise DataError(
            f"{found} rows instead of the {ref.n_rows} that were planned.",
            where=ref.describe(),
            do="The file changed; start the run again.",
        )


def _used(columns: Columns) -> tuple[str, ...]:
    names = (columns.vector,) if columns.vector is not None else columns.features
    return names + ((columns.weight,) if columns.weight is not None and columns.weight not in names else ())


def read_ids(ref: PartitionRef, columns: Columns) -> pa.Array:
    """Return the ids of a partition's rows in input order: the id column, or int64 global row ids.

    Raises
    ------
    DataError
        The file changed or is damaged.
    """
    if ref.format == "memory" and columns.id is not None:
        ids = lookup(ref.uri).ids
        if ids is not None:
            return ids.slice(ref.start, ref.n_rows)
    if columns.id is None or ref.format in ("memory", "npy"):
        return pa.array(np.arange(ref.offset, ref.offset + ref.n_rows, dtype=np.int64))
    return _column(ref, columns.id)


def read_column(ref: PartitionRef, name: str, what: str = "column") -> pa.Array:
    """Return any column of a partition's rows in input order.

    Parameters
    ----------
    ref : PartitionRef
        The partition.
    name : str
        Of the column.
    what : str, default="column"
        What the user calls it, for the error message.

    Raises
    ------
    UsageError
        The file has no such column, or no named columns at all.
    DataError
        The file changed or is damaged.
    """
    column_type(ref.uri, ref.format, name, what)
    return _column(ref, name)


def column_type(uri: str, format: Format, name: str, what: str = "column") -> pa.DataType:
    """Return the type of any column of a file; see `read_column` for what is raised."""
    if format in ("memory", "npy"):
        raise UsageError(f"{what} is {name!r}, but the rows have no named columns.", where=uri)
    schema = (parquet if format == "parquet" else ipc).survey(uri, None).schema
    return require_column(schema, name, uri, what)


def _column(ref: PartitionRef, name: str) -> pa.Array:
    _check(ref)
    parts = [batch.column(0) for batch in _record_batches(ref, (name,), MAX_BATCH_ROWS)]
    # Chunks of a dictionary column may have different dictionaries, which concat_arrays would refuse.
    return pa.chunked_array(parts).unify_dictionaries().combine_chunks()


def first_length(ref: PartitionRef, columns: Columns) -> int:
    """Return the length of the first list in a partition's vector column.

    Raises
    ------
    DataError
        It is null or empty, or the file is damaged.
    """
    assert columns.vector is not None
    _check(ref)
    batches = _record_batches(ref, (columns.vector,), 1)
    try:
        return list_length(next(batches).column(0), columns.vector)
    except RowError as error:
        raise DataError(error.message, where=place(ref, 0), do=error.do) from None
    finally:
        batches.close()


def bad_row_error(ref: PartitionRef, position: int, found: int, values: npt.NDArray[Any] | None = None) -> DataError:
    """Return the error for a row that `scan_rows` rejects.

    Parameters
    ----------
    ref : PartitionRef
        The partition.
    position : int
        Of the row within the partition.
    found : int
        1 for NaN or infinity, 2 for a row of zeros, 3 for a row of missing values, 4 for infinity.
    values : (d,) array, optional
        The row; names the first value that is not finite.
    """
    if found == _ZERO_ROW:
        message = "the vector is zero, which has no direction."
    elif found == _EMPTY_ROW:
        message = "all values of the row are missing."
    else:
        message = "the vector has a value that is not finite."
        if values is not None and not np.isfinite(values).all():
            wrong = np.isinf(values) if found == _INFINITE_ROW else ~np.isfinite(values)
            at = int(np.flatnonzero(wrong)[0])
            message = f"value {at} of the vector is {'NaN' if np.isnan(values[at]) else values[at]}."
    return DataError(
        message,
        where=place(ref, position),
        do="Repair or remove the row, or drop such rows with on_bad_rows='drop' (--on-bad-rows drop).",
    )


def scan_mixed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Mark the encoded rows that cannot be used, as `bad_row_error` takes it."""
    bad = np.where(np.isinf(values).any(axis=1), np.uint8(_INFINITE_ROW), np.uint8(0))
    bad[np.isnan(values).all(axis=1)] = _EMPTY_ROW
    return bad


def place(ref: PartitionRef, position: int) -> str:
    """Name a row for an error message: file, row group, row in the file, global row."""
    everywhere = f"row {ref.offset + position} of the dataset"
    if ref.format == "memory":
        return f"array row {ref.start + position}"
    if ref.format == "npy":
        return f"{ref.uri}, row {ref.start + position} ({everywhere})"
    sizes = _group_rows(ref)
    row = ref.start + position
    group = 0
    for group in ref.groups:
        if row < sizes[group]:
            break
        row -= sizes[group]
    what = "row group" if ref.format == "parquet" else "record batch"
    return f"{ref.uri}, {what} {group}, row {sum(sizes[:group]) + row} of the file ({everywhere})"


def _group_rows(ref: PartitionRef) -> list[int]:
    reader = parquet.survey(ref.uri, None) if ref.format == "parquet" else ipc.survey(ref.uri, Columns())
    return [group.n_rows for group in reader.groups]


def _check(ref: PartitionRef) -> None:
    with reading(ref.uri, ref.format):
        check_unchanged(ref.uri, ref.fingerprint)


def _record_batches(
    ref: PartitionRef, names: tuple[str, ...], batch_rows: int
) -> Generator[pa.RecordBatch, None, None]:
    source = parquet if ref.format == "parquet" else ipc
    return source.record_batches(ref, names, batch_rows)


def _parts(
    ref: PartitionRef, columns: Columns, width: int, batch_rows: int, reference: str
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]]:
    if ref.format == "memory":
        rows = lookup(ref.uri)
        for at in range(ref.start, ref.start + ref.n_rows, batch_rows):
            run = slice(at, min(at + batch_rows, ref.start + ref.n_rows))
            yield to_values(rows.values[run]), None if rows.weights is None else rows.weights[run]
        return
    _check(ref)
    if ref.format == "npy":
        for array in npy.arrays(ref, batch_rows):
            if array.shape[1] != width:
                raise DataError(f"rows have {array.shape[1]} values, {width} are expected.", where=ref.uri)
            yield to_values(array), None
        return
    start = 0
    for batch in _record_batches(ref, _used(columns), batch_rows):
        try:
            yield batch_vectors(batch, columns, width, reference), batch_weights(batch, columns)
        except RowError as error:
            raise DataError(error.message, where=place(ref, start + error.row), do=error.do) from None
        start += batch.num_rows
