"""First centres: by candidates of k-means|| or a sample, greedy k-means++, random rows.

Sources: Bahmani et al., *Scalable k-means++* (2012); Arthur and Vassilvitskii, *k-means++* (2007), with the greedy
trials of scikit-learn. Every draw is keyed by row id, so the seeds do not depend on the partitioning.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.algorithms.candidates import BATCHES, OVERSAMPLING, ROUNDS, kmeans_parallel, spread, spread_mass
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.engines.protocol import Engine
from distclust.kernels.heads import head_rows
from distclust.kernels.lloyd import accumulate, row_sqdist, row_sqnorm
from distclust.kernels.nearest import assign_nearest, distance_table, pack_centers
from distclust.kernels.random import uniform
from distclust.kernels.seeding import accept_trial, choose_by_table, trial_potentials
from distclust.ops.profile import PreparedData
from distclust.ops.sample import draw_rows, hash_sample
from distclust.stats.fixed import scale_for, scales_for

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

RECLUSTER_PASSES = 10
SAMPLE_ROWS_PER_CENTER = 20
SAMPLE_ROWS_LEAST = 20_000

GREEDY_WORK = 2_000_000_000
"""Multiplications up to which greedy k-means++ over all rows at hand is worth it: a tenth of a second or two."""

RECLUSTER_WORK = 10_000_000_000
RECLUSTER_ROWS = 32
"""Multiplications of a table of twice as many candidates as clusters up to which, and rows a centre from which choosing
among them pays; else candidates are the first centres. See ``algorithms/DESIGN.md``."""

HASTE = 0.01
HASTE_ROWS = 64
"""Rows a centre instead, where ``rtol`` is so large that a fit is wanted soon rather than good."""

TABLE_ROWS = 8192
"""Rows up to which greedy k-means++ first makes a table of all products (256 MB), where trials would make more."""

# Stages of the counter-based draws: each use of randomness has its own; see also `distclust.algorithms.candidates`.
_STAGE_TRIALS, _STAGE_RANDOM = 64, 128
_STAGES_PER_INIT = 256


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
    draws = {"seed": config.seed, "stage": stage + _STAGE_TRIALS}
    head, threads = data.head, engine.info.slots
    width = data.width if head is None else head.axes.shape[1]
    method = seeding_method(config, data.moments.n_rows, width, data.pinned.n_rows)
    if method == "greedy":
        sample = hash_sample(engine, data.pinned, _sample_rows(k))
        return greedy_kmeans_plus_plus(sample.rows, sample.weights, k, **draws)
    if method == "k-means||":
        candidates, weights = kmeans_parallel(engine, data, k, seed=config.seed, stage=stage)
        centers = greedy_kmeans_plus_plus(candidates, weights, k, **draws)
        return refine(candidates, weights, centers, unit=data.view.unit_rows)
    if method == "spread":
        return spread(engine, data, k, seed=config.seed, stage=stage).rows
    value = spread(engine, data, OVERSAMPLING * k, seed=config.seed, stage=stage)
    on_axes = value.rows if head is None else head_rows(value.rows, head).heads
    return value.rows[greedy_choice(on_axes, spread_mass(engine, data, value), k, **draws, threads=threads)]


def seeding_method(
    config: KMeansConfig, n: int, d: int, n_all: int
) -> Literal["greedy", "k-means||", "choose", "spread"]:
    """Return how first centres of ``init="k-means||"`` and ``"k-means++"`` are found among n rows of d values.

    The rows are a sample of ``n_all``, or all of them.

    ``greedy``: greedy k-means++ over the rows, or a sample of them. ``k-means||``: all rounds over all rows, and a
    choice among their candidates; where the fit is full too. ``choose``: twice as many candidates as clusters, by
    `spread`, and a choice among them, by their d coordinates on the axes of a head where there is one. ``spread``: as
    many candidates as clusters.
    """
    k = config.n_clusters
    if config.init == "k-means++" or n <= OVERSAMPLING * k:
        return "greedy"
    if config.fit_mode == "full":
        return "k-means||" if n > max(ROUNDS * OVERSAMPLING * k, SAMPLE_ROWS_LEAST) else "greedy"
    work = k * _trials(k) * d
    if min(n, _sample_rows(k)) * work <= GREEDY_WORK:
        return "greedy"
    candidates = OVERSAMPLING * k
    least = (RECLUSTER_ROWS if config.rtol < HASTE else HASTE_ROWS) * k
    pays = n_all >= least and candidates <= TABLE_ROWS and candidates**2 * d <= RECLUSTER_WORK
    return "choose" if pays else "spread"


def seeding_passes(config: KMeansConfig, n: int, d: int) -> int:
    """Return the passes that finding first centres takes at most."""
    if not isinstance(config.init, str):
        return 0
    if config.init == "random":
        return 1
    method = seeding_method(config, n, d, n_all=n)  # whether it chooses makes no difference here
    if method == "greedy":
        return 1
    if method == "k-means||":
        return 2 + 2 * ROUNDS + 1
    draws = 2 + config.n_clusters.bit_length() // 4 + BATCHES
    return 2 * draws + 1  # should rows repeat, all are drawn again


def _given(data: PreparedData, init: Rows) -> Rows:
    centers = np.asarray(init, dtype=np.float64)
    if centers.shape[1] != data.width:
        from_where = data.source.describe_place()
        raise ValueError(f"init has {centers.shape[1]} columns, the rows of {from_where} have {data.width}.")
    if data.view.unit_rows:
        lengths = np.sqrt(row_sqnorm(centers))[:, None]
        centers = centers / np.where(lengths == 0, 1.0, lengths)
    return np.ascontiguousarray((centers - data.offset).astype(data.view.dtype))


def greedy_kmeans_plus_plus(rows: Rows, weights: Floats, k: int, *, seed: int, stage: int) -> Rows:
    """Return the rows of `greedy_choice`."""
    return rows[greedy_choice(rows, weights, k, seed=seed, stage=stage)]


def greedy_choice(
    rows: Rows, weights: Floats, k: int, *, seed: int, stage: int, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Choose k of the rows by weighted greedy k-means++, 2 + floor(ln k) trials each; return their positions.

    Returns fewer than k where fewer rows of positive weight are distinct. Runs on the driver, in row order, with
    kernels whose sums have a fixed order.
    """
    rows = np.ascontiguousarray(rows)
    k = min(k, len(rows))
    trials = _trials(k)
    sqnorms = row_sqnorm(rows)
    draws = uniform(seed, stage, np.arange(k * trials, dtype=np.int64)).reshape(k, trials)
    if len(rows) <= min(TABLE_ROWS, k * trials):
        packed = pack_centers(rows)
        products = distance_table(rows, packed.with_norms(np.zeros_like(packed.norms)), threads=threads)
        norms = packed.norms[: len(rows)]
        return choose_by_table(rows, products, norms, sqnorms, np.asarray(weights, np.float64), draws)
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
    return np.array(chosen, np.int64)


def _sample_rows(k: int) -> int:
    return max(SAMPLE_ROWS_PER_CENTER * k, SAMPLE_ROWS_LEAST)


def _trials(k: int) -> int:
    return 2 + int(np.log(k))


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
