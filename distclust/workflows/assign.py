"""Labels of new rows under a finished model."""

from __future__ import annotations

from typing import Any, cast

from distclust.algorithms.balanced import balanced_assign
from distclust.algorithms.bisecting import tree_of
from distclust.algorithms.kmeans import block_centers
from distclust.artifacts.codec import encode
from distclust.artifacts.model import Model, load_model
from distclust.artifacts.tree import load_tree
from distclust.config import AssignJob
from distclust.data.refs import Metric
from distclust.data.sources import Source
from distclust.errors import DataError, UsageError
from distclust.ops.centers import LabelRule
from distclust.ops.profile import PreparedData, prepare
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of
from distclust.workflows.gmm import label_with_mixture

RUN_KIND = "assign/1"
BALANCE = "stats/balance.json"
"""Sizes and cost of a balanced assignment."""


def run_assign(job: AssignJob, session: Session | None = None) -> JobOutcome:
    """Label a dataset with a model; each file of labels is committed, then the manifest.

    Parameters
    ----------
    job : AssignJob
        Columns that it leaves open are those the model was fitted on.
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    DataError
        The dataset has another width than the model.
    UsageError
        Balanced sizes are asked of a mixture.
    """
    model = load_model(job.model)
    job = _with_model_columns(job, model)

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        if _is_mixture(model):
            data, stats = label_with_mixture(bench, model, job.model, job.on_bad_rows)
            digests = {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}
            return {**label_summary(data, stats), "dimensions": bench.source.width}, digests
        precision = model.parameters.get("precision", "float32")
        data = prepare(
            bench.engine,
            bench.source,
            bench.refs,
            metric=cast(Metric, model.metric),
            precision=precision,
            on_bad_rows=job.on_bad_rows,
            center=model.center_offset,
        )
        centers = block_centers(model.centers, data.offset, precision)
        if job.balanced:
            balance = balanced_assign(bench.engine, data, centers, job.settings(model.sizes), bench.run)
            stats = bench.label(data, centers, balance.rule)
            report = balance.report(stats).as_dict()
            bench.run.storage.put(BALANCE, encode(report))
            summary = {**label_summary(data, stats), "balance": report}
        else:
            stats = bench.label(data, centers, _rule(job, model, data))
            summary = label_summary(data, stats)
        return summary, {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}

    source = source_of(job)
    _check_width(source, model)
    if job.balanced and _is_mixture(model):
        raise UsageError(
            "a mixture labels rows by probability: balanced sizes are for models with centres alone.",
            where=job.model,
            do="Use a model of kmeans or bisect.",
        )
    config = {**job.what(), "model": model.vectors_digest}
    return run_job(job, session or Session(), source, work, kind=RUN_KIND, config=config)


def _is_mixture(model: Model) -> bool:
    return model.kind.partition("/")[0] in ("gmm", "ppp")


def _with_model_columns(job: AssignJob, model: Model) -> AssignJob:
    if job.column or job.columns:
        return job
    update = {"column": model.parameters.get("column"), "columns": tuple(model.parameters.get("columns", ()))}
    return job.model_copy(update=update)


def _rule(job: AssignJob, model: Model, data: PreparedData) -> LabelRule | None:
    """Return how the model labels rows; None for the nearest centre."""
    if model.parameters.get("labels") != "tree":
        return None
    stored = load_tree(job.model, model.parameters["tree"])
    return tree_of(model.centers, stored.vectors, stored.children, data.offset, data.view.dtype)


def _check_width(source: Source, model: Model) -> None:
    width = model.centers.shape[1]
    if source.width != width:
        raise DataError(
            f"the rows have {source.width} values, the model's centres have {width}.",
            where=source.describe_place(),
            do="Embed the rows as those that the model was fitted on, or name another column.",
        )
