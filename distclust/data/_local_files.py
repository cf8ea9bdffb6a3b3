"""Files of a local directory: written aside in the same directory, flushed, then renamed or linked into place."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def aside_name(name: str) -> str:
    """Return a hidden name that no other writer uses."""
    return f".{name[:80]}.{os.getpid()}.{secrets.token_hex(6)}.tmp"


class LocalFiles:
    """What `distclust.data.storage.Storage` does on a disk of this machine, or one that is mounted."""

    exclusive = True

    def __init__(self, root: str) -> None:
        self.root = root

    def uri(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    def above(self) -> tuple[str, str] | None:
        directory, name = os.path.split(self.root)
        return (directory, name) if name else None

    @contextmanager
    def open_output(self, path: str) -> Iterator[IO[bytes]]:
        full = self.uri(path)
        with _written_aside(full) as (file, aside):
            yield file
            _flush(file)
            os.replace(aside, full)
            _flush_directory(os.path.dirname(full))

    def create(self, path: str, data: bytes) -> bool:
        full = self.uri(path)
        if os.path.lexists(full):
            return False
        with _written_aside(full) as (file, aside):
            file.write(data)
            _flush(file)
            try:
                os.link(aside, full)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if not self._create_locked(aside, path):
                    return False
            _flush_directory(os.path.dirname(full))
        return True

    def _create_locked(self, aside: str, path: str) -> bool:
        """Create a file where the filesystem has no hard links (FAT, some network mounts)."""
        full = self.uri(path)
        with self.lock(os.path.join(os.path.dirname(path), ".create")):
            if os.path.lexists(full):
                return False
            os.replace(aside, full)
            return True

    def append(self, path: str, data: bytes) -> None:
        handle = _open_made(self.uri(path), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        with os.fdopen(handle, "ab", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) or 0 :]

    def open_input(self, path: str) -> IO[bytes]:
        return open(self.uri(path), "rb")

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.uri(path))

    def walk(self, path: str, recursive: bool) -> Iterator[tuple[str, int, int]]:
        with suppress(FileNotFoundError), os.scandir(self.uri(path)) as inside:
            for entry in inside:
                name = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if recursive:
                        yield from self.walk(name, recursive)
                    continue
                with suppress(FileNotFoundError):  # removed since the directory was read
                    stat = entry.stat()
                    yield name, stat.st_size, stat.st_mtime_ns

    def entries(self, path: str) -> list[str]:
        try:
            with os.scandir(self.uri(path)) as inside:
                return [entry.name + ("/" if entry.is_dir() else "") for entry in inside]
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        os.unlink(self.uri(path))

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(self.uri(path))

    def move(self, source: str, target: str) -> None:
        full = self.uri(target)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        os.replace(self.uri(source), full)
        _flush_directory(os.path.dirname(full))

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        full = self.uri(path)
        handle = _locked(full)
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(full)
            os.close(handle)

    def sweep(self, older_than: float) -> None:
        now = time.time()
        for name, _, mtime_ns in self.walk("", recursive=True):
            base = os.path.basename(name)
            if base.startswith(".") and base.endswith(".tmp") and now - mtime_ns / 1e9 > older_than:
                with suppress(FileNotFoundError):
                    self.remove(name)


@contextmanager
def _written_aside(full: str) -> Iterator[tuple[IO[bytes], str]]:
    """Open a temporary file in the directory of ``full`` and remove what is left of it."""
    directory, name = os.path.split(full)
    aside = os.path.join(directory, aside_name(name))
    handle = _open_made(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, aside
    finally:
        with suppress(OSError):
            os.unlink(aside)


def _open_made(full: str, flags: int) -> int:
    """Open a file, making its directory if need be. Mode as the umask allows: others may have to read the run."""
    try:
        return os.open(full, flags | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        return os.open(full, flags | os.O_CLOEXEC, 0o666)


def _locked(full: str) -> int:
    """Return a descriptor with the exclusive lock on the file that has this name; its holder removes the file."""
    while True:
        handle = _open_made(full, os.O_RDWR | os.O_CREAT)
        try:
            with suppress(OSError):  # a filesystem without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.stat(full), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_directory(path: str) -> None:
    """Make a rename last through a power cut; filesystems that cannot are left alone."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
