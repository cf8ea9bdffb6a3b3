"""Bisecting k-means: the tree of one split at a time, the same bits everywhere, checkpoints, numbering, quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.algorithms import splitting
from distclust.algorithms.bisecting import BisectingResult, fit_bisecting
from distclust.algorithms.bisecting_config import BisectingConfig
from distclust.engines.events import Event, IterationEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.kernels.random import uniform
from distclust.ops.assign import assign, predict
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans import Run
from tests.algorithms.test_kmeans_bits import KINDS, adversarial


@pytest.fixture
def engine() -> Engine:
    with LocalEngine(2) as opened:
        yield opened


def inertia(rows: np.ndarray) -> float:
    return float(((rows - rows.mean(axis=0)) ** 2).sum())


def naive_split(rows: np.ndarray) -> np.ndarray:
    """Principal axis by power iteration, two-means; True for the second side."""
    mean, deviation = rows.mean(axis=0), np.sqrt(inertia(rows) / len(rows))
    d = rows.shape[1]
    axis = 2 * uniform(0, splitting._STAGE_DIRECTION, np.arange(d)) - 1
    axis /= np.linalg.norm(axis)
    for _ in range(splitting.AXIS_PASSES if d > 1 else 0):
        place = np.clip((rows - mean) @ axis / (splitting.CLIPPED * deviation), -1, 1)
        new = place @ (rows - mean)
        new /= np.linalg.norm(new)
        steady = abs(new @ axis) >= splitting.STEADY
        axis = new
        if steady:
            break
    pair = mean + np.outer([-1, 1], axis) * deviation * np.sqrt(2 / np.pi)
    for _ in range(20):
        sq = ((rows[:, None] - pair) ** 2).sum(-1)
        side = sq[:, 1] < sq[:, 0]
        before = sq.min(axis=1).sum()
        pair = np.stack([rows[~side].mean(axis=0), rows[side].mean(axis=0)])
        if before - inertia(rows[~side]) - inertia(rows[side]) <= 1e-4 * before:
            break
    return side


def naive_labels(X: np.ndarray, k: int, strategy: str) -> list[np.ndarray]:
    """Split one leaf at a time, always the worst; return the row numbers of the leaves from left to right."""
    leaves = [np.arange(len(X))]
    while len(leaves) < k:
        scores = [inertia(X[leaf]) if strategy == "biggest_inertia" else len(leaf) for leaf in leaves]
        at = int(np.argmax(scores))
        side = naive_split(X[leaves[at]])
        leaves[at : at + 1] = [leaves[at][~side], leaves[at][side]]
    return leaves


@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
@pytest.mark.parametrize(("k", "d"), [(1, 3), (2, 1), (7, 2), (33, 5)])
def test_the_tree_is_that_of_one_split_at_a_time(engine: Engine, k: int, d: int, strategy: Any) -> None:
    rng = np.random.default_rng(k)
    X = rng.normal(size=(600, d)) + rng.integers(0, 6, (600, 1)) * rng.normal(size=d) * 3
    config = BisectingConfig(n_clusters=k, bisecting_strategy=strategy)
    with prepared(engine, X, [200, 400], precision="float64") as data:
        result = fit_bisecting(engine, data, config)
        sizes = assign(engine, data, result.centers, rule=result.tree).counts
    leaves = naive_labels(X, k, strategy)
    assert result.vectors == pytest.approx(np.array([X[leaf].mean(axis=0) for leaf in leaves]), abs=1e-6)
    assert abs(sizes - [len(leaf) for leaf in leaves]).sum() <= 0.02 * len(X), "centres are those after the last pass"


def test_weights_count(engine: Engine) -> None:
    X = np.array([[0.0], [1.0], [10.0], [11.0]])
    with prepared(engine, X, weights=np.array([1.0, 3.0, 2.0, 0.0])) as data:
        result = fit_bisecting(engine, data, BisectingConfig(n_clusters=2))
    assert sorted(result.vectors[:, 0].tolist()) == [0.75, 10.0]


def test_nodes_are_numbered_as_merges(engine: Engine) -> None:
    X = np.random.default_rng(1).normal(size=(400, 3))
    with prepared(engine, X) as data:
        whole = fit_bisecting(engine, data, BisectingConfig(n_clusters=9))
        fewer = fit_bisecting(engine, data, BisectingConfig(n_clusters=6))
    m = 9
    assert whole.parents[-1] == -1, "the last node is the root"
    assert (whole.parents[:-1] > np.arange(2 * m - 2)).all(), "a parent has a higher number"
    assert np.array_equal(np.sort(whole.children.ravel()), np.arange(2 * m - 2))
    # Undoing the last three splits leaves the tree of six clusters.
    undone = {int(node) for node in range(m, m + 3)}
    merged = [v for node, v in enumerate(whole.vectors) if whole.parents[node] not in undone]
    merged += [whole.inner[node - m] for node in undone if whole.parents[node] not in undone]
    assert {v.tobytes() for v in merged} == {v.tobytes() for v in fewer.vectors}
    assert np.array_equal(whole.inner[3:], fewer.inner)


def test_labels_go_down_the_tree(engine: Engine) -> None:
    X = np.random.default_rng(2).normal(size=(500, 2))
    with prepared(engine, X) as data:
        result = fit_bisecting(engine, data, BisectingConfig(n_clusters=12))
        labels = predict(engine, data.pinned, result.tree)
        nearest = predict(engine, data.pinned, result.centers)
        by_tree = assign(engine, data, result.centers, rule=result.tree).inertia.total()
        by_nearest = assign(engine, data, result.centers).inertia.total()
    centers = np.concatenate([result.vectors, result.inner])
    for row, label in zip(X, labels, strict=True):
        node = len(centers) - 1
        while node >= 12:
            first, second = result.children[node - 12]
            node = min(first, second, key=lambda child: ((row - centers[child]) ** 2).sum())
        assert node == label
    assert by_nearest < by_tree
    assert 0.5 < (labels == nearest).mean() < 1


def bits(
    engine: Engine, X: np.ndarray, sizes: list[int] | None, config: BisectingConfig, **how: Any
) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    with prepared(engine, X, sizes, metric=config.metric, **how) as data:
        result = fit_bisecting(engine, data, config)
        stats = assign(engine, data, result.centers, rule=result.tree)
        return (
            result.vectors.tobytes(),
            result.inner.tobytes(),
            result.children.tolist(),
            result.inertias.tolist(),
            [(h.inertia, h.shift, h.rows) for h in result.history],
            predict(engine, data.pinned, result.tree).tobytes(),
            stats.labels_digest,
            stats.inertia.total(),
        )


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    strategy=st.sampled_from(["biggest_inertia", "largest_cluster"]),
    metric=st.sampled_from(["euclidean", "cosine"]),
    precision=st.sampled_from(["float32", "float64"]),
    weighted=st.booleans(),
    sample=st.sampled_from([10, 2048]),
    k=st.integers(1, 15),
)
def test_partitions_and_engines_agree_on_every_bit(
    seed: int, kind: str, strategy: Any, metric: Any, precision: str, weighted: bool, sample: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 200)), int(rng.integers(1, 9))
    X = adversarial(rng, n, d, kind)
    weights = rng.choice([0.0, 0.5, 1.0, 7.0], n) if weighted else None
    if weights is not None:
        weights[:k] = 1.0
    config = BisectingConfig(n_clusters=k, bisecting_strategy=strategy, metric=metric, allow_fewer=True)
    how: dict[str, Any] = {"weights": weights, "precision": precision, "on_bad_rows": "drop"}
    with pytest.MonkeyPatch.context() as patch, LocalEngine(2) as local, HostileEngine(seed) as hostile:
        patch.setattr(splitting, "SAMPLE_ROWS", sample)
        whole = bits(local, X, None, config, **how)
        assert bits(local, X, random_sizes(rng, n, 5), config, **how) == whole
        assert bits(hostile, X, random_sizes(rng, n, 7), config, **how) == whole


@pytest.mark.parametrize("copies", [1, 1000])
def test_distinct_rows_are_told_apart_and_equal_ones_are_not(engine: Engine, copies: int) -> None:
    X = np.repeat(np.array([[0.0, 0], [1, 0], [5, 5], [5.5, 5], [900, 1]]), [1, copies, 2, 3, 1], axis=0)
    with prepared(engine, X) as data:
        result = fit_bisecting(engine, data, BisectingConfig(n_clusters=5))
        assert assign(engine, data, result.centers, rule=result.tree).inertia.total() == 0
        with pytest.raises(DataError, match=r"into 5 clusters only, 8 were asked for.*at most 5"):
            fit_bisecting(engine, data, BisectingConfig(n_clusters=8))
        fewer = fit_bisecting(engine, data, BisectingConfig(n_clusters=8, allow_fewer=True))
    assert {tuple(v) for v in fewer.vectors.round(3).tolist()} == {tuple(v) for v in X.tolist()}


def test_equal_rows_are_one_cluster(engine: Engine) -> None:
    with prepared(engine, np.full((30, 4), 0.1)) as data:
        result = fit_bisecting(engine, data, BisectingConfig(n_clusters=3, allow_fewer=True))
        assert result.vectors == pytest.approx(np.full((1, 4), 0.1))
        assert (predict(engine, data.pinned, result.tree) == 0).all()
        assert result.parents.tolist() == [-1]
        with pytest.raises(DataError, match="n_samples=30 should be >= n_clusters=31"):
            fit_bisecting(engine, data, BisectingConfig(n_clusters=31))


def test_a_sample_serves_large_leaves(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8000, 4)) + rng.integers(0, 8, (8000, 1)) * 6

    def fit(sample: int) -> tuple[BisectingResult, float]:
        monkeypatch.setattr(splitting, "SAMPLE_ROWS", sample)
        with prepared(engine, X) as data:
            result = fit_bisecting(engine, data, BisectingConfig(n_clusters=8))
            return result, assign(engine, data, result.centers, rule=result.tree).inertia.total()

    (few, few_inertia), (all_rows, inertia_of_all) = fit(200), fit(10**9)
    assert few_inertia == pytest.approx(inertia_of_all, rel=0.02)
    assert sum(h.rows for h in few.history) < 0.7 * sum(h.rows for h in all_rows.history)


def test_only_so_many_leaves_are_open_as_their_sums_fit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(500, 3))
    with prepared(engine, X) as data:
        config = BisectingConfig(n_clusters=20)
        at_once = fit_bisecting(engine, data, config)
        monkeypatch.setattr("distclust.algorithms.bisecting.OPEN_BYTES", 2 * 2 * 7 * 8)
        by_twos = fit_bisecting(engine, data, config)
    assert by_twos.n_iter > 1.5 * at_once.n_iter
    assert by_twos.vectors.tobytes() == at_once.vectors.tobytes()
    assert np.array_equal(by_twos.children, at_once.children)


def test_a_cancelled_fit_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    X = np.random.default_rng(3).normal(size=(400, 3))
    config = BisectingConfig(n_clusters=10)
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        whole = fit_bisecting(engine, data, config)
    seen = 0
    for stop_after in (3, 5, 2, 1000):
        cancel = CancelToken()
        left = stop_after

        def emit(event: Event, cancel: CancelToken = cancel) -> None:
            nonlocal left, seen
            if isinstance(event, IterationEnded):
                left, seen = left - 1, seen + 1
                if left == 0:
                    cancel.cancel()

        options = EngineOptions(emit=emit, cancel=cancel)
        with LocalEngine(2) as quiet, prepared(quiet, X) as data, LocalEngine(2, options) as engine:
            if stop_after == 1000:
                again = fit_bisecting(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
            else:
                with pytest.raises(CancelledError):
                    fit_bisecting(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
    assert seen == whole.n_iter == again.n_iter, "no pass was done twice"
    assert again.vectors.tobytes() == whole.vectors.tobytes()
    assert again.inner.tobytes() == whole.inner.tobytes()


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="n_clusters == 0, must be an integer of at least 1"):
        BisectingConfig(n_clusters=0)
    with pytest.raises(UsageError, match="rtol == -1"):
        BisectingConfig(n_clusters=2, rtol=-1)
    with pytest.raises(UsageError, match=r"Unknown bisecting_strategy 'biggest'.*Did you mean 'biggest_inertia'"):
        BisectingConfig(n_clusters=2, bisecting_strategy="biggest")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "k", "worst"), [("clinc150", 150, 1.03), ("yeast", 10, 1.05), ("a3", 50, 1.1)])
def test_as_good_as_scikit_learns(engine: Engine, shared_data: Path, name: str, k: int, worst: float) -> None:
    if name == "clinc150":
        vectors = pq.read_table(shared_data / "clinc150" / "clinc150.parquet", columns=["embedding"])["embedding"]
        X = np.stack(vectors.to_numpy()).astype(np.float32)[::2]
    else:
        frame = pq.read_table(shared_data / "labelled" / f"{name}.parquet")
        X = np.stack([frame[c].to_numpy() for c in frame.column_names if c.startswith("x")], axis=1).astype(float)
    with prepared(engine, X) as data:
        result = fit_bisecting(engine, data, BisectingConfig(n_clusters=k))
        ours = assign(engine, data, result.centers, rule=result.tree).inertia.total()
    theirs = [sklearn.cluster.BisectingKMeans(k, random_state=seed).fit(X).inertia_ for seed in range(3)]
    ratio = ours / float(np.mean(theirs))
    print(f"{name}, k = {k}: {ratio:.4f} of scikit-learn's inertia (its seeds: {np.ptp(theirs) / np.mean(theirs):.3f})")
    assert ratio < worst
