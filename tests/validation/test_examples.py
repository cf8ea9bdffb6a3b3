"""The examples in public docstrings run and say what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "distclust.algorithms.balanced",
        "distclust.estimators._base",
        "distclust.algorithms.medoid_seeds",
        "distclust.algorithms.medoids",
        "distclust.estimators.kmeans",
        "distclust.algorithms.mixture",
        "distclust.estimators.bisecting",
        "distclust.estimators.kmedoids",
        "distclust.estimators.mixture",
        "distclust.engines.open",
        "distclust.engines.local",
    ],
)
def test_examples(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
