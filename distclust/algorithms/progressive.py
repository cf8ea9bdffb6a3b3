"""Progressive fitting: Lloyd on growing samples, the last passes on all rows.

A pass over a sample of m rows costs m / n of a full one, and as long as centres are far from their final places it
teaches as much. Samples are hash prefixes, so each holds the one before, and all are the same in any partitioning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.lloyd import PLAIN, ListPlan, Stride
from distclust.engines.protocol import Engine
from distclust.engines.sampled import ALL_ROWS, SampledEngine
from distclust.ops.profile import PreparedData
from distclust.ops.sample import hold_sample

ROWS_PER_CENTER = 12
GROWTH = 4
"""Rows a centre of the first sample, and how much larger the next is. Seconds with 12 and 4, and with 24 and 2, to the
same inertia but for 0.3 % either way: minipile, k = 1000, rtol 0.02, 0.40-0.44 and 0.44-0.46; low rank 500 000 x 384,
k = 4096, rtol 0.05, 3.0 and 3.5; 200 000 x 768, k = 4096, 2.0 and 2.4; with the default rtol up to 8 % either way."""

SEED_ROWS_PER_CENTER = 16
"""Rows a centre among which first centres are drawn. minipile, k = 1000 and 2000, and low rank 200 000 x 768, k = 4096:
with 24 a fit took 2 to 8 % longer, to the same inertia but for a tenth of a percent either way."""

LEAST_SAMPLE = 10_000
"""Rows of the first sample at least: a pass over fewer costs no less. minipile, k = 200, rtol 0.01: 0.30 s to 1.0036 of
scikit-learn's inertia, with 20 000 rows 0.32 s to 1.0055 (means of three seeds)."""

SAMPLE_RTOL = 2e-3
"""A sample has taught what it can when a pass gains less: about its own sampling noise (0.2-0.5 % served)."""

SAMPLE_PASSES = 12

FAR = Stride(relaxation=1.7, momentum=0.4)
"""A centre goes beyond its mean, and on in the direction of its last step: it is where it would go in later passes
anyway. Origin of 1.7: minipile, k = 200 and 1000, and a mixture of 1M x 32, k = 256: with 1.6 to 1.9 the same number of
passes ends 0.2 to 0.4 % lower than with 1.0. Of 0.4: see ``algorithms/DESIGN.md``."""

LEAST_ROWS = 50_000
LEAST_ROWS_PER_CENTER = GROWTH * ROWS_PER_CENTER
"""Smaller datasets are fitted in full: there is too little to save. minipile, k = 1000 (65 rows a centre), three seeds,
rtol 0.02: 0.73-0.89 s at 1.002 of scikit-learn's inertia with a sample, 1.0-1.1 s at 0.998 without; 200 000 x 768,
k = 4096 (49): 3.0-3.8 s at 0.998, 3.7-4.5 s at 0.992."""

LIST_CLUSTERS_BY_WIDTH = ((48, 128), (32, 512), (16, 1000))
MOST_LIST_CLUSTERS = 1 << 16
"""From how many clusters on, by least dimensions, passes look at lists, which hold 16-bit numbers. Seconds of fits with
the default rtol to 500 000 rows of a mixture, without lists and with, all of which end 0.02 to 0.2 % lower with lists
(one run, two threads):

========== ========= ========= ========= =========
dimensions k=256     512       1000      4096
========== ========= ========= ========= =========
8          0.6, 1.3  1.1, 1.4  2.1, 2.2  6.6, 3.9
16         0.8, 1.3  1.2, 1.6  2.2, 1.5  9.1, 4.4
32         1.2, 1.5  2.3, 1.7  3.0, 1.8  8.3, 4.1
========== ========= ========= ========= =========

Below 16 rows take a quarter of what a list and its bytes do.
"""

LEAST_LISTED_SHARE = 0.03
"""Least inertia, as a share of the sum of w * ||x||^2, for passes by lists: rows are rounded to about a hundredth of
their length, and that must tell centres apart. See ``algorithms/DESIGN.md``."""

PASSES_FROM_SEEDS = 2, 3, 8
PASSES_WHEN_SETTLED = 8, 16
"""Passes by lists after each pass over all centres: see ``algorithms/DESIGN.md``."""

HELD_BYTES = 48 << 20
HELD_WORK = 20_000_000_000
"""Bytes, and multiplications of a plain pass (a tenth of a second on 2 cores), up to which a sample goes to the driver
of a cluster engine. Origin: minipile, k = 200, on Dask with two workers: see ``algorithms/DESIGN.md``."""


