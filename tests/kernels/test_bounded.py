"""Bounded assignment gives the labels of the plain kernel, bit for bit, whatever the rows and however centres move."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels import _bytes
from distclust.kernels._emit import address
from distclust.kernels._machine import machine
from distclust.kernels.bounded import (
    MOST_DIMS,
    Bounds,
    assign_bounded,
    bounds_bytes,
    first_bounds,
    level_falls,
    quick_bytes,
    quick_centers,
    quick_rows,
)
from distclust.kernels.heads import head_axes
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.kernels.rounded import round_rows
from distclust.kernels.screened import screen_centers

KINDS = ("plain", "clusters", "ties", "near ties", "duplicates", "offset", "line", "tiny", "huge", "mixed", "zeros")


def rows_of(kind: str, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return float64 rows that make trouble."""
    X = rng.normal(size=(n, d))
    if kind == "clusters":
        X = 0.1 * X + 3 * rng.normal(size=(12, d))[rng.integers(0, 12, n)]
    elif kind == "ties":
        X = rng.integers(-1, 2, (n, d)).astype(float)
    elif kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 5), n)]
    elif kind == "offset":
        X = X + 3e3
    elif kind == "line":
        X = np.outer(rng.normal(size=n), rng.normal(size=d))
    elif kind == "tiny":
        X = X * 1e-20
    elif kind == "huge":
        X = X * 1e17
    elif kind == "mixed":
        X = X * 10.0 ** rng.integers(-18, 3, (n, 1))
    elif kind == "near ties":
        X = rng.integers(-1, 2, (n, d)) * (1 + 1e-6 * rng.normal(size=(n, d)))
    elif kind == "zeros":
        X = np.zeros((n, d))
    return X


def compare(x: np.ndarray, centers: list[np.ndarray], step: float, screen: bool = False) -> list[int]:
    """Assign rows in turn to each of several sets of centres, with bounds and without; return the pairs compared."""
    packed = pack_centers(centers[0])
    screened = screen_centers(centers[0], packed) if screen else None
    labels, bounds = first_bounds(x, centers[0], packed, step, screened)
    expected, _ = assign_nearest(x, pack_centers(centers[0]))
    assert np.array_equal(labels, expected)
    assert np.array_equal(bounds.rows[:, 2], row_sqdist(x, centers[0], expected))
    pairs, rounded = [], quick_rows(x)
    for before, now in pairwise(centers):
        falls = level_falls(before, now, step)
        labels, compared = assign_bounded(
            x, rounded, labels, quick_centers(now), falls, bounds, step, partial(pack_centers, now)
        )
        expected, _ = assign_nearest(x, pack_centers(now))
        assert np.array_equal(labels, expected)
        assert (bounds.rows[:, 2] >= row_sqdist(x, now, expected) * (1 - 2.0**-40)).all()
        pairs.append(compared)
    return pairs


@settings(max_examples=250)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    n=st.sampled_from([0, 1, 11, 12, 13, 47, 48, 49, 241, 700]),
    d=st.sampled_from([1, 2, 7, 16, 31, 32, 33, 48, 65, 200]),
    k=st.sampled_from([1, 2, 15, 16, 17, 40, 63, 64, 65, 130]),
    dtype=st.sampled_from(["float32", "float64"]),
    move=st.sampled_from([0.0, 1e-6, 0.01, 0.5]),
    movers=st.sampled_from([1.0, 0.3]),
    step=st.sampled_from([1e-3, 1e-2, 1.0]),
    screen=st.booleans(),
)
def test_labels_are_those_of_the_plain_kernel_over_many_passes(
    kind: str,
    seed: int,
    n: int,
    d: int,
    k: int,
    dtype: str,
    move: float,
    movers: float,
    step: float,
    screen: bool,
) -> None:
    rng = np.random.default_rng(seed)
    x = rows_of(kind, rng, n, d).astype(dtype)
    spread = float(np.abs(x).max(initial=1e-20))
    centers = [rows_of(kind, rng, k, d).astype(dtype)]
    for _ in range(5):
        moves = move * spread * rng.normal(size=(k, d)) * (rng.random((k, 1)) < movers)
        centers.append((centers[-1] + moves).astype(dtype))
    compare(x, centers, step * spread, screen)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["plain", "clusters", "line"])
