"""Sums merged, means taken and centres moved, against plain numpy, bit for bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.kernels.updates import add_sums, cluster_means, merge_sums, step_beyond

INT64 = np.iinfo(np.int64)
SETS = ("any", "equal", "disjoint", "first empty", "second empty", "both empty", "one after the other", "inside")


def two_sets(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two ascending sets of clusters."""
    everything = np.sort(rng.choice(1000, 60, replace=False))
    a, b = (np.sort(rng.choice(everything, 35, replace=False)) for _ in range(2))
    if kind == "equal":
        b = a.copy()
    elif kind == "disjoint":
        own = rng.random(60) < 0.4
        a, b = everything[own], everything[~own]
    elif kind == "one after the other":
        a, b = everything[40:], everything[:40]
    elif kind == "inside":
        b = a[5:20].copy()
    if kind in ("first empty", "both empty"):
        a = a[:0]
    if kind in ("second empty", "both empty"):
        b = b[:0]
    return a, b


class TestAdd:
    @given(
        seed=st.integers(0, 10**6),
        share=st.sampled_from([0.0, 0.1, 1.0]),
        d=st.sampled_from([1, 7, 65]),
        most=st.sampled_from([10, INT64.max]),
        threads=st.sampled_from([1, 3]),
    )
    def test_is_that_of_numpy(self, seed: int, share: float, d: int, most: int, threads: int) -> None:
        rng = np.random.default_rng(seed)
        totals = rng.integers(-most - 1, most, (60, d), endpoint=True)
        clusters = np.flatnonzero(rng.random(60) < share).astype(np.int64)
        sums = rng.integers(-most - 1, most, (len(clusters), d), endpoint=True)
        expected = totals.view(np.uint64).copy()
        expected[clusters] += sums.view(np.uint64)
        add_sums(totals, clusters, sums, threads=threads)
        np.testing.assert_array_equal(totals.view(np.uint64), expected)

    def test_slices_on_threads_change_nothing(self) -> None:
        rng = np.random.default_rng(0)
        first, more = rng.integers(-9, 9, (2, 700, 1024))
        alone, together = first.copy(), first.copy()
        everything = np.arange(700)
        add_sums(alone, everything, more)
        add_sums(together, everything, more, threads=4)
        np.testing.assert_array_equal(alone, first + more)
        np.testing.assert_array_equal(together, alone)

    @pytest.mark.parametrize("clusters", [[-1, 0], [0, 3], [1, 1], [2, 1]])
    def test_clusters_that_are_none_are_refused(self, clusters: list[int]) -> None:
        totals = np.zeros((3, 2), np.int64)
        with pytest.raises(ValueError, match=r"^clusters must be ascending numbers from 0 to 2\.$"):
            add_sums(totals, np.array(clusters), np.ones((2, 2), np.int64))
        assert not totals.any()

    def test_read_only_totals_are_refused(self) -> None:
        totals = np.zeros((3, 2), np.int64)
        totals.flags.writeable = False
        with pytest.raises(ValueError, match=r"^totals is read-only"):
            add_sums(totals, np.array([0]), np.ones((1, 2), np.int64))


class TestMerge:
    @given(
        kind=st.sampled_from(SETS),
        seed=st.integers(0, 10**6),
        d=st.sampled_from([1, 2, 7, 16, 65]),
        most=st.sampled_from([10, INT64.max]),
    )
    def test_sums_are_added_and_places_told(self, kind: str, seed: int, d: int, most: int) -> None:
        rng = np.random.default_rng(seed)
        a, b = two_sets(kind, rng)
        x, y = (rng.integers(-most - 1, most, (len(part), d), endpoint=True) for part in (a, b))
        kept = x.copy(), y.copy()
        clusters, sums, first, second = merge_sums((a, b), (x, y))
        expected: dict[int, list[int]] = {}
        for part, rows in ((a, x), (b, y)):
            for cluster, row in zip(part.tolist(), rows.tolist(), strict=True):
                expected[cluster] = [p + q for p, q in zip(expected.get(cluster, [0] * d), row, strict=True)]
        assert clusters.tolist() == sorted(expected)
        wrapped = [[(value + 2**63) % 2**64 - 2**63 for value in expected[cluster]] for cluster in sorted(expected)]
        assert sums.shape == (len(expected), d)
        assert sums.tolist() == wrapped
        for places, part in ((first, a.tolist()), (second, b.tolist())):
            assert places.tolist() == [part.index(one) if one in part else -1 for one in sorted(expected)]
        assert {array.dtype for array in (clusters, sums, first, second)} == {np.dtype(np.int64)}
        np.testing.assert_array_equal(x, kept[0])
        np.testing.assert_array_equal(y, kept[1])

    def test_sums_wrap_around(self) -> None:
        one = np.array([3])
        ends = np.array([[INT64.max, INT64.min, INT64.min, -1]])
        more = np.array([[1, -1, INT64.min, 1]])
        _, sums, _, _ = merge_sums((one, one), (ends, more))
        assert sums.tolist() == [[INT64.min, INT64.max, 0, 0]]

    def test_results_share_no_memory_with_what_is_given(self) -> None:
        a, none = np.array([1, 2]), np.empty(0, np.int64)
        x, nothing = np.array([[5], [6]]), np.empty((0, 1), np.int64)
        for result in (merge_sums((a, none), (x, nothing)), merge_sums((none, a), (nothing, x))):
            result[0][:], result[1][:] = 9, 9
            assert a.tolist() == [1, 2]
            assert x.tolist() == [[5], [6]]

    def test_other_arrays_are_refused(self) -> None:
        a, b = np.array([1, 4]), np.array([4])
        x, y = np.array([[1], [2]]), np.array([[5]])
        with pytest.raises(ValueError, match=r"^clusters is int32 of shape \(2,\).*int64"):
            merge_sums((a.astype(np.int32), b), (x, y))
        with pytest.raises(ValueError, match=r"^sums is int64 of shape \(1, 1\).*shape \(2, 1\) is needed"):
            merge_sums((a, b), (x[:1], y))
        with pytest.raises(ValueError, match=r"^sums is int64 of shape \(1, 2\).*shape \(1, 1\) is needed"):
            merge_sums((a, b), (x, np.array([[5, 6]])))
        with pytest.raises(ValueError, match=r"^sums is float64 of shape \(1, 1\).*int64"):
            merge_sums((a, b), (x, y.astype(np.float64)))


