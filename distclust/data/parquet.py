"""Parquet files: what the footer tells, and rows of row groups as a stream of record batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from distclust.data.files import local_path, open_file, reading
from distclust.data.refs import Columns, Fingerprint, PartitionRef
from distclust.data.schema import element_type, storage_type
from distclust.data.survey import FileFacts, GroupFacts

KIND = "Parquet"
BUFFER_BYTES = 1 << 20
"""Read-ahead of one column chunk. Without it pyarrow loads a row group's whole chunk, which may be gigabytes."""
PREBUFFER_BYTES = 64 << 20
"""Row groups of remote files up to this size are fetched by few large parallel requests."""
MAX_PARKED = 16


def survey(uri: str, columns: Columns | None) -> FileFacts:
    """Read a file's footer.

    Parameters
    ----------
    uri : str
        The file.
    columns : Columns or None
        Columns whose lengths and nulls are wanted; None for the schema and row counts alone.

    Raises
    ------
    DataError
        The file is no Parquet file, or damaged.
    """
    with reading(uri, KIND), _open(uri) as file:
        schema, metadata = file.schema_arrow, file.metadata
        leaves = {} if columns is None else _leaves(schema, columns)
        lists = leaves.get(columns.vector, -1) if columns is not None and columns.vector is not None else -1
        if lists >= 0 and element_type(schema.field(columns.vector).type) is None:  # type: ignore[union-attr]
            lists = -1
        used = tuple(leaves.values())
        groups = tuple(_group(metadata.row_group(i), lists, used) for i in range(metadata.num_row_groups))
    return FileFacts(schema, groups)


def record_batches(ref: PartitionRef, names: tuple[str, ...], batch_rows: int) -> Generator[pa.RecordBatch, None, None]:
    """Yield the rows of a partition, columns ``names`` in that order, at most ``batch_rows`` at a time.

    A row group larger than a partition is read by several partitions one after the other. pyarrow cannot enter
    it in the middle, so a reader that stopped inside a group is parked, and the partition that goes on where it
    stopped takes it over; otherwise the rows before would be decoded again for every partition.
    """
    key = _Key(os.getpid(), ref.uri, ref.fingerprint, ref.groups, names, batch_rows)
    with reading(ref.uri, KIND):
        stream = _take(key, ref.start) or _Stream(key)
        try:
            yield from stream.read(ref.start, ref.start + ref.n_rows)
        except BaseException:
            stream.close()
            raise
        _park(stream)


def release_parked() -> None:
    """Close the readers that wait inside row groups."""
    with _parked_lock:
        streams = list(_parked)
        _parked.clear()
    for stream in streams:
        stream.close()


class _Key(NamedTuple):
    pid: int  # a forked child must not go on with its parent's readers
    uri: str
    fingerprint: Fingerprint
    groups: tuple[int, ...]
    names: tuple[str, ...]
    batch_rows: int


class _Stream:
    """A reader of row groups that remembers where it is."""

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.at = 0
        groups = list(key.groups)
        self._file = _open(key.uri, groups)
        metadata = self._file.metadata
        self.n_rows = sum(metadata.row_group(group).num_rows for group in groups)
        self._rest: pa.RecordBatch | None = None
        self._batches = self._file.iter_batches(key.batch_rows, groups, list(key.names), use_threads=False)

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``, counted from the first row of the groups; fewer where these end."""
        while self.at < stop:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                return
            first, last = max(start - self.at, 0), min(stop - self.at, batch.num_rows)
            self._rest = batch.slice(last) if last < batch.num_rows else None
            self.at += last
            if first < last:
                yield batch.slice(first, last - first).select(self.key.names)

    def close(self) -> None:
        """Close the file."""
        self._rest = None
        self._batches.close()
        self._file.close(force=True)


_parked: list[_Stream] = []
_parked_lock = threading.Lock()


def _take(key: _Key, start: int) -> _Stream | None:
    with _parked_lock:
        fitting = [stream for stream in _parked if stream.key == key and stream.at <= start]
        if not fitting:
            return None
        nearest = max(fitting, key=lambda stream: stream.at)
        _parked.remove(nearest)
        return nearest


def _park(stream: _Stream) -> None:
    done: list[_Stream] = [stream]
    if stream.at < stream.n_rows:
        with _parked_lock:
            _parked.append(stream)
            done = _parked[:-MAX_PARKED]
            del _parked[:-MAX_PARKED]
    for old in done:
        old.close()


def _open(uri: str, groups: list[int] | None = None) -> pq.ParquetFile:
    path = local_path(uri)
    if path is not None:
        return _checked(path, buffer_size=BUFFER_BYTES)
    source = open_file(uri)
    if groups is None:
        return _checked(source)
    metadata = pq.read_metadata(source)
    n_bytes = sum(metadata.row_group(group).total_byte_size for group in groups)
    if n_bytes <= PREBUFFER_BYTES:
        return _checked(source, metadata, pre_buffer=True)
    return _checked(source, metadata, buffer_size=8 * BUFFER_BYTES)


def _checked(
    source: str | pa.NativeFile,
    metadata: pq.FileMetaData | None = None,
    *,
    pre_buffer: bool = False,
    buffer_size: int = 0,
) -> pq.ParquetFile:
    """Open a file so that pages which carry a checksum are verified; without one damage may pass as other numbers."""
    return pq.ParquetFile(
        source, metadata=metadata, pre_buffer=pre_buffer, buffer_size=buffer_size, page_checksum_verification=True
    )


def _group(group: pq.RowGroupMetaData, lists: int, leaves: tuple[int, ...]) -> GroupFacts:
    nulls = False
    for leaf in leaves:
        statistics = group.column(leaf).statistics
        nulls |= statistics is not None and bool(statistics.has_null_count) and bool(statistics.null_count)
    return GroupFacts(group.num_rows, group.column(lists).num_values if lists >= 0 else None, nulls)


def _leaves(schema: pa.Schema, columns: Columns) -> dict[str, int]:
    """Return the number of the Parquet leaf column of each vector and weight column that the file has."""
    wanted = {columns.vector, columns.weight, *columns.features}
    leaves, position = {}, 0
    for field in schema:
        if field.name in wanted:
            leaves[field.name] = position
        position += _count_leaves(field.type)
    return leaves


def _count_leaves(kind: pa.DataType) -> int:
    kind = storage_type(kind)
    if pa.types.is_nested(kind):
        return sum(_count_leaves(kind.field(i).type) for i in range(kind.num_fields))
    return 1
