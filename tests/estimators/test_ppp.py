"""`PPP` as scikit-learn's users know their estimators."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone

from distclust import PPP
from distclust.errors import UsageError
from tests.estimators.checks import checks_of


@pytest.mark.parametrize(("estimator", "check"), checks_of(PPP(engine="local[1]", max_clusters=8), set()))
def test_scikit_learn_estimator_checks(estimator: PPP, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(m, 0.5, (150, 3)) for m in (-6, -1, 8)])
    return np.concatenate([rows, rng.uniform(size=(450, 1))], axis=1)[rng.permutation(450)]


def test_attributes_and_predictions(blobs: np.ndarray) -> None:
    ppp = PPP(engine="local[2]").fit(blobs)
    assert ppp.n_clusters_ == 3
    assert ppp.clusterable_
    assert ppp.feature_mask_.tolist() == [True, True, True, False]
    assert ppp.weights_.sum() == pytest.approx(1.0)
    assert np.sort(ppp.cluster_centers_[:, 0]) == pytest.approx([-6, -1, 8], abs=0.2)
    assert ppp.cluster_centers_[:, 3] == pytest.approx([0.5] * 3, abs=0.05), (
        "of a column left out, the mean of all rows"
    )
    assert np.array_equal(ppp.predict(blobs), ppp.labels_)
    assert np.array_equal(ppp.fit_predict(blobs), ppp.labels_)
    shares = ppp.predict_proba(blobs)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(blobs)))
    assert np.array_equal(shares.argmax(axis=1), ppp.labels_)
    assert ppp.score_samples(blobs).min() > ppp.score_samples(np.full((1, 4), 99.0))[0]
    assert [verdict["rows"] for verdict in ppp.verdicts_] == np.bincount(ppp.labels_).tolist()
    assert all(verdict["valid"] for verdict in ppp.verdicts_)
    assert ppp.stability_ > 0.95


def test_clone_and_pickle(blobs: np.ndarray) -> None:
    ppp = PPP(features="all", engine="local[1]").fit(blobs)
    again = pickle.loads(pickle.dumps(ppp))
    assert np.array_equal(again.predict(blobs), ppp.labels_)
    assert np.array_equal(clone(ppp).fit(blobs).labels_, ppp.labels_), "nothing is drawn"
    assert ppp.feature_mask_.all()


def test_a_dataset_gives_the_bits_of_an_array(blobs: np.ndarray, tmp_path: Path) -> None:
    for i, rows in enumerate(np.array_split(blobs, 3)):
        pq.write_table(pa.table({"v": list(rows)}), tmp_path / f"part-{i}.parquet")
    array = PPP(engine="local[1]").fit(blobs)
    dataset = PPP(engine="local[3]").fit(tmp_path, column="v")
    assert np.array_equal(array.cluster_centers_, dataset.cluster_centers_)
    assert np.array_equal(array.labels_, dataset.labels_)
    assert array.report_ == dataset.report_
    assert np.array_equal(array.labels_, dataset.predict(tmp_path, column="v"))


def test_weights_are_repetitions(blobs: np.ndarray) -> None:
    twice = PPP(features="all").fit(blobs, sample_weight=np.full(len(blobs), 2.0))
    once = PPP(features="all").fit(blobs)
    assert twice.weights_ == pytest.approx(once.weights_)
    assert np.array_equal(twice.labels_, once.labels_)


def test_errors_say_what_to_do(blobs: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"Unknown covariance_type 'ful'.*Did you mean 'full'"):
        PPP(covariance_type="ful").fit(blobs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="are for datasets, not for arrays"):
        PPP().fit(blobs, column="v")
    with pytest.raises(ValueError, match="X has 2 features, but PPP is expecting 4"):
        PPP(features="all").fit(blobs).predict(blobs[:, :2])
