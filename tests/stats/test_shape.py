"""Shapes of counts: dip against brute force, Anderson-Darling, valleys."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog

from distclust.stats.shape import AD_REJECTS, DIP_REJECTS, anderson_darling, dip, looks_uniform, valley_p, values_of


def slow_dip(counts: np.ndarray) -> float:
    """Find the nearest unimodal distribution by linear programming, for every mode; the mode may be a jump."""
    f = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    n = len(f)
    best = np.inf
    for mode in range(n):
        # g[0 ... mode] convex, then g'[mode ... n-1] concave, g[mode] <= g'[mode]; the last variable is the distance.
        size = n + 2
        rows, bounds = [], []

        def add(entries: dict[int, float], bound: float) -> None:
            row = np.zeros(size)  # noqa: B023
            for at, value in entries.items():
                row[at] = value
            rows.append(row)  # noqa: B023
            bounds.append(bound)  # noqa: B023

        left = {i: i for i in range(mode + 1)}
        right = {i: i + 1 for i in range(mode, n)}
        for place in (left, right):
            for i, at in place.items():
                add({at: 1.0, size - 1: -1.0}, f[i])
                add({at: -1.0, size - 1: -1.0}, -f[i])
        for i in range(1, mode):
            add({left[i]: 2.0, left[i - 1]: -1.0, left[i + 1]: -1.0}, 0.0)
        for i in range(mode + 1, n - 1):
            add({right[i]: -2.0, right[i - 1]: 1.0, right[i + 1]: 1.0}, 0.0)
        add({left[mode]: 1.0, right[mode]: -1.0}, 0.0)
        found = linprog(np.eye(size)[-1], A_ub=np.array(rows), b_ub=np.array(bounds), bounds=[(None, None)] * size)
        best = min(best, found.fun)
    return float(best)


@pytest.mark.parametrize("seed", range(8))
def test_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 12, 9)
    assert dip(counts) == pytest.approx(slow_dip(counts), abs=1e-9)


def test_dip_tells_one_mode_from_two() -> None:
    rng = np.random.default_rng(0)
    rejected = {"one": 0, "flat": 0, "two": 0}
    for _ in range(60):
        for name, values in (
            ("one", rng.normal(size=1000)),
            ("flat", rng.uniform(size=1000)),
            ("two", rng.normal(size=1000) + rng.choice([-2.0, 2.0], 1000)),
        ):
            rejected[name] += dip(np.histogram(values, 64)[0]) * np.sqrt(1000) > DIP_REJECTS
    assert rejected["one"] == 0
    assert rejected["flat"] <= 3
    assert rejected["two"] == 60
    assert dip(np.zeros(4, np.int64)) == 0.0


def test_anderson_darling() -> None:
    rng = np.random.default_rng(1)
    assert sum(anderson_darling(rng.normal(3, 9, 500)) > AD_REJECTS for _ in range(100)) <= 1
    assert anderson_darling(rng.uniform(size=500)) > AD_REJECTS
    assert anderson_darling(np.ones(50)) == 0.0
    assert anderson_darling(np.arange(5.0)) == 0.0
    z = np.sort(stats.zscore(rng.normal(size=40), ddof=1))
    i = np.arange(1, 41)
    a2 = -40 - np.mean((2 * i - 1) * (stats.norm.logcdf(z) + stats.norm.logsf(z[::-1])))
    assert anderson_darling(z) == pytest.approx(a2 * (1 + 4 / 40 - 25 / 1600))


def test_values_keep_the_histogram() -> None:
    counts = np.array([3, 0, 5, 2])
    values = values_of(counts, -1.0, 3.0)
    assert np.histogram(values, 4, (-1.0, 3.0))[0].tolist() == counts.tolist()
    assert len(values_of(np.array([10**6]), 0.0, 1.0)) == 4096
    assert len(values_of(np.zeros(3, np.int64), 0.0, 1.0)) == 0


def test_valleys_and_flatness() -> None:
    assert valley_p(100, 40, 120) < 1e-6
    assert valley_p(100, 100, 120) == pytest.approx(0.5, abs=0.03)
    assert valley_p(0, 0, 0) == 1.0
    assert looks_uniform(np.random.default_rng(0).uniform(size=2000))
    assert not looks_uniform(np.random.default_rng(0).normal(size=2000))
    assert not looks_uniform(np.ones(9))
