"""k-means with several numbers of clusters in shared passes, and what to choose among them by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distclust.algorithms.kmeans import Checkpointed, KMeansResult, fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.progressive import seeding_rung
from distclust.algorithms.seeding import seeding_passes
from distclust.artifacts.checkpoint import Checkpoints
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import UsageError
from distclust.ops.clusters import Clusters, measure_clusters
from distclust.ops.evaluate import simplified_silhouette
from distclust.ops.labels import NearestLabels
from distclust.ops.profile import PreparedData
from distclust.ops.together import run_together

KNEE_DEPTH = 0.15
"""Least depth of a knee in ln inertia. Origin: uniform and normal rows in 2, 8 and 64 dimensions lie at most 0.11 below
the line for k from 2 or 5 on, but for the square at k = 4, whose quarters are clusters of a kind (0.13 to 0.2); s1, s4,
a3, unbalance and iris lie 0.74, 0.19, 0.31, 0.88 and 0.16 below it at their true numbers of clusters."""

_SCORE_PASSES = 2


@dataclass(frozen=True)
class Candidate:
    """What came of one number of clusters.

    Attributes
    ----------
    n_clusters : int
        As asked for.
    result : KMeansResult
        The same bits as from `fit_kmeans` alone.
    clusters : Clusters
        Populations and scatter under the result's centres.
    simplified_silhouette, calinski_harabasz : float or None
        None for a single cluster; see `distclust.ops.evaluate.Evaluation`.
    """

    n_clusters: int
    result: KMeansResult
    clusters: Clusters
    simplified_silhouette: float | None
    calinski_harabasz: float | None

    @property
    def inertia(self) -> float:
        """Sum of w * squared distance to the nearest centre."""
        return self.clusters.inertia.total()


@dataclass(frozen=True)
class _Part:
    """The part of a run directory that one candidate uses."""

    run: Checkpointed
    name: str

    def checkpoints(self, name: str) -> Checkpoints:
        """Return checkpoints apart from those of the other candidates."""
        return self.run.checkpoints(f"{name}-{self.name}")


def fit_sweep(
    engine: Engine,
    data: PreparedData,
    configs: Sequence[KMeansConfig],
    run: Checkpointed | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> list[Candidate]:
    """Run k-means under each of several settings, and score the results; a pass over the rows serves all that need one.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    configs : sequence of KMeansConfig
        All of different ``n_clusters``.
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints of a candidate; 0 saves after every pass.

    Returns
    -------
    list of Candidate
        In order of the configurations.

    Raises
    ------
    DataError
        As from `fit_kmeans`, for any of them.
    """
    names = [f"k{config.n_clusters}" for config in configs]
    if len(set(names)) < len(names):
        raise UsageError(f"n_clusters are {[config.n_clusters for config in configs]}; they must be different.")

    def work(config: KMeansConfig, name: str) -> Callable[[Engine], Candidate]:
        part = None if run is None else _Part(run, name)
        return lambda shared: _candidate(shared, data, config, part, checkpoint_seconds)

    started = time.perf_counter()
    most = max(_most_passes(data, config) for config in configs) + _SCORE_PASSES
    engine.options.emit(StageStarted(stage="sweep", total_rows=data.pinned.n_rows, max_passes=most))
    works = [work(config, name) for config, name in zip(configs, names, strict=True)]
    candidates = run_together(engine, works, names)
    engine.options.emit(StageEnded(stage="sweep", seconds=time.perf_counter() - started))
    return candidates


def _most_passes(data: PreparedData, config: KMeansConfig) -> int:
    """Return the passes of all initialisations: seeding, iterations, and the exact inertia where there are several."""
    rows = seeding_rung(data.moments.n_rows, config).rows
    return config.n_init * (seeding_passes(config, rows, data.width) + config.max_iter + 1)


def _candidate(
    engine: Engine, data: PreparedData, config: KMeansConfig, run: Checkpointed | None, checkpoint_seconds: float
) -> Candidate:
    result = fit_kmeans(engine, data, config, run, checkpoint_seconds=checkpoint_seconds)
    labels = NearestLabels(result.centers)
    clusters, _ = measure_clusters(engine, data, labels, result.centers)
    silhouette = simplified_silhouette(engine, data, labels, result.centers, clusters)
    return Candidate(config.n_clusters, result, clusters, silhouette, clusters.calinski_harabasz())


def knee(ks: Sequence[int], inertias: Sequence[float]) -> int | None:
    """Choose k by the elbow of the inertia.

    On logarithmic axes, where the curve of rows without clusters is nearly a straight line, the knee is the k whose
    inertia lies farthest below the line from the first k to the last: the rule of Satopaa et al. (*Finding a
    "kneedle" in a haystack*, 2011) on axes that suit inertia.

    Parameters
    ----------
    ks : sequence of int
        Ascending.
    inertias : sequence of float
        Of each k; where it is 0 every row is on its centre, and the k does not count.

    Returns
    -------
    int or None
        None for fewer than three k, or where no inertia lies `KNEE_DEPTH` below the line.

    Examples
    --------
    >>> knee([2, 4, 8, 16], [900.0, 100.0, 80.0, 64.0])
    4
    >>> knee([2, 4, 8, 16], [100.0, 80.0, 64.0, 51.2]) is None
    True
    """
    points = [(math.log(k), math.log(inertia), k) for k, inertia in zip(ks, inertias, strict=True) if inertia > 0]
    if len(points) < 3:
        return None
    (first_x, first_y, _), (last_x, last_y, _) = points[0], points[-1]
    slope = (last_y - first_y) / (last_x - first_x)
    depths = [(first_y + slope * (x - first_x) - y, k) for x, y, k in points[1:-1]]
    depth, k = max(depths, key=lambda found: found[0])
    return k if depth >= KNEE_DEPTH else None
