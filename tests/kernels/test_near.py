"""Lists of near centres and rows compared with them, against plain numpy; the same bits on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels import screened as screening
from distclust.kernels._machine import machine
from distclust.kernels.heads import HeadAxes, head_axes, head_rows
from distclust.kernels.near import (
    LISTED,
    MOST_CENTERS,
    ListedCenters,
    assign_listed,
    list_near,
    listed_centers,
    nearest_roughly,
)
from distclust.kernels.nearest import PackedCenters, assign_nearest, distance_table, pack_centers
from distclust.kernels.rounded import MOST_LENGTH, MOST_WIDTH, RoundedRows, round_rows
from distclust.kernels.screened import LEAST_LISTED_WIDTH, ScreenedCenters, screen_centers
from tests.kernels.test_bounded import KINDS, rows_of
from tests.kernels.test_cache import processors
from tests.kernels.test_rounded import numpy_bytes, squares_of
from tests.kernels.test_screened import turned

ROOT = Path(__file__).resolve().parents[2]

CENTER_KINDS = [kind for kind in KINDS if kind not in ("tiny", "huge", "zeros")]
"""Centres of lengths that are rounded."""

LISTED_DIMS = (LEAST_LISTED_WIDTH, 31, 48, 49, 63, 64, 65, 384)


def rounded(
    centers: np.ndarray, packed: PackedCenters | None = None, head: HeadAxes | None = None
) -> tuple[PackedCenters, ScreenedCenters]:
    packed = pack_centers(centers) if packed is None else packed
    found = screen_centers(centers, packed, head, anywhere=True)
    assert found is not None
    return packed, found


def listed(centers: np.ndarray, head: HeadAxes | None = None) -> ListedCenters:
    return listed_centers(rounded(centers, head=head)[1])


def roughly(x: np.ndarray, found: ScreenedCenters, known: RoundedRows | None = None) -> tuple[np.ndarray, np.ndarray]:
    return nearest_roughly(x, found, listed_centers(found), known)


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return ``a * b + c`` of float32 arrays, rounded once."""
    product = a.astype(np.float64) * b.astype(np.float64)  # exact
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)
    # Rounded to odd: what is left of the sum then decides how float32 rounds it.
    even = total.view(np.int64) & 1 == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.where(error > 0, np.inf, -np.inf)), total)
    with np.errstate(over="ignore"):
        return np.asarray(total, np.float32)