@dataclass(frozen=True)
class Rung:
    """One size of the sample.

    Attributes
    ----------
    limit : int
        Rows with a hash below it.
    rows : int
        About so many.
    """

    limit: int
    rows: int

    @classmethod
    def about(cls, rows: int, n: int) -> Rung:
        """Return the sample of about so many of n rows."""
        # Integers: the limit must not depend on how a float rounds.
        return cls(ALL_ROWS * rows // n, rows)

    @property
    def is_full(self) -> bool:
        """Whether all rows take part."""
        return self.limit == ALL_ROWS


def ladder(n: int, config: KMeansConfig) -> tuple[Rung, ...]:
    """Return the samples of a fit to n rows, the last of which is all rows."""
    k = config.n_clusters
    full = Rung(ALL_ROWS, n)
    if config.fit_mode == "full" or not isinstance(config.init, str):
        return (full,)
    worth_it = n >= max(LEAST_ROWS, LEAST_ROWS_PER_CENTER * k)
    if config.fit_mode == "auto" and not worth_it:
        return (full,)
    rungs, rows = [], max(LEAST_SAMPLE, ROWS_PER_CENTER * k)
    while rows * GROWTH <= n:
        rungs.append(Rung.about(rows, n))
        rows *= GROWTH
    return (*rungs, full)


def stride(n: int, config: KMeansConfig) -> Stride:
    """Return how centres go on from their means; plainly where users expect plain Lloyd: few rows, or centres given."""
    plain = config.fit_mode == "full" or not isinstance(config.init, str)
    return PLAIN if plain or (config.fit_mode == "auto" and n < LEAST_ROWS) else FAR


def takes_lists(n: int, d: int, dtype: str, config: KMeansConfig, n_clusters: int) -> bool:
    """Tell whether passes compare rows with lists of near centres, not where users expect plain Lloyd."""
    least = next((k for width, k in LIST_CLUSTERS_BY_WIDTH if d >= width), None)
    fits = dtype == "float32" and least is not None and least <= n_clusters <= MOST_LIST_CLUSTERS
    return fits and stride(n, config) != PLAIN


def list_plan(data: PreparedData, config: KMeansConfig, *, first: bool, full: bool, seeds: float) -> ListPlan:
    """Return which passes look at lists.

    Parameters
    ----------
    data : PreparedData
        All rows.
    config : KMeansConfig
    first : bool
        Whether centres are seeds, which still go far.
    full : bool
        Whether all rows take part.
    seeds : float
        Inertia a row of the first centres; infinite where passes have been done.
    """
    passes = PASSES_FROM_SEEDS if first else PASSES_WHEN_SETTLED
    least = LEAST_LISTED_SHARE * data.moments.sum_squares / data.moments.n_rows
    return ListPlan(passes, full, confirm=full and config.compute_labels, least=least, seeds=seeds)


def seeding_rung(n: int, config: KMeansConfig) -> Rung:
    """Return the rows among which first centres are looked for, also where no pass runs on a sample."""
    first = ladder(n, config)[0]
    rows = max(LEAST_SAMPLE, SEED_ROWS_PER_CENTER * config.n_clusters)
    if config.fit_mode == "full" or not isinstance(config.init, str) or rows >= n:
        return first
    return Rung.about(rows, n)


class Samples:
    """The samples of a fit, each with the engine that passes over it run on.

    A small one is fetched to the driver of a cluster engine: there a pass over it costs less than its tasks would.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    config : KMeansConfig
    """

    def __init__(self, engine: Engine, data: PreparedData, config: KMeansConfig) -> None:
        self._engine = engine
        self._data = data
        self._config = config
        n = data.moments.n_rows
        rungs = {seeding_rung(n, config), *ladder(n, config)}
        fitting = () if engine.info.sees_driver_memory else filter(self._can_be_held, rungs)
        self._held_limit = max((rung.limit for rung in fitting), default=0)
        self._held: Engine | None = None

    def on(self, rung: Rung) -> tuple[Engine, PreparedData, KMeansConfig]:
        """Return engine, data and settings for passes over one sample."""
        data, config = self._data, self._config
        if rung.is_full:
            return self._engine, data, config
        share = rung.rows / data.moments.n_rows
        moments = replace(data.moments, n_rows=rung.rows, mass=data.moments.mass * share)
        sampled = replace(data, moments=moments)
        settings = replace(config, rtol=max(config.rtol, SAMPLE_RTOL), max_iter=min(config.max_iter, SAMPLE_PASSES))
        return SampledEngine(self._engine_for(rung), rung.limit), sampled, settings

    def _engine_for(self, rung: Rung) -> Engine:
        if rung.limit > self._held_limit:
            return self._engine
        if self._held is None:
            self._held = hold_sample(self._engine, self._data.pinned, self._held_limit)
        return self._held

    def _can_be_held(self, rung: Rung) -> bool:
        values = rung.rows * self._data.width
        small = values * np.dtype(self._data.view.dtype).itemsize <= HELD_BYTES
        return not rung.is_full and small and values * self._config.n_clusters <= HELD_WORK
