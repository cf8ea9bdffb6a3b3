"""The main job: cluster a dataset, label it, leave a model and a manifest."""

from __future__ import annotations

from typing import Any

from distclust.algorithms.kmeans import KMeansResult, fit_kmeans
from distclust.algorithms.two_level import TwoLevelResult, clear_work, fit_two_level, is_two_level
from distclust.artifacts.cells import save_cells
from distclust.artifacts.model import Model, save_model
from distclust.config import KMeansJob
from distclust.ops.centers import LabelRule
from distclust.ops.profile import PreparedData
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of

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
    DistclustError
        See the subclasses; the run directory keeps the last good state.
    """

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = bench.prepare(job.metric, job.precision, job.on_bad_rows)
        config = job.settings()
        fit = fit_two_level if is_two_level(config) else fit_kmeans
        result = fit(bench.engine, data, config, bench.run, checkpoint_seconds=job.checkpoint_seconds)
        stats = bench.label(data, result.centers, _rule(result))
        with bench.clock.stage("write", bench.emit):
            model = _save(job, bench, data, result, stats)
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
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=job.what(), seed=job.seed)


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


def _save(job: KMeansJob, bench: Bench, data: PreparedData, result: KMeansResult, stats: AssignStats) -> Model:
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
            **job.what(),
            **levels,
            "iterations": result.n_iter,
            "converged": result.converged,
            "inertia": stats.inertia.total(),
            "rows": int(stats.counts.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
        },
    )
