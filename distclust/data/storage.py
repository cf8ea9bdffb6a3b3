"""Places that files are written to: a local directory, or anything that pyarrow or fsspec opens by URI.

Every write is whole or absent. Locally a file is written aside, flushed to the disk and renamed. Object stores
(S3, GCS, Azure) publish an object when its upload ends, so it is written under its name, from complete data. What
is neither (HDFS, fsspec's other filesystems) is written aside and moved.

Names that begin with a dot are ours (temporary files, locks): no listing shows them.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias
from urllib.parse import urlsplit

from distclust.data._local_files import LocalFiles
from distclust.data._remote_files import RemoteFiles
from distclust.data.files import local_path
from distclust.errors import StorageError, UsageError

_CHUNK = 4 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_WRONG_NAME = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_REMOTE_DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 403")


@dataclass(frozen=True)
class FileStat:
    """A file as a listing shows it.

    Attributes
    ----------
    path : str
        Relative to the storage, with forward slashes.
    size : int
        Bytes.
    mtime_ns : int
        Last modification, nanoseconds since the epoch; 0 where it is unknown.
    """

    path: str
    size: int
    mtime_ns: int


_Files: TypeAlias = list[FileStat]
_Names: TypeAlias = list[str]


class Storage:
    """A directory, local or remote. Picklable: a worker opens it again by its URI. Made by `open_storage`.

    Paths are relative, with forward slashes; ``""`` is the directory itself. A full disk, a missing permission and
    a name that cannot be are `StorageError`; other I/O errors pass as they are, since another attempt may succeed.

    Attributes
    ----------
    uri : str
        Absolute path or URI; may hold credentials, so messages use `where`.
    is_local : bool
    exclusive : bool
        `put_if_absent` has exactly one winner. Where false, the last of several simultaneous writers may win.
    """

    def __init__(self, uri: str, files: LocalFiles | RemoteFiles) -> None:
        self.uri = uri
        self._files = files
        self.is_local = isinstance(files, LocalFiles)
        self.exclusive = files.exclusive

    def __reduce__(self) -> tuple[object, ...]:
        return open_storage, (self.uri,)

    def __repr__(self) -> str:
        return f"Storage({self.where()!r})"

    def where(self, path: str = "") -> str:
        """Return the address of a path for messages, without credentials."""
        inside = _clean(path)
        return f"{_shown(self.uri)}/{inside}" if inside else _shown(self.uri)

    def child(self, path: str) -> Storage:
        """Return the storage of a directory inside this one, which need not exist."""
        return open_storage(self._files.uri(_clean(path)))

    def split(self) -> tuple[Storage, str]:
        """Return the directory that this one lies in, and its name there.

        Raises
        ------
        UsageError
            It lies in none: a bucket, or the root directory.
        """
        above = self._files.above()
        if above is None:
            raise UsageError(
                "this is the top of its filesystem; a directory inside it is needed.",
                where=self.where(),
                do="Choose an output one level below.",
            )
        return open_storage(above[0]), above[1]

    def put(self, path: str, data: bytes) -> None:
        """Write a file, replacing what is there; directories are made."""
        with self.open_output(path) as file:
            file.write(data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one; return whether it was written."""
        with self._explained(path):
            return self._files.create(_clean(path), data)

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file; object stores write the whole file again, so add much at a time."""
        with self._explained(path):
            self._files.append(_clean(path), data)

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        with self.open_input(path) as file:
            return bytes(file.read())

    def open_input(self, path: str) -> IO[bytes]:
        """Open a file for reading, seekable."""
        with self._explained(path):
            return self._files.open_input(_clean(path))

    @contextmanager
    def open_output(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it appears when the context ends, and not at all if it ends by an exception."""
        with self._explained(path), self._files.open_output(_clean(path)) as file:
            yield file

    def exists(self, path: str) -> bool:
        """Return whether there is a file or directory."""
        with self._explained(path):
            return self._files.exists(_clean(path))

    def list(self, path: str = "", recursive: bool = True) -> _Files:
        """Return the files in a directory, sorted by path; none if it does not exist."""
        with self._explained(path):
            found = [FileStat(*stat) for stat in self._files.walk(_clean(path), recursive)]
        return sorted((stat for stat in found if not _hidden(stat.path)), key=lambda stat: stat.path)

    def entries(self, path: str = "") -> _Names:
        """Return the names of files and (with a slash at their end) directories right inside, sorted."""
        with self._explained(path):
            return sorted(name for name in self._files.entries(_clean(path)) if not _hidden(name))

    def remove(self, path: str) -> None:
        """Remove a file; a missing one is fine."""
        with self._explained(path), suppress(FileNotFoundError):
            self._files.remove(_clean(path))

    def remove_tree(self, path: str = "") -> None:
        """Remove a directory and all in it; a missing one is fine."""
        with self._explained(path), suppress(FileNotFoundError):
            self._files.remove_tree(_clean(path))

    def move(self, source: str, target: str) -> None:
        """Rename a file, replacing the target; locally also a directory, if there is no target or an empty one."""
        with self._explained(target):
            self._files.move(_clean(source), _clean(target))

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file's content in hexadecimal, read in pieces."""
        found = hashlib.sha256()
        with self.open_input(path) as file:
            while piece := file.read(_CHUNK):
                found.update(piece)
        return found.hexdigest()

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        """Hold out the other processes that lock the same path: of this node, and of NFS clients. Remote: nothing."""
        with self._explained(path), self._files.lock(_clean(path)):
            yield

    def sweep(self, older_than: float) -> None:
        """Remove temporary files, older than so many seconds, that killed writers left."""
        with self._explained(""):
            self._files.sweep(older_than)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Turn errors that no second attempt can cure into `StorageError`."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            known = _explain(error, self.where(path))
            if known is None:
                raise
            raise known from error


