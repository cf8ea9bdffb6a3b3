"""The partitive stage of PPP: rows are cut into cells, level by level, all open leaves in one pass, nothing drawn.

A leaf is cut through its mean across its principal axis (Boley, *Principal direction divisive partitioning*, 1998).
Cells only have to be small against clusters: what belongs together is found from their exact sums.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.lloyd import Iteration, history_from_json, history_to_json
from distclust.artifacts.checkpoint import Checkpoints
from distclust.engines.events import IterationEnded, StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.kernels.eigen import symmetric_eigen
from distclust.ops.cells import product_scale_of, sum_cells
from distclust.ops.profile import PreparedData
from distclust.ops.tree import CenterTree
from distclust.stats.cells import Cells, CellStats

Floats = npt.NDArray[np.float64]

MOST_CELLS = 400
"""As many cells as keep the search on the driver under some seconds; with 1000, no set of the tests came out better."""

ROWS_PER_CELL = 4
LEAST_ROWS = 4
"""Leaves of fewer rows are not cut."""

MOST_LEVELS = 24
CELL_BYTES = 64 << 20
"""Most bytes of one task's sums; wide rows get fewer cells."""


@dataclass(frozen=True)
class Leaf:
    """A leaf that may be cut: where, and how much that would tell."""

    mean: Floats
    step: Floats
    """Displacement along the axis, one standard deviation; in the coordinates of the blocks."""
    gain: float
    rows: int


@dataclass
class CellTree:
    """A tree of cells while it grows.

    Attributes
    ----------
    points : list of (d,) float64
        Either side of a cut: a row belongs to the nearer one.
    children : list of (int, int)
    leaves : dict of int to Leaf
        By node.
    open : list of int
        Nodes whose sums are not known yet.
    history : list of Iteration
        One entry a level: as inertia, what lies within the leaves that it summed.
    grown_from : str
        Tag of the tree of the last pass; a matter of speed only.
    """

    points: list[Floats]
    children: list[tuple[int, int]] = field(default_factory=lambda: [(-1, -1)])
    leaves: dict[int, Leaf] = field(default_factory=dict)
    open: list[int] = field(default_factory=lambda: [0])
    history: list[Iteration] = field(default_factory=list)
    grown_from: str = ""

    def tree(self, dtype: str) -> CenterTree:
        """Return the tree as rows go down it."""
        return CenterTree(np.stack(self.points).astype(dtype), np.array(self.children, np.int32))

    def cut(self, room: int) -> None:
        """Cut the leaves that tell most, at most as many as there is room for."""
        able = [node for node, leaf in self.leaves.items() if leaf.rows >= LEAST_ROWS and leaf.gain > 0]
        able.sort(key=lambda node: (-self.leaves[node].gain, node))
        self.open = []
        for node in able[: max(room, 0)]:
            leaf = self.leaves.pop(node)
            self.children[node] = (len(self.points), len(self.points) + 1)
            self.open += self.children[node]
            self.points += [leaf.mean - leaf.step, leaf.mean + leaf.step]
            self.children += [(-1, -1), (-1, -1)]


@dataclass(frozen=True)
class Grown:
    """Cells of all rows.

    Attributes
    ----------
    tree : CenterTree
    nodes : (c,) int32
        Leaf of each cell.
    stats : CellStats of 4 c groups
        By cell and quarter.
    history : tuple of Iteration
        One entry a level.
    """

    tree: CenterTree
    nodes: npt.NDArray[np.int32]
    stats: CellStats
    history: tuple[Iteration, ...]


