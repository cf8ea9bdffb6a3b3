"""First medoids from a matrix of dissimilarities."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distclust.errors import UsageError, unknown_name
from distclust.kernels.medoids import build
from distclust.kernels.random import uniform

Matrix = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MedoidInit = Literal["build", "lab", "k-means++", "random"]
INITS: tuple[MedoidInit, ...] = ("build", "lab", "k-means++", "random")

_STAGE_RANDOM, _STAGE_PLUS, _STAGE_LAB = 1 << 20, 2 << 20, 3 << 20


def first_medoids(
    matrix: Matrix, k: int, init: MedoidInit | npt.ArrayLike, *, weights: Floats | None = None, seed: int = 0
) -> Ints:
    """Choose medoids to begin with.

    Parameters
    ----------
    matrix : float32 or float64 (n, n)
    k : int
        1 to n.
    init : {"build", "lab", "k-means++", "random"} or (k,) int array
        ``build`` adds the row that lowers the loss most, again and again; ``lab`` looks for it in samples of
        10 + sqrt(n) rows; ``k-means++`` draws rows by their dissimilarity to those chosen; an array has the rows.
    weights : float64 (n,), optional
    seed : int, default=0

    Returns
    -------
    (k,) int64

    Raises
    ------
    UsageError
        Unknown name, or an array that does not name k different rows.

    References
    ----------
    Schubert and Rousseeuw, *Faster k-medoids clustering*, 2019 (LAB).

    Examples
    --------
    >>> first_medoids(np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]]), 2, "build").tolist()
    [1, 2]
    """
    if not isinstance(init, str):
        return _given(np.asarray(init), len(matrix), k)
    if init not in INITS:
        raise unknown_name("init", init, INITS)
    if init == "build":
        return build(matrix, k, weights)
    if init == "random":
        return random_rows(len(matrix), k, seed)
    masses = np.ones(len(matrix)) if weights is None else weights
    return (_lab if init == "lab" else _plus_plus)(matrix, k, masses, seed)


def random_rows(n: int, k: int, seed: int, stage: int = _STAGE_RANDOM) -> Ints:
    """Return k different rows out of n."""
    return np.argsort(uniform(seed, stage, np.arange(n)), kind="stable")[:k].astype(np.int64)


def _given(rows: npt.NDArray[Any], n: int, k: int) -> Ints:
    if rows.shape != (k,) or rows.dtype.kind not in "iu":
        raise UsageError(
            f"init is an array of {rows.dtype} of shape {rows.shape}; needed are the numbers of n_clusters = {k} rows."
        )
    if len(set(rows.tolist())) < k or rows.min() < 0 or rows.max() >= n:
        raise UsageError(f"init must name {k} different rows from 0 to {n - 1}.")
    return rows.astype(np.int64)


def _plus_plus(matrix: Matrix, k: int, weights: Floats, seed: int) -> Ints:
    chosen: list[int] = []
    near = np.ones(len(matrix))
    for u in uniform(seed, _STAGE_PLUS, np.arange(k)):
        mass = np.cumsum(weights * near)
        if mass[-1] > 0:
            row = int(np.searchsorted(mass, u * mass[-1], side="right"))
        else:  # all rows that weigh anything are chosen, or equal to one that is
            row = int(np.setdiff1d(np.arange(len(matrix)), chosen)[0])
        chosen.append(row)
        near = matrix[row].astype(np.float64) if len(chosen) == 1 else np.minimum(near, matrix[row])
    return np.array(chosen, np.int64)


def _lab(matrix: Matrix, k: int, weights: Floats, seed: int) -> Ints:
    n = len(matrix)
    size = 10 + math.ceil(math.sqrt(n))
    chosen: list[int] = []
    near = np.empty(0)
    for step in range(k):
        keys = uniform(seed, _STAGE_LAB + step, np.arange(n))
        keys[chosen] = np.inf
        sample = np.sort(np.argsort(keys, kind="stable")[: min(size, n - step)])
        among = matrix[np.ix_(sample, sample)].astype(np.float64)
        terms = np.maximum(near[sample] - among, 0.0) if chosen else -among
        # One after the other: numpy's own sums choose their order by shape and machine.
        gains = np.cumsum(terms * weights[sample], axis=1)[:, -1]
        row = int(sample[np.argmax(gains)])
        near = np.minimum(near, matrix[row]) if chosen else matrix[row].astype(np.float64)
        chosen.append(row)
    return np.array(chosen, np.int64)
