"""The m nearest centres against a stable sort of the table of scores."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels import nearest
from distclust.kernels.nearest import assign_nearest, distance_table, pack_centers
from distclust.kernels.top import list_nearest

DTYPES = ("float32", "float64")
TILES = sorted(nearest._WIDE_TILES | nearest._NARROW_TILES)


def check(x: np.ndarray, centers: np.ndarray, m: int) -> None:
    packed = pack_centers(centers)
    indices, scores = list_nearest(x, packed, m)
    table = distance_table(x, packed)
    order = np.argsort(table, axis=1, kind="stable")[:, :m]
    assert indices.dtype == np.int32
    assert scores.dtype == x.dtype
    np.testing.assert_array_equal(indices, order)
    assert scores.tobytes() == np.take_along_axis(table, order, axis=1).tobytes()
    np.testing.assert_array_equal(indices[:, 0], assign_nearest(x, packed)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("n", [0, 1, 7, 13, 145, 301])
def test_rows_and_lengths(n: int, m: int, dtype: str) -> None:
    rng = np.random.default_rng([n, m])
    check(rng.normal(size=(n, 19)).astype(dtype), rng.normal(size=(33, 19)).astype(dtype), m)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 15, 16, 17, 32, 33, 700])
def test_all_centers_may_be_listed(k: int, dtype: str) -> None:
    rng = np.random.default_rng(k)
    check(rng.normal(size=(23, 6)).astype(dtype), rng.normal(size=(k, 6)).astype(dtype), k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 5, 64, 200])
def test_ties_go_to_the_lowest_index(m: int, dtype: str) -> None:
    rng = np.random.default_rng(m)
    # Few distinct coordinates: nearly every score occurs several times, in every lane and panel.
    check(rng.integers(-1, 2, (150, 3)).astype(dtype), rng.integers(-1, 2, (200, 3)).astype(dtype), m)
    check(np.ones((9, 4), dtype), np.ones((200, 4), dtype), m)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rising", [False, True])
def test_centers_in_order_of_distance(rising: bool, dtype: str) -> None:
    centers = np.arange(400, dtype=dtype)[:, None]
    check(np.zeros((40, 1), dtype), centers if rising else np.ascontiguousarray(centers[::-1]), 11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_centers_of_infinite_norm_come_last_in_order(dtype: str) -> None:
    far = np.finfo(dtype).max / 2
    centers = np.asarray([[far], [2], [far], [1], [far]], dtype)
    indices, scores = list_nearest(np.zeros((3, 1), dtype), pack_centers(centers), 5)
    assert indices.tolist() == [[3, 1, 0, 2, 4]] * 3
    assert scores.tolist() == [[1, 4, np.inf, np.inf, np.inf]] * 3


@pytest.mark.parametrize("tile", TILES)
def test_bits_do_not_depend_on_tile_group_and_place(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x, centers = (rng.normal(size=(rows, 29)).astype(np.float32) for rows in (301, 170))
    expected = list_nearest(x, pack_centers(centers), 8)
    monkeypatch.setattr(nearest, "_choose_tile", lambda k, lanes: tile)
    monkeypatch.setattr("distclust.kernels.top.GROUP_BYTES", 1)
    packed, order = pack_centers(centers), rng.permutation(len(x))
    for a, b in zip(list_nearest(x[order], packed, 8), expected, strict=True):
        assert a.tobytes() == b[order].tobytes()


@pytest.mark.parametrize("m", [0, -1, 4])
def test_a_length_out_of_range_is_refused(m: int) -> None:
    with pytest.raises(ValueError, match=f"m is {m}; 1 to the number of centres, 3, is allowed"):
        list_nearest(np.zeros((2, 2)), pack_centers(np.ones((3, 2))), m)


def test_rows_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x is float64 .* float32 and shape \(any, 2\) is needed"):
        list_nearest(np.zeros((2, 2)), pack_centers(np.ones((3, 2), np.float32)), 1)
