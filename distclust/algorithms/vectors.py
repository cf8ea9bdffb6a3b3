"""Centres between two coordinates: those of the source, as a model stores them, and those of the blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from distclust.kernels.heads import HeadAxes
from distclust.ops.centers import CenterSet
from distclust.ops.profile import PreparedData

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]

_PART_ROWS = 1 << 16
"""Centres that are converted at once."""


def stored_type(data: PreparedData) -> type[np.floating]:
    """Return the type that a model stores: float64 where the source has more than float32 holds, float32 otherwise."""
    return np.float64 if data.source.dtype in ("float64", "int32", "int64") else np.float32


def stored_vectors(data: PreparedData, centers: Floats) -> Rows:
    """Return centres in the coordinates of the source, in the type that a model stores."""
    return (centers + data.offset).astype(stored_type(data))


def block_centers(vectors: Rows, offset: Floats, dtype: str, head: HeadAxes | None = None) -> CenterSet:
    """Return stored centres in the coordinates of the blocks; see `CenterSet` for the head."""
    return CenterSet(_block_rows(vectors, offset, dtype), head)


def _block_rows(vectors: Rows, offset: Floats, dtype: str) -> Rows:
    rows = np.empty(vectors.shape, dtype)
    for at, part in zip(range(0, len(vectors), _PART_ROWS), block_parts(vectors, offset, dtype), strict=True):
        rows[at : at + _PART_ROWS] = part
    return rows


def block_parts(vectors: Rows, offset: Floats, dtype: str) -> Iterator[Rows]:
    """Yield stored centres in the coordinates of the blocks, some at a time: there may be a million."""
    for at in range(0, len(vectors), _PART_ROWS):
        yield (vectors[at : at + _PART_ROWS].astype(np.float64) - offset).astype(dtype)


def representable(data: PreparedData, centers: Floats) -> Floats:
    """Return centres as a model gives them back: labels found with these are those of the stored model."""
    return _block_rows(stored_vectors(data, centers), data.offset, data.view.dtype).astype(np.float64)
