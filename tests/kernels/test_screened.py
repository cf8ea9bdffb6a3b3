"""The screen gives the labels of the plain kernel, bit for bit, whatever the rows and centres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels import screened
from distclust.kernels._machine import machine
from distclust.kernels.heads import HeadAxes, head_axes, head_rows
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.kernels.rounded import MOST_WIDTH, round_rows
from distclust.kernels.screened import LEAST_CENTERS, LEAST_WIDTH, assign_labels, screen_centers
from tests.kernels.test_bounded import KINDS, rows_of


def both(x: np.ndarray, centers: np.ndarray, head: HeadAxes | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the plain kernel and of the screen, the same for rows that are rounded before."""
    packed = pack_centers(centers)
    found = screen_centers(centers, packed, head)
    labels = assign_labels(x, packed, found)
    if found is not None:
        assert labels.tobytes() == assign_labels(x, packed, found, round_rows(x, head)).tobytes()
    return assign_nearest(x, packed)[0], labels


def turned(rng: np.random.Generator, d: int, h: int) -> HeadAxes:
    """Return axes in no relation to any rows."""
    found = head_axes(np.linalg.qr(rng.normal(size=(d, h)))[0])
    assert found is not None
    return found


@settings(max_examples=200)
@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 11, 12, 13, 95, 96, 97, 700]),
    d=st.sampled_from([LEAST_WIDTH, 49, 63, 64, 65, 200]),
    k=st.sampled_from([LEAST_CENTERS, 65, 96, 97, 300]),
    scales=st.tuples(st.sampled_from([1.0, 1e-3, 30.0, 1e-16, 1e16]), st.sampled_from([1.0, 1e-3, 30.0, 1e-14])),
)
def test_labels_are_those_of_the_plain_kernel(
    kinds: tuple[str, str], seed: int, n: int, d: int, k: int, scales: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    x = (rows_of(kinds[0], rng, n, d) * scales[0]).astype(np.float32)
    centers = (rows_of(kinds[1], rng, k, d) * scales[1]).astype(np.float32)
    plain, labels = both(x, centers)
    np.testing.assert_array_equal(labels, plain)


@settings(max_examples=150)
@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 12, 97, 700]),
    d=st.sampled_from([64, 65, 200]),
    h=st.sampled_from([1, 15, 16, 48]),
    k=st.sampled_from([LEAST_CENTERS, 97, 300]),
    scales=st.tuples(st.sampled_from([1.0, 1e-3, 30.0, 1e-16, 1e16]), st.sampled_from([1.0, 1e-3, 30.0, 1e-14])),
    inside=st.booleans(),
)
def test_axes_change_no_label(
    kinds: tuple[str, str], seed: int, n: int, d: int, h: int, k: int, scales: tuple[float, float], inside: bool
) -> None:
    rng = np.random.default_rng(seed)
    head = turned(rng, d, h)
    x, centers = rows_of(kinds[0], rng, n, d) * scales[0], rows_of(kinds[1], rng, k, d) * scales[1]
    if inside:  # rows on the axes, but for what rounding leaves
        x, centers = (rows @ head.axes @ head.axes.T for rows in (x, centers))
    plain, labels = both(x.astype(np.float32), centers.astype(np.float32), head)
    np.testing.assert_array_equal(labels, plain)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), d=st.sampled_from([5, 64, 384]), h=st.sampled_from([1, 4]))
def test_heads_and_tails_bound_products(seed: int, d: int, h: int) -> None:
    rng = np.random.default_rng(seed)
    head = turned(rng, d, h)
    x = (rng.normal(size=(60, d)) @ np.diag(rng.exponential(size=d) ** 3)).astype(np.float32)
    x[:20] = (x[:20] @ head.axes @ head.axes.T).astype(np.float32)
    heads, tails = head_rows(x, head)
    exact = x.astype(np.float64) @ x.T.astype(np.float64)
    away = np.abs(exact - heads.astype(np.float64) @ heads.T.astype(np.float64))
    assert (away <= np.outer(tails, tails)).all()


def test_axes_that_are_not_orthonormal_are_refused() -> None:
    assert head_axes(np.ones((8, 2))) is None
    assert head_axes(np.full((8, 2), np.nan)) is None


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), ulps=st.sampled_from([0, 1, 3, 100]), d=st.sampled_from([64, 130, 384]))
def test_near_ties_are_decided_as_the_plain_kernel_decides_them(seed: int, ulps: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(150, d)).astype(np.float32)
    # Centres in pairs that differ by a few units in the last place, rows on and between them.
    half = x[:40] * np.float32(1 + 1e-3)
    centers = np.concatenate([half, half + np.float32(ulps) * np.spacing(half)])
    plain, labels = both(x, centers)
    np.testing.assert_array_equal(labels, plain)


