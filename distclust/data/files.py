"""Input files: what a path, directory, glob or URI stands for, and what identifies a file's bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from distclust.data.refs import Fingerprint
from distclust.errors import DataError, DistclustError, MissingExtraError, nearest_name

_UNCHECKED = Fingerprint(0)
_DAMAGE = ("deserialize thrift", "corrupt", "unexpected end of", "decompress", "checksum", "expected to be able")


@dataclass(frozen=True)
class FoundFile:
    """A file of the dataset before it is opened.

    Attributes
    ----------
    uri : str
        Absolute local path, or URI.
    fingerprint : Fingerprint
        As it is now.
    asked_for : bool
        Named by the user, not found in a directory.
    """

    uri: str
    fingerprint: Fingerprint
    asked_for: bool


@dataclass(frozen=True)
class Location:
    """A filesystem, and a place in it.

    Attributes
    ----------
    filesystem : pyarrow.fs.FileSystem
        Opens ``path``.
    path : str
        As the filesystem wants it.
    root, base, query : str
        A path ``base + rest`` of this filesystem has the URI ``root + rest + query``.
    """

    filesystem: pafs.FileSystem
    path: str
    root: str
    base: str
    query: str

    def uri(self, path: str) -> str:
        """Return the URI of a path of the same filesystem."""
        return f"{self.root}{path[len(self.base) :]}{self.query}"


def local_path(uri: str) -> str | None:
    """Return the path of a local file, absolute; None for a URI of another filesystem."""
    if uri.startswith("file://"):
        return os.path.abspath(unquote(urlsplit(uri, allow_fragments=False).path))
    return None if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def locate(uri: str) -> Location:
    """Return the filesystem of a URI: pyarrow's, else fsspec's.

    Raises
    ------
    MissingExtraError
        Neither knows the scheme.
    """
    parts = urlsplit(uri, allow_fragments=False)
    query = f"?{parts.query}" if "=" in parts.query else ""
    root = f"{parts.scheme}://{parts.netloc}"
    # Connections and their threads do not survive a fork, so each process has its own.
    filesystem, base = _filesystem(root, query, os.getpid())
    rest = uri.removesuffix(query)[len(root) :]
    return Location(filesystem, base + rest, root, base, query)


@lru_cache(maxsize=64)
def _filesystem(root: str, query: str, pid: int) -> tuple[pafs.FileSystem, str]:
    try:
        filesystem, base = pafs.FileSystem.from_uri(f"{root}/{query}")
    except pa.ArrowInvalid:
        filesystem, base = _through_fsspec(root)
    return filesystem, base.rstrip("/")


def _through_fsspec(root: str) -> tuple[pafs.FileSystem, str]:
    try:
        filesystem, base = import_module("fsspec.core").url_to_fs(f"{root}/")
    except (ImportError, ValueError) as exc:
        raise MissingExtraError(
            f"nothing here opens this kind of address ({exc}).",
            where=root,
            do="Install fsspec and its package for this scheme (gcsfs, adlfs, ...).",
        ) from exc
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), str(base)


def open_file(uri: str) -> pa.NativeFile:
    """Open a file for random access; local files are memory-mapped."""
    path = local_path(uri)
    if path is not None:
        return pa.memory_map(path) if os.path.getsize(path) else pa.BufferReader(b"")
    place = locate(uri)
    return place.filesystem.open_input_file(place.path)


def fingerprint(uri: str) -> Fingerprint:
    """Return what identifies the file's bytes now.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    path = local_path(uri)
    if path is not None:
        stat = os.stat(path)
        return Fingerprint(stat.st_size, stat.st_mtime_ns)
    place = locate(uri)
    info = place.filesystem.get_file_info(place.path)
    if info.type != pafs.FileType.File:
        raise FileNotFoundError(f"{uri} does not exist")
    return _remote_fingerprint(place, info)


def _remote_fingerprint(place: Location, info: pafs.FileInfo) -> Fingerprint:
    etag = ""
    handler = getattr(place.filesystem, "handler", None)
    if isinstance(handler, pafs.FSSpecHandler):
        details = handler.fs.info(info.path)
        etag = str(details.get("ETag") or details.get("etag") or "")
    return Fingerprint(info.size or 0, info.mtime_ns or 0, etag)


def check_unchanged(uri: str, planned: Fingerprint) -> None:
    """Raise `DataError` if a file is not what it was when the run was planned. ``Fingerprint(0)`` is not checked."""
    if planned == _UNCHECKED:
        return
    found = fingerprint(uri)
    if found != planned:
        what = f"{planned.size} bytes then, {found.size} now" if found.size != planned.size else "it was written again"
        raise DataError(f"the file changed since the run was planned: {what}.", where=uri, do="Start the run again.")


