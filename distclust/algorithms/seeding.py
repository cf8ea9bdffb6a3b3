"""First centres: k-means||, greedy k-means++ on a sample, random rows.

Sources: Bahmani et al., *Scalable k-means++* (2012); Arthur and Vassilvitskii, *k-means++* (2007), with the greedy
trials of scikit-learn. Every draw is keyed by row id, so the seeds do not depend on the partitioning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.lloyd import accumulate, fixed_sums, row_sqdist, row_sqnorm
from distclust.kernels.nearest import assign_nearest, distance_table, pack_centers
from distclust.kernels.random import uniform
from distclust.kernels.seeding import accept_trial, trial_potentials
from distclust.ops.centers import CenterSet
from distclust.ops.profile import PreparedData
from distclust.ops.sample import draw_rows, hash_sample
from distclust.stats.extremes import KeyedRows
from distclust.stats.fixed import FixedPair, scale_for, scales_for

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

ROUNDS = 5
OVERSAMPLING = 2
"""Candidates drawn a round, as a multiple of k (Bahmani et al., section 5)."""

ENOUGH_CANDIDATES = 1.5
SMALL_GAIN = 0.05
"""Rounds end early with 1.5 k candidates once the potential falls by less than 5 % a round."""

RECLUSTER_PASSES = 10
SAMPLE_ROWS_PER_CENTER = 20
SAMPLE_ROWS_LEAST = 20_000

# Stages of the counter-based draws: each use of randomness has its own.
_STAGE_FIRST, _STAGE_ROUND, _STAGE_TRIALS, _STAGE_RANDOM, _STAGE_TOP_UP = 1, 16, 64, 128, 192
_STAGES_PER_INIT = 256


@dataclass(frozen=True)
class CandidateValue:
    """What a k-means|| pass shares.

    Attributes
    ----------
    known : CenterSet or None
        Candidates of the rounds before the last; None in the first pass.
    fresh : CenterSet
        Candidates of the last round.
    candidates : CenterSet
        Both, in this order.
    scale, mass_scale : float
        Fixed-point scales of potential and masses.
    """

    known: CenterSet | None
    fresh: CenterSet
    candidates: CenterSet
    scale: float
    mass_scale: float


@dataclass(frozen=True)
class CandidateStats:
    """Potential and the mass nearest to each candidate."""

    exact: ClassVar[bool] = True

    potential: FixedPair
    mass: npt.NDArray[np.int64]

    def merge(self, other: CandidateStats) -> CandidateStats:
        """Combine the statistics of two disjoint sets of rows."""
        return CandidateStats(self.potential.merge(other.potential), self.mass + other.mass)


def _nearest_candidate(block: Block, value: CandidateValue, context: StepContext) -> npt.NDArray[np.int32]:
    """Return every row's nearest candidate; only new candidates cost anything where the last round is remembered."""
    state, tag = context.state, value.candidates.tag
    labels = state.get("candidate", tag)
    if labels is not None:
        return labels
    old_tag = value.known.tag if value.known is not None else ""
    old_labels, old_scores = state.get("candidate", old_tag), state.get("candidate-score", old_tag)
    if value.known is not None and old_labels is not None and old_scores is not None:
        labels, scores = assign_nearest(block.x, value.fresh.packed)
        # Strictly closer, so that the lowest index wins ties as it does in one pass over all candidates.
        closer = scores < old_scores
        labels = np.where(closer, labels + np.int32(len(value.known)), old_labels)
        scores = np.where(closer, scores, old_scores)
    else:
        labels, scores = assign_nearest(block.x, value.candidates.packed)
    state.put("candidate", tag, labels)
    state.put("candidate-score", tag, scores)
    return labels


@dataclass(frozen=True)
class CandidateStep:
    """Distances to the nearest candidate, summed."""

    def __call__(self, block: Block, value: CandidateValue, context: StepContext) -> CandidateStats:
        """Measure a block."""
        labels = _nearest_candidate(block, value, context)
        sqdist = row_sqdist(block.x, value.candidates.rows, labels)
        potential = FixedPair.zeros(1, value.scale)
        fixed_sums(sqdist, block.weights, np.zeros(block.n, np.int32), potential.scale, potential.high, potential.low)
        k = len(value.candidates)
        if block.weights is None:
            return CandidateStats(potential, np.bincount(labels, minlength=k).astype(np.int64))
        mass = np.zeros(k, np.int64)
        np.add.at(mass, labels, np.rint(block.weights * value.mass_scale).astype(np.int64))
        return CandidateStats(potential, mass)


