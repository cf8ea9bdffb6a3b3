"""Gaussian mixtures fitted to cells of rows, on the driver: no pass over the rows, whatever is tried.

All rows of a cell share their responsibilities, which makes expectation-maximisation climb a lower bound of the rows'
log-likelihood; the bound is tight where cells are small against components (Verbeek, Nunnink and Vlassis,
*Accelerated EM-based clustering of large data sets*, 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.kernels.cells import expected_distances, weighted_means, weighted_scatter
from distclust.kernels.elementary import exponential, logarithm
from distclust.kernels.linear import cholesky_upper, inverse_upper
from distclust.ops.mixture import Mixture
from distclust.stats.cells import Cells

Floats = npt.NDArray[np.float64]
CellCovariance = Literal["full", "tied", "diag"]

STEPS = 20
"""Steps of expectation and maximisation for each number of components."""

TOLERANCE = 1e-4
"""Least gain of a step, in nats a row."""

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class CellFit:
    """A mixture over cells.

    Attributes
    ----------
    mixture : Mixture
    bound : float
        Lower bound of the log-likelihood of the rows.
    entropy : float
        Of the rows' responsibilities.
    shares : (c, k) float64
        Responsibilities of the components for the cells.
    n_rows : int
    """

    mixture: Mixture
    bound: float
    entropy: float
    shares: Floats
    n_rows: int

    @property
    def bic(self) -> float:
        """Bayesian information criterion, with the bound as the log-likelihood."""
        return -2.0 * self.bound + self.mixture.n_parameters * math.log(max(self.n_rows, 2))

    @property
    def icl(self) -> float:
        """Integrated completed likelihood (Biernacki, Celeux and Govaert, 2000): BIC plus twice the entropy."""
        return self.bic + 2.0 * self.entropy


def fit_cells(
    cells: Cells, shares: Floats, covariance_type: CellCovariance, reg_covar: float, least: float, steps: int = STEPS
) -> CellFit:
    """Climb from given responsibilities.

    Parameters
    ----------
    cells : Cells
        Each with mass.
    shares : (c, k) float64
        Responsibilities to begin with; rows add up to 1.
    covariance_type : {"full", "tied", "diag"}
    reg_covar : float
        Added to variances.
    least : float
        Components of less mass are dropped.
    steps : int, default=20

    Returns
    -------
    CellFit
    """
    total = float(np.cumsum(cells.mass)[-1])
    n_rows, before = int(cells.counts.sum()), -math.inf
    for step in range(steps + 1):
        shares = _without_small(cells, shares, least)
        mixture = maximised(cells, shares, covariance_type, reg_covar)
        logs = log_joint(cells, mixture)
        top = logs.max(axis=1)
        rest = exponential(logs - top[:, None])
        sums = np.cumsum(rest, axis=1)[:, -1]
        evidence = top + logarithm(sums)
        bound = float(np.cumsum(cells.mass * evidence)[-1])
        shares = rest / sums[:, None]
        if step > 1 and bound - before < TOLERANCE * total:
            break
        before = bound
    doubt = evidence - np.cumsum(shares * logs, axis=1)[:, -1]
    return CellFit(mixture, bound, float(np.cumsum(cells.mass * doubt)[-1]), shares, n_rows)


def maximised(cells: Cells, shares: Floats, covariance_type: CellCovariance, reg_covar: float) -> Mixture:
    """Return the mixture of greatest bound under given responsibilities, with regularised covariances."""
    weighted = cells.mass[:, None] * shares
    mass, means = weighted_means(weighted, cells.means)
    scatter = weighted_scatter(weighted, cells.means, cells.spreads, means)
    d = cells.width
    if covariance_type == "diag":
        covariances = scatter[:, np.arange(d), np.arange(d)] / mass[:, None] + reg_covar
    elif covariance_type == "tied":
        covariances = np.cumsum(scatter, axis=0)[-1] / np.cumsum(mass)[-1] + reg_covar * np.eye(d)
    else:
        covariances = scatter / mass[:, None, None] + reg_covar * np.eye(d)
    return Mixture(covariance_type, mass / np.cumsum(mass)[-1], means, covariances)


def log_joint(cells: Cells, mixture: Mixture) -> Floats:
    """Return the mean of ln (weight * density) over the rows of each cell, (c, k)."""
    k, d = mixture.means.shape
    if mixture.factors.ndim == 3:
        factors = np.broadcast_to(mixture.factors, (k, d, d))
        diagonal = np.diagonal(factors, axis1=1, axis2=2)
        distances = expected_distances(cells.means, cells.spreads, mixture.means, np.ascontiguousarray(factors))
    else:
        diagonal = mixture.factors
        precision = mixture.factors**2
        variances = cells.spreads[:, np.arange(d), np.arange(d)]
        distances = np.empty((len(cells), k))
        for j in range(k):
            terms = (variances + (cells.means - mixture.means[j]) ** 2) * precision[j]
            distances[:, j] = np.cumsum(terms, axis=1)[:, -1]
    norms = logarithm(mixture.weights) + np.cumsum(logarithm(diagonal), axis=1)[:, -1] - 0.5 * d * LOG_2PI
    return norms - 0.5 * distances


def full_covariances(mixture: Mixture) -> Floats:
    """Return the covariance of every component as a matrix, (k, d, d)."""
    k, d = mixture.means.shape
    if mixture.covariance_type == "diag":
        return mixture.covariances[:, :, None] * np.eye(d)
    return np.ascontiguousarray(np.broadcast_to(mixture.covariances, (k, d, d)))


def log_densities(points: Floats, weights: Floats, means: Floats, covariances: Floats) -> Floats:
    """Return ln (weight * density) of points under Gaussians given by matrices, (n, k)."""
    points = np.ascontiguousarray(points)
    roots, _ = cholesky_upper(covariances)
    factors = inverse_upper(roots)
    distances = expected_distances(points, np.zeros((len(points), *covariances.shape[1:])), means, factors)
    diagonal = np.diagonal(factors, axis1=1, axis2=2)
    norms = logarithm(weights) + np.cumsum(logarithm(diagonal), axis=1)[:, -1] - 0.5 * means.shape[1] * LOG_2PI
    return norms - 0.5 * distances


def _without_small(cells: Cells, shares: Floats, least: float) -> Floats:
    """Drop components of too little mass, the smallest first: its cells may save another."""
    while shares.shape[1] > 1:
        mass = np.cumsum(cells.mass[:, None] * shares, axis=0)[-1]
        smallest = int(np.argmin(mass))
        if mass[smallest] >= least:
            return shares
        shares = np.delete(shares, smallest, axis=1)
        sums = np.cumsum(shares, axis=1)[:, -1]
        lost = sums <= 1e-12
        shares = np.where(lost[:, None], 1.0 / shares.shape[1], shares / np.where(lost, 1.0, sums)[:, None])
    return np.ones_like(shares)
