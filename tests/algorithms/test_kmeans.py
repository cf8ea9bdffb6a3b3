"""k-means against a plain numpy twin, its stopping rules, restarts, empty clusters, weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from distclust.algorithms import lloyd, seeding
from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.lloyd import LloydState, Stride, run_lloyd
from distclust.artifacts.checkpoint import Checkpoints
from distclust.data.block import Block
from distclust.data.storage import open_storage
from distclust.engines.events import Event, IterationEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions, StepContext
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops.assign import assign, predict
from distclust.stats.lloyd import LloydStats
from tests.algorithms.rows import prepared


def naive_lloyd(X: np.ndarray, centers: np.ndarray, passes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Lloyd in float64, no empty clusters."""
    w = np.ones(len(X)) if weights is None else weights
    for _ in range(passes):
        labels = ((X[:, None, :] - centers[None]) ** 2).sum(-1).argmin(1)
        centers = np.array([np.average(X[labels == j], axis=0, weights=w[labels == j]) for j in range(len(centers))])
    return centers


@pytest.fixture
def engine() -> Engine:
    with LocalEngine(2) as opened:
        yield opened


@pytest.fixture
def blobs() -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.concatenate([rng.normal(m, 1.0, (150, 3)) for m in (-5, 0, 5, 10)])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("passes", [1, 2, 5])
def test_centres_equal_those_of_the_naive_twin(engine: Engine, blobs: np.ndarray, passes: int, weighted: bool) -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, len(blobs)) if weighted else None
    init = blobs[::100]
    config = KMeansConfig(n_clusters=len(init), init=init, max_iter=passes, tol=0, rtol=0)
    with prepared(engine, blobs, weights=weights) as data:
        result = fit_kmeans(engine, data, config)
    assert result.vectors == pytest.approx(naive_lloyd(blobs, init, passes, weights), abs=1e-6)


def test_history_and_exact_inertia(engine: Engine, blobs: np.ndarray) -> None:
    with prepared(engine, blobs) as data:
        result = fit_kmeans(engine, data, KMeansConfig(n_clusters=4, seed=1, rtol=0, tol=0))
        stats = assign(engine, data, result.centers)
        labels = predict(engine, data.pinned, result.centers)
    inertia = [h.inertia for h in result.history]
    assert inertia == sorted(inertia, reverse=True)
    assert result.converged
    assert result.history[-1].moved == 0
    assert stats.inertia.total() == pytest.approx(((blobs - result.vectors[labels]) ** 2).sum(), rel=1e-6)
    assert stats.counts.tolist() == np.bincount(labels, minlength=4).tolist()