@pytest.mark.parametrize(("d", "h"), [(9, 0), (50, 0), (50, 40)])
def test_bounds_are_below_every_distance(kind: str, dtype: str, d: int, h: int) -> None:
    rng = np.random.default_rng(0)
    x = rows_of(kind, rng, 500, d).astype(dtype)
    centers = rows_of(kind, rng, 70, d).astype(dtype)
    step = 0.02
    packed = pack_centers(centers)
    head = head_axes(np.linalg.svd(x.astype(float), full_matrices=False)[2][:h].T) if h else None
    labels, bounds = first_bounds(x, centers, packed, step, screen_centers(centers, packed, head))
    rounded = quick_rows(x)
    for _ in range(5):
        exact = np.sqrt(((x[:, None].astype(float) - centers[None]) ** 2).sum(-1))
        told = bounds.levels[:, :70] > 0
        lowest = bounds.rows[:, :1] + step * bounds.levels[:, :70]
        assert told.any()
        assert (lowest <= exact)[told].all()
        before, centers = centers, (centers + 0.05 * rng.normal(size=centers.shape)).astype(dtype)
        falls = level_falls(before, centers, step)
        labels, _ = assign_bounded(
            x, rounded, labels, quick_centers(centers), falls, bounds, step, partial(pack_centers, centers)
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("h", [0, 40])
def test_rows_that_are_rounded_before_get_the_same_bounds(kind: str, h: int) -> None:
    rng = np.random.default_rng(2)
    x = rows_of(kind, rng, 4200, 50).astype(np.float32)
    centers = rows_of("plain", rng, 70, 50).astype(np.float32)
    packed = pack_centers(centers)
    head = head_axes(np.linalg.qr(rng.normal(size=(50, h)))[0]) if h else None
    screened = screen_centers(centers, packed, head, anywhere=True)
    assert screened is not None
    step = float(np.abs(x).max(initial=1.0)) / 20
    labels, bounds = first_bounds(x, centers, packed, step, screened)
    np.testing.assert_array_equal(labels, assign_nearest(x, packed)[0])
    levels, some = bounds.levels[:, :70], slice(None, None, 8)
    exact = np.sqrt(((x[some, None].astype(float) - centers[None]) ** 2).sum(-1))
    assert ((levels[some] == 0) | (bounds.rows[some, :1] + step * levels[some] <= exact)).all()
    again = first_bounds(x, centers, packed, step, screened, round_rows(x, head))
    assert again[0].tobytes() == labels.tobytes()
    assert again[1].rows.tobytes() == bounds.rows.tobytes()
    assert again[1].levels[:, :70].tobytes() == levels.tobytes()
    with pytest.raises(ValueError, match=r"^rounded is int8 of shape \(4199, 64\).*shape \(4200, 64\) is needed"):
        first_bounds(x, centers, packed, step, screened, round_rows(x[1:], head))


def test_far_centers_are_left_out() -> None:
    rng = np.random.default_rng(1)
    x = rows_of("clusters", rng, 2400, 16).astype(np.float32)
    centers = x[rng.choice(2400, 160, replace=False)]
    (pairs,) = compare(x, [centers, centers], 0.02)
    assert pairs < 2400 * 160 / 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_center_far_off_costs_the_others_nothing(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = rows_of("clusters", rng, 1000, 16).astype(dtype)
    x[0] *= 1e7
    centers = x[rng.choice(1000, 100, replace=False)]
    centers[7] = x[0]
    first, second = compare(x, [centers, centers, centers], 0.02)
    assert first < 1000 * 100 / 10
    assert second < 1000 * 100 / 10


def test_rows_are_not_wider_than_the_proof() -> None:
    x = np.zeros((1, MOST_DIMS + 1), np.float32)
    with pytest.raises(ValueError, match="bounds are proven for 500000 at most"):
        first_bounds(x, x, pack_centers(x), 1.0)


def test_only_near_ties_beyond_a_few_need_the_plain_kernel() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 8)).astype(np.float32)
    centers = np.repeat(rng.normal(size=(16, 8)), 4, axis=0).astype(np.float32)
    assert compare(x, [centers, centers], 0.02)[0] < 300 * 64, "a row has 4 nearest centres"
    same = np.repeat(centers[:4], 16, axis=0)
    assert compare(x, [same, same], 0.02)[0] > 300 * 64, "a row has 16"


def test_a_level_falls_only_with_its_center() -> None:
    old = np.zeros((3, 2), np.float32)
    new = np.array([[0, 0], [1e-30, 0], [3, 4]], np.float32)
    assert level_falls(old, new, 1.0)[:4].tolist() == [0, 1, 6, 0]
    assert level_falls(old, new, 1e-3)[2] == 255


def test_the_bytes_of_bounds_are_counted() -> None:
    assert bounds_bytes(10, 65) == Bounds.empty(10, 65).data.nbytes == 10 * (128 + 24)
    assert quick_bytes(10, 70) == quick_rows(np.ones((10, 70), np.float32)).data.nbytes == 10 * (2 * 128 + 16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 5, 64, 100, 384])
