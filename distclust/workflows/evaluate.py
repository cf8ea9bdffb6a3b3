"""Scores of a finished run on the rows that it labelled."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.algorithms.vectors import block_centers
from distclust.artifacts.model import Model, load_model
from distclust.artifacts.record import MANIFEST, RUN, read_manifest, read_run
from distclust.config import EvaluateJob
from distclust.data.decode import column_type
from distclust.data.node import NodeConfig
from distclust.data.sources import Source, open_source
from distclust.data.storage import Storage, open_storage
from distclust.engines.open import open_engine
from distclust.engines.protocol import EngineOptions
from distclust.errors import DataError, StorageError, UsageError
from distclust.ops.evaluate import Evaluation, evaluate
from distclust.ops.labels import ClassColumn, WrittenLabels
from distclust.ops.profile import partition_bytes, plan, prepare
from distclust.workflows.common import MAPPED_SHARE, Session

SCORES = "evaluation.json"
CLUSTERS = "clusters.parquet"

_SHOWN_FILES = 3


@dataclass(frozen=True)
class RunScores:
    """Scores of a run.

    Attributes
    ----------
    run : str
        Run directory.
    kind : str
        Of the run, such as ``kmeans/1``.
    metric : {"euclidean", "cosine"}
    dimensions, bad_rows : int
    truth : str or None
        Column that the labels were compared with.
    evaluation : Evaluation
    seconds : float
    """

    run: str
    kind: str
    metric: str
    dimensions: int
    bad_rows: int
    truth: str | None
    evaluation: Evaluation
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        found = self.evaluation
        clusters = found.clusters
        return {
            "run": self.run,
            "kind": self.kind,
            "metric": self.metric,
            "rows": int(clusters.rows.sum()),
            "bad_rows": self.bad_rows,
            "dimensions": self.dimensions,
            "clusters": len(clusters.rows),
            "inertia": found.inertia,
            "silhouette": found.silhouette,
            "simplified_silhouette": found.simplified_silhouette,
            "davies_bouldin": found.davies_bouldin,
            "calinski_harabasz": found.calinski_harabasz,
            "balance": {"rows": asdict(found.rows), "weight": asdict(found.weights)},
            "truth": None if found.agreement is None else {"column": self.truth, **asdict(found.agreement)},
            "seconds": self.seconds,
        }

    def clusters_table(self) -> pa.Table:
        """Return a row for each cluster: rows, weight, inertia, mean silhouettes (null without weight)."""
        found, clusters = self.evaluation, self.evaluation.clusters
        return pa.table(
            {
                "cluster": np.arange(len(clusters.rows), dtype=np.int32),
                "rows": clusters.rows,
                "weight": clusters.weights,
                "inertia": clusters.inertia.values(),
                "silhouette": pa.array(found.silhouettes, from_pandas=True),
                "simplified_silhouette": pa.array(found.simplified_silhouettes, from_pandas=True),
            }
        )


def run_evaluate(job: EvaluateJob, session: Session | None = None) -> RunScores:
    """Score the labels that a run wrote, on the rows that it read; writes only where the job has an output.

    Parameters
    ----------
    job : EvaluateJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    UsageError
        No complete run with labels; no such truth column.
    DataError
        The rows are not those that were labelled.
    StorageError
        The model of an assignment is another one now.
    """
    session = session or Session()
    started = time.perf_counter()
    storage = open_storage(job.run)
    record = _complete_run(storage)
    model = _model_of(storage, record)
    _check_metric(model, storage)
    if model.parameters.get("mixture", {}).get("projection_digest"):
        raise UsageError(
            "the run projected its rows (zscore, pca); labels of projected rows cannot be scored.",
            where=job.run,
            do="Score a run without --zscore and --pca.",
        )
    source = _source_of(job, record)
    if job.truth is not None:
        column_type(source.files[0].uri, source.files[0].format, job.truth, "the truth column")
    labels = WrittenLabels.of_run(storage, model.metric, len(model.centers))  # type: ignore[arg-type]
    _check_rows(source, record, labels, moved=bool(job.data))
    node = NodeConfig(scratch=job.scratch, memory_bytes=None if job.memory is None else job.memory // MAPPED_SHARE)
    engine = open_engine(job.engine, EngineOptions(emit=session.emit, cancel=session.cancel, node=node))
    try:
        data = prepare(
            engine,
            source,
            plan(engine, source, job.target_bytes or partition_bytes(engine, job.memory)),
            metric=labels.metric,
            precision="float64",  # float32 rows would leave seven digits of the scores
            on_bad_rows=record["config"]["on_bad_rows"],
            center=model.center_offset,
        )
        centers = block_centers(model.centers, data.offset, data.view.dtype)
        classes = None if job.truth is None else ClassColumn(job.truth)
        found = evaluate(engine, data, labels, centers, classes=classes)
    finally:
        engine.close()
    seconds = round(time.perf_counter() - started, 3)
    scores = RunScores(job.run, record["kind"], model.metric, data.width, data.n_bad, job.truth, found, seconds)
    if job.output is not None:
        _write(open_storage(job.output), scores)
    return scores


def _complete_run(storage: Storage) -> dict[str, Any]:
    if not storage.exists(RUN):
        raise UsageError(
            f"there is no run of distclust here: {RUN} is missing.", where=storage.where(), do="Give the -o of a run."
        )
    if not storage.exists(MANIFEST):
        raise UsageError("the run is not complete.", where=storage.where(), do="Resume it first, or wait for its end.")
    if not read_manifest(storage)["commits"].get("labels", {}).get("files"):
        raise UsageError(
            f"a run of kind {read_run(storage)['kind']!r} has no labels.",
            where=storage.where(),
            do="Give the run directory of kmeans or assign.",
        )
    record = read_run(storage)
    if record["config"].get("mass", 1.0) < 1:
        raise UsageError(
            f"the run left rows without a cluster (mass {record['config']['mass']}); scores need a cluster for each.",
            where=storage.where(),
            do="Assign all rows, or evaluate the run that the model is of.",
        )
    return record


def _model_of(storage: Storage, record: dict[str, Any]) -> Model:
    """Return the model that the labels refer to: the run's own, or the one that an assignment was given."""
    given = record["how"].get("model")
    model = load_model(storage if given is None else given)
    wanted = record["config"].get("model", model.vectors_digest)
    if model.vectors_digest != wanted:
        raise StorageError(
            "the model is another one than that which the labels were found with.",
            where=str(given),
            do="Assign the rows again.",
        )
    return model


