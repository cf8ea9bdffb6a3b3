"""Lloyd's algorithm as map-reduce: one fold an iteration, exact integer sums, only what moved travels.

Source: Lloyd, *Least squares quantization in PCM* (1982). The stopping rules are scikit-learn's two (labels
unchanged; centre movement) and one on the relative gain of inertia.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.vectors import representable
from distclust.data.block import Block
from distclust.engines.events import IterationEnded, StageEnded, StageStarted
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.lloyd import accumulate, accumulate_moved, farthest, row_sqdist, row_sqnorm
from distclust.kernels.slices import in_slices
from distclust.kernels.updates import cluster_means, step_beyond
from distclust.ops.bounds import BoundedPass, bounds_pay, level_step
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.near import NearCenters
from distclust.ops.profile import PreparedData
from distclust.ops.totals import weighted_total
from distclust.stats.extremes import FarRows
from distclust.stats.fixed import FixedPair, SumScales
from distclust.stats.lloyd import ClusterSums, LloydStats

Floats = npt.NDArray[np.float64]

FAR_ROWS = 64
"""Most empty clusters that one pass can fill."""


LEAST_SHARE = 1e-6
"""Least inertia, as a share of the sum of w * ||x||^2, that is taken from sums: below it too few digits are left."""

LIST_RTOL = 0.25
"""Share of ``rtol`` that ends passes by lists of all rows."""

FIRST_PASSES = 3
"""Passes without bounds: a fit that ends soon does not repay making them, and on a sample they are loose at first."""


@dataclass(frozen=True)
class Stride:
    """How centres go on from the means of their rows.

    Attributes
    ----------
    relaxation : float
        How far a centre goes towards its mean, as a multiple of the way; from 1 to below 2.
    momentum : float
        Share of its last step that a centre takes again; from 0 to below 1 (Polyak, *Some methods of speeding up the
        convergence of iteration methods*, 1964).
    """

    relaxation: float = 1.0
    momentum: float = 0.0

    def beyond(
        self, centers: Floats, means: Floats, previous: Floats | None, *, unit: bool, threads: int = 1
    ) -> Floats:
        """Return the next centres.

        Parameters
        ----------
        centers, means : (k, d) float64
            Of this pass.
        previous : (k, d) float64 or None
            Centres of the pass before; None if their last step is not to be taken again.
        unit : bool
            Whether centres have unit length (cosine).
        threads : int, default=1
        """
        if self == PLAIN:
            return means
        last, momentum = (centers, 0.0) if previous is None else (previous, self.momentum)
        new = step_beyond(centers, means, last, self.relaxation, momentum, threads=threads)
        if not unit:
            return new
        lengths = np.sqrt(row_sqnorm(new))[:, None]
        return np.where(lengths > 0, new / np.where(lengths > 0, lengths, 1.0), means)


PLAIN = Stride()
"""Lloyd's own: to the means."""


@dataclass(frozen=True)
class LloydValue:
    """What a Lloyd pass shares.

    Attributes
    ----------
    centers : CenterSet
        Of this pass.
    anchor : CenterSet or None
        Centres under which the lists are made that this pass looks at, maybe its own; None to prove what is nearest.
    previous : CenterSet, NearCenters or None
        How rows were labelled in the pass before; None in a first pass. A node that has lost its labels finds them
        again by this rule, so changes are the same with and without state.
    totals : bool
        Whether the sums are wanted whole (first pass, or first after a resume) or as changes since ``previous``.
    scales : SumScales
    inertia_scale : float
        1.0 where nothing is measured.
    bounded : BoundedPass or None
        Set where bounds pay.
    measured : bool, default=True
        Whether the distances of rows to their centres are wanted, for the inertia.
    """

    centers: CenterSet
    anchor: CenterSet | None
    previous: CenterSet | NearCenters | None
    totals: bool
    scales: SumScales
    inertia_scale: float
    bounded: BoundedPass | None
    measured: bool = True

    @property
    def rule(self) -> LabelRule:
        """How the pass labels rows."""
        return self.centers if self.anchor is None else NearCenters(self.centers, self.anchor)


