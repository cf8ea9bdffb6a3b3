"""Files of a filesystem that pyarrow or fsspec opens by URI."""

from __future__ import annotations

import errno
import inspect
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, cast

import pyarrow.fs as pafs

from distclust.data._local_files import aside_name
from distclust.data.files import locate

_CHUNK = 4 << 20
_SPOOL_BYTES = 64 << 20
"""A file up to this size is built in memory, a larger one in the temporary directory."""
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}
"""Names under which pyarrow and fsspec know stores where an object appears whole when its upload ends."""
_CONDITIONAL_CREATE = {"s3", "s3a", "gs", "gcs", "memory"}
"""Protocols whose fsspec package creates an object only if there is none, in one request."""


class RemoteFiles:
    """What `distclust.data.storage.Storage` does on another machine.

    pyarrow's own S3, GCS and Azure filesystems know no conditional create: there `create` looks, writes and reads
    back, and the last of several simultaneous writers wins. s3fs and gcsfs (``fsspec+s3://``) have it.
    """

    def __init__(self, uri: str) -> None:
        self._place = locate(uri)
        self._fs = self._place.filesystem
        self._root = self._place.path.rstrip("/")
        handler = getattr(self._fs, "handler", None)
        self._fsspec = handler.fs if isinstance(handler, pafs.FSSpecHandler) else None
        protocol = self._fs.type_name if self._fsspec is None else self._fsspec.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._publishes_whole = bool(names & _OBJECT_STORES)
        self.exclusive = (
            self._fsspec is not None
            and bool(names & _CONDITIONAL_CREATE)
            and "mode" in inspect.signature(self._fsspec.pipe_file).parameters
        )

    def uri(self, path: str) -> str:
        return self._place.uri(self._full(path))

    def above(self) -> tuple[str, str] | None:
        # What follows scheme and host; for a local path behind fsspec the host is empty.
        directory, _, name = self._root.rpartition("/")
        inside = len(self._root) - len(self._place.base.rstrip("/"))
        return (self._place.uri(directory), name) if inside > 1 else None

    @contextmanager
    def open_output(self, path: str) -> Iterator[IO[bytes]]:
        # pyarrow has no way to give up an upload: closing the stream publishes what was sent. So it is begun last.
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
            yield cast(IO[bytes], file)
            file.seek(0)
            self._upload(cast(IO[bytes], file), self._full(path))

    def create(self, path: str, data: bytes) -> bool:
        if self.exclusive:
            return self._create_conditionally(path, data)
        if self.exists(path):
            return False
        self._upload(io.BytesIO(data), self._full(path))
        with self.open_input(path) as file:
            return bool(file.read() == data)

    def _create_conditionally(self, path: str, data: bytes) -> bool:
        assert self._fsspec is not None
        try:
            self._fsspec.pipe_file(self._full(path), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # Some S3 servers answer a lost race with "invalid argument".
            if error.errno == errno.EINVAL and self.exists(path):
                return False
            raise
        return True

    def append(self, path: str, data: bytes) -> None:
        before = b""
        if self.exists(path):
            with self.open_input(path) as file:
                before = file.read()
        self._upload(io.BytesIO(before + data), self._full(path))

    def _upload(self, data: IO[bytes], full: str) -> None:
        if self._publishes_whole:
            self._send(data, full)
            return
        directory, _, name = full.rpartition("/")
        self._fs.create_dir(directory, recursive=True)
        aside = f"{directory}/{aside_name(name)}"
        try:
            self._send(data, aside)
            self._replace(aside, full)
        except BaseException:
            with suppress(OSError):
                self._fs.delete_file(aside)
            raise

    def _send(self, data: IO[bytes], full: str) -> None:
        with self._fs.open_output_stream(full) as stream:
            shutil.copyfileobj(data, stream, _CHUNK)

    def _replace(self, source: str, target: str) -> None:
        try:
            self._fs.move(source, target)
        except OSError:
            # HDFS does not rename onto a file.
            if self._fs.get_file_info(target).type != pafs.FileType.File:
                raise
            self._fs.delete_file(target)
            self._fs.move(source, target)

    def open_input(self, path: str) -> IO[bytes]:
        return cast(IO[bytes], self._fs.open_input_file(self._full(path)))

    def exists(self, path: str) -> bool:
        return bool(self._fs.get_file_info(self._full(path)).type != pafs.FileType.NotFound)

    def walk(self, path: str, recursive: bool) -> Iterator[tuple[str, int, int]]:
        for name, info in self._infos(path, recursive):
            if info.type == pafs.FileType.File:
                yield name, info.size or 0, info.mtime_ns or 0

    def entries(self, path: str) -> list[str]:
        return [
            name.rpartition("/")[2] + ("/" if info.type == pafs.FileType.Directory else "")
            for name, info in self._infos(path, recursive=False)
        ]

    def _infos(self, path: str, recursive: bool) -> list[tuple[str, pafs.FileInfo]]:
        """Return what is inside, by its path relative to the root."""
        selector = pafs.FileSelector(self._full(path), allow_not_found=True, recursive=recursive)
        infos = self._fs.get_file_info(selector)
        return [(info.path[len(self._root) :].strip("/"), info) for info in infos]

    def remove(self, path: str) -> None:
        self._fs.delete_file(self._full(path))

    def remove_tree(self, path: str) -> None:
        self._fs.delete_dir(self._full(path))

    def move(self, source: str, target: str) -> None:
        full = self._full(target)
        if not self._publishes_whole:
            self._fs.create_dir(full.rpartition("/")[0], recursive=True)
        self._replace(self._full(source), full)

    def lock(self, path: str) -> AbstractContextManager[None]:
        return nullcontext()

    def sweep(self, older_than: float) -> None:
        if self._publishes_whole:
            return
        now = time.time()
        for name, _, mtime_ns in self.walk("", recursive=True):
            base = name.rpartition("/")[2]
            if base.startswith(".") and base.endswith(".tmp") and now - mtime_ns / 1e9 > older_than:
                with suppress(FileNotFoundError):
                    self.remove(name)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root
