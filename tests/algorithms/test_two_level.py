"""Two-level k-means: its loss against flat k-means, equal bits, shares, few distinct rows, routing, kernels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.algorithms import groups, two_level
from distclust.algorithms.apportion import apportion
from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.two_level import fit_two_level, is_two_level
from distclust.artifacts.checkpoint import Checkpoints
from distclust.data.storage import Storage, open_storage
from distclust.engines.events import Event, IterationEnded, TaskEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.kernels.candidates import assign_candidates
from distclust.kernels.lowest import lowest_columns
from distclust.ops.assign import assign, predict
from distclust.ops.centers import CenterSet, store_centers
from distclust.ops.routing import RoutedCenters, exact_labels
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes


def blobs(n: int, d: int, centers: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(centers, d))[rng.integers(0, centers, n)] * 3 + rng.normal(size=(n, d))
    return X.astype(np.float32)


def two(k: int, **more: Any) -> KMeansConfig:
    return KMeansConfig(n_clusters=k, seed=3, strategy="two-level", **more)


class Run:
    """A run directory as far as a fit needs one."""

    def __init__(self, place: Path) -> None:
        self.storage: Storage = open_storage(place)

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self.storage, name)


def bits(
    engine: Engine,
    X: np.ndarray,
    sizes: list[int] | None,
    config: KMeansConfig,
    *,
    weights: np.ndarray | None = None,
    run: Run | None = None,
    **how: Any,
) -> tuple[bytes, ...]:
    """Return all that has to be equal: centres, cells, labels with distances, inertia of each pass."""
    with prepared(engine, X, sizes, weights=weights, metric=config.metric, **how) as data:
        result = fit_two_level(engine, data, config, run)
        stats = assign(engine, data, result.centers, rule=result.rule)
        labels = predict(engine, data.pinned, result.rule or result.centers)
    history = repr([(e.inertia, e.shift, e.moved, e.reassigned) for e in result.history])
    return (
        result.vectors.tobytes(), result.cells.tobytes(), result.parents.tobytes(), labels.tobytes(),
        hex(stats.labels_digest).encode(), history.encode(), repr(result.exact_share).encode(),
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_its_inertia_is_near_that_of_flat_k_means(metric: str) -> None:
    X = blobs(20_000, 12, 60)
    with LocalEngine(2) as engine, prepared(engine, X, metric=metric) as data:
        flat = fit_kmeans(engine, data, KMeansConfig(n_clusters=400, seed=3, metric=metric))
        found = fit_two_level(engine, data, two(400, metric=metric))
        ratio = assign(engine, data, found.centers).inertia.total() / assign(engine, data, flat.centers).inertia.total()
    assert len(found.vectors) == 400
    assert ratio < 1.02


@pytest.mark.parametrize(
    ("metric", "precision", "weighted"),
    [("euclidean", "float32", False), ("euclidean", "float64", True), ("cosine", "float32", True)],
)
def test_partitions_and_engines_agree(
    metric: str, precision: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_level, "LEAST_CELL_ROWS", 1_000)
    monkeypatch.setattr(two_level, "ROWS_PER_CELL", 50)  # so that cells come from a sample
    monkeypatch.setattr(two_level, "EXACT_CLUSTERS", 50)  # so that labels are routed
    monkeypatch.setattr(two_level, "LABEL_PROBES", 2)
    rng = np.random.default_rng(1)
    X = blobs(3000, 6, 25)
    weights = rng.uniform(0, 2, 3000) * (rng.random(3000) > 0.1) if weighted else None
    config = two(120, metric=metric)
    how: dict[str, Any] = {"weights": weights, "precision": precision}
    with LocalEngine(2) as local, HostileEngine(3) as hostile:
        whole = bits(local, X, None, config, **how)
        assert bits(local, X, random_sizes(rng, 3000, 9), config, **how) == whole
        assert bits(hostile, X, random_sizes(rng, 3000, 6), config, **how) == whole


def test_cells_of_a_sample_are_fitted_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_level, "LEAST_CELL_ROWS", 2_000)
    monkeypatch.setattr(two_level, "ROWS_PER_CELL", 50)
    passes: list[IterationEnded] = []

    def emit(event: Event) -> None:
        if isinstance(event, IterationEnded) and event.stage == "lloyd":
            passes.append(event)

    X = np.random.default_rng(1).random((9000, 4)).astype(np.float32)
    with LocalEngine(2, EngineOptions(emit=emit)) as engine, prepared(engine, X) as data:
        fit_two_level(engine, data, two(150))
    inertia = [event.inertia for event in passes]
    assert len(inertia) > 5
    assert inertia == sorted(inertia, reverse=True)


def test_large_groups_are_clustered_on_a_sample_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUP_BYTES", 200 * 6 * 4)
    rng = np.random.default_rng(2)
    X = blobs(3000, 6, 5)
    with LocalEngine(2) as local, HostileEngine(5) as hostile:
        whole = bits(local, X, None, two(30))
        assert bits(hostile, X, random_sizes(rng, 3000, 7), two(30)) == whole
        assert groups.group_rows(np.dtype(("<f4", (6,)))) == 200


def test_a_stopped_fit_goes_on_from_its_files(tmp_path: Path) -> None:
    X = blobs(1500, 5, 12)
    sizes = [400, 600, 500]
    with LocalEngine(2) as engine:
        whole = bits(engine, X, sizes, two(60))
    labels: list[list[str]] = []
    for _ in range(60):
        labels.append([])
        with LocalEngine(1, stopping_after(8, labels[-1])) as engine:
            try:
                assert bits(engine, X, sizes, two(60), run=Run(tmp_path / "run")) == whole
                break
            except CancelledError:
                continue
    else:
        raise AssertionError("each attempt must come further than the one before")
    assert len(labels) > 3
    assert not {"group", "groups", "neighbors"} & set(labels[-1]), "finished stages are not done again"


def stopping_after(tasks: int, labels: list[str]) -> EngineOptions:
    """Return options that cancel after so many tasks of the fit itself; their labels are noted."""
    token = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.label not in ("profile", "cache", "label", "predict"):
            labels.append(event.label)
            if len(labels) == tasks:
                token.cancel()

    return EngineOptions(emit=emit, cancel=token)


def test_few_distinct_rows_give_their_share_to_other_groups() -> None:
    rng = np.random.default_rng(4)
    heap = np.zeros((3000, 4), np.float32)
    heap[:, 0] = rng.integers(0, 3, 3000) * 0.01 + 50  # most of the mass, three distinct rows
    X = np.concatenate([heap, rng.normal(size=(500, 4)).astype(np.float32)])
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        found = fit_two_level(engine, data, two(100))
    assert len(found.vectors) == 100
    assert len(np.unique(found.vectors, axis=0)) == 100
    assert np.count_nonzero(found.vectors[:, 0] > 40) == 3


def test_too_few_distinct_rows_are_an_error_unless_allowed() -> None:
    X = np.repeat(np.arange(30, dtype=np.float32)[:, None] * [1, 2], 10, axis=0).astype(np.float32)
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        with pytest.raises(DataError, match="only 30 distinct rows were found for 40 clusters"):
            fit_two_level(engine, data, two(40))
        assert len(fit_two_level(engine, data, two(40, allow_fewer=True)).vectors) == 30
        with pytest.raises(DataError, match="n_samples=300 should be >= n_clusters=301"):
            fit_two_level(engine, data, two(301))


@pytest.mark.parametrize("more", [{"n_init": 2}, {"init": np.zeros((4, 3))}])
def test_what_two_levels_do_not_take_is_refused(more: dict[str, Any]) -> None:
    with (
        LocalEngine(1) as engine,
        prepared(engine, np.eye(9, 3, dtype=np.float32)) as data,
        pytest.raises(UsageError, match=r"neither centres as init nor n_init above 1.*--strategy flat"),
    ):
        fit_two_level(engine, data, two(4, **more))


def test_auto_takes_two_levels_for_very_many_clusters_only() -> None:
    many = two_level.TWO_LEVEL_CLUSTERS
    assert is_two_level(KMeansConfig(n_clusters=many))
    assert not is_two_level(KMeansConfig(n_clusters=many - 1))
    assert not is_two_level(KMeansConfig(n_clusters=many, n_init=2))
    assert not is_two_level(KMeansConfig(n_clusters=many, strategy="flat"))
    with pytest.raises(UsageError, match=r"Unknown strategy 'two_level'.*Did you mean 'two-level'"):
        KMeansConfig(n_clusters=5, strategy="two_level")  # type: ignore[arg-type]


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 60)), min_size=1, max_size=12),
)
def test_shares_are_exact_bounded_and_in_proportion(total: int, groups_: list[tuple[int, int]]) -> None:
    mass, most = (np.array(column, np.int64) for column in zip(*groups_, strict=True))
    shares = apportion(total, mass, most)
    takers = (mass > 0) & (most > 0)
    assert shares.sum() == min(total, int(most[takers].sum()))
    assert (shares <= most).all()
    assert (shares[~takers] == 0).all()
    if total >= takers.sum():
        assert (shares[takers] >= 1).all()
    free = np.flatnonzero(takers & (shares < most) & (shares > 1))
    for a in free:  # beyond the first one each, shares of those with room differ from the quota by less than one
        for b in free:
            assert abs((shares[a] - 1) * mass[b] - (shares[b] - 1) * mass[a]) < 2 * max(mass[a], mass[b])


class TestRouting:
    def rule(self, probes: int) -> tuple[np.ndarray, RoutedCenters]:
        rng = np.random.default_rng(6)
        X = blobs(1000, 4, 9).round(0)  # rounded, so that there are ties
        cells = rng.normal(size=(7, 4)).astype(np.float32) * 3
        counts = np.array([5, 0, 12, 1, 9, 40, 3])
        centers = X[rng.choice(1000, counts.sum(), replace=False)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        return X, RoutedCenters(CenterSet(cells), starts, CenterSet(centers), probes)

    def test_with_all_cells_probed_labels_are_exact(self) -> None:
        X, rule = self.rule(6)
        assert rule.route(X).tolist() == exact_labels(X, rule.centers).tolist()
        assert self.rule(99)[1].route(X).tolist() == exact_labels(X, rule.centers).tolist()

    def test_labels_are_the_nearest_of_the_probed_cells(self) -> None:
        X, rule = self.rule(2)
        cells = [1 * (rule.starts[i + 1] > rule.starts[i]) for i in range(7)]
        far = ((X[:, None] - rule.cells.rows[None]) ** 2).sum(axis=2)
        far[:, np.array(cells) == 0] = np.inf
        owner = np.repeat(np.arange(7), np.diff(rule.starts))
        away = ((X[:, None].astype(np.float64) - rule.centers.rows[None]) ** 2).sum(axis=2)
        probed = np.argsort(far, axis=1, kind="stable")[:, :2]
        for row in range(len(X)):
            seen = np.isin(owner, probed[row])
            assert away[row, rule.route(X[row : row + 1])[0]] == away[row][seen].min()

    def test_neighbors_are_the_nearest_centers(self) -> None:
        X, rule = self.rule(6)
        found = rule.neighbors(X[:50], 5)
        away = ((X[:50, None].astype(np.float64) - rule.centers.rows[None]) ** 2).sum(axis=2)
        assert np.array_equal(np.take_along_axis(away, found, axis=1), np.sort(away, axis=1)[:, :5])
        padded = rule.neighbors(X[:3], 90)
        assert (padded[:, :70] >= 0).all()
        assert (padded[:, 70:] == -1).all()

    def test_stored_centers_travel_by_name(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
        stored = store_centers(open_storage(tmp_path), "c.npy", (1000, 8), "float32", [rows[:300], rows[300:]])
        assert stored.tag == CenterSet(rows).tag
        travelling = pickle.dumps(stored)
        assert len(travelling) < 1000
        assert np.array_equal(pickle.loads(travelling).rows, rows)


@given(st.integers(1, 6), st.integers(1, 20), st.randoms(use_true_random=False))
def test_lowest_columns_are_those_of_a_stable_sort(n: int, k: int, random: Any) -> None:
    table = np.array([[random.randrange(4) for _ in range(k)] for _ in range(n)], np.float32)
    for m in {1, k, (k + 1) // 2}:
        assert lowest_columns(table, m).tolist() == np.argsort(table, axis=1, kind="stable")[:, :m].tolist()
    with pytest.raises(ValueError, match=f"1 to {k} is allowed"):
        lowest_columns(table, k + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_candidates_are_followed_as_a_plain_search_does(dtype: type) -> None:
    rng = np.random.default_rng(8)
    X, centers = rng.integers(0, 5, (300, 3)).astype(dtype), rng.integers(0, 5, (40, 3)).astype(dtype)
    near = rng.integers(-1, 40, (40, 4)).astype(np.int32)
    start = rng.integers(0, 40, 300).astype(np.int32)
    away = ((X[:, None].astype(np.float64) - centers[None]) ** 2).sum(axis=2)
    for hops in (1, 3):
        expected = start.copy()
        for row in range(300):
            for _ in range(hops):
                listed = near[expected[row]].tolist()
                seen = [expected[row], *listed[: listed.index(-1) if -1 in listed else None]]
                lowest = min(away[row, j] for j in seen)
                # The row stays where it is unless another is nearer, or as near with a lower index.
                expected[row] = min(j for j in seen if away[row, j] == lowest)
        assert assign_candidates(X, centers, near, start, hops).tolist() == expected.tolist()
