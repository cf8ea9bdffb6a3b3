"""Per-row arrays that steps keep beside a block between passes: labels, bounds, last distances.

They are advisory. Whatever goes wrong (no room, a damaged file, another node) shows as `None`, and the step
computes what it misses; not one bit of a result depends on it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from distclust.stats.codec import HEADER_LOCK, read_array

KEPT_TAGS = 2
"""Tags kept per kind: the pass before, and the one that is being written (a retried task still needs the former)."""


_TAKEN = ".taken-"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


class RowState(ABC):
    """Arrays of one partition under one view, by kind and tag. All methods are safe in any thread."""

    @abstractmethod
    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return the array stored under a kind (``labels``) and tag (``000012``), read-only; None if there is none."""

    @abstractmethod
    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store an array; the last 2 tags of each kind are kept. Does nothing if that is impossible."""

    @abstractmethod
    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return an array to be changed in place and given back with `give`; a second call finds nothing."""

    @abstractmethod
    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store an array, without a copy where that can be, as the only one of its kind."""

    @property
    def whole(self) -> RowState:
        """The state of the whole partition, if these are its first rows: for what is known of each row by itself."""
        return self


class NoState(RowState):
    """Keeps nothing."""

    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return None."""
        return None

    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Do nothing."""

    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return None."""
        return None

    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Do nothing."""


class MemoryState(RowState):
    """Keeps arrays in a dictionary of this process."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[str, npt.NDArray[Any]]] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return the array, read-only, or None."""
        return self._kinds.get(kind, {}).get(tag)

    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store a copy of the array."""
        kept = np.array(array)
        kept.setflags(write=False)
        with self._lock:
            tags = self._kinds.setdefault(kind, {})
            tags.pop(tag, None)
            tags[tag] = kept
            for old in list(tags)[:-KEPT_TAGS]:
                del tags[old]

    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Remove and return the array."""
        with self._lock:
            return self._kinds.get(kind, {}).pop(tag, None)

    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store the array itself."""
        with self._lock:
            self._kinds[kind] = {tag: array}


class FileState(RowState):
    """Keeps arrays as ``<kind>/<tag>.npy`` in a directory that all processes of the node see.

    Parameters
    ----------
    directory : Path
        Made when the first array is stored.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return the array, read-only, or None if the file is missing or damaged."""
        try:
            with open(self._path(kind, tag), "rb") as file:
                array = read_array(file)
                if file.read(1):
                    return None
        except (OSError, ValueError, EOFError):
            return None
        array.setflags(write=False)
        return array

    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store the array: written aside, then renamed."""
        path = self._path(kind, tag)
        aside: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                aside = file.name
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            os.replace(aside, path)
            self._drop_old(path)
        except (OSError, ValueError):
            if aside is not None:
                with contextlib.suppress(OSError):
                    os.unlink(aside)

    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Map the array into memory under a name of its own; the file goes first, so that no one else takes it too."""
        path = self._path(kind, tag)
        mine = path.with_name(f"{_TAKEN}{token_hex(8)}")
        try:
            os.rename(path, mine)
        except OSError:
            return None
        try:
            with HEADER_LOCK:
                whole = np.lib.format.open_memmap(mine, mode="r")
                if mine.stat().st_size != whole.offset + whole.nbytes:
                    raise ValueError("the file has another length than its header says")
                array = np.lib.format.open_memmap(mine, mode="r+")  # would make a short file longer
        except (OSError, ValueError, EOFError):
            _remove(mine)
            return None
        weakref.finalize(array, _remove, mine)
        return array

    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store the array in place of all others of its kind; one that was taken here only changes its name."""
        path = self._path(kind, tag)
        for other in path.parent.glob("*.npy"):
            _remove(other)
        source = Path(array.filename) if isinstance(array, np.memmap) and array.filename else None
        if source is not None and source.parent == path.parent and source.name.startswith(_TAKEN):
            with contextlib.suppress(OSError):
                os.replace(source, path)
                return
        self.put(kind, tag, array)

    def _path(self, kind: str, tag: str) -> Path:
        return self._directory / quote(kind, safe="") / f"{quote(tag, safe='')}.npy"

    @staticmethod
    def _drop_old(newest: Path) -> None:
        others = [p for p in newest.parent.glob("*.npy") if p != newest and not p.name.startswith(".")]
        others.sort(key=lambda p: p.stat().st_mtime_ns)
        for old in others[: max(0, len(others) - (KEPT_TAGS - 1))]:
            old.unlink(missing_ok=True)
