"""An engine that shows every step only a sample of the rows: those whose hash is below a limit.

Blocks keep their rows in hash order, so a sample is a prefix of each and costs nothing to take; it is the same rows
under any partitioning. Everything written for an engine runs on samples unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.refs import PartitionRef, View
from distclust.data.state import RowState
from distclust.engines.protocol import Engine, Merge, Pinned, Shared, Step, StepContext

ALL_ROWS = 1 << 64
"""The limit that no hash reaches."""


class SampleState(RowState):
    """Row state of some of the rows: the same centres have other labels on them than on the whole block.

    Kinds are those of the block, so what a sample kept makes room for what the next one keeps.
    """

    def __init__(self, state: RowState, limit: int) -> None:
        self._state = state
        self._suffix = f"@{limit:016x}"

    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """See `RowState`."""
        return self._state.get(kind, tag + self._suffix)

    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """See `RowState`."""
        self._state.put(kind, tag + self._suffix, array)

    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """See `RowState`."""
        return self._state.take(kind, tag + self._suffix)

    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """See `RowState`."""
        self._state.give(kind, tag + self._suffix, array)


class PrefixState(SampleState):
    """Row state of the first rows of a block."""

    @property
    def whole(self) -> RowState:
        """See `RowState`."""
        return self._state.whole


@dataclass(frozen=True)
class OnSample:
    """A step that sees the rows of a block whose hash is below ``limit``."""

    step: Step
    limit: int

    def __call__(self, block: Block, value: Any, context: StepContext) -> Any:
        """Run the step on the sample of a block."""
        return self.step(
            block.prefix(self.limit), value, replace(context, state=PrefixState(context.state, self.limit))
        )


class SampledEngine:
    """An engine over a sample of the rows.

    Parameters
    ----------
    engine : Engine
        Runs the steps.
    limit : int
        Rows with a hash below it are seen, 1 ... 2**64.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
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
        return self._engine.map(pinned, OnSample(step, self._limit), value, label=label)

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """See `Engine.fold`."""
        return self._engine.fold(pinned, OnSample(step, self._limit), merge, value, label=label)

    def close(self) -> None:
        """Do nothing: the engine is its owner's."""
