"""What users hand to an estimator, as a source that the engine's workers can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distclust.data.sources import Source, open_source
from distclust.data.storage import open_storage
from distclust.engines.frames import frame_package, stage_frame
from distclust.engines.open import open_engine
from distclust.engines.protocol import Engine
from distclust.ops.stage import stage_memory


@dataclass(frozen=True)
class RowColumns:
    """Column names that a caller gave for a dataset."""

    column: str | None = None
    columns: Sequence[str] = ()
    id_column: str | None = None
    weight_column: str | None = None


def is_dataset(X: Any) -> bool:
    """Tell whether ``X`` is a dataset on storage, an engine's frame or an Arrow table: no array for scikit-learn."""
    if isinstance(X, str | Path | pa.Table):
        return True
    if isinstance(X, list | tuple) and X and all(isinstance(part, str | Path) for part in X):
        return True
    return frame_package(X) is not None or (_is_polars(X) and any(dtype.is_nested() for dtype in X.dtypes))


def is_frame(X: Any) -> bool:
    """Tell whether ``X`` is a data frame in memory, of pandas or polars."""
    package = type(X).__module__.partition(".")[0]
    return package in ("pandas", "polars") and getattr(X, "ndim", 2) == 2 and hasattr(X, "columns")


def _is_polars(X: Any) -> bool:
    return type(X).__module__.partition(".")[0] == "polars"


@contextmanager
def opened(
    X: Any,
    engine: Any,
    names: RowColumns,
    *,
    weights: Any = None,
    staging: str | None = None,
    categorical: Sequence[str] | None = None,
) -> Iterator[tuple[Engine, Source]]:
    """Open an engine and a source on it; close what was opened here at the end.

    Parameters
    ----------
    X : array, path or paths, Arrow table, polars, Spark or Dask frame
    engine : str, client, session or Engine
    names : RowColumns
    weights : (n,) float64, optional
        For arrays.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet: they are written below it and
        stay there. Default: a temporary one.
    categorical : sequence of str, optional
        Given, even empty: rows are numbers and categories, and these columns of integers are categories.
    """
    mixed = categorical is not None
    ours = not hasattr(engine, "fold")
    opened_engine: Engine = open_engine(engine)
    temporary: tempfile.TemporaryDirectory[str] | None = None
    in_memory: Source | None = None
    try:
        if _needs_staging(X, opened_engine, mixed):
            if staging is None:
                temporary = tempfile.TemporaryDirectory(prefix="distclust-staging-")
                staging = temporary.name
            staging = f"{staging.rstrip('/')}/{token_hex(6)}"  # each call writes rows of its own
        if frame_package(X) is not None:
            assert staging is not None
            X = stage_frame(X, staging, engine)
        elif _is_polars(X):
            X = X.to_arrow()
        if mixed and (isinstance(X, pa.Table) or is_frame(X)):
            assert staging is not None
            X, names = _stage_table(X, staging, names)
        source = open_source(
            X,
            column=names.column,
            columns=tuple(names.columns),
            id_column=names.id_column,
            weight_column=names.weight_column,
            weights=weights,
            mixed=mixed,
            categorical=tuple(categorical or ()),
        )
        if source.files[0].format == "memory":
            in_memory = source
            if not opened_engine.info.sees_driver_memory:
                assert staging is not None
                source = stage_memory(source, staging)
        yield opened_engine, source
    finally:
        if ours:
            opened_engine.close()
        if in_memory is not None:
            in_memory.close()
        if temporary is not None:
            temporary.cleanup()


def _needs_staging(X: object, engine: Engine, mixed: bool) -> bool:
    if frame_package(X) is not None or (mixed and (isinstance(X, pa.Table) or is_frame(X))):
        return True
    return not isinstance(X, str | Path | list | tuple) and not engine.info.sees_driver_memory


def _stage_table(X: Any, staging: str, names: RowColumns) -> tuple[str, RowColumns]:
    """Write a table of numbers and categories as Parquet; without names all its columns count."""
    whole: pa.Table = X if isinstance(X, pa.Table) else pa.Table.from_pandas(X, preserve_index=False)
    storage = open_storage(staging)
    with storage.open_output("rows.parquet") as file:
        pq.write_table(whole, file)
    left_out = {names.id_column, names.weight_column}
    columns = names.columns or tuple(name for name in whole.column_names if name not in left_out)
    return f"{storage.uri}/rows.parquet", replace(names, columns=columns)
