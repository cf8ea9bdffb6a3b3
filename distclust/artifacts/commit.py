"""Publication of files that tasks write: under a name of their own first, then by a commit that the first writer wins.

A task may run twice, at the same time, on two nodes. Readers trust commits, never a directory listing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from distclust.artifacts.codec import decode_object, encode, sha256
from distclust.data.storage import Storage
from distclust.errors import StorageError

COMMITS = "commits"
_REQUESTS = 16
"""In flight to a remote storage: one after the other they take about 30 ms each, and a run has thousands."""

T = TypeVar("T")


@dataclass(frozen=True)
class Commit:
    """A published file.

    Attributes
    ----------
    index : int
        Partition, or another number that is unique in the group.
    file : str
        Path relative to the run directory.
    rows : int
    bytes : int
    digest : str
        SHA-256 of the content, hexadecimal.
    extra : dict
        What the writer wants to keep with it.
    """

    index: int
    file: str
    rows: int
    bytes: int
    digest: str
    extra: dict[str, Any] = field(default_factory=dict)


def commit_path(group: str, index: int) -> str:
    """Return the path of a commit, relative to the run directory."""
    return f"{COMMITS}/{group}/{index:05d}.json"


def commit_file(
    storage: Storage,
    group: str,
    index: int,
    name_stem: str,
    suffix: str,
    data: bytes,
    rows: int,
    extra: Mapping[str, Any] | None = None,
) -> Commit:
    """Write ``<group>/<name_stem>-<digest><suffix>`` and publish it as number ``index`` of the group.

    Parameters
    ----------
    storage : Storage
        Run directory.
    group : str
        Directory of the files, such as ``labels``.
    index : int
        Unique in the group.
    name_stem, suffix : str
        First and last part of the file's name.
    data : bytes
        Content.
    rows : int
        Rows in it.
    extra : mapping, optional
        Plain values kept in the commit.

    Returns
    -------
    Commit
        This one, or the one that was first.
    """
    first = read_commit(storage, group, index)
    if first is not None:
        return first
    digest = sha256(data)
    mine = Commit(index, f"{group}/{name_stem}-{digest[:12]}{suffix}", rows, len(data), digest, dict(extra or {}))
    storage.put(mine.file, data)
    if storage.put_if_absent(commit_path(group, index), encode(asdict(mine))):
        return mine
    first = read_commit(storage, group, index)
    if first is None:
        raise StorageError(
            "a commit was taken by another writer and then vanished.",
            where=storage.where(commit_path(group, index)),
            do="Leave the run directory alone while a run works in it.",
        )
    # Without an exclusive create a late writer may still replace the commit: then no file may go.
    if first.file != mine.file and storage.exclusive:
        storage.remove(mine.file)
    return first


def read_commit(storage: Storage, group: str, index: int) -> Commit | None:
    """Return one commit of a group, or None."""
    path = commit_path(group, index)
    try:
        return _parse(storage.read(path), storage.where(path))
    except FileNotFoundError:
        return None


def read_commits(storage: Storage, group: str) -> dict[int, Commit]:
    """Return all commits of a group by index, in order."""
    paths = [stat.path for stat in storage.list(f"{COMMITS}/{group}", recursive=False) if stat.path.endswith(".json")]

    def read(path: str) -> Commit:
        return _parse(storage.read(path), storage.where(path))

    found = on_each(storage, read, paths)
    return {commit.index: commit for commit in sorted(found, key=lambda commit: commit.index)}


def groups(storage: Storage) -> list[str]:
    """Return the groups that have commits, sorted."""
    files = storage.list(COMMITS)
    return sorted({stat.path.removeprefix(f"{COMMITS}/").rpartition("/")[0] for stat in files} - {""})


def forget(storage: Storage, group: str) -> None:
    """Remove a group of files, and all groups below its name, with their commits."""
    storage.remove_tree(f"{COMMITS}/{group}")
    storage.remove_tree(group)


def on_each(storage: Storage, function: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    """Call a function for each path, many at a time if the storage is remote; results in order of the paths."""
    if storage.is_local:
        return [function(path) for path in paths]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, paths))


def _parse(data: bytes, where: str) -> Commit:
    found = decode_object(data, where)
    try:
        return Commit(**found)
    except TypeError as error:
        raise StorageError(f"is no commit ({error}).", where=where, do="Start the run again elsewhere.") from error
