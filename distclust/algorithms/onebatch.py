"""Passes of OneBatchPAM over an engine: swaps judged on a batch of columns, with every row as a candidate.

A pass reads every row once: its distances to the columns tell, for all k swaps that would bring it in, what they change
(`distclust.kernels.medoids.swap_changes`). Partitions return their best candidates; the driver applies them one after
the other, judging each anew. Then medoids move to the most central row of their cluster, judged on a larger sample: a
column belongs to one cluster only, so this costs 1/k of the comparisons.

Source: de Mathelin et al., *OneBatchPAM* (2025), of which the distribution and the last step are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.dissimilarity import Dissimilarity, nearest_two, table
from distclust.kernels.medoids import MedoidState, eager_swaps, medoid_state, swap_changes
from distclust.kernels.sums import weighted_row_sums
from distclust.ops.measured import MeasuredData, as_measured
from distclust.ops.medoids import MedoidSet
from distclust.stats.medoids import BestRows

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SWAPS_PER_CLUSTER = 3
"""Best candidates that a pass keeps in each cluster. Candidates near each other would gain by the same swap."""

TILE_VALUES = 1 << 20
"""Distances that a task holds at a time."""

_MOST_SWAPS = 1 << 30


@dataclass(frozen=True)
class Medoids:
    """Rows of the dataset that stand for clusters.

    Attributes
    ----------
    rows : (k, d) in the blocks' type
    row_ids : (k,) int64
    """

    rows: Rows
    row_ids: Ints

    def in_id_order(self) -> Medoids:
        """Return the same medoids ordered by row id."""
        order = np.argsort(self.row_ids, kind="stable")
        return Medoids(self.rows[order], self.row_ids[order])


def tile_rows(columns: int) -> int:
    """Return how many rows are compared with so many columns at a time."""
    return max(64, TILE_VALUES // max(1, columns))


def both(measure: Dissimilarity, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[Rows, Rows]:
    """Return two sets of rows as the measure takes them, in the blocks' own precision."""
    return as_measured(measure, a, precise=False), as_measured(measure, b, precise=False)


def batch_weights(measure: Dissimilarity, batch: Rows, rows: Rows, weights: Floats, mass: float) -> Floats:
    """Return what each column stands for: its share of ``mass``, by the rows of a sample nearest to it.

    Parameters
    ----------
    measure : Dissimilarity
    batch : (b, d)
    rows : (s, d)
        A uniform sample. Counting all rows would cost a pass as dear as one of swaps.
    weights : (s,) float64
        Of the sample.
    mass : float
        What the weights of the columns add up to.
    """
    near, _, _, _ = nearest_two(measure, *both(measure, rows, batch))
    found: Floats = np.bincount(near, weights, len(batch)).astype(np.float64)
    total = float(np.cumsum(found)[-1])
    if total == 0:
        return np.full(len(batch), mass / len(batch))
    return found * (mass / total)


class BatchState:
    """Medoids, and what they mean for the columns of the batch.

    Parameters
    ----------
    measure : Dissimilarity
    batch : (b, d)
        Columns.
    weights : (b,) float64
    medoids : Medoids
    """

    def __init__(self, measure: Dissimilarity, batch: Rows, weights: Floats, medoids: Medoids) -> None:
        self.measure, self.batch = measure, batch
        self._rows = dict(zip(medoids.row_ids.tolist(), medoids.rows, strict=True))
        self._state = medoid_state(medoids.row_ids, table(measure, *both(measure, medoids.rows, batch)), weights)

    @property
    def loss(self) -> float:
        """Weighted sum over the columns of the distance to the nearest medoid."""
        return self._state.loss

    @property
    def medoids(self) -> Medoids:
        """The present medoids."""
        ids = self._state.medoids.copy()
        return Medoids(np.stack([self._rows[row_id] for row_id in ids.tolist()]), ids)

    def value(self) -> SwapValue:
        """Return what a swap pass shares."""
        return SwapValue(self.measure, self.batch, self._state._replace(table=self._state.table[:0]))

    def apply(self, candidates: BestRows) -> int:
        """Swap in what pays, the best first, until nothing does; return the number of swaps."""
        m = len(candidates.row_ids)
        if not m:
            return 0
        order = np.lexsort((candidates.row_ids, candidates.values))
        ids = candidates.row_ids[order]
        distances = table(self.measure, *both(self.measure, candidates.rows[order], self.batch))
        self._rows.update(zip(ids.tolist(), candidates.rows[order], strict=True))
        swaps = swap_until_none_pays(distances, ids, self._state)
        self._rows = {row_id: self._rows[row_id] for row_id in self._state.medoids.tolist()}
        return swaps


def swap_until_none_pays(distances: Rows, ids: Ints, state: MedoidState) -> int:
    """Try candidate after candidate until a round lowers the loss no further; return the number of swaps."""
    swaps = idle = 0
    before = np.inf
    # Where the loss is next to nothing, rounding passes for a gain and swaps would never end.
    while idle < len(ids) and state.loss < before:
        before = state.loss
        more, idle = eager_swaps(distances, ids, state, idle, len(ids), _MOST_SWAPS)
        swaps += more
    return swaps


