"""`KMedoids`: scikit-learn's interface; any measure, clusters stand for one of their own rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from distclust.algorithms.medoid_seeds import MedoidInit
from distclust.algorithms.medoids import (
    MATRIX_METHODS,
    KScore,
    MedoidSolution,
    check_matrix,
    choose_k,
    dissimilarity_matrix,
    solve_clarans,
    solve_matrix,
)
from distclust.errors import DataError, UsageError, unknown_name
from distclust.estimators._base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    ConvergenceWarning,
    TransformerMixin,
    _check_sample_weight,
    check_is_fitted,
    seed_of,
    validate_data,
)
from distclust.kernels.dissimilarity import METRICS, Dissimilarity, dissimilarity, nearest_two, table
from distclust.kernels.medoids import silhouette_sum

Rows = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Method = Literal["auto", "fasterpam", "fastpam1", "pam", "clarans"]
METHODS: tuple[Method, ...] = ("auto", "fasterpam", "fastpam1", "pam", "clarans")


class KMedoids(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-medoids: k rows such that the sum of dissimilarities of all rows to the nearest of them is low.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters; ``"auto"`` takes the one of highest medoid silhouette from 2 to ``k_max``.
    metric : str or callable, default="euclidean"
        ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"manhattan"``, ``"chebyshev"``, ``"hamming"``,
        ``"haversine"`` (latitude and longitude in radians), ``"jaccard"`` (booleans, or bits packed in uint8),
        ``"gower"`` (numbers and codes of categories, NaN where missing), ``"precomputed"`` (``X`` is the matrix of all
        pairs), or a function of two rows that numba compiles.
    metric_params : dict, optional
        For ``gower``: ``categorical``, the numbers of the columns that hold codes; ``weights`` of the columns.
    method : {"auto", "fasterpam", "fastpam1", "pam", "clarans"}, default="auto"
        ``fasterpam`` swaps medoids by the matrix of all pairs; ``fastpam1`` and ``pam`` are its elders; ``clarans``
        tries random candidates without a matrix. ``auto`` is ``fasterpam``.
    init : {"build", "lab", "k-means++", "random"} or (n_clusters,) int array, default="build"
        First medoids; an array has their row numbers. ``clarans`` starts from random rows.
    max_iter : int, default=100
        Most passes over the candidates.
    k_max : int, default=50
        Largest number of clusters of ``"auto"``; at most a tenth of the rows.
    random_state : int, RandomState or None, default=None
        Key of all draws. ``build`` draws nothing.

    Attributes
    ----------
    medoid_indices_ : (n_clusters,) int64 array
        Row numbers of the medoids, ascending.
    cluster_centers_ : (n_clusters, n_features) array or None
        The medoids' rows; None for a precomputed matrix.
    labels_ : (n_samples,) int32 array
        Nearest medoid of every row, the first one among equals.
    inertia_ : float
        Weighted sum of the dissimilarities (not of their squares) to the nearest medoid, in float64.
    silhouette_ : float
        Medoid silhouette: weighted mean of 1 - nearest / second nearest dissimilarity; 0 for one cluster.
    n_swaps_, n_iter_ : int
        Swaps that led to the result, and passes.
    k_scores_ : tuple of KScore
        For ``n_clusters="auto"``: loss and silhouette of every k that was tried; else empty.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Only for input with string column names.

    References
    ----------
    Schubert and Rousseeuw, *Fast and eager k-medoids clustering*, Information Systems, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust import KMedoids
    >>> X = np.array([[1., 2.], [1., 4.], [1., 0.], [10., 2.], [10., 4.], [10., 0.]])
    >>> km = KMedoids(n_clusters=2, metric="manhattan").fit(X)
    >>> km.medoid_indices_.tolist(), km.labels_.tolist(), km.inertia_
    ([0, 3], [0, 0, 0, 1, 1, 1], 8.0)
    """

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        *,
        metric: str | Callable[..., Any] = "euclidean",
        metric_params: Mapping[str, Any] | None = None,
        method: Method = "auto",
        init: MedoidInit | npt.ArrayLike = "build",
        max_iter: int = 100,
        k_max: int = 50,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.metric = metric
        self.metric_params = metric_params
        self.method = method
        self.init = init
        self.max_iter = max_iter
        self.k_max = k_max
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the medoids.

        Parameters
        ----------
        X : (n_samples, n_features) array or data frame; for ``metric="precomputed"`` (n_samples, n_samples)
        y : ignored
        sample_weight : (n_samples,) array, optional
            A row of weight 0 is no candidate and does not count; it gets a label.

        Returns
        -------
        self

        Raises
        ------
        UsageError
            A parameter out of range, or a matrix that does not fit in memory.
        DataError
            Rows or a matrix that cannot be clustered: where, what was found, what is allowed.
        """
        self._check_parameters()
        X = self._validated(X, reset=True)
        if self.metric == "precomputed":
            check_matrix(X)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        counted = np.arange(len(X)) if weights is None else np.flatnonzero(weights)
        self._check_k(len(counted))
        self._measure = None if self.metric == "precomputed" else self._measure_of(X)
        found = self._solve(X, counted, weights)
        if not found.converged:
            warnings.warn(
                f"Medoids still changed in the last of max_iter = {self.max_iter} passes.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.medoid_indices_ = counted[found.medoids]
        self.cluster_centers_: Any = None if self._measure is None else X[self.medoid_indices_]
        self.n_swaps_, self.n_iter_ = found.n_swaps, found.n_iter
        self._score_rows(X, weights)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Find the medoids and return the labels of the rows; see `fit`."""
        labels: npt.NDArray[np.int32] = self.fit(X, sample_weight=sample_weight).labels_
        return labels

    def predict(self, X: Any) -> npt.NDArray[np.int32]:
        """Return the nearest medoid of every row.

        Parameters
        ----------
        X : as for `fit`; for ``metric="precomputed"`` (n_rows, n_samples), dissimilarities to the rows of the fit

        Returns
        -------
        (n_rows,) int32 array
        """
        check_is_fitted(self)
        return self._nearest(self._validated(X, reset=False))[0]

    def transform(self, X: Any) -> Floats:
        """Return the dissimilarity of every row to every medoid.

        Parameters
        ----------
        X : as for `predict`

        Returns
        -------
        (n_rows, n_clusters) array
            float32 for float32 rows, else float64.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        kind = np.float32 if X.dtype == np.float32 else np.float64
        return self._distances(X).astype(kind, copy=False)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of rows under the fitted medoids; parameters as for `fit`."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        distances = self._nearest(X)[1]
        if sample_weight is not None:
            distances = distances * _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -_total(distances)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.input_tags.allow_nan = self.metric == "gower"
        return tags

    def __sklearn_clone__(self) -> Self:
        # A compiled function is the same object everywhere: a copy would be compiled again.
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name != "metric"}
        return type(self)(metric=self.metric, **{name: deepcopy(value) for name, value in parameters.items()})

    @property
    def _n_features_out(self) -> int:
        return len(self.medoid_indices_)

    def _check_parameters(self) -> None:
        least = {"max_iter": 1, "k_max": 2} | ({} if self.n_clusters == "auto" else {"n_clusters": 1})
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
                also = " or 'auto'" if name == "n_clusters" else ""
                raise UsageError(f"{name} == {value!r}, must be an integer of at least {smallest}{also}.")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if isinstance(self.metric, str) and self.metric not in (*METRICS, "precomputed"):
            raise unknown_name("metric", self.metric, (*METRICS, "precomputed"))
        if self.method == "clarans" and (self.metric == "precomputed" or self.n_clusters == "auto"):
            what = "a precomputed matrix" if self.metric == "precomputed" else "n_clusters='auto'"
            raise UsageError(f"method 'clarans' is not for {what}.", do="Use method='fasterpam'.")

    def _check_k(self, n: int) -> None:
        if self.n_clusters == "auto":
            if n < 2:
                raise UsageError(f"n_samples={n} should be >= 2 for n_clusters='auto'.")
        elif n < self.n_clusters:
            raise UsageError(f"n_samples={n} should be >= n_clusters={self.n_clusters}.")

    def _validated(self, X: Any, *, reset: bool) -> Rows:
        """Return rows of a type that the metric takes."""
        if self.metric == "jaccard":
            rows: Rows = validate_data(self, X, reset=reset, dtype=None, order="C")
            if rows.dtype not in (np.bool_, np.uint8):
                raise DataError(
                    f"metric 'jaccard' compares sets: bool or uint8 (packed bits) is allowed, not {rows.dtype}.",
                    where="X",
                    do="Give X as booleans (X > 0).",
                )
            return rows
        wide = self.metric in ("gower", "haversine")
        rows = validate_data(
            self,
            X,
            reset=reset,
            dtype=np.float64 if wide else [np.float64, np.float32],
            order="C",
            ensure_all_finite="allow-nan" if self.metric == "gower" else True,
        )
        if self.metric == "haversine":
            _check_places(rows)
        return rows

    def _measure_of(self, X: Rows) -> Dissimilarity:
        parameters = dict(self.metric_params or {})
        allowed = ("categorical", "weights") if self.metric == "gower" else ()
        for name in parameters:
            if name not in allowed:
                what = self.metric if isinstance(self.metric, str) else "of a function"
                raise UsageError(f"metric_params has {name!r}; metric {what!r} takes {list(allowed) or 'none'}.")
        if self.metric != "gower":
            return dissimilarity(self.metric)
        low, high = np.fmin.reduce(X), np.fmax.reduce(X)
        ranges = np.where(np.isnan(low), 0.0, high - low)
        categorical = np.atleast_1d(np.asarray(parameters.get("categorical", ()), dtype=np.int64))
        wrong = categorical[(categorical < 0) | (categorical >= X.shape[1])]
        if wrong.size:
            raise UsageError(f"metric_params: categorical has column {wrong[0]}; X has 0 to {X.shape[1] - 1}.")
        ranges[categorical] = -1.0
        return dissimilarity("gower", ranges=ranges, weights=parameters.get("weights"))

    def _solve(self, X: Rows, counted: npt.NDArray[np.int64], weights: Floats | None) -> MedoidSolution:
        whole = len(counted) == len(X)
        masses = None if weights is None else weights[counted]
        seed = seed_of(self.random_state)
        self.k_scores_: tuple[KScore, ...] = ()
        if self._measure is None:
            matrix = X if whole else np.ascontiguousarray(X[np.ix_(counted, counted)])
        else:
            rows = _packed(X if whole else X[counted])
            if self.method == "clarans":
                assert self.n_clusters != "auto"
                return solve_clarans(
                    self._measure, rows, self.n_clusters, weights=masses, max_iter=self.max_iter, seed=seed
                )
            matrix = dissimilarity_matrix(self._measure, rows)
        if self.n_clusters == "auto":
            found, self.k_scores_ = choose_k(
                matrix, self.k_max, init=self.init, weights=masses, max_iter=self.max_iter, seed=seed
            )
            return found
        method = self.method if self.method in MATRIX_METHODS else "fasterpam"
        return solve_matrix(
            matrix, self.n_clusters, method=method, init=self.init, weights=masses, max_iter=self.max_iter, seed=seed
        )

    def _score_rows(self, X: Rows, weights: Floats | None) -> None:
        self.labels_, near_dist, second_dist = self._nearest(X)
        mass = float(len(X)) if weights is None else _total(weights)
        self.inertia_ = _total(near_dist if weights is None else near_dist * weights)
        one = len(self.medoid_indices_) == 1
        self.silhouette_ = 0.0 if one else silhouette_sum(near_dist, second_dist, weights) / mass

    def _distances(self, X: Rows) -> Floats:
        if self._measure is None:
            return np.ascontiguousarray(X[:, self.medoid_indices_], dtype=np.float64)
        distances = table(self._measure, _doubles(X), _doubles(self.cluster_centers_))
        return distances.astype(np.float64, copy=False)

    def _nearest(self, X: Rows) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
        """Return nearest medoid, distance to it and to the second nearest, in float64."""
        if self._measure is not None:
            near, near_dist, _, second_dist = nearest_two(self._measure, _doubles(X), _doubles(self.cluster_centers_))
            return near, near_dist.astype(np.float64, copy=False), second_dist.astype(np.float64, copy=False)
        distances = self._distances(X)
        near = distances.argmin(axis=1).astype(np.int32)
        two = np.partition(distances, 1, axis=1) if distances.shape[1] > 1 else np.insert(distances, 1, np.inf, axis=1)
        return near, two[:, 0].copy(), two[:, 1].copy()


def _packed(rows: Rows) -> Rows:
    return np.packbits(rows, axis=1) if rows.dtype == np.bool_ else rows


def _doubles(rows: Rows) -> Rows:
    rows = _packed(rows)
    return rows if rows.dtype == np.uint8 else np.ascontiguousarray(rows, dtype=np.float64)


def _total(values: Floats) -> float:
    # One after the other: numpy's own sum chooses its order by shape and machine.
    return float(np.cumsum(values)[-1])


def _check_places(rows: Rows) -> None:
    if rows.shape[1] != 2:
        raise DataError(f"metric 'haversine' takes latitude and longitude, 2 columns, not {rows.shape[1]}.", where="X")
    far = np.flatnonzero((abs(rows[:, 0]) > 1.0001 * np.pi / 2) | (abs(rows[:, 1]) > 4 * np.pi))
    if len(far):
        raise DataError(
            f"latitude {rows[far[0], 0]:g} and longitude {rows[far[0], 1]:g} are no angles in radians.",
            where=f"X, row {far[0]}",
            do="Convert degrees by numpy.radians.",
        )
