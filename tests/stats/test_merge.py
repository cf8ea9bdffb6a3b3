"""Merge laws: associative, in any grouping the same bits, inputs untouched, bytes and back."""

from __future__ import annotations

import pickle
from copy import deepcopy
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.stats import lloyd
from distclust.stats.extremes import FarRows, KeyedRows
from distclust.stats.fixed import FixedPair
from distclust.stats.gaussian import GaussianStats
from distclust.stats.lloyd import MOST_PARTS, AssignStats, ClusterSums, LloydStats
from distclust.stats.moments import BadRow, ProfileStats
from distclust.stats.proposals import Proposals

K, D = 5, 3


def cluster_sums(rng: np.random.Generator) -> ClusterSums:
    clusters = np.sort(rng.choice(K, rng.integers(1, K + 1), replace=False)).astype(np.int64)
    t = len(clusters)
    ints = rng.integers(-(2**40), 2**40, (t, D))
    return ClusterSums(clusters, ints, rng.integers(-9, 9, t), rng.integers(-9, 9, t))


def far_rows(rng: np.random.Generator, first_id: int) -> FarRows:
    m = int(rng.integers(0, 7))
    ids = first_id + np.arange(m, dtype=np.int64)
    sqdist = rng.choice([0.0, 1.0, 2.0], m)  # many ties
    order = np.lexsort((ids, -sqdist))
    return FarRows(
        4,
        sqdist[order][:4],
        ids[order][:4],
        ids[order][:4, None].repeat(D, 1).astype(float),
        np.zeros(len(order[:4]), np.int32),
        np.ones(len(order[:4])),
    )


def keyed_rows(rng: np.random.Generator, first_id: int) -> KeyedRows:
    m = int(rng.integers(0, 30))
    ids = first_id + np.arange(m, dtype=np.int64)
    return KeyedRows.select(4, rng.choice([0.0, 0.5, 1.0], m), ids, ids[:, None].astype(float), None)


def profile(rng: np.random.Generator, first_id: int) -> ProfileStats:
    low = rng.normal(size=D)
    bad = BadRow("somewhere", first_id, "NaN") if rng.random() < 0.5 else None
    return ProfileStats(3, low, low + 1, float(rng.random()), int(bad is not None), bad, keyed_rows(rng, first_id))


def proposals(rng: np.random.Generator, first_id: int) -> Proposals:
    m = int(rng.integers(0, 30))
    sources, targets = (rng.integers(0, 3, m).astype(np.int32) for _ in range(2))
    ids = first_id + rng.permutation(40)[:m]
    return Proposals.select(9, 2, rng.choice([0.0, 0.5, 1.0], m), ids, sources, targets)


def assign_stats(rng: np.random.Generator) -> AssignStats:
    pair = FixedPair(rng.integers(0, 99, K), rng.integers(0, 99, K), 2.0)
    labels, lists = (int(digest) * 2 for digest in rng.integers(0, 2**63, 2))
    return AssignStats(rng.integers(0, 99, K), pair, labels, lists)


def gaussian_stats(rng: np.random.Generator) -> GaussianStats:
    levels = int(rng.integers(1, 4))  # few rows reach the coarse levels
    first, second = (rng.integers(-(2**60), 2**60, (levels, K, width)) for width in (D, 6))
    return GaussianStats(3, rng.integers(0, 99, K), first, second, rng.integers(-99, 99, 4), int(rng.integers(2**62)))


MAKERS = {
    "cluster_sums": lambda rng, i: cluster_sums(rng),
    "far_rows": lambda rng, i: far_rows(rng, 100 * i),
    "keyed_rows": lambda rng, i: keyed_rows(rng, 100 * i),
    "profile": lambda rng, i: profile(rng, 100 * i),
    "proposals": lambda rng, i: proposals(rng, 100 * i),
    "gaussian": lambda rng, i: gaussian_stats(rng),
    "assign": lambda rng, i: assign_stats(rng),
}


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b) and a.dtype == b.dtype  # type: ignore[attr-defined]
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(one, other) for one, other in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f), getattr(b, f)) for f in a.__dataclass_fields__)
    return bool(a == b)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 8), cut=st.integers(1, 7))
