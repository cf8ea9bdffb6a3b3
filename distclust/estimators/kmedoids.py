"""`KMedoids`: scikit-learn's interface; any measure, clusters stand for one of their own rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmedoids import fit_kmedoids
from distclust.algorithms.kmedoids_config import KMedoidsConfig
from distclust.algorithms.medoid_choice import KChoice
from distclust.algorithms.medoid_seeds import MedoidInit
from distclust.algorithms.medoids import (
    MATRIX_METHODS,
    MedoidSolution,
    check_matrix,
    choose_k,
    dissimilarity_matrix,
    matrix_item,
    solve_clarans,
    solve_matrix,
)
from distclust.data.categories import Encoding
from distclust.engines.protocol import Engine
from distclust.errors import UsageError, unknown_name
from distclust.estimators._base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    ConvergenceWarning,
    TransformerMixin,
    _check_sample_weight,
    check_is_fitted,
    seed_of,
)
from distclust.estimators._measures import (
    check_parameters,
    compared,
    doubles,
    measure_of,
    measured,
    total,
    valid_rows,
)
from distclust.estimators._rows import RowColumns, is_dataset, is_frame
from distclust.kernels.dissimilarity import METRICS, Dissimilarity, nearest_two, table
from distclust.kernels.medoids import silhouette_sum
from distclust.ops.assign import predict
from distclust.ops.measured import MeasuredData, as_measured
from distclust.ops.medoids import MedoidSet, distances_to_medoids, score_sets

Rows = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Method = Literal["auto", "fasterpam", "fastpam1", "pam", "clarans", "clara", "onebatch"]
METHODS: tuple[Method, ...] = ("auto", "fasterpam", "fastpam1", "pam", "clarans", "clara", "onebatch")


class KMedoids(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-medoids: k rows such that the sum of dissimilarities of all rows to the nearest of them is low.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters; ``"auto"`` takes the one of highest medoid silhouette from 2 to ``k_max`` (datasets: of
        medoids of a sample, judged on all rows).
    metric : str or callable, default="euclidean"
        ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"manhattan"``, ``"chebyshev"``, ``"hamming"``,
        ``"haversine"`` (latitude and longitude in radians), ``"jaccard"`` (booleans, or bits packed in uint8),
        ``"gower"`` (numbers and categories, also missing), ``"precomputed"`` (``X`` is the matrix of all pairs), or a
        function of two rows that numba compiles.
    metric_params : dict, optional
        For ``gower``: ``categorical``, the columns of integers that are codes of categories (their names, in arrays
        their numbers); for arrays also ``weights`` of the columns.
    method : {"auto", "fasterpam", "fastpam1", "pam", "clarans", "clara", "onebatch"}, default="auto"
        ``fasterpam`` swaps medoids by the matrix of all pairs; ``fastpam1`` and ``pam`` are its elders; ``clarans``
        tries random candidates without a matrix; ``clara`` solves samples; ``onebatch`` judges all rows by a batch of
        columns. ``auto`` is ``fasterpam`` where the matrix fits ``matrix_bytes``, else the better of ``onebatch`` and
        ``clara``. Datasets know ``auto``, ``fasterpam``, ``clara`` and ``onebatch``.
    init : {"build", "lab", "k-means++", "random"} or (n_clusters,) int array, default="build"
        First medoids of methods with a matrix; an array has their row numbers. For rows in memory.
    max_iter : int, default=100
        Most passes over the candidates.
    k_max : int, default=50
        Largest number of clusters of ``"auto"``; at most a tenth of the rows.
    matrix_bytes : int, default=512 MB
        Largest matrix that ``auto`` makes. A method that is named may use half of the machine's memory.
    random_state : int, RandomState or None, default=None
        Key of all draws. ``build`` draws nothing.
    engine : str, distributed.Client, SparkSession or Engine, default="local"
        As for `KMeans`; for ``clara``, ``onebatch`` and datasets.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN and infinity in rows of a dataset; dropped rows get the label -1.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet.

    Attributes
    ----------
    medoid_indices_ : (n_clusters,) int64 array
        Row numbers of the medoids, ascending.
    cluster_centers_ : (n_clusters, n_features) array or None
        The medoids' rows (``gower`` on a dataset: numbers and codes); None for a precomputed matrix.
    labels_ : (n_samples,) int32 array
        Nearest medoid of every row, the first one among equals.
    inertia_ : float
        Weighted sum of the dissimilarities (not of their squares) to the nearest medoid, in float64.
    silhouette_ : float
        Medoid silhouette: weighted mean of 1 - nearest / second nearest dissimilarity; 0 for one cluster.
    n_swaps_, n_iter_ : int
        Swaps that led to the result, and passes.
    k_scores_ : tuple of KChoice
        For ``n_clusters="auto"``: ``k``, ``loss`` and ``silhouette`` of all that were tried, the largest first; else
        empty.
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
        matrix_bytes: int = 512 << 20,
        random_state: int | np.random.RandomState | None = None,
        engine: Any = "local",
        on_bad_rows: Literal["error", "drop"] = "error",
        staging: str | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.metric = metric
        self.metric_params = metric_params
        self.method = method
        self.init = init
        self.max_iter = max_iter
        self.k_max = k_max
        self.matrix_bytes = matrix_bytes
        self.random_state = random_state
        self.engine = engine
        self.on_bad_rows = on_bad_rows
        self.staging = staging

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        id_column: str | None = None,
        weight_column: str | None = None,
    ) -> Self:
        """Find the medoids.

        Parameters
        ----------
        X : (n_samples, n_features) array or data frame, Arrow table, path or paths, Spark or Dask frame
            Rows in memory, or a dataset as for `KMeans`; for ``metric="precomputed"`` an (n_samples, n_samples) array.
            A data frame is a dataset under ``gower``.
        y : ignored
        sample_weight : (n_samples,) array, optional
            For rows in memory. A row of weight 0 does not count; it gets a label.
        column, columns, id_column, weight_column : optional
            For datasets: the column of the vectors, or the columns that together are the row.

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
        names = RowColumns(column, columns, id_column, weight_column)
        self.k_scores_: tuple[KChoice, ...] = ()
        self._known: tuple[Encoding, Floats] | None = None
        self._of_dataset = self._is_dataset(X)
        if self._of_dataset:
            if sample_weight is not None:
                raise UsageError("sample_weight is for rows in memory.", do="Name the dataset's weight_column.")
            return self._fit_over_engine(X, names, None)
        X = self._rows(X, names, reset=True)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if self._wants_engine(X):
            return self._fit_over_engine(X, names, weights)
        return self._fit_in_memory(X, weights)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Find the medoids and return the labels of the rows; see `fit`."""
        labels: npt.NDArray[np.int32] = self.fit(X, sample_weight=sample_weight).labels_
        return labels

    def predict(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> npt.NDArray[np.int32]:
        """Return the nearest medoid of every row.

        Parameters
        ----------
        X : as for `fit`; for ``metric="precomputed"`` (n_rows, n_samples), dissimilarities to the rows of the fit
        column, columns : optional
            For datasets.

        Returns
        -------
        (n_rows,) int32 array
        """
        check_is_fitted(self)
        names = RowColumns(column, columns)
        if self._reads_dataset(X):
            with self._measured(X, names) as (engine, data):
                return predict(engine, data.pinned, self._medoids(data))
        return self._nearest(self._rows(X, names, reset=False))[0]

    def transform(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Floats:
        """Return the dissimilarity of every row to every medoid.

        Parameters
        ----------
        X, column, columns : as for `predict`

        Returns
        -------
        (n_rows, n_clusters) array
            float32 for float32 rows in memory, else float64.
        """
        check_is_fitted(self)
        names = RowColumns(column, columns)
        if self._reads_dataset(X):
            with self._measured(X, names) as (engine, data):
                return distances_to_medoids(engine, data.pinned, self._medoids(data))
        X = self._rows(X, names, reset=False)
        return self._distances(X).astype(np.float32 if X.dtype == np.float32 else np.float64, copy=False)

    def score(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        weight_column: str | None = None,
    ) -> float:
        """Return minus the inertia of rows under the fitted medoids; parameters as for `fit`."""
        check_is_fitted(self)
        names = RowColumns(column, columns, weight_column=weight_column)
        if self._reads_dataset(X):
            with self._measured(X, names) as (engine, data):
                return -score_sets(engine, data, [self._medoids(data)])[0].loss
        X = self._rows(X, names, reset=False)
        distances = self._nearest(X)[1]
        if sample_weight is not None:
            distances = distances * _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -total(distances)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.input_tags.allow_nan = self.metric == "gower"
        return tags

    def __sklearn_clone__(self) -> Self:
        # A compiled function and a live client are handles: a copy would be compiled again, or cannot be made.
        kept = {"metric": self.metric, "engine": self.engine}
        copied = {name: deepcopy(value) for name, value in self.get_params(deep=False).items() if name not in kept}
        return type(self)(**kept, **copied)

    @property
    def _n_features_out(self) -> int:
        return len(self.medoid_indices_)

    def _check_parameters(self) -> None:
        least = {"max_iter": 1, "k_max": 2, "matrix_bytes": 1} | (
            {} if self.n_clusters == "auto" else {"n_clusters": 1}
        )
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
                also = " or 'auto'" if name == "n_clusters" else ""
                raise UsageError(f"{name} == {value!r}, must be an integer of at least {smallest}{also}.")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        if isinstance(self.metric, str) and self.metric not in (*METRICS, "precomputed"):
            raise unknown_name("metric", self.metric, (*METRICS, "precomputed"))
        check_parameters(self.metric, self.metric_params or {})
        if self.method in ("clarans", "clara", "onebatch") and self.metric == "precomputed":
            raise UsageError(f"method {self.method!r} is not for a precomputed matrix.", do="Use method='fasterpam'.")
        if self.method in ("fastpam1", "pam", "clarans") and self.n_clusters == "auto":
            raise UsageError(f"n_clusters='auto' is not for method {self.method!r}.", do="Use method='fasterpam'.")

    def _is_dataset(self, X: Any) -> bool:
        return is_dataset(X) or (self.metric == "gower" and is_frame(X))

    def _reads_dataset(self, X: Any) -> bool:
        found = self._is_dataset(X)
        if self.metric == "gower" and found != self._of_dataset:
            raise UsageError(
                f"the medoids were found on {'a table' if self._of_dataset else 'an array'}, whose categories "
                f"{'an array' if self._of_dataset else 'a table'} does not have.",
                do="Give rows as to fit.",
            )
        return found

    def _rows(self, X: Any, names: RowColumns, *, reset: bool) -> Rows:
        if names != RowColumns():
            raise UsageError("column, columns, id_column and weight_column are for datasets, not for arrays.")
        return valid_rows(self, X, self.metric, reset=reset)

    def _wants_engine(self, X: Rows) -> bool:
        """Tell whether rows in memory go to an engine: by the method, or because their matrix is too large."""
        if self.metric == "precomputed" or self.method not in ("auto", "clara", "onebatch"):
            return False
        return self.method != "auto" or len(X) ** 2 * matrix_item(X) > self.matrix_bytes

    def _fit_in_memory(self, X: Rows, weights: Floats | None) -> Self:
        if self.metric == "precomputed":
            check_matrix(X)
        counted = np.arange(len(X)) if weights is None else np.flatnonzero(weights)
        least = 2 if self.n_clusters == "auto" else self.n_clusters
        if len(counted) < least:
            raise UsageError(f"n_samples={len(counted)} should be >= n_clusters={least}.")
        precomputed = self.metric == "precomputed"
        self._measure: Dissimilarity | None = (
            None if precomputed else measure_of(X, self.metric, self.metric_params or {})
        )
        found = self._solve(X, counted, weights)
        if not found.converged:
            warnings.warn(
                f"Medoids still changed in the last of max_iter = {self.max_iter} passes.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.medoid_indices_ = counted[found.medoids]
        self.cluster_centers_: Any = None if precomputed else X[self.medoid_indices_]
        self.n_swaps_, self.n_iter_ = found.n_swaps, found.n_iter
        self.labels_, near_dist, second_dist = self._nearest(X)
        self.inertia_ = total(near_dist if weights is None else near_dist * weights)
        mass = float(len(X)) if weights is None else total(weights)
        one = len(self.medoid_indices_) == 1
        self.silhouette_ = 0.0 if one else silhouette_sum(near_dist, second_dist, weights) / mass
        return self

    def _solve(self, X: Rows, counted: npt.NDArray[np.int64], weights: Floats | None) -> MedoidSolution:
        whole = len(counted) == len(X)
        how: dict[str, Any] = {
            "weights": None if weights is None else weights[counted],
            "max_iter": self.max_iter,
            "seed": seed_of(self.random_state),
        }
        if self._measure is None:
            matrix = X if whole else np.ascontiguousarray(X[np.ix_(counted, counted)])
        else:
            rows = compared(X if whole else X[counted])
            if self.method == "clarans":
                return solve_clarans(self._measure, rows, int(self.n_clusters), **how)
            matrix = dissimilarity_matrix(self._measure, rows)
        if self.n_clusters == "auto":
            found, scores = choose_k(matrix, self.k_max, init=self.init, **how)
            self.k_scores_ = tuple(KChoice(score.k, score.loss, score.silhouette) for score in scores)
            return found
        method = self.method if self.method in MATRIX_METHODS else "fasterpam"
        return solve_matrix(matrix, self.n_clusters, method=method, init=self.init, **how)

    def _fit_over_engine(self, X: Any, names: RowColumns, weights: Floats | None) -> Self:
        if self.method == "fastpam1" or self.method == "pam" or self.method == "clarans":
            raise UsageError(f"method {self.method!r} is for rows in memory.", do="Use method='auto'.")
        config = KMedoidsConfig(
            n_clusters=self.n_clusters,
            k_max=self.k_max,
            metric=self.metric,
            method=self.method,
            max_iter=self.max_iter,
            matrix_bytes=self.matrix_bytes,
            seed=seed_of(self.random_state),
        )
        in_memory = isinstance(X, np.ndarray)
        with self._measured(X, names, weights) as (engine, data):
            result = fit_kmedoids(engine, data, config)
            self.labels_ = predict(engine, data.pinned, result.medoids)
            self._measure = data.measure
            if data.view.encoding is not None:
                self._known = (data.view.encoding, data.measure.ranges)
        self.medoid_indices_ = result.row_ids
        self.cluster_centers_ = (
            X[result.row_ids] if in_memory else as_measured(data.measure, result.rows, precise=False)
        )
        self.n_features_in_ = self.cluster_centers_.shape[1]
        self.inertia_, self.silhouette_ = result.loss, result.silhouette
        self.n_swaps_, self.n_iter_ = result.n_swaps, result.n_iter
        self.k_scores_ = tuple(sorted(result.choices, key=lambda choice: -choice.k))
        return self

    def _measured(
        self, X: Any, names: RowColumns, weights: Floats | None = None
    ) -> AbstractContextManager[tuple[Engine, MeasuredData]]:
        return measured(
            X,
            names,
            weights,
            what=(self.metric, self.metric_params or {}, self._known),
            where=(self.engine, self.staging, self.on_bad_rows),
        )

    def _medoids(self, data: MeasuredData) -> MedoidSet:
        rows = compared(self.cluster_centers_)
        if data.width != rows.shape[1]:
            raise UsageError(
                f"X has {data.width} features, but {type(self).__name__} is expecting {rows.shape[1]} features "
                "as input."
            )
        return MedoidSet(rows.astype(data.view.dtype), data.measure)

    def _distances(self, X: Rows) -> Floats:
        if self._measure is None:
            return np.ascontiguousarray(X[:, self.medoid_indices_], dtype=np.float64)
        distances = table(self._measure, doubles(X), doubles(self.cluster_centers_))
        return distances.astype(np.float64, copy=False)

    def _nearest(self, X: Rows) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
        """Return nearest medoid, distance to it and to the second nearest, in float64."""
        if self._measure is not None:
            near, near_dist, _, second_dist = nearest_two(self._measure, doubles(X), doubles(self.cluster_centers_))
            return near, near_dist.astype(np.float64, copy=False), second_dist.astype(np.float64, copy=False)
        distances = self._distances(X)
        near = distances.argmin(axis=1).astype(np.int32)
        two = np.partition(distances, 1, axis=1) if distances.shape[1] > 1 else np.insert(distances, 1, np.inf, axis=1)
        return near, two[:, 0].copy(), two[:, 1].copy()
