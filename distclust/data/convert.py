"""From Arrow arrays to the rows and weights that kernels take, with checks that name the row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.refs import Columns
from distclust.data.schema import element_type

FILL_DO = "Fill or remove the row."
FIX_DO = "Correct or remove the row."
WIDTH_DO = "Re-embed it, or choose files with a glob."


class RowError(Exception):
    """A row that cannot be used; becomes a `DataError` where the row's place is known."""

    def __init__(self, row: int, message: str, do: str) -> None:
        super().__init__(message)
        self.row = row
        self.message = message
        self.do = do


def to_values(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values as kernels take them: native byte order, C-contiguous, float16 as float32."""
    dtype = np.dtype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind == "f" else array.dtype
    return np.require(array, dtype.newbyteorder("="), ["C", "A"])


def batch_vectors(batch: pa.RecordBatch, columns: Columns, width: int, reference: str = "") -> npt.NDArray[Any]:
    """Return the vectors of a record batch, without a copy where the types allow.

    Raises
    ------
    RowError
        A null, or a list of another length than ``width``.
    """
    if columns.vector is None:
        arrays = [_numbers(batch.column(name), name) for name in columns.features]
        return to_values(np.stack(arrays, axis=1))
    name, vectors = columns.vector, batch.column(columns.vector)
    if isinstance(vectors, pa.ExtensionArray):
        vectors = vectors.storage
    if element_type(vectors.type) is None:
        return to_values(_numbers(vectors, name).reshape(-1, 1))
    if vectors.null_count:
        raise RowError(_first_null(vectors), f"the vector in column {name!r} is null.", FILL_DO)
    _check_lengths(vectors, name, width, reference)
    values = vectors.flatten()
    if values.null_count:
        at = _first_null(values)
        raise RowError(at // width, f"value {at % width} of the vector in column {name!r} is null.", FILL_DO)
    return to_values(values.to_numpy(zero_copy_only=False).reshape(-1, width))


def list_length(vectors: pa.Array, name: str) -> int:
    """Return the length of the first list.

    Raises
    ------
    RowError
        It is null or empty.
    """
    if not vectors[0].is_valid:
        raise RowError(0, f"the vector in column {name!r} is null.", FILL_DO)
    length = len(vectors[0])
    if not length:
        raise RowError(0, f"the vector in column {name!r} is empty.", FILL_DO)
    return length


def _check_lengths(vectors: pa.Array, name: str, width: int, reference: str) -> None:
    if pa.types.is_fixed_size_list(vectors.type):
        lengths: npt.NDArray[Any] = np.full(1, vectors.type.list_size)
    else:
        # Respects the offset of a slice, unlike the buffers.
        lengths = np.diff(vectors.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != width)
    if len(wrong) and len(vectors):
        row = int(wrong[0])
        raise RowError(row, width_message(f"column {name!r}", int(lengths[row]), width, reference), WIDTH_DO)


def width_message(what: str, found: int, width: int, reference: str) -> str:
    """Say that a column, or an array, has rows of the wrong width."""
    return f"{what} has {found} values, {width} {f'in {reference}' if reference else 'are expected'}."


def _numbers(array: pa.Array, name: str) -> npt.NDArray[Any]:
    if array.null_count:
        raise RowError(_first_null(array), f"column {name!r} is null.", FILL_DO)
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def batch_weights(batch: pa.RecordBatch, columns: Columns) -> npt.NDArray[np.float64] | None:
    """Return the weights of a record batch, None without a weight column.

    Raises
    ------
    RowError
        A weight is null, negative or not finite.
    """
    if columns.weight is None:
        return None
    weights = _numbers(batch.column(columns.weight), columns.weight).astype(np.float64)
    row = first_bad_weight(weights)
    if row is not None:
        raise RowError(row, weight_message(f"column {columns.weight!r}", weights[row]), FIX_DO)
    return weights


def first_bad_weight(weights: npt.NDArray[np.float64]) -> int | None:
    """Return the first row whose weight is negative or not finite."""
    wrong = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    return int(wrong[0]) if len(wrong) else None


def weight_message(what: str, weight: float) -> str:
    """Say what is wrong with a weight."""
    return f"the weight in {what} is {weight}; it must be finite and not negative."


def _first_null(array: pa.Array) -> int:
    return int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
