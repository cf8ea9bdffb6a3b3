"""A block as a file that any process of the node maps: a header, then rows, row ids and weights.

Layout: 4096 bytes of header (JSON, padded with spaces), then ``x``, ``row_ids`` and ``weights``, each at a
multiple of 64 bytes. Room is made for all rows of the partition; where bad rows were dropped the arrays are
shorter than their room. Files appear by a rename and never change.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels.aligned import aligned_empty

VERSION = 1
_MAGIC = "distclust-block"
_HEADER_BYTES = 4096
_ALIGNMENT = 64


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a block lie in its file.

    Attributes
    ----------
    capacity : int
        Rows that there is room for.
    width : int
        Dimensions.
    dtype : str
        ``float32`` or ``float64``.
    weighted : bool
        Whether weights follow the row ids.
    """

    capacity: int
    width: int
    dtype: str
    weighted: bool

    @property
    def ids_at(self) -> int:
        """Byte at which the row ids begin."""
        return _aligned(_HEADER_BYTES + self.capacity * self.width * np.dtype(self.dtype).itemsize)

    @property
    def weights_at(self) -> int:
        """Byte at which the weights begin."""
        return _aligned(self.ids_at + 8 * self.capacity)

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return _aligned(self.weights_at + 8 * self.capacity * self.weighted)


@dataclass(frozen=True, eq=False)
class Rows:
    """Arrays of a block: those of a mapped file, or in memory."""

    x: npt.NDArray[Any]
    row_ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64] | None

    @classmethod
    def empty(cls, layout: Layout) -> Rows:
        """Return arrays in memory with room for all rows."""
        return cls(
            aligned_empty((layout.capacity, layout.width), layout.dtype),
            np.empty(layout.capacity, np.int64),
            np.empty(layout.capacity) if layout.weighted else None,
        )

    @classmethod
    def over(cls, buffer: mmap.mmap, layout: Layout) -> Rows:
        """Return arrays over a mapped file; the map lives as long as one of them does."""
        n, d = layout.capacity, layout.width
        return cls(
            np.frombuffer(buffer, layout.dtype, n * d, _HEADER_BYTES).reshape(n, d),
            np.frombuffer(buffer, np.int64, n, layout.ids_at),
            np.frombuffer(buffer, np.float64, n, layout.weights_at) if layout.weighted else None,
        )

    def first(self, n: int) -> Rows:
        """Return the first ``n`` rows, read-only."""
        x, row_ids = self.x[:n], self.row_ids[:n]
        weights = None if self.weights is None else self.weights[:n]
        for array in (x, row_ids, weights):
            if array is not None:
                array.setflags(write=False)
        return Rows(x, row_ids, weights)


def open_block(path: Path, layout: Layout) -> Rows | None:
    """Map a block file; None if it is missing, damaged, short or of another layout."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(_HEADER_BYTES))
            if os.fstat(file.fileno()).st_size != layout.n_bytes or not _fits(header, layout):
                return None
            buffer = mmap.mmap(file.fileno(), layout.n_bytes, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    return Rows.over(buffer, layout).first(header["n"])


class Draft:
    """A block file being written aside: fill ``rows``, then `publish` or `discard`.

    Parameters
    ----------
    path : Path
        Name of the finished file.
    layout : Layout
        Its layout.

    Raises
    ------
    OSError
        There is no room, or no permission.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        descriptor, self._aside = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            # A full disk is an error here and now, not a SIGBUS at some later store through the map.
            _reserve(descriptor, layout.n_bytes)
            self._buffer = mmap.mmap(descriptor, layout.n_bytes, access=mmap.ACCESS_WRITE)
        except BaseException:
            self.discard()
            raise
        finally:
            os.close(descriptor)
        self.rows = Rows.over(self._buffer, layout)

    def publish(self, n: int) -> Rows:
        """Name the file as finished with ``n`` rows, and return them."""
        self._buffer[:_HEADER_BYTES] = _header(self._layout, n)
        os.replace(self._aside, self._path)
        return self.rows.first(n)

    def discard(self) -> None:
        """Remove the file aside."""
        with contextlib.suppress(OSError):
            os.unlink(self._aside)


def _reserve(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
        return
    zeros = bytes(1 << 20)
    for at in range(0, n_bytes, len(zeros)):
        os.pwrite(descriptor, zeros[: n_bytes - at], at)


def _header(layout: Layout, n: int) -> bytes:
    text = json.dumps({"magic": _MAGIC, "version": VERSION, "n": n, **_shape(layout)})
    return text.encode().ljust(_HEADER_BYTES)


def _shape(layout: Layout) -> dict[str, object]:
    return {"capacity": layout.capacity, "d": layout.width, "dtype": layout.dtype, "weighted": layout.weighted}


def _fits(header: object, layout: Layout) -> bool:
    if not isinstance(header, dict):
        return False
    n = header.get("n")
    expected = {"magic": _MAGIC, "version": VERSION, "n": n, **_shape(layout)}
    return header == expected and isinstance(n, int) and 0 <= n <= layout.capacity


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
