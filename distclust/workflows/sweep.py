"""Choosing k: k-means under several k in shared passes; a table, a plot, and a model for each k."""

from __future__ import annotations

import importlib
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distclust.algorithms.sweep import KNEE_DEPTH, Candidate, fit_sweep, knee
from distclust.artifacts.model import save_model
from distclust.config import SweepJob
from distclust.engines.events import Note
from distclust.ops.profile import PreparedData
from distclust.stats.balance import Balance
from distclust.workflows.common import Bench, JobOutcome, Session, run_job, source_of

RUN_KIND = "sweep/1"
MODEL_KIND = "kmeans/1"
TABLE = "sweep.parquet"
SUMMARY = "sweep.json"
PLOT = "sweep.svg"

RULES = {
    "elbow": "the k whose inertia lies farthest below the line from the first to the last k, both axes logarithmic; "
    f"none where that is less than {KNEE_DEPTH} in ln inertia, or with fewer than three k",
    "simplified_silhouette": "the k of the highest mean silhouette by distances to centres",
    "calinski_harabasz": "the k of the highest ratio of dispersion between clusters to that within",
}
"""How each choice is made, for the reader of sweep.json."""


def run_sweep(job: SweepJob, session: Session | None = None) -> JobOutcome:
    """Run k-means with every k of a job, or go on with it, or find it done.

    Parameters
    ----------
    job : SweepJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    DistclustError
        See the subclasses; the run directory keeps the last good state.
    """

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        data = bench.prepare(job.metric, job.precision, job.on_bad_rows)
        configs = [job.settings_for(k) for k in job.n_clusters]
        candidates = fit_sweep(bench.engine, data, configs, bench.run, checkpoint_seconds=job.checkpoint_seconds)
        with bench.clock.stage("write", bench.emit):
            digests = {f"k{one.n_clusters}": _save(job, bench, data, one) for one in candidates}
            summary = _summary(data, candidates, digests)
            _write(bench, summary)
        return summary, digests

    source = source_of(job, job.weight_column)
    return run_job(job, session or Session(), source, work, kind=RUN_KIND, config=job.what(), seed=job.seed)


def _save(job: SweepJob, bench: Bench, data: PreparedData, one: Candidate) -> str:
    """Write the model of one k, as `kmeans` writes it; return the digest of its centres."""
    model = save_model(
        bench.run.storage.child(f"models/k{one.n_clusters}"),
        kind=MODEL_KIND,
        centers=one.result.vectors,
        sizes=one.clusters.rows,
        inertias=one.clusters.inertia.values(),
        center_offset=data.view.center,
        metric=data.metric,
        parameters={
            **job.what(),
            "n_clusters": one.n_clusters,
            "iterations": one.result.n_iter,
            "converged": one.result.converged,
            "inertia": one.inertia,
            "rows": int(one.clusters.rows.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
        },
    )
    return model.vectors_digest


def _summary(data: PreparedData, candidates: list[Candidate], digests: dict[str, str]) -> dict[str, Any]:
    rows = [_row(one, digests[f"k{one.n_clusters}"]) for one in candidates]
    ks = [row["k"] for row in rows]
    return {
        "rows": data.moments.n_rows,
        "bad_rows": data.n_bad,
        "dimensions": data.width,
        "candidates": rows,
        "best": {
            "elbow": knee(ks, [row["inertia"] for row in rows]),
            **{name: _highest(rows, name) for name in ("simplified_silhouette", "calinski_harabasz")},
        },
    }


def _row(one: Candidate, digest: str) -> dict[str, Any]:
    rows = one.clusters.rows
    balance = Balance.of(rows)
    return {
        "k": one.n_clusters,
        "clusters": len(rows),
        "inertia": one.inertia,
        "simplified_silhouette": one.simplified_silhouette,
        "calinski_harabasz": one.calinski_harabasz,
        "iterations": one.result.n_iter,
        "converged": one.result.converged,
        "largest_cluster": int(rows.max()),
        "smallest_cluster": int(rows.min()),
        "empty_clusters": balance.empty,
        "max_share": balance.max_share,
        "gini": balance.gini,
        "centers": digest,
        "model": f"models/k{one.n_clusters}",
    }


def _highest(rows: list[dict[str, Any]], name: str) -> int | None:
    scored = [row for row in rows if row[name] is not None]
    return max(scored, key=lambda row: row[name])["k"] if scored else None


def _write(bench: Bench, summary: dict[str, Any]) -> None:
    storage = bench.run.storage
    buffer = io.BytesIO()
    pq.write_table(_table(summary["candidates"]), buffer, compression="zstd")
    storage.put(TABLE, buffer.getvalue())
    storage.put(SUMMARY, json.dumps({**summary, "rules": RULES}, indent=2).encode() + b"\n")
    drawn = _plot(summary, bench)
    summary["plot"] = PLOT if drawn is not None else None
    if drawn is not None:
        storage.put(PLOT, drawn)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {"simplified_silhouette": pa.float64(), "calinski_harabasz": pa.float64()}  # a single k = 1 has but nulls
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]})


def _plot(summary: dict[str, Any], bench: Bench) -> bytes | None:
    """Draw the scores, where the extra for reports is installed."""
    try:
        plots = importlib.import_module("distclust.workflows.plots")
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != "matplotlib":
            raise
        bench.emit(Note(message='No plot was drawn: that needs matplotlib, pip install "distclust[report]".'))
        return None
    drawn: bytes = plots.draw_sweep(summary["candidates"], summary["best"])
    return drawn
