"""A Gaussian mixture as a job: components, soft labels, a model and a manifest."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from distclust.algorithms.mixture import MixtureResult, criteria_of, fit_mixture
from distclust.artifacts.codec import sha256
from distclust.artifacts.mixture import StoredMixture, load_mixture, save_mixture
from distclust.artifacts.model import Model, save_model
from distclust.config import AssignJob, GMMJob
from distclust.ops.members import label_members
from distclust.ops.mixture import Mixture, expectation, grid_of
from distclust.ops.profile import PreparedData, prepare, projected
from distclust.ops.whiten import Projection, projection_of
from distclust.stats.codec import arrays_from_bytes, arrays_to_bytes
from distclust.stats.covariance import CovarianceType
from distclust.stats.gaussian import GaussianStats
from distclust.stats.lloyd import AssignStats
from distclust.workflows.common import Bench, JobOutcome, Session, label_summary, run_job, source_of

MODEL_KIND = "gmm/1"
PROJECTION = "stats/projection.npz"
"""Axes of the run, kept when they are found: a resume uses these bits."""
STATS = "stats/mixture.npz"
"""Statistics of all rows under the model: those of further rows can be merged."""


def run_gmm(job: GMMJob, session: Session | None = None) -> JobOutcome:
    """Fit a Gaussian mixture as a job, or go on with it, or find it done.

    Parameters
    ----------
    job : GMMJob
    session : Session, optional
        Events and cancel token.

    Raises
    ------
    DistclustError
        See the subclasses; the run directory keeps the last good state.
    """

    def work(bench: Bench) -> tuple[dict[str, Any], dict[str, str]]:
        plain = bench.prepare("euclidean", job.precision, job.on_bad_rows)
        projection = _projection(job, bench, plain)
        data = plain if projection is None else projected(bench.engine, plain, projection.axes)
        config = job.settings(plain.moments.n_rows, data.width)
        result = fit_mixture(bench.engine, data, config, bench.run, checkpoint_seconds=job.checkpoint_seconds)
        # What is labelled with is what is stored: rows get from the model what they get from the run.
        means = result.mixture.means + data.offset
        mixture = replaced_means(result.mixture, means - data.offset)
        totals = expectation(bench.engine, data.pinned, mixture, grid_of(data), label="score")
        bench.run.storage.put(STATS, totals.to_bytes())
        stats = bench.labelled(
            lambda sink, done: label_members(bench.engine, data, mixture, top=job.top, sink=sink, skip=done)
        )
        with bench.clock.stage("write", bench.emit):
            model = _Saved(job, bench, plain, data, projection).save(result, means, stats)
        summary = {
            **label_summary(plain, stats),
            **_fit_summary(data, result, mixture, totals),
            "projection": None if projection is None else _projection_summary(job, plain, projection),
            "iterations": result.n_iter,
            "converged": result.converged,
            "history": [vars(entry) for entry in result.history],
        }
        digest = sha256(result.mixture.weights.tobytes() + means.tobytes() + result.mixture.covariances.tobytes())
        digests = {"centers": model.vectors_digest, "mixture": digest, "labels": f"{stats.labels_digest:016x}"}
        return summary, digests

    source = source_of(job, job.weight_column)
    return run_job(job, session or Session(), source, work, kind=MODEL_KIND, config=job.what(), seed=job.seed)


def replaced_means(mixture: Mixture, means: npt.NDArray[np.float64]) -> Mixture:
    """Return a mixture with other means."""
    return Mixture(mixture.covariance_type, mixture.weights, means, mixture.covariances)


def label_with_mixture(bench: Bench, model: Model, job: AssignJob) -> tuple[PreparedData, AssignStats]:
    """Label the rows of a job with the mixture of its model; without ``top``, it lists as many components as there."""
    stored = load_mixture(job.model, model.parameters["mixture"])
    data = prepare(
        bench.engine,
        bench.source,
        bench.refs,
        precision=model.parameters["precision"],
        on_bad_rows=job.on_bad_rows,
        center=model.center_offset,
        axes=stored.axes,
    )
    kind = cast(CovarianceType, stored.covariance_type)
    mixture = Mixture(kind, stored.weights, stored.means - data.offset, stored.covariances)
    top = int(model.parameters["top"]) if job.top is None else job.top
    stats = bench.labelled(lambda sink, done: label_members(bench.engine, data, mixture, top=top, sink=sink, skip=done))
    return data, stats


class _Saved:
    """The model of a run, as it is written."""

    def __init__(
        self, job: GMMJob, bench: Bench, plain: PreparedData, data: PreparedData, projection: Projection | None
    ) -> None:
        self._job, self._bench, self._plain, self._data, self._projection = job, bench, plain, data, projection

    def save(self, result: MixtureResult, means: npt.NDArray[np.float64], stats: AssignStats) -> Model:
        """Write mixture and model; centres are the means as they lie among the source's rows."""
        job, plain, projection, mixture = self._job, self._plain, self._projection, result.mixture
        axes = None if projection is None else projection.axes
        stored = StoredMixture(mixture.covariance_type, mixture.weights, means, mixture.covariances, axes)
        centers = means if projection is None else projection.backward(means) + plain.offset
        return save_model(
            self._bench.run.storage,
            kind=MODEL_KIND,
            centers=np.ascontiguousarray(centers),
            sizes=stats.counts,
            inertias=stats.inertia.values(),
            center_offset=plain.view.center,
            metric="euclidean",
            parameters={
                **job.what(),
                "mixture": save_mixture(self._bench.run.storage, stored),
                "iterations": result.n_iter,
                "converged": result.converged,
                "reg_covar_used": result.reg_covar,
                "rows": int(stats.counts.sum()),
                "column": plain.source.columns.vector,
                "columns": list(plain.source.columns.features),
            },
        )


def _projection(job: GMMJob, bench: Bench, data: PreparedData) -> Projection | None:
    if not job.zscore and job.pca is None:
        return None
    storage = bench.run.storage
    if not storage.exists(PROJECTION):
        found = projection_of(bench.engine, data, zscore=job.zscore, pca=job.pca)
        arrays: dict[str, npt.ArrayLike] = {
            "scale": found.scale,
            "stretch": found.stretch,
            "explained": np.float64(found.explained),
        }
        if found.vectors is not None:
            arrays["vectors"] = found.vectors
        storage.put_if_absent(PROJECTION, arrays_to_bytes("projection/1", arrays))
    kept: dict[str, Any] = dict(arrays_from_bytes("projection/1", storage.read(PROJECTION)))
    return Projection(kept["scale"], kept.get("vectors"), kept["stretch"], float(kept["explained"]))


def _projection_summary(job: GMMJob, data: PreparedData, projection: Projection) -> dict[str, Any]:
    return {
        "components": projection.n_components,
        "of": data.width,
        "explained": projection.explained,
        "zscore": job.zscore,
        "pca": projection.vectors is not None,
    }


def _fit_summary(data: PreparedData, result: MixtureResult, mixture: Mixture, totals: GaussianStats) -> dict[str, Any]:
    moments, mass = totals.moments(grid_of(data)), data.moments.mass
    criteria = criteria_of(mixture.n_parameters, mass, moments.log_density, moments.doubt)
    return {
        "covariance_type": mixture.covariance_type,
        "log_likelihood": moments.log_density / mass,
        **vars(criteria),
        "parameters": mixture.n_parameters,
        "reg_covar": result.reg_covar,
        "reg_covar_raised": result.raised,
        "weights": [float(weight) for weight in mixture.weights],
    }