def most_cells(n_rows: int, width: int) -> int:
    """Return how many cells rows are cut into."""
    fitting = CELL_BYTES // (4 * 8 * (width * (width + 1) + width + 2))
    return int(max(2, min(MOST_CELLS, n_rows // ROWS_PER_CELL, fitting)))


def grow_cells(
    engine: Engine, data: PreparedData, metric: Floats, run: Checkpointed | None, name: str = "cells"
) -> Grown:
    """Cut all rows into cells.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    metric : (d,) float64
        Weights of the dimensions: axes are those of the weighted rows.
    run : RunDirectory, optional
        Where every level is saved.
    name : str, default="cells"
        Of its checkpoints.
    """
    saver = None if run is None else run.checkpoints(name)
    grown = _restored(saver) or CellTree([data.moments.mean])
    limit = most_cells(data.moments.n_rows, data.width)
    engine.options.emit(StageStarted(stage=name, total_rows=data.pinned.n_rows, max_passes=MOST_LEVELS))
    began = time.perf_counter()
    # Leaves of the last level need no sums of their own: the pass that deals rows into quarters gives them.
    while grown.open and len(grown.leaves) + len(grown.open) < limit and len(grown.history) < MOST_LEVELS:
        started = time.perf_counter()
        cells = _level(engine, data, metric, grown)
        grown.cut(limit - len(grown.leaves))
        variances = np.diagonal(cells.spreads, axis1=1, axis2=2)
        within = float(np.cumsum(cells.mass[:, None] * variances)[-1])
        rows, seconds = int(cells.counts.sum()), time.perf_counter() - started
        grown.history.append(Iteration(len(grown.history) + 1, within, 0.0, rows, 0, seconds, rows))
        if saver is not None:
            saver.save(len(grown.history), *_stored(grown))
        engine.options.emit(IterationEnded(stage=name, **vars(grown.history[-1])))
    tree = grown.tree(data.view.dtype)
    nodes = np.array(sorted([*grown.leaves, *grown.open]), np.int32)
    stats = sum_cells(engine, data, tree, nodes, grown_from=grown.grown_from, quarters=True)
    engine.options.emit(StageEnded(stage=name, seconds=time.perf_counter() - began))
    return Grown(tree, nodes, stats, tuple(grown.history))


def _level(engine: Engine, data: PreparedData, metric: Floats, grown: CellTree) -> Cells:
    """Sum the open leaves, and find where each would be cut."""
    tree = grown.tree(data.view.dtype)
    stats = sum_cells(engine, data, tree, np.array(grown.open, np.int32), grown_from=grown.grown_from)
    grown.grown_from = tree.tag
    cells = Cells.of(stats, data.scales, product_scale_of(data))
    values, axes = symmetric_eigen(cells.spreads * metric[:, None] * metric)
    for node, mean, mass, rows, value, axis in zip(
        grown.open, cells.means, cells.mass, cells.counts, values[:, -1], axes[:, :, -1], strict=True
    ):
        deviation = float(np.sqrt(max(value, 0.0)))
        grown.leaves[node] = Leaf(mean, deviation * axis * metric, float(mass * max(value, 0.0)), int(rows))
    return cells


def _stored(grown: CellTree) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    nodes = sorted(grown.leaves)
    d = len(grown.points[0])
    leaves = [grown.leaves[node] for node in nodes]
    state = {"open": grown.open, "leaves": nodes, "history": history_to_json(tuple(grown.history))}
    return state, {
        "points": np.stack(grown.points),
        "children": np.array(grown.children, np.int32),
        "means": np.array([leaf.mean for leaf in leaves]).reshape(-1, d),
        "steps": np.array([leaf.step for leaf in leaves]).reshape(-1, d),
        "gains": np.array([leaf.gain for leaf in leaves]),
        "rows": np.array([leaf.rows for leaf in leaves], np.int64),
    }


def _restored(saver: Checkpoints | None) -> CellTree | None:
    found = None if saver is None else saver.load()
    if found is None:
        return None
    a = found.arrays
    leaves = {
        int(node): Leaf(mean, step, float(gain), int(rows))
        for node, mean, step, gain, rows in zip(
            found.state["leaves"], a["means"], a["steps"], a["gains"], a["rows"], strict=True
        )
    }
    return CellTree(
        list(a["points"]),
        [(int(first), int(second)) for first, second in a["children"]],
        leaves,
        [int(node) for node in found.state["open"]],
        list(history_from_json(found.state["history"])),
    )
