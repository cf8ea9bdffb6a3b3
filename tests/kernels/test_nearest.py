"""Brute-force distances against naive twins: right, position-free and the same bits for every tile."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels import nearest
from distclust.kernels._machine import machine
from distclust.kernels.nearest import assign_nearest, distance_table, has_fma, pack_centers
from tests.kernels import oracles

DTYPES = ("float32", "float64")
TILES = sorted(nearest._WIDE_TILES | nearest._NARROW_TILES)
ROWS = (0, 1, 5, 6, 7, 8, 9, 11, 12, 13, 47, 48, 49, 200)
CENTERS = (1, 2, 15, 16, 17, 31, 32, 33, 100)
DIMS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 384, 1024, 1025)


def random_case(n: int, d: int, k: int, dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n, d, k])
    return rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(k, d)).astype(dtype)


def check(x: np.ndarray, centers: np.ndarray) -> None:
    packed = pack_centers(centers)
    table = distance_table(x, packed)
    labels, scores = assign_nearest(x, packed)
    expected, bound = oracles.scores(x, centers)
    assert table.shape == (len(x), len(centers))
    assert table.dtype == scores.dtype == x.dtype
    assert labels.dtype == np.int32
    assert (np.abs(table - expected) <= bound).all()
    best, lowest = oracles.nearest(table)
    np.testing.assert_array_equal(labels, best)
    np.testing.assert_array_equal(scores, lowest)


@pytest.mark.parametrize("dtype", DTYPES)
class TestShapes:
    @pytest.mark.parametrize("n", ROWS)
    def test_rows(self, n: int, dtype: str) -> None:
        check(*random_case(n, 19, 33, dtype))

    @pytest.mark.parametrize("k", CENTERS)
    def test_centers(self, k: int, dtype: str) -> None:
        check(*random_case(23, 6, k, dtype))

    @pytest.mark.parametrize("d", DIMS)
    def test_dimensions(self, d: int, dtype: str) -> None:
        check(*random_case(14, d, 35, dtype))

    def test_many_blocks_and_groups_of_panels(self, dtype: str) -> None:
        check(*random_case(3001, 40, 200, dtype))

    def test_no_rows_give_empty_results(self, dtype: str) -> None:
        labels, scores = assign_nearest(np.empty((0, 3), dtype), pack_centers(np.ones((2, 3), dtype)))
        assert labels.shape == scores.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
class TestBits:
    def test_every_step_is_one_fused_multiply_add(self, dtype: str) -> None:
        x, centers = random_case(9, 11, 18, dtype)
        x[0] *= 1e-20
        centers[3] *= 1e4
        table = distance_table(x, pack_centers(centers))
        np.testing.assert_array_equal(table, oracles.exact_scores(x, centers))

    @pytest.mark.parametrize("tile", TILES)
    def test_do_not_depend_on_the_tile(
        self, tile: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x, centers = random_case(101, 29, 50, dtype)
        table = distance_table(x, pack_centers(centers))
        labels, scores = assign_nearest(x, pack_centers(centers))
        monkeypatch.setattr(nearest, "_choose_tile", lambda k, lanes: tile)
        packed = pack_centers(centers)
        assert packed.tile == tile
        assert distance_table(x, packed).tobytes() == table.tobytes()
        again = assign_nearest(x, packed)
        assert again[0].tobytes() == labels.tobytes()
        assert again[1].tobytes() == scores.tobytes()

    def test_do_not_depend_on_the_place_of_a_row(self, dtype: str) -> None:
        x, centers = random_case(60, 21, 20, dtype)
        packed = pack_centers(centers)
        labels, scores = assign_nearest(x, packed)
        table = distance_table(x, packed)
        order = np.random.default_rng(3).permutation(len(x))
        moved = assign_nearest(x[order], packed)
        assert moved[0].tobytes() == labels[order].tobytes()
        assert moved[1].tobytes() == scores[order].tobytes()
        for at in range(len(x)):
            assert assign_nearest(x[at : at + 1], packed)[1][0] == scores[at]
            assert distance_table(x[at : at + 1], packed).tobytes() == table[at].tobytes()

    def test_do_not_depend_on_the_group_of_panels(self, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
        x, centers = random_case(400, 12, 170, dtype)
        packed = pack_centers(centers)
        labels, scores = assign_nearest(x, packed)
        for size in (1, 5000, 10**9):
            monkeypatch.setattr(nearest, "GROUP_BYTES", size)
            again = assign_nearest(x, packed)
            assert again[0].tobytes() == labels.tobytes()
            assert again[1].tobytes() == scores.tobytes()

    def test_do_not_depend_on_padding(self, dtype: str) -> None:
        x, centers = random_case(20, 8, 64, dtype)
        table = distance_table(x, pack_centers(centers))
        for k in (1, 16, 17, 40):
            assert distance_table(x, pack_centers(centers[:k])).tobytes() == table[:, :k].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
class TestAdversaries:
    @pytest.mark.parametrize("k", [2, 17, 33, 70])
    def test_lowest_index_wins_among_equals(self, k: int, dtype: str) -> None:
        x, centers = random_case(50, 5, k, dtype)
        labels, _ = assign_nearest(x, pack_centers(np.concatenate([centers, centers[::-1]])))
        np.testing.assert_array_equal(labels, assign_nearest(x, pack_centers(centers))[0])

    def test_all_centers_equal(self, dtype: str) -> None:
        x, _ = random_case(30, 4, 1, dtype)
        labels, _ = assign_nearest(x, pack_centers(np.ones((90, 4), dtype)))
        assert (labels == 0).all()

    def test_tie_between_lanes_in_falling_order(self, dtype: str) -> None:
        centers = np.full((40, 1), 5, dtype)
        for place in ((39, 3), (20, 19), (16, 15), (32, 0)):
            tied = centers.copy()
            tied[list(place)] = 1
            labels, _ = assign_nearest(np.full((13, 1), 1, dtype), pack_centers(tied))
            assert (labels == min(place)).all()

    def test_rows_that_are_centers(self, dtype: str) -> None:
        _, centers = random_case(1, 24, 90, dtype)
        labels, _ = assign_nearest(centers, pack_centers(centers))
        np.testing.assert_array_equal(labels, np.arange(90))

    def test_denormals(self, dtype: str) -> None:
        x, centers = random_case(30, 9, 20, dtype)
        tiny = np.finfo(dtype).smallest_subnormal
        check((x * 100).round().astype(dtype) * tiny, centers)
        check(x, (centers * 100).round().astype(dtype) * tiny)

    def test_huge_offset(self, dtype: str) -> None:
        x, centers = random_case(30, 9, 20, dtype)
        offset = np.asarray(1e7, dtype)
        check(x + offset, centers + offset)

    def test_huge_values_below_overflow(self, dtype: str) -> None:
        x, centers = random_case(30, 4, 20, dtype)
        factor = np.asarray(np.sqrt(np.finfo(dtype).max) / 100, dtype)
        check(x * factor, centers * factor)

    def test_center_of_infinite_norm_is_never_nearest(self, dtype: str) -> None:
        centers = np.asarray([[np.finfo(dtype).max / 2, 0], [1, 0]], dtype)
        labels, scores = assign_nearest(np.zeros((7, 2), dtype), pack_centers(centers))
        assert (labels == 1).all()
        assert (scores == 1).all()


def test_signed_zeros_tie() -> None:
    centers = np.asarray([[0.0], [-0.0]], np.float32)
    assert assign_nearest(np.asarray([[-1.0], [1.0]], np.float32), pack_centers(centers))[0].tolist() == [0, 0]


def test_packed_centers_pad_with_what_is_never_nearest() -> None:
    packed = pack_centers(np.ones((5, 3), np.float32))
    assert (packed.n_clusters, packed.n_dims) == (5, 3)
    assert packed.panels.shape[1] == 3
    assert packed.panels.ctypes.data % 64 == 0
    assert (packed.norms[:5] == 3).all()
    assert np.isinf(packed.norms[5:]).all()


def test_narrow_tile_serves_few_centers_and_wide_tile_many() -> None:
    few, many = pack_centers(np.ones((16, 2), np.float32)), pack_centers(np.ones((1000, 2), np.float32))
    if machine().wide:
        assert (few.tile, many.tile) == ((12, 1), (8, 2))
    else:
        assert (few.tile, many.tile) == ((6, 1), (6, 1))


def test_read_only_rows_need_no_other_compilation() -> None:
    x, centers = random_case(10, 3, 4, "float32")
    packed = pack_centers(centers)
    kernel = nearest._assign_kernel("float32", packed.tile)
    expected = assign_nearest(x, packed)[0]
    x.flags.writeable = False
    np.testing.assert_array_equal(assign_nearest(x, packed)[0], expected)
    assert len(kernel.signatures) == 1


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (np.ones((4, 3), np.float64), "float64"),
        (np.ones((4, 2), np.float32), r"\(4, 2\)"),
        (np.ones((3, 4), np.float32).T, "not C-contiguous"),
        (np.ones(3, np.float32), r"\(3,\)"),
    ],
)
def test_rows_of_another_kind_are_refused(rows: np.ndarray, found: str) -> None:
    packed = pack_centers(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=f"x is .*{found}.*float32 and shape \\(any, 3\\) is needed"):
        assign_nearest(rows, packed)


@pytest.mark.parametrize("centers", [np.empty((0, 3)), np.empty((3, 0)), np.ones((2, 2), np.int64), np.ones(3)])
def test_centers_of_another_kind_are_refused(centers: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"centers .* is needed"):
        pack_centers(centers)


def test_centers_of_any_layout_are_packed_alike() -> None:
    _, centers = random_case(0, 6, 9, "float32")
    for layout in (np.asfortranarray(centers), np.repeat(centers, 2, axis=1)[:, ::2]):
        assert pack_centers(layout).panels.tobytes() == pack_centers(centers).panels.tobytes()


def test_fma_flag_is_known() -> None:
    assert has_fma() in (True, False)
