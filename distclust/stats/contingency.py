"""Clusters against true classes: a table of counts, and the indices that it gives."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.errors import DataError

Ints = npt.NDArray[np.int64]

MAX_CLASSES = 1 << 20
"""More different values than this are ids, not classes; the table would outgrow the driver."""


@dataclass(frozen=True)
class ContingencyStats:
    """How many rows of each cluster are of each class, without the zeros.

    Attributes
    ----------
    names : tuple of str
        The classes, ascending.
    clusters, classes, counts : (m,) int64
        Cluster, place of the class in ``names``, and rows; ordered by (cluster, class).
    unknown : int
        Rows without a class; they are in none of the counts.
    """

    exact: ClassVar[bool] = True

    names: tuple[str, ...]
    clusters: Ints
    classes: Ints
    counts: Ints
    unknown: int

    @classmethod
    def count(cls, clusters: npt.NDArray[np.int32], codes: Ints, names: list[str]) -> ContingencyStats:
        """Count rows.

        Parameters
        ----------
        clusters : (n,) int32
        codes : (n,) int64
            Place of each row's class in ``names``; -1 for none.
        names : list of str
            All different, in any order.

        Raises
        ------
        DataError
            More than a million different classes.
        """
        known = codes >= 0
        used = np.unique(codes[known])
        order = sorted(range(len(used)), key=lambda at: names[used[at]])
        place = np.zeros(len(names), np.int64)
        place[used[order]] = np.arange(len(used))
        return cls._summed(
            tuple(names[used[at]] for at in order),
            clusters[known].astype(np.int64),
            place[codes[known]],
            np.ones(int(known.sum()), np.int64),
            int(len(codes) - known.sum()),
        )

    @classmethod
    def _summed(
        cls, names: tuple[str, ...], clusters: Ints, classes: Ints, counts: Ints, unknown: int
    ) -> ContingencyStats:
        if len(names) > MAX_CLASSES:
            raise DataError(
                f"the truth column has more than {MAX_CLASSES} different values (such as {names[0]!r}).",
                do="Name a column of classes, not of ids.",
            )
        wide = max(1, len(names))
        keys, at = np.unique(clusters * wide + classes, return_inverse=True)
        totals = np.zeros(len(keys), np.int64)
        np.add.at(totals, at, counts)
        return cls(names, keys // wide, keys % wide, totals, unknown)

    def merge(self, other: ContingencyStats) -> ContingencyStats:
        """Add the counts of two disjoint sets of rows."""
        names = tuple(sorted({*self.names, *other.names}))
        place = {name: at for at, name in enumerate(names)}
        classes = [np.array([place[name] for name in part.names], np.int64)[part.classes] for part in (self, other)]
        return self._summed(
            names,
            np.concatenate([self.clusters, other.clusters]),
            np.concatenate(classes),
            np.concatenate([self.counts, other.counts]),
            self.unknown + other.unknown,
        )

    def agreement(self) -> Agreement | None:
        """Return the indices of the table; None where no row has a class."""
        cells = [int(count) for count in self.counts]
        n = sum(cells)
        if n == 0:
            return None
        by_cluster: Counter[int] = Counter()
        by_class: Counter[int] = Counter()
        largest: dict[int, int] = {}
        for cluster, name, count in zip(self.clusters.tolist(), self.classes.tolist(), cells, strict=True):
            by_cluster[cluster] += count
            by_class[name] += count
            largest[cluster] = max(largest.get(cluster, 0), count)
        shared = math.fsum(
            count / n * (math.log(count) - math.log(by_cluster[cluster]) + math.log(n) - math.log(by_class[name]))
            for cluster, name, count in zip(self.clusters.tolist(), self.classes.tolist(), cells, strict=True)
        )
        return Agreement(
            rows=n,
            unknown=self.unknown,
            n_classes=len(by_class),
            adjusted_rand=_adjusted_rand(cells, [*by_cluster.values()], [*by_class.values()]),
            normalized_mutual_information=_normalized(shared, [*by_cluster.values()], [*by_class.values()]),
            purity=sum(largest.values()) / n,
        )


@dataclass(frozen=True)
class Agreement:
    """How well clusters and classes agree. Rows count one each, whatever they weigh.

    Attributes
    ----------
    rows, unknown : int
        Rows with a class, which are compared, and rows without one.
    n_classes : int
    adjusted_rand : float
        Hubert and Arabie (1985); 1 for equal partitions, about 0 for independent ones.
    normalized_mutual_information : float
        Mutual information over the arithmetic mean of the entropies, 0 ... 1; scikit-learn's default.
    purity : float
        Share of the rows that are of their cluster's most frequent class.
    """

    rows: int
    unknown: int
    n_classes: int
    adjusted_rand: float
    normalized_mutual_information: float
    purity: float


def _adjusted_rand(cells: list[int], rows: list[int], columns: list[int]) -> float:
    """Return the adjusted Rand index from pairs of rows, counted in whole numbers of any size."""
    n = sum(cells)
    squares = sum(c * c for c in cells)
    together, apart_there = squares - n, sum(c * c for c in rows) - squares
    apart_here = sum(c * c for c in columns) - squares
    apart = n * n - squares - apart_there - apart_here
    if apart_there == 0 and apart_here == 0:
        return 1.0
    wrong = (together + apart_here) * (apart_here + apart) + (together + apart_there) * (apart_there + apart)
    return 2 * (together * apart - apart_here * apart_there) / wrong


def _normalized(shared: float, rows: list[int], columns: list[int]) -> float:
    if len(rows) == len(columns) == 1:
        return 1.0
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    return min(1.0, max(0.0, shared / entropy))


def _entropy(sizes: list[int]) -> float:
    n = sum(sizes)
    return math.fsum(size / n * (math.log(n) - math.log(size)) for size in sizes)
