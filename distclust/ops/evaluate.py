"""Scores of a labelling by map-reduce, in two passes over the rows.

The first pass sums the rows by cluster (`distclust.ops.clusters`), the second compares every row with the clusters.
Sums are exact integers, so no score depends on how the rows are cut or on the engine.

The exact silhouette needs no pairs of rows: the mean squared distance from x to the rows of a cluster is
||x - m||^2 + V, with the cluster's mean m and its variance V = sum w ||y - m||^2 / sum w.

What a weight w does. Inertia, Calinski-Harabasz, Davies-Bouldin: the same as w copies of the row. Silhouettes: the
mean over rows weighs them by w, and a row is compared with the weight of its cluster less its own (as Spark's
ClusteringEvaluator does; the scale of the weights makes no difference). Agreement with a truth: nothing, rows count
one each.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.refs import Metric
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.lloyd import fixed_sums, row_sqdist, row_sqnorm
from distclust.kernels.metrics import nearest_other
from distclust.kernels.nearest import distance_table
from distclust.ops.centers import CenterSet
from distclust.ops.clusters import Clusters, measure_clusters
from distclust.ops.labels import Labels, RowClasses, RowLabels
from distclust.ops.profile import PreparedData
from distclust.stats.balance import Balance
from distclust.stats.contingency import Agreement
from distclust.stats.fixed import FixedPair, scale_for
from distclust.stats.scores import SilhouetteStats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TABLE_VALUES = 1 << 20
"""Distances of a tile: 8 MB of float64, whatever k is."""

_NOISE = 2.0**-96
"""Share of the squared lengths under which a squared distance between equal points is rounding, (2^-52)^2 with room:
a row whose own and next cluster are both nearer than that lies between equal clusters."""


@dataclass(frozen=True)
class MeanValue:
    """What the second pass shares for the scores that are taken about the means of the rows."""

    means: CenterSet
    variances: Floats
    """(k,) scatter over weight; +inf without weight."""
    weights: Floats
    spread_scale: float


@dataclass(frozen=True)
class SilhouetteValue:
    """What the second pass shares."""

    labels: RowLabels
    centers: CenterSet
    metric: Metric
    mass: Ints
    mass_scale: float
    scale: float
    """Of sums of silhouettes."""
    about_means: MeanValue | None


@dataclass(frozen=True)
class SilhouetteStep:
    """Compare every row with its own cluster and with the next one."""

    def __call__(self, block: Block, value: SilhouetteValue, context: StepContext) -> SilhouetteStats:
        """Return the sums of one block."""
        labels = value.labels.of(block, context)
        weights = np.ones(block.n) if block.weights is None else block.weights
        own = np.rint(weights * value.mass_scale).astype(np.int64)
        # Weight of the cluster besides the row, in whole numbers: 0 is 0.
        others = value.mass[labels] - own
        simplified = self._total(block, value, labels, self._simplified(block, value, labels, others))
        if value.about_means is None:
            return SilhouetteStats(simplified)
        about = value.about_means
        to_mean = row_sqdist(block.x, about.means.rows, labels)
        exact = self._exact(block, value, labels, others, to_mean)
        spread = FixedPair.zeros(len(value.mass), about.spread_scale)
        fixed_sums(np.sqrt(to_mean), block.weights, labels, spread.scale, spread.high, spread.low)
        return SilhouetteStats(simplified, self._total(block, value, labels, exact), spread)

    @staticmethod
    def _simplified(block: Block, value: SilhouetteValue, labels: Labels, others: Ints) -> Floats:
        extra = np.where(value.mass > 0, 0.0, np.inf)
        next_label, to_next = _next_cluster(block, value.centers, extra, labels)
        to_own = row_sqdist(block.x, value.centers.rows, labels)
        if value.metric == "euclidean":
            to_own, to_next = np.sqrt(to_own), np.sqrt(to_next)
        return _compared(to_own, to_next, (others > 0) & (next_label >= 0), np.zeros(block.n))

    @staticmethod
    def _exact(block: Block, value: SilhouetteValue, labels: Labels, others: Ints, to_mean: Floats) -> Floats:
        about = value.about_means
        assert about is not None
        next_label, to_next = _next_cluster(block, about.means, about.variances, labels)
        valid = (others > 0) & (next_label >= 0)
        within = np.zeros(block.n)
        total = about.weights[labels] * (to_mean + np.where(valid, about.variances[labels], 0.0))
        np.divide(total, others / value.mass_scale, out=within, where=valid)
        between = to_next + np.where(valid, about.variances[next_label], 0.0)
        noise = _NOISE * (row_sqnorm(block.x) + row_sqnorm(about.means.rows).max())
        return _compared(within, between, valid, noise)

    @staticmethod
    def _total(block: Block, value: SilhouetteValue, labels: Labels, silhouettes: Floats) -> FixedPair:
        total = FixedPair.zeros(len(value.mass), value.scale)
        fixed_sums(silhouettes, block.weights, labels, total.scale, total.high, total.low)
        return total


def _next_cluster(block: Block, centers: CenterSet, extra: Floats, labels: Labels) -> tuple[Labels, Floats]:
    """Return the best other cluster of every row (-1: none), and the squared distance to its centre."""
    rows = max(1, _TABLE_VALUES // len(centers))
    found = [
        nearest_other(distance_table(block.x[at : at + rows], centers.packed), extra, labels[at : at + rows])
        for at in range(0, block.n, rows)
    ]
    best = np.concatenate(found) if found else np.empty(0, np.int32)
    # The table serves to choose: its values have lost what the lengths of row and centre have in common.
    return best, row_sqdist(block.x, centers.rows, best)


def _compared(within: Floats, between: Floats, valid: npt.NDArray[np.bool_], noise: Floats) -> Floats:
    """Return (between - within) / max of both; 0 for a row that is alone, or that nothing can be told of."""
    larger = np.maximum(within, between)
    out = np.zeros(len(within))
    np.divide(between - within, larger, out=out, where=valid & (larger > noise))
    return out


@dataclass(frozen=True)
class Evaluation:
    """Scores of a labelling.

    A score that needs two clusters, or rows besides the clusters, is None without them.

    Attributes
    ----------
    clusters : Clusters
    inertia : float
        Sum of w * squared distance to the centre.
    silhouette : float or None
        Mean silhouette by squared Euclidean distances between rows (Rousseeuw, 1987); of unit rows under cosine,
        which is the silhouette by cosine distance.
    simplified_silhouette : float or None
        Mean silhouette by the metric's distances to the centres (Hruschka et al., 2004).
    davies_bouldin, calinski_harabasz : float or None
        By Euclidean distances and the means of the rows.
    silhouettes, simplified_silhouettes : (k,) float64
        Means by cluster; NaN for a cluster without weight.
    rows : Balance
        How evenly rows are spread over clusters.
    weights : Balance
        How evenly weight is.
    agreement : Agreement or None
        With the true classes, where there are some.
    """

    clusters: Clusters
    inertia: float
    silhouette: float | None
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None
    silhouettes: Floats
    simplified_silhouettes: Floats
    rows: Balance
    weights: Balance
    agreement: Agreement | None


def evaluate(
    engine: Engine,
    data: PreparedData,
    labels: RowLabels,
    centers: CenterSet,
    *,
    classes: RowClasses | None = None,
) -> Evaluation:
    """Score a labelling.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        In float64 for scores that agree with scikit-learn's to 1e-9; float32 rows give about 1e-6.
    labels : RowLabels
        See `distclust.ops.labels`.
    centers : CenterSet
        One a cluster, in the coordinates and the type of the blocks. Silhouette, Davies-Bouldin and
        Calinski-Harabasz do not depend on them, but are the more precise the nearer they are to the means.
    classes : RowClasses, optional
        The truth to compare with.

    Raises
    ------
    DataError
        The labels are not those of the rows; the truth is no column of classes.
    """
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="evaluate", total_rows=data.pinned.n_rows, max_passes=2))
    clusters, stats = measure_clusters(engine, data, labels, centers, classes)
    found = _silhouettes(engine, data, labels, centers, clusters, about_means=True)
    assert found.silhouette is not None
    assert found.spread is not None
    evaluation = Evaluation(
        clusters=clusters,
        inertia=clusters.inertia.total(),
        silhouette=_mean(found.silhouette, clusters),
        simplified_silhouette=_mean(found.simplified, clusters),
        davies_bouldin=clusters.davies_bouldin(found.spread.values()),
        calinski_harabasz=clusters.calinski_harabasz(),
        silhouettes=_means(found.silhouette, clusters),
        simplified_silhouettes=_means(found.simplified, clusters),
        rows=Balance.of(clusters.rows),
        weights=Balance.of(clusters.mass),
        agreement=None if stats.classes is None else stats.classes.agreement(),
    )
    engine.options.emit(StageEnded(stage="evaluate", seconds=time.perf_counter() - started))
    return evaluation


def simplified_silhouette(
    engine: Engine, data: PreparedData, labels: RowLabels, centers: CenterSet, clusters: Clusters
) -> float | None:
    """Return the mean silhouette by distances to the centres, in one pass; None for one cluster."""
    return _mean(_silhouettes(engine, data, labels, centers, clusters, about_means=False).simplified, clusters)


def _silhouettes(
    engine: Engine,
    data: PreparedData,
    labels: RowLabels,
    centers: CenterSet,
    clusters: Clusters,
    *,
    about_means: bool,
) -> SilhouetteStats:
    total = math.fsum(clusters.weights)
    about = None
    if about_means:
        weights, full = clusters.weights, clusters.full
        variances = np.full(len(weights), np.inf)
        variances[full] = clusters.scatter[full] / weights[full]
        # By Cauchy-Schwarz no sum of distances is larger.
        bound = math.sqrt(total * math.fsum(clusters.scatter)) * (1 + 2.0**-20)
        means = CenterSet(clusters.means.astype(data.view.dtype))
        about = MeanValue(means, variances, weights, scale_for(bound))
    value = SilhouetteValue(
        labels, centers, data.metric, clusters.mass, clusters.mass_scale, scale_for(total * (1 + 2.0**-20)), about
    )
    with engine.share(value) as shared:
        found: SilhouetteStats = engine.fold(
            data.pinned, SilhouetteStep(), SilhouetteStats.merge, shared, label="silhouettes"
        )
    return found


def _mean(total: FixedPair, clusters: Clusters) -> float | None:
    return total.total() / math.fsum(clusters.weights) if clusters.comparable else None


def _means(total: FixedPair, clusters: Clusters) -> Floats:
    out = np.full(len(clusters.mass), np.nan)
    np.divide(total.values(), clusters.weights, out=out, where=clusters.full)
    return out
