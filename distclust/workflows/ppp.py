"""PPP as a job: clusters that validate themselves, soft labels, a report, a model and a manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from distclust.algorithms.ppp import PPPResult, fit_ppp
from distclust.artifacts.codec import decode_object, encode, sha256
from distclust.artifacts.mixture import StoredMixture, save_mixture
from distclust.artifacts.model import Model, save_model
from distclust.artifacts.record import read_run
from distclust.config import PPPJob
from distclust.data.storage import open_storage
from distclust.errors import UsageError
from distclust.ops.members import label_members
from distclust.ops.profile import PreparedData, prepare
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of

MODEL_KIND = "ppp/1"
REPORT = "stats/ppp.json"
"""Verdicts, splits, path, columns and clusterability: what `distclust explain` prints."""


def run_ppp(job: PPPJob, session: Session | None = None) -> JobOutcome:
    """Run PPP as a job, or go on with it, or find it done.

    Parameters
    ----------
    job : PPPJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    DistclustError
        See the subclasses; the run directory keeps the last good state.
    """

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = prepare(
            bench.engine,
            bench.source,
            bench.refs,
            precision="float64",
            on_bad_rows=job.on_bad_rows,
            center="midrange",
        )
        result = fit_ppp(bench.engine, data, job.settings(), bench.run)
        top = min(job.top, len(result.mixture))
        seen = result.fit.data
        stats = bench.labelled(
            lambda sink, done: label_members(bench.engine, seen, result.mixture, top=top, sink=sink, skip=done)
        )
        with bench.clock.stage("write", bench.emit):
            report = result.report()
            bench.run.storage.put(REPORT, encode(report))
            model = _save(job, bench, data, result, stats, top)
        summary = {
            **label_summary(data, stats),
            "ppp": {
                "clusterable": result.clusterable,
                "covariance_type": result.mixture.covariance_type,
                "valid_clusters": sum(verdict.valid for verdict in result.verdicts),
                "stability": result.fit.mean_stability,
                "separable_rows": result.separable_rows,
                "kept_columns": len(result.columns),
                "dimensions": result.fit.data.width,
                "explained_variance": result.projection.explained,
                "outliers": result.far,
                "rounds": result.fit.rounds,
                "levels": result.fit.levels,
                "passes": len(result.fit.passes),
            },
            "history": [vars(entry) for entry in result.fit.passes],
        }
        mixture = result.mixture
        digest = sha256(mixture.weights.tobytes() + mixture.means.tobytes() + mixture.covariances.tobytes())
        digests = {"centers": model.vectors_digest, "mixture": digest, "labels": f"{stats.labels_digest:016x}"}
        return summary, digests

    source = source_of(job, job.weight_column)
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=job.what())


def load_report(output: str) -> dict[str, Any]:
    """Read the report of a finished run.

    Raises
    ------
    UsageError
        There is no run of ppp, or it is not complete.
    """
    storage = open_storage(output)
    try:
        kind = read_run(storage)["kind"]
    except FileNotFoundError:
        raise UsageError(
            "there is no run of distclust here.", where=storage.where(), do="Give the -o of a ppp."
        ) from None
    if kind != MODEL_KIND:
        raise UsageError(
            f"this is a run of {kind.partition('/')[0]}; only those of ppp explain themselves.",
            where=storage.where(),
            do="Give the -o of a ppp.",
        )
    if not storage.exists(REPORT):
        raise UsageError("the run has no report yet.", where=storage.where(), do="Resume it, or wait for its end.")
    return decode_object(storage.read(REPORT), storage.where(REPORT))


def _save(job: PPPJob, bench: Bench, data: PreparedData, result: PPPResult, stats: AssignStats, top: int) -> Model:
    mixture = result.mixture
    stored = StoredMixture(
        mixture.covariance_type, mixture.weights, mixture.means, mixture.covariances, result.projection.axes
    )
    return save_model(
        bench.run.storage,
        kind=MODEL_KIND,
        centers=np.ascontiguousarray(result.centers),
        sizes=stats.counts,
        inertias=stats.inertia.values(),
        center_offset=result.center,
        metric="euclidean",
        parameters={
            **job.what(),
            "top": top,
            "precision": "float64",
            "mixture": save_mixture(bench.run.storage, stored),
            "valid": [verdict.valid for verdict in result.verdicts],
            "rows": int(stats.counts.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
        },
    )
