"""k-medoids as a job: medoids, labels, a model and a manifest; labels of new rows by such a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distclust.algorithms.kmedoids import KMedoidsResult, fit_kmedoids
from distclust.artifacts.medoids import save_medoids
from distclust.artifacts.model import Model, save_model
from distclust.config import AssignJob, KMedoidsJob
from distclust.data.categories import Encoding
from distclust.data.encoding import decode_columns
from distclust.data.sources import Source
from distclust.errors import DataError, UsageError
from distclust.ops.measured import MIXED_METRIC, MeasuredData, measure_rows
from distclust.ops.medoids import MedoidSet, ids_of_rows, label_by_medoids
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of

MODEL_KIND = "kmedoids/1"


def run_kmedoids(job: KMedoidsJob, session: Session | None = None) -> JobOutcome:
    """Run a job of k-medoids, or go on with it, or find it done.

    Parameters
    ----------
    job : KMedoidsJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    DistclustError
        See the subclasses; the run directory keeps the last good state.
    """

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = measure_rows(bench.engine, bench.source, bench.refs, metric=job.metric, on_bad_rows=job.on_bad_rows)
        result = fit_kmedoids(bench.engine, data, job.settings(), bench.run, checkpoint_seconds=job.checkpoint_seconds)
        stats = _label(bench, data, result.medoids)
        with bench.clock.stage("write", bench.emit):
            model = _save(job, bench, data, result, stats)
        summary = {
            **label_summary(data, stats),
            "medoid_silhouette": result.silhouette,
            "method": result.method,
            "swaps": result.n_swaps,
            "passes": result.n_iter,
            "sets": [vars(one) for one in result.candidates],
            "history": [vars(entry) for entry in result.history],
            "choices": [vars(one) for one in result.choices],
        }
        return summary, {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}

    source = source_of(job, job.weight_column, mixed=job.metric == MIXED_METRIC, categorical=job.categorical)
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=job.what(), seed=job.seed)


def _label(bench: Bench, data: MeasuredData, medoids: MedoidSet) -> AssignStats:
    return bench.labelled(lambda sink, done: label_by_medoids(bench.engine, data, medoids, sink=sink, skip=done))


def _save(job: KMedoidsJob, bench: Bench, data: MeasuredData, result: KMedoidsResult, stats: AssignStats) -> Model:
    encoding = data.view.encoding
    mixed = {} if encoding is None else {"encoding": encoding.as_dict(), "ranges": data.measure.ranges.tolist()}
    return save_model(
        bench.run.storage,
        kind=MODEL_KIND,
        centers=result.rows,
        sizes=stats.counts,
        inertias=stats.inertia.values(),
        metric=job.metric,
        parameters={
            **job.what(),
            "k": len(result.row_ids),
            "passes": result.n_iter,
            "loss": stats.inertia.total(),
            "medoid_silhouette": result.silhouette,
            "rows": int(stats.counts.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
            "medoids": save_medoids(bench.run.storage, _medoid_table(bench, data, result)),
            **mixed,
        },
    )


def _medoid_table(bench: Bench, data: MeasuredData, result: KMedoidsResult) -> pa.Table:
    """Return where the medoids come from, their ids, and their values where the columns have names."""
    files, rows = _places(data.source, result.row_ids)
    columns: dict[str, Any] = {
        "cluster": np.arange(len(result.row_ids), dtype=np.int32),
        "row_id": result.row_ids,
        "file": files,
        "file_row": rows,
    }
    names = data.source.columns
    if names.id is not None:
        columns[names.id] = ids_of_rows(bench.engine, data.pinned, result.row_ids)
    if data.view.encoding is not None:
        decoded = decode_columns(data.view.encoding, result.rows)
        columns |= {name: decoded.column(name) for name in decoded.column_names if name not in columns}
    else:
        columns |= {name: result.rows[:, at] for at, name in enumerate(names.features) if name not in columns}
    return pa.table(columns)


def _places(source: Source, row_ids: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the file of each row, and its place in it."""
    starts = np.cumsum([0, *(file.n_rows for file in source.files)])
    at = np.searchsorted(starts, row_ids, side="right") - 1
    return [source.files[i].uri for i in at], row_ids - starts[at]


def assign_to_medoids(job: AssignJob, model: Model, session: Session, *, kind: str) -> JobOutcome:
    """Label a dataset by the medoids of a model.

    Parameters
    ----------
    job : AssignJob
        With the model's columns.
    model : Model
        Of kind ``kmedoids``.
    session : Session
    kind : str
        Of the run.

    Raises
    ------
    UsageError
        Balanced labels or lists of nearest centres were asked for.
    DataError
        The dataset has another width than the model.
    """
    if job.balanced:
        raise UsageError(
            "balanced assignment weighs squared distances to means; the model is one of k-medoids.",
            where=job.model,
            do="Leave out --balanced, or fit k-means.",
        )
    if job.top is not None:
        raise UsageError(
            "lists of nearest centres are of distances to means; the model is one of k-medoids.",
            where=job.model,
            do="Leave out --top, or fit k-means.",
        )
    parameters = model.parameters
    mixed = model.metric == MIXED_METRIC
    known = None
    if mixed:
        known = Encoding.from_dict(parameters["encoding"]), np.array(parameters["ranges"], np.float64)

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = measure_rows(
            bench.engine, bench.source, bench.refs, metric=model.metric, on_bad_rows=job.on_bad_rows, known=known
        )
        stats = _label(bench, data, MedoidSet(model.centers, data.measure))
        digests = {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}
        return label_summary(data, stats), digests

    source = source_of(job, mixed=mixed, categorical=parameters.get("categorical", ()))
    if known is not None and source.columns.features != known[0].names:
        raise UsageError(
            f"columns are {list(source.columns.features)}, the model was fitted on {list(known[0].names)}.",
            do="Leave out --columns.",
        )
    if source.width != model.centers.shape[1]:
        raise DataError(
            f"the rows have {source.width} values, the model's medoids have {model.centers.shape[1]}.",
            where=source.describe_place(),
            do="Encode the rows as those that the model was fitted on, or name another column.",
        )
    config = {**job.what(), "model": model.vectors_digest}
    return run_job(job, session, source, work, kind=kind, config=config)