@dataclass(frozen=True)
class LloydStep:
    """Assign a block and sum what the update needs."""

    def __call__(self, block: Block, value: LloydValue, context: StepContext) -> LloydStats:
        """Assign the rows of a block and sum."""
        # The old labels first: should they be lost, finding them again must not push out the new ones.
        old = None if value.previous is None else value.previous.labels(block, context)
        if value.bounded is not None:
            labels = value.bounded.labels(block, old, context)
        else:
            labels = value.rule.labels(block, context)
        scale = value.inertia_scale
        inertia = _measured(block, labels, value, scale) if value.measured else FixedPair.zeros(1, scale)
        moved = block.n if old is None else int(np.count_nonzero(old != labels))
        sums = _totals(block, labels, value) if old is None or value.totals else _changes(block, old, labels, value)
        return LloydStats((sums,), inertia, moved)


@dataclass(frozen=True)
class InertiaStep:
    """Measure the inertia of a pass, after one that did not."""

    scale: float

    def __call__(self, block: Block, value: LloydValue, context: StepContext) -> FixedPair:
        """Sum the distances of a block's rows to their centres."""
        return _measured(block, value.rule.labels(block, context), value, self.scale)


@dataclass(frozen=True)
class FarStep:
    """Find the rows farthest from their centres, after a pass that left clusters empty."""

    limit: int

    def __call__(self, block: Block, value: LloydValue, context: StepContext) -> FarRows:
        """Choose rows of a block."""
        labels = value.rule.labels(block, context)
        sqdist = row_sqdist(block.x, value.centers.rows, labels)
        if block.weights is not None:
            sqdist = np.where(block.weights > 0, sqdist, 0.0)  # a row of no weight is no centre
        at = farthest(sqdist, block.row_ids, self.limit)
        weights = np.ones(len(at)) if block.weights is None else block.weights[at]
        return FarRows(self.limit, sqdist[at], block.row_ids[at], block.x[at], labels[at], weights)


def _measured(block: Block, labels: npt.NDArray[np.int32], value: LloydValue, scale: float) -> FixedPair:
    return weighted_total(row_sqdist(block.x, value.centers.rows, labels), block.weights, scale)


def _totals(block: Block, labels: npt.NDArray[np.int32], value: LloydValue) -> ClusterSums:
    out = ClusterSums.zeros(len(value.centers), block.d)
    scales = value.scales
    accumulate(block.x, block.weights, labels, scales.columns, scales.mass, out.sums, out.mass, out.counts)
    return out


def _changes(block: Block, old: npt.NDArray[np.int32], new: npt.NDArray[np.int32], value: LloydValue) -> ClusterSums:
    moved = np.flatnonzero(old != new)
    changed = np.zeros(len(value.centers), np.bool_)
    changed[old[moved]] = changed[new[moved]] = True
    touched = np.flatnonzero(changed)
    slot = np.zeros(len(value.centers), np.int32)
    slot[touched] = np.arange(len(touched), dtype=np.int32)
    t = len(touched)
    out = ClusterSums(touched, np.zeros((t, block.d), np.int64), np.zeros(t, np.int64), np.zeros(t, np.int64))
    accumulate_moved(
        block.x, block.weights, old, new, slot, value.scales.columns, value.scales.mass, out.sums, out.mass, out.counts
    )
    return out


@dataclass(frozen=True)
class Iteration:
    """One entry of the history."""

    iteration: int
    inertia: float
    """Of the centres that the pass began with; in a pass by lists, of the labels found by these."""
    shift: float
    moved: int
    reassigned: int
    seconds: float
    rows: int
    """About how many rows took part."""


NextPass = Literal["all", "anchor", "lists", "last", "exact", "plain"]


@dataclass(frozen=True)
class ListPlan:
    """Where passes compare rows only with the centres on their lists.

    Attributes
    ----------
    passes : tuple of int
        Most passes by the lists of the first, second and so on anchor, the last for all later ones. An anchor is a pass
        that makes lists.
    full : bool
        Whether the passes are over all rows: passes by lists then go on to `LIST_RTOL` of ``rtol``. On a sample lists
        may miss what the centres could still gain.
    confirm : bool
        Whether the last pass must prove which centres are nearest. It must, too, where it would have to see about
        clusters that are or were empty.
    least : float, default=0.0
        Least inertia a row for which lists tell centres apart; below it passes are exact.
    seeds : float, default=inf
        Inertia a row of the first centres, where no pass has been done.
    """

    passes: tuple[int, ...]
    full: bool
    confirm: bool
    least: float = 0.0
    seeds: float = math.inf

    def tells_apart(self, history: tuple[Iteration, ...]) -> bool:
        """Tell whether lists are of use for the next pass."""
        return (history[-1].inertia / history[-1].rows if history else self.seeds) >= self.least


