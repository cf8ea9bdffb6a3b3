"""Tables of clusters and classes, balance, and the merge laws of scores."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.errors import DataError
from distclust.stats import contingency
from distclust.stats.balance import Balance
from distclust.stats.contingency import ContingencyStats
from distclust.stats.fixed import FixedPair
from distclust.stats.lloyd import ClusterSums
from distclust.stats.scores import LabelStats, SilhouetteStats
from tests.stats.test_merge import same

WORDS = ("ash", "oak", "yew", "Elm", "ü", "")


def counted(rng: np.random.Generator) -> ContingencyStats:
    names = list(rng.permutation(WORDS)[: rng.integers(1, 6)])
    n = int(rng.integers(0, 12))
    codes = rng.integers(-1, len(names), n)
    return ContingencyStats.count(rng.integers(0, 4, n).astype(np.int32), codes, [str(name) for name in names])


def label_stats(rng: np.random.Generator) -> LabelStats:
    sums = ClusterSums.zeros(3, 2)
    sums.sums[:] = rng.integers(-99, 99, (3, 2))
    pair = FixedPair(rng.integers(0, 99, 3), rng.integers(0, 99, 3), 2.0)
    return LabelStats(sums, pair, counted(rng))


def silhouette_stats(rng: np.random.Generator) -> SilhouetteStats:
    pairs = [FixedPair(rng.integers(-99, 99, 3), rng.integers(-99, 99, 3), 2.0) for _ in range(3)]
    return SilhouetteStats(*pairs)


@pytest.mark.parametrize("make", [counted, label_stats, silhouette_stats])
@given(seed=st.integers(0, 10**6), n=st.integers(2, 7))
def test_any_grouping_and_order_gives_the_same_bits(make: object, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [make(rng) for _ in range(n)]  # type: ignore[operator]
    whole = reduce(lambda a, b: a.merge(b), parts)
    assert same(reduce(lambda a, b: b.merge(a), parts), whole)
    assert same(parts[0].merge(reduce(lambda a, b: a.merge(b), parts[1:])), whole)
    assert same(reduce(lambda a, b: a.merge(b), [parts[i] for i in rng.permutation(n)]), whole)


def test_a_table_has_its_counts_once_and_its_names_in_order() -> None:
    clusters = np.array([1, 0, 1, 1, 2, 0], np.int32)
    table = ContingencyStats.count(clusters, np.array([0, 1, 0, 2, -1, 1]), ["yew", "ash", "oak", "never"])
    assert table.names == ("ash", "oak", "yew")
    assert table.clusters.tolist() == [0, 1, 1]
    assert [table.names[at] for at in table.classes] == ["ash", "oak", "yew"]
    assert table.counts.tolist() == [2, 1, 2]
    assert table.unknown == 1


def test_pairs_are_counted_beyond_64_bits() -> None:
    one = ContingencyStats(("a", "b"), np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([3, 1, 4]) * 10**12, 0)
    found = one.agreement()
    assert found is not None
    assert found.adjusted_rand == pytest.approx(0.5, abs=0.1)
    assert found.purity == 7 / 8


def test_a_column_of_ids_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contingency, "MAX_CLASSES", 3)
    parts = [
        ContingencyStats.count(np.zeros(2, np.int32), np.arange(2), [f"id{2 * i}", f"id{2 * i + 1}"]) for i in range(2)
    ]
    with pytest.raises(DataError, match=r"more than 3 different values \(such as 'id0'\).* classes, not of ids"):
        parts[0].merge(parts[1])


def test_balance_of_equal_single_and_huge_clusters() -> None:
    assert Balance.of(np.full(4, 5)) == Balance(0.25, 0.0, 1.0, 0)
    assert Balance.of(np.array([0, 0, 9, 0])) == Balance(1.0, 0.75, 1.0, 3)
    huge = Balance.of(np.array([1, 3]) * 2**60)
    assert (huge.max_share, huge.gini, huge.largest_over_smallest) == (0.75, 0.25, 3.0)
    sizes = np.random.default_rng(0).integers(1, 1000, 300)
    pairwise = np.abs(sizes[:, None] - sizes).sum() / (2 * 300 * sizes.sum())
    assert Balance.of(sizes).gini == pytest.approx(pairwise, rel=1e-12)