@dataclass(frozen=True)
class RoundStep:
    """Draw every row with probability min(1, l * w * d^2 / potential), independently."""

    seed: int
    stage: int
    factor: float
    limit: int

    def __call__(self, block: Block, value: CandidateValue, context: StepContext) -> KeyedRows:
        """Draw rows of a block."""
        sqdist = row_sqdist(block.x, value.candidates.rows, _nearest_candidate(block, value, context))
        chance = sqdist * self.factor if block.weights is None else sqdist * block.weights * self.factor
        drawn = np.flatnonzero(uniform(self.seed, self.stage, block.row_ids) < chance)
        ids = block.row_ids[drawn]
        weights = np.ones(len(ids)) if block.weights is None else block.weights[drawn]
        return KeyedRows.select(self.limit, ids.astype(np.uint64), ids, block.x[drawn], weights)


def initial_centers(engine: Engine, data: PreparedData, config: KMeansConfig, run: int) -> Rows:
    """Return first centres in the coordinates of the blocks.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    config : KMeansConfig
    run : int
        Which of ``n_init`` initialisations.

    Returns
    -------
    (m, d) array of the blocks' type
        m = k, or fewer where the dataset has fewer than k distinct rows.
    """
    if not isinstance(config.init, str):
        return _given(data, config.init)
    k, stage = config.n_clusters, run * _STAGES_PER_INIT
    if config.init == "random":
        return draw_rows(engine, data.pinned, k, seed=config.seed, stage=stage + _STAGE_RANDOM).rows
    n = data.moments.n_rows
    if config.init == "k-means||" and n > max(ROUNDS * OVERSAMPLING * k, SAMPLE_ROWS_LEAST):
        candidates, weights = _candidates(engine, data, config, stage)
    else:
        sample = hash_sample(engine, data.pinned, max(SAMPLE_ROWS_PER_CENTER * k, SAMPLE_ROWS_LEAST))
        candidates, weights = sample.rows, sample.weights
    centers = greedy_kmeans_plus_plus(candidates, weights, k, seed=config.seed, stage=stage + _STAGE_TRIALS)
    if config.init == "k-means||" and len(candidates) < n:
        centers = refine(candidates, weights, centers, unit=data.view.unit_rows)
    return centers


def _given(data: PreparedData, init: Rows) -> Rows:
    centers = np.asarray(init, dtype=np.float64)
    if centers.shape[1] != data.width:
        from_where = data.source.describe_place()
        raise ValueError(f"init has {centers.shape[1]} columns, the rows of {from_where} have {data.width}.")
    if data.view.unit_rows:
        lengths = np.sqrt(row_sqnorm(centers))[:, None]
        centers = centers / np.where(lengths == 0, 1.0, lengths)
    return np.ascontiguousarray((centers - data.offset).astype(data.view.dtype))


def _candidates(engine: Engine, data: PreparedData, config: KMeansConfig, stage: int) -> tuple[Rows, Floats]:
    """Run the rounds of k-means||; return the candidates and the mass nearest to each."""
    k = config.n_clusters
    wanted = OVERSAMPLING * k
    first = draw_rows(engine, data.pinned, 1, seed=config.seed, stage=stage + _STAGE_FIRST)
    value = _candidate_value(data, None, first.rows)
    stats = _measure(engine, data, value)
    for number in range(ROUNDS):
        potential = stats.potential.total()
        if potential == 0:
            break
        step = RoundStep(config.seed, stage + _STAGE_ROUND + number, wanted / potential, limit=4 * wanted + 64)
        with engine.share(value) as shared:
            drawn: KeyedRows = engine.fold(data.pinned, step, KeyedRows.merge, shared, label="seed: draw")
        if len(drawn.row_ids) == 0:
            continue
        value = _candidate_value(data, value.candidates, drawn.rows)
        stats = _measure(engine, data, value)
        gain = 1 - stats.potential.total() / potential
        if len(value.candidates) >= ENOUGH_CANDIDATES * k and gain < SMALL_GAIN:
            break
    mass = stats.mass.astype(np.float64) / data.scales.mass
    rows = value.candidates.rows
    if len(rows) < k and stats.potential.total() > 0:
        # The rounds drew too few (tiny k, or a few rows hold all the distance): random rows fill the rest.
        more = draw_rows(engine, data.pinned, 2 * k, seed=config.seed, stage=stage + _STAGE_TOP_UP)
        rows, mass = np.concatenate([rows, more.rows]), np.concatenate([mass, more.weights])
    return rows, mass


