"""Bisecting k-means as a job: a tree of clusters, labels, a model and a manifest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.bisecting import BisectingResult, fit_bisecting
from distclust.artifacts.codec import sha256
from distclust.artifacts.model import Model, save_model
from distclust.artifacts.tree import StoredTree, save_tree
from distclust.config import BisectJob
from distclust.ops.profile import PreparedData
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of

MODEL_KIND = "bisect/1"


def run_bisect(job: BisectJob, session: Session | None = None) -> JobOutcome:
    """Run a job of bisecting k-means, or go on with it, or find it done.

    Parameters
    ----------
    job : BisectJob
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
        result = fit_bisecting(bench.engine, data, config, bench.run, checkpoint_seconds=job.checkpoint_seconds)
        stats = bench.label(data, result.centers, result.tree if config.labels == "tree" else None)
        with bench.clock.stage("write", bench.emit):
            model = _save(job, bench, data, result, stats)
        summary = {
            **label_summary(data, stats),
            "passes": result.n_iter,
            "depth": _depth(result.parents),
            "history": [vars(entry) for entry in result.history],
        }
        digests = {"centers": model.vectors_digest, "labels": f"{stats.labels_digest:016x}"}
        return summary, digests | {"tree": sha256(result.children.tobytes() + result.inner.tobytes())}

    source = source_of(job, job.weight_column)
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=job.what())


def _save(job: BisectJob, bench: Bench, data: PreparedData, result: BisectingResult, stats: AssignStats) -> Model:
    m = len(result.vectors)
    sizes = np.concatenate([stats.counts, np.zeros(m - 1, np.int64)])
    for node, pair in enumerate(result.children, m):  # children have lower numbers than their parent
        sizes[node] = sizes[pair].sum()
    stored = StoredTree(result.inner, result.children, sizes[m:], result.inertias)
    return save_model(
        bench.run.storage,
        kind=MODEL_KIND,
        centers=result.vectors,
        sizes=stats.counts,
        inertias=stats.inertia.values(),
        center_offset=data.view.center,
        metric=data.metric,
        parent=result.parents[:m] if m > 1 else None,
        parameters={
            **job.what(),
            "passes": result.n_iter,
            "inertia": stats.inertia.total(),
            "rows": int(stats.counts.sum()),
            "column": data.source.columns.vector,
            "columns": list(data.source.columns.features),
            "tree": save_tree(bench.run.storage, stored, result.parents[m:]),
        },
    )


def _depth(parents: npt.NDArray[np.int32]) -> int:
    """Return the most splits between the root and a cluster."""
    depth = np.zeros(len(parents), np.int64)
    for node in range(len(parents) - 2, -1, -1):
        depth[node] = depth[parents[node]] + 1
    return int(depth.max())