@contextmanager
def reading(uri: str, kind: str) -> Iterator[None]:
    """Turn what is wrong with a file into a `DataError` that names it; let through what another attempt may cure."""
    try:
        yield
    except DistclustError:
        raise
    except FileNotFoundError as exc:
        raise DataError(
            "the file does not exist.", where=uri, do="If other machines have it: put it where all workers see it."
        ) from exc
    except PermissionError as exc:
        raise DataError("the file may not be read: permission denied.", where=uri) from exc
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowSerializationError) as exc:
        raise _unreadable(uri, kind, exc) from exc
    except OSError as exc:
        # A failing disk or network comes with an errno, or from a remote filesystem; pyarrow reports damage without.
        remote = local_path(uri) is None
        if exc.errno is None and not (remote and not any(word in str(exc).lower() for word in _DAMAGE)):
            raise _unreadable(uri, kind, exc) from exc
        raise


def _unreadable(uri: str, kind: str, exc: Exception) -> DataError:
    reason = (str(exc).splitlines() or [type(exc).__name__])[0].rstrip(". ")
    return DataError(f"not a readable {kind} file: {reason}.", where=uri, do="Write it again, or leave it out.")


def find_files(data: Iterable[str | Path]) -> tuple[FoundFile, ...]:
    """Expand files, directories, globs and URIs into one list of files, sorted by path, without repetitions.

    Directories are searched recursively; names that begin with ``_`` or ``.`` are left out.

    Raises
    ------
    DataError
        A path does not exist, or a directory or glob has no file.
    """
    found: dict[str, FoundFile] = {}
    for item in data:
        text = str(item)
        path = local_path(text)
        try:
            files = list(_local_files(path) if path is not None else _remote_files(text))
        except OSError as exc:
            raise DataError(f"cannot be listed: {exc}", where=text) from exc
        if not files:
            raise _nothing_found(text, path)
        for file in files:
            if file.uri not in found or file.asked_for:
                found[file.uri] = file
    return tuple(found[uri] for uri in sorted(found))


def _nothing_found(text: str, path: str | None) -> DataError:
    if glob.has_magic(text):
        return DataError("no file matches; names that begin with '_' or '.' are left out.", where=text)
    if path is not None and not os.path.exists(path):
        parent = os.path.dirname(path)
        near = nearest_name(os.path.basename(path), os.listdir(parent)) if os.path.isdir(parent) else ""
        return DataError("no such file or directory.", where=text, do=near)
    return DataError("no such file, or a directory without files.", where=text)


def _local_files(path: str) -> Iterator[FoundFile]:
    if os.path.isdir(path):
        for name in _walk(path):
            yield _local_file(name, asked_for=False)
    elif os.path.exists(path):
        yield _local_file(path, asked_for=True)
    elif glob.has_magic(path):
        wants_hidden = any(map(_hidden, path.split(os.sep)))
        for name in glob.glob(path, recursive=True):
            if any(map(_hidden, name.split(os.sep))) and not wants_hidden:
                continue
            if os.path.isdir(name):
                yield from _local_files(name)
            else:
                yield _local_file(name, asked_for=True)


def _local_file(path: str, asked_for: bool) -> FoundFile:
    stat = os.stat(path)
    return FoundFile(path, Fingerprint(stat.st_size, stat.st_mtime_ns), asked_for)


def _walk(top: str) -> Iterator[str]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (os.path.join(folder, name) for name in names if not _hidden(name))


def _remote_files(uri: str) -> Iterator[FoundFile]:
    place = locate(uri)
    if glob.has_magic(place.path):
        yield from _remote_matches(place)
        return
    info = place.filesystem.get_file_info(place.path.rstrip("/"))
    if info.type == pafs.FileType.File:
        yield FoundFile(place.uri(info.path), _remote_fingerprint(place, info), asked_for=True)
    elif info.type == pafs.FileType.Directory:
        for inner in _remote_listing(place, info.path):
            yield FoundFile(place.uri(inner.path), _remote_fingerprint(place, inner), asked_for=False)


def _remote_matches(place: Location) -> Iterator[FoundFile]:
    parts = place.path.split("/")
    n_plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    top, pattern = "/".join(parts[:n_plain]), parts[n_plain:]
    for info in _remote_listing(place, top):
        inside = info.path[len(top) :].strip("/").split("/")
        # A pattern may match a directory above the file.
        depth = next((i for i in range(len(inside), 0, -1) if _matches(inside[:i], pattern)), 0)
        if depth:
            yield FoundFile(place.uri(info.path), _remote_fingerprint(place, info), asked_for=depth == len(inside))


def _remote_listing(place: Location, top: str) -> Iterator[pafs.FileInfo]:
    for info in place.filesystem.get_file_info(pafs.FileSelector(top, recursive=True)):
        inside = info.path[len(top) :].strip("/").split("/")
        if info.type == pafs.FileType.File and not any(_hidden(part) for part in inside):
            yield info


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether path components match a glob's, where ``**`` stands for any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))