def center_bytes(found: ScreenedCenters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what centres are rounded to, float64 [k, h], their steps and squared lengths as they are rounded."""
    k = found.packed.n_clusters
    whole = found.panels.transpose(0, 2, 1, 3).reshape(len(found.norms), -1)[:k, : found.width].astype(np.float64) - 128
    steps = found.floats[:, 0].reshape(-1)[:k]
    norms = steps * steps * (whole**2).sum(axis=1).astype(np.float32)
    if found.head is not None:
        tails = head_rows(found.rows, found.head)[1]
        norms = norms + (tails * tails).astype(np.float32)
    return whole, steps, norms


def byte_scores(x: np.ndarray, found: ScreenedCenters) -> np.ndarray:
    """Return the scores of all rows and centres, of both rounded to bytes."""
    turned_bytes, step = numpy_bytes(x, found.head)
    whole, steps, norms = center_bytes(found)
    products = (turned_bytes @ whole.T).astype(np.float32) * steps
    return fused(np.float32(-2) * step[:, None], products, norms[None])


def lowest_places(table: np.ndarray) -> np.ndarray:
    """Return the places of the 16 lowest scores of every row, the first among equals, in order."""
    return np.sort(np.argsort(table, axis=1, kind="stable")[:, :LISTED], axis=1)


def lowest_listed(table: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Return for every row the lowest of those on its list that have the lowest score of these."""
    chosen = lists.astype(np.intp)
    scores = np.take_along_axis(table, chosen, axis=1)
    tied = scores == scores.min(axis=1, keepdims=True)
    return np.asarray(np.where(tied, chosen, table.shape[1]).min(axis=1))


def check_roughly(x: np.ndarray, found: ScreenedCenters, known: RoundedRows | None = None) -> np.ndarray:
    """Check labels and squared distances of rows against numpy; return the labels."""
    # Squares of rows beyond the lengths that are rounded are no numbers in float32; their labels count all the same.
    beyond: Literal["ignore"] | None = "ignore" if np.abs(x).max(initial=0) > MOST_LENGTH else None
    with np.errstate(over=beyond, invalid=beyond):
        labels, sqdist = roughly(x, found, known)
    table = byte_scores(x, found)
    assert labels.dtype == np.int32
    assert sqdist.dtype == np.float32
    np.testing.assert_array_equal(labels, table.argmin(axis=1))

    (own, step), (whole, steps, norms) = numpy_bytes(x, found.head), center_bytes(found)
    squares = steps * steps * (whole**2).sum(axis=1).astype(np.float32)
    sure = (x.astype(np.float64) ** 2).sum(axis=1) < MOST_LENGTH**2
    with np.errstate(over=beyond, invalid=beyond):
        expected = np.maximum(table.min(axis=1) + squares_of(own, step) + (squares - norms)[labels], np.float32(0))
    assert sqdist[sure].tobytes() == expected[sure].tobytes()

    rows = own * step[:, None].astype(np.float64)
    away = ((rows - (whole * steps[:, None].astype(np.float64))[labels]) ** 2).sum(axis=1)
    lengths, centers = (rows**2).sum(axis=1), squares.astype(np.float64)[labels] + norms[labels]
    room = 2.0**-21 * (lengths + centers + np.sqrt(lengths * centers))
    assert (np.abs(sqdist - away) <= room)[sure].all()
    return labels


def lists_of(
    x: np.ndarray, packed: PackedCenters, found: ScreenedCenters | None, known: RoundedRows | None = None
) -> np.ndarray:
    """Return lists, and check the labels that come with them: those that the lists lead to."""
    labels = np.full(len(x), -9, np.int32)
    lists = list_near(x, packed, found, known, labels=labels)
    table = distance_table(x, packed) if found is None else byte_scores(x, found)
    np.testing.assert_array_equal(labels, table.argmin(axis=1))
    if found is not None:
        own = known or round_rows(x, found.head)
        np.testing.assert_array_equal(assign_listed(own, listed_centers(found), lists), labels)
    return lists


def check_lists(lists: np.ndarray, table: np.ndarray) -> int:
    """Check lists against a table of scores; return how many rows have no tie at the end of the list."""
    assert lists.shape == (len(table), LISTED)
    assert lists.dtype == np.uint16
    np.testing.assert_array_equal(lists, lowest_places(table))
    ordered = np.sort(table, axis=1)
    return int((ordered[:, LISTED - 1] < ordered[:, LISTED : LISTED + 1].min(axis=1, initial=np.inf)).sum())


class TestLists:
    @settings(max_examples=120)
    @given(
        kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(CENTER_KINDS)),
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 11, 12, 13, 97, 200]),
        d=st.sampled_from([48, 49, 63, 64, 65, 200]),
        k=st.sampled_from([64, 65, 96, 97, 300]),
        scales=st.tuples(st.sampled_from([1.0, 1e-3, 30.0, 1e-16, 1e16]), st.sampled_from([1.0, 1e-3, 30.0, 1e-13])),
    )
    def test_have_the_lowest_scores(
        self, kinds: tuple[str, str], seed: int, n: int, d: int, k: int, scales: tuple[float, float]
    ) -> None:
        rng = np.random.default_rng(seed)
        x = (rows_of(kinds[0], rng, n, d) * scales[0]).astype(np.float32)
        packed, found = rounded((rows_of(kinds[1], rng, k, d) * scales[1]).astype(np.float32))
        lists = list_near(x, packed, found)
        check_lists(lists, byte_scores(x, found))
        labels, known = check_roughly(x, found), round_rows(x)
        np.testing.assert_array_equal(list_near(x, packed, found, known), lists)
        np.testing.assert_array_equal(check_roughly(x, found, known), labels)
        np.testing.assert_array_equal(assign_listed(known, listed_centers(found), lists), labels)

    @settings(max_examples=80)
    @given(
        kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(CENTER_KINDS)),
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 12, 97, 200]),
        d=st.sampled_from([64, 65, 200]),
        h=st.sampled_from([1, 15, 16, 48]),
        k=st.sampled_from([64, 97, 300]),
        scales=st.tuples(st.sampled_from([1.0, 30.0, 1e-16, 1e16]), st.sampled_from([1.0, 1e-3, 1e-13])),
    )
    def test_have_the_lowest_scores_on_axes(
        self, kinds: tuple[str, str], seed: int, n: int, d: int, h: int, k: int, scales: tuple[float, float]
    ) -> None:
        rng = np.random.default_rng(seed)
        head = turned(rng, d, h)
        x = (rows_of(kinds[0], rng, n, d) * scales[0]).astype(np.float32)
        packed, found = rounded((rows_of(kinds[1], rng, k, d) * scales[1]).astype(np.float32), head=head)
        lists, labels = list_near(x, packed, found), check_roughly(x, found)
        check_lists(lists, byte_scores(x, found))
        known = round_rows(x, head)
        np.testing.assert_array_equal(list_near(x, packed, found, known), lists)
        np.testing.assert_array_equal(check_roughly(x, found, known), labels)
        np.testing.assert_array_equal(assign_listed(known, listed_centers(found), lists), labels)

    @pytest.mark.parametrize("k", [64, 65, 96, 97, 300, 4999])
    @pytest.mark.parametrize("h", [None, 16])
    def test_of_ordinary_rows_have_no_ties(self, k: int, h: int | None) -> None:
        rng = np.random.default_rng(k)
        x, centers = rng.normal(size=(61, 64)).astype(np.float32), rng.normal(size=(k, 64)).astype(np.float32)
        packed, found = rounded(centers, head=None if h is None else turned(rng, 64, h))
        assert check_lists(lists_of(x, packed, found), byte_scores(x, found)) > 55
        assert check_lists(lists_of(x, packed, None), distance_table(x, packed)) == 61

    def test_name_the_last_of_the_most_centres(self) -> None:
        rng = np.random.default_rng(0)
        centers = rng.random((MOST_CENTERS, 48), np.float32)
        packed, found = rounded(centers)
        x = centers[[0, 10_923, 32_767, 32_768, MOST_CENTERS - 1]]
        lists = list_near(x, packed, found)
        table = byte_scores(x, found)
        assert check_lists(lists, table) >= 4
        assert lists[-1, -1] == MOST_CENTERS - 1
        labels = check_roughly(x, found)
        assert labels.tolist() == [0, 10_923, 32_767, 32_768, MOST_CENTERS - 1]
        np.testing.assert_array_equal(assign_listed(round_rows(x), listed_centers(found), lists), labels)

    @pytest.mark.parametrize("h", [None, 16])
    @pytest.mark.parametrize("given_rows", [False, True])
    def test_of_more_rows_than_are_rounded_at_once(self, given_rows: bool, h: int | None) -> None:
        rng = np.random.default_rng(5)
        x, centers = (rng.normal(size=(m, 48)).astype(np.float32) for m in (4133, 64))
        packed, found = rounded(centers, head=None if h is None else turned(rng, 48, h))
        known = round_rows(x, found.head) if given_rows else None
        assert check_lists(lists_of(x, packed, found, known), byte_scores(x, found)) > 4000
        check_roughly(x, found, known)

    @pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 64), (1, 1, 64), (40, 5, 200), (4133, 2, 65)])
    def test_without_rounded_centres_have_the_lowest_scores_of_the_plain_kernel(self, n: int, d: int, k: int) -> None:
        rng = np.random.default_rng(n)
        x, centers = (rng.normal(size=(m, d)).astype(np.float32) for m in (n, k))
        packed = pack_centers(centers)
        assert check_lists(lists_of(x, packed, None), distance_table(x, packed)) >= 0.99 * n

    @pytest.mark.parametrize("h", [None, 16])
    def test_given_rounded_rows_decide(self, h: int | None) -> None:
        rng = np.random.default_rng(6)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (30, 90))
        packed, found = rounded(centers, head=None if h is None else turned(rng, 64, h))
        other = round_rows(x[::-1].copy(), found.head)
        np.testing.assert_array_equal(list_near(x, packed, found, other), list_near(x, packed, found)[::-1])
        for theirs, ours in zip(roughly(x, found, other), roughly(x, found), strict=True):
            np.testing.assert_array_equal(theirs, ours[::-1])

    @pytest.mark.parametrize("h", [None, 16])
    @pytest.mark.parametrize("kind", ["plain", "ties", "duplicates", "mixed"])
    def test_do_not_depend_on_the_place_of_a_row(self, h: int | None, kind: str) -> None:
        rng = np.random.default_rng(7)
        x, centers = (rows_of(kind, rng, m, 65).astype(np.float32) for m in (230, 97))
        packed, found = rounded(centers, head=None if h is None else turned(rng, 65, h))
        lists, (labels, sqdist) = list_near(x, packed, found), roughly(x, found)
        assert len(np.unique(lists, axis=0)) > 10
        order = rng.permutation(len(x))
        np.testing.assert_array_equal(list_near(x[order], packed, found), lists[order])
        others = roughly(x[order], found)
        np.testing.assert_array_equal(others[0], labels[order])
        assert others[1].tobytes() == sqdist[order].tobytes()
        for cut in (1, 12, 96, 101, 229):
            parts = x[:cut], x[cut:]
            np.testing.assert_array_equal(np.concatenate([list_near(part, packed, found) for part in parts]), lists)
            both = [np.concatenate(part) for part in zip(*(roughly(part, found) for part in parts), strict=True)]
            np.testing.assert_array_equal(both[0], labels)
            assert both[1].tobytes() == sqdist.tobytes()

    @pytest.mark.parametrize("k", [63, MOST_CENTERS + 1])
    def test_of_too_few_or_too_many_centres_are_refused(self, k: int) -> None:
        packed = pack_centers(np.ones((k, 1), np.float32))
        with pytest.raises(ValueError, match=rf"^there are {k} centres; lists are made of 64 to 65536\.$"):
            list_near(np.ones((1, 1), np.float32), packed, None)

    def test_other_arrays_are_refused(self) -> None:
        rng = np.random.default_rng(8)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (9, 70))
        packed, found = rounded(centers, head=turned(rng, 64, 16))
        given = round_rows(x, found.head)

        def lists(x: np.ndarray, known: RoundedRows | None = None) -> np.ndarray:
            return list_near(x, packed, found, known)

        def rough(x: np.ndarray, known: RoundedRows | None = None) -> np.ndarray:
            return roughly(x, found, known)[0]

        def plain(x: np.ndarray, known: RoundedRows | None = None) -> np.ndarray:
            return list_near(x, packed, None, known)

        for function in (lists, rough, plain):
            with pytest.raises(ValueError, match=r"^x is float64 of shape \(9, 64\).*float32 and shape \(any, 64\)"):
                function(x.astype(np.float64))
            with pytest.raises(ValueError, match=r"^x is float32 of shape \(9, 63\).*float32 and shape \(any, 64\)"):
                function(np.ascontiguousarray(x[:, 1:]))
            with pytest.raises(ValueError, match=r"^x is .*not C-contiguous"):
                function(x[:, ::-1])
        for function in (lists, rough):
            with pytest.raises(ValueError, match=r"^rounded is int8 of shape \(8, 64\).*shape \(9, 64\) is needed"):
                function(x, given.first(8))
            with pytest.raises(ValueError, match=r"^rounded is int8 of shape \(9, 128\).*shape \(9, 64\) is needed"):
                function(x, given._replace(values=np.zeros((9, 128), np.int8)))
            with pytest.raises(ValueError, match=r"^rounded is uint8 of shape \(9, 64\).*int8 and shape \(9, 64\)"):
                function(x, given._replace(values=given.values.view(np.uint8)))
            with pytest.raises(ValueError, match=r"^rounded is float32 of shape \(8, 6\).*shape \(9, 6\) is needed"):
                function(x, given._replace(floats=given.floats[1:]))
            with pytest.raises(ValueError, match=r"^rounded is float64 of shape \(9, 6\).*float32 and shape \(9, 6\)"):
                function(x, given._replace(floats=given.floats.astype(np.float64)))


