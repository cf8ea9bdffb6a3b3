"""Samples of rows that are the same in any partitioning: by row hash, or by a seeded draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distclust.data.block import Block
from distclust.data.refs import BlockView
from distclust.engines.held import HeldEngine
from distclust.engines.protocol import Engine, Pinned, StepContext
from distclust.engines.sampled import SampledEngine
from distclust.kernels.random import hash_rows, uniform
from distclust.stats.extremes import KeyedRows


@dataclass(frozen=True)
class HashSampleStep:
    """The first rows of a block in hash order, which is the order it is stored in."""

    limit: int

    def __call__(self, block: Block, value: None, context: StepContext) -> KeyedRows:
        """Take the first rows of a block."""
        ids = block.row_ids[: self.limit]
        weights = np.ones(len(ids)) if block.weights is None else block.weights[: self.limit]
        return KeyedRows(self.limit, hash_rows(ids), ids.copy(), block.x[: self.limit].copy(), weights.copy())


@dataclass(frozen=True)
class DrawStep:
    """A draw without replacement, with probability proportional to weight.

    The rows of smallest -ln(u) / w, u uniform by row (Efraimidis and Spirakis, 2006); rows of zero weight never.
    """

    limit: int
    seed: int
    stage: int

    def __call__(self, block: Block, value: None, context: StepContext) -> KeyedRows:
        """Draw rows of a block."""
        keys = -np.log1p(-uniform(self.seed, self.stage, block.row_ids))
        if block.weights is None:
            return KeyedRows.select(self.limit, keys, block.row_ids, block.x, None)
        at = np.flatnonzero(block.weights > 0)
        weights = block.weights[at]
        return KeyedRows.select(self.limit, keys[at] / weights, block.row_ids[at], block.x[at], weights)


@dataclass(frozen=True)
class UniformDrawStep:
    """A draw without replacement in which every row has the same chance, whatever its weight."""

    limit: int
    seed: int
    stage: int

    def __call__(self, block: Block, value: None, context: StepContext) -> KeyedRows:
        """Draw rows of a block."""
        keys = uniform(self.seed, self.stage, block.row_ids)
        return KeyedRows.select(self.limit, keys, block.row_ids, block.x, block.weights)


def hash_sample(engine: Engine, pinned: Pinned, limit: int) -> KeyedRows:
    """Return the first ``limit`` rows by row hash, in row id order."""
    sample: KeyedRows = engine.fold(pinned, HashSampleStep(limit), KeyedRows.merge, label="sample")
    return sample.in_id_order()


def hold_sample(engine: Engine, pinned: Pinned, limit: int) -> HeldEngine:
    """Fetch the rows with a hash below ``limit`` to the driver; return an engine that runs steps on them."""
    step, view = HashSampleStep(pinned.n_rows), pinned.view
    sample: KeyedRows = SampledEngine(engine, limit).fold(pinned, step, KeyedRows.merge, label="sample: fetch")
    assert isinstance(view, BlockView)
    weights = None if view.columns.weight is None else sample.weights
    return HeldEngine(engine, Block(sample.rows, sample.row_ids, weights, pinned.refs[0], view))


def draw_uniform(engine: Engine, pinned: Pinned, limit: int, *, seed: int, stage: int) -> KeyedRows:
    """Return ``limit`` rows drawn uniformly, without replacement, in the order of the draw, with their weights."""
    drawn: KeyedRows = engine.fold(pinned, UniformDrawStep(limit, seed, stage), KeyedRows.merge, label="draw")
    return drawn


def draw_rows(engine: Engine, pinned: Pinned, limit: int, *, seed: int, stage: int) -> KeyedRows:
    """Return ``limit`` rows drawn by weight, without replacement, in the order of the draw."""
    drawn: KeyedRows = engine.fold(pinned, DrawStep(limit, seed, stage), KeyedRows.merge, label="draw")
    return drawn