def _check_metric(model: Model, storage: Storage) -> None:
    """Refuse runs of k-medoids whose dissimilarity is not the one that the scores are made of."""
    if model.kind.startswith("kmedoids") and model.metric != "euclidean":
        raise UsageError(
            f"the scores are of squared Euclidean distances, the run's metric is {model.metric!r}.",
            where=storage.where(),
            do="Its loss and its medoid silhouette are in its summary: distclust inspect.",
        )


def _source_of(job: EvaluateJob, record: dict[str, Any]) -> Source:
    columns = record["inputs"]["columns"]
    return open_source(
        list(job.data) or [file["uri"] for file in record["inputs"]["files"]],
        column=columns["vector"],
        columns=tuple(columns["features"]),
        weight_column=columns["weight"],
    )


def _check_rows(source: Source, record: dict[str, Any], labels: WrittenLabels, *, moved: bool) -> None:
    """Refuse rows that cannot be the labelled ones; `WrittenLabels.check` compares the rest, row by row."""
    width = record["inputs"]["width"]
    if (source.n_rows, source.width) != (labels.n_rows, width):
        raise DataError(
            f"{source.n_rows} rows of {source.width} values; the run labelled {labels.n_rows} rows of {width}.",
            where=source.describe_place(),
            do="Name the rows that the run read with --data.",
        )
    if moved:
        return
    before = {file["uri"]: file for file in record["inputs"]["files"]}
    changed = [file["uri"] for file in source.describe()["files"] if file != before.get(file["uri"])]
    if changed:
        shown = ", ".join(changed[:_SHOWN_FILES]) + (", ..." if len(changed) > _SHOWN_FILES else "")
        raise DataError(
            f"{len(changed)} file(s) changed since the run read them: {shown}.",
            where=source.describe_place(),
            do="Name the rows with --data if they are the same; every row's distance is compared with its label file.",
        )


def _write(storage: Storage, scores: RunScores) -> None:
    buffer = io.BytesIO()
    pq.write_table(scores.clusters_table(), buffer, compression="zstd")
    storage.put(CLUSTERS, buffer.getvalue())
    storage.put(SCORES, json.dumps(scores.as_dict(), indent=2).encode() + b"\n")