def _candidate_value(data: PreparedData, known: CenterSet | None, fresh: Rows) -> CandidateValue:
    rows = fresh if known is None else np.concatenate([known.rows, fresh])
    scale = data.inertia_scale(float(row_sqnorm(rows).max()))
    return CandidateValue(known, CenterSet(fresh), CenterSet(rows), scale, data.scales.mass)


def _measure(engine: Engine, data: PreparedData, value: CandidateValue) -> CandidateStats:
    with engine.share(value) as shared:
        stats: CandidateStats = engine.fold(
            data.pinned, CandidateStep(), CandidateStats.merge, shared, label="seed: measure"
        )
    return stats


def greedy_kmeans_plus_plus(rows: Rows, weights: Floats, k: int, *, seed: int, stage: int) -> Rows:
    """Choose k of the rows by weighted greedy k-means++, 2 + floor(ln k) trials each.

    Returns fewer than k where fewer rows of positive weight are distinct. Runs on the driver, in row order, with
    kernels whose sums have a fixed order.
    """
    rows = np.ascontiguousarray(rows)
    k = min(k, len(rows))
    trials = 2 + int(np.log(k))
    sqnorms = row_sqnorm(rows)
    draws = uniform(seed, stage, np.arange(k * trials, dtype=np.int64)).reshape(k, trials)
    mass = np.cumsum(weights)
    chosen = [_pick(mass, draws[0, :1])[0]]
    current = row_sqdist(rows, rows[chosen[:1]], np.zeros(len(rows), np.int32))
    potentials = np.empty(trials)
    for number in range(1, k):
        mass = np.cumsum(weights * current)
        if mass[-1] <= 0:
            break
        picks = _pick(mass, draws[number])
        table = distance_table(rows, pack_centers(rows[picks]))
        trial_potentials(table, sqnorms, weights, current, potentials)
        best = int(np.argmin(potentials))
        accept_trial(rows, table, sqnorms, rows[picks[best]], best, current)
        chosen.append(picks[best])
    return rows[chosen]


def _pick(mass: Floats, draws: Floats) -> npt.NDArray[np.intp]:
    return np.minimum(np.searchsorted(mass, draws * mass[-1], side="right"), len(mass) - 1)


def refine(rows: Rows, weights: Floats, centers: Rows, *, unit: bool) -> Rows:
    """Run a few weighted Lloyd passes over candidates in memory, with the sums of the distributed passes."""
    k, d = centers.shape
    mass_scale = scale_for(float(weights.sum()) * 2, float(weights.max(initial=0.0)))
    extent = np.abs(rows).max(axis=0).astype(np.float64)
    scales = scales_for(extent * weights.sum() * 2, extent * weights.max(initial=0.0))
    last: npt.NDArray[np.int32] | None = None
    for _ in range(RECLUSTER_PASSES):
        labels, _ = assign_nearest(rows, pack_centers(centers))
        if last is not None and np.array_equal(labels, last):
            break
        last = labels
        sums, mass, counts = np.zeros((k, d), np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64)
        accumulate(rows, weights, labels, scales, mass_scale, sums, mass, counts)
        full = mass > 0
        means = sums[full] / scales / (mass[full] / mass_scale)[:, None]
        if unit:
            lengths = np.sqrt(row_sqnorm(means))[:, None]
            means = means / np.where(lengths == 0, 1.0, lengths)
        centers = centers.copy()
        centers[full] = means.astype(centers.dtype)
    return centers
