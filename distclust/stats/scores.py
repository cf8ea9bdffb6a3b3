"""What a labelling leaves behind for its scores: sums of its clusters, sums of silhouettes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distclust.stats.contingency import ContingencyStats
from distclust.stats.fixed import FixedPair
from distclust.stats.lloyd import ClusterSums


@dataclass(frozen=True)
class LabelStats:
    """First pass over labelled rows.

    Attributes
    ----------
    sums : ClusterSums
        Of all k clusters: sums of w * x, w, and rows.
    inertia : FixedPair of k totals
        Sum of w * squared distance to the cluster's centre.
    classes : ContingencyStats or None
        Clusters against true classes, where a truth was given.
    """

    exact: ClassVar[bool] = True

    sums: ClusterSums
    inertia: FixedPair
    classes: ContingencyStats | None = None

    def merge(self, other: LabelStats) -> LabelStats:
        """Combine the statistics of two disjoint sets of rows."""
        return LabelStats(
            self.sums.merge(other.sums),
            self.inertia.merge(other.inertia),
            _merged(self.classes, other.classes),
        )


def _merged(one: ContingencyStats | None, other: ContingencyStats | None) -> ContingencyStats | None:
    return one if other is None else other if one is None else one.merge(other)


@dataclass(frozen=True)
class SilhouetteStats:
    """Second pass over labelled rows: totals by cluster.

    Attributes
    ----------
    simplified : FixedPair of k totals
        Sum of w * silhouette by distances to centres.
    silhouette, spread : FixedPair of k totals, or None
        Sums of w * silhouette by squared distances to all rows, and of w * Euclidean distance to the mean; None
        where only the simplified one was asked for.
    """

    exact: ClassVar[bool] = True

    simplified: FixedPair
    silhouette: FixedPair | None = None
    spread: FixedPair | None = None

    def merge(self, other: SilhouetteStats) -> SilhouetteStats:
        """Combine the statistics of two disjoint sets of rows."""
        return SilhouetteStats(
            self.simplified.merge(other.simplified),
            _added(self.silhouette, other.silhouette),
            _added(self.spread, other.spread),
        )


def _added(one: FixedPair | None, other: FixedPair | None) -> FixedPair | None:
    return None if one is None or other is None else one.merge(other)
