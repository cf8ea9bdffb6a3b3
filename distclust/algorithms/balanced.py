"""Balanced assignment: rows to given centres at the least cost, with the sizes of the clusters bounded.

The transport problem is solved through its dual: a price for every centre. Entropic regularisation makes the sizes a
smooth function of the prices (Sinkhorn; Cuturi, *Sinkhorn distances*, 2013), so each pass over the rows shares every
row out by softmax, adds the shares up to one number a centre, and corrects the prices in the log domain. The plan of
rows times centres is never kept. The regularisation shrinks from the variance of the rows to a small part of the cost
of a row (Schmitzer, *Stabilized sparse scaling algorithms for entropy regularized transport problems*, 2019). Last,
whole rows go where their squared distance less the price is lowest, and what is out of bounds is repaired
(`distclust.algorithms.rounding`).

A share is a number from 0 to 1, because a row's shares are scaled by their own largest term before they are added to
others'; so totals are sums of integers of one fixed scale, and equal bits in any partitioning need no further pass.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.balanced_config import BalancedConfig
from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.rounding import BUNDLE, PlaceCounts, Sizes, count_places, repair_round, tiles
from distclust.artifacts.checkpoint import Checkpoints
from distclust.data.block import Block
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine, StepContext
from distclust.errors import DataError, UsageError
from distclust.kernels.elementary import exponential, logarithm
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import distance_table
from distclust.kernels.transport import best_candidates, soft_sizes
from distclust.ops.assign import assign
from distclust.ops.centers import CenterSet
from distclust.ops.prices import PricedCenters
from distclust.ops.profile import PreparedData
from distclust.ops.sample import hash_sample
from distclust.stats.fixed import scale_for
from distclust.stats.lloyd import AssignStats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LAST_REGULARISATION = 0.03
SHRINKS = 0.5
PASSES_PER_LEVEL = 5
ENOUGH = 0.02
OVERRELAXED = 1.5
"""The regularisation ends at this share of the mean squared distance of a row to its nearest centre, shrinks by this
factor, after at most so many passes, or fewer once this share of the rows is out of bounds; prices move so much further
than Sinkhorn's step says. Chosen by cost against the optimum (linear programming) on s1, a3, unbalance, yeast, uniform
rows and embeddings, slack 0 to 0.3: 11 to 64 passes to 1.000-1.019 of the optimum once repaired. Twice the passes to
half the violation gained nothing."""


SMALL_GAIN = 1e-4
"""A round that lowers the cost by no more than this share is the last one."""

SAMPLE_ROWS = 256
REACHES = 5.0
"""Where rows list only some of the centres, the regularisation begins so low that the cost of the last one listed is
this many times the regularisation above that of the first, on average over a hash sample: what is not listed has then
under 1 % of a share. Begun higher, lists and prices chased each other (k = 200: cost ratio 1.10 instead of 1.027)."""


@dataclass(frozen=True)
class SoftValue:
    """What a pass shares.

    Attributes
    ----------
    listing : PricedCenters
        The centres; under many, rows list as candidates those of lowest cost less these prices.
    candidates : int
        How many.
    prices : (k,) float64
    outside : float
        Price less cost of no cluster; minus infinity where every row is assigned.
    sharpness : float
        Inverse of the regularisation.
    scale : float
        Of the totals.
    """

    listing: PricedCenters
    candidates: int
    prices: Floats
    outside: float
    sharpness: float
    scale: float


@dataclass(frozen=True)
class SoftStep:
    """Share out the rows of a block, and add up."""

    def __call__(self, block: Block, value: SoftValue, context: StepContext) -> PlaceCounts:
        """Add up the shares of the rows of a block."""
        sizes = np.zeros(len(value.listing) + 1, np.int64)
        for costs, candidates in _costs(block, value, context):
            soft_sizes(costs, candidates, value.prices, value.outside, value.sharpness, value.scale, sizes)
        return PlaceCounts(sizes)


def _costs(
    block: Block, value: SoftValue, context: StepContext
) -> Iterator[tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]]:
    """Yield costs and candidates of the rows; remembered where they take no more room than the rows."""
    k, m = len(value.listing), value.candidates
    tag = f"{value.listing.tag}-{m}"
    item = block.x.dtype.itemsize
    is_small = m * (item + (4 if m < k else 0)) <= block.d * item
    known = context.state.get("cost", tag) if is_small else None
    listed = context.state.get("candidates", tag) if m < k and known is not None else None
    if known is not None and known.shape == (block.n, m) and (m == k or listed is not None):
        yield known, np.empty((0, m), np.int32) if listed is None else listed
        return
    kept = []
    for tile in tiles(block, k):
        x = block.x[tile]
        table = distance_table(x, value.listing.packed)
        candidates, costs = best_candidates(table, value.listing.prices, row_sqnorm(x), m)
        if is_small:
            kept.append((candidates, costs))
        yield costs, candidates if m < k else candidates[:0]
    if kept:
        if m < k:
            context.state.put("candidates", tag, np.concatenate([candidates for candidates, _ in kept]))
        context.state.put("cost", tag, np.concatenate([costs for _, costs in kept]))


@dataclass(frozen=True)
class BalanceReport:
    """Sizes and cost, beside those of labels by the nearest centre.

    Attributes
    ----------
    rows, unassigned, clusters : int
        Assigned rows, and those that belong to no cluster.
    target_smallest, target_largest : float
        Of the targets, in rows.
    smallest, largest : int
        Rows of the smallest and the largest cluster.
    nearest_smallest, nearest_largest : int
        The same of labels by the nearest centre.
    inertia, nearest_inertia : float
        Sums of squared distances.
    cost_ratio : float or None
        Of the two; None where not all rows are assigned.
    passes : int
        Passes that set prices.
    rounds, repaired : int
        Passes that moved rows, and the rows that are placed otherwise than prices say.
    """

    rows: int
    unassigned: int
    clusters: int
    target_smallest: float
    target_largest: float
    smallest: int
    largest: int
    nearest_smallest: int
    nearest_largest: int
    inertia: float
    nearest_inertia: float
    cost_ratio: float | None
    passes: int
    rounds: int
    repaired: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class BalancedResult:
    """How rows are assigned.

    Attributes
    ----------
    rule : PricedCenters
        For `distclust.ops.assign.assign` and `predict`.
    targets : (k,) float64
        In rows.
    lowest, highest : (k,) int64
        Bounds of the sizes; those that held for whole rows, or would have under a penalty.
    nearest : AssignStats
        Of labels by the nearest centre.
    n_rows : int
        Rows in all.
    passes, rounds : int
        See `BalanceReport`.
    """

    rule: PricedCenters
    targets: Floats
    lowest: Ints
    highest: Ints
    nearest: AssignStats
    n_rows: int
    passes: int
    rounds: int

    def report(self, stats: AssignStats) -> BalanceReport:
        """Compare the statistics of labels by `rule` with those by the nearest centre."""
        inertia, nearest = stats.inertia.total(), self.nearest.inertia.total()
        rows = int(stats.counts.sum())
        whole = rows == self.n_rows
        return BalanceReport(
            rows=rows,
            unassigned=self.n_rows - rows,
            clusters=len(stats.counts),
            target_smallest=float(self.targets.min()),
            target_largest=float(self.targets.max()),
            smallest=int(stats.counts.min()),
            largest=int(stats.counts.max()),
            nearest_smallest=int(self.nearest.counts.min()),
            nearest_largest=int(self.nearest.counts.max()),
            inertia=inertia,
            nearest_inertia=nearest,
            cost_ratio=inertia / nearest if whole and nearest > 0 else None,
            passes=self.passes,
            rounds=self.rounds,
            repaired=len(self.rule.moved_ids),
        )


def balanced_assign(
    engine: Engine,
    data: PreparedData,
    centers: CenterSet,
    config: BalancedConfig | None = None,
    run: Checkpointed | None = None,
) -> BalancedResult:
    """Assign rows to given centres at the least sum of squared distances, with the sizes of the clusters bounded.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        Without weights: sizes are counted in rows.
    centers : CenterSet
        In the coordinates of the blocks.
    config : BalancedConfig, optional
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.

    Returns
    -------
    BalancedResult
        Its rule labels rows: ``assign(engine, data, centers, rule=result.rule)``.

    Raises
    ------
    UsageError
        Weighted rows, or targets for another number of clusters.
    DataError
        There is no row to assign.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust.data.sources import open_source
    >>> from distclust.engines.local import LocalEngine
    >>> from distclust.ops.assign import predict
    >>> from distclust.ops.profile import plan, prepare
    >>> source = open_source(np.array([[0.0], [1.0], [2.0], [9.0]]))
    >>> with LocalEngine(1) as engine:
    ...     data = prepare(engine, source, plan(engine, source))
    ...     centers = CenterSet((np.array([[1.0], [9.0]]) - data.offset).astype(np.float32))
    ...     result = balanced_assign(engine, data, centers, BalancedConfig(capacity_slack=0.0))
    ...     predict(engine, data.pinned, result.rule).tolist()
    [0, 0, 1, 1]
    >>> source.close()
    """
    config = config or BalancedConfig()
    if data.view.columns.weight is not None or data.scales.mass != 1.0:
        raise UsageError(
            "balanced assignment counts rows; these have weights.", do="Prepare the rows without a weight column."
        )
    n, k = data.moments.n_rows, len(centers)
    assigned = round(config.mass * n)
    if not assigned:
        raise DataError(f"{config.mass} of {n} rows is none.", where=data.source.describe_place(), do="Assign more.")
    targets = config.shares(k) * assigned
    problem = _Problem.of(config, targets, n - assigned)
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="balance", total_rows=data.pinned.n_rows, max_passes=0))
    saver = _Saver(None if run is None else run.checkpoints("balance"))
    nearest = assign(engine, data, centers, label="balance: nearest")
    state = saver.restore() or _State.begin(engine, data, centers, nearest, config)
    while not state.settled:
        state = _correct(engine, data, centers, config, problem, state)
        saver.save(state)
    rule = _rule(centers, problem, state)
    if config.penalty is None:
        sizes = Sizes(count_places(engine, data, rule), *problem.whole)
        while not (sizes.within and state.improved):
            was_within = sizes.within
            after = repair_round(engine, data, rule, sizes, state.prices, state.cost * BUNDLE)
            if after is None:
                break
            rule, sizes, cost = after
            state = replace(
                state,
                rounds=state.rounds + 1,
                improved=was_within and -cost <= SMALL_GAIN * nearest.inertia.total(),
                moved_ids=rule.moved_ids,
                moved_to=rule.moved_to,
            )
            saver.save(state)
    engine.options.emit(StageEnded(stage="balance", seconds=time.perf_counter() - started))
    lowest, highest = (bound[:k] for bound in problem.whole)
    return BalancedResult(rule, targets, lowest, highest, nearest, n, state.passes, state.rounds)


@dataclass(frozen=True)
class _Problem:
    """Bounds of the sizes of all places; the last one is no cluster.

    Attributes
    ----------
    targets : (k + 1,) float64
    lowest, highest : (k + 1,) float64
        For shares.
    whole : tuple of (k + 1,) int64
        Least and most, for whole rows.
    """

    targets: Floats
    lowest: Floats
    highest: Floats
    whole: tuple[Ints, Ints]

    @classmethod
    def of(cls, config: BalancedConfig, targets: Floats, unassigned: int) -> _Problem:
        """Build from targets in rows."""
        outside = np.array([float(unassigned)])
        lowest = np.concatenate([targets * (1 - config.capacity_slack), outside])
        highest = np.concatenate([targets * (1 + config.capacity_slack), outside])
        # A target such as 3 * (n / 3) is whole but for rounding.
        whole = np.floor(lowest + 1e-9).astype(np.int64), np.ceil(highest - 1e-9).astype(np.int64)
        return cls(np.concatenate([targets, outside]), lowest, highest, whole)

    @property
    def may_stay_out(self) -> bool:
        """Whether rows are left without a cluster."""
        return bool(self.targets[-1] > 0)


@dataclass(frozen=True)
class _State:
    """All that the next pass depends on.

    Attributes
    ----------
    prices : (k + 1,) float64
        The last one is that of no cluster.
    regularisation : float
    cost : float
        Mean squared distance of a row to its nearest centre, and what it costs to stay out.
    listing : (k,) float64
        Prices by which candidates were listed.
    level_passes, passes, rounds : int
    settled : bool
        Prices are final.
    improved : bool
        No round that is worth it could lower the cost further.
    moved_ids, moved_to
        See `PricedCenters`.
    """

    prices: Floats
    regularisation: float
    cost: float
    listing: Floats
    level_passes: int
    passes: int
    rounds: int
    settled: bool
    improved: bool
    moved_ids: Ints
    moved_to: npt.NDArray[np.int32]

    @classmethod
    def begin(
        cls, engine: Engine, data: PreparedData, centers: CenterSet, nearest: AssignStats, config: BalancedConfig
    ) -> _State:
        """Begin without prices, at a regularisation that smooths over all rows, or over what they list."""
        k = len(centers)
        cost = nearest.inertia.total() / data.moments.n_rows
        spread = max(float(np.cumsum(data.moments.variance)[-1]), cost) or 1.0
        cost = max(cost, 1e-9 * spread)  # all rows may sit on their centres
        if config.candidates < k:
            rows = hash_sample(engine, data.pinned, SAMPLE_ROWS).rows
            table = np.sort(distance_table(rows, centers.packed), axis=1).astype(np.float64)
            reach = float(np.cumsum(table[:, config.candidates - 1] - table[:, 0])[-1]) / len(rows)
            spread = min(spread, max(reach / REACHES, LAST_REGULARISATION * cost))
        nothing = np.empty(0, np.int64), np.empty(0, np.int32)
        return cls(np.zeros(k + 1), spread, cost, np.zeros(k), 0, 0, 0, False, False, *nothing)


def _correct(
    engine: Engine, data: PreparedData, centers: CenterSet, config: BalancedConfig, problem: _Problem, state: _State
) -> _State:
    """Do one pass and correct the prices."""
    k = len(centers)
    regularisation = state.regularisation
    scale = scale_for(2.0 * data.moments.n_rows, 1.0)
    outside = float(state.prices[k]) - state.cost if problem.may_stay_out else -np.inf
    listing = PricedCenters(centers.rows, state.listing)
    candidates = min(k, config.candidates)
    value = SoftValue(listing, candidates, state.prices[:k], outside, 1.0 / regularisation, scale)
    with engine.share(value) as shared:
        found: PlaceCounts = engine.fold(data.pinned, SoftStep(), PlaceCounts.merge, shared, label="balance: prices")
    sizes = found.counts / scale
    prices, error = _corrected(config, problem, state, sizes)
    after = replace(state, prices=prices, level_passes=state.level_passes + 1, passes=state.passes + 1)
    if error > ENOUGH * data.moments.n_rows and after.level_passes < PASSES_PER_LEVEL:
        return after
    last = LAST_REGULARISATION * state.cost
    return replace(
        after,
        regularisation=max(regularisation * SHRINKS, last),
        listing=prices[:k] if candidates < k else state.listing,
        level_passes=0,
        settled=regularisation <= last,
    )


def _corrected(config: BalancedConfig, problem: _Problem, state: _State, sizes: Floats) -> tuple[Floats, float]:
    """Return the prices after Sinkhorn's step, and how many rows are out of bounds."""
    regularisation = state.regularisation
    # What the sizes would be without prices, all else equal.
    plain = logarithm(sizes) - state.prices / regularisation
    with np.errstate(invalid="ignore"):  # places of no size, which are dealt with below
        wanted = regularisation * np.clip(0.0, logarithm(problem.lowest) - plain, logarithm(problem.highest) - plain)
        error = np.maximum(sizes - problem.highest, 0.0) + np.maximum(problem.lowest - sizes, 0.0)
        if config.penalty is not None:
            weight = config.penalty * state.cost
            soft = weight * regularisation / (weight + regularisation) * (logarithm(problem.targets) - plain)
            agreed = problem.targets[:-1] * exponential(-state.prices[:-1] / weight)
            wanted[:-1] = soft[:-1]
            error[:-1] = np.abs(sizes[:-1] - agreed) / 2
        prices = state.prices + OVERRELAXED * (wanted - state.prices)
    # No row lists the place, as far as whole numbers can tell: it bids a little more for the next listing.
    bid = state.prices + (regularisation if state.level_passes == 0 else 0.0)
    return np.where(sizes > 0, prices, bid), float(np.cumsum(error)[-1])


def _rule(centers: CenterSet, problem: _Problem, state: _State) -> PricedCenters:
    k = len(centers)
    outside = state.cost - float(state.prices[k]) if problem.may_stay_out else math.inf
    return PricedCenters(centers.rows, state.prices[:k], outside, state.moved_ids, state.moved_to)


class _Saver:
    """Writes and reads checkpoints; does nothing without a place for them."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self._checkpoints = checkpoints

    def save(self, state: _State) -> None:
        """Save the state after a pass."""
        if self._checkpoints is None:
            return
        plain = {name: value for name, value in vars(state).items() if not isinstance(value, np.ndarray)}
        arrays = {name: value for name, value in vars(state).items() if isinstance(value, np.ndarray)}
        self._checkpoints.save(state.passes + state.rounds, plain, arrays)

    def restore(self) -> _State | None:
        """Return what was saved last."""
        found = None if self._checkpoints is None else self._checkpoints.load()
        fields: dict[str, Any] = {} if found is None else {**found.state, **found.arrays}
        return _State(**fields) if fields else None
