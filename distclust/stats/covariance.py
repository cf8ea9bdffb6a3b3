"""Kinds of covariance, under scikit-learn's names; apart from what computes with them, which takes long to import."""

from __future__ import annotations

from typing import Literal

CovarianceType = Literal["full", "tied", "diag", "spherical"]
COVARIANCE_TYPES: tuple[CovarianceType, ...] = ("full", "tied", "diag", "spherical")
"""Own covariances; one of all components; own variances of the columns; own variance, the same for all columns."""
