"""Counter-based randomness: a number is a function of (seed, stage, row id), never of order or place.

The mixer is the finaliser of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators"), a bijection of 64 bits that passes BigCrush on counters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1

# numba turns uint64 combined with a Python int into float64, hence typed constants.
U_GAMMA, _U_MIX_1, _U_MIX_2 = np.uint64(_GAMMA), np.uint64(_MIX_1), np.uint64(_MIX_2)
_U_11, _U_27, _U_30, _U_31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


def hash_rows(row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return the splitmix64 hash of each row id: the order in which blocks keep their rows.

    Parameters
    ----------
    row_ids : int64 [n]
        Global row ids.

    Returns
    -------
    uint64 [n]
        Hashes; different ids never share one.

    Examples
    --------
    >>> hash_rows(np.array([0])).tolist()
    [16294208416658607535]
    """
    hashes = np.empty(len(row_ids), np.uint64)
    _hash_rows(read_argument(row_ids, "row_ids", "int64", (None,)), hashes)
    return hashes


def count_below(row_ids: npt.NDArray[np.int64], limit: int) -> int:
    """Return how many rows, given in the order of their hashes, have a hash below a limit.

    Parameters
    ----------
    row_ids : int64 [n]
        Ascending by `hash_rows`.
    limit : int
        0 ... 2**64.

    Examples
    --------
    >>> ids = np.arange(100)
    >>> count_below(ids[np.argsort(hash_rows(ids))], 1 << 63)
    39
    """
    if limit >= 1 << 64:
        return len(row_ids)
    return int(_count_below(read_argument(row_ids, "row_ids", "int64", (None,)), np.uint64(limit)))


def uniform(seed: int, stage: int, row_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each row.

    Parameters
    ----------
    seed : int
        Seed of the run, 0 to 2**64 - 1.
    stage : int
        Number of the draw within the run, 0 to 2**64 - 1; stages are independent.
    row_ids : int64 [n]
        Global row ids.

    Returns
    -------
    float64 [n]
        Multiples of 2**-53.

    Raises
    ------
    ValueError
        If `seed` or `stage` is out of range.

    Examples
    --------
    >>> uniform(0, 1, np.array([7, 8])).round(3).tolist()
    [0.841, 0.094]
    """
    for what, value in (("seed", seed), ("stage", stage)):
        if not 0 <= value <= _MASK:
            raise ValueError(f"{what} is {value}; 0 to 2**64 - 1 is allowed.")
    key = _mix_int((_mix_int((int(seed) + _GAMMA) & _MASK) + _GAMMA * (int(stage) + 1)) & _MASK)
    numbers = np.empty(len(row_ids), np.float64)
    _uniform(np.uint64(key), read_argument(row_ids, "row_ids", "int64", (None,)), numbers)
    return numbers


def _mix_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
    z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
    return z ^ (z >> 31)


@jit
def mix(z):
    """Return the finaliser of splitmix64 of a uint64."""
    z = (z ^ (z >> _U_30)) * _U_MIX_1
    z = (z ^ (z >> _U_27)) * _U_MIX_2
    return z ^ (z >> _U_31)


@jit
def _hash_rows(row_ids, hashes):
    for i in range(row_ids.shape[0]):
        hashes[i] = mix(np.uint64(row_ids[i]) + U_GAMMA)


@jit
def _count_below(row_ids, limit):
    low, high = 0, row_ids.shape[0]
    while low < high:
        middle = (low + high) // 2
        if mix(np.uint64(row_ids[middle]) + U_GAMMA) < limit:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _uniform(key, row_ids, numbers):
    for i in range(row_ids.shape[0]):
        mixed = mix(mix(np.uint64(row_ids[i]) + U_GAMMA) + key)
        numbers[i] = np.float64(mixed >> _U_11) * 2.0**-53
