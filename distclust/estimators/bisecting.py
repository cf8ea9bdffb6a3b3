"""`BisectingKMeans`: scikit-learn's interface to the tree of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from distclust.algorithms.bisecting import fit_bisecting, tree_of
from distclust.algorithms.bisecting_config import BisectingConfig, Strategy, TreeLabels
from distclust.data.refs import Metric
from distclust.errors import UsageError
from distclust.estimators._base import CenterEstimator
from distclust.estimators._rows import RowColumns, opened
from distclust.ops.assign import assign, predict
from distclust.ops.centers import LabelRule


class BisectingKMeans(CenterEstimator):
    """Bisecting k-means with equal bits on every engine, in any partitioning.

    Clusters are split in two, always the worst, until there are ``n_clusters``. Splits start along the principal axis:
    nothing is drawn, so there is no ``random_state``.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    bisecting_strategy : {"biggest_inertia", "largest_cluster"}, default="biggest_inertia"
        Which cluster is split next.
    labels : {"tree", "nearest"}, default="tree"
        How rows are labelled: down the tree, or by the nearest of all centres.
    max_iter : int, default=20
        Most two-means passes of one split.
    rtol : float, default=1e-4
        A split is done when its new centres lower its inertia by no more than this share.
    metric : {"euclidean", "cosine"}, default="euclidean"
    precision : {"float32", "float64"}, default="float32"
        Type in which centred rows are compared; sums are exact integers in both.
    engine : str, distributed.Client, SparkSession or Engine, default="local"
        ``"local"``, ``"local[4]"``, ``"dask"``, ``"dask://host:8786"``, ``"spark"``, ``"spark://host:7077"``.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN, infinity and, under cosine, zero rows; dropped rows get the label -1.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet.

    Attributes
    ----------
    cluster_centers_ : (n_clusters, n_features) array
        float64 for float64 and large integer input, else float32. Neighbours in the tree lie beside each other.
    labels_ : (n_samples,) int32 array
        Cluster of every row of the training data.
    inertia_ : float
        Sum of weighted squared distances to the centres of these labels, exact in float64.
    children_ : (n_clusters - 1, 2) int32 array
        Nodes below each inner node: those below n_clusters are clusters, node n_clusters + i is row i. The last split
        comes first, so that merging clusters row by row undoes the splits.
    inner_centers_ : (n_clusters - 1, n_features) array
        Centres of the inner nodes.
    n_iter_ : int
        Passes over the rows.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Only for input with string column names.

    See Also
    --------
    sklearn.cluster.BisectingKMeans : The same for one machine.

    References
    ----------
    Steinbach, Karypis and Kumar, *A comparison of document clustering techniques*, 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust import BisectingKMeans
    >>> X = np.array([[1., 1.], [1., 2.], [10., 1.], [10., 2.], [10., 6.]])
    >>> km = BisectingKMeans(n_clusters=3, engine="local[1]").fit(X)
    >>> sorted(np.round(km.cluster_centers_, 6).tolist())
    [[1.0, 1.5], [10.0, 1.5], [10.0, 6.0]]
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        bisecting_strategy: Strategy = "biggest_inertia",
        labels: TreeLabels = "tree",
        max_iter: int = 20,
        rtol: float = 1e-4,
        metric: Metric = "euclidean",
        precision: Literal["float32", "float64"] = "float32",
        engine: Any = "local",
        on_bad_rows: Literal["error", "drop"] = "error",
        staging: str | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.bisecting_strategy = bisecting_strategy
        self.labels = labels
        self.max_iter = max_iter
        self.rtol = rtol
        self.metric = metric
        self.precision = precision
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
        """Grow the tree; parameters and errors as for `KMeans.fit`."""
        config = BisectingConfig(
            n_clusters=self.n_clusters,
            bisecting_strategy=self.bisecting_strategy,
            labels=self.labels,
            metric=self.metric,
            max_iter=self.max_iter,
            rtol=self.rtol,
            allow_fewer=True,
        )
        names = RowColumns(column, columns, id_column, weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=True)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = self._prepared(engine, source)
            if data.moments.n_rows < config.n_clusters:
                raise UsageError(f"n_samples={data.moments.n_rows} should be >= n_clusters={config.n_clusters}.")
            result = fit_bisecting(engine, data, config)
            self.children_, self.inner_centers_ = result.children, result.inner
            self.n_iter_ = result.n_iter
            self._remember(result.vectors, data.offset)
            self.labels_ = predict(engine, data.pinned, self._rule())
            self.inertia_ = assign(engine, data, self._centers(), rule=self._rule()).inertia.total()
        return self

    def _rule(self) -> LabelRule:
        if self.labels == "nearest":
            return self._centers()
        return tree_of(self.cluster_centers_, self.inner_centers_, self.children_, self._offset, self.precision)
