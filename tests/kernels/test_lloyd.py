"""Sums of Lloyd's algorithm against naive twins: exact integers, squared distances, farthest rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.kernels.lloyd import accumulate, accumulate_moved, farthest, fixed_sums, row_sqdist, row_sqnorm
from tests.kernels import oracles

DTYPES = ("float32", "float64")
DIMS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 128, 1025)


def random_rows(n: int, d: int, k: int, dtype: str, *, unlabelled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, d, k])
    labels = rng.integers(-1 if unlabelled else 0, k, n).astype(np.int32)
    return rng.normal(size=(n, d)).astype(dtype), labels


def zeros(k: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((k, d), np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64)


@pytest.mark.parametrize("dtype", DTYPES)
class TestRowSqdist:
    @pytest.mark.parametrize("d", DIMS)
    def test_dimensions(self, d: int, dtype: str) -> None:
        x, labels = random_rows(20, d, 5, dtype)
        centers = x[3:8].copy()
        expected = oracles.row_sqdist(x, centers, labels)
        np.testing.assert_allclose(row_sqdist(x, centers, labels), expected.astype(float), rtol=1e-15 * (d + 2))
        norms = (x.astype(np.longdouble) ** 2).sum(axis=1).astype(float)
        np.testing.assert_allclose(row_sqnorm(x), norms, rtol=1e-15 * (d + 2))

    @pytest.mark.parametrize("d", DIMS)
    def test_whole_numbers_are_exact(self, d: int, dtype: str) -> None:
        rng = np.random.default_rng(d)
        x = rng.integers(-1000, 1000, (17, d)).astype(dtype)
        centers = rng.integers(-1000, 1000, (4, d)).astype(dtype)
        labels = rng.integers(0, 4, 17).astype(np.int32)
        np.testing.assert_array_equal(row_sqdist(x, centers, labels), oracles.row_sqdist(x, centers, labels))
        np.testing.assert_array_equal(row_sqnorm(x), (x.astype(np.int64) ** 2).sum(axis=1))

    @pytest.mark.parametrize("d", DIMS)
    def test_every_dimension_counts_once(self, d: int, dtype: str) -> None:
        np.testing.assert_array_equal(row_sqnorm(np.eye(d, dtype=dtype) * 3), np.full(d, 9.0))

    def test_bits_do_not_depend_on_the_place_of_a_row(self, dtype: str) -> None:
        x, labels = random_rows(40, 77, 6, dtype)
        centers = x[:6].copy()
        whole = row_sqdist(x, centers, labels)
        for at in range(40):
            row, label = x[at : at + 1], labels[at : at + 1]
            assert row_sqdist(row, centers, label).tobytes() == whole[at : at + 1].tobytes()
            # An address that is not a multiple of the vector length.
            shifted = np.empty(78, dtype)[1:].reshape(1, 77)
            shifted[:] = row
            assert row_sqdist(shifted, centers, label).tobytes() == whole[at : at + 1].tobytes()

    def test_a_row_on_its_center_is_at_zero_and_a_row_without_one_too(self, dtype: str) -> None:
        x, _ = random_rows(10, 33, 1, dtype)
        x += np.asarray(1e6, dtype)
        labels = np.arange(10, dtype=np.int32)
        labels[4] = -1
        assert (row_sqdist(x, x, labels) == 0).all()

    def test_differences_are_taken_in_float64(self, dtype: str) -> None:
        x = np.asarray([[1.0 + 2**-20]], dtype)
        assert row_sqdist(x, np.asarray([[1.0]], dtype), np.zeros(1, np.int32))[0] == 2.0**-40

    def test_huge_offset_and_denormals(self, dtype: str) -> None:
        x, labels = random_rows(30, 21, 4, dtype)
        for rows in (x + np.asarray(3e5, dtype), x * np.finfo(dtype).tiny):
            centers = rows[:4].copy()
            expected = oracles.row_sqdist(rows, centers, labels).astype(float)
            np.testing.assert_allclose(row_sqdist(rows, centers, labels), expected, rtol=1e-13, atol=1e-320)

    def test_no_rows(self, dtype: str) -> None:
        assert row_sqdist(np.empty((0, 5), dtype), np.ones((2, 5), dtype), np.empty(0, np.int32)).shape == (0,)
        assert row_sqnorm(np.empty((0, 5), dtype)).shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
class TestAccumulate:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 2), (1, 1, 1), (50, 7, 4), (50, 8, 4), (99, 41, 17)])
    def test_twin(self, n: int, d: int, k: int, weighted: bool, dtype: str) -> None:
        x, labels = random_rows(n, d, k, dtype, unlabelled=True)
        weights = np.random.default_rng(1).random(n) if weighted else None
        scales = 2.0 ** np.arange(20, 20 + d) if d < 20 else np.full(d, 2.0**30)
        sums, mass, counts = zeros(k, d)
        sums += 5
        accumulate(x, weights, labels, scales, 2.0**10, sums, mass, counts)
        ones = np.ones(n) if weights is None else weights
        np.testing.assert_array_equal(sums, 5 + oracles.group_sums(oracles.terms(x, weights, scales), labels, k))
        weight_terms = np.rint(ones * 2.0**10).astype(np.int64)
        np.testing.assert_array_equal(mass, oracles.group_sums(weight_terms, labels, k))
        np.testing.assert_array_equal(counts, oracles.group_sums(np.ones(n, np.int64), labels, k))

    def test_no_weights_are_weights_of_one(self, dtype: str) -> None:
        x, labels = random_rows(60, 19, 5, dtype)
        scales = np.full(19, 2.0**40)
        plain, ones = zeros(5, 19), zeros(5, 19)
        accumulate(x, None, labels, scales, 1.0, *plain)
        accumulate(x, np.ones(60), labels, scales, 1.0, *ones)
        for a, b in zip(plain, ones, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_terms_up_to_the_whole_range_of_int64(self, dtype: str) -> None:
        rng = np.random.default_rng(0)
        x = (rng.random((40, 19)) * 2 - 1).astype(dtype)
        x[0, :2] = 1, -1
        for power in (1, 31, 32, 33, 51, 52, 53, 61, 62):
            scales = np.full(19, 2.0**power)
            for at in range(40):
                sums, mass, counts = zeros(1, 19)
                accumulate(x[at : at + 1], None, np.zeros(1, np.int32), scales, 1.0, sums, mass, counts)
                np.testing.assert_array_equal(sums[0], oracles.terms(x[at], None, scales))

    def test_halves_round_to_even(self, dtype: str) -> None:
        x = np.asarray([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 0.5, 1.5]], dtype)
        sums, mass, counts = zeros(1, 10)
        accumulate(x, None, np.zeros(1, np.int32), np.ones(10), 1.0, sums, mass, counts)
        assert sums[0].tolist() == [-2, -2, 0, 0, 2, 2, 4, 4, 0, 2]

    @pytest.mark.parametrize("weighted", [False, True])
    def test_moving_rows_equals_starting_anew(self, weighted: bool, dtype: str) -> None:
        n, d, k = 80, 13, 6
        x, old = random_rows(n, d, k, dtype, unlabelled=True)
        rng = np.random.default_rng(2)
        new = np.where(rng.random(n) < 0.3, rng.integers(-1, k, n), old).astype(np.int32)
        weights = rng.random(n) if weighted else None
        scales = np.full(d, 2.0**35)
        before, after = zeros(k, d), zeros(k, d)
        accumulate(x, weights, old, scales, 2.0**20, *before)
        accumulate(x, weights, new, scales, 2.0**20, *after)
        touched = np.unique(np.concatenate([old[old != new], new[old != new]]))
        touched = touched[touched >= 0]
        slot = np.full(k, -1, np.int32)
        slot[touched] = np.arange(len(touched))
        change = zeros(len(touched), d)
        accumulate_moved(x, weights, old, new, slot, scales, 2.0**20, *change)
        for start, end, moved in zip(before, after, change, strict=True):
            start[touched] += moved
            np.testing.assert_array_equal(start, end)

    def test_sums_wrap_around_and_back(self, dtype: str) -> None:
        x = np.asarray([[1.0]], dtype)
        sums, mass, counts = zeros(1, 1)
        sums[:] = 2**63 - 1
        label, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
        accumulate_moved(x, None, none, label, label, np.full(1, 2.0**40), 1.0, sums, mass, counts)
        accumulate_moved(x, None, label, none, label, np.full(1, 2.0**40), 1.0, sums, mass, counts)
        assert (sums[0, 0], mass[0], counts[0]) == (2**63 - 1, 0, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_fixed_sums_twin(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.random(200) * 100, rng.integers(-1, 7, 200).astype(np.int32)
    weights = rng.random(200) if weighted else None
    hi, lo = np.zeros(7, np.int64), np.zeros(7, np.int64)
    fixed_sums(values, weights, labels, 2.0**20, hi, lo)
    scaled = (values if weights is None else weights * values) * 2.0**20
    high, low = oracles.two_part(scaled)
    np.testing.assert_array_equal(hi, oracles.group_sums(high, labels, 7))
    np.testing.assert_array_equal(lo, oracles.group_sums(low, labels, 7))


def test_fixed_sums_keep_what_is_far_below_a_step() -> None:
    hi, lo = np.zeros(1, np.int64), np.zeros(1, np.int64)
    fixed_sums(np.full(1000, 2.0**-20), None, np.zeros(1000, np.int32), 1.0, hi, lo)
    assert (hi[0] + lo[0] / 2.0**28) == 1000 * 2.0**-20


class TestFarthest:
    @given(
        values=st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0, float("inf")]), max_size=40),
        m=st.integers(0, 50),
        seed=st.integers(0, 5),
    )
    def test_is_the_front_of_the_sorted_rows(self, values: list[float], m: int, seed: int) -> None:
        sqdist = np.asarray(values, np.float64)
        ids = np.random.default_rng(seed).permutation(1000)[: len(values)]
        expected = np.lexsort((ids, -sqdist))[:m]
        np.testing.assert_array_equal(farthest(sqdist, ids, m), expected)

    @pytest.mark.parametrize("order", ["rising", "falling", "random"])
    def test_many_rows(self, order: str) -> None:
        sqdist = np.random.default_rng(0).random(20_000)
        if order != "random":
            sqdist.sort()
        if order == "falling":
            sqdist = sqdist[::-1].copy()
        ids = np.arange(20_000)
        np.testing.assert_array_equal(farthest(sqdist, ids, 64), np.lexsort((ids, -sqdist))[:64])


def bad_calls() -> list[tuple[str, dict[str, Any]]]:
    x, labels = random_rows(6, 4, 2, "float32")
    sums, mass, counts = zeros(2, 4)
    good = {"x": x, "weights": None, "labels": labels, "scales": np.ones(4), "weight_scale": 1.0}
    good |= {"sums": sums, "mass": mass, "counts": counts}
    locked = sums.copy()
    locked.flags.writeable = False
    changes: dict[str, Any] = {
        "labels": labels.astype(np.int64),
        "weights": np.ones(5),
        "scales": np.ones(3),
        "sums": locked,
        "mass": np.zeros(3, np.int64),
        "x": x[:, ::2],
    }
    return [(name, good | {name: value}) for name, value in changes.items()]


@pytest.mark.parametrize(("name", "arguments"), bad_calls())
def test_arguments_that_would_be_misread_are_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .* is needed"):
        accumulate(**arguments)