class TestTies:
    """Among equals at the end of a list the lowest are on it, also where more centres than 16 are nearest."""

    def test_of_more_than_16_nearest_centres(self) -> None:
        for seed in range(100):
            rng = np.random.default_rng(seed)
            centers = rng.normal(size=(80, 48)).astype(np.float32)
            same = rng.permutation(80)[:17]
            centers[same] = centers[same[0]]
            packed, found = rounded(centers)
            x = centers[same[:1]]
            check_lists(lists_of(x, packed, found), byte_scores(x, found))

    def test_of_the_last_on_a_list(self) -> None:
        rng = np.random.default_rng(1)
        centers = rng.normal(size=(120, 48)).astype(np.float32)
        centers[60:] = centers[:60]
        centers[7] *= 0.5  # an odd number of centres is nearer than some pair
        packed, found = rounded(centers)
        x = rng.normal(size=(200, 48)).astype(np.float32)
        table = byte_scores(x, found)
        ordered = np.sort(table, axis=1)
        assert (ordered[:, LISTED - 1] == ordered[:, LISTED]).sum() > 20
        check_lists(lists_of(x, packed, found), table)

    @pytest.mark.parametrize("x", [np.zeros((3, 48), np.float32), np.ones((3, 48), np.float32)])
    def test_of_all_centres(self, x: np.ndarray) -> None:
        packed, found = rounded(np.ones((97, 48), np.float32))
        check_lists(lists_of(x, packed, found), byte_scores(x, found))
        assert check_roughly(x, found).tolist() == [0, 0, 0]

    def test_without_rounded_centres(self) -> None:
        rng = np.random.default_rng(2)
        x, centers = (rng.integers(-2, 3, (m, 3)).astype(np.float32) for m in (90, 200))
        packed = pack_centers(centers)
        assert check_lists(lists_of(x, packed, None), distance_table(x, packed)) < 80