@dataclass(frozen=True)
class LloydState:
    """Everything that the next pass depends on: what a checkpoint holds.

    Attributes
    ----------
    centers : (k, d) float64
        In the coordinates of the blocks.
    iteration : int
        Passes done over the rows of this rung.
    history : tuple of Iteration
    finished : bool
        A stopping rule held.
    previous : (k, d) float64 or None
        Centres that the last pass began with.
    empty : tuple of int
        Clusters that had no row in the last pass and were given none: there was none, or they wait for a pass over all
        centres.
    rung : int
        Which sample of the rows; see `distclust.algorithms.progressive`.
    anchor : (k, d) float64 or None
        Centres under which the lists were made that the last pass looked at; None where it looked at none.
    anchors : int
        Passes over the rows of this rung that made lists.
    by_lists : int
        Passes by the lists of ``anchor``, after the one that made them.
    next_pass : {"all", "anchor", "lists", "last", "exact", "plain"}
        Whether the next pass finds the nearest of all centres, makes lists, or uses those of ``anchor``. A last one
        finds the nearest, and if it changes little, leaves centres and labels as they are. Exact ones find the nearest
        and go on to the end, where lists see too little; plain ones are exact and without strides.
    squares : float or None
        Sum of w * ||x||^2 of the rows, where it is known: with it the inertia follows from the sums of the clusters.
    """

    centers: Floats
    iteration: int = 0
    history: tuple[Iteration, ...] = ()
    finished: bool = False
    previous: Floats | None = None
    empty: tuple[int, ...] = ()
    rung: int = 0
    anchor: Floats | None = None
    anchors: int = 0
    by_lists: int = 0
    next_pass: NextPass = "all"
    squares: float | None = None

    @property
    def inertia(self) -> float:
        """Inertia of the last pass's centres; infinite before the first."""
        return self.history[-1].inertia if self.history else float("inf")


def run_lloyd(
    engine: Engine,
    data: PreparedData,
    config: KMeansConfig,
    state: LloydState,
    *,
    stride: Stride = PLAIN,
    lists: ListPlan | None = None,
    bounds: bool = True,
    checkpoint: Callable[[LloydState], None] | None = None,
    stage: str = "lloyd",
) -> LloydState:
    """Iterate until a stopping rule holds.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    config : KMeansConfig
        ``max_iter``, ``tol``, ``rtol``.
    state : LloydState
        First centres, or a checkpoint. The result has the same bits from either.
    stride : Stride, default=PLAIN
        How centres go on from their means, from the second pass on. The last pass ends at the means, and so does one
        after the inertia has risen by more than ``config.rtol`` of it.
    lists : ListPlan, optional
        Where passes look at lists of near centres; default: every pass looks at all centres. Rows keep no bounds while
        they have lists.
    bounds : bool, default=True
        Whether rows may keep bounds from pass to pass.
    checkpoint : callable, optional
        Called with the state after every pass.
    stage : str, default="lloyd"
        Name in the events.
    """
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage=stage, total_rows=data.pinned.n_rows, max_passes=config.max_iter))
    threshold = config.tol * float(np.cumsum(data.moments.variance)[-1] / data.width)
    keeps_bounds = bounds and config.algorithm == "auto"
    memory = _Memory(stride, lists, keeps_bounds, engine.info.slots)
    while not state.finished and state.iteration < config.max_iter:
        state = _iterate(engine, data, config, state, memory, threshold)
        engine.options.emit(IterationEnded(stage=stage, **vars(state.history[-1])))
        if checkpoint is not None:
            checkpoint(state)
    engine.options.emit(StageEnded(stage=stage, seconds=time.perf_counter() - started))
    return state


