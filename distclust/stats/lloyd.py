"""What one Lloyd pass leaves behind: sums, masses and counts by cluster, inertia, moved rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.kernels.updates import add_sums, merge_sums
from distclust.stats.codec import arrays_from_bytes, arrays_to_bytes
from distclust.stats.fixed import FixedPair

Ints = npt.NDArray[np.int64]

MOST_PARTS, MOST_BYTES = 8, 256 << 20
"""Sums that lie side by side until they are needed, at most; and the bytes that they take."""


@dataclass(frozen=True)
class ClusterSums:
    """Integer sums of some of the clusters; as totals, or as changes since an earlier labelling.

    Attributes
    ----------
    clusters : (t,) int64, ascending
        The clusters that have entries here; the others have none to add.
    sums : (t, d) int64
        Fixed-point sums of w * x.
    mass : (t,) int64
        Fixed-point sums of w.
    counts : (t,) int64
        Rows.
    """

    exact: ClassVar[bool] = True

    clusters: Ints
    sums: Ints
    mass: Ints
    counts: Ints

    @classmethod
    def zeros(cls, n_clusters: int, width: int) -> ClusterSums:
        """Return totals of nothing for all clusters."""
        return cls(
            np.arange(n_clusters, dtype=np.int64),
            np.zeros((n_clusters, width), np.int64),
            np.zeros(n_clusters, np.int64),
            np.zeros(n_clusters, np.int64),
        )

    def merge(self, other: ClusterSums) -> ClusterSums:
        """Add entry by entry; the result has the union of the clusters."""
        clusters, sums, *places = merge_sums((self.clusters, other.clusters), (self.sums, other.sums))
        out = ClusterSums(clusters, sums, np.zeros(len(clusters), np.int64), np.zeros(len(clusters), np.int64))
        for part, place in zip((self, other), places, strict=True):
            here = np.flatnonzero(place >= 0)
            out.mass[here] += part.mass
            out.counts[here] += part.counts
        return out

    def owned(self) -> ClusterSums:
        """Return the same, with arrays that may be changed."""
        arrays = (self.sums, self.mass, self.counts)
        return ClusterSums(self.clusters, *(part if part.flags.writeable else part.copy() for part in arrays))

    def add(self, other: ClusterSums, *, threads: int = 1) -> None:
        """Add to the entries of all clusters, in place; see `owned`."""
        add_sums(self.sums, other.clusters, other.sums, threads=threads)
        self.mass[other.clusters] += other.mass
        self.counts[other.clusters] += other.counts

    def to_bytes(self) -> bytes:
        """Encode without pickle."""
        return arrays_to_bytes(
            "cluster-sums/1",
            {"clusters": self.clusters, "sums": self.sums, "mass": self.mass, "counts": self.counts},
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ClusterSums:
        """Decode what `to_bytes` wrote."""
        return cls(**arrays_from_bytes("cluster-sums/1", data))  # type: ignore[arg-type]


@dataclass(frozen=True)
class LloydStats:
    """One pass of Lloyd's algorithm.

    Attributes
    ----------
    parts : tuple of ClusterSums
        What is to be added up: totals in a first pass, changes in a later one. Merging only lists them, up to
        `MOST_PARTS` and `MOST_BYTES`: the driver adds all to its totals at once. What travels is added up before.
    inertia : FixedPair of one total
        Sum of w * squared distance to the centres of this pass; 0 where it was not measured.
    moved : int
        Rows whose cluster differs from the previous pass; all rows in a first pass.
    """

    exact: ClassVar[bool] = True

    parts: tuple[ClusterSums, ...]
    inertia: FixedPair
    moved: int

    @property
    def sums(self) -> ClusterSums:
        """All parts together."""
        return reduce(ClusterSums.merge, self.parts)

    def merge(self, other: LloydStats) -> LloydStats:
        """Combine the statistics of two disjoint sets of rows."""
        both = LloydStats(self.parts + other.parts, self.inertia.merge(other.inertia), self.moved + other.moved)
        size = sum(part.sums.nbytes for part in both.parts)
        return both if len(both.parts) <= MOST_PARTS and size <= MOST_BYTES else both._added()

    def _added(self) -> LloydStats:
        return LloydStats((self.sums,), self.inertia, self.moved)

    def __reduce__(self) -> tuple[type[LloydStats], tuple[tuple[ClusterSums, ...], FixedPair, int]]:
        return LloydStats, ((self.sums,), self.inertia, self.moved)


@dataclass(frozen=True)
class AssignStats:
    """The final pass: population and inertia of every cluster, and a digest of the labels.

    Attributes
    ----------
    counts : (k,) int64
        Rows.
    inertia : FixedPair of k totals
        Sum of w * squared distance.
    labels_digest : int
        Sum modulo 2^64 of a hash of (row id, cluster, distance) over the rows: the same however the rows are cut
        into partitions.
    top_digest : int
        The same of the lists of nearest clusters; 0 where none were asked for.
    """

    exact: ClassVar[bool] = True

    counts: Ints
    inertia: FixedPair
    labels_digest: int
    top_digest: int = 0

    def merge(self, other: AssignStats) -> AssignStats:
        """Combine the statistics of two disjoint sets of rows."""
        return AssignStats(
            self.counts + other.counts,
            self.inertia.merge(other.inertia),
            (self.labels_digest + other.labels_digest) % 2**64,
            (self.top_digest + other.top_digest) % 2**64,
        )

    def to_bytes(self) -> bytes:
        """Encode without pickle; clusters without rows are left out where they are most."""
        filled = np.flatnonzero(self.counts)
        some: dict[str, npt.ArrayLike] = {}
        at: slice | Ints = slice(None)
        if 2 * len(filled) < len(self.counts):
            some, at = {"clusters": filled, "n_clusters": np.int64(len(self.counts))}, filled
        return arrays_to_bytes(
            "assign/1",
            {
                "counts": self.counts[at],
                "inertia_high": self.inertia.high[at],
                "inertia_low": self.inertia.low[at],
                "scale": np.float64(self.inertia.scale),
                "labels_digest": np.uint64(self.labels_digest),
                "top_digest": np.uint64(self.top_digest),
                **some,
            },
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> AssignStats:
        """Decode what `to_bytes` wrote."""
        a = arrays_from_bytes("assign/1", data)
        if "clusters" in a:
            for name in ("counts", "inertia_high", "inertia_low"):
                whole = np.zeros(int(a["n_clusters"]), np.int64)
                whole[a["clusters"].astype(np.int64)] = a[name]
                a[name] = whole
        pair = FixedPair(a["inertia_high"], a["inertia_low"], float(a["scale"]))  # type: ignore[arg-type]
        digests = int(a["labels_digest"]), int(a.get("top_digest", 0))
        return cls(a["counts"], pair, *digests)  # type: ignore[arg-type]
