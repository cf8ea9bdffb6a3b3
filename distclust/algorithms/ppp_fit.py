"""One fit of PPP in given coordinates: cells, search, rounds of validation over the rows.

Nothing is drawn and no k is given: a search over the cells proposes a mixture, passes over the rows refine it, and
pairs of components without a valley between them become one, until all pairs have one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.mixture import MixturePass, fit_mixture
from distclust.algorithms.mixture_config import MixtureConfig
from distclust.algorithms.ppp_cells import CellCovariance, fit_cells, log_joint
from distclust.algorithms.ppp_config import PPPConfig
from distclust.algorithms.ppp_pairs import DOUBTFUL, Pair, Split, frames_of, independent, judged, pairs_of
from distclust.algorithms.ppp_search import Found, PathEntry, SearchRules, search
from distclust.algorithms.ppp_tree import Grown, grow_cells
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.kernels.elementary import exponential
from distclust.ops.cells import QUARTERS, product_scale_of
from distclust.ops.mixture import Mixture
from distclust.ops.profile import PreparedData
from distclust.ops.validation import COLUMN_BINS, ValidationValue, validate
from distclust.stats.cells import Cells
from distclust.stats.shape import AD_REJECTS, anderson_darling, looks_uniform
from distclust.stats.validation import ValidationStats

Floats = npt.NDArray[np.float64]
Ints32 = npt.NDArray[np.int32]

MOST_ROUNDS = 6
"""Each round may halve the number of components."""

LEAST_CLUSTER = 5
"""Rows of the smallest component that is looked for; full covariances need more rows than dimensions."""

FULL_WIDTH = 32
"""Full covariances of more dimensions have more parameters than the cells can tell."""

QUIET = 0.1
"""Weight, where cells are cut and partitioned, of a column that looks like noise."""

HALVES = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))
"""Pairs of quarters of the rows: six halves."""


@dataclass(frozen=True)
class PPPFit:
    """What one fit found.

    Attributes
    ----------
    data : PreparedData
        The rows in the coordinates of the fit.
    mixture : Mixture
        Components by descending weight; each is a cluster.
    counts : ValidationStats
        Of the last pass of validation, in the order of the components.
    low, per_unit : (d,) float64
        Bins of its columns.
    path : tuple of PathEntry
        All that the search tried.
    splits : tuple of Split
        Decisions of all rounds, numbered as in the round that made them; those of the last in the final order.
    passes : tuple of MixturePass
        Of expectation and maximisation over the rows.
    stability : (k,) float64
        Mean Jaccard index of each cluster with its best match in fits to halves of the rows.
    cells : int
    levels : int
    rounds : int
    """

    data: PreparedData
    mixture: Mixture
    counts: ValidationStats
    low: Floats
    per_unit: Floats
    path: tuple[PathEntry, ...]
    splits: tuple[Split, ...]
    passes: tuple[MixturePass, ...]
    stability: Floats
    cells: int
    levels: int
    rounds: int

    @property
    def mean_stability(self) -> float:
        """Of the clusters, by their weight."""
        return float(np.cumsum(self.mixture.weights * self.stability)[-1])


def metric_of(sample: Floats) -> Floats:
    """Return the weight of each column where cells are cut: less for those that look Gaussian, or uniform.

    Without it, a few columns with clusters drown among many without: all have the same variance.
    """
    shaped = np.array([anderson_darling(column) > AD_REJECTS and not looks_uniform(column) for column in sample.T])
    return np.where(shaped, 1.0, QUIET) if shaped.any() else np.ones(sample.shape[1])


def fit_once(
    engine: Engine,
    data: PreparedData,
    sample: Floats,
    config: PPPConfig,
    run: Checkpointed | None = None,
    name: str = "cells",
) -> PPPFit:
    """Fit to rows in their final coordinates.

    Parameters
    ----------
    engine : Engine
        Shows the rows that take part.
    data : PreparedData
    sample : (m, d) float64
        Some of the rows, in the same coordinates, for the scales of columns.
    config : PPPConfig
    run : RunDirectory, optional
    name : str
        Of the stage that cuts cells.
    """
    metric = metric_of(sample)
    grown = grow_cells(engine, data, metric, run, name)
    cells = _cells(data, grown, range(QUARTERS))
    rules = rules_of(config, data.width, metric)
    solid = cells.take(cells.mass > 0)
    with _stage(engine, "search"):
        found = search(solid, rules)
    validation = _Validation(engine, data, config, cells, grown, sample)
    mixture, splits, number = _premerged(solid, found, rules, config.max_valley), [], 0
    passes: list[MixturePass] = []
    while True:
        number += 1
        climbed = fit_mixture(engine, data, _row_config(config, mixture), start=mixture)
        passes += climbed.history
        mixture = _by_weight(climbed.mixture)
        counts, decided = validation.round(number, mixture)
        splits += decided
        refused = [Pair(*split.clusters, split.valley) for split in decided if not split.accepted]
        if not refused or number == MOST_ROUNDS:
            break
        mixture = _joined(solid, mixture, independent(refused), rules)
    with _stage(engine, "halves"):
        stability = _stability(data, grown, cells, mixture, found, rules, config.max_valley)
    low, per_unit = validation.low, validation.per_unit
    return PPPFit(
        data,
        mixture,
        counts,
        low,
        per_unit,
        found.path,
        tuple(splits),
        tuple(passes),
        stability,
        len(cells),
        len(grown.history),
        number,
    )


@contextmanager
def _stage(engine: Engine, name: str) -> Iterator[None]:
    """Tell of work on the driver, which touches no rows."""
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage=name, total_rows=0))
    yield
    engine.options.emit(StageEnded(stage=name, seconds=time.perf_counter() - started))


def rules_of(config: PPPConfig, width: int, metric: Floats) -> SearchRules:
    """Return how to search in so many dimensions."""
    kinds: tuple[CellCovariance, ...] = ("full", "diag", "tied")
    if config.covariance_type != "auto":
        kinds = (config.covariance_type,)
    elif width > FULL_WIDTH:
        kinds = ("diag",)
    elif width == 1:
        kinds = ("full", "tied")
    least = LEAST_CLUSTER if kinds == ("diag",) else max(LEAST_CLUSTER, width + 1)
    return SearchRules(kinds, range(1, config.max_clusters + 1), config.reg_covar, least, metric)


class _Validation:
    """Passes that hold mixtures against the partition of the cells."""

    def __init__(
        self,
        engine: Engine,
        data: PreparedData,
        config: PPPConfig,
        cells: Cells,
        grown: Grown,
        sample: Floats,
    ) -> None:
        self._engine, self._data, self._config = engine, data, config
        self._cells, self._grown = cells, grown
        ends = np.quantile(sample, [0.005, 0.995], axis=0)
        self.low = ends[0]
        self.per_unit = COLUMN_BINS / np.where(ends[1] > ends[0], ends[1] - ends[0], 1.0)

    def round(self, number: int, mixture: Mixture) -> tuple[ValidationStats, list[Split]]:
        """Do one pass, and decide on all pairs that are not clearly apart."""
        pairs = [pair for pair in pairs_of(mixture) if pair.valley > DOUBTFUL]
        pairs += _nearest_apart(mixture, pairs)
        frames = frames_of(mixture, pairs)
        clusters = np.full(len(self._grown.tree), -1, np.int32)
        clusters[self._grown.nodes] = log_joint(self._cells, mixture).argmax(axis=1)
        value = ValidationValue(mixture, self._grown.tree, clusters, frames, self.low, self.per_unit)
        counts = validate(self._engine, self._data.pinned, value)
        return counts, judged(number, mixture, pairs, frames, counts, self._config.max_valley)


def _nearest_apart(mixture: Mixture, doubtful: list[Pair]) -> list[Pair]:
    """Return, for components in no doubtful pair, the pair with the least deep valley: they are told of too."""
    named = {number for pair in doubtful for number in (pair.first, pair.second)}
    found: dict[tuple[int, int], Pair] = {}
    others = [pair for pair in pairs_of(mixture) if pair.valley <= DOUBTFUL]
    for number in range(len(mixture)):
        own = [pair for pair in others if number in (pair.first, pair.second)]
        if number not in named and own:
            best = max(own, key=lambda pair: pair.valley)
            found[best.first, best.second] = best
    return [found[key] for key in sorted(found)]


def _cells(data: PreparedData, grown: Grown, quarters: range | tuple[int, ...]) -> Cells:
    """Return the cells of some quarters of the rows."""
    n = len(grown.nodes)
    groups = np.full((n, QUARTERS), -1, np.int64)
    groups[:, list(quarters)] = np.arange(n)[:, None]
    return Cells.of(grown.stats.grouped(groups.ravel(), n), data.scales, product_scale_of(data))


def _premerged(cells: Cells, found: Found, rules: SearchRules, max_valley: float) -> Mixture:
    """Join components that the mixture itself does not tell apart; costs no pass."""
    mixture = found.fit.mixture
    while True:
        flat = [pair for pair in pairs_of(mixture) if pair.valley > max_valley]
        if not flat:
            return mixture
        mixture = _joined(cells, mixture, independent(flat)[:1], rules)


def _joined(cells: Cells, mixture: Mixture, pairs: list[Pair], rules: SearchRules) -> Mixture:
    """Return the mixture with each pair as one component, refitted to the cells."""
    logs = log_joint(cells, mixture)
    shares = exponential(logs - logs.max(axis=1)[:, None])
    shares /= np.cumsum(shares, axis=1)[:, -1:]
    for pair in pairs:
        shares[:, pair.first] += shares[:, pair.second]
    shares = np.delete(shares, [pair.second for pair in pairs], axis=1)
    kind: CellCovariance = mixture.covariance_type  # type: ignore[assignment]
    return fit_cells(cells, shares, kind, rules.reg_covar, rules.least).mixture


def _row_config(config: PPPConfig, mixture: Mixture) -> MixtureConfig:
    return MixtureConfig(
        n_components=len(mixture),
        covariance_type=mixture.covariance_type,
        reg_covar=config.reg_covar,
        max_iter=config.max_iter,
    )


def _by_weight(mixture: Mixture) -> Mixture:
    order = np.lexsort((*mixture.means.T[::-1], -mixture.weights))
    covariances = mixture.covariances if mixture.covariance_type == "tied" else mixture.covariances[order]
    return Mixture(mixture.covariance_type, mixture.weights[order], mixture.means[order], covariances)


def _stability(
    data: PreparedData,
    grown: Grown,
    cells: Cells,
    mixture: Mixture,
    found: Found,
    rules: SearchRules,
    max_valley: float,
) -> Floats:
    """Return the mean Jaccard index of each cluster with its best match in fits to halves (Hennig, 2007)."""
    ours = log_joint(cells, mixture).argmax(axis=1)
    near = len(found.fit.mixture)
    kind: CellCovariance = mixture.covariance_type  # type: ignore[assignment]
    around = replace(rules, covariance_types=(kind,), n_components=range(max(1, near - 2), near + 3))
    total = np.zeros(len(mixture))
    for half in HALVES:
        some = _cells(data, grown, half)
        full = some.mass > 0
        if not full.any():
            continue
        some = some.take(full)
        refit = _premerged(some, search(some, around), around, max_valley)
        theirs = log_joint(cells, refit).argmax(axis=1)
        both = np.zeros((len(mixture), len(refit)))
        np.add.at(both, (ours, theirs), cells.mass)
        union = both.sum(axis=1)[:, None] + both.sum(axis=0) - both
        total += (both / np.where(union > 0, union, 1.0)).max(axis=1)
    return total / len(HALVES)
