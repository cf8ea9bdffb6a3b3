"""How many components the cells need: a path over k, each k begun from a partition of the cells, nothing drawn.

Cells are merged by Ward's method (1963) under their masses; each number of groups is refined by Lloyd's algorithm and
validated by a mixture. The partition decides where the mixture begins, so nothing depends on a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.algorithms.ppp_cells import CellCovariance, CellFit, fit_cells
from distclust.kernels.lloyd import row_sqnorm
from distclust.stats.cells import Cells

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PATIENCE = 8
"""The path ends after so many k in a row that were worse than the best."""

DENSE_PATH = 24
"""All k up to here are tried; above, one in sixteen, and then the neighbours of the best."""

LLOYD_STEPS = 30


@dataclass(frozen=True)
class PathEntry:
    """What one k was worth: components that were left, and both criteria (lower is better)."""

    n_components: int
    covariance_type: CellCovariance
    bic: float
    icl: float


@dataclass(frozen=True)
class SearchRules:
    """How to search.

    Attributes
    ----------
    covariance_types : tuple
        Those that are tried.
    n_components : range
        Numbers of components that are tried.
    reg_covar : float
    least : float
        Least mass of a component.
    metric : (d,) float64
        Weights of the dimensions where cells are merged and partitioned.
    """

    covariance_types: tuple[CellCovariance, ...]
    n_components: range
    reg_covar: float
    least: float
    metric: Floats


@dataclass(frozen=True)
class Found:
    """The best fit of a search, and the path to it."""

    fit: CellFit
    path: tuple[PathEntry, ...]


def search(cells: Cells, rules: SearchRules) -> Found:
    """Return the fit of lowest BIC over numbers of components and types of covariance."""
    points = cells.means * rules.metric
    merges = ward_merges(points, cells.mass)
    partitions: dict[int, Ints] = {}

    def fitted(k: int, kind: CellCovariance) -> CellFit:
        if k not in partitions:
            partitions[k] = lloyd_cells(points, cells.mass, groups_of(merges, len(cells), k))
        shares = (partitions[k][:, None] == np.arange(k)).astype(np.float64)
        return fit_cells(cells, shares[:, shares.any(axis=0)], kind, rules.reg_covar, rules.least)

    best: CellFit | None = None
    path: list[PathEntry] = []
    for kind in rules.covariance_types:
        found = _along(kind, rules.n_components, len(cells), fitted)
        path += [PathEntry(len(fit.mixture), kind, fit.bic, fit.icl) for fit in found]
        for fit in found:
            if best is None or fit.bic < best.bic:
                best = fit
    assert best is not None
    return Found(best, tuple(path))


def _along(
    kind: CellCovariance, wanted: range, n_cells: int, fitted: Callable[[int, CellCovariance], CellFit]
) -> list[CellFit]:
    """Try numbers of components until they only get worse, coarsely where they are many."""
    allowed = [k for k in wanted if k <= n_cells] or [1]
    fits: dict[int, CellFit] = {}
    worse, at = 0, 0
    while at < len(allowed) and worse < PATIENCE:
        k = allowed[at]
        fits[k] = fitted(k, kind)
        worse = 0 if fits[k].bic <= min(fit.bic for fit in fits.values()) else worse + 1
        at += 1 if k < DENSE_PATH else max(1, k // 16)
    best = min(fits, key=lambda k: (fits[k].bic, k))
    step = max(1, best // 16)
    for k in allowed:
        if best > DENSE_PATH and abs(k - best) < 2 * step and k not in fits:
            fits[k] = fitted(k, kind)
    return [fits[k] for k in sorted(fits)]


def ward_merges(points: Floats, mass: Floats) -> list[tuple[int, int]]:
    """Merge points in pairs, always those that add least to the weighted squared distances, until one is left.

    Parameters
    ----------
    points : (c, d) float64
    mass : (c,) float64

    Returns
    -------
    list of (int, int)
        Points are joined into the first of the two, which keeps its number.
    """
    points, mass = points.copy(), mass.copy()
    c = len(points)
    cost = np.full((c, c), np.inf)
    for i in range(c - 1):
        cost[i, i + 1 :] = _ward_cost(points, mass, i, np.arange(i + 1, c))
    alive = np.ones(c, bool)
    merges = []
    for _ in range(c - 1):
        i, j = divmod(int(np.argmin(cost)), c)
        merges.append((i, j))
        points[i] = (mass[i] * points[i] + mass[j] * points[j]) / (mass[i] + mass[j])
        mass[i] += mass[j]
        alive[j] = False
        cost[j, :] = cost[:, j] = np.inf
        others = np.flatnonzero(alive)
        others = others[others != i]
        fresh = _ward_cost(points, mass, i, others)
        below = others < i
        cost[others[below], i] = fresh[below]
        cost[i, others[~below]] = fresh[~below]
    return merges


def groups_of(merges: Iterable[tuple[int, int]], n_points: int, k: int) -> Ints:
    """Return the group of every point, 0 ... k-1, when there are k."""
    group = np.arange(n_points)
    for _, (i, j) in zip(range(n_points - k), merges, strict=False):
        group[group == j] = i
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def lloyd_cells(points: Floats, mass: Floats, groups: Ints) -> Ints:
    """Refine a partition of weighted points by Lloyd's algorithm; a group may end empty."""
    k = int(groups.max()) + 1
    centers = np.zeros((k, points.shape[1]))
    for _ in range(LLOYD_STEPS):
        totals = np.bincount(groups, mass, k)
        for column in range(points.shape[1]):
            sums = np.bincount(groups, mass * points[:, column], k)
            centers[:, column] = np.where(totals > 0, sums / np.where(totals > 0, totals, 1.0), centers[:, column])
        distances = np.stack([row_sqnorm(points - center) for center in centers], axis=1)
        nearest = distances.argmin(axis=1).astype(np.int64)
        if np.array_equal(nearest, groups):
            break
        groups = nearest
    return groups


def _ward_cost(points: Floats, mass: Floats, i: int, others: Ints) -> Floats:
    apart = row_sqnorm(points[others] - points[i])
    return apart * (mass[others] * mass[i] / (mass[others] + mass[i]))
