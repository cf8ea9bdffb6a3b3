"""`GaussianMixture`: scikit-learn's interface, on arrays in memory and on datasets too large for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from distclust.algorithms.mixture import Criteria, MixtureResult, criteria_of, fit_mixture
from distclust.algorithms.mixture_config import MixtureConfig, MixtureInit
from distclust.engines.protocol import Engine, Pinned
from distclust.errors import UsageError
from distclust.estimators._base import RowEstimator, seed_of
from distclust.estimators._rows import RowColumns, opened
from distclust.ops.assign import predict
from distclust.ops.mixture import Mixture, densities, expectation, grid_of, memberships
from distclust.stats.covariance import CovarianceType
from distclust.stats.gaussian import GaussianMoments

Floats = npt.NDArray[np.float64]


class GaussianMixture(DensityMixin, RowEstimator):
    """Gaussian mixture by expectation-maximisation, with equal bits on every engine, in any partitioning.

    From the same start it ends where scikit-learn's does. Sums over rows are exact integers.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        Stop when a pass changes the mean log-likelihood of a row by less.
    reg_covar : float or "auto", default=1e-6
        Added to variances; ``"auto"`` is 1e-6 of the mean variance of the columns. Raised tenfold, as often as it
        takes, where a covariance is singular all the same: see ``reg_covar_``.
    max_iter : int, default=100
        Most passes of one initialisation.
    n_init : int, default=1
        Initialisations; the one of highest likelihood is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        What a start is made of: the clusters of k-means, the clusters of its seeds or of drawn rows (each row goes to
        the nearest), or random responsibilities.
    weights_init : (n_components,) array, optional
    means_init : (n_components, n_features) array, optional
    precisions_init : array, optional
        Of the shape of ``precisions_``. All three given: nothing else is computed for a start.
    random_state : int, RandomState or None, default=None
        Key of all draws; an int makes the result reproducible on every engine.
    warm_start : bool, default=False
        Go on from the mixture of the fit before.
    precision : {"float32", "float64"}, default="float64"
        Type of the centred rows; all sums and densities are float64.
    engine : str, distributed.Client, SparkSession or Engine, default="local"
        ``"local"``, ``"local[4]"``, ``"dask"``, ``"dask://host:8786"``, ``"spark"``, ``"spark://host:7077"``.
    on_bad_rows : {"error", "drop"}, default="error"
        NaN and infinity; dropped rows get the label -1, and NaN as densities and memberships.
    staging : str, optional
        Directory that driver and workers see, for rows that are not on storage yet.

    Attributes
    ----------
    weights_ : (n_components,) array
    means_ : (n_components, n_features) array
    covariances_, precisions_, precisions_cholesky_ : array
        (n_components, n_features, n_features) full, (n_features, n_features) tied, (n_components, n_features) diag,
        (n_components,) spherical.
    converged_ : bool
    n_iter_ : int
        Passes of the kept initialisation.
    lower_bound_ : float
        Mean log-likelihood of the last pass, before its maximisation.
    lower_bounds_ : list of float
        Of every pass.
    reg_covar_ : float
        The largest regularisation that was needed.
    history_ : list of dict
        Iteration, mean log-likelihood, change, regularisation and seconds of every pass.
    n_features_in_ : int
    feature_names_in_ : (n_features,) array of str
        Only for input with string column names.

    See Also
    --------
    sklearn.mixture.GaussianMixture : The same for one machine.

    References
    ----------
    Dempster, Laird and Rubin, *Maximum likelihood from incomplete data via the EM algorithm*, 1977.

    Examples
    --------
    >>> import numpy as np
    >>> from distclust import GaussianMixture
    >>> X = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 0.0], [10.0, 2.0], [10.0, 4.0], [10.0, 0.0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0, engine="local[1]").fit(X)
    >>> gm.means_[np.argsort(gm.means_[:, 0])].round(6)
    array([[ 1.,  2.],
           [10.,  2.]])
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: CovarianceType = "full",
        tol: float = 1e-3,
        reg_covar: float | Literal["auto"] = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: MixtureInit = "kmeans",
        weights_init: Floats | None = None,
        means_init: Floats | None = None,
        precisions_init: Floats | None = None,
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        precision: Literal["float32", "float64"] = "float64",
        engine: Any = "local",
        on_bad_rows: Literal["error", "drop"] = "error",
        staging: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
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
        """Fit the mixture.

        Parameters
        ----------
        X : (n_samples, n_features) array or data frame, Arrow table, path or paths, Spark or Dask frame
            Rows in memory, or a dataset: files, directories or globs of Parquet, Arrow IPC or npy.
        y : ignored
        sample_weight : (n_samples,) array, optional
            Weights of rows in memory: a row of weight 2 counts as two rows. For datasets see ``weight_column``.
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
            Rows that no mixture can be fitted to: where, what was found, what is allowed.
        """
        config = self._config()
        names = RowColumns(column, columns, id_column, weight_column)
        X, weights = self._validated(X, sample_weight, names, reset=True)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = self._prepared(engine, source)
            if data.moments.n_rows < config.n_components:
                raise UsageError(
                    f"n_samples={data.moments.n_rows} should be >= n_components={config.n_components}.",
                    do="Ask for fewer components.",
                )
            if self.warm_start and hasattr(self, "converged_"):
                start = self._mixture(data.offset)
                result = fit_mixture(engine, data, config, start=start, lower_bound=self.lower_bound_)
            else:
                result = fit_mixture(engine, data, config)
        self._remember(result, data.offset)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[np.int32]:
        """Fit the mixture and return the most probable component of every row; see `fit`."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> npt.NDArray[np.int32]:
        """Return the most probable component of every row, int32 (n_samples,); parameters as for `fit`."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return predict(engine, pinned, self._mixture(self._offset))

    def predict_proba(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Floats:
        """Return the responsibility of every component for every row, (n_samples, n_components)."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return memberships(engine, pinned, self._mixture(self._offset))

    def score_samples(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> Floats:
        """Return the log density of every row, (n_samples,)."""
        with self._over(X, RowColumns(column, columns)) as (engine, pinned):
            return densities(engine, pinned, self._mixture(self._offset))

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
        """Return the mean log density of the rows; parameters as for `fit`."""
        moments = self._scored(X, sample_weight, RowColumns(column, columns, weight_column=weight_column))
        return moments.log_density / float(np.cumsum(moments.mass)[-1])

    def bic(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> float:
        """Return the Bayesian information criterion on rows; the lower the better."""
        return self._criteria(X, RowColumns(column, columns)).bic

    def aic(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> float:
        """Return the Akaike information criterion on rows; the lower the better."""
        return self._criteria(X, RowColumns(column, columns)).aic

    def icl(self, X: Any, *, column: str | None = None, columns: Sequence[str] = ()) -> float:
        """Return the integrated completed likelihood on rows: BIC that also pays for rows between components."""
        return self._criteria(X, RowColumns(column, columns)).icl

    def sample(self, n_samples: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : (n_samples, n_features) array
            Ordered by component.
        y : (n_samples,) int64 array
            Components.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise UsageError(f"n_samples == {n_samples!r}, must be an integer of at least 1.")
        rng, mixture = check_random_state(self.random_state), self._mixture(self._offset)
        components = np.repeat(np.arange(len(mixture)), rng.multinomial(n_samples, self.weights_)).astype(np.int64)
        normal = rng.standard_normal((n_samples, self.n_features_in_))
        if mixture.roots.ndim == 2:
            moved = normal * mixture.roots[components]
        else:
            roots = np.broadcast_to(mixture.roots, (len(mixture), *mixture.roots.shape[1:]))
            moved = np.concatenate([normal[components == c] @ roots[c] for c in range(len(mixture))])
        return self.means_[components] + moved, components

    def _config(self) -> MixtureConfig:
        def array(given: Any) -> Floats | None:
            return None if given is None else np.asarray(given, np.float64)

        return MixtureConfig(
            n_components=self.n_components,
            covariance_type=self.covariance_type,
            tol=self.tol,
            reg_covar=self.reg_covar,
            max_iter=self.max_iter,
            n_init=self.n_init,
            init_params=self.init_params,
            weights_init=array(self.weights_init),
            means_init=array(self.means_init),
            precisions_init=array(self.precisions_init),
            seed=seed_of(self.random_state),
        )

    def _remember(self, result: MixtureResult, offset: Floats) -> None:
        mixture = result.mixture
        self._offset = offset
        self.weights_, self.covariances_ = mixture.weights, mixture.covariances
        self.means_ = mixture.means + offset
        factors = mixture.factors
        if self.covariance_type == "tied":
            factors = factors[0]
        elif self.covariance_type == "spherical":
            factors = factors[:, 0]
        self.precisions_cholesky_ = factors
        self.precisions_ = factors**2 if mixture.factors.ndim == 2 else factors @ np.swapaxes(factors, -1, -2)
        self.converged_, self.n_iter_ = result.converged, result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = [entry.log_likelihood for entry in result.history]
        self.reg_covar_ = result.reg_covar
        self.history_ = [vars(entry) for entry in result.history]
        self.n_features_in_ = self.means_.shape[1]
        if not result.converged:
            warnings.warn(
                "The best initialization did not converge. Try more passes (max_iter), another tol or init_params.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _mixture(self, offset: Floats) -> Mixture:
        return Mixture(self.covariance_type, self.weights_, self.means_ - offset, self.covariances_)

    @contextmanager
    def _over(self, X: Any, names: RowColumns) -> Iterator[tuple[Engine, Pinned]]:
        check_is_fitted(self)
        X, _ = self._validated(X, None, names, reset=False)
        with opened(X, self.engine, names, staging=self.staging) as (engine, source):
            yield engine, self._pinned(engine, source)

    def _scored(self, X: Any, sample_weight: Any, names: RowColumns) -> GaussianMoments:
        check_is_fitted(self)
        X, weights = self._validated(X, sample_weight, names, reset=False)
        with opened(X, self.engine, names, weights=weights, staging=self.staging) as (engine, source):
            data = self._prepared(engine, source, self._offset)
            grid = grid_of(data)
            return expectation(engine, data.pinned, self._mixture(self._offset), grid).moments(grid)

    def _criteria(self, X: Any, names: RowColumns) -> Criteria:
        moments = self._scored(X, None, names)
        mass = float(np.cumsum(moments.mass)[-1])
        return criteria_of(self._mixture(self._offset).n_parameters, mass, moments.log_density, moments.doubt)
