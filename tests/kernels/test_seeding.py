"""Greedy k-means++ in one call, against a plain numpy version; packing, against the sums that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.nearest import pack_centers
from distclust.kernels.seeding import choose_seeds


def plain(rows: np.ndarray, weights: np.ndarray, draws: np.ndarray) -> list[int]:
    wide = rows.astype(np.float64)
    current, chosen = np.full(len(rows), np.inf), []
    for number, trials in enumerate(draws):
        mass = np.cumsum(weights if number == 0 else weights * current)
        if mass[-1] <= 0:
            break
        picks = np.minimum(
            np.searchsorted(mass, trials[: 1 if number == 0 else None] * mass[-1], side="right"), len(rows) - 1
        )
        tried = np.minimum(((wide[None] - wide[picks][:, None]) ** 2).sum(axis=2), current)
        best = int(np.argmin([np.cumsum(weights * one)[-1] for one in tried]))
        current = tried[best]
        chosen.append(int(picks[best]))
    return chosen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_seeds_are_those_of_the_plain_version(dtype: type, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 6, (80, 3)).astype(dtype)  # integers: sums are exact, and there are duplicates
    weights = rng.integers(0, 3, 80).astype(np.float64) if weighted else np.ones(80)
    draws = rng.random((20, 4))
    assert choose_seeds(rows, weights, draws).tolist() == plain(rows, weights, draws)


def test_no_row_is_chosen_twice_and_rows_of_no_weight_never() -> None:
    rows = np.repeat(np.arange(5.0)[:, None], 4, axis=0)
    weights = (np.arange(20) < 16).astype(np.float64)
    found = choose_seeds(rows, weights, np.random.default_rng(0).random((20, 3)))
    assert sorted(rows[found, 0].tolist()) == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (16, 3), (17, 65), (100, 33)])
def test_norms_are_summed_in_float64_dimension_by_dimension(dtype: type, k: int, d: int) -> None:
    centers = (np.random.default_rng(k).normal(size=(k, d)) * 1e3).astype(dtype)
    packed = pack_centers(centers)
    squares = centers.T.astype(np.float64) ** 2
    assert packed.norms[:k].tobytes() == np.add.accumulate(squares, axis=0)[-1].astype(dtype).tobytes()
    assert np.isinf(packed.norms[k:]).all()
    side_by_side = packed.panels.transpose(1, 0, 2).reshape(d, -1)
    assert np.array_equal(side_by_side[:, :k], centers.T)
    assert not side_by_side[:, k:].any()
