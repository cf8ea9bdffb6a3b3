"""Rows of numbers and categories with missing values, as float64: what mixed metrics compare.

A number stays what it is, a category becomes its place among the sorted categories, a missing value becomes NaN. A
category that the encoding does not know gets the next free code: it differs from every known one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distclust.data.categories import ColumnKind, Encoding

MIXED_ALLOWED = "allowed are integers, floating-point numbers, strings, dictionaries of these, and booleans"


def column_kind(kind: pa.DataType) -> ColumnKind | None:
    """Tell whether a column of this type holds numbers or categories; None for neither."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "category" if may_be_category(kind) else None


def may_be_category(kind: pa.DataType) -> bool:
    """Tell whether values of this type can be taken as categories: all but fractions and nested or binary ones."""
    if pa.types.is_dictionary(kind):
        return may_be_category(kind.value_type)
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_boolean)
    return pa.types.is_integer(kind) or any(fits(kind) for fits in plain)


def category_texts(column: pa.Array) -> pa.Array:
    """Return the categories of a column as strings; null stays null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pc.cast(column, pa.string())


def numbers_of(column: pa.Array) -> npt.NDArray[np.float64]:
    """Return a column of numbers as float64, missing ones as NaN."""
    numbers: npt.NDArray[np.float64] = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers


def encode_columns(encoding: Encoding, batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    """Return the rows of a record batch that has the columns.

    Returns
    -------
    (n, d) float64 array, C-contiguous

    Examples
    --------
    >>> batch = pa.record_batch({"size": [1.5, None, 2.0], "cut": ["Ideal", "Fair", "new"]})
    >>> encode_columns(Encoding(("size", "cut"), (None, ("Fair", "Ideal"))), batch).tolist()
    [[1.5, 1.0], [nan, 0.0], [2.0, 2.0]]
    """
    out = np.empty((batch.num_rows, len(encoding.names)))
    for at, (name, known) in enumerate(zip(encoding.names, encoding.categories, strict=True)):
        column = batch.column(name)
        out[:, at] = numbers_of(column) if known is None else _codes(column, known)
    return out


def decode_columns(encoding: Encoding, rows: npt.NDArray[np.floating]) -> pa.Table:
    """Return rows as a table of numbers and strings; missing values are null, as are categories not known."""
    columns: dict[str, pa.Array] = {}
    for at, (name, known) in enumerate(zip(encoding.names, encoding.categories, strict=True)):
        values = rows[:, at].astype(np.float64)
        missing = np.isnan(values)
        if known is None:
            columns[name] = pa.array(values, mask=missing)
        else:
            codes = np.where(missing, 0, values).astype(np.int64)
            columns[name] = pa.array(known, pa.string()).take(pa.array(codes, mask=missing | (codes >= len(known))))
    return pa.table(columns)


def _codes(column: pa.Array, known: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return each value's place among the known categories, ``len(known)`` for others, NaN where it is missing."""
    encoded = column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
    # One more entry at the end, so that a missing value (code -1) finds NaN there.
    place = np.full(len(encoded.dictionary) + 1, np.nan)
    places = {text: i for i, text in enumerate(known)}
    for i, text in enumerate(category_texts(encoded.dictionary).to_pylist()):
        place[i] = np.nan if text is None else places.get(text, len(known))
    return place[encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)]