class TestMeans:
    @given(
        seed=st.integers(0, 10**6),
        k=st.sampled_from([1, 5, 64]),
        d=st.sampled_from([1, 3, 16, 65]),
        massless=st.sampled_from([0.0, 0.3, 1.0]),
        most=st.sampled_from([3, 10**6, INT64.max]),
        powers=st.booleans(),
    )
    def test_are_those_of_numpy(self, seed: int, k: int, d: int, massless: float, most: int, powers: bool) -> None:
        rng = np.random.default_rng(seed)
        sums = rng.integers(-most, most, (k, d), endpoint=True)
        scales = 2.0 ** rng.integers(-60, 60, d) if powers else rng.uniform(0.1, 1e6, d)
        mass = rng.uniform(1e-3, 1e5, k)
        mass[rng.random(k) < massless] = 0.0
        centers = rng.normal(size=(k, d))
        means = cluster_means(sums, scales, mass, centers).means
        full = mass > 0
        expected = centers.copy()
        expected[full] = sums[full] / scales / mass[full, None]
        assert means.dtype == np.float64
        assert means.tobytes() == expected.tobytes()

    def test_no_order_of_divisions_but_this_gives_these_bits(self) -> None:
        rng = np.random.default_rng(0)
        sums, scales, mass = rng.integers(-(2**62), 2**62, (50, 20)), rng.uniform(1, 9, 20), rng.uniform(1, 9, 50)
        means = cluster_means(sums, scales, mass, np.zeros((50, 20))).means
        assert (means == sums / scales / mass[:, None]).all()
        assert (means != sums / mass[:, None] / scales).any()
        assert (means != sums / (scales * mass[:, None])).any()

    def test_centres_of_clusters_without_mass_keep_every_bit(self) -> None:
        centers = np.array([[-0.0, 5e-324, 1e308], [1.0, 2.0, 3.0]])
        means = cluster_means(np.full((2, 3), 7), np.full(3, 2.0), np.array([0.0, 1.0]), centers).means
        assert means[0].tobytes() == centers[0].tobytes()
        assert means[1].tolist() == [3.5] * 3
        means[:] = 8
        assert centers[1].tolist() == [1.0, 2.0, 3.0]

    def test_centres_may_lie_in_another_order(self) -> None:
        centers = np.arange(6.0).reshape(2, 3)
        means = cluster_means(np.ones((2, 3), np.int64), np.ones(3), np.zeros(2), np.asfortranarray(centers)).means
        np.testing.assert_array_equal(means, centers)

    def test_other_arrays_are_refused(self) -> None:
        sums, scales, mass, centers = np.ones((2, 3), np.int64), np.ones(3), np.ones(2), np.ones((2, 3))
        with pytest.raises(ValueError, match=r"^sums is float64 of shape \(2, 3\).*int64 and shape \(2, 3\)"):
            cluster_means(sums.astype(float), scales, mass, centers)
        with pytest.raises(ValueError, match=r"^sums is int64 of shape \(1, 3\).*shape \(2, 3\) is needed"):
            cluster_means(sums[:1], scales, mass, centers)
        with pytest.raises(ValueError, match=r"^scales is float64 of shape \(2,\).*shape \(3\) is needed"):
            cluster_means(sums, scales[1:], mass, centers)
        with pytest.raises(ValueError, match=r"^mass is float64 of shape \(1,\).*shape \(2\) is needed"):
            cluster_means(sums, scales, mass[1:], centers)
        with pytest.raises(ValueError, match=r"^centers is float32 of shape \(2, 3\).*float64"):
            cluster_means(sums, scales, mass, centers.astype(np.float32))


