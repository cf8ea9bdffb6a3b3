"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from distclust.kernels import (
    cells,
    chains,
    content,
    dissimilarity,
    elementary,
    linear,
    lloyd,
    medoids,
    metrics,
    mixture,
    near,
    nearest,
    random,
    rounded,
    scatter,
    screened,
    top,
    transport,
    tree,
)

MODULES = [
    cells,
    chains,
    content,
    dissimilarity,
    elementary,
    linear,
    lloyd,
    medoids,
    metrics,
    mixture,
    near,
    nearest,
    random,
    rounded,
    scatter,
    screened,
    top,
    transport,
    tree,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
