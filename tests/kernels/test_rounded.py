"""Rows rounded to bytes, against plain numpy; the same bits wherever a row stands and whenever it is rounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels.heads import HeadAxes, head_rows
from distclust.kernels.rounded import (
    ERROR,
    FLOATS,
    LEAST_LENGTH,
    LENGTH,
    MOST_LENGTH,
    MOST_WIDTH,
    SQUARE,
    STEP,
    SUM,
    TAIL,
    RoundedRows,
    last_rows,
    padded_width,
    round_rows,
)
from tests.kernels.test_bounded import KINDS, rows_of
from tests.kernels.test_screened import turned

WIDTHS = (1, 15, 16, 17, 63, 64, 65, 384)

UP = 1 + 2.0**-18
"""More than what makes an upper bound one in float32."""


def numpy_bytes(x: np.ndarray, head: HeadAxes | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return what rows are rounded to, float64 [n, h], and their steps, float32 [n]."""
    rows = x if head is None else head_rows(x, head).heads
    most = np.abs(rows).max(axis=1)
    step = np.where(most > np.float32(LEAST_LENGTH), most / np.float32(127), np.float32(0))
    scale = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    turned_bytes = np.rint(rows * scale[:, None])
    assert turned_bytes.dtype == step.dtype == np.float32
    return turned_bytes.astype(np.float64), step


def lane_sums(values: np.ndarray) -> np.ndarray:
    """Add float32 columns in lanes of 16, then the lanes, then what is behind the last whole 16, one by one."""
    n, d = values.shape
    lanes = np.zeros((n, 16), np.float32)
    for at in range(0, d - d % 16, 16):
        lanes += values[:, at : at + 16]
    total = np.zeros(n, np.float32)
    for part in (*lanes.T, *values.T[d - d % 16 :]):
        total += part
    return total


def squares_of(whole: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the squared lengths of rounded rows, float32."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(step * step * lane_sums((whole**2).astype(np.float32)))


def check(x: np.ndarray, rounded: RoundedRows, head: HeadAxes | None = None) -> None:
    """Check rounded rows against numpy: what is exact by bits, what is a bound from both sides."""
    heads, tails = (x, np.zeros(len(x))) if head is None else head_rows(x, head)
    n, h = heads.shape
    whole, step = numpy_bytes(x, head)
    values, floats = rounded
    assert values.shape == (n, padded_width(h))
    assert values.dtype == np.int8
    np.testing.assert_array_equal(values[:, :h], whole)
    assert not values[:, h:].any()
    assert floats.shape == (n, len(FLOATS))
    assert floats.dtype == np.float32
    assert floats[:, STEP].tobytes() == step.tobytes()
    np.testing.assert_array_equal(floats[:, SUM], whole.sum(axis=1))
    assert floats[:, SQUARE].tobytes() == squares_of(whole, step).tobytes()

    wide, each = heads.astype(np.float64), floats.astype(np.float64)
    error = np.sqrt(((wide - whole * step[:, None].astype(np.float64)) ** 2).sum(axis=1))
    long = np.abs(wide).max(axis=1) * np.sqrt(h)
    length = np.sqrt((x.astype(np.float64) ** 2).sum(axis=1))
    assert (each[:, ERROR] >= error).all()
    assert (each[:, LENGTH] >= length).all()
    assert (each[:, TAIL] >= tails).all()
    assert (each[:, TAIL] <= tails * UP).all()

    bound = np.sqrt((wide**2).sum(axis=1) + tails**2)
    sure = (long < MOST_LENGTH / UP) & (bound < MOST_LENGTH / UP)
    assert (each[sure, LENGTH] <= bound[sure] * UP).all()
    assert np.isinf(each[(long >= MOST_LENGTH) | (bound >= MOST_LENGTH), LENGTH]).all()
    tight = np.where(step > 0, error * (1 + 2.0**-9) + long * 2.0**-20, long * UP)
    assert (each[sure, ERROR] <= tight[sure]).all()


@settings(max_examples=200)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 2, 13, 200]),
    d=st.sampled_from(WIDTHS),
    scale=st.sampled_from([1.0, 1e-3, 30.0, 1e-10, 1e16]),
)
def test_rows_are_rounded_as_numpy_rounds_them(kind: str, seed: int, n: int, d: int, scale: float) -> None:
    x = (rows_of(kind, np.random.default_rng(seed), n, d) * scale).astype(np.float32)
    check(x, round_rows(x))


