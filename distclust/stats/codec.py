"""Arrays as bytes, without pickle: ``.npy`` and uncompressed ``.npz``, so that numpy alone can read what was stored."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

HEADER_LOCK = threading.Lock()
"""Held wherever numpy parses a header: it does so with ``ast.literal_eval``, which in CPython 3.11 is not safe in
several threads once a garbage collection callback is installed (``SystemError: AST constructor recursion depth
mismatch``; measured: 51 of 60 000 loads)."""


def read_array(file: BinaryIO) -> npt.NDArray[Any]:
    """Read one ``.npy`` array, from any thread.

    Raises
    ------
    ValueError, EOFError
        The bytes are no such array, or hold pickled objects.
    """
    with HEADER_LOCK:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def arrays_to_bytes(kind: str, arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """Encode named arrays under a kind such as ``lloyd/1``."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, kind=np.array(kind), **{name: np.asarray(a) for name, a in arrays.items()})
    return out.getvalue()


def arrays_from_bytes(kind: str, data: bytes) -> dict[str, Array]:
    """Decode what `arrays_to_bytes` wrote.

    Raises
    ------
    ValueError
        If the bytes hold another kind.
    """
    with HEADER_LOCK, np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    found = str(arrays.pop("kind"))
    if found != kind:
        raise ValueError(f"these are statistics of kind {found!r}, not {kind!r}")
    return arrays