@pytest.mark.parametrize("kind", ["plain", "offset", "line", "tiny", "huge", "mixed", "zeros"])
def test_what_rounding_took_away_is_bounded_and_not_much_overrated(kind: str, d: int, dtype: str) -> None:
    x = rows_of(kind, np.random.default_rng(4), 60, d).astype(dtype)
    found = quick_rows(x)
    steps, told = found.floats.T
    whole = x.astype(np.float64)
    off = np.sqrt(((whole - steps[:, None] * found.values[:, :d]) ** 2).sum(axis=1))
    rounded = steps > 0
    assert (off[rounded] <= told[rounded]).all()
    assert (told[rounded] <= 1.01 * off[rounded] + 0.011 * steps[rounded]).all()
    lengths = np.sqrt((whole**2).sum(axis=1))
    assert (rounded == ((lengths > 1e-15) & (lengths < 1e15))).all()
    assert not found.values[:, d:].any()
    same = quick_centers(x)
    np.testing.assert_array_equal(same.quick, found.values)
    assert (np.isneginf(same.sqnorms) == (~rounded & (lengths > 0))).all()
    assert same.error >= (told[rounded] / steps[rounded]).max(initial=0) * (1 - 1e-12)


def test_rows_are_read_only_where_several_centers_may_be_nearest() -> None:
    rng = np.random.default_rng(6)
    x = rows_of("plain", rng, 2000, 64).astype(np.float32)
    centers = x[rng.choice(2000, 96, replace=False)]
    packed, step = pack_centers(centers), 0.02
    labels, bounds = first_bounds(x, centers, packed, step)
    moved = (centers + 1e-3 * rng.normal(size=centers.shape)).astype(np.float32)
    unseen = np.full_like(x, np.nan)
    sure, _ = assign_nearest(x, pack_centers(moved))
    near = np.sort(((x[:, None].astype(float) - moved[None]) ** 2).sum(-1), axis=1)[:, :2]
    clear = near[:, 1] > near[:, 0] + 2e-3 * (x.astype(float) ** 2).sum(1)
    assert 100 < clear.sum() < len(x)
    unseen[~clear] = x[~clear]
    falls = level_falls(centers, moved, step)
    found, pairs = assign_bounded(
        unseen, quick_rows(x), labels, quick_centers(moved), falls, bounds, step, partial(pack_centers, moved)
    )
    assert pairs > 100, "several bounds were in doubt"
    np.testing.assert_array_equal(found, sure)


@pytest.mark.parametrize("width", [w for w in (0, 16, 32) if w <= machine().short_products])
@pytest.mark.parametrize("pairs", [1, 4])
def test_sums_of_products_do_not_depend_on_the_instruction(
    width: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bytes, "machine", lambda: machine()._replace(short_products=width))
    products = _bytes.make_products(pairs)

    @numba.njit
    def run(x: np.ndarray, centers: np.ndarray, ids: np.ndarray, out: np.ndarray) -> None:
        products(address(x), address(centers), centers.shape[1] * 2, address(ids), x.shape[0], address(out))

    rng = np.random.default_rng(3)
    x = rng.integers(-2000, 2000, 192).astype(np.int16)
    centers = rng.integers(-2000, 2000, (9, 192)).astype(np.int16)
    ids, out = np.array([8, 0, 3, 3], np.int32), np.full(5, -1, np.int32)
    run(x, centers, ids, out)
    assert out[:pairs].tolist() == (centers[ids[:pairs]].astype(int) @ x).tolist()
    assert (out[pairs:] == -1).all()


def test_arguments_are_checked() -> None:
    x = np.ones((8, 5), np.float32)
    packed, quick = pack_centers(x), quick_rows(x)
    with pytest.raises(ValueError, match=r"^centers is float64"):
        first_bounds(x, x.astype(float), packed, 1.0)
    with pytest.raises(ValueError, match=r"^centers is float32 of shape \(8, 4\)"):
        first_bounds(x, np.ascontiguousarray(x[:, :4]), packed, 1.0)
    with pytest.raises(ValueError, match=r"old is of shape \(7, 5\), new of shape \(8, 5\)"):
        level_falls(x[:7], x, 1.0)
    labels, bounds = first_bounds(x, x, packed, 1.0)
    with pytest.raises(ValueError, match=r"^quick is int16 of shape \(7, 64\).*\(8, 64\) is needed"):
        assign_bounded(
            x, quick_rows(x[:7]), labels, quick_centers(x), level_falls(x, x, 1.0), bounds, 1.0, lambda: packed
        )
    assert quick.values.shape == (8, 64)
