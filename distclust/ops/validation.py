"""The pass that holds a mixture against a partition of the same rows; rows far outside of all others set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.refs import PartitionRef, View
from distclust.engines.protocol import Engine, Merge, Pinned, Shared, Step, StepContext
from distclust.engines.sampled import SampleState
from distclust.kernels.pairs import count_between, count_columns
from distclust.ops.mixture import Mixture
from distclust.ops.tree import CenterTree
from distclust.stats.validation import SHARE_UNITS, ValidationStats

Floats = npt.NDArray[np.float64]

BINS = 64
COLUMN_BINS = 32
SURE = 0.95
_BATCH_VALUES = 1 << 20


@dataclass(frozen=True)
class PairFrames:
    """The coordinates in which pairs of components are looked at; see `distclust.kernels.pairs.count_between`."""

    members: npt.NDArray[np.int32]
    origins: Floats
    factors: Floats
    directions: Floats
    places: Floats
    radius: float

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True)
class ValidationValue:
    """What the pass shares.

    Attributes
    ----------
    mixture : Mixture
    tree : CenterTree
        Cells of the rows.
    clusters : (m,) int32
        Cluster of every node's rows in the partition; -1 for none.
    frames : PairFrames
    low, per_unit : (d,) float64
        Bins of the columns.
    """

    mixture: Mixture
    tree: CenterTree
    clusters: npt.NDArray[np.int32]
    frames: PairFrames
    low: Floats
    per_unit: Floats


@dataclass(frozen=True)
class ValidationStep:
    """Count a block."""

    def __call__(self, block: Block, value: ValidationValue, context: StepContext) -> ValidationStats:
        """See `ValidationStats`."""
        k, frames = len(value.mixture), value.frames
        out = ValidationStats.zeros(k, len(frames), BINS, block.d, COLUMN_BINS)
        partition = value.clusters[value.tree.leaves(block, context)]
        labels = np.empty(block.n, np.int32)
        size = max(1, _BATCH_VALUES // k)
        for start in range(0, block.n, size):
            rows = slice(start, start + size)
            shares = value.mixture.responsibilities(np.ascontiguousarray(block.x[rows]))
            best = shares.argmax(axis=1)
            labels[rows] = best
            np.add.at(out.shares, best, np.rint(shares * SHARE_UNITS).astype(np.int64))
            sure = best[shares[np.arange(len(best)), best] >= SURE]
            np.add.at(out.sure, sure, 1)
        known = partition >= 0
        np.add.at(out.confusion, (partition[known], labels[known]), 1)
        count_columns(block.x, labels, value.low, value.per_unit, out.columns)
        if len(frames):
            count_between(
                block.x,
                labels,
                frames.members,
                frames.origins,
                frames.factors,
                frames.directions,
                frames.places,
                frames.radius,
                out.windows,
                out.between,
            )
        return out


def validate(engine: Engine, pinned: Pinned, value: ValidationValue) -> ValidationStats:
    """Return the counts of all rows: one fold."""
    with engine.share(value) as shared:
        stats: ValidationStats = engine.fold(
            pinned, ValidationStep(), ValidationStats.merge, shared, label="validation"
        )
    return stats


def far_rows(x: npt.NDArray[np.floating], limit: float) -> npt.NDArray[np.bool_]:
    """Tell which rows have a coordinate beyond ``limit``."""
    return (np.abs(x) > limit).any(axis=1)


@dataclass(frozen=True)
class OnNear:
    """A step that sees the rows of a block that are not far."""

    step: Step
    limit: float

    def __call__(self, block: Block, value: Any, context: StepContext) -> Any:
        """Run the step."""
        near = ~far_rows(block.x, self.limit)
        if near.all():
            return self.step(block, value, context)
        weights = None if block.weights is None else block.weights[near]
        kept = Block(np.ascontiguousarray(block.x[near]), block.row_ids[near], weights, block.ref, block.view)
        return self.step(kept, value, replace(context, state=SampleState(context.state, int(self.limit))))


class NearEngine:
    """An engine that shows every step the rows that are not far: outliers take no part.

    Parameters
    ----------
    engine : Engine
        Runs the steps.
    limit : float
        Rows with a coordinate beyond it are far.
    """

    def __init__(self, engine: Engine, limit: float) -> None:
        self._engine = engine
        self._limit = limit
        self.info = engine.info
        self.options = engine.options

    def pin(self, refs: Sequence[PartitionRef], view: View, *, label: str) -> Pinned:
        """See `Engine.pin`."""
        return self._engine.pin(refs, view, label=label)

    def share(self, value: Any) -> Shared:
        """See `Engine.share`."""
        return self._engine.share(value)

    def map(self, pinned: Pinned, step: Step, value: Any = None, *, label: str) -> list[Any]:
        """See `Engine.map`."""
        return self._engine.map(pinned, OnNear(step, self._limit), value, label=label)

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """See `Engine.fold`."""
        return self._engine.fold(pinned, OnNear(step, self._limit), merge, value, label=label)

    def close(self) -> None:
        """Do nothing: the engine is its owner's."""
