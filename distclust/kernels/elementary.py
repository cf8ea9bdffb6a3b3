"""Exponential and logarithm as fixed sequences of operations.

Those of numpy and of the C library choose their instructions by the processor, and their last bits with them. Here
only additions, multiplications and divisions are used, each rounded once, one after the other.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from distclust.kernels._jit import jit

LOG2_E = 1.4426950408889634

# ln 2 in two parts (Cody and Waite): the first has 20 low bits of zero, so that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

LOWEST, HIGHEST = -700.0, 700.0
"""Arguments of the exponential are cut off here: the result is still a normal number."""

_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12 = (1.0 / math.factorial(i) for i in range(2, 13))


def exponential(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return e to the power of every value, to a few units in the last place; beyond -700 and 700, of these.

    Parameters
    ----------
    values : float64 array

    Returns
    -------
    float64 array

    Examples
    --------
    >>> exponential(np.array([0.0, 1.0])).round(12).tolist()
    [1.0, 2.718281828459]
    """
    values = np.clip(values, LOWEST, HIGHEST)
    power = np.rint(values * LOG2_E)
    return np.ldexp(series((values - power * LN2_HIGH) - power * LN2_LOW), power.astype(np.int32))


def logarithm(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the natural logarithm of every value, to a few units in the last place.

    Parameters
    ----------
    values : float64 array
        At least 0, and finite.

    Returns
    -------
    float64 array
        Minus infinity for 0.

    Examples
    --------
    >>> logarithm(np.array([0.0, 1.0, 10.0])).round(12).tolist()
    [-inf, 0.0, 2.302585092994]
    """
    fraction, exponent = np.frexp(values)
    low = fraction < math.sqrt(0.5)
    fraction, exponent = np.where(low, 2.0 * fraction, fraction), np.where(low, exponent - 1, exponent)
    # ln f = 2 artanh((f - 1) / (f + 1)), abs(s) < 0.172: eleven terms of the series of artanh.
    s = (fraction - 1.0) / (fraction + 1.0)
    square = s * s
    total = np.full_like(s, 1.0 / 21)
    for i in range(19, 0, -2):
        total = total * square + 1.0 / i
    return np.where(values > 0, exponent * LN2_HIGH + (exponent * LN2_LOW + 2.0 * s * total), -np.inf)


@jit
def series(x):
    """Return exp(x) for abs(x) <= ln 2 / 2: the first terms of the series; for kernels and for arrays."""
    t = _C12 * x + _C11
    t = t * x + _C10
    t = t * x + _C9
    t = t * x + _C8
    t = t * x + _C7
    t = t * x + _C6
    t = t * x + _C5
    t = t * x + _C4
    t = t * x + _C3
    t = t * x + _C2
    t = t * x + 1.0
    return t * x + 1.0


# Adding 1.5 * 2^52 + 1023 leaves an integer, biased as an exponent is, in the lowest bits of the sum.
_EXPONENT_MAGIC = 1.5 * 2.0**52 + 1023.0


@jit
def small_exponentials(values, powers, power_bits):
    """Replace values of at most 0 by their exponentials, in place; below -700 by that of -700.

    `powers` float64 is scratch of the same length, `power_bits` the same memory as int64.
    """
    for t in range(values.shape[0]):
        value = values[t] if values[t] > LOWEST else LOWEST
        power = np.rint(value * LOG2_E)
        values[t] = series((value - power * LN2_HIGH) - power * LN2_LOW)
        powers[t] = power + _EXPONENT_MAGIC
    for t in range(values.shape[0]):
        power_bits[t] = power_bits[t] << 52
    for t in range(values.shape[0]):
        values[t] *= powers[t]


@jit
def logarithm_of(value):
    """Return the natural logarithm of a positive number; the bits of `logarithm`."""
    fraction, exponent = math.frexp(value)
    if fraction < _SQRT_HALF:
        fraction *= 2.0
        exponent -= 1
    s = (fraction - 1.0) / (fraction + 1.0)
    square = s * s
    total = 1.0 / 21
    for i in range(19, 0, -2):
        total = total * square + 1.0 / i
    return exponent * LN2_HIGH + (exponent * LN2_LOW + 2.0 * s * total)


_SQRT_HALF = math.sqrt(0.5)
