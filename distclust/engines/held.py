"""An engine over rows that lie in the driver's memory: for samples so small that a pass costs less than its tasks.

A pass over 20 000 rows takes some 20 ms; the tasks of a cluster engine, however little they do, take longer. Whoever
has fetched such a sample once runs the same steps here, on the driver's threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from typing import Any

from distclust.data.block import Block
from distclust.data.refs import PartitionRef, View
from distclust.data.state import MemoryState
from distclust.engines.protocol import Engine, EngineOptions, Merge, Pinned, Shared, Step, StepContext
from distclust.engines.tree import is_exact
from distclust.kernels.slices import usable_cores


class HeldEngine:
    """Run steps on a block that this process holds, cut into one piece for each core.

    Parameters
    ----------
    engine : Engine
        Where the rows come from: its cancel token holds here too.
    block : Block
        Rows in hash order. Their positions within a partition mean nothing: steps must not ask for them.
    """

    def __init__(self, engine: Engine, block: Block) -> None:
        pieces = usable_cores()
        self.info = replace(engine.info, slots=pieces, sees_driver_memory=True)
        self.options: EngineOptions = engine.options
        self._blocks = [_piece(block, start, pieces) for start in range(pieces)]
        self._states = [MemoryState() for _ in range(pieces)]

    def pin(self, refs: Sequence[PartitionRef], view: View, *, label: str) -> Pinned:
        """Bind references to a view. Steps see the block that is held, whatever they refer to."""
        return Pinned(tuple(refs), view, label)

    def share(self, value: Any) -> Shared:
        """See `Engine.share`."""
        return Shared(value)

    def map(self, pinned: Pinned, step: Step, value: Any = None, *, label: str) -> list[Any]:
        """Run ``step`` on every piece."""
        self.options.cancel.check()
        value = value.value if isinstance(value, Shared) else value

        def run(index: int) -> Any:
            return step(self._blocks[index], value, StepContext(label, index, 0, self._states[index]))

        with ThreadPoolExecutor(len(self._blocks), thread_name_prefix="distclust-held") as pool:
            return list(pool.map(run, range(len(self._blocks))))

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """Run ``step`` on every piece and merge the partials, which must be exact."""
        parts = self.map(pinned, step, value, label=label)
        assert all(map(is_exact, parts)), "inexact partials are merged by partitions, and the pieces are none"
        return reduce(merge, parts)

    def close(self) -> None:
        """Do nothing: threads end with each call."""


def _piece(block: Block, start: int, step: int) -> Block:
    """Return every so manieth row: in hash order too, and as many of any sample as in the other pieces."""
    weights = None if block.weights is None else block.weights[start::step].copy()
    return Block(block.x[start::step].copy(), block.row_ids[start::step].copy(), weights, block.ref, block.view)
