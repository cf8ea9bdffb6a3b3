"""Triangular factors of small matrices, with one order of operations on every processor.

LAPACK chooses its order by processor and number of threads, and the last bits with it; here the driver's algebra has
the same bits wherever it runs. Inner loops add a multiple of a row to a row, which vectorises without another order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

Floats = npt.NDArray[np.float64]


def cholesky_upper(matrices: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Factor symmetric matrices as ``R^T R``.

    Parameters
    ----------
    matrices : float64 [k, d, d]
        Of each, the upper triangle is read.

    Returns
    -------
    roots : float64 [k, d, d]
        Upper triangular R.
    positive : bool [k]
        Whether the matrix is positive definite in float64; where it is not, R is of no use.

    Examples
    --------
    >>> roots, positive = cholesky_upper(np.array([[[4.0, 2.0], [2.0, 5.0]], [[1.0, 2.0], [2.0, 1.0]]]))
    >>> roots[0].tolist(), positive.tolist()
    ([[2.0, 1.0], [0.0, 2.0]], [True, False])
    """
    k, d = matrices.shape[:2]
    work = np.triu(read_argument(np.ascontiguousarray(matrices), "matrices", "float64", (None, d, d)))
    positive = np.ones(k, np.bool_)
    for c in range(k):
        positive[c] = _cholesky(work[c])
    return work, positive


def inverse_upper(roots: Floats) -> Floats:
    """Return the inverses of upper triangular matrices, float64 [k, d, d]; diagonals are not zero.

    Examples
    --------
    >>> inverse_upper(np.array([[[2.0, 1.0], [0.0, 2.0]]])).tolist()
    [[[0.5, -0.25], [0.0, 0.5]]]
    """
    roots = np.ascontiguousarray(roots)
    out = np.zeros_like(roots)
    for root, inverse in zip(roots, out, strict=True):
        _inverse(root, inverse)
    return out


def congruence(roots: Floats, matrices: Floats) -> Floats:
    """Return ``R^T S R`` for upper triangular R and symmetric S, float64 [k, d, d], exactly symmetric.

    Examples
    --------
    >>> congruence(np.array([[[2.0, 1.0], [0.0, 2.0]]]), np.eye(2)[None]).tolist()
    [[[4.0, 2.0], [2.0, 5.0]]]
    """
    roots, matrices = np.ascontiguousarray(roots), np.ascontiguousarray(matrices)
    out = np.zeros_like(matrices)
    work = np.empty_like(matrices[0])
    for root, matrix, product in zip(roots, matrices, out, strict=True):
        _congruence(root, matrix, work, product)
    return out


@jit
def _cholesky(a):
    d = a.shape[0]
    for i in range(d):
        if not a[i, i] > 0.0 or not np.isfinite(a[i, i]):
            return False
        root = np.sqrt(a[i, i])
        for j in range(i, d):
            a[i, j] /= root
        for j in range(i + 1, d):
            factor = a[i, j]
            for h in range(j, d):
                a[j, h] -= factor * a[i, h]
    return True


@jit
def _inverse(root, out):
    d = root.shape[0]
    for i in range(d - 1, -1, -1):
        out[i, i] = 1.0
        for h in range(i + 1, d):
            factor = root[i, h]
            for j in range(h, d):
                out[i, j] -= factor * out[h, j]
        for j in range(i, d):
            out[i, j] /= root[i, i]


@jit
def _congruence(root, matrix, work, out):
    d = root.shape[0]
    work[:] = 0.0
    for h in range(d):
        for i in range(h, d):
            factor = root[h, i]
            for j in range(d):
                work[i, j] += factor * matrix[h, j]
    for i in range(d):
        for h in range(d):
            factor = work[i, h]
            for j in range(max(h, i), d):
                out[i, j] += factor * root[h, j]
    for i in range(d):
        for j in range(i):
            out[i, j] = out[j, i]
