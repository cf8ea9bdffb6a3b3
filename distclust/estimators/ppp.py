"""`PPP`: clusters that validate themselves, with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClusterMixin
from sklearn.utils.validation import check_is_fitted

from distclust.algorithms.ppp import PPPResult, fit_ppp
from distclust.algorithms.ppp_config import Covariance, Features, PPPConfig, Scaling
from distclust.engines.protocol import Engine, Pinned
from distclust.errors import UsageError
from distclust.estimators._base import RowEstimator
from distclust.estimators._rows import RowColumns, opened
from distclust.ops.assign import predict
from distclust.ops.mixture import Mixture, densities, memberships
from distclust.ops.profile import pin_for_model, plan, prepare

Floats = npt.NDArray[np.float64]


class PPP(ClusterMixin, RowEstimator):
    """Probabilistic partitive partitioning: clusters that validate themselves, without k and without a seed.

    Rows are cut into cells; Gaussian mixtures over the cells propose clusters; passes over the rows refine them, and
    any two between which the rows show no valley become one. The order of the rows, their partitioning and the engine
    change no bit of the mixture.

    Parameters
    ----------
    max_clusters : int, default=64
        Most components that are tried.
    covariance_type : {"auto", "full", "tied", "diag"}, default="auto"
        ``auto`` takes the type of lowest BIC.
    scaling : {"robust", "whiten", "none"}, default="robust"
        Columns are divided by the range of their middle 98 %; ``whiten`` goes on to principal components of unit
        variance.
    explained_variance : float, default=0.9
        From 33 columns on: share of the variance that principal components have to keep.
    max_components : int, default=32
        Most principal components.
    features : {"auto", "all"}, default="auto"
        ``auto`` leaves out columns that do not separate the clusters, unless that makes them less stable.
    max_valley : float, default=0.9
        Two clusters are one where the density between them does not fall below this share of the lower peak.
    min_overlap, min_posterior : float, default=0.75 and 0.9
        What a valid cluster has to reach; see ``verdicts_``.
    max_iter : int, default=10
        Most passes of expectation and maximisation in each round of validation.
    reg_covar : float, default=1e-4
        Added to variances, relative to the scale of the columns.
    engine : str, distributed.Client, SparkSession or Engine, default="local"
        ``"local"``, ``"local[4]"``, ``"dask"``, ``"dask://host:8786"``, ``"spark"``, ``"spark://host:7077"``.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN and infinity; dropped rows get the label -1.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet.

    Attributes
    ----------
    n_clusters_ : int
    labels_ : (n_samples,) int32 array
        Most probable cluster of every row; clusters are numbered by descending weight.
    cluster_centers_ : (n_clusters_, n_features) array
    weights_ : (n_clusters_,) array
    clusterable_ : bool
        Whether there is more than one cluster.
    verdicts_ : list of dict
        For each cluster: rows, overlap of partition and mixture, mean posterior, stability, valid or not, reasons.
    stability_ : float
        Mean Jaccard index of the clusters with those of fits to halves of the rows.
    feature_mask_ : (n_features,) bool array
        Columns that took part in the fit that was kept.
    report_ : dict
        All of it, with the splits that were accepted and refused, the path over k, clusterability before and after.
    n_iter_ : int
        Passes of the mixture over the rows.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Only for input with string column names.

    See Also
    --------
    distclust.GaussianMixture : With a number of components given.

    References
    ----------
    Sultan, *Probabilistic partitive partitioning*, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust import PPP
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(center, 1.0, (200, 2)) for center in (-6.0, 0.0, 6.0)])
    >>> ppp = PPP(engine="local[1]").fit(X)
    >>> ppp.n_clusters_, [verdict["valid"] for verdict in ppp.verdicts_]
    (3, [True, True, True])
    """

    precision: Literal["float32", "float64"] = "float64"

    def __init__(
        self,
        *,
        max_clusters: int = 64,
        covariance_type: Covariance = "auto",
        scaling: Scaling = "robust",
        explained_variance: float = 0.9,
        max_components: int = 32,
        features: Features = "auto",
        max_valley: float = 0.9,
        min_overlap: float = 0.75,
        min_posterior: float = 0.9,
        max_iter: int = 10,
        reg_covar: float = 1e-4,
        engine: Any = "local",
        on_bad_rows: Literal["error", "drop"] = "error",
        staging: str | None = None,
    ) -> None:
        self.max_clusters = max_clusters
        self.covariance_type = covariance_type
        self.scaling = scaling
        self.explained_variance = explained_variance
        self.max_components = max_components
        self.features = features
        self.max_valley = max_valley
        self.min_overlap = min_overlap
        self.min_posterior = min_posterior
        self.max_iter = max_iter
        self.reg_covar = reg_covar
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
        """Find the clusters; parameters and errors as for `GaussianMixture.fit`."""
        config = PPPConfig(**{name: getattr(self, name) for name in PPPConfig.__dataclass_fields__})
        names = RowColumns(column, columns, id_column, weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=True)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = prepare(
                engine,
                source,
                plan(engine, source),
                precision="float64",
                on_bad_rows=self.on_bad_rows,
                center="midrange",
            )
            result = fit_ppp(engine, data, config)
            self._remember(result, source.width)
            self.labels_ = predict(engine, result.fit.data.pinned, self._mixture())
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Find the clusters and return the labels of the rows; see `fit`."""
        labels: npt.NDArray[np.int32] = self.fit(X, sample_weight=sample_weight).labels_
        return labels

    def predict(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> npt.NDArray[np.int32]:
        """Return the most probable cluster of every row, int32 (n_samples,); parameters as for `fit`."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return predict(engine, pinned, self._mixture())

    def predict_proba(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Floats:
        """Return the probability of every cluster for every row, (n_samples, n_clusters_)."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return memberships(engine, pinned, self._mixture())

    def score_samples(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Floats:
        """Return the log density of every row, (n_samples,), in the coordinates of the fit."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return densities(engine, pinned, self._mixture())

    def _remember(self, result: PPPResult, width: int) -> None:
        self._offset, self._axes = result.center, result.projection.axes
        self._covariance_type = result.mixture.covariance_type
        self._means, self._covariances = result.mixture.means, result.mixture.covariances
        self.weights_ = result.mixture.weights
        self.cluster_centers_ = result.centers
        self.n_clusters_ = len(result.mixture)
        self.clusterable_ = result.clusterable
        self.report_ = result.report()
        self.verdicts_ = self.report_["verdicts"]
        self.n_iter_ = len(result.fit.passes)
        self.stability_ = result.fit.mean_stability
        self.feature_mask_ = np.isin(np.arange(width), result.columns)
        self.n_features_in_ = width

    def _mixture(self) -> Mixture:
        return Mixture(self._covariance_type, self.weights_, self._means, self._covariances)

    def _pinned(self, engine: Engine, source: Any) -> Pinned:
        if source.width != self.n_features_in_:
            raise UsageError(
                f"X has {source.width} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input."
            )
        pinned, _ = pin_for_model(
            engine,
            source,
            plan(engine, source),
            center=self._offset,
            metric="euclidean",
            precision="float64",
            on_bad_rows=self.on_bad_rows,
            axes=self._axes,
        )
        return pinned

    @contextmanager
    def _over(self, X: Any, names: RowColumns) -> Iterator[tuple[Engine, Pinned]]:
        check_is_fitted(self)
        X, _ = self._validated(X, None, names, reset=False)
        with opened(X, self.engine, names, staging=self.staging) as (engine, source):
            yield engine, self._pinned(engine, source)
