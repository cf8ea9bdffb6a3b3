"""k-medoids on rows in the driver's memory: all of them, or the samples of CLARA.

The samples are solved one after the other on the driver, each beginning with the best medoids so far (FasterCLARA). As
tasks of an engine they would run side by side, but could not know of each other, and a sample of 80 + 4 k rows takes
milliseconds. Which medoids are the best so far is judged on the rows that were drawn; all rows judge once, at the end.

Sources: Kaufman and Rousseeuw, *Finding Groups in Data*, 1990 (CLARA); Schubert and Rousseeuw, *Fast and eager
k-medoids clustering*, 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmedoids_config import KMedoidsConfig
from distclust.algorithms.medoids import solve_matrix
from distclust.algorithms.onebatch import Medoids, both, swap_until_none_pays
from distclust.errors import DataError
from distclust.kernels.dissimilarity import Dissimilarity, nearest_two, table
from distclust.kernels.medoids import medoid_state
from distclust.ops.measured import MeasuredData
from distclust.stats.extremes import KeyedRows

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

LARGEST_SAMPLE = 8192
"""Most rows of a sample of CLARA, where there are not more clusters: with thousands of them, 80 + 4 k rows are too many
for a matrix."""


@dataclass(frozen=True)
class Solution:
    """Medoids of rows in memory.

    Attributes
    ----------
    medoids : Medoids
    n_swaps : int
    """

    medoids: Medoids
    n_swaps: int


def solve(measure: Dissimilarity, candidates: Medoids, columns: Rows, weights: Floats, start: Medoids) -> Solution:
    """Swap candidates in until none lowers the weighted sum over the columns (FasterPAM).

    Parameters
    ----------
    measure : Dissimilarity
    candidates : Medoids
        Rows that may become medoids.
    columns : (b, d)
        Rows that count.
    weights : (b,) float64
    start : Medoids
    """
    state = medoid_state(start.row_ids, table(measure, *both(measure, start.rows, columns)), weights)
    distances = table(measure, *both(measure, candidates.rows, columns))
    swaps = swap_until_none_pays(distances, candidates.row_ids, state)
    known = np.concatenate([candidates.row_ids, start.row_ids])
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known, state.medoids, sorter=order)]
    return Solution(Medoids(np.concatenate([candidates.rows, start.rows])[at], state.medoids.copy()), swaps)


def solve_all(data: MeasuredData, rows: KeyedRows, config: KMedoidsConfig, k: int) -> Solution:
    """Solve all rows by their matrix; those of weight 0 do not count, and do not become medoids.

    Parameters
    ----------
    data : MeasuredData
    rows : KeyedRows
        All good rows, in id order.
    config : KMedoidsConfig
    k : int

    Raises
    ------
    DataError
        Fewer rows of positive weight than clusters.
    """
    counted = np.flatnonzero(rows.weights)
    if len(counted) < k:
        raise DataError(
            f"{len(counted)} rows have a weight above 0, {k} clusters were asked for.",
            where=data.source.describe_place(),
            do=f"Ask for at most {len(counted)} clusters.",
        )
    own = np.ascontiguousarray(rows.rows[counted])
    matrix = table(data.measure, *both(data.measure, own, own))
    weights = None if data.view.columns.weight is None else rows.weights[counted]
    solution = solve_matrix(matrix, k, weights=weights, max_iter=config.max_iter, seed=config.seed)
    at = solution.medoids
    return Solution(Medoids(own[at], rows.row_ids[counted][at]), solution.n_swaps)


def part_of(rows: KeyedRows, start: int, stop: int) -> Medoids:
    """Return some consecutive rows of a draw."""
    return Medoids(rows.rows[start:stop], rows.row_ids[start:stop])


def clara_sets(measure: Dissimilarity, sample: KeyedRows, config: KMedoidsConfig, k: int) -> list[Solution]:
    """Solve the samples of CLARA; samples are disjoint as far as the drawn rows suffice.

    Parameters
    ----------
    measure : Dissimilarity
    sample : KeyedRows
        In the order of the draw.
    config : KMedoidsConfig
    k : int
    """
    size = min(config.sample_rows(k), max(LARGEST_SAMPLE, k + 1), len(sample.row_ids))
    best: Medoids | None = None
    lowest = np.inf
    found: list[Solution] = []
    for number in range(config.n_samples):
        at = (np.arange(size) + number * size) % len(sample.row_ids)
        own, weights = Medoids(sample.rows[at], sample.row_ids[at]), sample.weights[at]
        if best is None:
            start = Medoids(own.rows[:k], own.row_ids[:k])
        else:
            start = best
            fresh = ~np.isin(best.row_ids, own.row_ids)
            missing = np.isin(sample.row_ids, best.row_ids[fresh])
            own = Medoids(
                np.concatenate([own.rows, sample.rows[missing]]),
                np.concatenate([own.row_ids, sample.row_ids[missing]]),
            )
            weights = np.concatenate([weights, sample.weights[missing]])
        solution = solve(measure, own, own.rows, weights, start)
        found.append(solution)
        loss = sample_loss(measure, sample.rows, sample.weights, solution.medoids)
        if loss < lowest:
            best, lowest = solution.medoids, loss
    return found


def sample_loss(measure: Dissimilarity, rows: Rows, weights: Floats, medoids: Medoids) -> float:
    """Return the weighted sum over rows in memory of the distance to the nearest medoid."""
    _, near_dist, _, _ = nearest_two(measure, *both(measure, rows, medoids.rows))
    return float(np.cumsum(weights * near_dist)[-1])
