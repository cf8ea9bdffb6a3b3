"""`KMedoids` as scikit-learn's users know it, under all measures."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score

from distclust import KMedoids
from distclust.errors import DataError, UsageError
from tests.estimators.checks import checks_of


@pytest.mark.parametrize(("estimator", "check"), checks_of(KMedoids()))
def test_scikit_learn_estimator_checks(estimator: KMedoids, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, 0.5, (60, 3)) for m in (-6, -1, 4)])


@numba.njit
def cubes(x, y):  # type: ignore[no-untyped-def]
    return (np.abs(x - y) ** 3).sum()


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "chebyshev", "cosine", "cubes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_attributes_belong_together(blobs: np.ndarray, metric: str, dtype: type) -> None:
    X = (blobs + 9).astype(dtype)
    ours: Any = {"cityblock": "manhattan", "cubes": cubes}.get(metric, metric)
    km = KMedoids(3, metric=ours).fit(X)
    exact = X.astype(float)
    want = (abs(exact[:, None] - exact) ** 3).sum(-1) if metric == "cubes" else cdist(exact, exact, metric)
    assert (np.diff(km.medoid_indices_) > 0).all()
    np.testing.assert_array_equal(km.cluster_centers_, X[km.medoid_indices_])
    assert km.cluster_centers_.dtype == dtype
    to_medoids = want[:, km.medoid_indices_]
    np.testing.assert_allclose(km.transform(X), to_medoids, 1e-6, 1e-12)
    assert km.transform(X).dtype == dtype
    np.testing.assert_array_equal(km.labels_, to_medoids.argmin(axis=1))
    np.testing.assert_array_equal(km.predict(X), km.labels_)
    assert km.inertia_ == pytest.approx(to_medoids.min(axis=1).sum())
    assert km.score(X) == pytest.approx(-km.inertia_)
    two = np.sort(to_medoids, axis=1)
    assert km.silhouette_ == pytest.approx((1 - two[:, 0] / two[:, 1]).mean())
    best = min(want[:, [*km.medoid_indices_[:2].tolist(), j]].min(axis=1).sum() for j in range(len(X)))
    assert km.inertia_ <= best * (1 + 1e-6), "no other third medoid is better"


@pytest.mark.parametrize("method", ["auto", "fasterpam", "fastpam1", "pam", "clarans"])
def test_methods_find_the_groups(blobs: np.ndarray, method: Any) -> None:
    km = KMedoids(3, method=method, random_state=0).fit(blobs)
    assert sorted(np.bincount(km.labels_).tolist()) == [60, 60, 60]
    assert len(set(km.labels_[:60].tolist())) == 1
    assert km.inertia_ <= 1.02 * KMedoids(3).fit(blobs).inertia_


def test_a_precomputed_matrix(blobs: np.ndarray) -> None:
    matrix = cdist(blobs, blobs)
    km, rows = KMedoids(3, metric="precomputed").fit(matrix), KMedoids(3).fit(blobs)
    np.testing.assert_array_equal(km.medoid_indices_, rows.medoid_indices_)
    np.testing.assert_array_equal(km.labels_, rows.labels_)
    assert km.inertia_ == pytest.approx(rows.inertia_)
    assert km.silhouette_ == pytest.approx(rows.silhouette_)
    assert km.cluster_centers_ is None
    fresh = blobs[::7] + 0.1
    to_all = cdist(fresh, blobs)
    np.testing.assert_array_equal(km.predict(to_all), rows.predict(fresh))
    np.testing.assert_allclose(km.transform(to_all), rows.transform(fresh))
    assert km.score(to_all) == pytest.approx(rows.score(fresh))
    integers = KMedoids(2, metric="precomputed").fit([[0, 1, 9], [1, 0, 8], [9, 8, 0]])
    assert integers.inertia_ == 1
    one = KMedoids(1, metric="precomputed").fit(matrix)
    assert one.silhouette_ == 0
    assert one.medoid_indices_.tolist() == [matrix.sum(axis=1).argmin()]


def test_sets_as_booleans_and_as_bits() -> None:
    rng = np.random.default_rng(0)
    groups = rng.random((3, 40)) < 0.4
    X = groups[np.repeat([0, 1, 2], 30)] ^ (rng.random((90, 40)) < 0.03)
    flags, bits = KMedoids(3, metric="jaccard").fit(X), KMedoids(3, metric="jaccard").fit(np.packbits(X, axis=1))
    np.testing.assert_array_equal(flags.labels_, np.repeat([0, 1, 2], 30))
    np.testing.assert_array_equal(flags.labels_, bits.labels_)
    assert flags.inertia_ == bits.inertia_
    np.testing.assert_array_equal(flags.cluster_centers_, X[flags.medoid_indices_])
    np.testing.assert_array_equal(flags.predict(X), flags.labels_)


def test_mixed_columns_with_missing_values() -> None:
    rng = np.random.default_rng(0)
    color = np.repeat([0.0, 1.0, 2.0], 40)
    X = np.stack([color, np.repeat([5.0, 50.0, 95.0], 40) + rng.normal(size=120), np.full(120, 7.0)], axis=1)
    X[rng.random(X.shape) < 0.1] = np.nan
    km = KMedoids(3, metric="gower", metric_params={"categorical": [0]}).fit(X)
    assert adjusted_rand_score(color, km.labels_) > 0.85, "but for rows of which too little is known"
    np.testing.assert_array_equal(km.predict(X), km.labels_)
    heavy = KMedoids(3, metric="gower", metric_params={"categorical": 0, "weights": [1, 2, 0]}).fit(X)
    assert np.isfinite(heavy.inertia_)
    everything_constant = KMedoids(2, metric="gower").fit(np.ones((5, 2)))
    assert everything_constant.inertia_ == 0


def test_places_on_the_globe() -> None:
    cities = np.radians([[48.85, 2.35], [51.5, -0.12], [52.5, 13.4], [35.7, 139.7], [34.7, 135.5], [37.6, 127.0]])
    km = KMedoids(2, metric="haversine").fit(cities)
    assert km.labels_.tolist() == [0, 0, 0, 1, 1, 1]
    assert km.transform(cities)[0, 0] * 6371 == pytest.approx(0 if km.medoid_indices_[0] == 0 else 344, abs=2)


def test_weights_count_and_zero_leaves_a_row_out(blobs: np.ndarray) -> None:
    heavy = np.ones(len(blobs))
    heavy[17] = 1e4
    assert 17 in KMedoids(3).fit(blobs, sample_weight=heavy).medoid_indices_
    weights = np.ones(len(blobs))
    weights[::3] = 0
    km, kept = KMedoids(3).fit(blobs, sample_weight=weights), KMedoids(3).fit(blobs[weights > 0])
    np.testing.assert_array_equal(km.cluster_centers_, kept.cluster_centers_)
    assert km.inertia_ == pytest.approx(kept.inertia_)
    assert km.silhouette_ == pytest.approx(kept.silhouette_)
    assert len(km.labels_) == len(blobs)
    assert km.score(blobs, sample_weight=weights) == pytest.approx(-km.inertia_)
    matrix = cdist(blobs, blobs)
    same = KMedoids(3, metric="precomputed").fit(matrix, sample_weight=weights)
    np.testing.assert_array_equal(same.medoid_indices_, km.medoid_indices_)


def test_the_number_of_clusters_is_chosen(blobs: np.ndarray) -> None:
    km = KMedoids("auto", k_max=12).fit(blobs)
    assert len(km.medoid_indices_) == 3
    assert [score.k for score in km.k_scores_] == list(range(12, 1, -1))
    assert km.silhouette_ == pytest.approx(max(score.silhouette for score in km.k_scores_))
    assert km.transform(blobs).shape == (180, 3)
    assert KMedoids(3).fit(blobs).k_scores_ == ()
    small = KMedoids("auto", k_max=12, matrix_bytes=1000, random_state=0).fit(blobs)
    assert len(small.medoid_indices_) == 3
    assert [score.k for score in small.k_scores_] == list(range(12, 1, -1))


def test_first_medoids_may_be_given(blobs: np.ndarray) -> None:
    km = KMedoids(3, init=np.array([5, 65, 125])).fit(blobs)
    assert KMedoids(3, init=km.medoid_indices_).fit(blobs).n_swaps_ == 0
    for init in ("build", "lab", "k-means++", "random"):
        assert KMedoids(3, init=init, random_state=1).fit(blobs).inertia_ == pytest.approx(km.inertia_, rel=0.02)


@pytest.mark.parametrize("method", ["clara", "onebatch", "auto"])
@pytest.mark.parametrize("metric", ["euclidean", "jaccard", "gower"])
def test_methods_of_engines_on_arrays(method: Any, metric: str) -> None:
    rng = np.random.default_rng(0)
    X: Any = np.concatenate([rng.normal(m, 0.5, (200, 3)) for m in (-6, -1, 4)])
    if metric == "jaccard":
        X = (rng.random((3, 40)) < 0.4)[np.repeat([0, 1, 2], 200)] ^ (rng.random((600, 40)) < 0.03)
    weights = rng.integers(1, 3, 600).astype(float)
    parameters = None
    if metric == "gower":
        X = np.column_stack([X, np.repeat([7.0, 12.0, np.nan], 200)])
        parameters = {"categorical": 3}
    how: Any = {"metric": metric, "metric_params": parameters}
    km = KMedoids(3, method=method, matrix_bytes=1000, random_state=0, engine="local[2]", **how)
    km.fit(X, sample_weight=weights)
    assert km.inertia_ <= 1.05 * KMedoids(3, **how).fit(X, sample_weight=weights).inertia_
    np.testing.assert_array_equal(km.predict(X), km.labels_)
    assert km.score(X, sample_weight=weights) == pytest.approx(-km.inertia_)
    np.testing.assert_array_equal(X[km.medoid_indices_], km.cluster_centers_)
    assert (np.diff(km.medoid_indices_) > 0).all()


def test_a_dataset_gives_the_medoids_of_an_array(blobs: np.ndarray, tmp_path: Path) -> None:
    for i, rows in enumerate(np.array_split(blobs, 4)):
        pq.write_table(pa.table({"v": list(rows)}), tmp_path / f"part-{i}.parquet")
    array, dataset = KMedoids(5).fit(blobs), KMedoids(5, engine="local[3]").fit(tmp_path, column="v")
    np.testing.assert_array_equal(array.medoid_indices_, dataset.medoid_indices_)
    np.testing.assert_array_equal(array.cluster_centers_, dataset.cluster_centers_)
    np.testing.assert_array_equal(array.labels_, dataset.labels_)
    assert array.inertia_ == pytest.approx(dataset.inertia_)
    assert array.silhouette_ == pytest.approx(dataset.silhouette_)
    np.testing.assert_array_equal(dataset.predict(tmp_path, column="v"), dataset.labels_)
    np.testing.assert_array_equal(dataset.predict(blobs), dataset.labels_)
    np.testing.assert_allclose(dataset.transform(tmp_path, column="v"), array.transform(blobs))
    assert dataset.score(tmp_path, column="v") == pytest.approx(-dataset.inertia_)
    chosen, here = (KMedoids("auto", k_max=12).fit(X, **how) for X, how in ((tmp_path, {"column": "v"}), (blobs, {})))
    assert len(chosen.medoid_indices_) == len(here.medoid_indices_) == 3
    assert [choice.k for choice in chosen.k_scores_] == [choice.k for choice in here.k_scores_]


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_a_frame_of_numbers_and_texts(kind: str) -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 50)
    frame = pd.DataFrame(
        {
            "color": np.array(["red", "green", "blue"])[group],
            "size": group * 10 + rng.normal(size=150),
            "code": rng.integers(0, 2, 150),
        }
    )
    frame.loc[rng.random(150) < 0.1, "size"] = np.nan
    X: Any = frame
    if kind != "pandas":
        X = pa.Table.from_pandas(frame) if kind == "arrow" else pl.from_pandas(frame)
    km = KMedoids(3, metric="gower", metric_params={"categorical": ["code"]}, engine="local[2]").fit(X)
    assert adjusted_rand_score(group, km.labels_) == 1
    np.testing.assert_array_equal(km.predict(X), km.labels_)
    assert km.n_features_in_ == 3
    assert km.transform(X).shape == (150, 3)
    assert km.score(X) == pytest.approx(-km.inertia_)
    some = km.predict(X[:60], columns=["color", "size", "code"])
    np.testing.assert_array_equal(some, km.labels_[:60])  # ranges and categories are those of the fit
    again = pickle.loads(pickle.dumps(km))
    np.testing.assert_array_equal(again.predict(X), km.labels_)
    with pytest.raises(UsageError, match=r"found on a table, whose categories an array does not have. Give rows as to"):
        km.predict(np.zeros((3, 3)))
    with pytest.raises(UsageError, match=r"found on an array, whose categories a table does not have"):
        KMedoids(1, metric="gower").fit(np.zeros((3, 3))).predict(X)
    with pytest.raises(UsageError, match=r"weights of columns are for methods that keep all rows in memory. Give an"):
        KMedoids(3, metric="gower", metric_params={"weights": [1, 2, 3]}).fit(X)


def test_datasets_refuse_what_is_for_arrays(blobs: np.ndarray, tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": list(blobs), "w": list(blobs[:, :2])}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"method 'pam' is for rows in memory. Use method='auto'"):
        KMedoids(3, method="pam").fit(tmp_path, column="v")
    with pytest.raises(UsageError, match=r"sample_weight is for rows in memory. Name the dataset's weight_column"):
        KMedoids(3).fit(tmp_path, sample_weight=np.ones(180), column="v")
    with pytest.raises(UsageError, match="metric 'precomputed' takes an array in memory"):
        KMedoids(3, metric="precomputed").fit(tmp_path, column="v")
    km = KMedoids(3).fit(tmp_path, column="v")
    with pytest.raises(UsageError, match="X has 2 features, but KMedoids is expecting 3 features as input"):
        km.predict(tmp_path, column="w")


def test_clone_pickle_names_and_pipelines(blobs: np.ndarray) -> None:
    km = KMedoids(3, metric=cubes, init=np.array([0, 1, 2])).fit(pd.DataFrame(blobs, columns=list("abc")))
    assert km.feature_names_in_.tolist() == ["a", "b", "c"]
    assert km.get_feature_names_out().tolist() == ["kmedoids0", "kmedoids1", "kmedoids2"]
    again = pickle.loads(pickle.dumps(km))
    frame = pd.DataFrame(blobs, columns=list("abc"))
    np.testing.assert_array_equal(again.predict(frame), km.labels_)
    assert clone(km).metric is cubes
    np.testing.assert_array_equal(clone(km).fit_predict(frame), km.labels_)


def test_constant_and_repeated_rows() -> None:
    km = KMedoids(3).fit(np.ones((6, 2)))
    assert km.inertia_ == 0
    assert len(set(km.medoid_indices_.tolist())) == 3
    assert km.silhouette_ == 0
    assert km.labels_.tolist() == [0] * 6


def test_ends_before_the_end_warn() -> None:
    X = np.random.default_rng(0).normal(size=(200, 2))
    with pytest.warns(ConvergenceWarning, match="Medoids still changed in the last of max_iter = 1 passes"):
        KMedoids(8, init="random", max_iter=1, random_state=0).fit(X)


def test_errors_say_what_to_do(blobs: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"Unknown metric 'manhatan'.*Did you mean 'manhattan'"):
        KMedoids(3, metric="manhatan").fit(blobs)
    with pytest.raises(UsageError, match=r"Unknown method 'clara'|Unknown method 'klarans'.*Did you mean 'clarans'"):
        KMedoids(3, method="klarans").fit(blobs)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"n_samples=2 should be >= n_clusters=3"):
        KMedoids(3).fit(blobs[:2])
    with pytest.raises(UsageError, match=r"n_clusters == 0, must be an integer of at least 1 or 'auto'"):
        KMedoids(0).fit(blobs)
    with pytest.raises(UsageError, match=r"k_max == 1, must be an integer of at least 2"):
        KMedoids("auto", k_max=1).fit(blobs)
    with pytest.raises(UsageError, match="n_samples=1 should be >= n_clusters=2"):
        KMedoids("auto").fit(blobs[:1])
    with pytest.raises(UsageError, match=r"method 'clarans' is not for a precomputed matrix. Use method='fasterpam'"):
        KMedoids(3, metric="precomputed", method="clarans").fit(cdist(blobs, blobs))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        KMedoids(3).fit(np.where(blobs > 4, np.nan, blobs))
    with pytest.raises(UsageError, match=r"metric_params has 'p'; metric 'euclidean' takes none"):
        KMedoids(3, metric_params={"p": 3}).fit(blobs)
    with pytest.raises(UsageError, match=r"categorical has column 3; X has 0 to 2"):
        KMedoids(3, metric="gower", metric_params={"categorical": [3]}).fit(blobs)
    with pytest.raises(DataError, match=r"bool or uint8 \(packed bits\) is allowed, not float64. Give X as booleans"):
        KMedoids(3, metric="jaccard").fit(blobs)
    with pytest.raises(DataError, match=r"X, row 0: latitude 48.85 .* are no angles in radians. Convert degrees"):
        KMedoids(1, metric="haversine").fit([[48.85, 2.35]])
    with pytest.raises(DataError, match=r"takes latitude and longitude, 2 columns, not 3"):
        KMedoids(1, metric="haversine").fit(blobs)
    with pytest.raises(DataError, match=r"precomputed matrix, row 0, column 1: 1 is not 2, its mirror"):
        KMedoids(1, metric="precomputed").fit([[0.0, 1.0], [2.0, 0.0]])
    with pytest.raises(DataError, match=r"dissimilarities must not be negative, not -1"):
        KMedoids(1, metric="precomputed").fit([[0.0, -1.0], [-1.0, 0.0]])
    with pytest.raises(UsageError, match=r"n_clusters='auto' is not for method 'pam'. Use method='fasterpam'"):
        KMedoids("auto", method="pam").fit(blobs)
    with pytest.raises(UsageError, match=r"weights of columns are for methods that keep all rows in memory"):
        KMedoids(3, metric="gower", method="clara", metric_params={"weights": [1, 2, 3]}).fit(blobs)
    with pytest.raises(UsageError, match="are for datasets, not for arrays"):
        KMedoids(3).fit(blobs, column="v")
    with pytest.raises(NotFittedError):
        KMedoids(3).predict(blobs)
