"""Partitions: how the rows of a source are cut into pieces that a task reads, caches and computes on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from distclust.data.refs import PartitionRef
from distclust.data.sources import Source
from distclust.data.survey import SourceFile
from distclust.errors import UsageError

MIN_ROWS = 1024
"""No partition is made smaller than this for the sake of more partitions."""


def plan_partitions(source: Source, target_bytes: int, min_partitions: int = 1) -> tuple[PartitionRef, ...]:
    """Cut a source into partitions.

    A partition lies in one file. Consecutive row groups are joined while they stay below the target; a larger row
    group is cut into nearly equal runs of rows.

    Parameters
    ----------
    source : Source
        What to cut.
    target_bytes : int
        Upper bound of the float32 rows of a partition (one row at least).
    min_partitions : int, default=1
        Cut finer to get at least this many, down to 1024 rows a partition.

    Returns
    -------
    tuple of PartitionRef
        In row order; they cover every row once.

    Raises
    ------
    UsageError
        A parameter is below 1.
    """
    if target_bytes < 1 or min_partitions < 1:
        raise UsageError(f"target_bytes is {target_bytes}, min_partitions {min_partitions}; both must be 1 or more.")
    rows_by_bytes = max(1, target_bytes // (4 * source.width))
    # The fewest rows that make so many runs of about equal length, not one run more.
    even = -(-source.n_rows // min_partitions)
    if even and -(-source.n_rows // even) < min_partitions:
        even = source.n_rows // min_partitions
    most_rows = min(rows_by_bytes, max(MIN_ROWS, even))
    refs: list[PartitionRef] = []
    offset, index = 0, count()
    for file in source.files:
        for groups, start, n in _cut(file, most_rows):
            refs.append(PartitionRef(next(index), file.uri, file.format, groups, start, n, offset, file.fingerprint))
            offset += n
    return tuple(refs)


def _cut(file: SourceFile, most_rows: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Yield (groups, first row within the groups, number of rows)."""
    if file.format in ("npy", "memory"):
        yield from (((), start, n_rows) for start, n_rows in _even(file.n_rows, most_rows))
        return
    joined: list[int] = []
    n_joined = 0
    for group, n_rows in enumerate(file.group_rows):
        if joined and n_joined + n_rows > most_rows:
            yield tuple(joined), 0, n_joined
            joined, n_joined = [], 0
        if n_rows > most_rows:
            yield from (((group,), start, length) for start, length in _even(n_rows, most_rows))
        elif n_rows:
            joined.append(group)
            n_joined += n_rows
    if joined:
        yield tuple(joined), 0, n_joined


def _even(n_rows: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Cut rows into the fewest runs of at most ``most_rows``, as equal as can be."""
    pieces = -(-n_rows // most_rows)
    for i in range(pieces):
        start, stop = n_rows * i // pieces, n_rows * (i + 1) // pieces
        yield start, stop - start