@dataclass
class _Memory:
    """What the driver keeps from pass to pass, and can do without."""

    stride: Stride = PLAIN
    """See `run_lloyd`."""
    lists: ListPlan | None = None
    """See `run_lloyd`."""
    bounds: bool = True
    """Whether rows may keep bounds."""
    threads: int = 1
    """Most threads of the driver between passes."""
    totals: ClusterSums | None = None
    """Sums under the centres before the state's."""
    bound_step: float | None = None
    """Distance between two levels of the rows' bounds, once bounds pay."""
    known: tuple[tuple[Floats, CenterSet], ...] = ()
    """Centres of the last passes, as they were shared: what workers derive from them is derived once."""

    def center_set(self, centers: Floats, data: PreparedData) -> CenterSet:
        """Return centres of a state as a pass shares them."""
        for rows, known in self.known:
            if rows is centers:
                return known
        rows = np.empty(centers.shape, data.view.dtype)
        k, d = centers.shape
        in_slices(lambda some: np.copyto(rows[some], centers[some], casting="same_kind"), k, d, self.threads)
        made = CenterSet(rows, data.head, again=True, threads=self.threads)
        self.known = (*self.known[-2:], (centers, made))
        return made

    def last_rule(self, state: LloydState, data: PreparedData) -> CenterSet | NearCenters | None:
        """Return how rows were labelled in the pass before."""
        if state.previous is None:
            return None
        previous = self.center_set(state.previous, data)
        if state.anchor is None:
            return previous
        return NearCenters(previous, self.center_set(state.anchor, data))


def _must_measure(state: LloydState, n: int) -> bool:
    """Tell whether a pass over n rows must measure every distance; else its inertia follows from its sums."""
    if state.squares is None or not state.history:
        return True
    last = state.history[-1]  # maybe of a sample
    return last.inertia * (n / last.rows) < LEAST_SHARE * state.squares


def _inertia(state: LloydState, found: float | None, explained: Floats) -> tuple[float, float]:
    """Return the inertia of a pass, as it was measured or from its sums, and the sum of squares that it leads to."""
    explains = math.fsum(explained)  # rounded once, however many clusters there are
    if found is None:
        assert state.squares is not None
        return max(state.squares - explains, 0.0), state.squares
    return found, found + explains if state.squares is None else state.squares


def _iterate(
    engine: Engine, data: PreparedData, config: KMeansConfig, state: LloydState, memory: _Memory, threshold: float
) -> LloydState:
    """Do one pass."""
    started = time.perf_counter()
    kind = _kind(state, memory.lists)
    stride = PLAIN if kind == "plain" else memory.stride
    anchor = {"anchor": state.centers, "lists": state.anchor}.get(kind)
    value = _shared_value(data, state, memory, anchor)
    known, memory.totals = memory.totals, None  # they are changed in place
    settings: dict[str, Any] = {
        "scales": data.scales,
        "unit": data.view.unit_rows,
        "single": data.view.dtype == "float32",
        "threads": memory.threads,
    }
    with engine.share(value) as shared:
        stats: LloydStats = engine.fold(data.pinned, LloydStep(), LloydStats.merge, shared, label="lloyd")
        totals = _add_up(stats, known, memory.threads)
        update = update_centers(state.centers, totals, None, **settings)
        found = stats.inertia.total() if value.measured else None
        inertia, squares = _inertia(state, found, update.explained)
        if found is None and inertia < LEAST_SHARE * squares:  # the first pass with so little of it
            step = InertiaStep(_inertia_scale(data, value.centers))
            inertia = engine.fold(data.pinned, step, FixedPair.merge, shared, label="lloyd: inertia").total()
        ends = _ends(state, config, stride, memory.lists, stats.moved, inertia, update.shift, kind, threshold)
        following = _next_pass(state, memory.lists, kind, ends)
        # A far row that becomes a centre is on no list: clusters wait for one until all centres are looked at.
        last = state.iteration + 1 == config.max_iter
        if update.empty and (following != "lists" or last):
            search = FarStep(min(len(value.centers), FAR_ROWS))
            far: FarRows = engine.fold(data.pinned, search, FarRows.merge, shared, label="lloyd: far rows")
            update = update_centers(state.centers, totals, far, **settings)
    memory.totals = totals
    means, reassigned = update.means, update.reassigned
    if reassigned and anchor is None:  # not all rows have been compared with a centre that was a far row
        ends, following = "", _next_pass(state, memory.lists, kind, "")
    moved_share = stats.moved / data.moments.n_rows
    late = state.iteration + 1 >= FIRST_PASSES
    keeps_bounds = memory.bounds and (memory.lists is None or kind in ("exact", "plain"))
    if memory.bound_step is None and keeps_bounds and late and bounds_pay(len(means), data.width, moved_share):
        memory.bound_step = level_step(inertia / data.moments.mass)
    seconds = time.perf_counter() - started
    n = data.moments.n_rows
    entry = Iteration(state.iteration + 1, inertia, update.shift, stats.moved, reassigned, seconds, n)
    finished = ends == "done"
    if memory.lists is not None and memory.lists.full and anchor is not None:
        finished = finished and not (memory.lists.confirm or reassigned or update.empty)
    if finished and kind == "last":
        new = state.centers
    elif following == "last":
        new = representable(data, means, threads=memory.threads)
    elif finished or ends == "risen" or last:
        new = means
    else:
        new = _beyond(state, entry, means, stride, unit=data.view.unit_rows, threads=memory.threads)
    return LloydState(
        new,
        entry.iteration,
        (*state.history, entry),
        finished,
        state.centers,
        update.empty,
        state.rung,
        anchor,
        state.anchors + (kind == "anchor"),
        state.by_lists + 1 if kind == "lists" else 0,
        following,
        squares,
    )