@settings(max_examples=150)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 2, 13, 200]),
    sizes=st.sampled_from([(16, 1), (17, 15), (64, 16), (65, 17), (200, 64), (384, 65)]),
    scale=st.sampled_from([1.0, 1e-3, 30.0, 1e-10, 1e16]),
    inside=st.booleans(),
)
def test_coordinates_on_axes_are_rounded_as_numpy_rounds_them(
    kind: str, seed: int, n: int, sizes: tuple[int, int], scale: float, inside: bool
) -> None:
    rng = np.random.default_rng(seed)
    head = turned(rng, *sizes)
    x = rows_of(kind, rng, n, sizes[0]) * scale
    if inside:  # rows on the axes, but for what rounding leaves
        x = x @ head.axes @ head.axes.T
    x = x.astype(np.float32)
    check(x, round_rows(x, head), head)


@pytest.mark.parametrize("d", WIDTHS)
def test_bounds_of_ordinary_rows_are_tight(d: int) -> None:
    rng = np.random.default_rng(d)
    x = rng.normal(size=(300, d)).astype(np.float32)
    values, floats = round_rows(x)
    step = floats[:, STEP, None].astype(np.float64)
    error = np.sqrt(((x - values[:, :d] * step) ** 2).sum(axis=1))
    length = np.sqrt((x.astype(np.float64) ** 2).sum(axis=1))
    assert floats[:, LENGTH] == pytest.approx(length, rel=1e-5)
    assert not floats[:, TAIL].any()
    if d > 1:
        assert floats[:, ERROR] == pytest.approx(error, rel=3e-3)
    assert (np.abs(x - values[:, :d] * step) <= step * (0.5 + 1e-4)).all()
    assert (np.abs(values).max(axis=1) == 127).all()


def test_tails_of_ordinary_rows_are_tight() -> None:
    rng = np.random.default_rng(0)
    head = turned(rng, 96, 24)
    x = rng.normal(size=(300, 96)).astype(np.float32)
    exact = x.astype(np.float64)
    axes = np.linalg.qr(head.axes.astype(np.float64))[0]
    left = np.sqrt(((exact - exact @ axes @ axes.T) ** 2).sum(axis=1))
    floats = round_rows(x, head).floats
    assert (floats[:, TAIL] >= left).all()
    assert floats[:, TAIL] == pytest.approx(left, rel=1e-3)
    assert floats[:, LENGTH] == pytest.approx(np.sqrt((exact**2).sum(axis=1)), rel=1e-3)


def test_halves_are_rounded_to_even() -> None:
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -126.5]], np.float32)
    assert round_rows(x).values[0, :8].tolist() == [127, 0, 2, 2, 0, -2, -2, -126]


@pytest.mark.parametrize(
    ("value", "step", "length"),
    [
        (0.0, 0.0, 0.0),
        (1e-30, 0.0, 2e-30),
        (1e-15, 0.0, 2e-15),
        (1.1e-15, 1.1e-15 / 127, 2.2e-15),
        (4e14, 4e14 / 127, 8e14),
        (5.1e14, 5.1e14 / 127, np.inf),
        (1e15, 1e15 / 127, np.inf),
        (3e38, 3e38 / 127, np.inf),
    ],
)
def test_tiny_rows_have_no_step_and_huge_ones_no_length(value: float, step: float, length: float) -> None:
    x = np.full((2, 4), value, np.float32)
    x[1] *= -1
    values, floats = round_rows(x)
    assert values[:, :4].tolist() == [[127 * (step > 0)] * 4, [-127 * (step > 0)] * 4]
    assert floats[:, STEP] == pytest.approx(step, rel=1e-6)
    assert floats[:, LENGTH] == pytest.approx(length, rel=1e-5)
    assert floats[:, SUM].tolist() == [127 * 4 * (step > 0), -127 * 4 * (step > 0)]
    if step == 0:
        assert floats[:, ERROR] == pytest.approx(length, rel=1e-5)
        assert not floats[:, SQUARE].any()


def test_one_huge_value_makes_the_length_of_a_row_unsure() -> None:
    x = np.ones((3, 64), np.float32)
    x[1, 7] = 2e14  # not too long, but rows of this extent may be
    x[2, 7] = 1e14
    assert np.isinf(round_rows(x).floats[:, LENGTH]).tolist() == [False, True, False]


@pytest.mark.parametrize("h", [None, 1, 16, 65])
@pytest.mark.parametrize("kind", ["plain", "mixed", "ties", "huge"])
def test_bits_do_not_depend_on_the_place_of_a_row(h: int | None, kind: str) -> None:
    rng = np.random.default_rng(1)
    x = rows_of(kind, rng, 230, 99).astype(np.float32)
    head = None if h is None else turned(rng, 99, h)
    values, floats = round_rows(x, head)
    order = rng.permutation(len(x))
    again = round_rows(x[order], head)
    assert again.values.tobytes() == values[order].tobytes()
    assert again.floats.tobytes() == floats[order].tobytes()
    for cut in (0, 1, 12, 101, 229, 230):
        parts = [round_rows(part, head) for part in (x[:cut], x[cut:])]
        assert b"".join(part.values.tobytes() for part in parts) == values.tobytes()
        assert b"".join(part.floats.tobytes() for part in parts) == floats.tobytes()


