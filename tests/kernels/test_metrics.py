"""The nearest other cluster, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.metrics import nearest_other


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_best_of_the_others(dtype: type) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(-3, 4, (200, 7)).astype(dtype)  # many ties
    extra = np.array([0.5, 0.0, np.inf, 0.0, 1.0, 0.0, 2.0])
    own = rng.integers(-1, 7, 200).astype(np.int32)
    values = table.astype(np.float64) + extra
    values[np.arange(200)[own >= 0], own[own >= 0]] = np.inf
    np.testing.assert_array_equal(nearest_other(table, extra, own), values.argmin(1))


def test_no_other_cluster_is_minus_one() -> None:
    own = np.zeros(2, np.int32)
    assert nearest_other(np.zeros((2, 1)), np.zeros(1), own).tolist() == [-1, -1]
    assert nearest_other(np.zeros((2, 2)), np.array([0.0, np.inf]), own).tolist() == [-1, -1]
    assert nearest_other(np.zeros((0, 3)), np.zeros(3), own[:0]).tolist() == []


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="own is int64"):
        nearest_other(np.zeros((2, 2)), np.zeros(2), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="extra is float64 of shape"):
        nearest_other(np.zeros((2, 2)), np.zeros(3), np.zeros(2, np.int32))
