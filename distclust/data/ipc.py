"""Arrow IPC files, in the file format and in the stream format: record batches as groups."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from distclust.data.files import open_file, reading
from distclust.data.refs import Columns, PartitionRef
from distclust.data.schema import element_type, fixed_width
from distclust.data.survey import FileFacts, GroupFacts

KIND = "Arrow IPC"
_FILE_MAGIC = b"ARROW1"


def survey(uri: str, columns: Columns | None) -> FileFacts:
    """Read a file's schema and record batches; of a memory-mapped file only the list offsets are touched.

    Parameters
    ----------
    uri : str
        The file.
    columns : Columns or None
        Columns whose lengths and nulls are wanted; None for the schema alone.

    Raises
    ------
    DataError
        The file is no Arrow IPC file, or damaged.
    """
    with reading(uri, KIND), open_file(uri) as source:
        if columns is None:
            return FileFacts(_reader(source).schema, ())
        schema = _reader(source).schema
        names = tuple(
            name
            for name in (columns.vector, *columns.features, columns.weight)
            if name is not None and schema.get_field_index(name) >= 0
        )
        groups = tuple(_facts(batch, columns) for _, batch in _batches(source, names or tuple(schema.names[:1]), None))
    return FileFacts(schema, groups)


def record_batches(ref: PartitionRef, names: tuple[str, ...], batch_rows: int) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of a partition, columns ``names`` in that order, at most ``batch_rows`` at a time."""
    at, stop = 0, ref.start + ref.n_rows
    with reading(ref.uri, KIND), open_file(ref.uri) as source:
        for _, batch in _batches(source, names, ref.groups):
            first, last = max(ref.start - at, 0), min(stop - at, batch.num_rows)
            at += batch.num_rows
            for row in range(first, last, batch_rows):
                yield batch.slice(row, min(batch_rows, last - row)).select(names)


def _reader(
    source: pa.NativeFile, fields: list[int] | None = None
) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    source.seek(0)
    magic = source.read(len(_FILE_MAGIC))
    source.seek(0)
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields)
    if magic == _FILE_MAGIC:
        return pa.ipc.open_file(source, options=options)
    return pa.ipc.open_stream(source, options=options)


def _batches(
    source: pa.NativeFile, names: tuple[str, ...], wanted: tuple[int, ...] | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the wanted record batches (all if None) with their numbers, reading only the named columns."""
    schema = _reader(source).schema
    reader = _reader(source, sorted(schema.get_field_index(name) for name in names))
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for number in range(reader.num_record_batches) if wanted is None else wanted:
            yield number, reader.get_batch(number)
        return
    last = None if wanted is None else max(wanted, default=-1)
    for number, batch in enumerate(reader):
        if wanted is None or number in wanted:
            yield number, batch
        if number == last:
            return


def _facts(batch: pa.RecordBatch, columns: Columns) -> GroupFacts:
    nulls = any(batch.column(i).null_count for i in range(batch.num_columns))
    n_values = None
    if columns.vector is not None and columns.vector in batch.schema.names:
        vectors = batch.column(columns.vector)
        if element_type(vectors.type) is not None and fixed_width(vectors.type) is None and len(vectors):
            n_values = pc.sum(pc.list_value_length(vectors)).as_py() or 0
            nulls |= pc.list_flatten(vectors).null_count > 0
    return GroupFacts(batch.num_rows, n_values, nulls)
