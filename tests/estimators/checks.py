"""scikit-learn's own checks of an estimator, as parameters of a test."""

from __future__ import annotations

from typing import Any

import pytest
import sklearn.cluster
from sklearn.utils._test_common.instance_generator import PER_ESTIMATOR_XFAIL_CHECKS
from sklearn.utils.estimator_checks import estimator_checks_generator

DECLARED = set(PER_ESTIMATOR_XFAIL_CHECKS[sklearn.cluster.KMeans])
"""Checks that scikit-learn declares as failing for its own KMeans."""


def checks_of(estimator: Any, declared: set[str] = DECLARED) -> list[Any]:
    """Return every check, those that scikit-learn declares as failing for an estimator of its own marked so."""
    out = []
    for checked, check in estimator_checks_generator(estimator, mark=None):
        name = check.func.__name__ if hasattr(check, "func") else check.__name__
        marks = [pytest.mark.xfail(reason="declared by scikit-learn for its own")] if name in declared else []
        if name != "check_array_api_input":  # runs only with SCIPY_ARRAY_API set
            out.append(pytest.param(checked, check, id=name, marks=marks))
    return out
