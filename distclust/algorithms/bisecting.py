"""Bisecting k-means over an engine: a tree of clusters, grown by splitting leaves in two until there are k.

The tree is the one that splitting a leaf at a time gives, always the worst one; but what comes of a split depends on
its own leaf alone, so all leaves whose turn is certain or likely to come are split at the same time, and one pass over
the rows serves them all (`distclust.algorithms.splitting`). Source: Steinbach, Karypis and Kumar (2000).
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.bisecting_config import BisectingConfig
from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.lloyd import Iteration, history_from_json, history_to_json
from distclust.algorithms.splitting import (
    Part,
    Sides,
    SideSums,
    Split,
    SplitRules,
    SplitStats,
    SplitStep,
    SplitValue,
    advance,
    axis_width,
    last_hash,
)
from distclust.algorithms.vectors import block_centers, stored_vectors
from distclust.artifacts.checkpoint import Checkpoint, Checkpoints
from distclust.engines.events import IterationEnded, StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import CancelledError, DataError
from distclust.kernels.lloyd import row_sqnorm
from distclust.ops.centers import CenterSet
from distclust.ops.profile import PreparedData
from distclust.ops.tree import CenterTree
from distclust.stats.fixed import scale_for

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]

OPEN_BYTES = 64 << 20
"""Most bytes of one task's sums: with more leaves to split than that, some wait."""

CHILD_SHARES = {"biggest_inertia": 0.4, "largest_cluster": 0.5}
"""What a child is taken to have of its parent's score before the split is done. Decides which leaves are split ahead of
their turn, never the result. A split of embeddings into two leaves 80-90 % of the inertia."""


@dataclass(frozen=True)
class BisectingResult:
    """A tree of clusters.

    Attributes
    ----------
    vectors : (m, d) float32 or float64
        Centres of the clusters in the coordinates of the source, as the model stores them, neighbours in the tree
        beside each other; m = k unless fewer rows are distinct.
    inner : (m - 1, d)
        Centres of the inner nodes, likewise. Node m + i is row i: the last split first, the root last.
    children : (m - 1, 2) int32
        Nodes below each inner node; numbers below m are clusters. Undoing splits from the first row on merges clusters.
    inertias : (m - 1,) float64
        Of the inner nodes when they were split.
    tree : CenterTree
        The same centres in the coordinates of the blocks, derived from the stored ones.
    centers : CenterSet
        Those of the clusters.
    n_iter : int
        Passes over the rows.
    history : tuple of Iteration
        One entry a pass: inertia of the tree as far as its order is known, the movement of the points of open splits,
        and, as moved, all rows that were looked at.
    """

    vectors: Rows
    inner: Rows
    children: npt.NDArray[np.int32]
    inertias: Floats
    tree: CenterTree
    centers: CenterSet
    n_iter: int
    history: tuple[Iteration, ...]

    @property
    def parents(self) -> npt.NDArray[np.int32]:
        """(2m - 1,) node above each node; -1 for the root."""
        return parents_of(self.children)


