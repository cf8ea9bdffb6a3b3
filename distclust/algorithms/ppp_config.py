"""Settings of PPP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distclust.errors import UsageError, unknown_name

Scaling = Literal["robust", "whiten", "none"]
Covariance = Literal["auto", "full", "tied", "diag"]
Features = Literal["auto", "all"]
SCALINGS: tuple[Scaling, ...] = ("robust", "whiten", "none")
COVARIANCES: tuple[Covariance, ...] = ("auto", "full", "tied", "diag")
FEATURES: tuple[Features, ...] = ("auto", "all")


@dataclass(frozen=True, kw_only=True)
class PPPConfig:
    """Settings that decide the result of PPP; they validate themselves. There is no k and no seed.

    Parameters
    ----------
    max_clusters : int, default=64
        Most components that are tried.
    covariance_type : {"auto", "full", "tied", "diag"}, default="auto"
        ``auto`` takes the type of lowest BIC; full covariances are tried up to 32 dimensions.
    scaling : {"robust", "whiten", "none"}, default="robust"
        ``robust`` divides each column by the range of its middle 98 %, so that outliers do not decide; ``whiten`` goes
        on to principal components of unit variance.
    explained_variance : float, default=0.9
        From 33 columns on, rows are reduced to the principal components that explain this share of the variance, and
        at most to ``max_components``.
    max_components : int, default=32
    features : {"auto", "all"}, default="auto"
        ``auto`` fits again on the columns that separate the clusters, where some do not, and keeps that fit unless it
        is less stable.
    max_valley : float, default=0.9
        Two clusters are one where the density between them does not fall below this share of the lower peak.
    min_overlap : float, default=0.75
        A cluster is valid if partition and mixture agree on it by this Jaccard index, and ...
    min_posterior : float, default=0.9
        ... its rows belong to it with this mean probability.
    max_iter : int, default=10
        Most passes of expectation and maximisation over the rows, in each round of validation.
    reg_covar : float, default=1e-4
        Added to variances, relative to the scale of the columns.
    """

    max_clusters: int = 64
    covariance_type: Covariance = "auto"
    scaling: Scaling = "robust"
    explained_variance: float = 0.9
    max_components: int = 32
    features: Features = "auto"
    max_valley: float = 0.9
    min_overlap: float = 0.75
    min_posterior: float = 0.9
    max_iter: int = 10
    reg_covar: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("max_clusters", "max_components", "max_iter"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise UsageError(f"{name} == {value!r}, must be an integer of at least 1.")
        for name in ("explained_variance", "max_valley", "min_overlap", "min_posterior"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.floating) or not 0 < value <= 1:
                raise UsageError(f"{name} == {value!r}, must be above 0 and at most 1.")
        if not isinstance(self.reg_covar, int | float | np.floating) or not (
            self.reg_covar > 0 and math.isfinite(self.reg_covar)
        ):
            raise UsageError(f"reg_covar == {self.reg_covar!r}, must be a finite number above 0.")
        for name, allowed in (("covariance_type", COVARIANCES), ("scaling", SCALINGS), ("features", FEATURES)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
