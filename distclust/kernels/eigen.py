"""Eigenvalues and eigenvectors of symmetric matrices, with one order of operations on every processor.

Householder tridiagonalisation and the implicit QL algorithm (Wilkinson and Reinsch, Handbook for Automatic
Computation II, 1971). LAPACK's last bits depend on processor and number of threads; a projection to principal axes
would pass them on to every row. Here each inner loop adds multiples of rows to rows or turns two rows, which
vectorises without another order; sums over a row are in its order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

Floats = npt.NDArray[np.float64]

_MOST_SWEEPS = 80
"""For one eigenvalue; two or three are usual."""


def symmetric_eigen(matrices: Floats) -> tuple[Floats, Floats]:
    """Decompose symmetric matrices as ``V diag(w) V^T``.

    Time grows with d^3: 0.15 s at d = 384, 3 s at d = 1000, some minutes at d = 4096.

    Parameters
    ----------
    matrices : float64 [d, d] or [k, d, d]
        Symmetric and finite; of rounding differences between the triangles, the lower is read.

    Returns
    -------
    values : float64 [d] or [k, d]
        Ascending.
    vectors : float64 [d, d] or [k, d, d]
        Columns, of unit length; the first of the largest entries of each is positive.

    Raises
    ------
    ValueError
        A matrix is not finite.

    Examples
    --------
    >>> values, vectors = symmetric_eigen(np.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> values.tolist(), vectors.tolist()
    ([1.0, 2.0], [[0.0, 1.0], [1.0, 0.0]])
    """
    given = np.ascontiguousarray(matrices)
    stack = given if given.ndim == 3 else given[None]
    d = stack.shape[-1]
    stack = read_argument(stack, "matrices", "float64", (None, d, d))
    if not np.isfinite(stack).all():
        raise ValueError("matrices must be finite.")
    values, vectors = np.empty(stack.shape[:2]), np.empty(stack.shape)
    for matrix, value, vector in zip(stack, values, vectors, strict=True):
        # Squares of entries neither overflow nor vanish when the largest is near 1; a power of two changes no bit.
        largest = np.abs(matrix).max(initial=0.0)
        unit = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
        work = np.tril(matrix / unit)
        work += np.tril(work, -1).T
        beside, factors = np.zeros(d), np.zeros(d)
        reflectors = np.zeros((d, d))
        _tridiagonalise(work, reflectors, factors, value, beside)
        _unfold(reflectors, factors, work)
        rows = np.ascontiguousarray(work.T)
        if not _turn(value, beside, rows, _MOST_SWEEPS):
            raise ValueError(f"eigenvalues were not found in {_MOST_SWEEPS} sweeps.")
        order = np.argsort(value, kind="stable")
        rows = rows[order]
        value[:] = value[order] * unit
        largest_at = np.abs(rows).argmax(axis=1)
        rows *= np.where(rows[np.arange(d), largest_at] < 0, -1.0, 1.0)[:, None]
        vector[:] = rows.T
    return (values, vectors) if given.ndim == 3 else (values[0], vectors[0])


def product(a: Floats, b: Floats) -> Floats:
    """Return ``a @ b`` with bits that do not depend on the processor, float64 [m, d] and [d, n].

    For matrices of the driver; rows of a dataset have `project_rows`.

    Examples
    --------
    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).tolist()
    [[11.0]]
    """
    a = read_argument(np.ascontiguousarray(a), "a", "float64", (None, None))
    b = read_argument(np.ascontiguousarray(b), "b", "float64", (a.shape[1], None))
    out = np.zeros((a.shape[0], b.shape[1]))
    _product(a, b, out)
    return out


@jit
def _product(a, b, out):
    for i in range(a.shape[0]):
        for h in range(a.shape[1]):
            factor = a[i, h]
            for j in range(b.shape[1]):
                out[i, j] += factor * b[h, j]


@jit
def _tridiagonalise(a, reflectors, factors, diagonal, beside):
    """Bring a to three diagonals by reflections I - factors[k] u u^T, u in row k of reflectors; a is used up."""
    d = a.shape[0]
    p = np.empty(d)
    for k in range(d - 2):
        u = reflectors[k]
        square = 0.0
        for j in range(k + 2, d):
            square += a[k, j] * a[k, j]
        first = a[k, k + 1]
        if square < 1e-290:  # the largest entry is near 1: nothing is left there
            beside[k] = first
            continue
        square += first * first
        length = np.sqrt(square)
        signed = length if first > 0.0 else -length
        for j in range(k + 2, d):
            u[j] = a[k, j]
        u[k + 1] = first + signed
        beside[k] = -signed
        factor = 1.0 / (square + first * signed)
        factors[k] = factor
        p[:] = 0.0
        for i in range(k + 1, d):
            weight = u[i]
            for j in range(k + 1, d):
                p[j] += weight * a[i, j]
        both = 0.0
        for j in range(k + 1, d):
            p[j] *= factor
            both += p[j] * u[j]
        both *= 0.5 * factor
        for j in range(k + 1, d):
            p[j] -= both * u[j]
        for i in range(k + 1, d):
            weight, other = u[i], p[i]
            for j in range(k + 1, d):
                a[i, j] -= weight * p[j] + other * u[j]
    if d > 1:
        beside[d - 2] = a[d - 2, d - 1]
    for i in range(d):
        diagonal[i] = a[i, i]


@jit
def _unfold(reflectors, factors, out):
    """Write the product of all reflections."""
    d = out.shape[0]
    out[:] = 0.0
    for i in range(d):
        out[i, i] = 1.0
    p = np.empty(d)
    for k in range(d - 3, -1, -1):
        if factors[k] == 0.0:
            continue
        u = reflectors[k]
        p[:] = 0.0
        for i in range(k + 1, d):
            weight = u[i]
            for j in range(k + 1, d):
                p[j] += weight * out[i, j]
        for i in range(k + 1, d):
            weight = factors[k] * u[i]
            for j in range(k + 1, d):
                out[i, j] -= weight * p[j]


@jit
def _turn(diagonal, beside, rows, most):
    """Bring three diagonals to one by turns of neighbouring axes, and turn the rows along."""
    d = diagonal.shape[0]
    for low in range(d):
        for sweep in range(most + 1):
            high = low
            while high < d - 1:
                near = abs(diagonal[high]) + abs(diagonal[high + 1])
                if near + abs(beside[high]) == near:
                    break
                high += 1
            if high == low:
                break
            if sweep == most:
                return False
            g = (diagonal[low + 1] - diagonal[low]) / (2.0 * beside[low])
            r = np.sqrt(g * g + 1.0)
            g = diagonal[high] - diagonal[low] + beside[low] / (g + (r if g >= 0.0 else -r))
            sine, cosine, shift = 1.0, 1.0, 0.0
            ended = False
            for i in range(high - 1, low - 1, -1):
                f, b = sine * beside[i], cosine * beside[i]
                r = np.sqrt(f * f + g * g)
                beside[i + 1] = r
                if r == 0.0:
                    diagonal[i + 1] -= shift
                    beside[high] = 0.0
                    ended = True
                    break
                sine, cosine = f / r, g / r
                g = diagonal[i + 1] - shift
                r = (diagonal[i] - g) * sine + 2.0 * cosine * b
                shift = sine * r
                diagonal[i + 1] = g + shift
                g = cosine * r - b
                upper, lower = rows[i + 1], rows[i]
                for j in range(d):
                    kept = upper[j]
                    upper[j] = sine * lower[j] + cosine * kept
                    lower[j] = cosine * lower[j] - sine * kept
            if ended:
                continue
            diagonal[low] -= shift
            beside[low] = g
            beside[high] = 0.0
    return True