def open_storage(uri: str | Path) -> Storage:
    """Open a directory by path or URI; it need not exist.

    Parameters
    ----------
    uri : str or Path
        Local path, ``file://``, ``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, or any scheme that fsspec knows
        (``fsspec+<scheme>://`` asks for fsspec by name).

    Raises
    ------
    MissingExtraError
        Nobody knows the scheme.
    StorageError
        The filesystem refuses the address or the credentials.
    """
    text = os.fspath(uri)
    path = text if isinstance(uri, Path) else local_path(text)
    if path is not None:
        root = os.path.abspath(os.path.expanduser(path))
        return Storage(root, LocalFiles(root))
    try:
        return Storage(text, RemoteFiles(text))
    except OSError as error:
        known = _explain(error, _shown(text))
        if known is None:
            raise
        raise known from error


def _clean(path: str) -> str:
    """Return a relative path without empty and ``.`` parts."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{path!r} does not lie inside the storage")
    return "" if str(pure) == "." else str(pure)


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _shown(uri: str) -> str:
    """Return a URI without its query and without a password."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    user = f"{user.partition(':')[0]}:***" if ":" in user else user
    return f"{parts.scheme}://{user}{at}{host}{parts.path}".rstrip("/")


def _explain(error: OSError, where: str) -> StorageError | None:
    text = str(error)
    if error.errno in _FULL:
        return StorageError("the disk or quota is full.", where=where, do="Free some space, or choose another place.")
    if error.errno == errno.EROFS:
        return StorageError("the filesystem is read-only.", where=where, do="Choose a place that can be written.")
    if error.errno in _DENIED or any(word in text for word in _REMOTE_DENIED):
        return StorageError("permission denied.", where=where, do="Check its owner and mode, or the credentials.")
    if error.errno in _WRONG_NAME:
        reason = os.strerror(error.errno)
        return StorageError(f"the name cannot be used ({reason}).", where=where, do="Choose another name.")
    if "NO_SUCH_BUCKET" in text:
        return StorageError("the bucket does not exist.", where=where, do="Create it, or correct its name.")
    return None
