"""The demonstration from start to end: gather, embed, write, cluster by the main job, name the clusters."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.cli.demo.documents import Document, gather_documents, python_directories
from distclust.cli.demo.vectors import WIDTH, embed, telling_words
from distclust.cli.session import run_shown
from distclust.cli.text import count_text, seconds_text
from distclust.config import KMeansJob
from distclust.data.storage import open_storage
from distclust.errors import UsageError
from distclust.workflows.common import JobOutcome

DOCUMENTS_FILE = "documents.parquet"
RUN_DIRECTORY = "run"
_ROW_GROUP = 5_000
_WORDS = 6
_NEAREST = 3


@dataclass(frozen=True)
class Nearest:
    """A document near the centre of its cluster."""

    name: str
    title: str
    distance: float


@dataclass(frozen=True)
class NamedCluster:
    """A cluster as people can read it."""

    cluster: int
    size: int
    words: list[str]
    nearest: list[Nearest]


@dataclass(frozen=True)
class Demo:
    """What the demonstration leaves.

    Attributes
    ----------
    documents : str
        Parquet file: id, name, text, embedding.
    outcome : JobOutcome
        Of the main job.
    clusters : list of NamedCluster
        The largest first.
    """

    documents: str
    outcome: JobOutcome
    clusters: list[NamedCluster]

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {"documents": self.documents, "clusters": [asdict(cluster) for cluster in self.clusters]}


def run_demo(
    directory: str | None, *, n_clusters: int, limit: int, overwrite: bool, say: Callable[[str], None]
) -> Demo:
    """Cluster the docstrings of this machine's Python.

    Parameters
    ----------
    directory : str or None
        Where documents and run go; None for a new temporary directory.
    n_clusters : int
    limit : int
        Most documents.
    overwrite : bool
        Replace a run of other settings.
    say : callable
        Takes a line of progress.

    Raises
    ------
    UsageError
        Fewer documents than clusters.
    """
    started = time.perf_counter()
    documents = gather_documents(python_directories(), limit)
    say(f"gather    {count_text(len(documents))} docstrings  {seconds_text(time.perf_counter() - started)}")
    started = time.perf_counter()
    vectors = embed([document.text for document in documents])
    # Nothing but stop words is left of a few texts: no direction.
    used = np.flatnonzero(vectors.any(axis=1))
    documents, vectors = [documents[i] for i in used], vectors[used]
    say(f"embed     {WIDTH} dimensions  {seconds_text(time.perf_counter() - started)}")
    if len(documents) < n_clusters:
        raise UsageError(f"{len(documents)} documents are too few for {n_clusters} clusters.", do="Lower -k.")
    place = Path(directory or tempfile.mkdtemp(prefix="distclust-demo-")).absolute()
    path = _write(place, documents, vectors)
    outcome = run_shown(_job(path, place / RUN_DIRECTORY, n_clusters, overwrite))
    return Demo(str(path), outcome, _named(documents, place / RUN_DIRECTORY, outcome.summary["clusters"]))


def _write(place: Path, documents: list[Document], vectors: npt.NDArray[np.float32]) -> Path:
    """Write the documents; a file that is there with the same content stays, so that a finished run stays valid."""
    flat = pa.array(vectors.reshape(-1))
    table = pa.table(
        {
            "id": pa.array(range(len(documents)), pa.int64()),
            "name": [document.name for document in documents],
            "text": [document.text for document in documents],
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=_ROW_GROUP)
    path = place / DOCUMENTS_FILE
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        open_storage(place).put(DOCUMENTS_FILE, buffer.getvalue())
    return path


def _job(path: Path, output: Path, n_clusters: int, overwrite: bool) -> KMeansJob:
    return KMeansJob(
        data=(str(path),),
        column="embedding",
        id_column="id",
        metric="cosine",
        k=n_clusters,
        output=str(output),
        allow_fewer=True,
        overwrite=overwrite,
    )


def _named(documents: list[Document], run: Path, n_clusters: int) -> list[NamedCluster]:
    """Read the labels as any user would, and name the clusters."""
    labels = pq.read_table(run / "labels")
    clusters = np.empty(len(documents), np.int32)
    distances = np.empty(len(documents), np.float32)
    ids = labels.column("id").to_numpy()
    clusters[ids] = labels.column("cluster").to_numpy()
    distances[ids] = labels.column("distance").to_numpy()
    words = telling_words([document.text for document in documents], clusters, n_clusters, _WORDS)
    found = []
    for cluster in range(n_clusters):
        members = np.flatnonzero(clusters == cluster)
        near = members[np.argsort(distances[members], kind="stable")[:_NEAREST]]
        nearest = [Nearest(documents[i].name, documents[i].title, round(float(distances[i]), 4)) for i in near]
        found.append(NamedCluster(cluster, len(members), words[cluster], nearest))
    return sorted(found, key=lambda one: (-one.size, one.cluster))
