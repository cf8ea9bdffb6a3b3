"""`KMeans`: scikit-learn's interface, on arrays in memory and on datasets too large for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import KMeansResult, fit_kmeans
from distclust.algorithms.kmeans_config import AlgorithmName, FitMode, InitName, KMeansConfig, StrategyName
from distclust.algorithms.online import RunningCenters, add_batch, first_centers
from distclust.algorithms.two_level import fit_two_level, is_two_level
from distclust.algorithms.vectors import block_centers, stored_type
from distclust.artifacts.model import Model, check_metric, load_model
from distclust.data.refs import Metric
from distclust.engines.protocol import Engine
from distclust.errors import UsageError
from distclust.estimators._base import CenterEstimator, Rows, seed_of
from distclust.estimators._rows import RowColumns, opened
from distclust.ops.assign import assign, cluster_masses, predict
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.profile import PreparedData
from distclust.ops.routing import RoutedCenters


class KMeans(CenterEstimator):
    """k-means with equal bits on every engine, in any partitioning.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means||", "k-means++", "random"}, (n_clusters, n_features) array, Path or Model, default="k-means||"
        First centres. On small data ``k-means||`` is greedy k-means++ over all rows. A path names the directory of an
        earlier run, or of its model, whose centres are taken; its metric must be ``metric``.
    n_init : int, default=1
        Initialisations; the one of lowest inertia is kept.
    max_iter : int, default=300
        Most full passes of one initialisation.
    tol : float, default=1e-4
        Stop when the sum of squared centre movements is at most this share of the mean column variance.
    rtol : float, default=1e-4
        Stop when a pass lowers the inertia by less than this share; 0 switches the rule off.
    fit_mode : {"auto", "full", "progressive"}, default="auto"
        ``progressive`` runs the first passes on growing samples, and with many clusters most passes by lists of
        centres near each row; ``auto`` does so where it pays. Labels are those of the nearest centres in each case.
        ``full`` is plain Lloyd on all rows from seeds found among all rows; so is a fit from given centres.
    algorithm : {"auto", "lloyd"}, default="auto"
        ``auto`` skips distances that bounds exclude, where that pays; ``lloyd`` keeps no bounds. The bits are the same.
    strategy : {"auto", "flat", "two-level"}, default="auto"
        ``two-level`` clusters inside about sqrt(n_clusters) cells, for very many clusters; ``auto`` does so from 20 000
        on. It groups rows through files in scratch. Above 50 000 clusters rows are labelled by the nearest centre of
        the nearest 16 cells.
    compute_labels : bool, default=True
        Whether `fit` labels its rows when the centres are found, as scikit-learn's `MiniBatchKMeans` has it. Without,
        it ends a pass or two earlier, where lists see no more to gain; `predict` labels rows later, these or others.
        `partial_fit` labels its batches in any case.
    metric : {"euclidean", "cosine"}, default="euclidean"
        ``cosine`` is spherical k-means.
    precision : {"float32", "float64"}, default="float32"
        Type in which centred rows are compared; sums are exact integers in both.
    random_state : int, RandomState or None, default=None
        Key of all draws; an int makes the result reproducible on every engine.
    engine : str, distributed.Client, SparkSession or Engine, default="local"
        ``"local"``, ``"local[4]"``, ``"dask"``, ``"dask://host:8786"``, ``"spark"``, ``"spark://host:7077"``.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN, infinity and, under cosine, zero rows; dropped rows get the label -1.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet.

    Attributes
    ----------
    cluster_centers_ : (n_clusters, n_features) array
        float64 for float64 and large integer input, else float32.
    labels_ : (n_samples,) int32 array
        Cluster of every row of the training data. Not after a `fit` with ``compute_labels=False``.
    inertia_ : float
        Sum of weighted squared distances to the final centres, to at least 12 digits. After a `fit` with
        ``compute_labels=False`` that of the last pass: to the centres that it began with.
    counts_ : (n_clusters,) float64 array
        Rows of each cluster, or their weights: what `partial_fit` goes on from. Not after a `fit` with
        ``compute_labels=False``.
    n_iter_ : int
        Full passes of the kept initialisation.
    n_steps_ : int
        Batches that `partial_fit` has taken.
    history_ : list of dict
        Inertia, shift, moved rows, reassigned clusters, seconds and rows of every pass, those over samples first.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Only for input with string column names.

    See Also
    --------
    sklearn.cluster.KMeans : The same for one machine.

    References
    ----------
    Lloyd, *Least squares quantization in PCM*, 1982. Bahmani et al., *Scalable k-means++*, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust import KMeans
    >>> X = np.array([[1., 2.], [1., 4.], [1., 0.], [10., 2.], [10., 4.], [10., 0.]])
    >>> km = KMeans(n_clusters=2, random_state=0, engine="local[1]").fit(X)
    >>> km.cluster_centers_[np.argsort(km.cluster_centers_[:, 0])]
    array([[ 1.,  2.],
           [10.,  2.]])
    >>> km.inertia_
    16.0
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: InitName | Rows | Path | Model = "k-means||",
        n_init: int = 1,
        max_iter: int = 300,
        tol: float = 1e-4,
        rtol: float = 1e-4,
        fit_mode: FitMode = "auto",
        algorithm: AlgorithmName = "auto",
        strategy: StrategyName = "auto",
        compute_labels: bool = True,
        metric: Metric = "euclidean",
        precision: Literal["float32", "float64"] = "float32",
        random_state: int | np.random.RandomState | None = None,
        engine: Any = "local",
        on_bad_rows: Literal["error", "drop"] = "error",
        staging: str | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.rtol = rtol
        self.fit_mode = fit_mode
        self.algorithm = algorithm
        self.strategy = strategy
        self.compute_labels = compute_labels
        self.metric = metric
        self.precision = precision
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
        """Find the clusters.

        Parameters
        ----------
        X : (n_samples, n_features) array or data frame, Arrow table, path or paths, Spark or Dask frame
            Rows in memory, or a dataset: files, directories or globs of Parquet, Arrow IPC or npy.
        y : ignored
        sample_weight : (n_samples,) array, optional
            Weights of rows in memory; for datasets see ``weight_column``.
        column, columns, id_column, weight_column : optional
            For datasets: the column of the vectors, or the numeric columns that together are the vector.

        Returns
        -------
        self

        Raises
        ------
        UsageError
            A parameter out of range.
        DataError
            Rows that cannot be clustered: where, what was found, what is allowed.
        """
        config = self._config()
        names = RowColumns(column, columns, id_column, weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=True)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = self._prepared(engine, source)
            self._check_init(config, data)
            if data.moments.n_rows < config.n_clusters:
                raise UsageError(f"n_samples={data.moments.n_rows} should be >= n_clusters={config.n_clusters}.")
            self._cells: tuple[CenterSet, npt.NDArray[np.int64], int] | None = None
            if is_two_level(config):
                result: KMeansResult = self._fit_two_level(engine, data, config)
            else:
                result = fit_kmeans(engine, data, config)
            self._forget()
            self.inertia_ = result.history[-1].inertia
            if self.compute_labels:
                self._label(engine, data, result)
        self.n_iter_ = result.n_iter
        self.n_steps_ = 0
        self.history_ = [vars(entry) for entry in result.history]
        self._remember(result.vectors, data.offset)
        return self

    def _forget(self) -> None:
        """Drop what an earlier fit or batch has left and a fit without labels does not replace."""
        for name in ("labels_", "counts_", "_running"):
            if hasattr(self, name):
                delattr(self, name)

    def _label(self, engine: Engine, data: PreparedData, result: KMeansResult) -> None:
        rule = self._routed(result.centers)
        self.labels_ = predict(engine, data.pinned, rule or result.centers)
        if result.inertia is None:
            self.inertia_ = assign(engine, data, result.centers, rule=rule).inertia.total()
        else:
            self.inertia_ = result.inertia
        counts = np.bincount(self.labels_[self.labels_ >= 0], minlength=len(result.centers))
        self.counts_ = counts.astype(np.float64)
        if data.source.columns.weight is not None:
            self.counts_ = cluster_masses(engine, data, rule or result.centers, len(result.centers))
        self._running = RunningCenters(result.vectors.astype(np.float64), self.counts_)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Find the clusters and return the labels of the rows, also with ``compute_labels=False``; see `fit`."""
        self.fit(X, sample_weight=sample_weight)
        return self.labels_ if self.compute_labels else self.predict(X)

    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        column: str | None = None,
        columns: Sequence[str] = (),
        weight_column: str | None = None,
    ) -> Self:
        """Take one batch of a stream: one pass that moves every centre to the mean of all rows it was given so far.

        The first batch also gives the first centres, by ``init``; after `fit`, the fitted centres go on. A row is
        given to the centre that is nearest before the batch moves it, and never to another one later, so the result
        depends on the order of the batches, but not on engine, partitions or workers: the same batches in the same
        order give the same bits. Rows of old batches weigh as much as new ones. No centre is moved because it has few
        rows. ``max_iter``, ``tol``, ``rtol``, ``n_init``, ``fit_mode``, ``algorithm``, ``strategy`` and
        ``compute_labels`` are not used.

        Parameters
        ----------
        X, y, sample_weight, column, columns, weight_column
            As for `fit`. A batch may have any number of rows, the first one ``n_clusters`` distinct ones at least.

        Returns
        -------
        self
            With ``labels_`` and ``inertia_`` of this batch under the moved centres, ``counts_`` and ``n_steps_``.

        Raises
        ------
        UsageError
            The first batch has fewer rows than clusters, or a later one another width; or the centres are of a fit with
            ``compute_labels=False``.
        DataError
            The first batch has fewer distinct rows than clusters.

        References
        ----------
        MacQueen, *Some methods for classification and analysis of multivariate observations*, 1967. Sculley,
        *Web-scale k-means clustering*, 2010.

        Examples
        --------
        >>> import numpy as np
        >>> from distclust import KMeans
        >>> km = KMeans(2, init=np.array([[0.0], [8.0]]), engine="local[1]")
        >>> km.partial_fit([[0.0], [1.0], [8.0]]).cluster_centers_.tolist()
        [[0.5], [8.0]]
        >>> km.partial_fit([[2.0], [10.0], [12.0]]).cluster_centers_.tolist()
        [[1.0], [10.0]]
        >>> km.counts_.tolist()
        [3.0, 3.0]
        """
        first = not hasattr(self, "_running")
        if first and hasattr(self, "cluster_centers_"):
            raise UsageError(
                "the fit computed no labels, so that it is not known how many rows each centre stands for.",
                do="Fit with compute_labels=True, or begin a stream with init=model.cluster_centers_.",
            )
        config = self._config() if first else None
        names = RowColumns(column, columns, weight_column=weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=first)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            if not first:
                self._check_width(source)
            data = self._prepared(engine, source, None if first else self._running.middle())
            state = self._running if config is None else self._first_centers(engine, data, config)
            state = add_batch(engine, data, state)
            self._cells = None  # moved centres may have left their cells: labels are by the nearest from here on
            vectors = state.centers.astype(stored_type(data))
            centers = block_centers(vectors, data.offset, self.precision)
            self.labels_ = predict(engine, data.pinned, centers)
            self.inertia_ = assign(engine, data, centers).inertia.total()
        self.n_steps_ = 1 if first else self.n_steps_ + 1
        self._running, self.counts_ = state, state.mass
        self._cells = None  # the centres move, rows go to the nearest of all
        self._remember(vectors, data.offset)
        return self

    def _first_centers(self, engine: Engine, data: PreparedData, config: KMeansConfig) -> RunningCenters:
        self._check_init(config, data)
        if data.moments.n_rows < config.n_clusters:
            raise UsageError(
                f"n_samples={data.moments.n_rows} should be >= n_clusters={config.n_clusters}.",
                do="Begin with a larger batch.",
            )
        return first_centers(engine, data, config)

    @staticmethod
    def _check_init(config: KMeansConfig, data: PreparedData) -> None:
        if isinstance(config.init, np.ndarray) and config.init.shape[1] != data.width:
            raise UsageError(
                f"init has {config.init.shape[1]} columns, the rows have {data.width}; they must be equal."
            )

    def _fit_two_level(self, engine: Engine, data: PreparedData, config: KMeansConfig) -> KMeansResult:
        result = fit_two_level(engine, data, config)
        if result.rule is not None:
            self._cells = result.rule.cells, result.rule.starts, result.rule.probes
        return result

    def _routed(self, centers: CenterSet) -> LabelRule | None:
        """Return how a fit in two levels labels rows; None for the nearest centre."""
        return None if self._cells is None else RoutedCenters(*self._cells[:2], centers, self._cells[2])

    def _rule(self) -> LabelRule:
        centers = self._centers()
        return self._routed(centers) or centers

    def _config(self) -> KMeansConfig:
        seed = seed_of(self.random_state)
        given = self.init
        if isinstance(given, Path):
            given = load_model(given)
        if isinstance(given, Model):
            check_metric(given, self.metric, str(self.init) if isinstance(self.init, Path) else "init")
            given = given.centers
        init = given if isinstance(given, str) else np.asarray(given, dtype=np.float64)
        return KMeansConfig(
            n_clusters=self.n_clusters,
            init=init,
            metric=self.metric,
            max_iter=self.max_iter,
            tol=self.tol,
            rtol=self.rtol,
            fit_mode=self.fit_mode,
            algorithm=self.algorithm,
            strategy=self.strategy,
            compute_labels=self.compute_labels,
            n_init=self.n_init,
            seed=seed,
            allow_fewer=True,
        )