class TestStep:
    @given(
        seed=st.integers(0, 10**6),
        k=st.sampled_from([1, 5, 64]),
        d=st.sampled_from([1, 3, 16, 65]),
        relaxation=st.floats(0, 3),
        momentum=st.floats(-1, 1),
        scale=st.sampled_from([1.0, 1e-150, 1e150]),
    )
    def test_is_that_of_numpy(
        self, seed: int, k: int, d: int, relaxation: float, momentum: float, scale: float
    ) -> None:
        rng = np.random.default_rng(seed)
        centers, means, previous = scale * rng.normal(size=(3, k, d))
        found = step_beyond(centers, means, previous, relaxation, momentum)
        expected = centers + relaxation * (means - centers) + momentum * (centers - previous)
        assert found.dtype == np.float64
        assert found.tobytes() == expected.tobytes()

    def test_products_are_rounded_before_they_are_added(self) -> None:
        rng = np.random.default_rng(1)
        centers, means, previous = rng.normal(size=(3, 200, 8))
        found = step_beyond(centers, means, previous, 1.7, 0.3)
        assert (found == centers + 1.7 * (means - centers) + 0.3 * (centers - previous)).all()
        pairs = zip(centers.ravel().tolist(), (means - centers).ravel().tolist(), strict=True)
        once = np.array([float(Fraction(c) + Fraction(1.7) * Fraction(step)) for c, step in pairs]).reshape(200, 8)
        assert (found != once + 0.3 * (centers - previous)).any(), "fused, some bits would be others"

    def test_arrays_may_lie_in_another_order(self) -> None:
        parts = np.random.default_rng(2).normal(size=(3, 4, 5))
        expected = step_beyond(*parts, 1.5, 0.25)
        np.testing.assert_array_equal(step_beyond(*(np.asfortranarray(part) for part in parts), 1.5, 0.25), expected)
        np.testing.assert_array_equal(step_beyond(*parts[:, ::-1, ::-1], 1.5, 0.25), expected[::-1, ::-1])

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_other_arrays_are_refused(self, at: int) -> None:
        parts = [np.ones((2, 3)) for _ in range(3)]
        parts[at] = parts[at].astype(np.float32)
        with pytest.raises(ValueError, match=r"^centers is float32 of shape \(2, 3\).*float64 and shape \(2, 3\)"):
            step_beyond(*parts, 1.0, 0.0)
        if at:
            parts[at] = np.ones((1, 3))
            with pytest.raises(ValueError, match=r"^centers is float64 of shape \(1, 3\).*shape \(2, 3\) is needed"):
                step_beyond(*parts, 1.0, 0.0)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 15), (5, 16), (7, 50)])
def test_explained_is_what_centres_take_away(k: int, d: int, single: bool) -> None:
    rng = np.random.default_rng([k, d])
    x, labels, weights = rng.normal(size=(400, d)) + 3, rng.integers(0, k, 400), rng.integers(0, 4, 400) / 4
    centers, scales = rng.normal(size=(k, d)), 2.0 ** rng.integers(30, 40, d)
    sums = np.zeros((k, d), np.int64)
    np.add.at(sums, labels, np.rint(weights[:, None] * x * scales).astype(np.int64))
    found = cluster_means(sums, scales, np.bincount(labels, weights, k), centers, single=single)
    seen = centers.astype(np.float32).astype(np.float64) if single else centers
    for cluster in range(k):
        own = labels == cluster
        left = (weights[own] * ((x[own] - seen[cluster]) ** 2).sum(axis=1)).sum()
        squares = (weights[own] * (x[own] ** 2).sum(axis=1)).sum()
        assert squares - found.explained[cluster] == pytest.approx(left, rel=1e-7)


@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 40]), d=st.sampled_from([1, 15, 16, 17, 65]))
def test_shifts_are_squared_distances_to_the_means(seed: int, k: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    sums, mass, centers = rng.integers(-99, 99, (k, d)), rng.integers(0, 3, k).astype(float), rng.normal(size=(k, d))
    found = cluster_means(sums, np.full(d, 4.0), mass, centers)
    assert found.shifts == pytest.approx(((found.means - centers) ** 2).sum(axis=1), rel=1e-12)
    assert (found.shifts[mass == 0] == 0).all()


def test_threads_change_no_bit_of_means_and_steps() -> None:
    rng = np.random.default_rng(4)
    sums, mass, scales = (
        rng.integers(-(2**50), 2**50, (900, 700)),
        rng.integers(0, 9, 900) * 1.0,
        rng.uniform(1, 9, 700),
    )
    centers, previous = rng.normal(size=(2, 900, 700))
    alone, together = (cluster_means(sums, scales, mass, centers, threads=count) for count in (1, 4))
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()
    steps = [step_beyond(centers, alone.means, previous, 1.7, 0.4, threads=count) for count in (1, 4)]
    assert steps[0].tobytes() == steps[1].tobytes()