def test_one_outlier_among_rows_or_in_a_row_changes_no_label() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 96)).astype(np.float32)
    centers = rng.normal(size=(128, 96)).astype(np.float32)
    x[7] *= 1e6
    x[9, 3] = 1e7
    centers[5, 0] = 1e5
    plain, labels = both(x, centers)
    np.testing.assert_array_equal(labels, plain)


@pytest.mark.parametrize("h", [None, 16])
@pytest.mark.parametrize("n", [4096, 4097, 8200])
def test_more_rows_than_are_rounded_at_once_get_the_labels_of_the_plain_kernel(n: int, h: int | None) -> None:
    rng = np.random.default_rng(n)
    centers = rng.normal(size=(70, 50)).astype(np.float32)
    x = (centers[rng.integers(0, 70, n)] + rng.normal(size=(n, 50))).astype(np.float32)
    plain, labels = both(x, centers, None if h is None else turned(rng, 50, h))
    np.testing.assert_array_equal(labels, plain)


def test_given_rounded_rows_are_those_that_are_compared() -> None:
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(70, 64)).astype(np.float32)
    packed = pack_centers(centers)
    found = screen_centers(centers, packed, anywhere=True)
    assert found is not None
    x = (centers[rng.permutation(70)] + 0.01 * rng.normal(size=(70, 64))).astype(np.float32)
    other = round_rows(x[::-1].copy())
    np.testing.assert_array_equal(assign_labels(x, packed, found, other), assign_nearest(x, packed)[0][::-1])


@pytest.mark.parametrize("h", [None, 16])
def test_other_rounded_rows_are_refused(h: int | None) -> None:
    rng = np.random.default_rng(4)
    x, centers = (rng.normal(size=(m, 65)).astype(np.float32) for m in (9, 70))
    packed = pack_centers(centers)
    found = screen_centers(centers, packed, None if h is None else turned(rng, 65, h), anywhere=True)
    assert found is not None
    given, w = round_rows(x, found.head), 128 if h is None else 64
    for wrong, message in (
        (given.first(8), rf"^rounded is int8 of shape \(8, {w}\).*int8 and shape \(9, {w}\) is needed"),
        (given._replace(values=np.zeros((9, 192), np.int8)), rf"^rounded is int8 of shape \(9, 192\).*\(9, {w}\)"),
        (given._replace(values=given.values.view(np.uint8)), r"^rounded is uint8"),
        (given._replace(values=given.values[:, ::-1]), r"^rounded is int8.*not C-contiguous"),
        (given._replace(floats=given.floats[1:]), r"^rounded is float32 of shape \(8, 6\).*shape \(9, 6\) is needed"),
        (given._replace(floats=given.floats[:, 1:].copy()), r"^rounded is float32 of shape \(9, 5\).*\(9, 6\)"),
        (given._replace(floats=given.floats.astype(np.float64)), r"^rounded is float64 of shape \(9, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            assign_labels(x, packed, found, wrong)


def test_few_centres_few_or_too_many_dimensions_and_float64_are_not_screened() -> None:
    rng = np.random.default_rng(0)
    for k, d, dtype in (
        (LEAST_CENTERS - 1, 64, np.float32),
        (200, LEAST_WIDTH - 1, np.float32),
        (200, 64, np.float64),
        (LEAST_CENTERS, MOST_WIDTH + 1, np.float32),
    ):
        centers = rng.normal(size=(k, d)).astype(dtype)
        assert screen_centers(centers, pack_centers(centers)) is None


def test_a_machine_without_the_instruction_computes_every_score(monkeypatch: pytest.MonkeyPatch) -> None:
    without = machine()._replace(byte_products=False)
    monkeypatch.setattr(screened, "machine", lambda: without)
    rng = np.random.default_rng(1)
    x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (300, 100))
    assert screen_centers(centers, pack_centers(centers)) is None
    plain, labels = both(x, centers)
    np.testing.assert_array_equal(labels, plain)


@pytest.mark.skipif(not machine().byte_products, reason="the processor has no AVX-512 VNNI, so nothing is screened")
def test_most_rows_are_decided_without_the_plain_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (500, 100))
    packed = pack_centers(centers)
    found = screen_centers(centers, packed)
    assert found is not None
    plain = assign_nearest(x, packed)[0]

    def unexpected(*arguments: object) -> None:
        raise AssertionError("a row of ordinary length went to the plain kernel")

    monkeypatch.setattr(screened, "assign_nearest", unexpected)
    np.testing.assert_array_equal(assign_labels(x, packed, found), plain)
