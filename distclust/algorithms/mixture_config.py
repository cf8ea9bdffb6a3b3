"""Settings of Gaussian mixtures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.errors import UsageError, unknown_name
from distclust.stats.covariance import COVARIANCE_TYPES, CovarianceType

Floats = npt.NDArray[np.float64]
MixtureInit = Literal["kmeans", "k-means++", "random", "random_from_data"]
MIXTURE_INITS: tuple[MixtureInit, ...] = ("kmeans", "k-means++", "random", "random_from_data")


FULL_WIDTH = 256
"""Widest rows that get covariances of their own by themselves: a pass costs k d^2 a row."""


def covariance_for(n_rows: int, n_components: int, width: int) -> CovarianceType:
    """Return the richest kind of covariance that the rows can pay for.

    ``full`` where a component has twice as many rows as its covariance has entries, and rows are at most 256 wide;
    ``diag`` where it has twice as many as there are columns; ``spherical`` below that.

    Examples
    --------
    >>> covariance_for(10_000, 5, 20), covariance_for(10_000, 5, 384), covariance_for(100, 5, 50)
    ('full', 'diag', 'spherical')
    """
    rows = n_rows / n_components
    if width <= FULL_WIDTH and rows >= width * (width + 1):
        return "full"
    return "diag" if rows >= 2 * width else "spherical"


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Settings that decide the result of a Gaussian mixture; they validate themselves.

    Parameters
    ----------
    n_components : int
        k, at least 1.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        Each component has its own covariance, all share one, own variances of the columns, or one variance each.
    tol : float, default=1e-3
        Stop when a pass changes the mean log-likelihood of a row by less.
    reg_covar : float or "auto", default=1e-6
        Added to the variances, in squared units of the rows; ``"auto"`` is 1e-6 of the mean variance of the columns.
        Where a covariance is singular all the same, ten times as much is tried, and so on; the result says so.
    max_iter : int, default=100
        Most passes of one initialisation.
    n_init : int, default=1
        Initialisations; the one of highest likelihood is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        What a start is made of: the clusters of k-means, those of its seeds, those of drawn rows, or random
        responsibilities.
    weights_init : (k,) array, optional
        Of sum 1; in place of those of the start, as are the next two.
    means_init : (k, d) array, optional
        In the coordinates of the source.
    precisions_init : array, optional
        (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical: inverses of covariances.
    seed : int, default=0
        Key of all random draws.
    """

    n_components: int
    covariance_type: CovarianceType = "full"
    tol: float = 1e-3
    reg_covar: float | Literal["auto"] = 1e-6
    max_iter: int = 100
    n_init: int = 1
    init_params: MixtureInit = "kmeans"
    weights_init: Floats | None = None
    means_init: Floats | None = None
    precisions_init: Floats | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_components", 1), ("max_iter", 1), ("n_init", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise UsageError(f"{name} == {value!r}, must be an integer of at least {least}.")
        if self.seed >= 2**64:
            raise UsageError(f"seed == {self.seed!r}, must be below 2**64.")
        for name in ("tol", "reg_covar"):
            value = getattr(self, name)
            if name == "reg_covar" and value == "auto":
                continue
            if not isinstance(value, int | float | np.floating) or not (value >= 0 and math.isfinite(value)):
                raise UsageError(f"{name} == {value!r}, must be a finite number of at least 0.")
        if self.covariance_type not in COVARIANCE_TYPES:
            raise unknown_name("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        if self.init_params not in MIXTURE_INITS:
            raise unknown_name("init_params", self.init_params, MIXTURE_INITS)
        self._check_arrays()

    def _check_arrays(self) -> None:
        k, weights, means, precisions = self.n_components, self.weights_init, self.means_init, self.precisions_init
        if weights is not None and (
            weights.shape != (k,) or not (weights > 0).all() or abs(float(np.cumsum(weights)[-1]) - 1.0) > 1e-6
        ):
            raise UsageError(f"weights_init must be n_components = {k} positive numbers of sum 1.")
        if means is not None and (means.ndim != 2 or len(means) != k or not np.isfinite(means).all()):
            raise UsageError(
                f"means_init is an array of shape {means.shape}; needed are n_components = {k} rows of finite "
                "coordinates."
            )
        axes = {"full": 3, "tied": 2, "diag": 2, "spherical": 1}[self.covariance_type]
        own = self.covariance_type != "tied"
        if precisions is not None and (
            precisions.ndim != axes or (own and len(precisions) != k) or not np.isfinite(precisions).all()
        ):
            raise UsageError(
                f"precisions_init is an array of shape {precisions.shape}; {self.covariance_type} covariances of "
                f"{k} components need {axes} axes" + (f", the first of length {k}." if own else ".")
            )

    def check_width(self, width: int) -> None:
        """Raise `UsageError` unless the given arrays fit rows of this many columns."""
        given: dict[str, tuple[int, ...]] = {}
        if self.means_init is not None:
            given["means_init"] = self.means_init.shape
        if self.precisions_init is not None:
            given["precisions_init"] = self.precisions_init.shape
        for name, shape in given.items():
            lengths = shape if name == "precisions_init" and self.covariance_type == "tied" else shape[1:]
            if any(length != width for length in lengths):
                raise UsageError(f"{name} has shape {shape}, the rows have {width} columns; they must agree.")
