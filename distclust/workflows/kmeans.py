"""The main job: cluster a dataset, label it, leave a model and a manifest."""

from __future__ import annotations

from typing import Any

from distclust.algorithms.kmeans import KMeansResult, fit_kmeans
from distclust.algorithms.two_level import TwoLevelResult, clear_work, fit_two_level, is_two_level
from distclust.artifacts.cells import save_cells
from distclust.artifacts.model import Model, check_metric, load_model, save_model
from distclust.config import KMeansJob
from distclust.errors import UsageError
from distclust.ops.centers import LabelRule
from distclust.ops.profile import PreparedData
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import (
    Bench,
    JobOutcome,
    Session,
    check_width,
    label_summary,
    run_job,
    source_of,
    with_model_columns,
)

MODEL_KIND = "kmeans/1"


def run_kmeans(job: KMeansJob, session: Session | None = None) -> JobOutcome:
    """Run a k-means job, or go on with it, or find it done.

    Parameters
    ----------
    job : KMeansJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    UsageError
        The model to start from has another metric, or another number of clusters than ``k``.
    DistclustError
        See the other subclasses; the run directory keeps the last good state.
    """
    start = None if job.warm_start is None else load_model(job.warm_start)
    if start is not None:
        job = _started(job, start)
    settings = job.settings(None if start is None else start.centers)
    config = job.what() if start is None else {**job.what(), "warm_start": start.vectors_digest}

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = bench.prepare(job.metric, job.precision, job.on_bad_rows)
        fit = fit_two_level if is_two_level(settings) else fit_kmeans
        result = fit(bench.engine, data, settings, bench.run, checkpoint_seconds=job.checkpoint_seconds)
        stats = bench.label(data, result.centers, _rule(result))
        with bench.clock.stage("write", bench.emit):
            model = _save(config, bench, data, result, stats)
            clear_work(bench.run.storage)
        summary = {
            **_levels(result),
            **label_summary(data, stats),
            "iterations": result.n_iter,
            "converged": result.converged,
            "history": [vars(entry) for entry in result.history],
        }
        return summary, {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}

    source = source_of(job, job.weight_column)
    if start is not None:
        check_width(source, start)
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=config, seed=job.seed)


def _started(job: KMeansJob, start: Model) -> KMeansJob:
    """Return a job with the number of clusters and the columns of the model that it starts from."""
    assert job.warm_start is not None
    check_metric(start, job.metric, job.warm_start)
    k = len(start.centers)
    if job.n_clusters not in (None, k):
        raise UsageError(
            f"k == {job.n_clusters}, but the model to start from has {k} clusters.",
            where=job.warm_start,
            do="Leave out k, or start from another model.",
        )
    return with_model_columns(job.model_copy(update={"n_clusters": k}), start)


def _rule(result: KMeansResult) -> LabelRule | None:
    return result.rule if isinstance(result, TwoLevelResult) else None


def _levels(result: KMeansResult) -> dict[str, Any]:
    """Return what a fit in two levels says of itself; nothing of another one."""
    if not isinstance(result, TwoLevelResult):
        return {}
    routed = {} if result.rule is None else {"label_probes": result.rule.probes}
    return {
        "strategy": "two-level",
        "n_cells": len(result.cells),
        "labels": "nearest" if result.rule is None else "routed",
        "label_exact_share": result.exact_share,
        **routed,
    }


def _save(config: dict[str, Any], bench: Bench, data: PreparedData, result: KMeansResult, stats: AssignStats) -> Model:
    levels: dict[str, Any] = {}
    parents = None
    if isinstance(result, TwoLevelResult):
        parents = result.parents
        levels = {**_levels(result), "cells": save_cells(bench.run.storage, result.cells, parents)}
    return save_model(
        bench.run.storage,
        kind=MODEL_KIND,
        centers=result.vectors,
        sizes=stats.counts,
        inertias=stats.inertia.values(),
        center_offset=data.view.center,
        metric=data.metric,
        parent=parents,
        parameters={
            **config,
            **levels,
            "iterations": result.n_iter,
            "converged": result.converged,
            "inertia": stats.inertia.total(),
            "rows": int(stats.counts.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
        },
    )
