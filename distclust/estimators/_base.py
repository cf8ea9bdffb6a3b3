"""What estimators share: rows in; of those that end with centres, labels, distances and scores out."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from distclust.algorithms.vectors import block_centers
from distclust.data.refs import Metric
from distclust.data.sources import Source
from distclust.engines.protocol import Engine, Pinned
from distclust.errors import MissingExtraError, UsageError
from distclust.estimators._rows import RowColumns, is_dataset, opened
from distclust.ops.assign import assign, predict, transform
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.profile import PreparedData, pin_for_model, plan, prepare
from distclust.ops.top import check_top, kneighbors

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    raise MissingExtraError(
        "The estimators need scikit-learn, which is not installed.", do='pip install "distclust[sklearn]"'
    ) from missing

__all__ = [
    "BaseEstimator",
    "CenterEstimator",
    "ClassNamePrefixFeaturesOutMixin",
    "ClusterMixin",
    "ConvergenceWarning",
    "Rows",
    "TransformerMixin",
    "_check_sample_weight",
    "check_is_fitted",
    "seed_of",
    "validate_data",
]

Rows = npt.NDArray[np.floating]


class RowEstimator(BaseEstimator):
    """Base of estimators over rows in memory or on storage: engine, source, preparation."""

    metric: Metric = "euclidean"
    precision: Literal["float32", "float64"]
    engine: Any
    on_bad_rows: Literal["error", "drop"]
    staging: str | None
    _offset: npt.NDArray[np.float64]

    def __sklearn_clone__(self) -> Self:
        # A live client, session or engine is a handle: a clone uses the same one, and it cannot be copied.
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name != "engine"}
        return type(self)(engine=self.engine, **{name: deepcopy(value) for name, value in parameters.items()})

    def _prepared(self, engine: Engine, source: Source, center: npt.NDArray[np.float64] | None = None) -> PreparedData:
        return prepare(
            engine,
            source,
            plan(engine, source),
            metric=self.metric,
            precision=self.precision,
            on_bad_rows=self.on_bad_rows,
            center=center,
        )

    def _validated(self, X: Any, sample_weight: Any, names: RowColumns, *, reset: bool) -> tuple[Any, Any]:
        if is_dataset(X):
            if sample_weight is not None:
                raise UsageError("sample_weight is for rows in memory.", do="Name the dataset's weight_column.")
            return X, None
        if names != RowColumns():
            raise UsageError("column, columns, id_column and weight_column are for datasets, not for arrays.")
        types = [np.float64, np.float32]
        # The profile, or else the block, finds what is not finite, and names the row: one reading of all rows less.
        X = validate_data(
            self, X, reset=reset, dtype=types, order="C", accept_large_sparse=False, ensure_all_finite=False
        )
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return X, sample_weight

    def _check_width(self, source: Source) -> None:
        if source.width != self.n_features_in_:
            raise UsageError(
                f"X has {source.width} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input."
            )

    def _pinned(self, engine: Engine, source: Source) -> Pinned:
        self._check_width(source)
        pinned, _ = pin_for_model(
            engine,
            source,
            plan(engine, source),
            center=self._offset,
            metric=self.metric,
            precision=self.precision,
            on_bad_rows=self.on_bad_rows,
        )
        return pinned


class CenterEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, RowEstimator, ABC):
    """Base of estimators that leave ``cluster_centers_``; subclasses fit."""

    n_clusters: int

    @abstractmethod
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters."""

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Find the clusters and return the labels of the rows; see `fit`."""
        labels: npt.NDArray[np.int32] = self.fit(X, sample_weight=sample_weight).labels_
        return labels

    def predict(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> npt.NDArray[np.int32]:
        """Return the cluster of every row: the nearest, unless the class says otherwise.

        Parameters
        ----------
        X : as for `fit`
        column, columns : optional
            For datasets.

        Returns
        -------
        (n_samples,) int32 array
        """
        check_is_fitted(self)
        names = RowColumns(column, columns)
        X, _ = self._validated(X, None, names, reset=False)
        with opened(X, self.engine, names, staging=self.staging) as (engine, source):
            return predict(engine, self._pinned(engine, source), self._rule())

    def transform(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Rows:
        """Return the distance of every row to every centre.

        Parameters
        ----------
        X : as for `fit`
        column, columns : optional
            For datasets.

        Returns
        -------
        (n_samples, n_clusters) array
            Euclidean distances, or 1 - cosine; of the type of ``X`` where that is float32 or float64.
        """
        check_is_fitted(self)
        names = RowColumns(column, columns)
        X, _ = self._validated(X, None, names, reset=False)
        with opened(X, self.engine, names, staging=self.staging) as (engine, source):
            table = transform(engine, self._pinned(engine, source), self._centers(), self.metric)
        return table.astype(X.dtype, copy=False) if isinstance(X, np.ndarray) else table

    def kneighbors(
        self,
        X: Any,
        n_neighbors: int = 5,
        return_distance: bool = True,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]] | npt.NDArray[np.int32]:
        """Return the nearest centres of every row, as scikit-learn's `NearestNeighbors` does of rows.

        Parameters
        ----------
        X : as for `fit`
        n_neighbors : int, default=5
            How many, at most the number of centres.
        return_distance : bool, default=True
        column, columns : optional
            For datasets.

        Returns
        -------
        distances : (n_samples, n_neighbors) float64 array
            Only with ``return_distance``: Euclidean, or 1 - cosine; ascending, up to rounding where the nearest centre
            and others are equally far. NaN for a row that was dropped.
        indices : (n_samples, n_neighbors) int32 array
            The first is the nearest, as `KMeans.predict` has it; the lowest index comes first among equals. -1 for a
            row that was dropped.

        Raises
        ------
        UsageError
            ``n_neighbors`` is more than there are centres.

        Examples
        --------
        >>> import numpy as np
        >>> from distclust import KMeans
        >>> km = KMeans(3, init=np.array([[0.0], [5.0], [10.0]]), engine="local[1]").fit([[0.0], [5.0], [10.0]])
        >>> km.kneighbors([[6.0]], n_neighbors=2)
        (array([[1., 4.]]), array([[1, 2]], dtype=int32))
        """
        check_is_fitted(self)
        check_top(n_neighbors, len(self.cluster_centers_), "n_neighbors")
        names = RowColumns(column, columns)
        X, _ = self._validated(X, None, names, reset=False)
        with opened(X, self.engine, names, staging=self.staging) as (engine, source):
            found = kneighbors(engine, self._pinned(engine, source), self._centers(), int(n_neighbors), self.metric)
        return found if return_distance else found[1]

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
        """Return minus the inertia of rows under the fitted centres; parameters as for `fit`."""
        check_is_fitted(self)
        names = RowColumns(column, columns, weight_column=weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=False)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = self._prepared(engine, source, self._offset)
            return -assign(engine, data, self._centers(), rule=self._rule()).inertia.total()

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _remember(self, vectors: Rows, offset: npt.NDArray[np.float64]) -> None:
        self.cluster_centers_ = vectors
        self.n_features_in_ = vectors.shape[1]
        self._offset = offset
        if len(vectors) < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({len(vectors)}) found smaller than n_clusters "
                f"({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _centers(self) -> CenterSet:
        return block_centers(self.cluster_centers_, self._offset, self.precision)

    def _rule(self) -> LabelRule:
        return self._centers()


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return scikit-learn's ``random_state`` as the key of our draws."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
