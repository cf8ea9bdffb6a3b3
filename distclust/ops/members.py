"""Labels of a mixture: component, its responsibility, log density, and the most probable components of every row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.artifacts.commit import commit_file
from distclust.data.block import Block
from distclust.data.decode import read_ids
from distclust.data.refs import PartitionRef
from distclust.data.sinks import encode_parquet, labels_table
from distclust.data.storage import Storage
from distclust.engines.protocol import Engine, StepContext
from distclust.errors import UsageError
from distclust.kernels.lloyd import fixed_sums, row_sqdist, row_sqnorm
from distclust.kernels.mixture import MixtureRows
from distclust.kernels.random import hash_rows
from distclust.ops.assign import labels_digest, reported_distance
from distclust.ops.centers import CenterSet
from distclust.ops.mixture import Mixture
from distclust.ops.profile import PreparedData
from distclust.stats.fixed import FixedPair
from distclust.stats.lloyd import AssignStats

_BATCH_VALUES = 1 << 20
"""Responsibilities of a batch of rows: bounds what a step holds besides its block."""


@dataclass(frozen=True)
class MemberValue:
    """What the pass shares: the mixture, and its means as centres that distances are measured to."""

    mixture: Mixture
    centers: CenterSet
    inertia_scale: float


@dataclass(frozen=True)
class Members:
    """The most probable components of rows, most probable first, among equals the lowest; both [n, top]."""

    components: npt.NDArray[np.int32]
    responsibilities: npt.NDArray[np.float32]


def members_of(x: npt.NDArray[np.floating], mixture: Mixture, top: int) -> Members:
    """Return the ``top`` most probable components of rows in the coordinates of the blocks."""
    n, size = len(x), max(1, _BATCH_VALUES // len(mixture))
    found = Members(np.empty((n, top), np.int32), np.empty((n, top), np.float32))
    for start in range(0, n, size):
        shares = mixture.responsibilities(x[start : start + size])
        order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        found.components[start : start + size] = order
        found.responsibilities[start : start + size] = np.take_along_axis(shares, order, axis=1)
    return found


@dataclass(frozen=True)
class MemberStep:
    """Label a block; with a ``sink``, write and commit its label file with ``top`` components of each row."""

    sink: Storage | None
    top: int

    def __call__(self, block: Block, value: MemberValue, context: StepContext) -> AssignStats:
        """Label a block."""
        rows, members = value.mixture.rows(block), members_of(block.x, value.mixture, self.top)
        sqdist = row_sqdist(block.x, value.centers.rows, rows.labels)
        inertia = FixedPair.zeros(len(value.mixture), value.inertia_scale)
        fixed_sums(sqdist, block.weights, rows.labels, inertia.scale, inertia.high, inertia.low)
        distances = reported_distance(sqdist, "euclidean")
        digest = labels_digest(block.row_ids, rows.labels, distances) + _digest(block.row_ids, rows, members)
        counts = np.bincount(rows.labels, minlength=len(value.mixture)).astype(np.int64)
        stats = AssignStats(counts, inertia, digest % 2**64)
        if self.sink is not None:
            self._write(self.sink, block, rows, distances, members, stats)
        return stats

    @staticmethod
    def _write(
        sink: Storage,
        block: Block,
        rows: MixtureRows,
        distances: npt.NDArray[np.float32],
        members: Members,
        stats: AssignStats,
    ) -> None:
        ref, columns, at = block.ref, block.view.columns, block.positions
        table = labels_table(ref, read_ids(ref, columns), columns.id or "row_id", at, rows.labels, distances)
        table = table.append_column("probability", _placed(ref, at, rows.probability.astype(np.float32)))
        table = table.append_column("log_density", _placed(ref, at, rows.log_density))
        if members.components.shape[1]:
            table = table.append_column("components", _placed(ref, at, members.components))
            table = table.append_column("responsibilities", _placed(ref, at, members.responsibilities))
        commit_file(
            sink,
            "labels",
            ref.index,
            f"part-{ref.index:05d}",
            ".parquet",
            encode_parquet(table),
            rows=ref.n_rows,
            extra={"source": ref.uri, "offset": ref.offset, "stats": stats.to_bytes().hex()},
        )


def label_members(
    engine: Engine,
    data: PreparedData,
    mixture: Mixture,
    *,
    top: int = 0,
    sink: Storage | None = None,
    skip: dict[int, AssignStats] | None = None,
) -> AssignStats:
    """Label all rows by their most probable components.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
    mixture : Mixture
        In the coordinates of the blocks.
    top : int, default=0
        List so many components of each row, with their responsibilities.
    sink : Storage, optional
        Run directory whose ``labels/`` is written, one committed file a partition.
    skip : dict, optional
        Statistics of the partitions that are committed already, by partition index.

    Returns
    -------
    AssignStats
        Inertia is about the means; the digest covers all that is written.

    Raises
    ------
    UsageError
        ``top`` is more than there are components.
    """
    if not 0 <= top <= len(mixture):
        raise UsageError(f"top == {top}, the mixture has {len(mixture)} components.", do="Ask for at most so many.")
    skip = skip or {}
    centers = CenterSet(mixture.means.astype(data.view.dtype))
    value = MemberValue(mixture, centers, data.inertia_scale(float(row_sqnorm(centers.rows).max(initial=0.0))))
    done = list(skip.values())
    open_refs = [ref for ref in data.pinned.refs if ref.index not in skip]
    if open_refs:
        pinned = engine.pin(open_refs, data.view, label="label")
        with engine.share(value) as shared:
            done.append(engine.fold(pinned, MemberStep(sink, top), AssignStats.merge, shared, label="label"))
    total = done[0]
    for part in done[1:]:
        total = total.merge(part)
    return total


def _digest(row_ids: npt.NDArray[np.int64], rows: MixtureRows, members: Members) -> int:
    mixed = hash_rows(row_ids) + rows.log_density.view(np.uint64)
    mixed = hash_rows(mixed.view(np.int64)) + rows.probability.view(np.uint64)
    for i in range(members.components.shape[1]):
        mixed = hash_rows(mixed.view(np.int64)) + members.components[:, i].astype(np.uint64)
        shares = np.ascontiguousarray(members.responsibilities[:, i]).view(np.uint32)
        mixed = hash_rows(mixed.view(np.int64)) + shares.astype(np.uint64)
    return int(hash_rows(mixed.view(np.int64)).sum(dtype=np.uint64))


def _placed(ref: PartitionRef, positions: npt.NDArray[np.int64], values: npt.NDArray[np.generic]) -> pa.Array:
    """Return values of the rows of a block in input order, null for rows that were dropped; two axes become lists."""
    column = np.zeros((ref.n_rows, *values.shape[1:]), values.dtype)
    column[positions] = values
    missing = np.ones(ref.n_rows, bool)
    missing[positions] = False
    if values.ndim == 1:
        return pa.array(column, mask=missing if missing.any() else None)
    kind = pa.list_(pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False), values.shape[1])
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), type=kind, mask=mask)
