"""Naive twins of the kernels: plain numpy and exact rational arithmetic, one obvious loop each."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

MASK = 2**64 - 1
MANTISSA = {"float32": (23, -126), "float64": (52, -1022)}


def rounded(value: Fraction, dtype: str) -> Fraction:
    """Round an exact value to the nearest float of `dtype`, ties to even."""
    if value == 0:
        return value
    bits, smallest = MANTISSA[dtype]
    exponent = len(bin(abs(value.numerator))) - len(bin(value.denominator))
    if Fraction(2) ** exponent > abs(value):
        exponent -= 1
    step = Fraction(2) ** (max(exponent, smallest) - bits)
    return round(value / step) * step


def exact_scores(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """``||c||^2 - 2 x.c`` with every fused multiply-add rounded once, dimension by dimension."""
    dtype = x.dtype.name
    out = np.empty((len(x), len(centers)), x.dtype)
    for j, center in enumerate(centers):
        norm = 0.0
        for value in center:
            norm += float(value) * float(value)
        for r, row in enumerate(x):
            total = Fraction(0)
            for a, b in zip(row, center, strict=True):
                total = rounded(total + Fraction(float(a)) * Fraction(float(b)), dtype)
            score = rounded(Fraction(float(x.dtype.type(norm))) - 2 * total, dtype)
            out[r, j] = float(score)
    return out


def scores(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``||c||^2 - 2 x.c`` in extended precision, and a bound on the rounding error of any kernel."""
    wide_x, wide_c = x.astype(np.longdouble), centers.astype(np.longdouble)
    norms = (wide_c**2).sum(axis=1)
    size = norms + 2 * np.abs(wide_x) @ np.abs(wide_c).T
    info = np.finfo(x.dtype)
    bound = (x.shape[1] + 4) * (size * info.eps + float(info.smallest_subnormal))
    return norms - 2 * (wide_x @ wide_c.T), bound


def nearest(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest index of the lowest score of every row, and the score."""
    return table.argmin(axis=1), table.min(axis=1)


def row_sqdist(x: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance of every row to its centre."""
    return ((x.astype(np.longdouble) - centers[labels].astype(np.longdouble)) ** 2).sum(axis=1)


def terms(x: np.ndarray, weights: np.ndarray | None, scales: np.ndarray) -> np.ndarray:
    """``rint(w * x * scale)`` as int64."""
    weighted = x.astype(np.float64) if weights is None else weights[:, None] * x.astype(np.float64)
    return np.rint(weighted * scales).astype(np.int64)


def group_sums(values: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Integer sums per label; -1 is left out."""
    out = np.zeros((k, *values.shape[1:]), np.int64)
    for value, label in zip(values, labels, strict=True):
        if label >= 0:
            out[label] += value
    return out


def two_part(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split scaled values into integers and 2**-28ths."""
    high = np.rint(values)
    return high.astype(np.int64), np.rint((values - high) * 2.0**28).astype(np.int64)


def splitmix64(counter: int) -> int:
    """The mixed value of a counter that has been stepped once (Steele, Lea & Flood 2014)."""
    z = (counter + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def scan(values: np.ndarray, unit_rows: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdict per row and range per column of the good rows."""
    wide = values.astype(np.float64)
    verdict = np.where(np.isfinite(wide).all(axis=1), 0, 1)
    norms = np.sqrt((wide**2).sum(axis=1))
    if unit_rows:
        verdict[(verdict == 0) & (norms == 0)] = 2
        wide[verdict == 0] /= norms[verdict == 0, None]
    good = wide[verdict == 0]
    low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
    if len(good):
        low, high = good.min(axis=0), good.max(axis=0)
    return verdict, low, high