def parents_of(children: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the node above each of the 2m - 1 nodes; -1 for the root."""
    m = len(children) + 1
    out = np.full(2 * m - 1, -1, np.int32)
    for row, pair in enumerate(children):
        out[pair] = m + row
    return out


def tree_of(vectors: Rows, inner: Rows, children: npt.NDArray[np.int32], offset: Floats, dtype: str) -> CenterTree:
    """Return a stored tree in the coordinates of the blocks."""
    m = len(vectors)
    rows = block_centers(np.concatenate([vectors, inner]), offset, dtype).rows
    below = np.concatenate([np.full((m, 2), -1, np.int32), children.astype(np.int32)])
    return CenterTree(rows, below, root=2 * m - 2)


def fit_bisecting(
    engine: Engine,
    data: PreparedData,
    config: BisectingConfig,
    run: Checkpointed | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> BisectingResult:
    """Grow a tree of clusters over the rows of a prepared dataset.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        See `distclust.ops.profile.prepare`, with the metric of ``config``.
    config : BisectingConfig
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints; 0 saves after every pass.

    Raises
    ------
    DataError
        Fewer rows than clusters; or fewer distinct rows, unless ``config.allow_fewer``.
    """
    n, k = data.moments.n_rows, config.n_clusters
    if n < k and not config.allow_fewer:
        raise DataError(
            f"n_samples={n} should be >= n_clusters={k}.",
            where=data.source.describe_place(),
            do=f"Ask for at most {n} clusters, or allow fewer.",
        )
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="bisect", total_rows=data.pinned.n_rows, max_passes=0))
    saver = _Saver(None if run is None else run.checkpoints("bisect"), checkpoint_seconds)
    growth = saver.restore() or Growth.begin(data)
    try:
        while growth.open_leaves(config, data.width):
            _pass(engine, data, config, growth)
            saver.save_sometimes(growth)
    except CancelledError:
        saver.save(growth)
        raise
    engine.options.emit(StageEnded(stage="bisect", seconds=time.perf_counter() - started))
    return _result(data, config, growth)


@dataclass
class Growth:
    """A tree while it grows; nodes keep their numbers. All that the next pass depends on.

    Attributes
    ----------
    parts : list of Part
        Of every node.
    points : list of (d,) float64
        What told a node's rows from those of its sibling, in the blocks' type.
    children : list of (int, int)
        (-1, -1) where a node was not split.
    sealed : set of int
        Leaves whose rows cannot be told apart.
    splits : dict of int to Split
        In progress, by node.
    history : list of Iteration
    grown_from : str
        Tag of the tree that the last pass went down; not kept in checkpoints, because it is a matter of speed only.
    """

    parts: list[Part]
    points: list[Floats]
    children: list[tuple[int, int]]
    sealed: set[int] = field(default_factory=set)
    splits: dict[int, Split] = field(default_factory=dict)
    history: list[Iteration] = field(default_factory=list)
    grown_from: str = ""

    @classmethod
    def begin(cls, data: PreparedData) -> Growth:
        """Return the root alone, from the moments of the rows."""
        moments = data.moments
        inertia = moments.mass * float(np.cumsum(moments.variance)[-1])
        unit = data.view.unit_rows
        root = Part.of_sums(moments.mean * moments.mass, moments.mass, moments.n_rows, moments.mean, inertia, unit)
        return cls([root], [root.center], [(-1, -1)])

    def score(self, node: int, config: BisectingConfig) -> float:
        """Return what decides which leaf is split next."""
        part = self.parts[node]
        return part.inertia if config.bisecting_strategy == "biggest_inertia" else float(part.count)

    def order(self, config: BisectingConfig) -> tuple[list[int], list[int]]:
        """Play the splitting of one leaf at a time, the highest score first, as far as it is known.

        Returns
        -------
        split : list of int
            Nodes that are split, in order.
        wanted : list of int
            Leaves whose split is not known and whose turn comes, or is likely to come. Without any, the tree is done.
        """
        share = CHILD_SHARES[config.bisecting_strategy]
        split: list[int] = []
        wanted: list[int] = []
        # Nodes by (-score, number); what is only supposed has numbers from len(self.parts) on.
        heap = [(-self.score(0, config), 0)]
        leaves, number = 1, len(self.parts)
        while leaves < config.n_clusters and heap:
            score, node = heapq.heappop(heap)
            if node in self.sealed or score == 0:
                continue
            leaves += 1
            if node < len(self.parts) and self.children[node][0] >= 0:
                if not wanted:
                    split.append(node)
                below = [(-self.score(child, config), child) for child in self.children[node]]
            else:
                if node < len(self.parts):
                    wanted.append(node)
                below = [(score * share, number), (score * share, number + 1)]
                number += 2
            for entry in below:
                heapq.heappush(heap, entry)
        return split, wanted

    def open_leaves(self, config: BisectingConfig, width: int) -> bool:
        """Begin the splits that are wanted, as many as fit; return whether any is in progress that is needed."""
        _, wanted = self.order(config)
        room = max(1, OPEN_BYTES // (2 * (width + 4) * 8)) - len(self.splits)
        fresh = [node for node in wanted if node not in self.splits]
        for node in fresh[: max(room, 0)]:
            self.splits[node] = Split.begin(node, self.parts[node], config.metric == "cosine")
        return bool(wanted)

    def take(self, node: int, after: Split | Sides | None) -> None:
        """Take what became of a split in a pass."""
        if isinstance(after, Split):
            self.splits[node] = after
            return
        del self.splits[node]
        if after is None:
            self.sealed.add(node)
            return
        self.children[node] = (len(self.parts), len(self.parts) + 1)
        self.parts += after.parts
        self.points += list(after.points)
        self.children += [(-1, -1), (-1, -1)]

    def inertia(self, config: BisectingConfig) -> float:
        """Return the sum over the leaves of the tree as far as its order is known."""
        split, _ = self.order(config)
        inner = set(split)
        leaves = {0, *(child for node in split for child in self.children[node])} - inner
        return float(np.cumsum([self.parts[node].inertia for node in sorted(leaves)])[-1])


def _pass(engine: Engine, data: PreparedData, config: BisectingConfig, growth: Growth) -> None:
    """Take every open split one pass further."""
    started = time.perf_counter()
    dtype = data.view.dtype
    splits = [growth.splits[node] for node in sorted(growth.splits)]
    parts = [growth.parts[split.node] for split in splits]
    points = np.concatenate([split.points(part) for split, part in zip(splits, parts, strict=True)]).astype(dtype)
    tree = CenterTree(np.stack(growth.points).astype(dtype), np.array(growth.children, np.int32))
    mass_scale = scale_for(2.0 * data.moments.mass)
    value = SplitValue(
        tree,
        growth.grown_from,
        np.array([split.node for split in splits], np.int32),
        points,
        np.array([axis_width(split, part) for split, part in zip(splits, parts, strict=True)]),
        np.array([last_hash(split) for split in splits], np.uint64),
        data.scales,
        mass_scale,
        data.inertia_scale(float(row_sqnorm(points).max())),
    )
    with engine.share(value) as shared:
        stats: SplitStats = engine.fold(data.pinned, SplitStep(), SplitStats.merge, shared, label="bisect")
    growth.grown_from = tree.tag
    rules = SplitRules(config.max_iter, config.rtol, config.metric == "cosine")
    sums, mass = stats.sums.sums / data.scales.columns, stats.sums.mass / mass_scale
    inertias, shared_points = stats.inertia.values(), points.astype(np.float64)
    shift = 0.0
    for i, (split, part) in enumerate(zip(splits, parts, strict=True)):
        at = slice(2 * i, 2 * i + 2)
        sides = SideSums(shared_points[at], sums[at], mass[at], stats.sums.counts[at], inertias[at])
        after = advance(split, part, sides, rules)
        if isinstance(after, Split) and after.pair is not None and split.pair is not None:
            shift += float(np.cumsum(row_sqnorm(after.pair - split.pair))[-1])
        growth.take(split.node, after)
    rows = int(stats.sums.counts.sum())
    entry = Iteration(
        len(growth.history) + 1,
        growth.inertia(config),
        shift,
        rows,
        0,
        time.perf_counter() - started,
        rows,
    )
    growth.history.append(entry)
    engine.options.emit(IterationEnded(stage="bisect", **vars(entry)))


def _result(data: PreparedData, config: BisectingConfig, growth: Growth) -> BisectingResult:
    """Number the nodes of the finished tree: clusters from left to right, then inner nodes, the last split first."""
    order, _ = growth.order(config)
    m = len(order) + 1
    if m < config.n_clusters and not config.allow_fewer:
        raise DataError(
            f"the rows could be split into {m} clusters only, {config.n_clusters} were asked for: the rows of each are "
            "equal, as far as their type can tell.",
            where=data.source.describe_place(),
            do=f"Ask for at most {m} clusters, or accept fewer with allow_fewer=True (--allow-fewer).",
        )
    inner = order[::-1]
    number = {node: m + i for i, node in enumerate(inner)}
    leaves: list[int] = []
    waiting = [0]
    while waiting:
        node = waiting.pop()
        if node in number:
            waiting += growth.children[node][::-1]
        else:
            number[node] = len(leaves)
            leaves.append(node)
    children = np.array([[number[child] for child in growth.children[node]] for node in inner], np.int32)
    vectors = stored_vectors(data, np.stack([growth.parts[node].center for node in leaves]))
    between = stored_vectors(data, np.stack([growth.parts[node].center for node in inner])) if inner else vectors[:0]
    children = children.reshape(-1, 2)
    return BisectingResult(
        vectors,
        between,
        children,
        np.array([growth.parts[node].inertia for node in inner]),
        tree_of(vectors, between, children, data.offset, data.view.dtype),
        block_centers(vectors, data.offset, data.view.dtype),
        len(growth.history),
        tuple(growth.history),
    )


class _Saver:
    """Writes and reads checkpoints; does nothing without a place for them."""

    def __init__(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        self._checkpoints = checkpoints
        self._seconds = seconds
        self._saved = 0.0

    def save_sometimes(self, growth: Growth) -> None:
        """Save unless the last save is recent."""
        if time.monotonic() - self._saved >= self._seconds:
            self.save(growth)

    def save(self, growth: Growth) -> None:
        """Save the tree and the splits in progress."""
        if self._checkpoints is None:
            return
        d = len(growth.points[0])
        splits = list(growth.splits.values())
        none = np.full((2, d), np.nan)
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "points": np.stack(growth.points),
            "means": np.stack([part.mean for part in growth.parts]),
            "centers": np.stack([part.center for part in growth.parts]),
            "totals": np.array([[part.mass, part.inertia] for part in growth.parts]),
            "counts": np.array([part.count for part in growth.parts], np.int64),
            "children": np.array(growth.children, np.int32),
            "directions": np.array([split.direction for split in splits]).reshape(-1, d),
            "pairs": np.array([none if split.pair is None else split.pair for split in splits]).reshape(-1, 2, d),
        }
        record = {
            "sealed": sorted(growth.sealed),
            "splits": [[split.node, split.share, split.passes, split.attempt] for split in splits],
            "history": history_to_json(tuple(growth.history)),
        }
        self._checkpoints.save(len(growth.history), record, arrays)
        self._saved = time.monotonic()

    def restore(self) -> Growth | None:
        """Return what was saved last."""
        found = None if self._checkpoints is None else self._checkpoints.load()
        return None if found is None else _rebuild(found)


def _rebuild(found: Checkpoint) -> Growth:
    state: dict[str, Any] = found.state
    arrays = found.arrays
    parts = [
        Part(mean, center, float(totals[0]), int(count), float(totals[1]))
        for mean, center, totals, count in zip(
            arrays["means"], arrays["centers"], arrays["totals"], arrays["counts"], strict=True
        )
    ]
    splits = {}
    for i, (node, share, passes, attempt) in enumerate(state["splits"]):
        pair = arrays["pairs"][i]
        splits[node] = Split(
            node,
            arrays["directions"][i],
            None if np.isnan(pair).any() else pair,
            float(share),
            passes,
            attempt,
        )
    return Growth(
        parts,
        list(arrays["points"]),
        [(int(a), int(b)) for a, b in arrays["children"]],
        set(state["sealed"]),
        splits,
        list(history_from_json(state["history"])),
    )
