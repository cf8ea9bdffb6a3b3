"""Rows by their coordinates on a few axes, and what is left of them: products within bounds at a part of the cost.

With orthonormal axes, ``x.c`` is the product of the coordinates plus that of what is left of both, which by Cauchy and
Schwarz is at most the product of the lengths left. Where most of the length lies on few axes, as it does in
embeddings, the products of the coordinates decide nearly everything.

Axis letters: n rows, d dimensions, h axes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import PackedCenters, pack_axes, project_packed, project_rows

_UNIT = 2.0**-24
MOST_LEAK = 0.01


class HeadAxes(NamedTuple):
    """Axes of a head; made by `head_axes`."""

    axes: npt.NDArray[np.float32]
    """[d, h] columns, orthonormal but for rounding."""
    leak: float
    """Bound of all that rounding does to a product, as a share of the lengths of both rows."""


class HeadRows(NamedTuple):
    """Rows as `head_rows` gives them."""

    heads: npt.NDArray[np.float32]
    """[n, h] coordinates on the axes."""
    tails: npt.NDArray[np.float64]
    """[n] upper bounds of the lengths that are left."""


def head_axes(vectors: npt.NDArray[np.float64]) -> HeadAxes | None:
    """Round orthonormal axes to float32; None where they are not orthonormal enough, or there are too many.

    Parameters
    ----------
    vectors : float64 [d, h]

    Examples
    --------
    >>> found = head_axes(np.eye(3)[:, :2])
    >>> heads, tails = head_rows(np.array([[3, 4, 1]], np.float32), found)
    >>> heads.tolist(), bool(1 <= tails[0] < 1.001)
    ([[3.0, 4.0]], True)
    """
    d, h = vectors.shape
    axes = np.ascontiguousarray(vectors, np.float32)
    exact = axes.astype(np.float64)
    products = project_rows(np.ascontiguousarray(exact.T), exact)
    skew = float(np.abs(products - np.eye(h)).sum(axis=1).max(initial=0.0)) + h * d * 2.0**-50
    # A coordinate is off by at most d + 2 roundings of a product of lengths, h of them by sqrt(h) as much.
    rounding = np.sqrt(h) * (d + 2) * _UNIT * 1.01
    leak = 3.0 * rounding + 2.0 * skew
    return HeadAxes(axes, float(leak)) if leak < MOST_LEAK else None


def head_rows(x: npt.NDArray[np.float32], head: HeadAxes, packed: PackedCenters | None = None) -> HeadRows:
    """Return coordinates of rows on the axes, and upper bounds of the lengths that are left.

    ``|x.c - heads(x).heads(c)| <= tail(x) tail(c)``, rounding included: by Cauchy and Schwarz
    ``t u + leak |x| |c| <= sqrt(t^2 + leak |x|^2) sqrt(u^2 + leak |c|^2)``.

    Parameters
    ----------
    x : float32 [n, d]
    head : HeadAxes
    packed : PackedCenters, optional
        What `pack_axes` gives for the axes; for many calls.

    Returns
    -------
    HeadRows
    """
    heads = project_packed(x, pack_axes(head.axes) if packed is None else packed)
    squares = row_sqnorm(x)
    # The leak a second time, and a bit: the length on the axes is itself known to so much only.
    left = np.maximum(squares - row_sqnorm(heads), 0.0) + (2.0 * head.leak + 2.0**-40) * squares
    return HeadRows(heads, np.sqrt(left))
