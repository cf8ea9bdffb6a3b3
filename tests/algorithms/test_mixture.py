"""Gaussian mixtures: scikit-learn's from the same start, the same bits everywhere, starts, checkpoints, hard input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.mixture
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.algorithms.maximisation import covariances_of
from distclust.algorithms.mixture import MixtureResult, criteria_of, fit_mixture
from distclust.algorithms.mixture_config import MIXTURE_INITS, MixtureConfig
from distclust.engines.events import Event, LikelihoodEnded, Note
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops.assign import predict
from distclust.ops.mixture import Mixture, SingularCovarianceError, densities
from distclust.ops.scatter import scatter_of
from distclust.stats.covariance import COVARIANCE_TYPES, CovarianceType
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes
from tests.algorithms.test_kmeans import Run
from tests.algorithms.test_kmeans_bits import KINDS, adversarial

# GaussianMixtureSuite of Spark MLlib, "two clusters": rows, and what the mixture must be.
SPARK_ROWS = np.array(
    [
        *(-5.1971, -2.5359, -3.8220, -5.2211, -5.0602, 4.7118, 6.8989, 3.4592, 4.6322),
        *(5.7048, 4.6567, 5.5026, 4.5605, 5.2043, 6.2734),
    ]
)[:, None]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as opened:
        yield opened


def groups(seed: int, n: int = 900, d: int = 4, k: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means, shapes = rng.normal(size=(k, d)) * 4, rng.normal(size=(k, d, d))
    return np.concatenate([m + rng.normal(size=(n // k, d)) @ s for m, s in zip(means, shapes, strict=True)])


def precisions(kind: CovarianceType, k: int, d: int) -> np.ndarray:
    shapes = {
        "full": np.tile(np.eye(d), (k, 1, 1)),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }
    return shapes[kind]


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_from_the_same_start_it_is_scikit_learns(engine: Engine, kind: CovarianceType, offset: float) -> None:
    k, d = 3, 4
    X = groups(0) + offset
    start = {
        "covariance_type": kind,
        "weights_init": np.array([0.5, 0.3, 0.2]),
        "means_init": X[:: len(X) // k][:k],
        "precisions_init": precisions(kind, k, d),
        "tol": 1e-6,
    }
    theirs = sklearn.mixture.GaussianMixture(k, **start).fit(X)
    with prepared(engine, X, [200, 600, 100], precision="float64") as data:
        ours = fit_mixture(engine, data, MixtureConfig(n_components=k, **start))  # type: ignore[arg-type]
        density = densities(engine, data.pinned, ours.mixture)
    assert (ours.n_iter, ours.converged) == (theirs.n_iter_, theirs.converged_)
    assert ours.mixture.weights == pytest.approx(theirs.weights_, rel=1e-6)
    assert ours.mixture.means + data.offset == pytest.approx(theirs.means_, rel=1e-6)
    # Their sums of squares of large offsets cancel where these are not taken off first.
    assert ours.mixture.covariances == pytest.approx(theirs.covariances_, rel=1e-6, abs=1e-6)
    assert ours.lower_bound == pytest.approx(theirs.lower_bound_, rel=1e-6)
    assert density == pytest.approx(theirs.score_samples(X), rel=1e-6, abs=1e-6)
    assert [h.log_likelihood for h in ours.history] == pytest.approx(theirs.lower_bounds_, rel=1e-6)


@pytest.mark.parametrize("init", MIXTURE_INITS)
def test_sparks_published_values(engine: Engine, init: Any) -> None:
    config = MixtureConfig(n_components=2, init_params=init, tol=1e-7, max_iter=500)
    with prepared(engine, SPARK_ROWS, precision="float64") as data:
        mixture = fit_mixture(engine, data, config).mixture
    order = np.argsort(-mixture.weights)
    assert mixture.weights[order] == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    assert (mixture.means + data.offset)[order, 0] == pytest.approx([5.1604, -4.3673], abs=1e-3)
    assert mixture.covariances[order, 0, 0] == pytest.approx([0.86644, 1.1098], abs=1e-3)


def bits(engine: Engine, X: np.ndarray, sizes: list[int] | None, config: MixtureConfig, **how: Any) -> tuple[Any, ...]:
    """Return everything that must be equal."""
    with prepared(engine, X, sizes, **how) as data:
        result = fit_mixture(engine, data, config)
        return (
            result.mixture.tag,
            result.reg_covar,
            [(h.log_likelihood, h.change) for h in result.history],
            predict(engine, data.pinned, result.mixture).tobytes(),
            densities(engine, data.pinned, result.mixture).tobytes(),
        )


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    rows=st.sampled_from(KINDS),
    kind=st.sampled_from(COVARIANCE_TYPES),
    init=st.sampled_from(MIXTURE_INITS),
    precision=st.sampled_from(["float32", "float64"]),
    weighted=st.booleans(),
    k=st.integers(1, 5),
)
def test_partitions_and_engines_agree_on_every_bit(
    seed: int, rows: str, kind: CovarianceType, init: Any, precision: str, weighted: bool, k: int
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(20, 200)), int(rng.integers(1, 7))
    X = adversarial(rng, n, d, rows)
    weights = rng.choice([0.0, 0.5, 1.0, 7.0], n) if weighted else None
    if weights is not None:
        weights[:k] = 1.0
    config = MixtureConfig(n_components=k, covariance_type=kind, init_params=init, reg_covar="auto", max_iter=8)
    how: dict[str, Any] = {"weights": weights, "precision": precision}
    with LocalEngine(2) as local, HostileEngine(seed) as hostile:
        whole = bits(local, X, None, config, **how)
        assert bits(local, X, random_sizes(rng, n, 5), config, **how) == whole
        assert bits(hostile, X, random_sizes(rng, n, 7), config, **how) == whole


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
def test_weights_are_repetitions(engine: Engine, kind: CovarianceType) -> None:
    X = groups(1, n=300)
    times = np.random.default_rng(0).integers(0, 4, len(X))
    start = {"weights_init": np.full(3, 1 / 3), "means_init": X[::100], "precisions_init": precisions(kind, 3, 4)}
    config = MixtureConfig(n_components=3, covariance_type=kind, **start)
    with prepared(engine, X, weights=times.astype(float), precision="float64") as data:
        weighted = fit_mixture(engine, data, config)
        means = weighted.mixture.means + data.offset
    with prepared(engine, np.repeat(X, times, axis=0), precision="float64") as data:
        repeated = fit_mixture(engine, data, config)
    assert weighted.n_iter == repeated.n_iter
    assert means == pytest.approx(repeated.mixture.means + data.offset, rel=1e-8)
    assert weighted.mixture.covariances == pytest.approx(repeated.mixture.covariances, rel=1e-8, abs=1e-10)
    assert weighted.lower_bound == pytest.approx(repeated.lower_bound, rel=1e-9)


def test_restarts_keep_the_best_and_likelihood_never_falls(engine: Engine) -> None:
    X = groups(2, k=5, n=1000)

    def fit(n_init: int) -> MixtureResult:
        config = MixtureConfig(n_components=5, init_params="random_from_data", n_init=n_init, seed=3)
        with prepared(engine, X, precision="float64") as data:
            return fit_mixture(engine, data, config)

    one, six = fit(1), fit(6)
    assert six.lower_bound >= one.lower_bound, "the first of the six is the one alone"
    for result in (one, six):
        bounds = [h.log_likelihood for h in result.history]
        assert (np.diff(bounds) > -1e-9).all()


@pytest.mark.parametrize("n_init", [1, 2])
def test_a_cancelled_fit_goes_on_with_the_same_bits(tmp_path: Path, n_init: int) -> None:
    X = groups(3)
    config = MixtureConfig(n_components=3, init_params="kmeans", n_init=n_init, tol=0.0, max_iter=6, seed=1)
    with LocalEngine(2) as engine, prepared(engine, X) as data:
        whole = fit_mixture(engine, data, config)
    seen = 0
    for stop_after in (2, 1, 2, 1000):
        cancel = CancelToken()
        left = stop_after

        def emit(event: Event, cancel: CancelToken = cancel) -> None:
            nonlocal left, seen
            if isinstance(event, LikelihoodEnded):
                left, seen = left - 1, seen + 1
                if left == 0:
                    cancel.cancel()

        options = EngineOptions(emit=emit, cancel=cancel)
        with LocalEngine(2) as quiet, prepared(quiet, X) as data, LocalEngine(2, options) as engine:
            if stop_after == 1000:
                again = fit_mixture(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
            else:
                with pytest.raises(CancelledError):
                    fit_mixture(engine, data, config, Run(tmp_path), checkpoint_seconds=3600)
    assert seen == 6 * n_init, "no pass was done twice"
    assert again.mixture.tag == whole.mixture.tag
    assert [h.log_likelihood for h in again.history] == [h.log_likelihood for h in whole.history]


def test_a_fit_goes_on_from_a_mixture(engine: Engine) -> None:
    with prepared(engine, groups(4), precision="float64") as data:
        config = MixtureConfig(n_components=3, max_iter=4, tol=0.0)
        half = fit_mixture(engine, data, config)
        rest = fit_mixture(engine, data, config, start=half.mixture, lower_bound=half.lower_bound)
        whole = fit_mixture(engine, data, MixtureConfig(n_components=3, max_iter=8, tol=0.0))
    assert rest.mixture.tag == whole.mixture.tag
    assert rest.history[0].change == whole.history[4].change


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
@pytest.mark.parametrize("rows", ["equal", "constant column", "duplicates", "fewer rows than columns", "one row"])
def test_singular_rows_get_a_mixture_all_the_same(rows: str, kind: CovarianceType) -> None:
    rng = np.random.default_rng(5)
    X = {
        "equal": np.full((30, 3), 7.25),
        "constant column": np.column_stack([rng.normal(size=(60, 2)), np.full(60, 3.0)]),
        "duplicates": np.repeat(rng.normal(size=(4, 3)), 20, axis=0),
        "fewer rows than columns": rng.normal(size=(6, 20)),
        "one row": rng.normal(size=(1, 3)),
    }[rows]
    for reg_covar in (0.0, 1e-6, "auto"):
        notes: list[str] = []

        def emit(event: Event, notes: list[str] = notes) -> None:
            if isinstance(event, Note):
                notes.append(event.message)

        k = min(2, len(X))
        config = MixtureConfig(n_components=k, covariance_type=kind, reg_covar=reg_covar)  # type: ignore[arg-type]
        with LocalEngine(2, EngineOptions(emit=emit)) as engine, prepared(engine, X, precision="float64") as data:
            result = fit_mixture(engine, data, config)
            assert np.isfinite(densities(engine, data.pinned, result.mixture)).all()
        assert np.isfinite(result.mixture.covariances).all()
        asked = 1e-6 * max(data.moments.variance.mean(), 0) or 1e-6 if reg_covar == "auto" else reg_covar
        raised = result.reg_covar > asked * (1 + 1e-9)
        assert any("singular: reg_covar was raised to" in note for note in notes) == raised
        if reg_covar == 0.0 and rows == "equal":
            assert raised


def test_a_few_outliers_take_no_digits_from_the_others(engine: Engine) -> None:
    X = groups(6)
    far = np.concatenate([X, np.full((1, 4), 1e9)])
    start = {"weights_init": np.full(3, 1 / 3), "means_init": X[::300], "precisions_init": precisions("diag", 3, 4)}
    config = MixtureConfig(n_components=3, covariance_type="diag", max_iter=5, tol=0.0, **start)
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type="diag", max_iter=5, tol=0.0, **start)
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(far)
    with prepared(engine, far, precision="float64") as data:
        ours = fit_mixture(engine, data, config)
    assert ours.mixture.means + data.offset == pytest.approx(theirs.means_, rel=1e-6, abs=1e-6)
    alone = int(np.argmax(ours.mixture.means[:, 0]))
    assert ours.mixture.covariances[alone] == pytest.approx(np.full(4, 1e-6)), (
        "scikit-learn has 2304: its squares cancel"
    )
    others = np.delete(np.arange(3), alone)
    assert ours.mixture.covariances[others] == pytest.approx(theirs.covariances_[others], rel=1e-6)


def test_more_components_than_distinct_rows(engine: Engine) -> None:
    X = np.repeat(np.array([[0.0, 0.0], [5.0, 5.0]]), 50, axis=0)
    with prepared(engine, X) as data:
        result = fit_mixture(engine, data, MixtureConfig(n_components=4))
        labels = predict(engine, data.pinned, result.mixture)
    assert len(set(labels[:50].tolist())) == len(set(labels[50:].tolist())) == 1
    assert labels[0] != labels[50]
    assert result.mixture.weights[labels[0]] == pytest.approx(0.5, abs=1e-6)


def test_one_component_is_the_moments(engine: Engine) -> None:
    X = groups(7) * [1.0, 1e3, 1e-3, 1.0]
    with prepared(engine, X, precision="float64") as data:
        one = fit_mixture(engine, data, MixtureConfig(n_components=1, reg_covar=0.0)).mixture
        scatter = scatter_of(engine, data)
    assert one.means[0] + data.offset == pytest.approx(X.mean(axis=0), rel=1e-9)
    wanted = np.cov(X.T, bias=True)
    scale = np.sqrt(np.outer(np.diagonal(wanted), np.diagonal(wanted)))
    assert one.covariances[0] / scale == pytest.approx(wanted / scale, abs=1e-9)
    assert scatter.covariance / scale == pytest.approx(wanted / scale, abs=1e-9)
    assert scatter.mean + data.offset == pytest.approx(X.mean(axis=0), rel=1e-9)


def test_criteria_count_parameters_as_scikit_learn_does(engine: Engine) -> None:
    X = groups(8)
    for kind in COVARIANCE_TYPES:
        theirs = sklearn.mixture.GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
        mixture = Mixture(kind, theirs.weights_, theirs.means_, theirs.covariances_)
        found = criteria_of(mixture.n_parameters, len(X), float(theirs.score_samples(X).sum()), 12.5)
        assert found.bic == pytest.approx(theirs.bic(X))
        assert found.aic == pytest.approx(theirs.aic(X))
        assert found.icl == pytest.approx(theirs.bic(X) + 25)


def test_precisions_become_covariances_and_must_be_positive() -> None:
    half = np.random.default_rng(9).normal(size=(2, 3, 3))
    given = half @ half.transpose(0, 2, 1) + np.eye(3)
    assert covariances_of(given, "full") == pytest.approx(np.linalg.inv(given))
    assert covariances_of(given[0], "tied") == pytest.approx(np.linalg.inv(given[0]))
    with pytest.raises(SingularCovarianceError, match="not positive definite"):
        covariances_of(np.zeros((1, 2, 2)), "full")
    with pytest.raises(SingularCovarianceError, match="not positive"):
        covariances_of(np.array([1.0, 0.0]), "spherical")


def test_errors_say_what_to_do(engine: Engine) -> None:
    X = groups(10, n=30)
    with prepared(engine, X[:2]) as data, pytest.raises(DataError, match="n_samples=2 should be >= n_components=3"):
        fit_mixture(engine, data, MixtureConfig(n_components=3))
    tied = MixtureConfig(n_components=2, covariance_type="tied", precisions_init=np.eye(3))
    with prepared(engine, X) as data:
        with pytest.raises(UsageError, match=r"means_init has shape \(2, 3\), the rows have 4 columns"):
            fit_mixture(engine, data, MixtureConfig(n_components=2, means_init=np.zeros((2, 3))))
        with pytest.raises(UsageError, match=r"precisions_init has shape \(3, 3\), the rows have 4 columns"):
            fit_mixture(engine, data, tied)
        with pytest.raises(
            UsageError, match=r"precisions_init: the covariance of component 0 is not positive definite"
        ):
            fit_mixture(engine, data, MixtureConfig(n_components=1, precisions_init=-np.eye(4)[None]))
    with pytest.raises(UsageError, match="n_components == 0, must be an integer of at least 1"):
        MixtureConfig(n_components=0)
    with pytest.raises(UsageError, match="reg_covar == -1, must be a finite number of at least 0"):
        MixtureConfig(n_components=1, reg_covar=-1)
    with pytest.raises(UsageError, match=r"Unknown covariance_type 'ful'.*Did you mean 'full'"):
        MixtureConfig(n_components=1, covariance_type="ful")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Unknown init_params 'kmean'.*Did you mean 'kmeans'"):
        MixtureConfig(n_components=1, init_params="kmean")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weights_init must be n_components = 2 positive numbers of sum 1"):
        MixtureConfig(n_components=2, weights_init=np.array([0.5, 0.6]))
    with pytest.raises(
        UsageError, match=r"precisions_init is an array of shape \(2,\); full covariances of 2 components"
    ):
        MixtureConfig(n_components=2, precisions_init=np.ones(2))
    with pytest.raises(UsageError, match=r"means_init is an array of shape \(1, 2\); needed are n_components = 2 rows"):
        MixtureConfig(n_components=2, means_init=np.ones((1, 2)))
