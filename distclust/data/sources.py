"""What users hand in (files, directories, globs, URIs, arrays, tables) as one sorted, checked source of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.convert import (
    FIX_DO,
    RowError,
    batch_vectors,
    batch_weights,
    first_bad_weight,
    list_length,
    to_values,
    weight_message,
)
from distclust.data.dataset import open_dataset
from distclust.data.files import find_files
from distclust.data.memory import SCHEME, lookup, register, release
from distclust.data.refs import Columns, Fingerprint
from distclust.data.schema import ALLOWED, VALUE_TYPES, ColumnChoice, choose_columns, fixed_width
from distclust.data.survey import SourceFile
from distclust.errors import DataError, UsageError

Rows: TypeAlias = str | Path | Sequence[str | Path] | npt.NDArray[Any] | pa.Table
_HASH_ROWS = 1 << 16


@dataclass(frozen=True)
class Source:
    """Rows of a dataset: checked, in a fixed order, not read yet.

    Attributes
    ----------
    files : tuple of SourceFile
        Sorted by path: the global row id of a row is its position in this order.
    columns : Columns
        Where vectors, ids and weights are.
    width : int
        Number of dimensions.
    dtype : str
        Type that holds the values of all files, by numpy's name.
    """

    files: tuple[SourceFile, ...]
    columns: Columns
    width: int
    dtype: str

    @property
    def n_rows(self) -> int:
        """Number of rows, bad ones included."""
        return sum(file.n_rows for file in self.files)

    def fingerprint(self) -> str:
        """Return a digest of the input: paths, sizes, times or etags, row counts, columns; of an array, its content."""
        digest = hashlib.sha256(repr((self.columns, self.width)).encode())
        for file in self.files:
            if file.format == "memory":
                _hash_array(digest, file.uri)
            else:
                digest.update(repr((file.uri, file.fingerprint, file.n_rows)).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return files, sizes, times or etags and row counts as plain values, for ``run.json``."""
        return {
            "rows": self.n_rows,
            "width": self.width,
            "dtype": self.dtype,
            "columns": {name: value for name, value in asdict(self.columns).items() if name != "kinds" or value},
            "files": [
                {"uri": file.uri, "format": file.format, "rows": file.n_rows, **asdict(file.fingerprint)}
                for file in self.files
            ],
        }

    def describe_place(self) -> str:
        """Name the source for an error message."""
        if self.files[0].format == "memory":
            return f"array of {self.n_rows} rows"
        if len(self.files) == 1:
            return self.files[0].uri
        return f"{len(self.files)} files from {self.files[0].uri} to {self.files[-1].uri}"

    def close(self) -> None:
        """Release arrays in memory with all blocks made from them; files need nothing. Twice is harmless."""
        for file in self.files:
            if file.format == "memory":
                release(file.uri)


def open_source(
    data: Rows,
    *,
    column: str | None = None,
    columns: Sequence[str] = (),
    id_column: str | None = None,
    weight_column: str | None = None,
    weights: npt.ArrayLike | None = None,
    mixed: bool = False,
    categorical: Sequence[str] = (),
) -> Source:
    """Open rows for a run. Of files, footers and headers are read; no rows.

    Parameters
    ----------
    data : path, URI, several of them, array or Arrow table
        Parquet, Arrow IPC or npy files: a file, a directory (searched recursively; names that begin with ``_`` or
        ``.`` are left out), a glob, or a list of these. Or an (n, d) array or an Arrow table, which stay where
        they are.
    column : str, optional
        List column with the vectors, or one numeric column; by default the only list-of-numbers column.
    columns : sequence of str, optional
        Numeric columns that together are the vector, instead of ``column``.
    id_column : str, optional
        Copied into label files; by default the global row id.
    weight_column : str, optional
        Finite, non-negative row weights; by default 1.
    weights : (n,) array, optional
        The same for arrays.
    mixed : bool, default=False
        ``columns`` of files may hold numbers and categories (strings, dictionaries, booleans), with missing values.
    categorical : sequence of str, optional
        With ``mixed``, columns of integers that are categories.

    Returns
    -------
    Source
        Close it to release an array in memory.

    Raises
    ------
    DataError
        Files are missing, empty, damaged, of several formats, widths or schemas, or hold nulls.
    UsageError
        Columns or parameters that do not fit the data.

    Examples
    --------
    >>> import numpy as np
    >>> source = open_source(np.eye(3, dtype=np.float32))
    >>> source.n_rows, source.width, source.dtype
    (3, 3, 'float32')
    >>> source.close()
    """
    if isinstance(columns, str):
        raise UsageError(f"columns is {columns!r}; it takes a list of names.", do="For one column, use column.")
    choice = ColumnChoice(column, tuple(columns), id_column, weight_column, mixed, tuple(categorical))
    if categorical and not mixed:
        raise UsageError("categorical is for rows of numbers and categories (metric='gower').", do="Leave it out.")
    if mixed and isinstance(data, np.ndarray | pa.Table):
        raise UsageError(
            f"data is a {type(data).__name__}; numbers and categories are read from Parquet or Arrow IPC files.",
            do="Write it with pyarrow.parquet.write_table; estimators do so themselves.",
        )
    if isinstance(data, np.ndarray):
        choice.require_none("an array has")
        return _open_array(data, weights)
    if isinstance(data, pa.Table):
        if weights is not None and weight_column is not None:
            raise UsageError("weights and weight_column are both given; give one of them.")
        return _open_table(data, choice, weights)
    if weights is not None:
        raise UsageError("weights is for arrays.", do="For files, name the column: weight_column (--weight-column).")
    items: Sequence[str | Path] = [data] if isinstance(data, str | Path) else data
    if not isinstance(items, Sequence) or not all(isinstance(item, str | Path) for item in items):
        raise UsageError(
            f"data is a {type(data).__name__}; allowed are paths and URIs, a numpy array, an Arrow table.",
            do="Convert rows with numpy.asarray(rows, 'float32').",
        )
    if not items:
        raise DataError("the list of files is empty.", do="Give at least one file.")
    if any(str(item).startswith(SCHEME) for item in items):
        raise UsageError(f"{SCHEME} addresses are for arrays of this process.", do="Give the array itself.")
    dataset = open_dataset(find_files(items), choice)
    return Source(dataset.files, dataset.columns, dataset.width, dataset.dtype)


