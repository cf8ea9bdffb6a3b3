"""Rows in memory that are not finite: named by every estimator that takes arrays as they are, or dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distclust import PPP, BisectingKMeans, GaussianMixture, KMeans
from distclust.errors import DataError

ESTIMATORS = {
    "KMeans": lambda **how: KMeans(3, random_state=0, **how),
    "BisectingKMeans": lambda **how: BisectingKMeans(3, **how),
    "GaussianMixture": lambda **how: GaussianMixture(3, random_state=0, **how),
    "PPP": lambda **how: PPP(**how),
}


@pytest.fixture
def blobs() -> np.ndarray:
    centers = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return (np.repeat(centers, 100, axis=0) + np.random.default_rng(5).normal(size=(300, 2))).astype(np.float32)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_row_that_is_not_finite_is_named_or_dropped(name: str, blobs: np.ndarray) -> None:
    make: Any = ESTIMATORS[name]
    X = blobs.copy()
    X[37, 1] = np.nan
    with pytest.raises(DataError, match=r"array row 37: value 1 of the vector is NaN\..*on_bad_rows='drop'"):
        make().fit(X)
    fitted = make(on_bad_rows="drop").fit(X)
    labels = fitted.predict(X)
    assert np.flatnonzero(labels == -1).tolist() == [37]
    assert len(set(np.delete(labels, 37).tolist())) == 3
    with pytest.raises(DataError, match="array row 37: value 1 of the vector is NaN"):
        make().fit(blobs).predict(X)
