"""Rows that the driver holds: every step sees each of them once, and the same bits come out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from distclust.algorithms import progressive
from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.data.block import Block
from distclust.engines.held import HeldEngine
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, EngineOptions, StepContext
from distclust.errors import CancelledError
from distclust.kernels.random import hash_rows
from distclust.ops import sample
from distclust.ops.sample import hold_sample
from tests.algorithms.rows import prepared, random_sizes

HALF = 1 << 63


@dataclass(frozen=True)
class Seen:
    """Ids, weights and rows of a block, and what the step before left in its state."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> list[Any]:
        before = context.state.get("ids", "seen")
        context.state.put("ids", "seen", block.row_ids)
        assert (np.diff(hash_rows(block.row_ids).astype(float)) >= 0).all()
        return [(block.row_ids, block.weights, block.x, before, value)]


@pytest.mark.parametrize("weighted", [False, True])
def test_steps_see_every_row_of_the_sample_once(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3))
    weights = rng.uniform(0, 2, 1000) if weighted else None
    with LocalEngine(2) as local, prepared(local, X, random_sizes(rng, 1000, 6), weights=weights) as data:
        held = hold_sample(local, data.pinned, HALF)
        with held.share("value") as shared:
            first = held.fold(data.pinned, Seen(), list.__add__, shared, label="look")
        again = held.map(data.pinned, Seen(), "value", label="look")
        offset = data.offset
    ids = np.concatenate([part[0] for part in first])
    wanted = np.flatnonzero(hash_rows(np.arange(1000)) < np.uint64(HALF))
    assert np.array_equal(np.sort(ids), wanted)
    assert np.allclose(np.concatenate([part[2] for part in first]) + offset, X[ids], atol=1e-6)
    if weights is None:
        assert all(part[1] is None for part in first)
    else:
        assert np.array_equal(np.concatenate([part[1] for part in first]), weights[ids])
    assert all(part[3] is None and part[4] == "value" for part in first)
    assert all(np.array_equal(part[0][3], part[0][0]) for part in again)


def test_a_cancelled_engine_runs_nothing_more() -> None:
    cancel = CancelToken()
    with LocalEngine(2, EngineOptions(cancel=cancel)) as local, prepared(local, np.eye(50)) as data:
        held = hold_sample(local, data.pinned, HALF)
        cancel.cancel()
        with pytest.raises(CancelledError, match="cancelled"):
            held.map(data.pinned, Seen(), label="look")


@pytest.mark.parametrize("weighted", [False, True])
def test_fits_that_hold_their_samples_have_the_same_bits(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progressive, "LEAST_SAMPLE", 100)
    rng = np.random.default_rng(5)
    X = rng.normal(size=(5000, 6)) + rng.integers(0, 9, (5000, 1)) * 3
    weights = rng.uniform(0, 2, 5000) if weighted else None
    config = KMeansConfig(n_clusters=15, fit_mode="progressive", seed=2)
    passes: list[str] = []

    class Counted(HeldEngine):
        def map(self, *arguments: Any, **named: Any) -> list[Any]:
            passes.append(named["label"])
            return super().map(*arguments, **named)

    monkeypatch.setattr(sample, "HeldEngine", Counted)
    with LocalEngine(2) as local, prepared(local, X, random_sizes(rng, 5000, 7), weights=weights) as data:
        on_threads = fit_kmeans(local, data, config)
        assert not passes
        local.info = replace(local.info, sees_driver_memory=False)  # as on a cluster
        # Of the samples of 360, 720, 1 440 and 2 880 rows the first two.
        monkeypatch.setattr(progressive, "HELD_BYTES", 800 * data.width * 4)
        on_cluster = fit_kmeans(local, data, config)
    sampled = [entry for entry in on_cluster.history if entry.rows <= 800]
    assert passes.count("lloyd") == len(sampled) > 2
    assert on_cluster.vectors.tobytes() == on_threads.vectors.tobytes()
    assert [(h.inertia, h.moved) for h in on_cluster.history] == [(h.inertia, h.moved) for h in on_threads.history]
