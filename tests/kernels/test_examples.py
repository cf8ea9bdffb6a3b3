"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from distclust.kernels import (
    chains,
    dissimilarity,
    elementary,
    lloyd,
    medoids,
    metrics,
    nearest,
    random,
    screened,
    top,
    transport,
    tree,
)

MODULES = [chains, dissimilarity, elementary, lloyd, medoids, metrics, nearest, random, screened, top, transport, tree]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
