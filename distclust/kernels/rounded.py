"""Rows rounded to bytes, with what bounds the error: made once, they serve every screen and every list.

A row is rounded to multiples of a step of its own, up to 127 steps. With axes (`distclust.kernels.heads`) it is its
coordinates on these that are rounded.

Axis letters: n rows, d dimensions, h axes or all dimensions, w the same in whole cache lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._emit import address
from distclust.kernels._jit import jit, once
from distclust.kernels._rows import make_row_sqnorm
from distclust.kernels._screen import MOST, largest_value, round_bytes
from distclust.kernels.aligned import LINE, aligned_empty
from distclust.kernels.heads import HeadAxes, head_rows
from distclust.kernels.nearest import pack_axes

MOST_WIDTH = 1 << 16
"""Products of so many bytes fit into an int32."""

LEAST_LENGTH, MOST_LENGTH = 1e-15, 1e15
"""Lengths of rows and centres that are rounded: their squares are far from the ends of float32."""

FLOATS = STEP, ERROR, LENGTH, TAIL, SUM, SQUARE = range(6)
"""What `RoundedRows.floats` has of a row."""

_CHUNK_BYTES = 1 << 20
"""Rows whose coordinates on axes are taken at once: they are read twice, the second time out of L2."""

_UP = 1 + 2.0**-20
"""Makes an upper bound of a float64 one in float32."""


class RoundedRows(NamedTuple):
    """Rows as `round_rows` gives them."""

    values: npt.NDArray[np.int8]
    """[n, w] rounded, and zeros to the end of a cache line."""
    floats: npt.NDArray[np.float32]
    """[n, 6] step; upper bounds of the lengths of the rounding error, of the row, infinite where it is not sure, and
    of what is left off the axes, 0 without (subnormal ones are rounded to nearest); sum of the bytes; squared length of
    the rounded row."""

    def first(self, n: int) -> RoundedRows:
        """Return the first rows."""
        return RoundedRows(self.values[:n], self.floats[:n])


def padded_width(h: int) -> int:
    """Return the bytes that a row of h values takes."""
    return -(-h // LINE) * LINE


def rounded_bytes(n: int, h: int) -> int:
    """Return the bytes that n rounded rows of h values take."""
    return n * (padded_width(h) + 4 * len(FLOATS))


def round_rows(x: np.ndarray, head: HeadAxes | None = None, known: RoundedRows | None = None) -> RoundedRows:
    """Round rows to bytes.

    Parameters
    ----------
    x : float32 [n, d]
    head : HeadAxes, optional
        Axes whose coordinates are rounded; default: all columns.
    known : RoundedRows, optional
        The first of these rows, rounded before.

    Returns
    -------
    RoundedRows
        The same bits wherever a row stands.

    Examples
    --------
    >>> rounded = round_rows(np.array([[0.0, -2.54, 1.27]], np.float32))
    >>> rounded.values[0, :3].tolist(), round(float(rounded.floats[0, 0]), 3)
    ([0, -127, 64], 0.02)
    """
    x = read_argument(x, "x", "float32", (None, None))
    n = len(x)
    h = x.shape[1] if head is None else head.axes.shape[1]
    if h > MOST_WIDTH:
        raise ValueError(f"rows have {h} values; at most {MOST_WIDTH} are rounded.")
    rounded = RoundedRows(aligned_empty((n, padded_width(h)), np.int8), np.empty((n, len(FLOATS)), np.float32))
    rounded.values[:, h:] = 0
    done = 0
    if known is not None:
        done = len(known.values)
        rounded.values[:done], rounded.floats[:done] = known
    at_once = max(n, 1) if head is None else max(1, _CHUNK_BYTES // (4 * x.shape[1]))
    packed = None if head is None else pack_axes(head.axes)
    for start in range(done, n, at_once):
        some = slice(start, start + at_once)
        part, tails = x[some], np.zeros(1)
        if head is not None:
            part, tails = head_rows(part, head, packed)
        _round_kernel()(part, tails, np.zeros(3, np.float32), rounded.values[some], rounded.floats[some])
    return rounded


def rounded_argument(rounded: RoundedRows, n: int, h: int) -> RoundedRows:
    """Return rounded rows as kernels take them: n rows of h values."""
    values = read_argument(rounded.values, "rounded", "int8", (n, padded_width(h)))
    return RoundedRows(values, read_argument(rounded.floats, "rounded", "float32", (n, len(FLOATS))))


def last_rows(rounded: RoundedRows, tile: int) -> npt.NDArray[np.int8]:
    """Return the bytes behind the last whole tile of rows, padded to one with zeros."""
    values = rounded.values
    n = len(values)
    tail = aligned_empty((tile, values.shape[1]), np.int8)
    tail[n % tile :] = 0
    tail[: n % tile] = values[n - n % tile :]
    return tail


@jit
def byte_step(most):
    """Return the step of the bytes of a row whose largest magnitude is `most`, and its inverse; 0 for tiny rows."""
    if most > np.float32(LEAST_LENGTH):
        step = most / np.float32(MOST)
        return step, np.float32(1.0) / step
    return np.float32(0.0), np.float32(0.0)


@once
def _round_kernel() -> Any:
    row_sqnorm = make_row_sqnorm("float32")

    @jit(name="round_rows")
    def round_rows(x, tails, sums, values, floats):
        (n, h), stride = x.shape, values.shape[1]
        x_at, values_at, sums_at = address(x), address(values), address(sums)
        for r in range(n):
            source = x_at + r * h * 4
            most = largest_value(source, h)
            step, scale = byte_step(most)
            round_bytes(source, scale, step, h, values_at + r * stride, sums_at)
            left = np.float64(sums[0])
            long = np.float64(most) * np.sqrt(np.float64(h))  # no row of this extent is longer
            tail = tails[r if tails.shape[0] == n else 0]
            length = np.sqrt(row_sqnorm(source, h) + tail * tail) * _UP
            floats[r, STEP] = step
            floats[r, ERROR] = np.float32((np.sqrt(left) * (1 + 2.0**-10) + 2.0**-21 * long) * _UP)
            if step == 0.0:
                floats[r, ERROR] = np.float32(long * _UP)
            sure = long < MOST_LENGTH and length < MOST_LENGTH
            floats[r, LENGTH] = np.float32(length * _UP) if sure else np.float32(np.inf)
            floats[r, TAIL] = np.float32(tail * _UP)
            floats[r, SUM] = sums[1]
            floats[r, SQUARE] = step * step * sums[2]

    return round_rows