def test_any_grouping_and_order_gives_the_same_bits(name: str, seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [MAKERS[name](rng, i) for i in range(n)]
    before = deepcopy(parts)
    whole = reduce(lambda a, b: a.merge(b), parts)
    cut = min(cut, n - 1)
    grouped = reduce(lambda a, b: a.merge(b), parts[:cut]).merge(reduce(lambda a, b: a.merge(b), parts[cut:]))
    shuffled = reduce(lambda a, b: a.merge(b), [parts[i] for i in rng.permutation(n)])
    assert same(whole, grouped)
    assert same(whole, shuffled)
    assert all(same(a, b) for a, b in zip(parts, before, strict=True)), "merge must not change its inputs"


def test_sums_of_different_clusters_make_a_union() -> None:
    a = ClusterSums(np.array([0, 3]), np.array([[1], [2]]), np.array([1, 1]), np.array([1, 1]))
    b = ClusterSums(np.array([3, 4]), np.array([[10], [20]]), np.array([2, 2]), np.array([-1, 2]))
    merged = a.merge(b)
    assert merged.clusters.tolist() == [0, 3, 4]
    assert merged.sums[:, 0].tolist() == [1, 12, 20]
    assert merged.counts.tolist() == [1, 0, 2]


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 3 * MOST_PARTS), travels=st.booleans())
def test_a_pass_adds_up_whatever_lies_side_by_side(seed: int, n: int, travels: bool) -> None:
    rng = np.random.default_rng(seed)
    parts = [LloydStats((cluster_sums(rng),), FixedPair.zeros(1, 1.0), i) for i in range(n)]
    before = deepcopy(parts)
    expected = reduce(lambda a, b: a.merge(b), [part.parts[0] for part in parts])
    whole = reduce(lambda a, b: a.merge(b), parts)
    assert len(whole.parts) <= MOST_PARTS
    assert n == 1 or n > MOST_PARTS or len(whole.parts) == n
    if travels:
        whole = pickle.loads(pickle.dumps(whole))
        assert len(whole.parts) == 1
    assert same(whole.sums, expected)
    assert whole.moved == sum(range(n))
    totals = ClusterSums.zeros(K, D).owned()
    for part in whole.parts:
        totals.add(part)
    assert same(totals, ClusterSums.zeros(K, D).merge(expected))
    assert all(same(a, b) for a, b in zip(parts, before, strict=True)), "parts are as they were"


def test_sums_that_must_not_be_changed_are_copied_before() -> None:
    sums = cluster_sums(np.random.default_rng(3))
    assert sums.owned().sums is sums.sums
    sums.sums.flags.writeable = False
    assert sums.owned().sums is not sums.sums
    assert same(sums.owned(), sums)


def test_bytes_and_back() -> None:
    rng = np.random.default_rng(0)
    for stats in (cluster_sums(rng), assign_stats(rng), gaussian_stats(rng)):
        assert same(type(stats).from_bytes(stats.to_bytes()), stats)
    with pytest.raises(ValueError, match="'assign/1', not 'cluster-sums/1'"):
        ClusterSums.from_bytes(assign_stats(rng).to_bytes())


def test_far_rows_break_ties_by_row_id() -> None:
    rows = np.zeros((2, D))
    a = FarRows(2, np.array([5.0, 1.0]), np.array([7, 9]), rows, np.zeros(2, np.int32), np.ones(2))
    b = FarRows(2, np.array([5.0, 5.0]), np.array([3, 8]), rows, np.zeros(2, np.int32), np.ones(2))
    assert a.merge(b).row_ids.tolist() == [3, 7]


def test_large_sums_do_not_lie_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    parts = [LloydStats((cluster_sums(rng),), FixedPair.zeros(1, 1.0), 1) for _ in range(4)]
    monkeypatch.setattr(lloyd, "MOST_BYTES", sum(part.parts[0].sums.nbytes for part in parts[:3]))
    three = reduce(lambda a, b: a.merge(b), parts[:3])
    assert len(three.parts) == 3
    four = three.merge(parts[3])
    assert len(four.parts) == 1
    assert same(four.sums, three.sums.merge(parts[3].sums))


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_parts_joined_at_once_are_parts_merged(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [keyed_rows(rng, 100 * number) for number in range(count)]
    merged = reduce(KeyedRows.merge, parts)
    joined = KeyedRows.join([parts[at] for at in rng.permutation(count)])
    for name in ("limit", "keys", "row_ids", "rows", "weights"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(merged, name))
