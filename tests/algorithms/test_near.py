"""Passes by lists of near centres: the same bits everywhere, checkpoints, labels proven at the end, quality."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distclust.algorithms import candidates, lloyd, progressive
from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.lloyd import ListPlan, LloydState, run_lloyd
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.near import assign_listed, list_near, listed_centers
from distclust.kernels.nearest import assign_nearest, pack_centers
from distclust.kernels.rounded import round_rows
from distclust.kernels.screened import screen_centers
from distclust.ops import near
from distclust.ops.assign import assign, predict
from distclust.ops.centers import CenterSet
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans_bits import KINDS, adversarial, fit_bits

K, WIDTH = 70, 48


@pytest.fixture
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as opened:
        yield opened


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Take lists on small data; count how often lists are made and used."""
    monkeypatch.setattr(progressive, "LIST_CLUSTERS_BY_WIDTH", ((48, 64), (16, 150)))
    monkeypatch.setattr(progressive, "LEAST_SAMPLE", 1000)
    monkeypatch.setattr(progressive, "LEAST_LISTED_SHARE", 0.0)
    seen: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        plain = getattr(near, name)

        def call(*arguments: Any, **more: Any) -> Any:
            seen[name] += 1
            return plain(*arguments, **more)

        return call

    for name in ("list_near", "assign_listed"):
        monkeypatch.setattr(near, name, counted(name))
    return seen


def blobs(n: int = 6000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, WIDTH)) * 2
    return (centers[rng.integers(0, 40, n)] + rng.normal(size=(n, WIDTH))).astype(np.float32)


def config(**more: Any) -> KMeansConfig:
    return KMeansConfig(**{"n_clusters": K, "fit_mode": "progressive", "seed": 3, "max_iter": 20, **more})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_engines_partitions_and_algorithms_agree_on_every_bit(kind: str, metric: Any, calls: Counter[str]) -> None:
    rng = np.random.default_rng(1)
    X = adversarial(rng, 4000, WIDTH, kind)
    settings = config(metric=metric, rtol=1e-3, allow_fewer=True)
    with LocalEngine(2) as local, HostileEngine(1) as hostile:
        whole = fit_bits(local, X, None, settings)
        if metric == "euclidean" or kind not in ("offset", "line"):  # there all rows have one direction, or two
            assert calls["assign_listed"] >= calls["list_near"] > 0
        assert fit_bits(local, X, random_sizes(rng, 4000, 5), replace(settings, algorithm="lloyd")) == whole
        assert fit_bits(hostile, X, random_sizes(rng, 4000, 7), settings) == whole


def test_weighted_rows_agree(calls: Counter[str]) -> None:
    rng = np.random.default_rng(2)
    X, weights = blobs(), rng.choice([0.0, 0.5, 3.0], 6000)
    with LocalEngine(1) as local, HostileEngine(2) as hostile:
        whole = fit_bits(local, X, None, config(), weights=weights)
        assert calls["assign_listed"]
        assert fit_bits(hostile, X, random_sizes(rng, 6000, 6), config(), weights=weights) == whole


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-5])
def test_labels_in_the_end_are_the_nearest_of_all_centres(rtol: float, engine: Engine, calls: Counter[str]) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        result = fit_kmeans(engine, data, config(rtol=rtol, max_iter=100))
        assert result.converged
        asked = calls["assign_listed"]
        labels = predict(engine, data.pinned, result.centers)
        assert calls["assign_listed"] == asked
        rows = (X.astype(np.float64) - data.offset).astype(np.float32)
        np.testing.assert_array_equal(labels, assign_nearest(rows, pack_centers(result.centers.rows))[0])
        # The last pass looked at all centres and left them: its inertia is that of the result.
        inertia = row_sqdist(rows, result.centers.rows, labels).sum()
        assert result.history[-1].inertia == pytest.approx(inertia, rel=1e-13)
        assert result.inertia == result.history[-1].inertia


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_inertia_of_passes_by_lists_is_that_of_their_labels(
    metric: Any, offset: float, engine: Engine, calls: Counter[str]
) -> None:
    X, weights = blobs() + np.float32(offset), np.random.default_rng(4).choice([0.0, 0.5, 3.0], 6000)
    with prepared(engine, X, weights=weights, metric=metric) as data:
        ((rows, mass),) = engine.map(
            data.pinned, lambda block, *_: (block.x.copy(), block.weights.copy()), label="rows"
        )
        after: list[LloydState] = []
        run_lloyd(
            engine,
            data,
            config(metric=metric, rtol=1e-4),
            LloydState(rows[:K].astype(np.float64)),
            stride=progressive.FAR,
            lists=ListPlan((2, 3), full=True, confirm=True),
            checkpoint=after.append,
        )
    seen = 0
    for state in after:
        if not state.by_lists:
            continue
        assert state.previous is not None
        assert state.anchor is not None
        centers, anchor = (part.astype(np.float32) for part in (state.previous, state.anchor))
        packed = pack_centers(anchor)
        lists = list_near(rows, packed, screen_centers(anchor, packed, anywhere=True))
        screened = screen_centers(centers, pack_centers(centers), anywhere=True)
        assert screened is not None
        labels = assign_listed(round_rows(rows), listed_centers(screened), lists)
        inertia = (mass * row_sqdist(rows, centers, labels)).sum()
        assert state.history[-1].inertia == pytest.approx(inertia, rel=1e-9)
        seen += 1
    assert seen >= 3


