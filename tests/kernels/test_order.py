"""Neighbours in space become neighbours in number."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.order import neighbour_order


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_of_points_stay_together(dtype: str) -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(32), 4)
    points = (rng.normal(size=(32, 9))[of] + 1e-3 * rng.normal(size=(128, 9))).astype(dtype)
    shuffled = rng.permutation(128)
    order = neighbour_order(points[shuffled], 4)
    assert sorted(order) == list(range(128))
    groups = of[shuffled][order].reshape(32, 4)
    assert (groups == groups[:, :1]).all()


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("k", [0, 1, 3, 4, 5, 6, 63, 130])
def test_every_point_has_one_place(k: int, group: int) -> None:
    rng = np.random.default_rng(k)
    for points in (rng.normal(size=(k, 3)), np.zeros((k, 3)), 1e200 * rng.normal(size=(k, 3)), np.ones((k, 0))):
        assert sorted(neighbour_order(points, group)) == list(range(k))


def test_a_group_has_points() -> None:
    with pytest.raises(ValueError, match="group is 0; 1 or more is allowed"):
        neighbour_order(np.zeros((2, 2)), 0)