def _add_up(stats: LloydStats, known: ClusterSums | None, threads: int) -> ClusterSums:
    """Return the sums of all clusters: those of the pass before and the changes, or all from a first pass."""
    totals, changes = (stats.parts[0].owned(), stats.parts[1:]) if known is None else (known, stats.parts)
    for part in changes:
        totals.add(part, threads=threads)
    return totals


Ends = Literal["", "done", "risen"]


def _kind(state: LloydState, lists: ListPlan | None) -> NextPass:
    """Return how the next pass finds labels."""
    if lists is None or state.next_pass not in ("all", "anchor", "lists"):
        return state.next_pass
    if not lists.tells_apart(state.history):
        return "exact"
    return "anchor" if state.next_pass == "all" else state.next_pass


def _ends(
    state: LloydState,
    config: KMeansConfig,
    stride: Stride,
    lists: ListPlan | None,
    moved: int,
    inertia: float,
    shift: float,
    kind: NextPass,
    threshold: float,
) -> Ends:
    """Return whether a stopping rule holds, or the inertia has risen."""
    gain = state.inertia - inertia
    # Only strides beyond the means can raise the inertia: then the means are the way back, not the end.
    risen = stride != PLAIN and gain < -config.rtol * state.inertia
    # Rows that keep their labels prove a fixed point only under centres that were means.
    settled = moved == 0 and stride == PLAIN
    # A pass by lists costs little, and what follows it much.
    rtol = config.rtol * (LIST_RTOL if kind == "lists" and lists is not None and lists.full else 1.0)
    slow = config.rtol > 0 and state.iteration > 0 and gain < rtol * state.inertia and not risen
    # Centres that have hardly moved by lists may yet have far to go.
    still = shift <= threshold and (kind != "last" or slow)
    # Passes by lists can go up and down for ever: then it counts what a whole round of them has gained.
    if kind == "anchor" and 0 < state.by_lists < len(state.history):
        slow |= state.history[-1 - state.by_lists].inertia - inertia < config.rtol * inertia
    return "done" if settled or still or slow else "risen" if risen else ""


def _shared_value(data: PreparedData, state: LloydState, memory: _Memory, anchor: Floats | None) -> LloydValue:
    """Return what the next pass shares."""
    previous = memory.last_rule(state, data)
    centers = memory.center_set(state.centers, data)
    measured = _must_measure(state, data.moments.n_rows)
    scale = _inertia_scale(data, centers) if measured else 1.0
    bounded = None
    if memory.bound_step is not None:
        assert not isinstance(previous, NearCenters)
        bounded = BoundedPass(memory.bound_step, previous, centers)
    lists_of = None if anchor is None else memory.center_set(anchor, data)
    return LloydValue(centers, lists_of, previous, memory.totals is None, data.scales, scale, bounded, measured)


def _inertia_scale(data: PreparedData, centers: CenterSet) -> float:
    return data.inertia_scale(float(row_sqnorm(centers.rows).max()))


def _beyond(state: LloydState, entry: Iteration, means: Floats, stride: Stride, *, unit: bool, threads: int) -> Floats:
    """Return where centres go on from their means, after a pass that is not the last."""
    if state.iteration == 0 or entry.reassigned or entry.moved == 0:
        return means
    # The step of the seeds, and that of an empty cluster to a far row, say nothing about where centres are going.
    telling = state.iteration > 1 and not state.history[-1].reassigned
    return stride.beyond(state.centers, means, state.previous if telling else None, unit=unit, threads=threads)