def test_labels_of_the_last_pass_serve_the_result(
    engine: Engine, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared(engine, blobs()) as data:
        result = fit_kmeans(engine, data, config(rtol=1e-3))
        assert result.converged
        monkeypatch.setattr("distclust.ops.centers.assign_labels", lambda *_: pytest.fail("labels were found again"))
        assert len(predict(engine, data.pinned, result.centers)) == 6000


@pytest.mark.parametrize("more", [{"max_iter": 4}, {"fit_mode": "full"}, {"compute_labels": False}])
def test_other_last_passes_leave_the_inertia_of_the_result_open(more: dict[str, Any], engine: Engine) -> None:
    with prepared(engine, blobs()) as data:
        assert fit_kmeans(engine, data, config(rtol=1e-3, **more)).inertia is None


def test_an_inertia_of_few_digits_is_measured_anew(engine: Engine, calls: Counter[str]) -> None:
    X = blobs()
    X[:, 0] += np.where(np.arange(len(X)) % 2, 300, -300)  # a thousand times the inertia lies between two halves
    with prepared(engine, X) as data:
        result = fit_kmeans(engine, data, config(rtol=1e-3))
    assert result.converged
    assert calls["assign_listed"]
    assert result.inertia is None


@pytest.mark.parametrize("rtol", [5e-2, 1e-2, 1e-3])
def test_without_labels_a_fit_ends_at_the_same_centres_a_pass_earlier(
    rtol: float, engine: Engine, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared(engine, blobs()) as data:
        whole = fit_kmeans(engine, data, config(rtol=rtol))
        proven: list[str] = []
        nearest = CenterSet.nearest
        monkeypatch.setattr(CenterSet, "nearest", lambda *given: proven.append("pass") or nearest(*given))
        ended = fit_kmeans(engine, data, config(rtol=rtol, compute_labels=False))
    assert whole.converged
    assert ended.converged
    assert calls["assign_listed"]
    assert not proven
    assert ended.vectors.tobytes() == whole.vectors.tobytes()
    assert ended.centers.tag == whole.centers.tag
    assert ended.n_iter == whole.n_iter - 1


def test_inertia_is_that_of_passes_over_all_centres(
    engine: Engine, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared(engine, blobs(9000)) as data:
        by_lists = fit_kmeans(engine, data, config()).history[-1].inertia
        assert calls["assign_listed"]
        monkeypatch.setattr(progressive, "LIST_CLUSTERS_BY_WIDTH", ((48, 1000),))
        calls.clear()
        exact = fit_kmeans(engine, data, config()).history[-1].inertia
        assert not calls
    assert by_lists <= 1.01 * exact


@pytest.mark.parametrize(
    ("clusters", "width", "precision"),
    [(K, 47, "float32"), (K, 48, "float64"), (60, 48, "float32"), (150, 15, "float32"), (140, 16, "float32")],
)
def test_no_lists_where_they_do_not_pay(
    clusters: int, width: int, precision: Any, engine: Engine, calls: Counter[str]
) -> None:
    X = np.random.default_rng(0).normal(size=(3000, width))
    with prepared(engine, X, precision=precision) as data:
        fit_kmeans(engine, data, config(n_clusters=clusters, max_iter=3))
    assert not calls


def test_no_lists_in_plain_fits(engine: Engine, calls: Counter[str]) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        fit_kmeans(engine, data, config(fit_mode="full", max_iter=3))
        fit_kmeans(engine, data, config(fit_mode="auto", max_iter=3))
        fit_kmeans(engine, data, config(init=X[:K].astype(np.float64), max_iter=3))
    assert not calls


class Kept:
    """Checkpoints in memory: every step is kept, as JSON and copies of the arrays."""

    def __init__(self, start: int | None = None, steps: list[Any] | None = None) -> None:
        self.steps: list[Any] = [] if steps is None else steps
        self._start = start

    def checkpoints(self, name: str) -> Kept:
        return self

    def save(self, step: int, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.steps.append((json.dumps(state), {name: array.copy() for name, array in arrays.items()}))

    def load(self) -> SimpleNamespace | None:
        if self._start is None:
            return None
        state, arrays = self.steps[self._start]
        return SimpleNamespace(state=json.loads(state), arrays=arrays)


def test_a_fit_goes_on_from_any_pass_with_the_same_bits(engine: Engine, calls: Counter[str]) -> None:
    X, kept = blobs(), Kept()
    with prepared(engine, X) as data:
        whole = fit_kmeans(engine, data, config(rtol=1e-3), kept)
    states = [json.loads(state)["state"] for state, _ in kept.steps[:-1]]
    assert {"anchor", "lists", "last"} <= {state["next_pass"] for state in states}
    assert {True, False} == {"state-anchor" in arrays for _, arrays in kept.steps}
    for start in range(len(states)):
        with prepared(engine, X, [2500, 3500]) as data:  # nothing is left of labels and lists
            again = fit_kmeans(engine, data, config(rtol=1e-3), Kept(start, list(kept.steps)))
        assert again.vectors.tobytes() == whole.vectors.tobytes()
        assert [h.inertia for h in again.history] == [h.inertia for h in whole.history]
        assert again.inertia == whole.inertia is not None


def test_lists_are_made_anew_as_planned(engine: Engine, calls: Counter[str]) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        state = LloydState(X[:K].astype(np.float64) - data.offset)
        plan, kinds = ListPlan((1, 3), full=True, confirm=True), []
        run_lloyd(
            engine,
            data,
            config(rtol=0.0, tol=0.0, max_iter=11),
            state,
            stride=progressive.FAR,
            lists=plan,
            checkpoint=lambda after: kinds.append(after.next_pass),
        )
    assert kinds == [
        "lists",
        "anchor",
        "lists",
        "lists",
        "lists",
        "anchor",
        "lists",
        "lists",
        "lists",
        "anchor",
        "lists",
    ]


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_an_empty_cluster_waits_until_the_next_pass_is_over_all_centres(
    passes: int, engine: Engine, calls: Counter[str]
) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        seeds = X[:K].astype(np.float64) - data.offset
        seeds[5] = 1e3  # no row is near
        after: list[LloydState] = []
        run_lloyd(
            engine,
            data,
            config(max_iter=passes + 2, rtol=0.0, tol=0.0),
            LloydState(seeds, anchor=seeds, anchors=1, next_pass="lists"),
            lists=ListPlan((passes, 3), full=True, confirm=True),
            checkpoint=after.append,
        )
    assert [state.next_pass for state in after[:passes]] == ["lists"] * (passes - 1) + ["anchor"]
    assert [state.empty for state in after[:passes]] == [(5,)] * (passes - 1) + [()]
    assert [state.history[-1].reassigned for state in after[: passes + 1]] == [0] * (passes - 1) + [1, 0]
    assert 5 not in after[passes].empty, "rows were found for it"


@pytest.mark.parametrize("passes", [1, 2])
def test_a_fit_that_ends_by_max_iter_leaves_no_cluster_empty(passes: int, engine: Engine) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        seeds = X[:K].astype(np.float64) - data.offset
        seeds[5] = 1e3
        settings = config(max_iter=passes, rtol=0.0, tol=0.0)
        found = run_lloyd(engine, data, settings, LloydState(seeds), lists=ListPlan((3,), full=True, confirm=True))
    assert found.iteration == passes
    assert not found.empty
    assert found.history[-1].reassigned == 1


def test_rows_that_repeat_do_not_become_two_seeds(
    engine: Engine, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    distinct = rng.normal(size=(1200, WIDTH)).astype(np.float32)
    distinct[1::2] = distinct[::2]
    distinct[1::2, 0] += np.float32(8e-3)  # less than a step of the bytes, which seldom tell them apart
    X = np.repeat(distinct, 5, axis=0)
    ways: list[bool] = []
    plain = candidates.spread

    def noted(*arguments: Any, rough: bool = True, **more: Any) -> Any:
        ways.append(rough)
        return plain(*arguments, rough=rough, **more)

    monkeypatch.setattr(candidates, "spread", noted)
    with prepared(engine, X) as data:
        found = noted(engine, data, 1160, seed=0, stage=0)
    assert ways == [True, False]
    assert len({row.tobytes() for row in found.rows}) == len(found.rows) == 1160


def groups(width: int, spread: float) -> np.ndarray:
    """Rows in 12 tight groups: several centres in each, near each other and far from the mean of all."""
    rng = np.random.default_rng(7)
    middles = rng.normal(size=(12, width))
    return (middles[rng.integers(0, 12, 9000)] + spread * rng.normal(size=(9000, width))).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, progressive.LEAST_LISTED_SHARE])
@pytest.mark.parametrize(("width", "spread"), [(48, 0.1), (48, 0.03), (48, 1e-3), (16, 0.1), (16, 0.03), (16, 1e-3)])
def test_rows_in_tight_groups_are_clustered_as_by_exact_passes(
    width: int, spread: float, share: float, engine: Engine, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progressive, "LEAST_LISTED_SHARE", share)
    clusters = K if width == WIDTH else 150
    with prepared(engine, groups(width, spread)) as data:
        exact = fit_kmeans(engine, data, config(n_clusters=clusters, fit_mode="full", rtol=1e-4, max_iter=300))
        found = fit_kmeans(engine, data, config(n_clusters=clusters, rtol=1e-4, max_iter=300))
        assert bool(calls["assign_listed"]) == (share == 0.0)
        inertias = [assign(engine, data, result.centers).inertia.total() for result in (found, exact)]
    assert found.converged
    assert found.n_iter < 100
    assert inertias[0] < 1.01 * inertias[1]


def test_lists_that_see_too_little_are_given_up(engine: Engine, calls: Counter[str]) -> None:
    kept = Kept()
    with prepared(engine, groups(WIDTH, 0.003)) as data:
        found = fit_kmeans(engine, data, config(rtol=1e-5, max_iter=300), kept)
    kinds = [json.loads(state)["state"]["next_pass"] for state, _ in kept.steps[:-1]]
    assert found.converged
    assert kinds.count("last") == 1
    assert "exact" in kinds
    assert set(kinds[kinds.index("exact") :]) <= {"exact", "plain"}
    for start in range(kinds.index("last"), len(kinds)):
        with prepared(engine, groups(WIDTH, 0.003), [4000, 5000]) as data:
            again = fit_kmeans(engine, data, config(rtol=1e-5, max_iter=300), Kept(start, list(kept.steps)))
        assert again.vectors.tobytes() == found.vectors.tobytes()


@pytest.mark.parametrize("width", [16, 31, WIDTH])
def test_engines_agree_where_exact_passes_with_bounds_follow_lists(
    width: int, calls: Counter[str], bounds_always: list[int]
) -> None:
    X, rng = groups(width, 0.003), np.random.default_rng(0)
    settings = config(n_clusters=K if width == WIDTH else 150, rtol=1e-5, max_iter=60)
    with LocalEngine(2) as local, HostileEngine(1) as hostile:
        whole = fit_bits(local, X, None, settings)
        assert calls["assign_listed"]
        assert bounds_always or width < WIDTH
        assert fit_bits(hostile, X, random_sizes(rng, len(X), 5), settings) == whole
        assert fit_bits(local, X, None, replace(settings, algorithm="lloyd")) == whole


@pytest.mark.parametrize("empty", [1, 69])
def test_a_fit_without_labels_leaves_no_cluster_empty(empty: int, engine: Engine, calls: Counter[str]) -> None:
    X = blobs()
    with prepared(engine, X) as data:
        seeds = X[:K].astype(np.float64) - data.offset
        seeds[1 : 1 + empty] = 1e3 * (1 + np.arange(empty))[:, None]  # more than one pass can fill
        found = [
            run_lloyd(
                engine,
                data,
                config(rtol=0.9, tol=0.0, max_iter=50),
                LloydState(seeds.copy(), squares=data.moments.sum_squares),
                stride=progressive.FAR,
                lists=ListPlan((2, 3), full=True, confirm=confirm),
            )
            for confirm in (True, False)
        ]
    for state in found:
        assert state.finished
        assert not state.empty
    assert found[0].centers.tobytes() == found[1].centers.tobytes()


def test_the_history_of_a_list_pass_is_of_its_labels(engine: Engine, calls: Counter[str]) -> None:
    with prepared(engine, blobs()) as data:
        result = fit_kmeans(engine, data, config(rtol=1e-3))
    inertia = [entry.inertia for entry in result.history if entry.rows == 6000]
    assert inertia[-1] == min(inertia)
    assert lloyd.LIST_RTOL < 1


def test_a_row_that_its_cluster_cannot_spare_leaves_the_next_to_an_empty_one() -> None:
    sums = np.array([[9.0, 0.0], [10.0, 5.0], [0.0, 0.0]])
    totals = lloyd.ClusterSums(np.arange(3), sums.astype(np.int64), np.array([1, 5, 0]), np.array([1, 5, 0]))
    far = lloyd.FarRows(
        3,
        np.array([4.0, 2.0, 0.0]),
        np.array([7, 3, 5]),
        np.array([[9.0, 0.0], [4.0, 1.0], [2.0, 1.0]]),
        np.array([0, 1, 1], np.int32),
        np.ones(3),
    )
    update = lloyd.update_centers(np.zeros((3, 2)), totals, far, lloyd.SumScales(np.ones(2), 1.0), unit=False)
    assert update.means.tolist() == [[9.0, 0.0], [1.5, 1.0], [4.0, 1.0]]
    assert (update.reassigned, update.empty) == (1, ())
