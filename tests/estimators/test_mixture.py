"""`GaussianMixture` as scikit-learn's users know it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.mixture
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from distclust import GaussianMixture
from distclust.errors import UsageError
from distclust.stats.covariance import COVARIANCE_TYPES, CovarianceType
from tests.estimators.checks import checks_of


@pytest.mark.filterwarnings("ignore:The best initialization did not converge")
@pytest.mark.parametrize(("estimator", "check"), checks_of(GaussianMixture(engine="local[2]"), declared=set()))
def test_scikit_learn_estimator_checks(estimator: GaussianMixture, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, s, (200, 3)) for m, s in ((-4, 0.5), (0, 1.0), (5, 2.0))])


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
def test_attributes_and_methods_are_scikit_learns(rows: np.ndarray, kind: CovarianceType) -> None:
    start = {"weights_init": np.full(3, 1 / 3), "means_init": rows[::200]}
    identity = {
        "full": np.tile(np.eye(3), (3, 1, 1)),
        "tied": np.eye(3),
        "diag": np.ones((3, 3)),
        "spherical": np.ones(3),
    }
    how = {**start, "covariance_type": kind, "precisions_init": identity[kind], "tol": 1e-7, "max_iter": 300}
    theirs, ours = sklearn.mixture.GaussianMixture(3, **how).fit(rows), GaussianMixture(3, **how).fit(rows)  # type: ignore[arg-type]
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "lower_bound_"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-6, abs=1e-7), name
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    assert ours.lower_bounds_ == pytest.approx(theirs.lower_bounds_, rel=1e-7)
    new = rows[::7] + 0.3
    for name in ("predict_proba", "score_samples", "score", "bic", "aic"):
        assert getattr(ours, name)(new) == pytest.approx(getattr(theirs, name)(new), rel=1e-6, abs=1e-7), name
    assert np.array_equal(ours.predict(new), theirs.predict(new))
    doubt = -np.log(theirs.predict_proba(new).max(axis=1)).sum()
    assert ours.icl(new) == pytest.approx(theirs.bic(new) + 2 * doubt, rel=1e-9)


@pytest.mark.parametrize("kind", COVARIANCE_TYPES)
def test_samples_are_of_the_mixture(rows: np.ndarray, kind: CovarianceType) -> None:
    gm = GaussianMixture(3, covariance_type=kind, random_state=0).fit(rows)
    X, y = gm.sample(6000)
    assert X.shape == (6000, 3)
    assert np.bincount(y) / 6000 == pytest.approx(gm.weights_, abs=0.03)
    for c in range(3):
        spread = {"full": lambda c: gm.covariances_[c], "tied": lambda c: gm.covariances_}.get(
            kind, lambda c: np.eye(3) * gm.covariances_[c]
        )(c)
        white = np.linalg.solve(np.linalg.cholesky(spread), (X[y == c] - gm.means_[c]).T)
        assert kstest(white.ravel(), "norm").pvalue > 1e-4
        assert np.cov(white) == pytest.approx(np.eye(3), abs=0.12)
    again, _ = gm.sample(6000)
    assert np.array_equal(X, again)


def test_a_random_state_gives_the_same_bits_on_every_engine(rows: np.ndarray, tmp_path: Path) -> None:
    for i, part in enumerate(np.array_split(rows, 3)):
        pq.write_table(pa.table({"v": list(part)}), tmp_path / f"part-{i}.parquet")
    array = GaussianMixture(3, random_state=4).fit(rows)
    dataset = GaussianMixture(3, random_state=4, engine="local[3]").fit(tmp_path, column="v")
    for name in ("weights_", "means_", "covariances_"):
        assert np.array_equal(getattr(array, name), getattr(dataset, name))
    assert array.score_samples(rows).tobytes() == dataset.score_samples(tmp_path, column="v").tobytes()
    assert array.bic(rows) == dataset.bic(tmp_path, column="v")
    assert np.array_equal(array.fit_predict(rows), dataset.predict(rows))


def test_weights_are_repetitions(rows: np.ndarray) -> None:
    times = np.random.default_rng(1).integers(1, 4, len(rows))
    start: dict[str, Any] = {"weights_init": np.full(3, 1 / 3), "means_init": rows[::200]}
    start["precisions_init"] = np.tile(np.eye(3), (3, 1, 1))
    weighted = GaussianMixture(3, **start).fit(rows, sample_weight=times)
    repeated = GaussianMixture(3, **start).fit(np.repeat(rows, times, axis=0))
    assert weighted.covariances_ == pytest.approx(repeated.covariances_, rel=1e-8)
    assert weighted.score(rows, sample_weight=times) == pytest.approx(repeated.score(np.repeat(rows, times, axis=0)))


def test_warm_start_goes_on(rows: np.ndarray) -> None:
    whole = GaussianMixture(3, random_state=0, tol=1e-9, max_iter=40).fit(rows)
    gm = GaussianMixture(3, random_state=0, tol=1e-9, max_iter=1, warm_start=True)
    passes = 0
    while passes < 40:
        with pytest.warns(ConvergenceWarning, match="did not converge") if passes + 1 < whole.n_iter_ else no_warning():
            gm.fit(rows)
        passes += 1
        if gm.converged_:
            break
    assert passes == whole.n_iter_
    assert np.array_equal(gm.means_, whole.means_)


class no_warning:  # noqa: N801
    """A context in which nothing is expected."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


def test_clone_pickle_and_bad_rows(rows: np.ndarray, tmp_path: Path) -> None:
    gm = GaussianMixture(3, random_state=0, on_bad_rows="drop").fit(rows)
    assert np.array_equal(pickle.loads(pickle.dumps(gm)).predict(rows), gm.predict(rows))
    assert np.array_equal(clone(gm).fit(rows).means_, gm.means_)
    holed = rows.copy()
    holed[5, 1] = np.nan
    np.save(tmp_path / "rows.npy", holed)
    labels, shares = gm.predict(str(tmp_path / "rows.npy")), gm.predict_proba(str(tmp_path / "rows.npy"))
    assert labels[5] == -1
    assert np.isnan(shares[5]).all()
    assert np.isnan(gm.score_samples(str(tmp_path / "rows.npy"))).sum() == 1
    assert np.array_equal(np.delete(labels, 5), np.delete(gm.predict(rows), 5))


def test_errors_and_warnings_say_what_to_do(rows: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="did not converge. Try more passes"):
        GaussianMixture(3, max_iter=1, random_state=0).fit(rows)
    with pytest.raises(ValueError, match="n_samples=2 should be >= n_components=3"):
        GaussianMixture(3).fit(rows[:2])
    with pytest.raises(UsageError, match="n_samples == 0, must be an integer of at least 1"):
        GaussianMixture(1).fit(rows).sample(0)
    with pytest.raises(UsageError, match=r"Unknown covariance_type 'diagonal'.*Did you mean 'diag'"):
        GaussianMixture(1, covariance_type="diagonal").fit(rows)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expecting 3 features"):
        GaussianMixture(2, random_state=0).fit(rows).predict(pa.table({"a": [1.0], "b": [2.0]}), columns=("a", "b"))
