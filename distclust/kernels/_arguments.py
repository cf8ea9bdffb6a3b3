"""Cheap checks of what kernels are given: compiled code reads memory by address and must not be told lies."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

_NO_WEIGHTS = np.empty(0, np.float64)


def read_argument(array: np.ndarray, what: str, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return an input array as kernels take it: a plain, read-only view.

    One signature then serves writable arrays and read-only memory maps alike.

    Parameters
    ----------
    array : ndarray
        The argument.
    what : str
        Its name.
    dtype : dtype or sequence of dtype names
        What is allowed.
    shape : tuple of int or None
        Length of every axis; None for any.

    Raises
    ------
    ValueError
        If dtype or shape is another one, or the array is not C-contiguous.
    """
    _check(array, what, dtype, shape)
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def write_argument(array: np.ndarray, what: str, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return an output array as kernels take it; see `read_argument`. It must be writable."""
    _check(array, what, dtype, shape)
    if not array.flags.writeable:
        raise ValueError(f"{what} is read-only; an array to write to is needed.")
    return array.view(np.ndarray)


def weights_argument(weights: npt.NDArray[np.float64] | None, n_rows: int) -> npt.NDArray[np.float64]:
    """Return weights as kernels take them; length 0 stands for "every row weighs 1"."""
    if weights is None:
        return read_argument(_NO_WEIGHTS, "weights", "float64", (0,))
    return read_argument(weights, "weights", "float64", (n_rows,))


@functools.cache
def _name(dtype: Any) -> str:
    """Return the name of a dtype: numpy spells it anew each time, which costs more than a small kernel."""
    return str(dtype.name)


def _check(array: np.ndarray, what: str, dtype: Any, shape: tuple[int | None, ...]) -> None:
    allowed = (dtype,) if isinstance(dtype, str) else dtype
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or _name(array.dtype) not in allowed or not array.flags.c_contiguous or not array.dtype.isnative:
        order = "C-contiguous" if array.flags.c_contiguous else "not C-contiguous"
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(
            f"{what} is {array.dtype} of shape {array.shape}, {order}; "
            f"a C-contiguous array of {' or '.join(allowed)} and shape ({wanted}) is needed."
        )