def _open_array(values: npt.NDArray[Any], weights: npt.ArrayLike | None) -> Source:
    values = np.asarray(values)
    if values.ndim != 2:
        raise UsageError(
            f"the array has {values.ndim} dimension(s), 2 are needed: rows and columns.",
            do="Use array.reshape(n_rows, -1).",
        )
    if values.dtype.newbyteorder("=").name not in VALUE_TYPES:
        raise UsageError(f"the array has type {values.dtype}; {ALLOWED}.", do="Use array.astype('float32').")
    if not values.size:
        raise DataError(f"the array has {values.shape[0]} rows and {values.shape[1]} columns; there is nothing to use.")
    checked = _check_weights(weights, len(values))
    columns = Columns() if checked is None else Columns(weight="weights")
    return _registered(values, checked, None, columns)


def _open_table(table: pa.Table, choice: ColumnChoice, weights: npt.ArrayLike | None) -> Source:
    columns = choose_columns(table.schema, choice, "table")
    if not table.num_rows:
        raise DataError("the table has no rows.")
    used = list(dict.fromkeys(name for name in (columns.vector, *columns.features, columns.weight) if name is not None))
    values: list[npt.NDArray[Any]] = []
    found: list[npt.NDArray[np.float64]] = []
    row = 0
    width = len(columns.features) if columns.vector is None else fixed_width(table.schema.field(columns.vector).type)
    for batch in table.select(used).to_batches():
        if not batch.num_rows:
            continue
        try:
            if width is None:
                width = list_length(batch.column(columns.vector), str(columns.vector))
            values.append(batch_vectors(batch, columns, width))
            weighed = batch_weights(batch, columns)
        except RowError as error:
            raise DataError(error.message, where=f"table row {row + error.row}", do=error.do) from None
        if weighed is not None:
            found.append(weighed)
        row += batch.num_rows
    merged = values[0] if len(values) == 1 else np.concatenate(values)
    checked = _check_weights(weights, table.num_rows)
    if checked is not None:
        columns = Columns(columns.vector, columns.features, columns.id, "weights")
    elif found:
        checked = np.concatenate(found)
    ids = None if columns.id is None else table.column(columns.id).unify_dictionaries().combine_chunks()
    return _registered(merged, checked, ids, columns)


def _registered(
    values: npt.NDArray[Any], weights: npt.NDArray[np.float64] | None, ids: pa.Array | None, columns: Columns
) -> Source:
    token = register(values, weights, ids)
    dtype = values.dtype.newbyteorder("=").name
    file = SourceFile(f"{SCHEME}{token}", "memory", Fingerprint(values.nbytes, etag=token), (len(values),), dtype)
    return Source((file,), columns, values.shape[1], dtype)


def _check_weights(weights: npt.ArrayLike | None, n_rows: int) -> npt.NDArray[np.float64] | None:
    if weights is None:
        return None
    checked = np.ascontiguousarray(weights, np.float64)
    if checked.shape != (n_rows,):
        raise UsageError(f"weights has shape {checked.shape}, ({n_rows},) is needed: one for each row.")
    row = first_bad_weight(checked)
    if row is not None:
        raise DataError(weight_message("weights", checked[row]), where=f"array row {row}", do=FIX_DO)
    return checked


def _hash_array(digest: Any, uri: str) -> None:
    rows = lookup(uri)
    digest.update(repr((rows.values.shape, rows.values.dtype.name, rows.weights is not None)).encode())
    for at in range(0, len(rows.values), _HASH_ROWS):
        digest.update(to_values(rows.values[at : at + _HASH_ROWS]).data)
    if rows.weights is not None:
        digest.update(rows.weights.data)
