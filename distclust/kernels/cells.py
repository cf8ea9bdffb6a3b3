"""Gaussian mixtures over cells: groups of rows that are known by their mass, mean and covariance alone.

Axis letters: c cells, k components, d dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument
from distclust.kernels._jit import jit

Floats = npt.NDArray[np.float64]

NOTHING = 1e-13
"""Most cells have next to no share in a component; leaving these out saves most of the work."""


def expected_distances(means: Floats, spreads: Floats, centers: Floats, factors: Floats) -> Floats:
    """Return the mean squared Mahalanobis distance of each cell's rows to each component.

    Parameters
    ----------
    means : float64 [c, d]
        Of the cells.
    spreads : float64 [c, d, d]
        Covariances of the cells.
    centers : float64 [k, d]
        Means of the components.
    factors : float64 [k, d, d]
        Upper triangular U with ``U U^T`` = the component's precision.

    Returns
    -------
    float64 [c, k]
        ``|U^T (mean - center)|^2 + trace(U^T spread U)``.

    Examples
    --------
    >>> one = np.ones((1, 1, 1))
    >>> expected_distances(np.array([[3.0]]), one, np.array([[1.0]]), one).tolist()
    [[5.0]]
    """
    c, d = means.shape
    k = len(centers)
    out = np.empty((c, k))
    _expected_distances(
        read_argument(means, "means", "float64", (c, d)),
        read_argument(spreads, "spreads", "float64", (c, d, d)),
        read_argument(centers, "centers", "float64", (k, d)),
        read_argument(factors, "factors", "float64", (k, d, d)),
        out,
    )
    return out


def weighted_means(shares: Floats, means: Floats) -> tuple[Floats, Floats]:
    """Return mass and mean of each component, by the cells' shares in it.

    Parameters
    ----------
    shares : float64 [c, k]
        Mass of each cell times its responsibility.
    means : float64 [c, d]

    Returns
    -------
    mass : float64 [k]
    centers : float64 [k, d]

    Examples
    --------
    >>> weighted_means(np.array([[1.0], [3.0]]), np.array([[0.0], [4.0]]))[1].tolist()
    [[3.0]]
    """
    c, d = means.shape
    k = shares.shape[1]
    mass, centers = np.zeros(k), np.zeros((k, d))
    _weighted_means(
        read_argument(np.ascontiguousarray(shares), "shares", "float64", (c, k)),
        read_argument(means, "means", "float64", (c, d)),
        mass,
        centers,
    )
    return mass, centers


def weighted_scatter(shares: Floats, means: Floats, spreads: Floats, centers: Floats) -> Floats:
    """Return the scatter of the cells' rows about each component's mean, by the cells' shares in it.

    Parameters
    ----------
    shares : float64 [c, k]
        Mass of each cell times its responsibility.
    means : float64 [c, d]
    spreads : float64 [c, d, d]
    centers : float64 [k, d]

    Returns
    -------
    float64 [k, d, d]
        ``sum over cells of share * (spread + (mean - center)(mean - center)^T)``, symmetric; shares below `NOTHING` of
        the component's mass are left out.

    Examples
    --------
    >>> one = np.ones((1, 1, 1))
    >>> weighted_scatter(np.array([[2.0]]), np.array([[3.0]]), one, np.array([[1.0]])).tolist()
    [[[10.0]]]
    """
    c, d = means.shape
    k = len(centers)
    out = np.zeros((k, d, d))
    _weighted_scatter(
        read_argument(np.ascontiguousarray(shares), "shares", "float64", (c, k)),
        read_argument(means, "means", "float64", (c, d)),
        read_argument(spreads, "spreads", "float64", (c, d, d)),
        read_argument(centers, "centers", "float64", (k, d)),
        out,
    )
    return out


@jit
def _expected_distances(means, spreads, centers, factors, out):
    c, d = means.shape
    precision = np.empty((d, d))
    off = np.empty(d)
    for k in range(centers.shape[0]):
        for i in range(d):
            for j in range(i, d):
                total = 0.0
                for h in range(j, d):
                    total += factors[k, i, h] * factors[k, j, h]
                precision[i, j] = total if i == j else 2.0 * total
        for r in range(c):
            total = 0.0
            for i in range(d):
                off[i] = means[r, i] - centers[k, i]
            for i in range(d):
                for j in range(i, d):
                    total += precision[i, j] * (spreads[r, i, j] + off[i] * off[j])
            out[r, k] = total


@jit
def _weighted_means(shares, means, mass, centers):
    c, d = means.shape
    for r in range(c):
        for k in range(mass.shape[0]):
            share = shares[r, k]
            mass[k] += share
            for i in range(d):
                centers[k, i] += share * means[r, i]
    for k in range(mass.shape[0]):
        for i in range(d):
            centers[k, i] /= mass[k]


@jit
def _weighted_scatter(shares, means, spreads, centers, out):
    c, d = means.shape
    off = np.empty(d)
    for k in range(centers.shape[0]):
        total = 0.0
        for r in range(c):
            total += shares[r, k]
        for r in range(c):
            share = shares[r, k]
            if share <= NOTHING * total:
                continue
            for i in range(d):
                off[i] = means[r, i] - centers[k, i]
            for i in range(d):
                for j in range(i, d):
                    out[k, i, j] += share * (spreads[r, i, j] + off[i] * off[j])
        for i in range(d):
            for j in range(i):
                out[k, i, j] = out[k, j, i]