@dataclass(frozen=True)
class SwapValue:
    """What a swap pass shares: the batch under the present medoids, whose own table does not travel."""

    measure: Dissimilarity
    batch: Rows
    state: MedoidState

    def whole_state(self) -> MedoidState:
        """Return the state with room for the table, which scoring does not read."""
        shape = len(self.state.medoids), len(self.batch)
        return self.state._replace(table=np.empty(shape, self.state.table.dtype))


@dataclass(frozen=True)
class SwapStep:
    """The best rows of a block to swap in, in each cluster."""

    exact: ClassVar[bool] = True

    limit: int = SWAPS_PER_CLUSTER

    def __call__(self, block: Block, value: SwapValue, context: StepContext) -> BestRows:
        """Look at every row of a block as a candidate."""
        best = BestRows.none(self.limit, block.x)
        state = value.whole_state()
        step = tile_rows(len(value.batch))
        for start in range(0, block.n, step):
            part = slice(start, min(start + step, block.n))
            distances = table(value.measure, *both(value.measure, block.x[part], value.batch))
            change, _ = swap_changes(distances, state)
            pays = np.flatnonzero(change < 0)
            if len(pays):
                # Where a candidate lies: in the cluster of the column that is nearest to it.
                groups = state.near[distances[pays].argmin(axis=1)].astype(np.int64)
                at = pays + start
                best = best.merge(BestRows.select(self.limit, groups, change[pays], block.row_ids[at], block.x[at]))
        return best


def swap_pass(engine: Engine, data: MeasuredData, state: BatchState) -> int:
    """Look at every row as a candidate and apply the best; return the number of swaps."""
    with engine.share(state.value()) as shared:
        best: BestRows = engine.fold(data.pinned, SwapStep(), BestRows.merge, shared, label="swap")
    return state.apply(best)


@dataclass(frozen=True)
class CentralValue:
    """What a pass for central rows shares.

    Attributes
    ----------
    medoids : MedoidSet
    columns : (s, d)
        Sampled rows, those of a cluster beside each other.
    weights : (s,) float64
    starts : (k + 1,) int64
        Where each cluster's columns begin.
    """

    medoids: MedoidSet
    columns: Rows
    weights: Floats
    starts: Ints

    def sums(self, cluster: int, rows: npt.NDArray[Any]) -> Floats:
        """Return the weighted sums of the distances of rows to a cluster's columns."""
        own = slice(int(self.starts[cluster]), int(self.starts[cluster + 1]))
        return weighted_row_sums(
            table(self.medoids.measure, *both(self.medoids.measure, rows, self.columns[own])), self.weights[own]
        )


@dataclass(frozen=True)
class CentralStep:
    """The row of each cluster, among those of a block, with the lowest sum of distances to the cluster's columns."""

    exact: ClassVar[bool] = True

    def __call__(self, block: Block, value: CentralValue, context: StepContext) -> BestRows:
        """Look for central rows in a block."""
        measure = value.medoids.measure
        labels, _, _, _ = nearest_two(measure, *both(measure, block.x, value.medoids.rows))
        order = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels, minlength=len(value.medoids)))
        found: list[tuple[int, float, int]] = []
        for cluster in np.flatnonzero(np.diff(value.starts)).tolist():
            own = order[ends[cluster - 1] if cluster else 0 : ends[cluster]]
            step = tile_rows(int(value.starts[cluster + 1] - value.starts[cluster]))
            for start in range(0, len(own), step):
                at = own[start : start + step]
                sums = value.sums(cluster, np.ascontiguousarray(block.x[at]))
                lowest = at[sums == sums.min()]
                found.append((cluster, float(sums.min()), int(lowest[block.row_ids[lowest].argmin()])))
        if not found:
            return BestRows.none(1, block.x)
        groups, sums, places = (np.array(part) for part in zip(*found, strict=True))
        return BestRows.select(1, groups, sums, block.row_ids[places], block.x[places])


def central_pass(
    engine: Engine, data: MeasuredData, medoids: Medoids, sample: Rows, weights: Floats
) -> tuple[Medoids, int]:
    """Move each medoid to the most central row of its cluster, judged on a sample.

    Parameters
    ----------
    engine : Engine
    data : MeasuredData
    medoids : Medoids
    sample : (s, d)
        Columns of all clusters.
    weights : (s,) float64
        Of the columns.

    Returns
    -------
    medoids : Medoids
    moved : int
        How many are other rows now.
    """
    k = len(medoids.row_ids)
    near, _, _, _ = nearest_two(data.measure, *both(data.measure, sample, medoids.rows))
    order = np.argsort(near, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(near, minlength=k))]).astype(np.int64)
    value = CentralValue(MedoidSet(medoids.rows, data.measure), sample[order], weights[order], starts)
    with engine.share(value) as shared:
        best: BestRows = engine.fold(data.pinned, CentralStep(), BestRows.merge, shared, label="centre")
    rows, ids = medoids.rows.copy(), medoids.row_ids.copy()
    for cluster, total, row_id, row in zip(best.groups, best.values, best.row_ids, best.rows, strict=True):
        if total < value.sums(int(cluster), medoids.rows[cluster : cluster + 1])[0]:
            rows[cluster], ids[cluster] = row, row_id
    return Medoids(rows, ids), int((ids != medoids.row_ids).sum())
