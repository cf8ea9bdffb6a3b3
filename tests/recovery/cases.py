"""What the tests of equal bits compare, and how they make a dataset of other files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.config import KMeansJob
from distclust.engines.events import Event
from distclust.workflows.common import Session
from distclust.workflows.kmeans import run_kmeans


@dataclass(frozen=True)
class Case:
    """A dataset with the settings it is clustered with."""

    data: Path
    settings: dict[str, Any]

    def job(self, output: Path, **more: Any) -> KMeansJob:
        """Return the job that writes to ``output``."""
        return KMeansJob(data=str(self.data), output=str(output), **{**self.settings, **more})

    def at(self, data: Path) -> Case:
        """Return the same settings on other files."""
        return replace(self, data=data)


@dataclass(frozen=True)
class Bits:
    """What has to be equal: the vectors of the centres, and the labels with their distances, as bytes."""

    centers: str
    labels: str


def bits_of(run: Path) -> Bits:
    """Hash a finished run's files, read without distclust."""
    vectors = pq.read_table(run / "model" / "centers.parquet").column("vector").combine_chunks()
    flat = np.ascontiguousarray(vectors.flatten().to_numpy(zero_copy_only=False))
    return Bits(hashlib.sha256(flat.tobytes()).hexdigest(), labels_of(run))


def labels_of(run: Path) -> str:
    """Hash the labels of a run: every column over all files, in row order."""
    whole = pa.concat_tables([pq.read_table(path) for path in sorted((run / "labels").glob("*.parquet"))])
    digest = hashlib.sha256()
    for name in whole.column_names:
        column = whole.column(name).combine_chunks()
        column = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        digest.update(name.encode() + np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


def run_bits(job: KMeansJob, emit: Callable[[Event], None] | None = None) -> Bits:
    """Run a job and hash what it left."""
    outcome = run_kmeans(job, Session(emit=emit) if emit else None)
    assert not outcome.already_complete
    return bits_of(Path(job.output))


def write_vectors(rows: np.ndarray, path: Path, *, row_group: int) -> None:
    """Write rows as one Parquet file."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    pq.write_table(pa.table({"embedding": vectors}), path, row_group_size=row_group, compression="none")


def regroup(source: Path, target: Path, *, rows_per_file: int, row_group: int) -> Path:
    """Rewrite a dataset's embeddings into other files and row groups, in the same row order."""
    target.mkdir(parents=True)
    table = pa.concat_tables(pq.read_table(p, columns=["embedding"]) for p in sorted(source.glob("*.parquet")))
    for number, start in enumerate(range(0, table.num_rows, rows_per_file)):
        part = table.slice(start, rows_per_file)
        pq.write_table(part, target / f"again-{number:04d}.parquet", row_group_size=row_group, compression="none")
    return target
