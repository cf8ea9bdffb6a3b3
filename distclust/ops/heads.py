"""Axes on which rows have most of their length, for assignment that compares coordinates first.

Axes and their number decide what is computed, never its result; so does the sample that they come from.

Source of the iteration: Halko, Martinsson and Tropp, *Finding structure with randomness* (2011).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.engines.protocol import Engine
from distclust.kernels.eigen import symmetric_eigen
from distclust.kernels.heads import HeadAxes, head_axes
from distclust.kernels.linear import cholesky_upper, inverse_upper
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import project_rows
from distclust.kernels.random import uniform
from distclust.ops.profile import PreparedData
from distclust.ops.sample import hash_sample

Floats = npt.NDArray[np.float64]

LEAST_WIDTH = 192
LEAST_WORK = 1e11
"""Products of a pass (n k d) from which looking for axes, about 0.08 s, is worth it."""

SAMPLE_ROWS, SAMPLE_QUERIES = 1152, 96
SIZES = (48, 64, 96, 128, 192)
MOST_SHARE = 1 / 3
"""Of the columns: more axes save too little."""

LEAST_PIVOT = 1e-5
"""Ratio of the diagonal of a root from which its columns are sure not to be sums of each other."""

_ITERATIONS = 2
_STAGE = 0x68656164
_BYTE_STEPS = 127.0

FLOAT_COST, SURVIVOR_COST = 3.5, 150.0
"""A float32 product in a kernel, and a value of a distance to one centre that is left, in 8-bit products; measured
with `assign_labels` and `row_sqdist` at d = 384 and 768."""

WORTH_IT = 0.75
"""Share of the cost without axes up to which they are used."""


def find_head(engine: Engine, data: PreparedData, n_clusters: int) -> HeadAxes | None:
    """Return axes that make passes with so many centres cheaper; None where none do.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    n_clusters : int
    """
    n, d = data.moments.n_rows, data.width
    if data.view.dtype != "float32" or d < LEAST_WIDTH or float(n) * n_clusters * d < LEAST_WORK:
        return None
    rows = hash_sample(engine, data.pinned, SAMPLE_ROWS).rows.astype(np.float64)
    if len(rows) < 2 * SAMPLE_QUERIES:
        return None
    sizes = [size for size in SIZES if size <= MOST_SHARE * d]
    threads = engine.info.slots
    vectors = principal_vectors(rows, max(sizes), threads=threads)
    size = best_size(rows, vectors, sizes, n_clusters, threads=threads)
    return None if size is None else head_axes(vectors[:, :size])


def principal_vectors(rows: Floats, count: int, *, threads: int = 1) -> Floats:
    """Return about the first principal axes of rows about the origin: (d, count) columns, fewer for a lower rank."""
    d = rows.shape[1]
    across = np.ascontiguousarray(rows.T)
    found = uniform(0, _STAGE, np.arange(d * count, dtype=np.int64)).reshape(d, count) - 0.5
    for _ in range(_ITERATIONS):
        found = _orthonormal(project_rows(across, project_rows(rows, found, threads=threads), threads=threads))
    on_axes = project_rows(rows, found, threads=threads)
    _, turn = symmetric_eigen(project_rows(np.ascontiguousarray(on_axes.T), on_axes))
    return project_rows(found, np.ascontiguousarray(turn[:, ::-1]))


def _orthonormal(vectors: Floats) -> Floats:
    """Return an orthonormal basis of the columns, without those that nearly are sums of others."""
    for _ in range(2):  # once is not enough where columns are nearly parallel
        vectors = project_rows(vectors, _whitening(project_rows(np.ascontiguousarray(vectors.T), vectors)))
    return vectors


def _whitening(gram: Floats) -> Floats:
    """Return by what columns with these products become orthonormal, but for rounding."""
    # By roots where these are sure of every column: eigenvectors take seven times as long.
    (root,), (fine,) = cholesky_upper(gram[None])
    pivots = np.diagonal(root)
    if fine and pivots.min() > LEAST_PIVOT * pivots.max():
        return inverse_upper(root[None])[0]
    values, turn = symmetric_eigen(gram)
    kept = values > 1e-12 * max(float(values[-1]), 1e-300)
    return np.ascontiguousarray(turn[:, kept] / np.sqrt(values[kept]))


def best_size(rows: Floats, vectors: Floats, sizes: list[int], n_clusters: int, *, threads: int = 1) -> int | None:
    """Return with how many axes a pass costs least, None for without, by trial: some rows as centres of others."""
    d = rows.shape[1]
    queries, centers = rows[:SAMPLE_QUERIES], rows[SAMPLE_QUERIES:]
    squares, norms = (row_sqnorm(part) for part in (queries, centers))
    costs: dict[int | None, float] = {}
    left_over = _survivors(queries, centers, norms, n_clusters)
    costs[None] = WORTH_IT * (n_clusters * d + SURVIVOR_COST * d * left_over)
    coordinates = [project_rows(part, vectors, threads=threads) for part in (queries, centers)]
    for size in sizes:
        if size <= vectors.shape[1]:
            x, heads = (np.ascontiguousarray(part[:, :size]) for part in coordinates)
            left_over = _survivors(x, heads, norms, n_clusters, (_tails(squares, x), _tails(norms, heads)))
            costs[size] = n_clusters * size + FLOAT_COST * d * size + SURVIVOR_COST * d * left_over
    return min(costs, key=lambda size: costs[size])


def _tails(squares: Floats, heads: Floats) -> Floats:
    return np.sqrt(np.maximum(squares - row_sqnorm(heads), 0.0))


def _survivors(
    x: Floats, centers: Floats, norms: Floats, n_clusters: int, tails: tuple[Floats, Floats] | None = None
) -> float:
    """Return about how many of the centres a screen leaves to a row."""
    errors = [0.29 * np.sqrt(part.shape[1]) * np.abs(part).max(axis=1) / _BYTE_STEPS for part in (x, centers)]
    lengths = [np.sqrt(row_sqnorm(part)) for part in (x, centers)]
    slack = np.outer(errors[0], lengths[1]) + np.outer(lengths[0], errors[1])
    if tails is not None:
        slack = slack + np.outer(*tails)
    scores = norms - 2.0 * project_rows(x, np.ascontiguousarray(centers.T))
    limits = (scores + 2.0 * slack).min(axis=1)
    left = (scores - 2.0 * slack <= limits[:, None]).sum(axis=1).mean()
    return float(1.0 + (left - 1.0) * n_clusters / len(centers))
