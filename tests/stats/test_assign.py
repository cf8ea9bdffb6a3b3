"""Statistics of labels as bytes: clusters without rows cost nothing where they are most."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.stats.fixed import FixedPair
from distclust.stats.lloyd import AssignStats


@pytest.mark.parametrize("filled", [0, 3, 499, 500, 1000])
def test_round_trip(filled: int) -> None:
    rng = np.random.default_rng(filled)
    at = rng.choice(1000, filled, replace=False)
    counts, high, low = (np.zeros(1000, np.int64) for _ in range(3))
    counts[at], high[at], low[at] = rng.integers(1, 9, filled), rng.integers(0, 99, filled), rng.integers(-9, 9, filled)
    stats = AssignStats(counts, FixedPair(high, low, 2.0**20), 2**64 - 3)
    found = AssignStats.from_bytes(stats.to_bytes())
    assert np.array_equal(found.counts, counts)
    assert np.array_equal(found.inertia.high, high)
    assert np.array_equal(found.inertia.low, low)
    assert (found.inertia.scale, found.labels_digest) == (2.0**20, 2**64 - 3)
    assert (len(stats.to_bytes()) < 5000) == (filled < 100)
