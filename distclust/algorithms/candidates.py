"""Candidates for first centres, drawn by squared distance in rounds: k-means||, and a lighter form for samples.

Source: Bahmani et al., *Scalable k-means++* (2012). Every draw is keyed by row id, so the candidates do not depend
on the partitioning.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.lloyd import row_sqdist, row_sqnorm
from distclust.kernels.random import uniform
from distclust.ops.centers import CenterSet
from distclust.ops.profile import PreparedData
from distclust.ops.sample import draw_rows
from distclust.ops.totals import weighted_total
from distclust.stats.extremes import KeyedRows
from distclust.stats.fixed import FixedPair

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

ROUNDS = 5
OVERSAMPLING = 2
"""Candidates drawn a round, as a multiple of k (Bahmani et al., section 5)."""

ENOUGH_CANDIDATES = 1.5
SMALL_GAIN = 0.05
"""Rounds end early with 1.5 k candidates once the potential falls by less than 5 % a round."""

BATCHES = 3
"""Draws of equal size in `spread`, after those that grow. Final inertia with 3, 4, 8, 16 and 32 came out alike, with 2
half a percent higher on rows of low rank (200 000 x 768, k = 4096)."""

GROWTH = 16
"""How much larger each of the first draws is than the one before."""

# Stages of the counter-based draws: each use of randomness has its own.
STAGE_FIRST, STAGE_ROUND, STAGE_TOP_UP = 1, 16, 192


@dataclass(frozen=True)
class Candidates:
    """Candidates and what a pass over them shares.

    Attributes
    ----------
    rounds : tuple of CenterSet
        Candidates, as they were drawn together.
    scale, mass_scale : float
        Fixed-point scales of potential and masses.
    rough : bool
        Whether a row's distance may be to a candidate that is hardly farther than the nearest, and nearly right.
    """

    rounds: tuple[CenterSet, ...]
    scale: float
    mass_scale: float
    rough: bool = False

    def __len__(self) -> int:
        return sum(len(part) for part in self.rounds)

    @property
    def rows(self) -> Rows:
        """(m, d) candidates in the order of the draws."""
        return np.concatenate([part.rows for part in self.rounds])


@dataclass(frozen=True)
class CandidateStats:
    """Potential and the mass nearest to each candidate."""

    exact: ClassVar[bool] = True

    potential: FixedPair
    mass: npt.NDArray[np.int64]

    def merge(self, other: CandidateStats) -> CandidateStats:
        """Combine the statistics of two disjoint sets of rows."""
        return CandidateStats(self.potential.merge(other.potential), self.mass + other.mass)


def _nearest_candidate(block: Block, value: Candidates, context: StepContext) -> tuple[Labels, Floats]:
    """Return every row's nearest candidate and its squared distance.

    Rounds are compared one after the other, so that it makes no difference which of them a node remembers: only the
    last one costs anything where the one before is known.
    """
    tags = [_tag(value.rounds[: number + 1], value.rough) for number in range(len(value.rounds))]
    known = len(tags)
    while known:
        found = [context.state.get(kind, tags[known - 1]) for kind in ("candidate", "candidate-sqdist")]
        if found[0] is not None and found[1] is not None:
            break
        known -= 1
    labels, sqdist = (found[0], found[1]) if known else (np.zeros(block.n, np.int32), np.full(block.n, np.inf))
    assert labels is not None
    assert sqdist is not None
    first = sum(len(part) for part in value.rounds[:known])
    for part in value.rounds[known:]:
        if value.rough:
            fresh, distance = part.roughly(block, context)
        else:
            fresh = part.nearest(block, context)
            distance = row_sqdist(block.x, part.rows, fresh)
        labels = np.where(distance < sqdist, fresh + np.int32(first), labels)
        sqdist = np.minimum(distance, sqdist)
        first += len(part)
    context.state.put("candidate", tags[-1], labels)
    context.state.put("candidate-sqdist", tags[-1], sqdist)
    return labels, sqdist


def _tag(rounds: tuple[CenterSet, ...], rough: bool) -> str:
    names = [part.tag for part in rounds] + ["rough", rounds[0].axes_tag] * rough
    return hashlib.sha256("-".join(names).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class CandidateStep:
    """Distances to the nearest candidate, summed."""

    def __call__(self, block: Block, value: Candidates, context: StepContext) -> CandidateStats:
        """Measure a block."""
        labels, sqdist = _nearest_candidate(block, value, context)
        potential = weighted_total(sqdist, block.weights, value.scale)
        k = len(value)
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

    def __call__(self, block: Block, value: Candidates, context: StepContext) -> KeyedRows:
        """Draw rows of a block."""
        _, sqdist = _nearest_candidate(block, value, context)
        chance = sqdist * self.factor if block.weights is None else sqdist * block.weights * self.factor
        drawn = np.flatnonzero(uniform(self.seed, self.stage, block.row_ids) < chance)
        ids = block.row_ids[drawn]
        weights = np.ones(len(ids)) if block.weights is None else block.weights[drawn]
        return KeyedRows.select(self.limit, ids.astype(np.uint64), ids, block.x[drawn], weights)


@dataclass(frozen=True)
class SpreadStep:
    """Draw so many rows without replacement, with probability proportional to w * d^2.

    The rows of smallest -ln(u) / (w * d^2) (Efraimidis and Spirakis, 2006): one fold, no potential needed before it.
    """

    seed: int
    stage: int
    limit: int

    def __call__(self, block: Block, value: Candidates, context: StepContext) -> KeyedRows:
        """Draw rows of a block."""
        _, sqdist = _nearest_candidate(block, value, context)
        chance = sqdist if block.weights is None else sqdist * block.weights
        at = np.flatnonzero(chance > 0)
        keys = -np.log1p(-uniform(self.seed, self.stage, block.row_ids[at])) / chance[at]
        weights = None if block.weights is None else block.weights[at]
        chosen = KeyedRows.select(self.limit, keys, block.row_ids[at], at[:, None], weights)
        return KeyedRows(self.limit, chosen.keys, chosen.row_ids, block.x[chosen.rows[:, 0]], chosen.weights)


def kmeans_parallel(engine: Engine, data: PreparedData, k: int, *, seed: int, stage: int) -> tuple[Rows, Floats]:
    """Run the rounds of k-means||; return the candidates and the mass nearest to each.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    k : int
        Clusters that are wanted; each round draws about 2 k rows.
    seed, stage : int
        Key of the draws.

    Returns
    -------
    rows : (m, d) array of the blocks' type
    mass : (m,) float64
    """
    wanted = OVERSAMPLING * k
    first = draw_rows(engine, data.pinned, 1, seed=seed, stage=stage + STAGE_FIRST)
    value = _with(data, None, first.rows)
    stats = _measure(engine, data, value)
    for number in range(ROUNDS):
        potential = stats.potential.total()
        if potential == 0:
            break
        step = RoundStep(seed, stage + STAGE_ROUND + number, wanted / potential, limit=4 * wanted + 64)
        drawn = _draw(engine, data, value, step)
        if len(drawn.row_ids) == 0:
            continue
        value = _with(data, value, drawn.rows)
        stats = _measure(engine, data, value)
        gain = 1 - stats.potential.total() / potential
        if len(value) >= ENOUGH_CANDIDATES * k and gain < SMALL_GAIN:
            break
    mass = stats.mass.astype(np.float64) / data.scales.mass
    rows = value.rows
    if len(rows) < k and stats.potential.total() > 0:
        # The rounds drew too few (tiny k, or a few rows hold all the distance): random rows fill the rest.
        more = draw_rows(engine, data.pinned, 2 * k, seed=seed, stage=stage + STAGE_TOP_UP)
        rows, mass = np.concatenate([rows, more.rows]), np.concatenate([mass, more.weights])
    return rows, mass


def spread(engine: Engine, data: PreparedData, count: int, *, seed: int, stage: int, rough: bool = True) -> Candidates:
    """Draw ``count`` rows by squared distance, in draws that first grow and then are a third of ``count``.

    All draws together cost one assignment to ``count`` centres; k-means|| costs one for each 2 k candidates and has
    many more of them. Fewer rows are drawn where fewer are distinct.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    count : int
    seed, stage : int
        Key of the draws.
    rough : bool, default=True
        Draw by nearly right distances to candidates that are nearly nearest, for a third of the work or less; again by
        exact ones should a row come out that equals an earlier one.
    """
    first = draw_rows(engine, data.pinned, 1, seed=seed, stage=stage + STAGE_FIRST)
    value = _with(data, None, first.rows, rough=rough)
    seen = set(_first_places(first.rows))
    number = 0
    while len(value) < count:
        size = min(count - len(value), GROWTH ** (number + 1), max(1, count // BATCHES))
        drawn = _draw(engine, data, value, SpreadStep(seed, stage + STAGE_ROUND + number, size))
        if len(drawn.row_ids) == 0:
            break
        places = _first_places(drawn.rows)  # equal rows of one draw are as far as each other
        if rough and not seen.isdisjoint(places):
            return spread(engine, data, count, seed=seed, stage=stage, rough=False)
        seen.update(places)
        value = _with(data, value, drawn.rows[list(places.values())], rough=rough)
        number += 1
    return value


def _first_places(rows: Rows) -> dict[bytes, int]:
    """Return where each distinct row comes first, by the bytes of the row."""
    first: dict[bytes, int] = {}
    for at, row in enumerate(rows + 0.0):  # -0.0 and 0.0 are equal
        first.setdefault(row.tobytes(), at)
    return first


def spread_mass(engine: Engine, data: PreparedData, value: Candidates) -> Floats:
    """Return the mass nearest to each candidate."""
    return _measure(engine, data, value).mass.astype(np.float64) / data.scales.mass


def mean_sqdist(engine: Engine, data: PreparedData, centers: Rows) -> float:
    """Return about the mean squared distance of rows to the nearest centre."""
    stats = _measure(engine, data, _with(data, None, centers, rough=True))
    return stats.potential.total() / max(float(stats.mass.sum()), 1.0) * data.scales.mass


def _with(data: PreparedData, known: Candidates | None, fresh: Rows, *, rough: bool = False) -> Candidates:
    rounds = (*(() if known is None else known.rounds), CenterSet(fresh, data.head, again=True))
    longest = max(float(row_sqnorm(part.rows).max()) for part in rounds)
    return Candidates(rounds, data.inertia_scale(longest), data.scales.mass, rough)


def _draw(engine: Engine, data: PreparedData, value: Candidates, step: RoundStep | SpreadStep) -> KeyedRows:
    with engine.share(value) as shared:
        drawn: KeyedRows = engine.fold(data.pinned, step, KeyedRows.merge, shared, label="seed: draw")
    return drawn


def _measure(engine: Engine, data: PreparedData, value: Candidates) -> CandidateStats:
    with engine.share(value) as shared:
        stats: CandidateStats = engine.fold(
            data.pinned, CandidateStep(), CandidateStats.merge, shared, label="seed: measure"
        )
    return stats
