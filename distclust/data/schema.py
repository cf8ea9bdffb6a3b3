"""Which columns can be vectors, ids and weights, and which ones a dataset means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.categories import ColumnKind
from distclust.data.encoding import MIXED_ALLOWED, column_kind, may_be_category
from distclust.data.refs import Columns
from distclust.errors import DataError, UsageError, nearest_name

VALUE_TYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")
"""What vectors may consist of, by numpy's names."""
ALLOWED = f"allowed are {', '.join(VALUE_TYPES)}"
CATEGORY_DO = "Encode it as numbers, or cluster categories by k-medoids with metric='gower' (--metric gower)."
LABEL_COLUMNS = frozenset({"cluster", "distance"})
"""Columns of the label files besides the id."""

_ARROW_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}


def value_type(kind: pa.DataType) -> str | None:
    """Return numpy's name of a plain numeric type that vectors may consist of, else None."""
    name = _ARROW_NAMES.get(str(kind), str(kind))
    return name if name in VALUE_TYPES else None


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type under an extension type (a fixed-shape tensor is a fixed-size list)."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def element_type(kind: pa.DataType) -> str | None:
    """Return numpy's name of the values of a list type, None for any other type."""
    kind = storage_type(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return value_type(kind.value_type) if is_list else None


def fixed_width(kind: pa.DataType) -> int | None:
    """Return the length that a type gives to its lists; 1 for a plain number, None where rows decide."""
    kind = storage_type(kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    return None if element_type(kind) is not None else 1


def vector_type(schema: pa.Schema, columns: Columns) -> npt.DTypeLike:
    """Return the type of the values that the chosen columns hold together."""
    if columns.kinds:
        return np.float64
    if columns.vector is not None:
        kind = schema.field(columns.vector).type
        return np.dtype(element_type(kind) or value_type(kind))
    return np.result_type(*(str(value_type(schema.field(name).type)) for name in columns.features))


@dataclass(frozen=True)
class ColumnChoice:
    """What the user said about columns.

    Attributes
    ----------
    column : str or None
        The vector column; None for the only list-of-numbers column.
    columns : tuple of str
        Plain numeric columns that together are the vector, instead of ``column``.
    id_column, weight_column : str or None
        As in `Columns`.
    mixed : bool
        ``columns`` may hold numbers and categories, with missing values.
    categorical : tuple of str
        Columns of integers that are categories all the same.
    """

    column: str | None = None
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    weight_column: str | None = None
    mixed: bool = False
    categorical: tuple[str, ...] = ()

    def require_none(self, what: str) -> None:
        """Raise `UsageError` if a column was named for data that has no columns."""
        named = ("column", "columns", "id_column", "weight_column", "categorical")
        given = [name for name in named if getattr(self, name)]
        if given:
            raise UsageError(f"{' and '.join(given)} given, but {what} no named columns.", do="Leave it out.")


def choose_columns(schema: pa.Schema, choice: ColumnChoice, where: str) -> Columns:
    """Decide which columns of a dataset hold what.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the first file.
    choice : ColumnChoice
        What the user said.
    where : str
        Names the file in errors.

    Raises
    ------
    UsageError
        A column does not exist, has a type that does not fit, or the choice is not unique.
    DataError
        Nothing is numeric.
    """
    column, columns = choice.column, choice.columns
    id_column, weight_column = choice.id_column, choice.weight_column
    if column is not None and columns:
        raise UsageError("column and columns are both given; give one list column, or several plain ones.")
    if len(set(columns)) < len(columns):
        raise UsageError("columns names a column twice.")
    for what, name in (("id_column", id_column), ("weight_column", weight_column)):
        if name is not None:
            require_column(schema, name, where, what)
    if id_column in LABEL_COLUMNS:
        raise UsageError(f"id_column is {id_column!r}, which is a column of the label files.", do="Rename it first.")
    if choice.mixed:
        return _choose_mixed(schema, choice, where)
    if not columns and column is None:
        column = _only_list_column(schema, {id_column, weight_column}, where)
    chosen = Columns(column, columns, id_column, weight_column)
    check_columns(schema, chosen, where)
    return chosen


def _choose_mixed(schema: pa.Schema, choice: ColumnChoice, where: str) -> Columns:
    usable = [field.name for field in schema if column_kind(field.type) is not None]
    if choice.column is not None or not choice.columns:
        raise UsageError(
            "rows of numbers and categories are made of several columns, which have to be named.",
            where=where,
            do=f"Give columns (--columns), some of {_list(usable)}.",
        )
    for name in choice.categorical:
        if name not in choice.columns:
            raise UsageError(
                f"categorical names {name!r}, which is not among the columns {_list(list(choice.columns))}.",
                do=nearest_name(name, choice.columns),
            )
        kind = require_column(schema, name, where, "categorical")
        if not may_be_category(kind):
            raise UsageError(
                f"column {name!r} has type {kind}, whose values cannot be categories.",
                where=where,
                do="Cast it to integers or strings, or leave it out of categorical (--categorical).",
            )
    kinds: list[ColumnKind] = []
    for name in choice.columns:
        kind = require_column(schema, name, where, "columns")
        found = "category" if name in choice.categorical else column_kind(kind)
        if found is None:
            raise UsageError(f"column {name!r} has type {kind}; {MIXED_ALLOWED}.", where=where, do="Cast it.")
        kinds.append(found)
    chosen = Columns(None, choice.columns, choice.id_column, choice.weight_column, tuple(kinds))
    check_columns(schema, chosen, where)
    return chosen


def _check_mixed(schema: pa.Schema, columns: Columns, where: str) -> None:
    for name, wanted in zip(columns.features, columns.kinds, strict=True):
        kind = require_column(schema, name, where, "columns")
        fits = column_kind(kind) == "number" if wanted == "number" else may_be_category(kind)
        if not fits:
            raise UsageError(f"column {name!r} has type {kind}, a {wanted} is needed.", where=where)


def check_columns(schema: pa.Schema, columns: Columns, where: str) -> None:
    """Raise `UsageError` if a chosen column is missing from a file or has a type that does not fit."""
    if columns.vector is not None:
        kind = require_column(schema, columns.vector, where, "column")
        if element_type(kind) is None and value_type(kind) is None:
            raise UsageError(
                f"column {columns.vector!r} has type {kind}, which is neither a list of numbers nor a number; "
                f"{ALLOWED}.",
                where=where,
            )
    plain = [] if columns.kinds else [("columns", name) for name in columns.features]
    if columns.kinds:
        _check_mixed(schema, columns, where)
    if columns.weight is not None:
        plain.append(("weight_column", columns.weight))
    for what, name in plain:
        kind = require_column(schema, name, where, what)
        if value_type(kind) is None:
            raise UsageError(
                f"column {name!r} has type {kind}; {what} takes plain numbers: {ALLOWED}.",
                where=where,
                do=CATEGORY_DO if what == "columns" and may_be_category(kind) else "",
            )


def require_column(schema: pa.Schema, name: str, where: str, what: str) -> pa.DataType:
    """Return the type of a column, or raise `UsageError` with the nearest name."""
    found = schema.get_all_field_indices(name)
    if len(found) == 1:
        return schema.field(found[0]).type
    if found:
        raise UsageError(f"{what} {name!r} occurs {len(found)} times.", where=where, do="Rename the others.")
    raise UsageError(
        f"no column {name!r}, columns are {_list(schema.names)}.", where=where, do=nearest_name(name, schema.names)
    )


def _only_list_column(schema: pa.Schema, taken: set[str | None], where: str) -> str:
    free = [field for field in schema if field.name not in taken]
    lists = [field.name for field in free if element_type(field.type) is not None]
    if len(lists) == 1:
        return lists[0]
    if lists:
        raise UsageError(
            f"several columns hold lists of numbers: {_list(lists)}.",
            where=where,
            do="Choose one with column (--column).",
        )
    plain = [field.name for field in free if value_type(field.type) is not None]
    if plain:
        raise UsageError(
            f"no column holds lists of numbers; plain numeric columns are {_list(plain)}.",
            where=where,
            do="Choose with column (--column) for one, columns (--columns) for several that together are the vector.",
        )
    raise DataError(
        f"no column is numeric; found are {_list([f'{field.name} ({field.type})' for field in schema])}.",
        where=where,
        do=f"Vectors are lists of numbers or numeric columns; {ALLOWED}.",
    )


def _list(names: list[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