class TestRoughly:
    def test_well_separated_rows_get_the_nearest_centre(self) -> None:
        rng = np.random.default_rng(3)
        centers = rng.normal(size=(200, 64)).astype(np.float32)
        own = rng.integers(0, 200, 900)
        x = (centers[own] + 0.05 * rng.normal(size=(900, 64))).astype(np.float32)
        packed, found = rounded(centers)
        labels = check_roughly(x, found)
        np.testing.assert_array_equal(labels, own)
        np.testing.assert_array_equal(labels, assign_nearest(x, packed)[0])

    def test_squared_distances_are_nearly_right(self) -> None:
        rng = np.random.default_rng(8)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (500, 100))
        labels, sqdist = roughly(x, rounded(centers)[1])
        exact = ((x.astype(np.float64)[:, None] - centers[None]) ** 2).sum(axis=-1)
        assert sqdist == pytest.approx(exact[np.arange(500), labels], rel=0.02)
        assert sqdist == pytest.approx(exact.min(axis=1), rel=0.02)

    @pytest.mark.parametrize("h", [None, 16])
    @pytest.mark.parametrize("kind", CENTER_KINDS)
    def test_a_row_is_at_no_distance_from_itself(self, kind: str, h: int | None) -> None:
        rng = np.random.default_rng(9)
        x = rows_of(kind, rng, 60, 64).astype(np.float32)
        head = None if h is None else turned(rng, 64, h)
        lengths = (x.astype(np.float64) ** 2).sum(axis=1)
        seen = 0
        for row, length in zip(x, lengths, strict=True):
            if length > 1e-29:
                labels, sqdist = roughly(row[None], rounded(row[None], head=head)[1])
                assert labels.tolist() == [0]
                assert 0 <= sqdist[0] <= 2.0**-20 * length
                seen += 1
        assert seen > 20

    def test_the_lowest_of_equal_centres_is_the_label(self) -> None:
        rng = np.random.default_rng(4)
        half = rng.normal(size=(75, 50)).astype(np.float32)
        _, found = rounded(np.concatenate([half, half[::-1]]))
        assert check_roughly(rng.normal(size=(300, 50)).astype(np.float32), found).max() < 75

    @settings(max_examples=80)
    @given(
        kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(["plain", "clusters", "offset", "line"])),
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 12, 97]),
        d=st.sampled_from([48, 65]),
        k=st.sampled_from([1, 2, 15, 16, 31, 32, 33, 63]),
        h=st.sampled_from([None, 17]),
    )
    def test_few_centres_will_do(
        self, kinds: tuple[str, str], seed: int, n: int, d: int, k: int, h: int | None
    ) -> None:
        rng = np.random.default_rng(seed)
        x, centers = (rows_of(kind, rng, m, d).astype(np.float32) for kind, m in zip(kinds, (n, k), strict=True))
        found = rounded(centers, head=None if h is None else turned(rng, d, h))[1]
        labels = check_roughly(x, found)
        np.testing.assert_array_equal(check_roughly(x, found, round_rows(x, found.head)), labels)

    def test_rows_of_any_length_have_a_label(self) -> None:
        rng = np.random.default_rng(10)
        x = (rng.normal(size=(200, 50)) * 10.0 ** rng.integers(-40, 17, (200, 1))).astype(np.float32)
        check_roughly(x, rounded(rng.normal(size=(70, 50)).astype(np.float32))[1])

    def test_the_widest_rows(self) -> None:
        x = np.ones((3, MOST_WIDTH), np.float32)
        x[1] = -1
        x[2] = np.random.default_rng(11).uniform(-1, 1, MOST_WIDTH)
        centers = np.concatenate([np.float32(0.5) * x[:2], x])
        found = rounded(centers)[1]
        labels = check_roughly(x, found)
        assert labels.tolist() == [2, 3, 4]
        lists = np.tile(np.arange(LISTED, dtype=np.uint16) % 5, (3, 1))
        np.testing.assert_array_equal(assign_listed(round_rows(x), listed_centers(found), lists), labels)