def _next_pass(state: LloydState, lists: ListPlan | None, kind: NextPass, ends: Ends) -> NextPass:
    """Return how the pass after one of a kind finds labels."""
    if lists is None or kind == "plain":
        return kind
    if kind == "exact":
        return "plain" if ends == "risen" else "exact"
    if kind == "last":
        # What it finds beyond `rtol` lists have not seen, and would not see again.
        return "anchor" if ends == "done" else "exact"
    if ends == "done":
        return "last"
    if kind == "anchor":
        return "lists"
    most = lists.passes[min(state.anchors, len(lists.passes)) - 1]
    return "lists" if state.by_lists + 1 < most else "anchor"


@dataclass(frozen=True)
class Update:
    """Centres after a pass; made by `update_centers`.

    Attributes
    ----------
    means : (k, d) float64
    explained : (k,) float64
        See `distclust.kernels.updates.cluster_means`.
    shift : float
        Sum of squared distances between the centres of the pass and the means.
    reassigned : int
        Clusters that took a far row.
    empty : tuple of int
        Clusters that stayed empty: no far rows were looked for, or there was none for them.
    """

    means: Floats
    explained: Floats
    shift: float
    reassigned: int
    empty: tuple[int, ...]


def update_centers(
    centers: Floats,
    totals: ClusterSums,
    far: FarRows | None,
    scales: SumScales,
    *,
    unit: bool,
    single: bool = False,
    threads: int = 1,
) -> Update:
    """Return the means of the clusters; an empty cluster takes a far row, which leaves its old cluster.

    Parameters
    ----------
    centers : (k, d) float64
        Centres of the pass; a cluster that stays empty keeps its own.
    totals : ClusterSums
        Of all k clusters.
    far : FarRows or None
        By (-squared distance, row id); None if empty clusters stay so.
    scales : SumScales
        Of the totals.
    unit : bool
        Whether centres have unit length (cosine).
    single : bool, default=False
        Whether rows are compared with the centres in float32.
    threads : int, default=1
    """
    mass = totals.mass / scales.mass
    empty = np.flatnonzero(totals.mass == 0)
    found = cluster_means(totals.sums, scales.columns, mass, centers, single=single, threads=threads)
    new, shifts = found.means, found.shifts
    sums: dict[int, Floats] = {}
    waiting = [int(cluster) for cluster in empty]
    for at in [] if far is None else _takeable(far):
        assert far is not None
        if not waiting:
            break
        donor, weight, row = int(far.labels[at]), float(far.weights[at]), far.rows[at].astype(np.float64)
        if mass[donor] <= weight:  # the donor would be empty in turn
            continue
        cluster = waiting.pop(0)
        if donor not in sums:
            sums[donor] = totals.sums[donor] / scales.columns
        sums[donor] = sums[donor] - weight * row
        mass[donor] -= weight
        sums[cluster], mass[cluster] = weight * row, weight
    for changed, total in sums.items():
        new[changed] = total / mass[changed]
    full = mass > 0
    if unit:
        lengths = np.sqrt(row_sqnorm(new))
        directed = full & (lengths > 0)
        new[directed] /= lengths[directed, None]
        new[full & (lengths == 0)] = centers[full & (lengths == 0)]
    if unit or sums:
        shifts = row_sqdist(new, centers, np.arange(len(new), dtype=np.int32))
    still = empty[~full[empty]]
    shift = float(np.cumsum(shifts)[-1]) if len(shifts) else 0.0
    return Update(new, found.explained, shift, len(empty) - len(still), tuple(int(cluster) for cluster in still))


def _takeable(far: FarRows) -> list[int]:
    """Return the far rows that are off their centre and differ from each other."""
    seen: set[bytes] = set()
    out: list[int] = []
    for at in range(len(far.row_ids)):
        bits = (far.rows[at] + 0.0).tobytes()
        if far.sqdist[at] <= 0:
            break
        if bits not in seen:
            seen.add(bits)
            out.append(at)
    return out


def history_to_json(history: tuple[Iteration, ...]) -> list[dict[str, Any]]:
    """Return the history as plain values."""
    return [vars(entry) for entry in history]


def history_from_json(entries: list[dict[str, Any]]) -> tuple[Iteration, ...]:
    """Undo `history_to_json`."""
    return tuple(Iteration(**entry) for entry in entries)
