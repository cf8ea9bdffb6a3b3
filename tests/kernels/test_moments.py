"""Passes over raw rows against naive twins: verdicts, ranges, blocks, column sums."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.moments import MOST_SHORT, NON_FINITE, OK, ZERO_ROW, column_sums, scan_rows, write_rows
from tests.kernels import oracles

FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
SHAPES = [(0, 3), (1, 1), (20, 7), (20, 8), (33, 50)]


def raw_rows(m: int, d: int, dtype: str) -> np.ndarray:
    rng = np.random.default_rng([m, d])
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(m, d)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, (m, d), dtype=dtype, endpoint=True)


def scanned(values: np.ndarray, unit_rows: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    d = values.shape[1]
    low, high, bad = np.full(d, np.inf), np.full(d, -np.inf), np.full(len(values), 9, np.uint8)
    scan_rows(values, unit_rows, low, high, bad)
    return bad, low, high


def check_scan(values: np.ndarray, unit_rows: bool) -> None:
    bad, low, high = scanned(values, unit_rows)
    verdict, expected_low, expected_high = oracles.scan(values, unit_rows)
    np.testing.assert_array_equal(bad, verdict)
    if unit_rows:
        np.testing.assert_allclose(low, expected_low, rtol=1e-14)
        np.testing.assert_allclose(high, expected_high, rtol=1e-14)
    else:
        np.testing.assert_array_equal(low, expected_low)
        np.testing.assert_array_equal(high, expected_high)


@pytest.mark.parametrize("unit_rows", [False, True])
class TestScanRows:
    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    def test_dtypes(self, dtype: str, unit_rows: bool) -> None:
        check_scan(raw_rows(40, 11, dtype), unit_rows)

    @pytest.mark.parametrize(("m", "d"), SHAPES)
    def test_shapes(self, m: int, d: int, unit_rows: bool) -> None:
        check_scan(raw_rows(m, d, "float32"), unit_rows)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("d", [1, 5, 8, 9, 16, 33])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_bad_value_anywhere(self, value: float, d: int, dtype: str, unit_rows: bool) -> None:
        values = raw_rows(d + 1, d, dtype)
        for at in range(d):
            values[at, at] = value
        bad, *_ = scanned(values, unit_rows)
        assert bad.tolist() == [NON_FINITE] * d + [OK]
        check_scan(values, unit_rows)

    def test_ranges_are_widened_not_replaced(self, unit_rows: bool) -> None:
        low, high, bad = np.full(2, -5.0), np.full(2, 5.0), np.empty(3, np.uint8)
        scan_rows(np.ones((3, 2), np.float32), unit_rows, low, high, bad)
        assert (low.tolist(), high.tolist()) == ([-5, -5], [5, 5])

    def test_zero_rows(self, unit_rows: bool) -> None:
        values = np.asarray([[0, 0], [1, 0]], np.float32)
        assert scanned(values, unit_rows)[0].tolist() == [ZERO_ROW if unit_rows else OK, OK]

    def test_square_beyond_float64(self, unit_rows: bool) -> None:
        bad, _, high = scanned(np.asarray([[1e200, 1.0]]), unit_rows)
        assert bad.tolist() == [NON_FINITE if unit_rows else OK]
        assert high[0] == (-np.inf if unit_rows else 1e200)


class TestWriteRows:
    @pytest.mark.parametrize("out_dtype", FLOATS)
    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    def test_centred_then_cast(self, dtype: str, out_dtype: str) -> None:
        values = raw_rows(15, 9, dtype)
        center = np.random.default_rng(0).normal(size=9)
        source, target = np.asarray([3, 0, 14, 3]), np.asarray([1, 4, 0, 2])
        out = np.full((6, 9), 7, out_dtype)
        write_rows(values, center, False, source, target, out)
        expected = np.full((6, 9), 7, out_dtype)
        expected[target] = (values[source].astype(np.float64) - center).astype(out_dtype)
        np.testing.assert_array_equal(out, expected)

    @pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
    def test_unit_rows(self, dtype: str) -> None:
        values = raw_rows(15, 9, dtype)
        center = np.random.default_rng(0).normal(size=9)
        out = np.empty((15, 9))
        write_rows(values, center, True, np.arange(15), np.arange(15), out)
        wide = values.astype(np.float64)
        expected = wide / np.sqrt((wide**2).sum(axis=1, keepdims=True)) - center
        np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-15)

    def test_huge_offset_is_gone_before_the_cast(self) -> None:
        values = 1.7e9 + np.arange(6.0).reshape(3, 2)
        out = np.empty((3, 2), np.float32)
        write_rows(values, np.full(2, 1.7e9), False, np.arange(3), np.arange(3), out)
        np.testing.assert_array_equal(out, np.arange(6.0).reshape(3, 2))

    def test_bits_do_not_depend_on_the_place_of_a_row(self) -> None:
        values = raw_rows(20, 37, "float32")
        center = np.full(37, 0.01)
        whole, one = np.empty((20, 37), np.float32), np.empty((1, 37), np.float32)
        write_rows(values, center, True, np.arange(20), np.arange(20), whole)
        for at in range(20):
            write_rows(values, center, True, np.asarray([at]), np.zeros(1, np.int64), one)
            assert one.tobytes() == whole[at].tobytes()

    def test_no_rows(self) -> None:
        nothing = np.empty(0, np.int64)
        out = np.ones((2, 3), np.float32)
        assert write_rows(np.empty((0, 3), np.float32), np.zeros(3), False, nothing, nothing, out)
        assert (out == 1).all()

    @pytest.mark.parametrize("unit_rows", [False, True])
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_tells_of_one_bad_value_anywhere(self, value: float, dtype: str, unit_rows: bool) -> None:
        rows, out = np.arange(9), np.empty((9, 9), np.float32)
        for at in range(9):
            values = raw_rows(9, 9, dtype)
            assert write_rows(values, np.zeros(9), unit_rows, rows, rows, out)
            values[at, (at + 5) % 9] = value
            assert not write_rows(values, np.zeros(9), unit_rows, rows, rows, out)

    def test_tells_of_rows_that_no_scan_accepts_or_no_block_holds(self) -> None:
        row, out = np.zeros(1, np.int64), np.empty((1, 2), np.float32)
        assert not write_rows(np.zeros((1, 2)), np.ones(2), True, row, row, out)
        assert not write_rows(np.asarray([[1e200, 1.0]]), np.ones(2), True, row, row, out)
        assert not write_rows(np.asarray([[1e39, 1.0]]), np.ones(2), False, row, row, out)
        assert write_rows(np.zeros((1, 2)), np.ones(2), False, row, row, out)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("short", [False, True])
def test_column_sums_twin(n: int, d: int, dtype: str, weighted: bool, short: bool) -> None:
    x = raw_rows(n, d, dtype)
    weights = np.random.default_rng(1).random(n) if weighted else None
    scales, sq_scales = np.full(d, 2.0**30), np.full(d, 2.0**25)
    sums, abs_sums, sq_hi, sq_lo = (np.full(d, 3, np.int64) for _ in range(4))
    column_sums(x, weights, scales, sums, abs_sums, sq_hi, sq_lo, sq_scales, short=short)
    terms = oracles.terms(x, weights, scales)
    wide = x.astype(np.float64)
    squares = wide * wide if weights is None else weights[:, None] * wide * wide
    high, low = oracles.two_part(squares * sq_scales)
    np.testing.assert_array_equal(sums, 3 + terms.sum(axis=0))
    np.testing.assert_array_equal(abs_sums, 3 + np.abs(terms).sum(axis=0))
    np.testing.assert_array_equal(sq_hi, 3 + high.sum(axis=0))
    np.testing.assert_array_equal(sq_lo, 3 + low.sum(axis=0))


def test_short_terms_up_to_their_limit() -> None:
    """The largest terms that are short, of both signs, in whole groups of rows and behind them."""
    x = np.array([[1.0], [-1.0], [0.75], [1 - 2.0**-51], [-(1 - 2.0**-40)]])
    scales = np.array([MOST_SHORT])
    plain, short = ([np.zeros(1, np.int64) for _ in range(4)] for _ in range(2))
    column_sums(x, None, scales, *plain, scales)
    column_sums(x, None, scales, *short, scales, short=True)
    assert [int(total[0]) for total in short] == [int(total[0]) for total in plain]
