"""Scales and fixed-point pairs: what makes sums independent of order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.kernels.lloyd import fixed_sums
from distclust.stats.fixed import FixedPair, scale_for, scales_for


@given(st.floats(1e-30, 1e30), st.integers(1, 10**7))
def test_a_total_within_its_bound_fits_an_int64(term: float, n: int) -> None:
    scale = scale_for(term * n, term)
    assert Fraction(term) * Fraction(scale) * n + n < 2**63
    assert math.frexp(scale)[0] == 0.5, "a power of two"


def test_a_scale_uses_the_bits_that_there_are() -> None:
    assert scale_for(1.0) == 2.0**59
    assert scale_for(1.0, 1.0) == 2.0**51, "one term keeps to the 52 bits that float64 holds"
    assert scale_for(2.0**40, 1.0) == 2.0**19


def test_nothing_to_sum_has_scale_one() -> None:
    assert scale_for(0.0) == 1.0
    assert list(scales_for(np.array([0.0, 1.0]))) == [1.0, 2.0**59]


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60), st.randoms())
def test_pairs_sum_to_the_same_bits_in_any_order_and_grouping(values: list[float], random) -> None:
    scale = scale_for(1e12 * 60)

    def pair(part: list[float]) -> FixedPair:
        out = FixedPair.zeros(1, scale)
        fixed_sums(np.array(part), None, np.zeros(len(part), np.int32), scale, out.high, out.low)
        return out

    whole = pair(values)
    shuffled = random.sample(values, len(values))
    cut = random.randrange(len(values) + 1)
    merged = pair(shuffled[:cut]).merge(pair(shuffled[cut:]))
    assert merged.total() == whole.total()
    assert whole.total() == pytest.approx(math.fsum(values), rel=1e-12, abs=1e-9)


def test_a_pair_keeps_small_terms_beside_a_huge_bound() -> None:
    scale = scale_for(1e24)
    values = np.full(1000, 0.125)
    out = FixedPair.zeros(1, scale)
    fixed_sums(values, None, np.zeros(1000, np.int32), scale, out.high, out.low)
    assert out.total() == pytest.approx(125.0, rel=1e-2)


def test_pairs_of_different_scales_do_not_merge() -> None:
    with pytest.raises(ValueError, match="different scales"):
        FixedPair.zeros(1, 1.0).merge(FixedPair.zeros(1, 2.0))
