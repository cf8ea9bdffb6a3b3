"""Labels of new rows under a finished model."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from distclust.algorithms.balanced import balanced_assign
from distclust.algorithms.bisecting import tree_of
from distclust.algorithms.vectors import block_centers
from distclust.artifacts.cells import load_cells
from distclust.artifacts.codec import encode
from distclust.artifacts.model import Model, load_model
from distclust.artifacts.tree import load_tree
from distclust.config import AssignJob
from distclust.data.refs import Metric
from distclust.errors import UsageError
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.profile import PreparedData, prepare
from distclust.ops.routing import RoutedCenters
from distclust.ops.top import check_top
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
from distclust.workflows.gmm import label_with_mixture
from distclust.workflows.kmedoids import assign_to_medoids

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
        More nearest centres are asked for than there are, or of a model that labels down its tree, or balanced sizes
        of a mixture.
    """
    model = load_model(job.model)
    job = with_model_columns(job, model)
    if model.kind.startswith("kmedoids"):
        return assign_to_medoids(job, model, session or Session(), kind=RUN_KIND)

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        if _is_mixture(model):
            data, stats = label_with_mixture(bench, model, job)
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
            stats = bench.label(data, centers, None if job.top else _rule(job, model, data, centers), job.top or 0)
            summary = label_summary(data, stats)
        digests = {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}
        if job.top is not None:
            digests["top"] = f"{stats.top_digest:016x}"
        return summary, digests

    source = source_of(job)
    check_width(source, model)
    _check_top(job, model)
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


def _rule(job: AssignJob, model: Model, data: PreparedData, centers: CenterSet) -> LabelRule | None:
    """Return how the model labels rows; None for the nearest centre."""
    how = model.parameters.get("labels")
    if how == "routed":
        cells = block_centers(load_cells(job.model, model.parameters["cells"]), data.offset, data.view.dtype)
        assert model.parent is not None
        starts = np.searchsorted(model.parent, np.arange(len(cells) + 1))
        return RoutedCenters(cells, starts, centers, int(model.parameters["label_probes"]))
    if how != "tree":
        return None
    stored = load_tree(job.model, model.parameters["tree"])
    return tree_of(model.centers, stored.vectors, stored.children, data.offset, data.view.dtype)


def _check_top(job: AssignJob, model: Model) -> None:
    if job.top is None:
        return
    check_top(job.top, len(model.centers))
    if model.parameters.get("labels") == "tree":
        raise UsageError(
            "the model labels rows down its tree, which need not lead to the nearest centre: a row's label would not "
            "be the first of its top centres.",
            where=job.model,
            do="Use a model of kmeans, or of bisect with --labels nearest.",
        )