@pytest.mark.parametrize("h", [None, 16])
@pytest.mark.parametrize("n", [1, 40, 4133, 8200])
def test_known_rows_are_not_rounded_again(h: int | None, n: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 49)).astype(np.float32)
    head = None if h is None else turned(rng, 49, h)
    whole = round_rows(x, head)
    if h is not None:
        check(x, whole, head)
    for cut in {0, 1, n // 3, n - 1, n}:
        known = round_rows(x[:cut], head)
        found = round_rows(x, head, known)
        assert [part.tobytes() for part in found] == [part.tobytes() for part in whole]
        known.values[:], known.floats[:] = 5, 7
        found = round_rows(x, head, known)
        assert (found.values[:cut] == 5).all()
        assert (found.floats[:cut] == 7).all()
        assert found.values[cut:].tobytes() == whole.values[cut:].tobytes()
        assert found.floats[cut:].tobytes() == whole.floats[cut:].tobytes()


def test_sums_of_the_widest_rows_are_exact() -> None:
    x = np.ones((3, MOST_WIDTH), np.float32)
    x[1] = -1
    x[2, 1::2] = -0.5
    rounded = round_rows(x)
    assert rounded.values.shape == (3, MOST_WIDTH)
    assert rounded.floats[:, SUM].tolist() == [127 * MOST_WIDTH, -127 * MOST_WIDTH, (127 - 64) * MOST_WIDTH // 2]
    check(x, rounded)


@pytest.mark.parametrize("d", [1030, 1500, 4099])
def test_squares_of_wide_rows_are_added_in_a_fixed_order(d: int) -> None:
    x = np.random.default_rng(d).uniform(-1, 1, (20, d)).astype(np.float32)
    whole, step = numpy_bytes(x)
    found = round_rows(x).floats[:, SQUARE]
    assert found.tobytes() == squares_of(whole, step).tobytes()
    assert found == pytest.approx((step.astype(np.float64) ** 2) * (whole**2).sum(axis=1), rel=1e-6)


def test_rows_may_be_read_only() -> None:
    x = np.random.default_rng(3).normal(size=(30, 20)).astype(np.float32)
    expected = round_rows(x)
    x.flags.writeable = False
    assert [part.tobytes() for part in round_rows(x)] == [part.tobytes() for part in expected]


def test_the_first_rows_are_a_view() -> None:
    rounded = round_rows(np.random.default_rng(4).normal(size=(30, 20)).astype(np.float32))
    first = rounded.first(7)
    assert first.values.base is not None
    assert first.values.tobytes() == rounded.values[:7].tobytes()
    assert first.floats.tobytes() == rounded.floats[:7].tobytes()
    assert len(rounded.first(0).values) == 0
    assert len(rounded.first(99).floats) == 30


@pytest.mark.parametrize(("h", "width"), [(0, 0), (1, 64), (63, 64), (64, 64), (65, 128), (384, 384)])
def test_rows_take_whole_cache_lines(h: int, width: int) -> None:
    assert padded_width(h) == width


@pytest.mark.parametrize("n", [0, 1, 11, 12, 13, 25])
def test_the_last_rows_are_padded_to_a_tile(n: int) -> None:
    rounded = round_rows(np.random.default_rng(n).normal(size=(n, 20)).astype(np.float32))
    tail = last_rows(rounded, 12)
    assert tail.shape == (12, 64)
    assert tail.dtype == np.int8
    np.testing.assert_array_equal(tail[: n % 12], rounded.values[n // 12 * 12 :])
    assert not tail[n % 12 :].any()


def test_rows_that_are_too_wide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^rows have 65537 values; at most 65536 are rounded\.$"):
        round_rows(np.zeros((1, MOST_WIDTH + 1), np.float32))


def test_other_arrays_are_refused() -> None:
    x = np.ones((9, 20), np.float32)
    with pytest.raises(ValueError, match=r"^x is float64 of shape \(9, 20\).*float32 and shape \(any, any\) is needed"):
        round_rows(x.astype(np.float64))
    with pytest.raises(ValueError, match=r"^x is float32 of shape \(20,\)"):
        round_rows(x[0])
    with pytest.raises(ValueError, match=r"^x is .*not C-contiguous"):
        round_rows(x[:, ::2])
    with pytest.raises(ValueError, match=r"shape \(9, 20\)"):
        round_rows(x, turned(np.random.default_rng(5), 21, 4))
