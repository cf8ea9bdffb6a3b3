"""Arrays of this process that take part in a run as ``memory://<token>``."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.data.block import Block
from distclust.data.state import MemoryState
from distclust.errors import DataError, UsageError

SCHEME = "memory://"


@dataclass(eq=False)
class MemoryRows:
    """A registered array, and what the node cache keeps with it until it is released."""

    values: npt.NDArray[Any]
    """(n, d) rows, as given."""
    weights: npt.NDArray[np.float64] | None
    """(n,) row weights; None for 1."""
    ids: pa.Array | None
    """(n,) ids for the label files; None for the row ids."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    blocks: dict[str, dict[tuple[int, int, int], Block]] = field(default_factory=dict)
    """Finished blocks by view digest, then by (start, rows, offset); the view used last is the last key."""
    states: dict[tuple[str, int, int, int], MemoryState] = field(default_factory=dict)
    """Row state by view digest, start, rows and offset."""


_registered: dict[str, MemoryRows] = {}


def register(
    values: npt.NDArray[Any], weights: npt.NDArray[np.float64] | None = None, ids: pa.Array | None = None
) -> str:
    """Make an array readable by tasks of this process.

    The array is not copied: it must not change until it is released.

    Parameters
    ----------
    values : (n, d) array
        float16, float32, float64, int8, uint8, int16, int32 or int64.
    weights : (n,) float64 array, optional
        Finite and not negative.
    ids : (n,) Arrow array, optional
        Ids for the label files.

    Returns
    -------
    str
        The token; the rows' URI is ``memory://<token>``.

    Raises
    ------
    UsageError
        If the shapes do not fit.
    """
    if values.ndim != 2:
        raise UsageError(f"The array has {values.ndim} dimensions; it must have 2: rows and columns.")
    for name, array in (("weights", weights), ("ids", ids)):
        if array is not None and len(array) != len(values):
            raise UsageError(f"{name} has {len(array)} entries, the array has {len(values)} rows; they must be equal.")
    token = secrets.token_hex(8)
    _registered[token] = MemoryRows(values, weights, ids)
    return token


def lookup(token: str) -> MemoryRows:
    """Return what was registered under a token (or under its ``memory://`` URI).

    Raises
    ------
    DataError
        If this process does not have it: it was released, or it lives in another process.
    """
    token = token.removeprefix(SCHEME)
    rows = _registered.get(token)
    if rows is None:
        raise DataError(
            "the array is not in this process: it was released, or the task runs in another process.",
            where=f"{SCHEME}{token}",
            do="Keep the source open, or save the rows as Parquet where every worker sees them.",
        )
    return rows


def release(token: str) -> None:
    """Forget an array with all blocks and state made from it; twice is harmless."""
    _registered.pop(token.removeprefix(SCHEME), None)
