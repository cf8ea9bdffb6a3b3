"""Lists of near centres and rows compared with them, against plain numpy; the same bits on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.kernels import screened as screening
from distclust.kernels._machine import machine
from distclust.kernels.heads import HeadAxes, head_axes, head_rows
from distclust.kernels.near import LISTED, MOST_CENTERS, assign_listed, list_near, nearest_roughly
from distclust.kernels.nearest import PackedCenters, assign_nearest, distance_table, pack_centers
from distclust.kernels.screened import ScreenedCenters, screen_centers
from tests.kernels.test_bounded import KINDS, rows_of
from tests.kernels.test_cache import processors
from tests.kernels.test_screened import turned

ROOT = Path(__file__).resolve().parents[2]

CENTER_KINDS = [kind for kind in KINDS if kind not in ("tiny", "huge", "zeros")]
"""Centres of lengths that are rounded."""

LISTED_DIMS = (16, 17, 31, 48, 65, 384)


def rounded(
    centers: np.ndarray, packed: PackedCenters | None = None, head: HeadAxes | None = None
) -> tuple[PackedCenters, ScreenedCenters]:
    packed = pack_centers(centers) if packed is None else packed
    found = screen_centers(centers, packed, head, anywhere=True)
    assert found is not None
    return packed, found


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
        return total.astype(np.float32)


def byte_scores(x: np.ndarray, found: ScreenedCenters) -> np.ndarray:
    """Return the scores of all rows and centres, of both rounded to bytes."""
    rows = x if found.head is None else head_rows(x, found.head).heads
    most = np.abs(rows).max(axis=1)
    step = np.where(most > np.float32(1e-15), most / np.float32(127), np.float32(0))
    scale = np.divide(np.float32(1), step, out=np.zeros_like(step), where=step > 0)
    turned_bytes = np.rint(rows * scale[:, None])
    assert turned_bytes.dtype == np.float32
    k, width = found.packed.n_clusters, rows.shape[1]
    whole = found.panels.transpose(0, 2, 1, 3).reshape(len(found.norms), -1)[:k, :width].astype(np.float64) - 128
    steps, norms = (found.floats[:, field].reshape(-1)[:k] for field in (0, 1))
    products = (turned_bytes.astype(np.float64) @ whole.T).astype(np.float32) * steps
    return fused(np.float32(-2) * step[:, None], products, norms[None])


def check_lists(lists: np.ndarray, table: np.ndarray) -> int:
    """Check lists against a table of scores; return how many rows have no tie at the end of the list."""
    assert lists.shape == (len(table), LISTED)
    assert lists.dtype == np.uint16
    clear = 0
    for found, scores in zip(lists, table, strict=True):
        last = np.partition(scores, LISTED - 1)[LISTED - 1]
        within = np.flatnonzero(scores <= last)
        if len(within) == LISTED:
            assert found.tolist() == within.tolist()
            clear += 1
        else:
            assert (found < len(scores)).all()
            assert np.isin(np.flatnonzero(scores < last), found).all()
    return clear


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
        table = byte_scores(x, found)
        check_lists(list_near(x, packed, found), table)
        labels = nearest_roughly(x, packed, found)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, table.argmin(axis=1))

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
        table = byte_scores(x, found)
        lists, labels = list_near(x, packed, found), nearest_roughly(x, packed, found)
        check_lists(lists, table)
        np.testing.assert_array_equal(labels, table.argmin(axis=1))
        known = head_rows(x, head)
        np.testing.assert_array_equal(list_near(x, packed, found, known), lists)
        np.testing.assert_array_equal(nearest_roughly(x, packed, found, known), labels)

    @pytest.mark.parametrize("k", [64, 65, 96, 97, 300, 4999])
    @pytest.mark.parametrize("h", [None, 16])
    def test_of_ordinary_rows_have_no_ties(self, k: int, h: int | None) -> None:
        rng = np.random.default_rng(k)
        x, centers = rng.normal(size=(61, 64)).astype(np.float32), rng.normal(size=(k, 64)).astype(np.float32)
        packed, found = rounded(centers, head=None if h is None else turned(rng, 64, h))
        assert check_lists(list_near(x, packed, found), byte_scores(x, found)) > 55
        assert check_lists(list_near(x, packed, None), distance_table(x, packed)) == 61

    def test_name_the_last_of_the_most_centres(self) -> None:
        rng = np.random.default_rng(0)
        centers = rng.random((MOST_CENTERS, 48), np.float32)
        packed, found = rounded(centers)
        x = centers[[0, 10_923, 32_767, 32_768, MOST_CENTERS - 1]]
        lists = list_near(x, packed, found)
        table = byte_scores(x, found)
        assert check_lists(lists, table) >= 4
        assert lists[-1, -1] == MOST_CENTERS - 1
        assert nearest_roughly(x, packed, found).tolist() == [0, 10_923, 32_767, 32_768, MOST_CENTERS - 1]

    @pytest.mark.parametrize("given_heads", [False, True])
    def test_of_many_rows_on_axes(self, given_heads: bool) -> None:
        rng = np.random.default_rng(5)
        x, centers = (rng.normal(size=(m, 48)).astype(np.float32) for m in (4133, 64))
        packed, found = rounded(centers, head=turned(rng, 48, 16))
        assert found.head is not None
        known = head_rows(x, found.head) if given_heads else None
        table = byte_scores(x, found)
        assert check_lists(list_near(x, packed, found, known), table) > 4000
        np.testing.assert_array_equal(nearest_roughly(x, packed, found, known), table.argmin(axis=1))

    @pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 64), (1, 1, 64), (40, 5, 200), (4133, 2, 65)])
    def test_without_rounded_centres_have_the_lowest_scores_of_the_plain_kernel(self, n: int, d: int, k: int) -> None:
        rng = np.random.default_rng(n)
        x, centers = (rng.normal(size=(m, d)).astype(np.float32) for m in (n, k))
        packed = pack_centers(centers)
        assert check_lists(list_near(x, packed, None), distance_table(x, packed)) >= 0.99 * n

    def test_given_heads_decide(self) -> None:
        rng = np.random.default_rng(6)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (30, 90))
        packed, found = rounded(centers, head=turned(rng, 64, 16))
        assert found.head is not None
        other = head_rows(x[::-1].copy(), found.head)
        np.testing.assert_array_equal(list_near(x, packed, found, other), list_near(x, packed, found)[::-1])
        np.testing.assert_array_equal(nearest_roughly(x, packed, found, other), nearest_roughly(x, packed, found)[::-1])

    @pytest.mark.parametrize("h", [None, 16])
    @pytest.mark.parametrize("kind", ["plain", "ties", "duplicates", "mixed"])
    def test_do_not_depend_on_the_place_of_a_row(self, h: int | None, kind: str) -> None:
        rng = np.random.default_rng(7)
        x, centers = (rows_of(kind, rng, m, 65).astype(np.float32) for m in (230, 97))
        packed, found = rounded(centers, head=None if h is None else turned(rng, 65, h))
        lists, labels = list_near(x, packed, found), nearest_roughly(x, packed, found)
        assert len(np.unique(lists, axis=0)) > 10
        order = rng.permutation(len(x))
        np.testing.assert_array_equal(list_near(x[order], packed, found), lists[order])
        np.testing.assert_array_equal(nearest_roughly(x[order], packed, found), labels[order])
        for cut in (1, 12, 96, 101, 229):
            parts = x[:cut], x[cut:]
            np.testing.assert_array_equal(np.concatenate([list_near(part, packed, found) for part in parts]), lists)
            np.testing.assert_array_equal(
                np.concatenate([nearest_roughly(part, packed, found) for part in parts]), labels
            )

    @pytest.mark.parametrize("k", [63, MOST_CENTERS + 1])
    def test_of_too_few_or_too_many_centres_are_refused(self, k: int) -> None:
        packed = pack_centers(np.ones((k, 1), np.float32))
        with pytest.raises(ValueError, match=rf"^there are {k} centres; lists are made of 64 to 65536\.$"):
            list_near(np.ones((1, 1), np.float32), packed, None)

    def test_other_arrays_are_refused(self) -> None:
        rng = np.random.default_rng(8)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (9, 70))
        packed, found = rounded(centers, head=turned(rng, 64, 16))
        assert found.head is not None
        heads = head_rows(x, found.head)
        for function in (list_near, nearest_roughly):
            with pytest.raises(ValueError, match=r"^x is float64 of shape \(9, 64\).*float32 and shape \(any, 64\)"):
                function(x.astype(np.float64), packed, found)
            with pytest.raises(ValueError, match=r"^x is float32 of shape \(9, 63\).*float32 and shape \(any, 64\)"):
                function(np.ascontiguousarray(x[:, 1:]), packed, None)
            with pytest.raises(ValueError, match=r"^x is .*not C-contiguous"):
                function(x[:, ::-1], packed, found)
            with pytest.raises(ValueError, match=r"^heads is float32 of shape \(8, 16\).*shape \(9, 16\) is needed"):
                function(x, packed, found, heads._replace(heads=heads.heads[1:]))
            with pytest.raises(ValueError, match=r"^heads is float32 of shape \(9, 15\).*shape \(9, 16\) is needed"):
                function(x, packed, found, heads._replace(heads=np.ascontiguousarray(heads.heads[:, 1:])))


class TestTies:
    """A list holds none but its 16 lowest scores, also where more centres than that have them."""

    def check(self, lists: np.ndarray, table: np.ndarray) -> None:
        last = np.sort(table, axis=1)[:, LISTED - 1 : LISTED]
        assert (np.take_along_axis(table, lists.astype(np.intp), axis=1) <= last).all()
        assert (np.diff(lists.astype(int), axis=1) >= 0).all()

    def test_of_more_than_16_nearest_centres(self) -> None:
        for seed in range(100):
            rng = np.random.default_rng(seed)
            centers = rng.normal(size=(80, 48)).astype(np.float32)
            same = rng.permutation(80)[:17]
            centers[same] = centers[same[0]]
            packed, found = rounded(centers)
            x = centers[same[:1]]
            self.check(list_near(x, packed, found), byte_scores(x, found))

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
        self.check(list_near(x, packed, found), table)

    @pytest.mark.parametrize("x", [np.zeros((3, 48), np.float32), np.ones((3, 48), np.float32)])
    def test_of_all_centres(self, x: np.ndarray) -> None:
        packed, found = rounded(np.ones((97, 48), np.float32))
        self.check(list_near(x, packed, found), byte_scores(x, found))
        assert nearest_roughly(x, packed, found).tolist() == [0, 0, 0]

    def test_without_rounded_centres(self) -> None:
        rng = np.random.default_rng(2)
        x, centers = (rng.integers(-2, 3, (m, 3)).astype(np.float32) for m in (90, 200))
        packed = pack_centers(centers)
        lists, table = list_near(x, packed, None), distance_table(x, packed)
        assert check_lists(lists, table) < 80
        self.check(lists, table)


class TestRoughly:
    def test_well_separated_rows_get_the_nearest_centre(self) -> None:
        rng = np.random.default_rng(3)
        centers = rng.normal(size=(200, 64)).astype(np.float32)
        own = rng.integers(0, 200, 900)
        x = (centers[own] + 0.05 * rng.normal(size=(900, 64))).astype(np.float32)
        packed, found = rounded(centers)
        labels = nearest_roughly(x, packed, found)
        np.testing.assert_array_equal(labels, own)
        np.testing.assert_array_equal(labels, assign_nearest(x, packed)[0])

    def test_the_lowest_of_equal_centres_is_the_label(self) -> None:
        rng = np.random.default_rng(4)
        half = rng.normal(size=(75, 50)).astype(np.float32)
        packed, found = rounded(np.concatenate([half, half[::-1]]))
        x = rng.normal(size=(300, 50)).astype(np.float32)
        labels = nearest_roughly(x, packed, found)
        assert labels.max() < 75
        np.testing.assert_array_equal(labels, byte_scores(x, found).argmin(axis=1))

    @pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 2), (50, 4, 9), (50, 64, 100)])
    def test_without_rounded_centres_the_label_is_that_of_the_plain_kernel(self, n: int, d: int, k: int) -> None:
        rng = np.random.default_rng(5)
        x, centers = (rng.normal(size=(m, d)).astype(np.float32) for m in (n, k))
        packed = pack_centers(centers)
        np.testing.assert_array_equal(nearest_roughly(x, packed, None), distance_table(x, packed).argmin(axis=1))


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


class TestListed:
    @settings(max_examples=150)
    @given(
        kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
        seed=st.integers(0, 10**6),
        n=st.sampled_from([0, 1, 13, 700]),
        d=st.sampled_from(LISTED_DIMS),
        k=st.sampled_from([1, 16, 20, 300]),
    )
    def test_the_label_is_the_nearest_but_for_rounding(
        self, kinds: tuple[str, str], seed: int, n: int, d: int, k: int
    ) -> None:
        rng = np.random.default_rng(seed)
        x, centers = (rows_of(kind, rng, m, d).astype(np.float32) for kind, m in zip(kinds, (n, k), strict=True))
        norms = pack_centers(centers).norms[:k]
        lists = rng.integers(0, k, (n, LISTED)).astype(np.uint16)
        labels = assign_listed(x, centers, norms, lists)
        assert labels.shape == (n,)
        assert labels.dtype == np.int32
        assert (labels[:, None] == lists).any(axis=1).all()
        wide = x.astype(np.float64), centers.astype(np.float64), norms.astype(np.float64)
        table = wide[2] - 2 * wide[0] @ wide[1].T
        size = wide[2] + 2 * np.abs(wide[0]) @ np.abs(wide[1]).T
        info = np.finfo(np.float32)
        bound = (d + 4) * (size * info.eps + float(info.smallest_subnormal))
        best = np.take_along_axis(table + bound, lists.astype(np.intp), axis=1).min(axis=1)
        each = np.arange(n)
        assert ((table - bound)[each, labels] <= best).all()

    @pytest.mark.parametrize("d", LISTED_DIMS)
    @pytest.mark.parametrize("n", [0, 1, 13, 700])
    def test_whole_numbers_are_exact(self, n: int, d: int) -> None:
        rng = np.random.default_rng([n, d])
        x, centers = (rng.integers(-3, 4, (m, d)) for m in (n, 60))
        centers[30:] = centers[rng.integers(0, 30, 30)]
        norms = (centers**2).sum(axis=1)
        lists = rng.integers(0, 60, (n, LISTED))  # with repetitions
        scores = norms[lists] - 2 * (x @ centers.T)[np.arange(n)[:, None], lists]
        tied = scores == scores.min(axis=1, keepdims=True)
        expected = np.where(tied, lists, 60).min(axis=1)
        if n == 700:
            nearest = np.where(tied, lists, -1).max(axis=1)
            assert (nearest > expected).sum() > 20, "equal centres are to be met"
        labels = assign_listed(
            x.astype(np.float32), centers.astype(np.float32), norms.astype(np.float32), lists.astype(np.uint16)
        )
        np.testing.assert_array_equal(labels, expected)

    @pytest.mark.parametrize("d", LISTED_DIMS)
    def test_every_dimension_counts_once(self, d: int) -> None:
        # Row i is nearest to centre i by one column alone; norms are equal.
        x, norms = np.eye(d, dtype=np.float32), np.full(d, 7, np.float32)
        lists = (np.arange(d)[:, None] - np.arange(LISTED)) % d
        centers = np.full((d, d), 1, np.float32) + np.eye(d, dtype=np.float32)
        assert assign_listed(x, centers, norms, lists.astype(np.uint16)).tolist() == list(range(d))
        # The sum of all columns decides against a norm: once too few or too many, and the other centre is the label.
        ones, twins = np.ones((1, d), np.float32), np.zeros((LISTED, d), np.float32)
        twins[1] = 1
        for more, label in ((-1, 1), (1, 0)):
            twin_norms = np.full(LISTED, 1e6, np.float32)
            twin_norms[:2] = 0, 2 * d + more
            every = np.arange(LISTED, dtype=np.uint16)[None]
            assert assign_listed(ones, twins, twin_norms, every).tolist() == [label]

    @pytest.mark.parametrize("d", LISTED_DIMS)
    def test_equal_centres_tie_in_every_slot(self, d: int) -> None:
        rng = np.random.default_rng(d)
        half = rng.normal(size=(8, d)).astype(np.float32)
        centers = np.concatenate([half, half])
        norms = pack_centers(centers).norms[:16]
        x = rng.normal(size=(400, d)).astype(np.float32)
        lists = rng.permuted(np.tile(np.arange(16, dtype=np.uint16), (400, 1)), axis=1)
        labels = assign_listed(x, centers, norms, lists)
        assert labels.max() < 8
        assert len(np.unique(labels)) == 8

    @pytest.mark.parametrize("d", [16, 31, 65])
    def test_do_not_depend_on_the_place_of_a_row(self, d: int) -> None:
        rng = np.random.default_rng(d)
        # Near ties, which any other order of sums would break another way.
        base = rng.normal(size=d)
        centers = (base + 1e-6 * rng.normal(size=(50, d))).astype(np.float32)
        x = rng.normal(size=(300, d)).astype(np.float32)
        norms = pack_centers(centers).norms[:50]
        lists = rng.integers(0, 50, (300, LISTED)).astype(np.uint16)
        labels = assign_listed(x, centers, norms, lists)
        order = rng.permutation(300)
        np.testing.assert_array_equal(assign_listed(x[order], centers, norms, lists[order]), labels[order])
        np.testing.assert_array_equal(assign_listed(x[101:], centers, norms, lists[101:]), labels[101:])

    def test_a_full_list_gives_the_nearest_of_all(self) -> None:
        rng = np.random.default_rng(9)
        x, centers = (rng.normal(size=(m, 64)).astype(np.float32) for m in (500, 100))
        packed, found = rounded(centers)
        labels = assign_listed(x, centers, packed.norms[:100], list_near(x, packed, found))
        np.testing.assert_array_equal(labels, assign_nearest(x, packed)[0])

    def test_centres_that_are_not_there_are_refused(self) -> None:
        centers, norms = np.ones((20, 16), np.float32), np.ones(20, np.float32)
        x = np.ones((5, 16), np.float32)
        for row, slot, number in ((0, 0, 20), (4, 15, 20), (2, 7, 65_535)):
            lists = np.full((5, LISTED), 19, np.uint16)
            assert assign_listed(x, centers, norms, lists).tolist() == [19] * 5
            lists[row, slot] = number
            with pytest.raises(ValueError, match=r"^lists name centres beyond the 20 that there are\.$"):
                assign_listed(x, centers, norms, lists)

    def test_other_arrays_are_refused(self) -> None:
        x, centers = np.ones((5, 16), np.float32), np.ones((20, 16), np.float32)
        norms, lists = np.ones(20, np.float32), np.zeros((5, LISTED), np.uint16)
        narrow = np.ones((5, 15), np.float32), np.ones((20, 15), np.float32)
        with pytest.raises(ValueError, match=r"^x has 15 columns; lists are for 16 and more\.$"):
            assign_listed(*narrow, norms, lists)
        with pytest.raises(ValueError, match=r"^x is float64 of shape \(5, 16\).*float32 and shape \(any, 16\)"):
            assign_listed(x.astype(np.float64), centers, norms, lists)
        with pytest.raises(ValueError, match=r"^x is float32 of shape \(5, 17\).*float32 and shape \(any, 16\)"):
            assign_listed(np.ones((5, 17), np.float32), centers, norms, lists)
        with pytest.raises(ValueError, match=r"^centers is float64 of shape \(20, 16\)"):
            assign_listed(x, centers.astype(np.float64), norms, lists)
        with pytest.raises(ValueError, match=r"^centers is float32 of shape \(320,\)"):
            assign_listed(x, centers.reshape(-1), norms, lists)
        with pytest.raises(ValueError, match=r"^norms is float32 of shape \(19,\).*shape \(20\) is needed"):
            assign_listed(x, centers, norms[1:], lists)
        with pytest.raises(ValueError, match=r"^norms is float64 of shape \(20,\)"):
            assign_listed(x, centers, norms.astype(np.float64), lists)
        with pytest.raises(ValueError, match=r"^lists is int32 of shape \(5, 16\).*uint16 and shape \(5, 16\)"):
            assign_listed(x, centers, norms, lists.astype(np.int32))
        with pytest.raises(ValueError, match=r"^lists is uint16 of shape \(4, 16\).*shape \(5, 16\) is needed"):
            assign_listed(x, centers, norms, lists[1:])
        with pytest.raises(ValueError, match=r"^lists is uint16 of shape \(5, 15\).*shape \(5, 16\) is needed"):
            assign_listed(x, centers, norms, np.ascontiguousarray(lists[:, 1:]))


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
    for d in (65, 200):
        # Not normal variates: those pass through a machine's own logarithm.
        x, centers = (rng.random((n, d), np.float32) * 2 - 1 for n in (150, k))
        centers[50:60] = centers[40:50]
        x[100:120] = centers[:20] + x[100:120] * np.float32(1e-6)
        for h in (None, 24):
            head = None if h is None else reflected(rng.random(d), h)
            name = f"of d={d}, h={h}"
            packed, rough = rounded(centers, head=head)
            lists = list_near(x, packed, rough)
            note(f"rounded centres {name}", rough.panels, rough.floats)
            note(f"lists {name}", lists)
            note(f"rough labels {name}", nearest_roughly(x, packed, rough))
            rows = x, centers
            if head is not None:
                rows = head_rows(x, head).heads, head_rows(centers, head).heads
                note(f"heads {name}", *rows)
                note(f"lists of known heads {name}", list_near(x, packed, rough, head_rows(x, head)))
            # Under other centres than those that the lists were made of, some of them near ties.
            later = np.ascontiguousarray(rows[1][::-1]) * np.float32(1.01)
            later[1::2] = later[::2][: k // 2] * (1 + np.float32(2.0**-22))
            norms = pack_centers(later).norms[:k]
            note(f"listed labels {name}", assign_listed(rows[0], later, norms, lists))
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
    assert len(set(ours.values())) >= len(ours) - 2, "but for heads that are known or not, nothing is twice the same"
    assert theirs == ours
