"""Exponential, logarithm, sine, cosine and arcsine as fixed sequences of operations.

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

# Half of pi in two parts (Cody and Waite): the first has 20 low bits of zero.
_QUARTER_HIGH, _QUARTER_LOW = 1.57079632673412561417e00, 6.07710050650619224932e-11

# Rational approximation of (asin(x) - x) / x^3 in x^2 on [0, 0.25]; constants of Sun's FDLIBM (1993).
_P0, _P1, _P2 = 1.66666666666666657415e-01, -3.25565818622400915405e-01, 2.01212532134862925881e-01
_P3, _P4, _P5 = -4.00555345006794114027e-02, 7.91534994289814532176e-04, 3.47933107596021167570e-05
_Q1, _Q2, _Q3, _Q4 = (
    -2.40339491173441421878,
    2.02094576023350569471,
    -6.88283971605453293030e-01,
    7.70381505559019352791e-02,
)

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


def sine_cosine(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sine and the cosine of every value, to about a unit in the last place of 1.

    Parameters
    ----------
    values : float64 array
        In radians, between -1000 and 1000.

    Returns
    -------
    sine, cosine : float64 array

    Examples
    --------
    >>> sine, cosine = sine_cosine(np.array([0.0, np.pi / 2]))
    >>> sine.tolist(), cosine.round(12).tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """
    quarters = np.rint(values * (2.0 / math.pi))
    x = (values - quarters * _QUARTER_HIGH) - quarters * _QUARTER_LOW
    square = x * x
    # Taylor's series; abs(x) <= pi / 4, so that the first term left out is below 2**-58.
    sine, cosine = np.full_like(x, 1.0 / math.factorial(17)), np.full_like(x, 1.0 / math.factorial(18))
    for i in range(15, 0, -2):
        sine = 1.0 / math.factorial(i) - square * sine
    for i in range(16, -1, -2):
        cosine = 1.0 / math.factorial(i) - square * cosine
    sine = sine * x
    turn = quarters.astype(np.int64) & 3
    odd = (turn & 1) == 1
    first, second = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return np.where(turn >= 2, -first, first), np.where((turn == 1) | (turn == 2), -second, second)


@jit
def arcsine(x):
    """Return the arcsine of a number from 0 to 1, to about a unit in the last place; for kernels."""
    small = x < 0.5
    z = x * x if small else (1.0 - x) * 0.5
    p = z * (_P0 + z * (_P1 + z * (_P2 + z * (_P3 + z * (_P4 + z * _P5)))))
    q = 1.0 + z * (_Q1 + z * (_Q2 + z * (_Q3 + z * _Q4)))
    if small:
        return x + x * (p / q)
    root = math.sqrt(z)
    return math.pi / 2 - 2.0 * (root + root * (p / q))


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
