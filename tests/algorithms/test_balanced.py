"""Balanced assignment: sizes within bounds, cost near the optimum, the same bits everywhere, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import eye, kron, vstack

from distclust.algorithms import balanced, rounding
from distclust.algorithms.balanced import BalancedResult, balanced_assign
from distclust.algorithms.balanced_config import BalancedConfig
from distclust.engines.events import Event, TaskEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops.assign import assign, predict
from distclust.ops.centers import CenterSet
from distclust.ops.profile import PreparedData
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans import Run
from tests.algorithms.test_kmeans_bits import KINDS, adversarial

WORST = 1.03
"""Most that a balanced assignment may cost, as a multiple of the optimum; measured here: 1.000 to 1.002."""


@pytest.fixture
def engine() -> Engine:
    with LocalEngine(2) as opened:
        yield opened


def center_set(data: PreparedData, centers: np.ndarray) -> CenterSet:
    return CenterSet((centers - data.offset).astype(data.view.dtype))


def solve(
    engine: Engine, X: np.ndarray, centers: np.ndarray, **settings: Any
) -> tuple[np.ndarray, BalancedResult, balanced.BalanceReport]:
    """Return labels, result and report."""
    with prepared(engine, X) as data:
        shared = center_set(data, centers)
        result = balanced_assign(engine, data, shared, BalancedConfig(**settings))
        stats = assign(engine, data, shared, rule=result.rule)
        return predict(engine, data.pinned, result.rule), result, result.report(stats)


def costs_of(X: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return ((X[:, None] - centers[None]) ** 2).sum(axis=-1)


def optimum(costs: np.ndarray, lowest: np.ndarray, highest: np.ndarray, assigned: int) -> float:
    """Least cost of assigning so many rows, each at most once, with sizes within bounds."""
    n, k = costs.shape
    if (lowest == highest).all() and assigned == n:
        columns = np.repeat(np.arange(k), lowest)
        rows, chosen = linear_sum_assignment(costs[:, columns])
        return float(costs[rows, columns[chosen]].sum())
    by_row = kron(eye(n), np.ones((1, k))).tocsr()
    by_column = kron(np.ones((1, n)), eye(k)).tocsr()
    at_most = vstack([by_column, -by_column, by_row])
    limits = np.concatenate([highest, -lowest, np.ones(n)])
    whole = np.ones((1, n * k))
    found = linprog(costs.ravel(), A_ub=at_most, b_ub=limits, A_eq=whole, b_eq=[assigned], method="highs")
    return float(found.fun)


def labelled(shared_data: Path, name: str) -> np.ndarray:
    frame = pq.read_table(shared_data / "labelled" / f"{name}.parquet")
    return np.stack([frame[c].to_numpy() for c in frame.column_names if c.startswith("x")], axis=1).astype(float)


@pytest.mark.parametrize("mass", [1.0, 0.8])
@pytest.mark.parametrize("slack", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(("name", "n", "k"), [("s1", 300, 15), ("unbalance", 240, 8), ("yeast", 300, 10)])
def test_near_the_optimum_and_within_bounds(
    engine: Engine, shared_data: Path, name: str, n: int, k: int, slack: float, mass: float
) -> None:
    rng = np.random.default_rng(0)
    X = labelled(shared_data, name)
    X = X[rng.choice(len(X), n, replace=False)]
    centers = X[rng.choice(n, k, replace=False)]
    labels, result, report = solve(engine, X, centers, capacity_slack=slack, mass=mass)
    sizes = np.bincount(labels[labels >= 0], minlength=k)
    assert (sizes >= result.lowest).all()
    assert (sizes <= result.highest).all()
    assert result.highest.max() <= np.ceil(mass * n / k * (1 + slack))
    assert sizes.sum() == round(mass * n) == report.rows
    costs = costs_of(X, centers)
    cost = costs[np.flatnonzero(labels >= 0), labels[labels >= 0]].sum()
    best = optimum(costs, result.lowest, result.highest, report.rows)
    print(f"{name}, slack {slack}, mass {mass}: {cost / best:.4f} of the optimum, {report.passes} passes")
    assert cost <= WORST * best
    assert report.inertia == pytest.approx(cost, rel=1e-4)
    assert (report.smallest, report.largest) == (sizes.min(), sizes.max())
    assert report.nearest_inertia == pytest.approx(costs.min(axis=1).sum(), rel=1e-4)


def test_given_sizes(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    X = rng.random((400, 2))
    centers = rng.random((4, 2))
    labels, result, report = solve(engine, X, centers, targets=np.array([1.0, 2, 3, 4]), capacity_slack=0.0)
    assert np.bincount(labels).tolist() == [40, 80, 120, 160]
    assert result.targets == pytest.approx([40, 80, 120, 160])
    assert (report.target_smallest, report.target_largest) == pytest.approx((40, 160))
    costs = costs_of(X, centers)
    best = optimum(costs, result.lowest, result.highest, 400)
    assert costs[np.arange(400), labels].sum() <= WORST * best


def test_sizes_that_balance_already_stay(engine: Engine) -> None:
    X = np.repeat(np.eye(3) * 9, 50, axis=0) + np.random.default_rng(0).normal(size=(150, 3)) * 0.1
    labels, _, report = solve(engine, X, np.eye(3) * 9, capacity_slack=0.0)
    assert np.array_equal(labels, np.repeat(np.arange(3), 50))
    assert report.cost_ratio == 1
    assert report.repaired == 0


def test_rows_that_stay_out_are_the_costly_ones(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    X = np.concatenate([rng.normal(size=(180, 2)), rng.normal(size=(20, 2)) * 50 + 400])
    labels, _, report = solve(engine, X, np.array([[-1.0, 0], [1, 0]]), mass=0.9)
    assert np.flatnonzero(labels < 0).tolist() == list(range(180, 200))
    assert report.unassigned == 20
    assert report.cost_ratio is None


def test_a_penalty_is_between_nearest_and_balanced(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(900, 3)), rng.normal(size=(100, 3)) + 2])
    centers = np.concatenate([X[:4], X[-4:]])
    spreads, inertias = [], []
    for penalty in (1e-3, 0.3, 3.0, 1e3):
        labels, _, report = solve(engine, X, centers, penalty=penalty)
        spreads.append(report.largest - report.smallest)
        inertias.append(report.inertia)
        assert report.rounds == report.repaired == 0
        assert (labels >= 0).all()
    assert spreads == sorted(spreads, reverse=True)
    assert inertias == sorted(inertias)
    assert inertias[0] == pytest.approx(report.nearest_inertia, rel=1e-3)
    assert spreads[-1] < 0.2 * 1000 / 8 < spreads[0]


@pytest.mark.parametrize("d", [3, 40])
def test_few_candidates_cost_little(engine: Engine, d: int) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(1500, d)) * np.linspace(1, 3, d)
    centers = X[:60]
    _, _, whole = solve(engine, X, centers, candidates=60)
    labels, result, some = solve(engine, X, centers, candidates=15)
    sizes = np.bincount(labels, minlength=60)
    assert (sizes >= result.lowest).all()
    assert (sizes <= result.highest).all()
    assert some.inertia <= 1.02 * whole.inertia


def test_a_small_limit_of_proposals_takes_more_rounds(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    X, centers = rng.random((400, 2)), rng.random((6, 2)) * 0.3
    monkeypatch.setattr(balanced, "LAST_REGULARISATION", 3.0)  # prices that leave much to repair
    _, _, at_once = solve(engine, X, centers, capacity_slack=0.0)
    monkeypatch.setattr(rounding, "MOST_PROPOSALS", 5)
    labels, result, by_few = solve(engine, X, centers, capacity_slack=0.0)
    assert by_few.rounds > at_once.rounds
    sizes = np.bincount(labels, minlength=6)
    assert (sizes >= result.lowest).all()
    assert (sizes <= result.highest).all()


def bits(
    engine: Engine, X: np.ndarray, sizes: list[int] | None, k: int, config: BalancedConfig, **how: Any
) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    with prepared(engine, X, sizes, **how) as data:
        rows = np.unique(X, axis=0)[: 3 * k : 3]
        if data.view.unit_rows:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        centers = center_set(data, rows)
        result = balanced_assign(engine, data, centers, config)
        stats = assign(engine, data, centers, rule=result.rule)
        return (
            result.rule.prices.tobytes(),
            result.rule.moved_ids.tolist(),
            result.rule.moved_to.tolist(),
            (result.passes, result.rounds),
            predict(engine, data.pinned, result.rule).tobytes(),
            stats.labels_digest,
            stats.inertia.total(),
        )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(["euclidean", "cosine"]),
    precision=st.sampled_from(["float32", "float64"]),
    slack=st.sampled_from([0.0, 0.1]),
    mass=st.sampled_from([1.0, 0.7]),
    penalty=st.sampled_from([None, None, 0.5]),
    candidates=st.sampled_from([3, 100]),
    k=st.integers(1, 12),
)
def test_partitions_and_engines_agree_on_every_bit(
    seed: int,
    kind: str,
    metric: Any,
    precision: str,
    slack: float,
    mass: float,
    penalty: float | None,
    candidates: int,
    k: int,
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 150)), int(rng.integers(1, 9))
    X = adversarial(rng, n, d, kind)
    config = BalancedConfig(capacity_slack=slack, mass=mass, penalty=penalty, candidates=candidates)
    how = {"metric": metric, "precision": precision, "on_bad_rows": "drop"}
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        whole = bits(local, X, None, k, config, **how)
        assert bits(local, X, random_sizes(rng, n, 5), k, config, **how) == whole
        assert bits(hostile, X, random_sizes(rng, n, 7), k, config, **how) == whole


def test_duplicates_are_told_apart_by_row(engine: Engine) -> None:
    X = np.zeros((90, 2))
    centers = np.array([[0.0, 0], [1, 0], [2, 0]])
    labels, _, _ = solve(engine, X, centers, capacity_slack=0.0)
    assert np.bincount(labels).tolist() == [30, 30, 30]
    labels, _, _ = solve(engine, np.repeat(centers, 30, axis=0), centers, capacity_slack=0.0)
    assert np.bincount(labels).tolist() == [30, 30, 30]


def test_a_cancelled_assignment_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    X, centers = rng.random((300, 2)), rng.random((6, 2)) * 0.3
    config = BalancedConfig(capacity_slack=0.0)
    monkeypatch.setattr(rounding, "MOST_PROPOSALS", 4)
    monkeypatch.setattr(balanced, "LAST_REGULARISATION", 3.0)
    with LocalEngine(1) as engine, prepared(engine, X) as data:
        whole = balanced_assign(engine, data, center_set(data, centers), config)
    assert whole.rounds > 4
    stages: set[str] = set()
    for stop_after in (2, 3, whole.passes - 3, 2, 10**6):
        cancel = CancelToken()
        left = stop_after

        def emit(event: Event, cancel: CancelToken = cancel) -> None:
            nonlocal left
            if isinstance(event, TaskEnded) and event.label in ("balance: prices", "balance: repair"):
                left -= 1
                if left == 0:
                    stages.add(event.label)
                    cancel.cancel()

        options = EngineOptions(emit=emit, cancel=cancel)
        with LocalEngine(1) as quiet, prepared(quiet, X) as data, LocalEngine(1, options) as engine:
            if stop_after == 10**6:
                again = balanced_assign(engine, data, center_set(data, centers), config, Run(tmp_path))
            else:
                with pytest.raises(CancelledError):
                    balanced_assign(engine, data, center_set(data, centers), config, Run(tmp_path))
    assert stages == {"balance: prices", "balance: repair"}
    assert again.rule.prices.tobytes() == whole.rule.prices.tobytes()
    assert np.array_equal(again.rule.moved_ids, whole.rule.moved_ids)
    assert np.array_equal(again.rule.moved_to, whole.rule.moved_to)
    assert (again.passes, again.rounds) == (whole.passes, whole.rounds)


def test_settings_and_rows_are_checked(engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"capacity_slack == 1\.0, must be at least 0 and below 1"):
        BalancedConfig(capacity_slack=1.0)
    with pytest.raises(UsageError, match="mass == 0"):
        BalancedConfig(mass=0)
    with pytest.raises(UsageError, match="penalty == -1"):
        BalancedConfig(penalty=-1)
    with pytest.raises(UsageError, match="candidates == 1"):
        BalancedConfig(candidates=1)
    with pytest.raises(UsageError, match="one finite number above 0"):
        BalancedConfig(targets=np.array([1.0, 0.0]))
    X = np.arange(12.0)[:, None]
    with pytest.raises(UsageError, match="2 targets for 3 clusters"):
        solve(engine, X, X[:3], targets=np.ones(2))
    with pytest.raises(DataError, match=r"0\.01 of 12 rows is none"):
        solve(engine, X, X[:3], mass=0.01)
    with prepared(engine, X, weights=np.full(12, 2.0)) as data, pytest.raises(UsageError, match="these have weights"):
        balanced_assign(engine, data, center_set(data, X[:3]))