@pytest.mark.parametrize(("metric", "weighted"), [("euclidean", False), ("euclidean", True), ("cosine", False)])
def test_inertia_of_full_fits_is_that_of_their_rows(
    engine: Engine, blobs: np.ndarray, metric: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(0).uniform(0, 3, len(blobs)) if weighted else None
    config = KMeansConfig(n_clusters=20, seed=1, fit_mode="full", rtol=0, tol=0)
    measures: list[bool] = []
    step = lloyd.LloydStep.__call__

    def noted(self: lloyd.LloydStep, block: Block, value: lloyd.LloydValue, context: StepContext) -> LloydStats:
        measures.append(value.measured)
        return step(self, block, value, context)

    monkeypatch.setattr(lloyd.LloydStep, "__call__", noted)
    with prepared(engine, blobs, weights=weights, metric=metric) as data:
        summed = fit_kmeans(engine, data, config)
        assert measures.count(True) == measures.count(False) / (summed.n_iter - 1), "only the first pass measures"
        monkeypatch.setattr(lloyd, "LEAST_SHARE", math.inf)
        measures.clear()
        measured = fit_kmeans(engine, data, config)
        assert all(measures)
    assert summed.n_iter == measured.n_iter > 5
    assert summed.vectors.tobytes() == measured.vectors.tobytes()
    assert [h.inertia for h in summed.history] == pytest.approx([h.inertia for h in measured.history], rel=1e-13)


def test_an_inertia_that_sums_have_no_digits_for_is_measured(engine: Engine, blobs: np.ndarray) -> None:
    groups = np.repeat(blobs[:30] * 1e4, 20, axis=0) + 1e-2 * np.random.default_rng(0).normal(size=(600, 3))
    with prepared(engine, groups, precision="float64") as data:
        result = fit_kmeans(engine, data, KMeansConfig(n_clusters=30, init=groups[::20], rtol=0, tol=0))
        exact = assign(engine, data, result.centers).inertia.total()
        assert exact < 1e-9 * data.moments.sum_squares
    assert result.history[-1].inertia == pytest.approx(exact, rel=1e-12)


def test_an_inertia_that_falls_to_few_digits_is_measured_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = np.repeat(np.array([[0.0], [1.0], [2.0], [5.0]]) * 1e6, 50, axis=0)
    groups += 1e-3 * np.random.default_rng(0).normal(size=(200, 1))
    apart = groups.reshape(4, 50)
    within = ((apart - apart.mean(axis=1, keepdims=True)) ** 2).sum()
    # The empty cluster takes a row of the third group: the third pass is the first with a centre in each.
    config = KMeansConfig(n_clusters=4, init=np.array([[0.0], [1e6], [5e6], [1e9]]), rtol=0, tol=0)
    with prepared(engine, groups, precision="float64") as data:
        inertia = [h.inertia for h in fit_kmeans(engine, data, config).history]
        monkeypatch.setattr(lloyd, "LEAST_SHARE", 0.0)
        summed = [h.inertia for h in fit_kmeans(engine, data, config).history]
    assert inertia[1] > 1e12
    assert (1 - 1e-6) * within <= inertia[2] < 1e3 * within
    assert inertia[-1] == pytest.approx(within, rel=1e-6)
    assert summed[2] != pytest.approx(inertia[2], rel=1e-3), "sums have no digits for it"


def test_each_stopping_rule_stops(engine: Engine) -> None:
    X = np.random.default_rng(0).normal(size=(2000, 4))

    def passes(**rule: float) -> int:
        settings = {"tol": 0.0, "rtol": 0.0, "max_iter": 200, **rule}
        with prepared(engine, X) as data:
            return fit_kmeans(engine, data, KMeansConfig(n_clusters=20, init=X[:20], **settings)).n_iter  # type: ignore[arg-type]

    unchanged = passes()
    assert 20 < unchanged < 200
    assert passes(tol=1e-3) < unchanged
    assert passes(rtol=1e-2) < unchanged
    assert passes(max_iter=3) == 3


def test_an_empty_cluster_takes_the_farthest_row(engine: Engine) -> None:
    X = np.array([[0.0], [1.0], [2.0], [50.0]])
    config = KMeansConfig(n_clusters=3, init=np.array([[0.0], [1.0], [900.0]]), max_iter=1)
    with prepared(engine, X) as data:
        result = fit_kmeans(engine, data, config)
    assert sorted(result.vectors[:, 0].tolist()) == [0.0, 1.5, 50.0], "50 left the cluster of 1 and 2"
    assert result.history[0].reassigned == 1


def test_more_empty_clusters_than_one_pass_can_fill(engine: Engine) -> None:
    X = np.random.default_rng(0).normal(size=(500, 2))
    init = np.concatenate([X[:1], np.full((149, 2), 1e4) + np.arange(149)[:, None]])
    with prepared(engine, X) as data:
        result = fit_kmeans(engine, data, KMeansConfig(n_clusters=150, init=init))
        assert (assign(engine, data, result.centers).counts > 0).all()


def test_rows_of_no_weight_move_no_centre_and_are_no_centre(engine: Engine, blobs: np.ndarray) -> None:
    far = np.concatenate([blobs, np.full((5, 3), 400.0)])
    weights = np.concatenate([np.ones(len(blobs)), np.zeros(5)])
    with prepared(engine, far, weights=weights) as data:
        result = fit_kmeans(engine, data, KMeansConfig(n_clusters=6, seed=0))
    assert result.vectors.max() < 50


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
def test_fewer_distinct_rows_than_clusters(engine: Engine, init: str) -> None:
    X = np.repeat(np.arange(5.0)[:, None], 20, axis=0)
    with prepared(engine, X) as data:
        with pytest.raises(DataError, match=r"only 5 distinct rows were found for 8 clusters.*at most 5"):
            fit_kmeans(engine, data, KMeansConfig(n_clusters=8, init=init))  # type: ignore[arg-type]
        few = fit_kmeans(engine, data, KMeansConfig(n_clusters=8, init=init, allow_fewer=True))  # type: ignore[arg-type]
    assert sorted(few.vectors[:, 0].tolist()) == [0, 1, 2, 3, 4]


def test_more_clusters_than_rows(engine: Engine) -> None:
    with prepared(engine, np.arange(3.0)[:, None]) as data:
        with pytest.raises(DataError, match=r"n_samples=3 should be >= n_clusters=4"):
            fit_kmeans(engine, data, KMeansConfig(n_clusters=4))
        assert len(fit_kmeans(engine, data, KMeansConfig(n_clusters=4, allow_fewer=True)).vectors) == 3


def test_restarts_keep_the_best(engine: Engine) -> None:
    X = np.random.default_rng(5).normal(size=(400, 2))

    def inertia(seed: int, n_init: int) -> float:
        with prepared(engine, X) as data:
            config = KMeansConfig(n_clusters=12, init="random", seed=seed, n_init=n_init, max_iter=4)
            return assign(engine, data, fit_kmeans(engine, data, config).centers).inertia.total()

    assert inertia(0, 8) < inertia(0, 1), "the first of the eight is the one alone"


class Run:
    """A place for checkpoints."""

    def __init__(self, directory: Path) -> None:
        self._storage = open_storage(directory)

    def checkpoints(self, name: str) -> Checkpoints:
        return Checkpoints(self._storage, name)


@pytest.mark.parametrize("n_init", [1, 3])
def test_a_cancelled_fit_goes_on_with_the_same_bits_and_history(tmp_path: Path, blobs: np.ndarray, n_init: int) -> None:
    config = KMeansConfig(n_clusters=9, seed=2, n_init=n_init, rtol=0, tol=0, max_iter=8)
    with LocalEngine(2) as engine, prepared(engine, blobs) as data:
        whole = fit_kmeans(engine, data, config)
    done = 0
    for stop_after in (2, 1, 4, 1000):
        cancel = CancelToken()
        seen = 0

        def emit(event: Event, cancel: CancelToken = cancel, stop_after: int = stop_after) -> None:
            nonlocal seen
            if isinstance(event, IterationEnded):
                seen += 1
                if seen == stop_after:
                    cancel.cancel()

        with LocalEngine(2, EngineOptions(emit=emit)) as engine, prepared(engine, blobs) as data:
            engine = LocalEngine(2, EngineOptions(emit=emit, cancel=cancel))
            if stop_after == 1000:
                again = fit_kmeans(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
            else:
                with pytest.raises(CancelledError):
                    fit_kmeans(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
            engine.close()
        done += seen
    assert again.vectors.tobytes() == whole.vectors.tobytes()
    same = ("iteration", "inertia", "shift", "moved", "reassigned")
    assert [[getattr(h, f) for f in same] for h in again.history] == [
        [getattr(h, f) for f in same] for h in whole.history
    ]


def test_a_finished_state_is_left_as_it_is(engine: Engine, blobs: np.ndarray) -> None:
    state = LloydState(np.zeros((2, 3)), iteration=4, finished=True)
    with prepared(engine, blobs) as data:
        assert run_lloyd(engine, data, KMeansConfig(n_clusters=2), state) is state


def naive_strides(X: np.ndarray, centers: np.ndarray, passes: int, stride: Stride) -> np.ndarray:
    """Lloyd with strides in float64: the first pass and the last one end at the means."""
    before: np.ndarray | None = None
    for number in range(passes):
        means = naive_lloyd(X, centers, 1)
        if number in (0, passes - 1):
            new = means
        else:
            new = centers + stride.relaxation * (means - centers)
            new += 0 if number == 1 else stride.momentum * (centers - before)
        before, centers = centers, new
    return centers


@pytest.mark.parametrize("passes", [2, 3, 4, 6])
def test_strides_go_beyond_the_means(engine: Engine, blobs: np.ndarray, passes: int) -> None:
    config, stride = KMeansConfig(n_clusters=12, max_iter=passes, tol=0, rtol=0), Stride(1.7, 0.4)
    with prepared(engine, blobs) as data:
        first = LloydState(blobs[::50] - data.offset)
        found = run_lloyd(engine, data, config, first, stride=stride).centers + data.offset
    assert found == pytest.approx(naive_strides(blobs, blobs[::50], passes, stride), abs=1e-5)


def test_a_rise_leads_back_to_the_means_and_ends_nothing(engine: Engine) -> None:
    X = np.random.default_rng(0).normal(size=(2000, 3))
    config, wild = KMeansConfig(n_clusters=20, max_iter=40, tol=0, rtol=1e-4), Stride(1.9, 0.9)
    with prepared(engine, X) as data:
        first = LloydState(X[:20] - data.offset)
        history = [entry.inertia for entry in run_lloyd(engine, data, config, first, stride=wild).history]
        plain = run_lloyd(engine, data, config, first).history[-1].inertia
    rises = [at for at in range(1, len(history)) if history[at] > history[at - 1] * (1 + config.rtol)]
    assert rises
    assert all(at + 1 == config.max_iter or history[at + 1] < history[at] for at in rises)
    assert history[-1] < 1.02 * plain


def test_greedy_seeding_takes_rows_of_weight_and_no_row_twice() -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(40, 7)).astype(np.float32), 3, axis=0)
    weights = np.ones(120)
    weights[:30] = 0
    centers = seeding.greedy_kmeans_plus_plus(rows, weights, 50, seed=1, stage=0)
    assert len(centers) == 30, "there are thirty distinct rows of weight"
    assert len(np.unique(centers, axis=0)) == 30
    assert not (centers[:, None] == rows[None, :30]).all(-1).any()


def test_greedy_seeding_finds_every_blob(blobs: np.ndarray) -> None:
    for seed in range(20):
        centers = seeding.greedy_kmeans_plus_plus(blobs, np.ones(len(blobs)), 4, seed=seed, stage=0)
        assert sorted(np.round(centers.mean(axis=1) / 5).tolist()) == [-1, 0, 1, 2]


def test_scalable_seeding_is_better_than_random(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "SAMPLE_ROWS_LEAST", 100)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 5)) + rng.integers(0, 30, (6000, 1)) * 20

    def start(init: str) -> float:
        with prepared(engine, X) as data:
            config = KMeansConfig(n_clusters=30, init=init, max_iter=1)  # type: ignore[arg-type]
            return fit_kmeans(engine, data, config).history[0].inertia

    assert start("k-means||") < 0.5 * start("random")


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="max_iter == 0, must be an integer of at least 1"):
        KMeansConfig(n_clusters=2, max_iter=0)
    with pytest.raises(UsageError, match="tol == -1, must be a finite number"):
        KMeansConfig(n_clusters=2, tol=-1)
    with pytest.raises(UsageError, match=r"n_clusters == 2\.5"):
        KMeansConfig(n_clusters=2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Unknown init 'kmeans\|\|'"):
        KMeansConfig(n_clusters=2, init="kmeans||")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="finite coordinates"):
        KMeansConfig(n_clusters=1, init=np.array([[np.nan]]))
