"""From the sums of a pass to the next mixture: maximisation, and what to do about a singular covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.kernels.linear import congruence, inverse_upper
from distclust.ops.mixture import Mixture, SingularCovarianceError
from distclust.stats.covariance import CovarianceType
from distclust.stats.gaussian import GaussianMoments

Floats = npt.NDArray[np.float64]

EMPTY = 10 * np.finfo(np.float64).eps
"""Added to the mass of every component, as scikit-learn does: what is divided by is never zero."""
RAISES = 40
"""Most times that the regularisation is raised: 10^40 beyond what was asked is not one any more."""
LEAST_RAISE = 1e-10
"""A regularisation of zero is raised to this share of the mean variance first."""


@dataclass(frozen=True)
class Spread:
    """What is known of all rows together, in the coordinates of the blocks.

    Attributes
    ----------
    variance : (d,) float64
        Of the columns.
    scatter : (d, d) float64 or None
        Mean of x x^T about the origin of the blocks; only tied covariances need it.
    """

    variance: Floats
    scatter: Floats | None = None

    @property
    def mean_variance(self) -> float:
        """Mean over the columns; 1.0 where all are constant."""
        mean = float(np.cumsum(self.variance)[-1]) / len(self.variance)
        return mean if mean > 0 else 1.0


def maximised(moments: GaussianMoments, old: Mixture, spread: Spread, reg_covar: float) -> tuple[Mixture, float]:
    """Return the mixture of highest likelihood given the responsibilities of a pass.

    Parameters
    ----------
    moments : GaussianMoments
        Taken under ``old``.
    old : Mixture
        A component without rows stays where it is.
    spread : Spread
    reg_covar : float
        Added to variances.

    Returns
    -------
    Mixture
    float
        The regularisation that it took: more than ``reg_covar`` where a covariance was singular.

    Raises
    ------
    SingularCovarianceError
        No regularisation helps: the sums are not finite.
    """
    mass = moments.mass + EMPTY
    weights = mass / np.cumsum(mass)[-1]
    shift = moments.first / mass[:, None]
    means = old.means + _unwhitened(shift, old)
    covariances = _covariances(moments, mass, shift, means, old, spread)
    kept = moments.mass <= 0
    if kept.any() and old.covariance_type != "tied":
        covariances[kept] = old.covariances[kept]
    return regularised(old.covariance_type, weights, means, covariances, reg_covar, spread.mean_variance, ~kept)


def regularised(
    covariance_type: CovarianceType,
    weights: Floats,
    means: Floats,
    covariances: Floats,
    reg_covar: float,
    mean_variance: float,
    where: npt.NDArray[np.bool_] | None = None,
) -> tuple[Mixture, float]:
    """Return a mixture with variances raised by ``reg_covar``, or by as much more as a root needs.

    Components that ``where`` leaves out keep their variances.
    """
    added = reg_covar
    chosen = np.ones(len(weights), np.bool_) if where is None else where
    for _ in range(RAISES):
        raised = covariances.copy()
        if covariance_type in ("full", "tied"):
            diagonal = np.arange(covariances.shape[-1])
            if covariance_type == "tied":
                raised[diagonal, diagonal] += added
            else:
                raised[:, diagonal, diagonal] += np.where(chosen, added, 0.0)[:, None]
        else:
            raised += np.where(chosen, added, 0.0).reshape(-1, *[1] * (covariances.ndim - 1))
        try:
            return Mixture(covariance_type, weights, means, raised), added
        except SingularCovarianceError as fault:
            singular = fault
        added = max(10.0 * added, LEAST_RAISE * mean_variance)
        chosen = np.ones(len(weights), np.bool_)
    raise singular


def _unwhitened(y: Floats, mixture: Mixture) -> Floats:
    """Return displacements in the coordinates of the blocks, from whitened ones of each component."""
    if mixture.roots.ndim == 2:
        return y * mixture.roots
    out = np.zeros_like(y)
    roots = np.broadcast_to(mixture.roots, (len(y), *mixture.roots.shape[1:]))
    for i in range(y.shape[1]):  # in one order: no BLAS
        out += y[:, i : i + 1] * roots[:, i, :]
    return out


def _covariances(
    moments: GaussianMoments, mass: Floats, shift: Floats, means: Floats, old: Mixture, spread: Spread
) -> Floats:
    k, d = means.shape
    if old.covariance_type == "tied":
        assert spread.scatter is not None
        total = float(np.cumsum(mass)[-1])
        between = np.zeros((d, d))
        for c in range(k):
            between += (mass[c] / total) * np.outer(means[c], means[c])
        scatter: Floats = spread.scatter - between
        return scatter
    if old.covariance_type == "full":
        row, column = np.triu_indices(d)
        inner = np.zeros((k, d, d))
        inner[:, row, column] = moments.second / mass[:, None] - shift[:, row] * shift[:, column]
        inner[:, column, row] = inner[:, row, column]
        return congruence(old.roots, inner)
    own = (moments.second / mass[:, None] - shift**2) * old.roots**2
    own = np.maximum(own, 0.0)
    return own if old.covariance_type == "diag" else np.cumsum(own, axis=1)[:, -1] / d


def covariances_of(precisions: Floats, covariance_type: CovarianceType) -> Floats:
    """Return the inverses of precisions, in the same shape.

    Raises
    ------
    SingularCovarianceError
        A precision is not positive definite.
    """
    if covariance_type in ("diag", "spherical"):
        if not (precisions > 0).all():
            raise SingularCovarianceError("a precision is not positive.")
        return 1.0 / precisions
    d = precisions.shape[-1]
    square = precisions.reshape(-1, d, d)
    inverse = inverse_upper(Mixture("full", np.ones(len(square)), np.zeros((len(square), d)), square).roots)
    # (R^T R)^-1 = R^-1 R^-T, summed in one order.
    out = np.zeros_like(inverse)
    for h in range(d):
        out += inverse[:, :, h, None] * inverse[:, None, :, h]
    return out.reshape(precisions.shape)
