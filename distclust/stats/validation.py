"""What a pass of validation leaves: how far partition and mixture agree, and what lies between clusters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.stats.codec import arrays_from_bytes, arrays_to_bytes

Ints = npt.NDArray[np.int64]

SHARE_UNITS = 2.0**28
"""Responsibilities are summed in integers of this unit: 2^34 rows fit."""


@dataclass(frozen=True)
class ValidationStats:
    """Exact counts over rows, of k clusters and p pairs of them.

    Attributes
    ----------
    confusion : (k, k) int64
        Rows by cluster of the partition and most probable component of the mixture.
    shares : (k, k) int64
        Sums of the responsibilities of all components, by most probable component; see `SHARE_UNITS`.
    sure : (k,) int64
        Rows whose own responsibility is at least 0.95.
    windows : (p, 3) int64
        Rows at the first mean, in the valley and at the second mean of each pair.
    between : (p, b) int64
        Rows of each pair along the line through its means.
    columns : (k, d, c) int64
        Rows by cluster and value of each column.
    """

    exact: ClassVar[bool] = True

    confusion: Ints
    shares: Ints
    sure: Ints
    windows: Ints
    between: Ints
    columns: Ints

    @classmethod
    def zeros(cls, k: int, p: int, bins: int, d: int, column_bins: int) -> ValidationStats:
        """Return the counts of no rows."""
        shapes = ((k, k), (k, k), (k,), (p, 3), (p, bins), (k, d, column_bins))
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def merge(self, other: ValidationStats) -> ValidationStats:
        """Combine the counts of two disjoint sets of rows."""
        return ValidationStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_bytes(self) -> bytes:
        """Encode without pickle."""
        return arrays_to_bytes("validation/1", {f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> ValidationStats:
        """Decode what `to_bytes` wrote."""
        return cls(**arrays_from_bytes("validation/1", data))  # type: ignore[arg-type]
