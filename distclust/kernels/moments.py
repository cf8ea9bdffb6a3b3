"""Passes over raw rows: what is in them, how they go into a block, and exact column sums.

Axis letters: m raw rows, n rows of a block, d dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument, write_argument
from distclust.kernels._emit import address
from distclust.kernels._jit import jit, once
from distclust.kernels._moments import INFINITE_BITS, MAGIC_BITS, make_add_moments, make_center_row
from distclust.kernels._rows import make_row_sqnorm
from distclust.kernels.lloyd import LOW_PART

_ROWS = 4
"""Rows whose moments are added in one reading of the totals."""

_ONES = np.ones(_ROWS)
_ONES.setflags(write=False)

MOST_SHORT = 2.0**51
"""Terms that `column_sums` may take for short."""

OK, NON_FINITE, ZERO_ROW = 0, 1, 2
"""Verdicts of `scan_rows`."""

_FLOATS = ("float32", "float64")
_RAW = (*_FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def scan_rows(
    values: np.ndarray,
    unit_rows: bool,
    minimum: npt.NDArray[np.float64],
    maximum: npt.NDArray[np.float64],
    bad: npt.NDArray[np.uint8],
) -> None:
    """Find bad rows and widen the range of every column by the good ones, in place.

    Parameters
    ----------
    values : [m, d], float32, float64 or integers of 8 to 64 bits
        Raw rows (widen float16 to float32).
    unit_rows : bool
        Whether rows will be scaled to norm 1; ranges are then those of the scaled rows.
    minimum, maximum : float64 [d]
        Ranges so far; start with +inf and -inf.
    bad : uint8 [m]
        Set to `OK`, to `NON_FINITE` for a row with NaN or infinity (with `unit_rows` also for one whose norm is beyond
        float64), or with `unit_rows` to `ZERO_ROW` for a row of norm 0.
    """
    values = read_argument(values, "values", _RAW, (None, None))
    m, d = values.shape
    scan_rows, scan_unit_rows = _scan_kernels(values.dtype.name)
    (scan_unit_rows if unit_rows else scan_rows)(
        values,
        write_argument(minimum, "minimum", "float64", (d,)),
        write_argument(maximum, "maximum", "float64", (d,)),
        write_argument(bad, "bad", "uint8", (m,)),
    )


def write_rows(
    values: np.ndarray,
    center: npt.NDArray[np.float64],
    unit_rows: bool,
    source: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    out: np.ndarray,
) -> bool:
    """Write chosen raw rows to their places in a block, if asked scaled to norm 1, then centred.

    ``out[target[i]] = values[source[i]] / norm - center``, all in float64, cast once.

    Parameters
    ----------
    values : [m, d], float32, float64 or integers of 8 to 64 bits
        Raw rows, as for `scan_rows`; the chosen ones are good.
    center : float64 [d]
        Subtracted from every row.
    unit_rows : bool
        Whether to divide rows by their norm.
    source, target : int64 [p]
        Row positions in `values` and in `out`.
    out : float32 or float64 [n, d]
        The block.

    Returns
    -------
    bool
        Whether all that was written is finite, and the squares of its rows are in float64. It is not so where a row is
        bad (see `scan_rows`), or too far from ``center`` for the type of the block.
    """
    values = read_argument(values, "values", _RAW, (None, None))
    d = values.shape[1]
    source = read_argument(source, "source", "int64", (None,))
    out = write_argument(out, "out", _FLOATS, (None, d))
    kernel = _write_kernel(values.dtype.name, out.dtype.name)
    target = read_argument(target, "target", "int64", (len(source),))
    center = read_argument(center, "center", "float64", (d,))
    return bool(kernel(values, center, bool(unit_rows), source, target, out))


def column_sums(
    x: np.ndarray,
    weights: npt.NDArray[np.float64] | None,
    scales: npt.NDArray[np.float64],
    sums: npt.NDArray[np.int64],
    abs_sums: npt.NDArray[np.int64],
    sq_hi: npt.NDArray[np.int64],
    sq_lo: npt.NDArray[np.int64],
    sq_scales: npt.NDArray[np.float64],
    *,
    short: bool = False,
) -> None:
    """Add ``w*x``, ``|w*x|`` and ``w*x*x`` of every column to fixed-point sums, in place.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    scales : float64 [d]
        Powers of two; a term of `sums` is ``rint(w * x * scale)``, of `abs_sums` its absolute value.
    sums, abs_sums : int64 [d]
        Sums of terms.
    sq_hi, sq_lo : int64 [d]
        Two-part sums of ``w * x * x * sq_scale``, as in `lloyd.fixed_sums`.
    sq_scales : float64 [d]
        Powers of two.
    short : bool, default=False
        Whether no term is beyond `MOST_SHORT`: then they need no conversion, and half the time.
    """
    x = read_argument(x, "x", _FLOATS, (None, None))
    n, d = x.shape
    weights = weights_argument(weights, n)
    kernel = _short_sums_kernel(x.dtype.name) if short else _column_sums
    kernel(
        x,
        weights if len(weights) or not short else _ONES,
        read_argument(scales, "scales", "float64", (d,)),
        write_argument(sums, "sums", "int64", (d,)),
        write_argument(abs_sums, "abs_sums", "int64", (d,)),
        write_argument(sq_hi, "sq_hi", "int64", (d,)),
        write_argument(sq_lo, "sq_lo", "int64", (d,)),
        read_argument(sq_scales, "sq_scales", "float64", (d,)),
    )


@once
def _scan_kernels(dtype: str) -> Any:
    sqnorm_of_row = make_row_sqnorm(dtype)
    size = np.dtype(dtype).itemsize

    @jit(name=f"scan_unit_rows_{dtype}")
    def scan_unit_rows(values, minimum, maximum, bad):
        m, d = values.shape
        values_at = address(values)
        for r in range(m):
            total = sqnorm_of_row(values_at + r * d * size, d)
            bad[r] = OK
            if not np.isfinite(total):
                bad[r] = NON_FINITE
            elif total == 0.0:
                bad[r] = ZERO_ROW
            else:
                norm = np.sqrt(total)
                for i in range(d):
                    value = np.float64(values[r, i]) / norm
                    minimum[i] = value if value < minimum[i] else minimum[i]
                    maximum[i] = value if value > maximum[i] else maximum[i]

    @jit(name=f"scan_rows_{dtype}")
    def scan_rows(values, minimum, maximum, bad):
        m, d = values.shape
        values_at = address(values)
        for start in range(0, m, 4):
            stop = min(m, start + 4)
            clean = stop - start == 4
            for r in range(start, stop):
                bad[r] = OK
                # Finite values may have squares that are not.
                if not np.isfinite(sqnorm_of_row(values_at + r * d * size, d)):
                    for i in range(d):
                        if not np.isfinite(np.float64(values[r, i])):
                            bad[r] = NON_FINITE
                clean &= bad[r] == OK
            if clean:  # four rows share a reading of the ranges
                for i in range(d):
                    a, b, c, e = values[start, i], values[start + 1, i], values[start + 2, i], values[start + 3, i]
                    low, least = a if a < b else b, c if c < e else e
                    high, most = a if a > b else b, c if c > e else e
                    low, high = low if low < least else least, high if high > most else most
                    minimum[i] = low if low < minimum[i] else minimum[i]
                    maximum[i] = high if high > maximum[i] else maximum[i]
                continue
            for r in range(start, stop):
                if bad[r] != OK:
                    continue
                for i in range(d):
                    value = np.float64(values[r, i])
                    minimum[i] = value if value < minimum[i] else minimum[i]
                    maximum[i] = value if value > maximum[i] else maximum[i]

    return scan_rows, scan_unit_rows


@once
def _write_kernel(dtype: str, out_dtype: str) -> Any:
    sqnorm_of_row, sqnorm_written = make_row_sqnorm(dtype), make_row_sqnorm(out_dtype)
    size, out_size = np.dtype(dtype).itemsize, np.dtype(out_dtype).itemsize
    center_row = make_center_row(dtype)
    single = out_dtype == "float32"

    @jit(name=f"write_rows_{dtype}_{out_dtype}")
    def write(values, center, unit_rows, source, target, out):
        d = values.shape[1]
        values_at, center_at, out_at = address(values), address(center), address(out)
        finite = True
        for p in range(source.shape[0]):
            r, t = source[p], target[p]
            if unit_rows:
                norm = np.sqrt(sqnorm_of_row(values_at + r * d * size, d))
                finite &= np.isfinite(norm)
                for i in range(d):
                    out[t, i] = np.float64(values[r, i]) / norm - center[i]
            elif single:
                most = center_row(values_at + r * d * size, center_at, out_at + t * d * out_size, d)
                finite &= most < INFINITE_BITS
                continue
            else:  # a division by 1 costs as much as the rest
                for i in range(d):
                    out[t, i] = np.float64(values[r, i]) - center[i]
            finite &= np.isfinite(sqnorm_written(out_at + t * d * out_size, d))
        return finite

    return write


@once
def _short_sums_kernel(dtype: str) -> Any:
    add_moments, add_moments_of_one = (make_add_moments(dtype, rows, LOW_PART) for rows in (_ROWS, 1))
    size = np.dtype(dtype).itemsize

    @jit(name=f"short_sums_{dtype}")
    def short_sums(x, weights, scales, sums, abs_sums, sq_hi, sq_lo, sq_scales):
        n, d = x.shape
        x_at, scales_at, sq_scales_at = address(x), address(scales), address(sq_scales)
        sums_at, abs_at, high_at, low_at = address(sums), address(abs_sums), address(sq_hi), address(sq_lo)
        weights_at = address(weights)
        step = 8 if weights.shape[0] == n else 0
        for r in range(0, n - n % _ROWS, _ROWS):
            add_moments(
                x_at + r * d * size, weights_at + r * step, scales_at, sq_scales_at, sums_at, abs_at, high_at, low_at, d
            )
        for r in range(n - n % _ROWS, n):
            add_moments_of_one(
                x_at + r * d * size, weights_at + r * step, scales_at, sq_scales_at, sums_at, abs_at, high_at, low_at, d
            )
        for totals in (sums, abs_sums, sq_hi, sq_lo):
            for i in range(d):
                totals[i] -= n * MAGIC_BITS

    return short_sums


@jit
def _column_sums(x, weights, scales, sums, abs_sums, sq_hi, sq_lo, sq_scales):
    weighted = weights.shape[0] > 0
    for r in range(x.shape[0]):
        w = weights[r] if weighted else 1.0
        for i in range(x.shape[1]):
            value = np.float64(x[r, i])
            term = np.int64(np.rint(w * value * scales[i]))
            sums[i] += term
            abs_sums[i] += abs(term)
            square = w * value * value * sq_scales[i]
            whole = np.rint(square)
            sq_hi[i] += np.int64(whole)
            sq_lo[i] += np.int64(np.rint((square - whole) * LOW_PART))
