"""Where a scoring pass has its labels and true classes from: centres, the label files of a run, a column."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distclust.artifacts.commit import read_commits
from distclust.data.block import Block
from distclust.data.decode import place, read_column
from distclust.data.refs import Metric, PartitionRef
from distclust.data.storage import Storage
from distclust.engines.protocol import StepContext
from distclust.errors import DataError
from distclust.kernels.lloyd import row_sqnorm
from distclust.ops.centers import CenterSet, nearest_labels
from distclust.stats.contingency import ContingencyStats

Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

_ROUNDING = 2.0**-18
"""What separates a distance in a label file from the same one in float64, relative to the lengths of row and centre:
rows and centres were rounded to float32 (2^-24 each, and the distance again); the rest is room."""


class RowLabels(Protocol):
    """Gives the rows of a block their clusters. Travels in the shared value of a pass."""

    def of(self, block: Block, context: StepContext) -> Labels:
        """Return the clusters in block order, 0 ... k-1."""
        ...

    def check(self, block: Block, labels: Labels, sqdist: Floats, centers: CenterSet) -> None:
        """Raise `DataError` if the labels are not those of these rows; ``sqdist`` is to the rows' own centres."""
        ...


class RowClasses(Protocol):
    """Gives the rows of a block their true classes."""

    def of(self, block: Block) -> pa.Array:
        """Return strings in block order; null for a row without a class."""
        ...


@dataclass(frozen=True)
class NearestLabels:
    """The cluster of the nearest centre.

    Attributes
    ----------
    centers : CenterSet
        In the coordinates and the type of the blocks.
    """

    centers: CenterSet

    def of(self, block: Block, context: StepContext) -> Labels:
        """Return the nearest centre of every row."""
        return nearest_labels(block, self.centers, context)

    def check(self, block: Block, labels: Labels, sqdist: Floats, centers: CenterSet) -> None:
        """Do nothing: the labels were found from the rows."""


@dataclass(frozen=True)
class LabelFile:
    """A committed file of labels: rows ``offset`` to ``offset + n_rows`` of the dataset."""

    path: str
    offset: int
    n_rows: int


@dataclass(frozen=True)
class WrittenLabels:
    """The labels that a run wrote, whatever the algorithm was that chose them.

    Attributes
    ----------
    storage : Storage
        Run directory.
    files : tuple of LabelFile
        In row order, covering every row.
    metric : {"euclidean", "cosine"}
        Says what the files call the distance.
    n_clusters : int
    """

    storage: Storage
    files: tuple[LabelFile, ...]
    metric: Metric
    n_clusters: int

    @classmethod
    def of_run(cls, storage: Storage, metric: Metric, n_clusters: int) -> WrittenLabels:
        """Find the label files of a complete run."""
        files = [
            LabelFile(commit.file, int(commit.extra["offset"]), commit.rows)
            for commit in read_commits(storage, "labels").values()
        ]
        return cls(storage, tuple(sorted(files, key=lambda file: file.offset)), metric, n_clusters)

    @property
    def n_rows(self) -> int:
        """Rows of all files, those without a label included."""
        return sum(file.n_rows for file in self.files)

    def of(self, block: Block, context: StepContext) -> Labels:
        """Return the labels as they were written."""
        known = context.state.get("written-labels", self._tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        labels = self._read(block.ref, "cluster").cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        labels = np.ascontiguousarray(labels[block.positions])
        wrong = np.flatnonzero((labels < 0) | (labels >= self.n_clusters))
        if len(wrong):
            found = "no label" if labels[wrong[0]] < 0 else f"label {labels[wrong[0]]} of {self.n_clusters} clusters"
            raise _other_rows(block, int(wrong[0]), f"the run has {found} for this row")
        context.state.put("written-labels", self._tag, labels)
        return labels

    def check(self, block: Block, labels: Labels, sqdist: Floats, centers: CenterSet) -> None:
        """Compare the distances to the rows' centres with those that the run wrote beside the labels."""
        written = self._read(block.ref, "distance").cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
        there = written[block.positions]
        if self.metric == "cosine":
            there = np.sqrt(2 * np.maximum(there, 0.0))
        here = np.sqrt(sqdist)
        lengths = np.sqrt(row_sqnorm(block.x)) + np.sqrt(row_sqnorm(centers.rows))[labels] + here
        wrong = np.flatnonzero(~(np.abs(here - there) <= _ROUNDING * lengths))
        if len(wrong):
            row = int(wrong[0])
            raise _other_rows(
                block, row, f"the row lies {here[row]:.6g} from its centre, by the run's label file {there[row]:.6g}"
            )

    @cached_property
    def _tag(self) -> str:
        return hashlib.sha256(repr(self.files).encode()).hexdigest()[:24]

    def _read(self, ref: PartitionRef, column: str) -> pa.Array:
        start, stop = ref.offset, ref.offset + ref.n_rows
        parts = []
        for file in self.files:
            first, last = max(start, file.offset), min(stop, file.offset + file.n_rows)
            if first < last:
                with self.storage.open_input(file.path) as source:
                    table = pq.read_table(source, columns=[column], use_threads=False)
                parts += table.column(0).slice(first - file.offset, last - first).chunks
        return pa.chunked_array(parts).combine_chunks()


def _other_rows(block: Block, row: int, found: str) -> DataError:
    return DataError(
        f"{found}: these are not the rows that were labelled, or not in their order.",
        where=place(block.ref, int(block.positions[row])),
        do="Name the data that the run read, with --data if it lies elsewhere now.",
    )


@dataclass(frozen=True)
class ClassColumn:
    """True classes from a column of the rows' files: strings, integers or booleans."""

    name: str

    def of(self, block: Block) -> pa.Array:
        """Read the column and put it into block order."""
        column = read_column(block.ref, self.name, "the truth column")
        return class_names(column, self.name, block.ref.describe()).take(pa.array(block.positions))


def class_names(column: pa.Array, name: str, where: str) -> pa.Array:
    """Return classes as strings.

    Raises
    ------
    DataError
        The column holds something that is no class, such as floating-point numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    if not any(fits(kind) for fits in plain) and str(kind) != "string_view":
        raise DataError(
            f"the truth column {name!r} has type {kind}; classes are strings, integers or booleans.",
            where=where,
            do="Cast it, or name another column.",
        )
    return pc.cast(pc.cast(column, kind), pa.string())


def count_classes(labels: Labels, classes: pa.Array) -> ContingencyStats:
    """Count the rows of each cluster and class."""
    encoded = classes.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return ContingencyStats.count(labels, codes, encoded.dictionary.to_pylist())
