"""PPP: the same partition from any order, cut and engine; no cluster where there is none; bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from distclust.algorithms.ppp import FAR, PPPResult, fit_ppp
from distclust.algorithms.ppp_config import PPPConfig
from distclust.engines.events import Event, IterationEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, UsageError
from distclust.ops.assign import predict
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans import Run

HOW: dict[str, Any] = {"precision": "float64", "center": "midrange"}


@pytest.fixture(scope="module")
def engine() -> Engine:
    with LocalEngine(2) as opened:
        yield opened


def fit(engine: Engine, X: np.ndarray, sizes: list[int] | None = None, **settings: Any) -> tuple[PPPResult, np.ndarray]:
    """Return the result and the labels."""
    with prepared(engine, X, sizes, **HOW) as data:
        result = fit_ppp(engine, data, PPPConfig(**settings))
        return result, predict(engine, result.fit.data.pinned, result.mixture)


def labelled(shared_data: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(shared_data / "labelled" / f"{name}.parquet")
    columns = [table[c].to_numpy() for c in table.column_names if c.startswith("x")]
    return np.stack(columns, axis=1).astype(float), table["label"].to_numpy()


def blobs(rng: np.random.Generator, n: int = 300, d: int = 3, k: int = 4, apart: float = 8.0) -> np.ndarray:
    centers = rng.permutation(np.eye(max(d, k))[:k, :d] * apart + np.arange(k)[:, None] * apart / 2)
    return np.concatenate([rng.normal(size=(n, d)) + center for center in centers])


def bits(result: PPPResult) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    mixture = result.mixture
    parts = (mixture.weights, mixture.means, mixture.covariances, result.fit.stability, result.center)
    report = result.report()
    return mixture.covariance_type, *(part.tobytes() for part in parts), report["splits"], report["verdicts"]


@pytest.mark.parametrize("weighted", [False, True])
def test_partitions_and_engines_agree_on_every_bit(engine: Engine, weighted: bool) -> None:
    rng = np.random.default_rng(3)
    X = blobs(rng, 60)
    X[:3] *= 1e7  # far rows take another way through the blocks
    weights = rng.choice([0.0, 1.0, 2.5], len(X)) if weighted else None

    def run(on: Engine, sizes: list[int] | None) -> tuple[Any, ...]:
        with prepared(on, X, sizes, weights=weights, **HOW) as data:
            result = fit_ppp(on, data, PPPConfig())
            return *bits(result), predict(on, result.fit.data.pinned, result.mixture).tobytes()

    whole = run(engine, None)
    assert run(engine, random_sizes(rng, len(X), 6)) == whole
    with HostileEngine(7, harm=0.1) as hostile:
        assert run(hostile, random_sizes(rng, len(X), 9)) == whole


def test_the_order_of_the_rows_changes_nothing(engine: Engine, shared_data: Path) -> None:
    X, _ = labelled(shared_data, "iris")
    X = np.concatenate([X, blobs(np.random.default_rng(0), 30, 4, 2) + 20])
    result, labels = fit(engine, X)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(X))
        again, theirs = fit(engine, X[order])
        assert bits(again) == bits(result)
        assert np.array_equal(theirs, labels[order])


@pytest.mark.parametrize(
    ("name", "least"), [("iris", 0.56), ("wine", 0.8), ("unbalance", 0.99), ("s4", 0.58), ("a1", 0.93)]
)
def test_labelled_sets(engine: Engine, shared_data: Path, name: str, least: float) -> None:
    X, y = labelled(shared_data, name)
    result, labels = fit(engine, X)
    assert abs(len(result.mixture) - len(np.unique(y))) <= 1
    assert adjusted_rand_score(y, labels) >= least


@pytest.mark.parametrize(("n", "d"), [(400, 2), (300, 10), (300, 50)])
def test_one_gaussian_is_one_cluster(engine: Engine, n: int, d: int) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) * 100
        result, labels = fit(engine, X, max_clusters=12)
        assert len(result.mixture) == 1
        assert not result.clusterable
        assert not labels.any()


@pytest.mark.parametrize(("n", "d"), [(1000, 2), (4000, 2), (1000, 6)])
def test_uniform_noise_is_not_clusterable(engine: Engine, n: int, d: int) -> None:
    result, _ = fit(engine, np.random.default_rng(d).uniform(size=(n, d)))
    assert not result.clusterable
    assert result.before.hopkins == pytest.approx(0.5, abs=0.12)
    assert not result.before.dip_rejects


@pytest.mark.parametrize(("apart", "k"), [(1.5, 1), (1.9, 1), (4.0, 2)])
def test_two_gaussians_are_two_from_two_deviations_on(engine: Engine, apart: float, k: int) -> None:
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) + np.array([apart, 0.0])])
    result, _ = fit(engine, X, features="all")
    assert len(result.mixture) == k


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_columns_of_noise_are_left_out(engine: Engine, shared_data: Path, noise: str) -> None:
    X, y = (part[::3] for part in labelled(shared_data, "unbalance"))
    rng = np.random.default_rng(5)
    wide = np.concatenate([X, getattr(rng, noise)(size=(len(X), 20)) * rng.uniform(0.1, 1e6, 20)], axis=1)
    result, labels = fit(engine, wide)
    assert result.columns.tolist() == [0, 1]
    assert "2 of 22 columns separate the clusters; fitted again on these" in result.refit
    assert adjusted_rand_score(y, labels) > 0.99
    assert [score.separable for score in result.scores] == [True] * 2 + [False] * 20
    assert result.after.hopkins > result.before.hopkins or noise == "normal"


def test_bad_input(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    X = np.concatenate([rng.normal(size=(300, 3)), rng.normal(size=(300, 3)) + 9])
    y = np.repeat([0, 1], 300)

    def right(rows: np.ndarray, truth: np.ndarray) -> PPPResult:
        result, labels = fit(engine, rows)
        assert adjusted_rand_score(truth, labels) == 1.0
        return result

    assert right(np.concatenate([X, np.full((600, 1), 7.0)], axis=1), y).columns.tolist() == [0, 1, 2]
    right(np.concatenate([X, X[:, :1] + X[:, 1:2]], axis=1), y)  # singular covariance
    right(np.repeat(np.eye(3) * 5, 40, axis=0), np.repeat(range(3), 40))  # duplicates
    narrow = np.concatenate([rng.normal(size=(10, 60)), rng.normal(size=(10, 60)) + 9])  # fewer rows than columns
    assert right(narrow, np.repeat([0, 1], 10)).fit.data.width < 60
    far = X.copy()
    far[:5] = 1e9 * rng.normal(size=(5, 3))
    result, labels = fit(engine, far)
    assert result.far == 5
    assert adjusted_rand_score(y[5:], labels[5:]) == 1.0
    for rows in (np.ones((50, 3)), np.ones((1, 2)), np.array([[1.0, 2.0], [3.0, 4.0]])):
        assert len(fit(engine, rows)[0].mixture) == 1


def test_wide_rows_are_reduced_and_it_is_said(engine: Engine) -> None:
    rng = np.random.default_rng(4)
    X = np.repeat(rng.normal(size=(3, 100)), 200, axis=0) + 0.05 * rng.normal(size=(600, 100))
    result, labels = fit(engine, X)
    assert adjusted_rand_score(np.repeat(range(3), 200), labels) == 1.0
    report = result.report()
    assert report["principal_components"]
    assert report["dimensions"] == 2
    assert report["explained_variance"] > 0.9
    assert result.centers == pytest.approx(np.stack([X[labels == j].mean(axis=0) for j in range(3)]), abs=0.1)


def test_verdicts_have_reasons(engine: Engine, shared_data: Path) -> None:
    X, _ = labelled(shared_data, "s4")
    result, labels = fit(engine, X)
    assert {verdict.valid for verdict in result.verdicts} == {True, False}
    for verdict in result.verdicts:
        assert verdict.rows == (labels == verdict.cluster).sum()
        assert verdict.valid == (verdict.overlap >= 0.75 and verdict.posterior >= 0.9)
        text = "; ".join(verdict.reasons)
        assert ("needed" in text) != verdict.valid
        assert (f"go to cluster {verdict.leaks_to}" in text) == (verdict.posterior < 0.9)
    assert result.separable_rows < len(X)
    assert all(split.accepted for split in result.fit.splits if split.round == result.fit.rounds)


def test_a_stopped_fit_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    X = blobs(np.random.default_rng(8), 100)
    cancel = CancelToken()
    levels: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, IterationEnded):
            levels.append(event.iteration)
            if event.iteration == 4:
                cancel.cancel()

    with LocalEngine(1) as engine, prepared(engine, X, **HOW) as data:
        whole = bits(fit_ppp(engine, data, PPPConfig()))
    run = Run(tmp_path)
    options = EngineOptions(emit=stop, cancel=cancel)
    with pytest.raises(CancelledError), LocalEngine(1, options) as engine, prepared(engine, X, **HOW) as data:
        fit_ppp(engine, data, PPPConfig(), run)
    levels.clear()
    with LocalEngine(1, EngineOptions(emit=stop)) as engine, prepared(engine, X, [150, 250], **HOW) as data:
        assert bits(fit_ppp(engine, data, PPPConfig(), run)) == whole
    assert levels[0] == 5, "levels that were saved are not cut again"


def test_settings_and_rows_are_checked(engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"max_valley == 1.5, must be above 0 and at most 1"):
        PPPConfig(max_valley=1.5)
    with pytest.raises(UsageError, match=r"Unknown scaling 'robst'.*Did you mean 'robust'"):
        PPPConfig(scaling="robst")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"reg_covar == 0, must be a finite number above 0"):
        PPPConfig(reg_covar=0)
    with pytest.raises(UsageError, match=r"max_clusters == True, must be an integer"):
        PPPConfig(max_clusters=True)
    with prepared(engine, np.ones((9, 2))) as data, pytest.raises(UsageError, match="needs Euclidean rows in float64"):
        fit_ppp(engine, data, PPPConfig())
    assert FAR > 8
