"""Grouping of records by key across partitions, without an engine's shuffle.

A map pass sorts the records of each partition by bucket and writes one file with an offset index into storage that
driver and workers see: files grow with the partitions, not with partitions times buckets. A gather pass reads its
slices of all files. Partitions are taken in order, so the records of a bucket come ordered by (bucket, id) where ids
grow with the partitions, as row ids do. Files are committed: the first writer wins, and they are their own checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.artifacts.commit import COMMITS, commit_file, on_each, read_commits
from distclust.data.block import RawRows
from distclust.data.refs import Columns, Fingerprint, PartitionRef, RawView
from distclust.data.scratch import RunDirectory, scratch_root
from distclust.data.storage import Storage, open_storage
from distclust.engines.protocol import Engine, Pinned, Step, StepContext
from distclust.errors import StorageError, UsageError

Records = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

RANGE_BYTES = 16 << 20
"""Most bytes of the buckets that one gather partition covers, unless a single bucket has more."""
LEAST_RANGES = 32
"""Gather partitions that there are about, buckets permitting: enough for even load. Neither depends on the engine, so
that what was gathered before a stop is found again by any."""
TILE_BYTES = 32 << 20
"""Most bytes of records that a gather step is given at once."""

BUCKETS = RawView(Columns(), 1)
"""View under which gather partitions are pinned: a step reads its buckets itself."""

_MAGIC = int.from_bytes(b"dcxchg\x00\x01", "little")
_HEADER = 4
"""Integers before the index: magic, buckets, records, bytes of a record."""


@dataclass(frozen=True)
class Keyed:
    """Records of one partition, and where they belong.

    Attributes
    ----------
    keys : (n,) integers
        Bucket of each record, 0 ... n_buckets-1.
    ids : (n,) integers
        Order of the records inside a bucket. All ids of a partition are below those of the next one where the order
        over partitions matters.
    records : (n,) structured array
        Fields of fixed size, little endian, no objects.
    extra : mapping
        Plain values for the commit; see `Exchange.extras`.
    """

    keys: npt.NDArray[np.integer]
    ids: npt.NDArray[np.integer]
    records: Records
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScatterStep:
    """Run ``produce`` on a partition and write its `Keyed` records, sorted, as one committed file."""

    produce: Step
    storage: Storage
    name: str
    n_buckets: int

    def __call__(self, block: Any, value: Any, context: StepContext) -> None:
        """Write the file of a partition; nothing travels."""
        keyed: Keyed = self.produce(block, value, context)
        commit_file(
            self.storage,
            self.name,
            context.index,
            f"part-{context.index:05d}",
            ".bin",
            _encode(keyed, self.n_buckets),
            rows=len(keyed.records),
            extra=keyed.extra,
        )


def _encode(keyed: Keyed, n_buckets: int) -> bytes:
    keys, records = keyed.keys, keyed.records
    if len(keys) and not (keys.min() >= 0 and keys.max() < n_buckets):
        raise ValueError(f"keys reach from {keys.min()} to {keys.max()}; 0 to {n_buckets - 1} is allowed.")
    order = np.lexsort((keyed.ids, keys))
    head = np.empty(_HEADER + n_buckets + 1, "<i8")
    head[:_HEADER] = _MAGIC, n_buckets, len(records), records.dtype.itemsize
    head[_HEADER] = 0
    np.cumsum(np.bincount(keys, minlength=n_buckets), out=head[_HEADER + 1 :])
    return b"".join([head.data.cast("B"), records[order].data.cast("B") if len(records) else b""])


@dataclass(frozen=True)
class Exchange:
    """Records in files, by bucket. Small and picklable: what travels to gather steps.

    Attributes
    ----------
    storage : Storage
    name : str
        Group of the commits, and directory of the files.
    files : tuple of str
        One a partition, in partition order.
    dtype : numpy dtype
        Of a record.
    counts : (n_buckets,) int64
        Records of each bucket.
    cuts : tuple of int
        First bucket of each gather partition, and the end.
    extras : tuple of dict
        What `Keyed.extra` said, by partition.
    """

    storage: Storage
    name: str
    files: tuple[str, ...]
    dtype: np.dtype[Any]
    counts: Ints = field(repr=False)
    cuts: tuple[int, ...]
    extras: tuple[dict[str, Any], ...] = field(repr=False)

    @cached_property
    def refs(self) -> tuple[PartitionRef, ...]:
        """References to the gather partitions: runs of buckets."""
        uri = f"{self.storage.where(self.name)}, buckets from"
        return tuple(
            PartitionRef(
                i, f"{uri} {start}", "npy", (), start, int(self.counts[start:stop].sum()), start, Fingerprint(0)
            )
            for i, (start, stop) in enumerate(pairwise(self.cuts))
        )

    def buckets(self, index: int) -> Buckets:
        """Return the buckets of a gather partition."""
        return Buckets(self, self.cuts[index], self.cuts[index + 1])


@dataclass(frozen=True)
class Buckets:
    """A run of buckets, as a gather step sees it.

    Attributes
    ----------
    exchange : Exchange
    start, stop : int
        First bucket, and the one after the last.
    """

    exchange: Exchange
    start: int
    stop: int

    def tiles(self, most: int | None = None) -> Iterator[tuple[int, Records]]:
        """Yield (bucket, records) in order of bucket and id; buckets without records are left out.

        Parameters
        ----------
        most : int, optional
            Most records at once: a bucket of more comes as several tiles, all but the last of so many. Default: what
            fits `TILE_BYTES`. Only ``most`` decides where tiles end, never the partitioning.
        """
        most = most or max(1, TILE_BYTES // self.exchange.dtype.itemsize)
        counts = self.exchange.counts[self.start : self.stop]
        slices = None
        if int(counts.sum()) * self.exchange.dtype.itemsize <= TILE_BYTES:
            slices = [_read(self.exchange, path, self.start, self.stop) for path in self.exchange.files]
        for i in np.flatnonzero(counts):
            bucket = self.start + int(i)
            if slices is None:
                pieces = self._pieces(bucket)
            else:
                pieces = (records[offsets[i] : offsets[i + 1]] for offsets, records in slices)
            for tile in _tiles(pieces, most):
                yield bucket, tile

    def runs(self, most: int | None = None) -> Iterator[Records]:
        """Yield the same records without regard to where a bucket ends: tiles that together have about ``most``."""
        most = most or max(1, TILE_BYTES // self.exchange.dtype.itemsize)
        waiting: list[Records] = []
        for _, tile in self.tiles(most):
            waiting.append(tile)
            if sum(map(len, waiting)) >= most:
                yield joined(waiting)
                waiting = []
        if waiting:
            yield joined(waiting)

    def _pieces(self, bucket: int) -> Iterator[Records]:
        for path in self.exchange.files:
            yield _read(self.exchange, path, bucket, bucket + 1)[1]


def joined(parts: Sequence[Records]) -> Records:
    """Concatenate records as bytes: numpy would look for a common type field by field each time."""
    if len(parts) == 1:
        return parts[0]
    flat = [np.ascontiguousarray(part).view(np.uint8).reshape(-1) for part in parts]
    return np.concatenate(flat).view(parts[0].dtype)


def _tiles(pieces: Iterator[Records], most: int) -> Iterator[Records]:
    waiting: list[Records] = []
    held = 0
    for piece in pieces:
        if not len(piece):
            continue
        waiting.append(piece)
        held += len(piece)
        if held >= most:
            whole = joined(waiting)
            full = held - held % most
            for at in range(0, full, most):
                yield whole[at : at + most]
            waiting, held = [whole[full:]] if held > full else [], held - full
    if held:
        yield joined(waiting)


def _read(exchange: Exchange, path: str, start: int, stop: int) -> tuple[Ints, Records]:
    """Return the offsets of buckets ``start`` ... ``stop`` from their first record on, and their records."""
    size = exchange.dtype.itemsize
    with exchange.storage.open_input(path) as file:
        head = _integers(exchange, path, file.read(8 * _HEADER))
        if len(head) != _HEADER or head.tolist()[:2] != [_MAGIC, len(exchange.counts)] or head[3] != size:
            raise _damaged(exchange, path)
        file.seek(8 * (_HEADER + start))
        offsets = _integers(exchange, path, file.read(8 * (stop - start + 1)))
        if len(offsets) != stop - start + 1:
            raise _damaged(exchange, path)
        file.seek(8 * (_HEADER + len(exchange.counts) + 1) + size * int(offsets[0]))
        data = file.read(size * int(offsets[-1] - offsets[0]))
    if len(data) != size * (offsets[-1] - offsets[0]):
        raise _damaged(exchange, path)
    return offsets - offsets[0], np.frombuffer(data, exchange.dtype)


def _integers(exchange: Exchange, path: str, data: bytes) -> Ints:
    if len(data) % 8:
        raise _damaged(exchange, path)
    return np.frombuffer(data, "<i8").astype(np.int64)


def _damaged(exchange: Exchange, path: str) -> StorageError:
    return StorageError(
        "is not whole: it was cut short, or written by something else.",
        where=exchange.storage.where(path),
        do=f"Remove {exchange.storage.where(exchange.name)} and {exchange.storage.where(COMMITS)}/{exchange.name}, "
        "and resume the run.",
    )


def scatter(
    engine: Engine,
    pinned: Pinned,
    produce: Step,
    value: Any = None,
    *,
    storage: Storage,
    name: str,
    n_buckets: int,
    dtype: np.dtype[Any],
    label: str,
) -> Exchange:
    """Write the records of all partitions by bucket; partitions that are committed already are not touched.

    Parameters
    ----------
    engine : Engine
    pinned : Pinned
        Partitions.
    produce : Step
        Returns the `Keyed` records of a partition, the same at every attempt.
    value : optional
        Shared with ``produce``.
    storage : Storage
        Seen by driver and workers; see `workspace`.
    name : str
        Unique in the storage.
    n_buckets : int
    dtype : numpy dtype
        Of a record.
    label : str
        Name of the pass.

    Raises
    ------
    StorageError
        Workers wrote where the driver does not see it.
    """
    done = read_commits(storage, name)
    missing = [ref for ref in pinned.refs if ref.index not in done]
    if missing:
        step = ScatterStep(produce, storage, name, n_buckets)
        engine.map(engine.pin(missing, pinned.view, label=label), step, value, label=label)
        done = read_commits(storage, name)
    require_seen(storage, name, [ref.index for ref in pinned.refs], set(done))
    commits = [done[ref.index] for ref in pinned.refs]
    files = tuple(commit.file for commit in commits)
    empty = Exchange(storage, name, files, dtype, np.zeros(n_buckets, np.int64), (0, n_buckets), ())
    counts = sum(on_each(storage, lambda path: _counts(empty, path), files), start=np.zeros(n_buckets, np.int64))
    extras = tuple(commit.extra for commit in commits)
    return Exchange(storage, name, files, dtype, counts, cut_buckets(counts, dtype.itemsize), extras)


def _counts(exchange: Exchange, path: str) -> Ints:
    b = len(exchange.counts)
    with exchange.storage.open_input(path) as file:
        head = _integers(exchange, path, file.read(8 * (_HEADER + b + 1)))
    if len(head) != _HEADER + b + 1 or head[0] != _MAGIC or head[1] != b:
        raise _damaged(exchange, path)
    return np.diff(head[_HEADER:])


def cut_buckets(counts: Ints, record_bytes: int) -> tuple[int, ...]:
    """Cut buckets into runs of about equal bytes; see `RANGE_BYTES` and `LEAST_RANGES`."""
    total = int(counts.sum())
    most = max(1, min(RANGE_BYTES // record_bytes, -(-total // LEAST_RANGES)))
    cuts, held = [0], 0
    for bucket, count in enumerate(counts.tolist()):
        if held and held + count > most:
            cuts.append(bucket)
            held = 0
        held += count
    return (*cuts, len(counts))


def require_seen(storage: Storage, name: str, wanted: list[int], seen: set[int]) -> None:
    """Raise unless the driver sees the committed files of all partitions."""
    unseen = sum(index not in seen for index in wanted)
    if unseen:
        raise StorageError(
            f"files of {unseen} of {len(wanted)} partitions were written but are not here: workers and driver see "
            "different directories under this path.",
            where=storage.where(name),
            do="Choose an output that all machines see (a shared directory, s3://...).",
        )


@dataclass(frozen=True)
class GatherStep:
    """Run ``step(buckets, value, context)`` on the `Buckets` of a gather partition."""

    step: Step

    def __call__(self, rows: RawRows, value: tuple[Exchange, Any], context: StepContext) -> Any:
        """Return what the step returns; the reference alone says which buckets, nothing is read for it."""
        exchange, inner = value
        return self.step(exchange.buckets(context.index), inner, context)


def gather(
    engine: Engine,
    exchange: Exchange,
    step: Step,
    value: Any = None,
    *,
    label: str,
    only: list[int] | None = None,
) -> list[Any]:
    """Run a step on the buckets of an exchange; return its small results in order.

    Parameters
    ----------
    engine : Engine
    exchange : Exchange
    step : Step
        Takes `Buckets` in place of a block. Its results must not depend on which buckets come together.
    value : optional
        Shared with the step.
    label : str
        Name of the pass.
    only : list of int, optional
        Gather partitions to run, ascending; default: all.
    """
    refs = exchange.refs if only is None else [exchange.refs[i] for i in only]
    pinned = engine.pin(refs, BUCKETS, label=label)
    with engine.share((exchange, value)) as shared:
        return engine.map(pinned, GatherStep(step), shared, label=label)


@contextmanager
def workspace(engine: Engine, storage: Storage | None = None) -> Iterator[Storage]:
    """Yield a directory for exchanges: the given one, or one in scratch that goes at the end.

    Parameters
    ----------
    engine : Engine
    storage : Storage, optional
        Run directory.

    Raises
    ------
    UsageError
        No directory was given, and the workers do not see those of the driver.
    """
    if storage is not None:
        yield storage
        return
    if not engine.info.shared_storage:
        raise UsageError(
            f"rows are grouped through files, and the workers of the {engine.info.name} engine do not see the driver's "
            "directories.",
            do="Give a run directory that all machines see (a shared directory, s3://...), or use the local engine.",
        )
    node = engine.options.node
    scratch = RunDirectory(scratch_root(node.scratch), f"{node.token}-exchange", keep=False)
    try:
        yield open_storage(scratch.path / "exchange")
    finally:
        scratch.leave()
