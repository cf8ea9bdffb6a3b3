"""Labelled rows summed by cluster in one pass: populations, means, scatter, and the scores that these give.

Sums are exact integers, so nothing depends on how the rows are cut or on the engine. The scatter of a cluster about its
mean m is taken from the sum about its centre c, sum w ||x - c||^2 - (sum w) ||m - c||^2, which cancels nothing where c
is near m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, StepContext
from distclust.kernels.lloyd import accumulate, fixed_sums, row_sqdist, row_sqnorm
from distclust.ops.centers import CenterSet
from distclust.ops.labels import RowClasses, RowLabels, count_classes
from distclust.ops.profile import PreparedData
from distclust.stats.fixed import FixedPair, SumScales
from distclust.stats.lloyd import ClusterSums
from distclust.stats.scores import LabelStats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelValue:
    """What the first pass shares."""

    labels: RowLabels
    centers: CenterSet
    scales: SumScales
    inertia_scale: float


@dataclass(frozen=True)
class LabelStep:
    """Sum the labelled rows of a block by cluster."""

    classes: RowClasses | None = None

    def __call__(self, block: Block, value: LabelValue, context: StepContext) -> LabelStats:
        """Return the sums of one block."""
        labels = value.labels.of(block, context)
        k = len(value.centers)
        sums, scales = ClusterSums.zeros(k, block.d), value.scales
        accumulate(block.x, block.weights, labels, scales.columns, scales.mass, sums.sums, sums.mass, sums.counts)
        sqdist = row_sqdist(block.x, value.centers.rows, labels)
        value.labels.check(block, labels, sqdist, value.centers)
        inertia = FixedPair.zeros(k, value.inertia_scale)
        fixed_sums(sqdist, block.weights, labels, inertia.scale, inertia.high, inertia.low)
        counted = None if self.classes is None else count_classes(labels, self.classes.of(block))
        return LabelStats(sums, inertia, counted)


@dataclass(frozen=True)
class Clusters:
    """Clusters as the first pass found them.

    Attributes
    ----------
    rows : (k,) int64
    mass : (k,) int64
        Fixed-point sums of the weights.
    mass_scale : float
    means : (k, d) float64
        Of the rows; the centre, where a cluster has no mass.
    scatter : (k,) float64
        Sum of w * squared distance to the mean.
    inertia : FixedPair of k totals
        Sum of w * squared distance to the centre.
    """

    rows: Ints
    mass: Ints
    mass_scale: float
    means: Floats
    scatter: Floats
    inertia: FixedPair

    @classmethod
    def from_stats(cls, stats: LabelStats, centers: CenterSet, scales: SumScales) -> Clusters:
        """Turn sums into means and scatter."""
        mass, full = stats.sums.mass / scales.mass, stats.sums.mass > 0
        means = centers.rows.astype(np.float64)
        aside = means.copy()
        means[full] = stats.sums.sums[full] / scales.columns / mass[full, None]
        apart = row_sqdist(means, aside, np.arange(len(means), dtype=np.int32))
        scatter = np.maximum(stats.inertia.values() - mass * apart, 0.0)
        return cls(stats.sums.counts, stats.sums.mass, scales.mass, means, scatter, stats.inertia)

    @property
    def weights(self) -> Floats:
        """(k,) sums of the weights."""
        return self.mass / self.mass_scale

    @property
    def full(self) -> npt.NDArray[np.bool_]:
        """(k,) whether a cluster has any weight."""
        return self.mass > 0

    @property
    def comparable(self) -> bool:
        """Whether there are two clusters at least, and rows besides: what most scores need."""
        return 1 < int(self.full.sum()) < int(self.rows.sum())

    def calinski_harabasz(self) -> float | None:
        """Return the ratio of between and within dispersion (Calinski and Harabasz, 1974); None for one cluster."""
        if not self.comparable:
            return None
        weights, k, n = self.weights, int(self.full.sum()), math.fsum(self.weights)
        middle = np.array([[math.fsum(weights * column) / n for column in self.means.T]])
        between = math.fsum(weights * row_sqdist(self.means, middle, np.zeros(len(self.means), np.int32)))
        within = math.fsum(self.scatter)
        return 1.0 if within == 0 else between * (n - k) / (within * (k - 1))

    def davies_bouldin(self, spread: Floats) -> float | None:
        """Return the mean over clusters of the worst ratio of spreads to distance (Davies and Bouldin, 1979).

        Parameters
        ----------
        spread : (k,) float64
            Sums of w * Euclidean distance to the mean.
        """
        if not self.comparable:
            return None
        means = np.ascontiguousarray(self.means[self.full])
        spread = spread[self.full] / self.weights[self.full]
        worst = []
        for j in range(len(means)):
            distances = np.sqrt(row_sqdist(means, means[j : j + 1], np.zeros(len(means), np.int32)))
            apart = distances > 0  # clusters of one mean cannot be told apart, and would make the index infinite
            worst.append(float(((spread + spread[j])[apart] / distances[apart]).max(initial=0.0)))
        return math.fsum(worst) / len(worst)


def measure_clusters(
    engine: Engine,
    data: PreparedData,
    labels: RowLabels,
    centers: CenterSet,
    classes: RowClasses | None = None,
) -> tuple[Clusters, LabelStats]:
    """Do the first pass: populations, means, scatter and inertia of the clusters."""
    value = LabelValue(labels, centers, data.scales, data.inertia_scale(float(row_sqnorm(centers.rows).max())))
    with engine.share(value) as shared:
        stats: LabelStats = engine.fold(data.pinned, LabelStep(classes), LabelStats.merge, shared, label="clusters")
    return Clusters.from_stats(stats, centers, data.scales), stats
