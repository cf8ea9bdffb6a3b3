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

from distclust.config import JOBS, AnyJob
from distclust.engines.events import Event
from distclust.workflows.assign import run_assign
from distclust.workflows.bisect import run_bisect
from distclust.workflows.common import JobOutcome, Session
from distclust.workflows.kmeans import run_kmeans
from distclust.workflows.kmedoids import run_kmedoids
from distclust.workflows.sweep import run_sweep

RUN: dict[str, Callable[[Any, Session | None], JobOutcome]] = {
    "kmeans": run_kmeans,
    "kmedoids": run_kmedoids,
    "bisect": run_bisect,
    "sweep": run_sweep,
    "assign": run_assign,
}


@dataclass(frozen=True)
class Case:
    """A dataset with the settings of a job on it."""

    data: Path
    settings: dict[str, Any]
    kind: str = "kmeans"

    def job(self, output: Path, **more: Any) -> AnyJob:
        """Return the job that writes to ``output``."""
        return JOBS[self.kind](data=str(self.data), output=str(output), **{**self.settings, **more})

    def at(self, data: Path) -> Case:
        """Return the same settings on other files."""
        return replace(self, data=data)


@dataclass(frozen=True)
class Bits:
    """What has to be equal, as bytes.

    Attributes
    ----------
    centers : str
        Of the vectors of all models; none for labels under an earlier model.
    labels : str
        Of the labels with their distances; none for a sweep.
    more : str
        Of what else a job finds out: the tree, sizes and cost of a balanced assignment, the scores of a sweep.
    """

    centers: str
    labels: str
    more: str


def bits_of(run: Path) -> Bits:
    """Hash a finished run's files, read without distclust."""
    digest = hashlib.sha256()
    for path in sorted(run.rglob("centers.parquet")):
        vectors = pq.read_table(path).column("vector").combine_chunks()
        digest.update(np.ascontiguousarray(vectors.flatten().to_numpy(zero_copy_only=False)).tobytes())
    return Bits(digest.hexdigest(), labels_of(run) if (run / "labels").exists() else "", _more_of(run))


def _more_of(run: Path) -> str:
    digest = hashlib.sha256()
    for name in ("model/tree.parquet", "sweep.parquet"):
        if (run / name).exists():
            digest.update(repr(pq.read_table(run / name).to_pydict()).encode())  # repr of a float is exact
    if (run / "stats" / "balance.json").exists():
        digest.update((run / "stats" / "balance.json").read_bytes())
    return digest.hexdigest()


def labels_of(run: Path) -> str:
    """Hash the labels of a run: every column over all files, in row order."""
    whole = pa.concat_tables([pq.read_table(path) for path in sorted((run / "labels").glob("*.parquet"))])
    digest = hashlib.sha256()
    for name in whole.column_names:
        column = whole.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            column = column.flatten()
        digest.update(name.encode() + np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


def run_bits(job: AnyJob, emit: Callable[[Event], None] | None = None) -> Bits:
    """Run a job and hash what it left."""
    outcome = RUN[job.kind](job, Session(emit=emit) if emit else None)
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