class TestRoundedCentres:
    @pytest.mark.parametrize("kind", CENTER_KINDS)
    def test_are_within_half_a_step(self, kind: str) -> None:
        rng = np.random.default_rng(6)
        centers = rows_of(kind, rng, 97, 66).astype(np.float32)
        _, found = rounded(centers)
        whole = found.panels.transpose(0, 2, 1, 3).reshape(128, 68)[:97].astype(np.float64) - 128
        steps = found.floats[:, 0].reshape(-1)[:97].astype(np.float64)
        off = np.abs(whole[:, :66] * steps[:, None] - centers)
        known = steps > 0
        assert known.sum() > 20
        assert (off[known] <= steps[known, None] * (0.5 + 1e-4)).all()
        assert (np.abs(whole[known]).max(axis=1) == 127).all()
        assert (np.sqrt((centers[~known].astype(np.float64) ** 2).sum(axis=1)) < 1e-15).all()

    def test_are_the_same_where_a_screen_is_slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        centers = np.random.default_rng(7).normal(size=(70, 64)).astype(np.float32)
        packed, expected = rounded(centers)
        for fast in (True, False):
            monkeypatch.setattr(screening, "machine", lambda fast=fast: machine()._replace(byte_products=fast))
            assert (screen_centers(centers, packed) is not None) == fast
            _, found = rounded(centers, packed)
            assert found.panels.tobytes() == expected.panels.tobytes()
            assert found.floats.tobytes() == expected.floats.tobytes()

    @pytest.mark.parametrize(("k", "lanes"), [(1, 64), (31, 64), (64, 64), (65, 96), (97, 128)])
    def test_are_in_64_lanes_at_least(self, k: int, lanes: int) -> None:
        _, found = rounded(np.random.default_rng(k).normal(size=(k, 50)).astype(np.float32))
        assert found.panels.shape[0] * found.panels.shape[2] == len(found.norms) == lanes
        assert np.isfinite(found.norms[:k]).all()
        assert np.isinf(found.norms[k:]).all()
        assert (found.panels.transpose(0, 2, 1, 3).reshape(lanes, -1)[k:] == 128).all()

    @pytest.mark.parametrize(
        ("k", "d", "dtype", "scale"),
        [
            (0, 64, "float32", 1),
            (3, LEAST_LISTED_WIDTH - 1, "float32", 1),
            (3, MOST_WIDTH + 1, "float32", 1),
            (3, 64, "float64", 1),
            (3, 64, "float32", 0),
            (3, 64, "float32", 1e-17),
            (3, 64, "float32", 1e15),
        ],
    )
    def test_are_none_where_bytes_will_not_do(self, k: int, d: int, dtype: str, scale: float) -> None:
        centers = (np.ones((k, d)) * scale).astype(dtype)
        packed = pack_centers(np.ones((1, d), dtype)) if k == 0 else pack_centers(centers)
        assert screen_centers(centers, packed, anywhere=True) is None

    @pytest.mark.parametrize("h", [None, 1, 17, 48])
    @pytest.mark.parametrize(("k", "d"), [(1, 48), (20, 65), (70, 130)])
    def test_are_the_same_one_after_the_other(self, k: int, d: int, h: int | None) -> None:
        rng = np.random.default_rng([k, d])
        centers = rng.normal(size=(k, d)).astype(np.float32)
        found = rounded(centers, head=None if h is None else turned(rng, d, h))[1]
        own, (whole, steps, norms) = listed_centers(found), center_bytes(found)
        assert own.width == (d if h is None else h) == whole.shape[1]
        assert own.values.shape == (k, -(-own.width // 64) * 64)
        np.testing.assert_array_equal(own.values[:, : own.width].astype(np.float64) - 128, whole)
        np.testing.assert_array_equal(own.steps, steps)
        np.testing.assert_array_equal(own.norms, norms)
        exact = ((whole * steps[:, None].astype(np.float64)) ** 2).sum(axis=1)
        assert own.squares == pytest.approx(exact, rel=2.0**-21)


class TestListed:
    @settings(max_examples=200)
    @given(
        kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(CENTER_KINDS)),
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 13, 300]),
        d=st.sampled_from(LISTED_DIMS),
        h=st.sampled_from([None, 1, 15, 16, 48]),
        k=st.sampled_from([1, 16, 20, 300]),
        scales=st.tuples(st.sampled_from([1.0, 1e-3, 30.0, 1e-16, 1e16]), st.sampled_from([1.0, 1e-3, 30.0, 1e-13])),
    )
    def test_the_label_has_the_lowest_score_on_the_list(
        self, kinds: tuple[str, str], seed: int, n: int, d: int, h: int | None, k: int, scales: tuple[float, float]
    ) -> None:
        rng = np.random.default_rng(seed)
        x = (rows_of(kinds[0], rng, n, d) * scales[0]).astype(np.float32)
        centers = (rows_of(kinds[1], rng, k, d) * scales[1]).astype(np.float32)
        centers[0] = rng.normal(size=d)  # one at least is long enough
        found = rounded(centers, head=None if h is None else turned(rng, d, h))[1]
        lists = rng.integers(0, k, (n, LISTED)).astype(np.uint16)  # with repetitions
        labels = assign_listed(round_rows(x, found.head), listed_centers(found), lists)
        assert labels.shape == (n,)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, lowest_listed(byte_scores(x, found), lists))

    @pytest.mark.parametrize("d", LISTED_DIMS)
    @pytest.mark.parametrize("n", [0, 1, 13, 700])
    def test_whole_numbers_are_exact(self, n: int, d: int) -> None:
        rng = np.random.default_rng([n, d])
        x, centers = (rng.integers(-127, 128, (m, d)) for m in (n, 60))
        x[:, 3], centers[:, 5] = 127, -127  # a step is 1
        centers[30:] = centers[rng.integers(0, 30, 30)]
        norms = (centers**2).sum(axis=1)
        lists = rng.integers(0, 60, (n, LISTED))  # with repetitions
        scores = norms[lists] - 2 * (x @ centers.T)[np.arange(n)[:, None], lists]
        assert np.abs(scores).max(initial=0) < 1 << 24
        tied = scores == scores.min(axis=1, keepdims=True)
        expected = np.where(tied, lists, 60).min(axis=1)
        if n == 700:
            nearest = np.where(tied, lists, -1).max(axis=1)
            assert (nearest > expected).sum() > 20, "equal centres are to be met"
        labels = assign_listed(
            round_rows(x.astype(np.float32)), listed(centers.astype(np.float32)), lists.astype(np.uint16)
        )
        np.testing.assert_array_equal(labels, expected)

    @pytest.mark.parametrize("d", LISTED_DIMS)
    def test_every_dimension_counts_once(self, d: int) -> None:
        # Row i is nearest to centre i by one column alone; norms are equal. All steps are 1.
        x = 127 * np.eye(d, dtype=np.float32)
        lists = (np.arange(d)[:, None] - np.arange(LISTED)) % d
        centers = np.full((d, d), 126, np.float32) + np.eye(d, dtype=np.float32)
        labels = assign_listed(round_rows(x), listed(centers), lists.astype(np.uint16))
        assert labels.tolist() == list(range(d))
        # The sum of all columns decides against a norm: once too few or too many, and the other centre is the label.
        row, twins = np.full((1, d), 127, np.float32), np.zeros((LISTED, d), np.float32)
        twins[1] = 127
        every = np.arange(LISTED, dtype=np.uint16)[None]
        for more, label in ((-1, 1), (0, 0), (1, 0)):
            norms = np.full(LISTED, 1e6, np.float32)
            norms[:2] = 0, 2 * 127**2 * d + more
            assert assign_listed(round_rows(row), listed(twins)._replace(norms=norms), every).tolist() == [label]

    @pytest.mark.parametrize("slot", range(LISTED))
    def test_every_slot_counts(self, slot: int) -> None:
        rng = np.random.default_rng(slot)
        centers = rng.normal(size=(40, 65)).astype(np.float32)
        lists = np.tile(np.arange(20, 20 + LISTED, dtype=np.uint16), (20, 1))
        lists[:, slot] = np.arange(20)
        assert assign_listed(round_rows(centers[:20]), listed(centers), lists).tolist() == list(range(20))

    @pytest.mark.parametrize("d", LISTED_DIMS)
    def test_equal_centres_tie_in_every_slot(self, d: int) -> None:
        rng = np.random.default_rng(d)
        half = rng.normal(size=(8, d)).astype(np.float32)
        x = rng.normal(size=(400, d)).astype(np.float32)
        lists = rng.permuted(np.tile(np.arange(16, dtype=np.uint16), (400, 1)), axis=1)
        labels = assign_listed(round_rows(x), listed(np.concatenate([half, half])), lists)
        assert labels.max() < 8
        assert len(np.unique(labels)) == 8

    @pytest.mark.parametrize("d", [48, 65, 130])
    def test_do_not_depend_on_the_place_of_a_row(self, d: int) -> None:
        rng = np.random.default_rng(d)
        base = rng.normal(size=d)
        centers = listed((base + 1e-6 * rng.normal(size=(50, d))).astype(np.float32))  # near ties
        rows = round_rows(rng.normal(size=(300, d)).astype(np.float32))
        lists = rng.integers(0, 50, (300, LISTED)).astype(np.uint16)
        labels = assign_listed(rows, centers, lists)
        order = rng.permutation(300)
        moved = RoundedRows(rows.values[order], rows.floats[order])
        np.testing.assert_array_equal(assign_listed(moved, centers, lists[order]), labels[order])
        rest = RoundedRows(rows.values[101:], rows.floats[101:])
        np.testing.assert_array_equal(assign_listed(rest, centers, lists[101:]), labels[101:])

    def test_a_full_list_gives_nearly_always_the_nearest_of_all(self) -> None:
        rng = np.random.default_rng(9)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (500, 100))
        packed, found = rounded(centers)
        labels = assign_listed(round_rows(x), listed_centers(found), list_near(x, packed, found))
        np.testing.assert_array_equal(labels, roughly(x, found)[0])
        assert (labels == assign_nearest(x, packed)[0]).mean() > 0.97

    def test_lists_serve_later_centres(self) -> None:
        rng = np.random.default_rng(12)
        centers = rng.normal(size=(100, 64)).astype(np.float32)
        packed, found = rounded(centers)
        x = (centers[rng.integers(0, 100, 500)] + 0.3 * rng.normal(size=(500, 64))).astype(np.float32)
        lists = list_near(x, packed, found)
        later = (centers + 0.1 * rng.normal(size=centers.shape)).astype(np.float32)
        labels = assign_listed(round_rows(x), listed(later), lists)
        np.testing.assert_array_equal(labels, lowest_listed(byte_scores(x, rounded(later)[1]), lists))
        assert (labels == assign_nearest(x, pack_centers(later))[0]).mean() > 0.97

    def test_what_is_beyond_the_width_does_not_matter(self) -> None:
        rng = np.random.default_rng(13)
        x, centers = (rng.normal(size=(m, 49)).astype(np.float32) for m in (200, 30))
        own, lists = listed(centers), rng.integers(0, 30, (200, LISTED)).astype(np.uint16)
        labels = assign_listed(round_rows(x), own, lists)
        own.values[:, 49:] = rng.integers(0, 256, (30, 15))
        np.testing.assert_array_equal(assign_listed(round_rows(x), own, lists), labels)

    def test_centres_that_are_not_there_are_refused(self) -> None:
        centers, rows = listed(np.ones((20, 48), np.float32)), round_rows(np.ones((5, 48), np.float32))
        for row, slot, number in ((0, 0, 20), (4, 15, 20), (2, 7, 65_535)):
            lists = np.full((5, LISTED), 19, np.uint16)
            assert assign_listed(rows, centers, lists).tolist() == [19] * 5
            lists[row, slot] = number
            with pytest.raises(ValueError, match=r"^lists name centres beyond the 20 that there are\.$"):
                assign_listed(rows, centers, lists)

    def test_other_arrays_are_refused(self) -> None:
        centers, rows = listed(np.ones((20, 48), np.float32)), round_rows(np.ones((5, 48), np.float32))
        lists = np.zeros((5, LISTED), np.uint16)
        for wrong, message in (
            (rows.first(4), r"^rounded is int8 of shape \(4, 64\).*int8 and shape \(5, 64\) is needed"),
            (round_rows(np.ones((5, 65), np.float32)), r"^rounded is int8 of shape \(5, 128\).*shape \(5, 64\)"),
            (rows._replace(values=rows.values.view(np.uint8)), r"^rounded is uint8 of shape \(5, 64\)"),
            (rows._replace(values=rows.values[:, ::-1]), r"^rounded is int8.*not C-contiguous"),
            (rows._replace(floats=rows.floats[1:]), r"^rounded is float32 of shape \(4, 6\).*shape \(5, 6\) is needed"),
            (rows._replace(floats=rows.floats.astype(np.float64)), r"^rounded is float64 of shape \(5, 6\)"),
        ):
            with pytest.raises(ValueError, match=message):
                assign_listed(wrong, centers, lists)
        for other, message in (
            ({"values": centers.values[1:]}, r"^centers is uint8 of shape \(19, 64\).*shape \(20, 64\) is needed"),
            ({"values": centers.values.view(np.int8)}, r"^centers is int8 of shape \(20, 64\).*uint8"),
            ({"values": np.zeros((20, 128), np.uint8)}, r"^centers is uint8 of shape \(20, 128\)"),
            ({"values": centers.values.reshape(-1)}, r"^centers is uint8 of shape \(1280,\)"),
            ({"norms": centers.norms[1:]}, r"^centers is float32 of shape \(19,\).*shape \(20\) is needed"),
            ({"norms": centers.norms.astype(np.float64)}, r"^centers is float64 of shape \(20,\)"),
            ({"steps": centers.steps.astype(np.float64)}, r"^centers is float64 of shape \(20,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                assign_listed(rows, centers._replace(**other), lists)
        with pytest.raises(ValueError, match=r"^lists is int32 of shape \(5, 16\).*uint16 and shape \(5, 16\)"):
            assign_listed(rows, centers, lists.astype(np.int32))
        with pytest.raises(ValueError, match=r"^lists is uint16 of shape \(5, 15\).*shape \(5, 16\) is needed"):
            assign_listed(rows, centers, np.ascontiguousarray(lists[:, 1:]))
        with pytest.raises(ValueError, match=r"^lists is uint16 .*not C-contiguous"):
            assign_listed(rows, centers, lists[:, ::-1])


def reflected(values: np.ndarray, h: int) -> HeadAxes:
    """Return h columns of a reflection: axes that need no routine of numpy's whose last bits depend on the machine."""
    length = math.fsum((values**2).tolist())
    found = head_axes((np.eye(len(values)) - np.outer(values, values) * (2 / length))[:, :h])
    assert found is not None
    return found


def digests() -> dict[str, str]:
    """Digest what the kernels give on fixed rows."""
    rng = np.random.default_rng(0)
    found: dict[str, str] = {}

    def note(what: str, *arrays: np.ndarray) -> None:
        found[what] = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    k = 97
    for d in (31, 65, 200):
        # Not normal variates: those pass through a machine's own logarithm.
        x, centers = (rng.random((n, d), np.float32) * 2 - 1 for n in (150, k))
        centers[50:60] = centers[40:50]
        x[100:120] = centers[:20] + x[100:120] * np.float32(1e-6)
        for h in (None, 24):
            head = None if h is None else reflected(rng.random(d), h)
            name = f"of d={d}, h={h}"
            packed, rough = rounded(centers, head=head)
            lists, known = list_near(x, packed, rough), round_rows(x, head)
            note(f"rounded centres {name}", rough.panels, rough.floats)
            note(f"rounded rows {name}", *known)
            note(f"lists {name}", lists)
            note(f"lists of known rows {name}", list_near(x, packed, rough, known))
            note(f"rough labels and squared distances {name}", *roughly(x, rough))
            note(f"rough nearest of few {name}", *roughly(x, rounded(centers[:20], head=head)[1], known))
            if head is not None:
                note(f"heads {name}", head_rows(x, head).heads, head_rows(centers, head).heads)
            # Under other centres than those that the lists were made of, some of them near ties.
            later = np.ascontiguousarray(centers[::-1]) * np.float32(1.01)
            later[1::2] = later[::2][: k // 2] * (1 + np.float32(2.0**-22))
            after = listed(later, head)
            note(f"listed centres {name}", after.values, after.steps, after.norms, after.squares)
            note(f"listed labels {name}", assign_listed(known, after, lists))
        note(f"plain lists of d={d}", list_near(x[:50], packed, None))
    return found


@pytest.mark.parametrize("processor", processors(), ids=lambda processor: processor["NUMBA_CPU_NAME"])
def test_other_processors_give_the_same_bits(processor: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import json; from distclust.kernels._machine import machine; from tests.kernels.test_near import digests;"
        "print(json.dumps([machine(), digests()]))"
    )
    environment = os.environ | {"DISTCLUST_KERNEL_CACHE": str(tmp_path)} | processor
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    other, theirs = json.loads(found.stdout)
    assert other[0] == processor["NUMBA_CPU_NAME"]
    assert not other[machine()._fields.index("byte_products")]
    ours = digests()
    assert len(set(ours.values())) == len(ours) - 6, "but for lists of rows that are known or not, all are different"
    assert theirs == ours
