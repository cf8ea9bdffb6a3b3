"""Gaussian mixtures over an engine: expectation-maximisation, one fold a pass, with starts, restarts and checkpoints.

Source: Dempster, Laird and Rubin (1977). The stopping rule and the order of steps are scikit-learn's, so that both end
at the same mixture when they begin at the same.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import Checkpointed, fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.maximisation import Spread, covariances_of, maximised
from distclust.algorithms.mixture_config import MixtureConfig
from distclust.algorithms.seeding import initial_centers
from distclust.artifacts.checkpoint import Checkpoints
from distclust.engines.events import LikelihoodEnded, Note, StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import CancelledError, DataError, UsageError
from distclust.kernels.mixture import Grid
from distclust.ops.centers import CenterSet
from distclust.ops.mixture import (
    Mixture,
    SingularCovarianceError,
    expectation,
    grid_of,
    labelled,
    random_statistics,
)
from distclust.ops.profile import PreparedData
from distclust.ops.sample import draw_rows
from distclust.ops.scatter import scatter_of

Floats = npt.NDArray[np.float64]

AUTO_REG = 1e-6
"""Share of the mean variance that ``reg_covar="auto"`` adds."""
_STAGE_ROWS = 0x6D697874
"""Stage of the draw of first rows; none of k-means' own."""
_STEPS_PER_INIT = 1_000_000


@dataclass(frozen=True)
class MixturePass:
    """One pass of expectation and maximisation.

    Attributes
    ----------
    iteration : int
        1, 2, ...
    log_likelihood : float
        Mean over the weighted rows, of the mixture that the pass began with.
    change : float
        Since the pass before; 0 in a first one.
    reg_covar : float
        What was added to the variances.
    seconds : float
    """

    iteration: int
    log_likelihood: float
    change: float
    reg_covar: float
    seconds: float


@dataclass(frozen=True)
class MixtureResult:
    """A mixture that was found, and how.

    Attributes
    ----------
    mixture : Mixture
        In the coordinates of the blocks.
    lower_bound : float
        Mean log-likelihood of the last pass: of the mixture before its last maximisation, as scikit-learn reports it.
    n_iter : int
        Passes of the kept initialisation.
    converged : bool
        The likelihood changed by less than ``tol`` before ``max_iter``.
    raised : bool
        A covariance was singular, so that more regularisation was needed than was asked for.
    reg_covar : float
        The largest regularisation that was needed.
    history : tuple of MixturePass
        Of the kept initialisation.
    """

    mixture: Mixture
    lower_bound: float
    n_iter: int
    converged: bool
    raised: bool
    reg_covar: float
    history: tuple[MixturePass, ...]


@dataclass(frozen=True)
class Criteria:
    """What a mixture's likelihood is worth given its parameters; the lower the better.

    Attributes
    ----------
    bic : float
        ``-2 ln L + p ln n`` (Schwarz, 1978).
    aic : float
        ``-2 ln L + 2 p`` (Akaike, 1974).
    icl : float
        ``bic - 2 sum ln max_k r``: BIC of rows with their most probable components (Biernacki et al., 2000).
    """

    bic: float
    aic: float
    icl: float


def criteria_of(n_parameters: int, mass: float, log_likelihood: float, doubt: float) -> Criteria:
    """Return the criteria of a mixture.

    Parameters
    ----------
    n_parameters : int
        p, see `Mixture.n_parameters`.
    mass : float
        Sum of the row weights: n.
    log_likelihood : float
        Sum of w ln p(x).
    doubt : float
        Sum of -w ln max r.

    Examples
    --------
    >>> criteria_of(2, 100.0, -150.0, 10.0).aic
    304.0
    """
    bic = -2.0 * log_likelihood + n_parameters * float(np.log(mass))
    return Criteria(bic, -2.0 * log_likelihood + 2.0 * n_parameters, bic + 2.0 * doubt)


def fit_mixture(
    engine: Engine,
    data: PreparedData,
    config: MixtureConfig,
    run: Checkpointed | None = None,
    *,
    checkpoint_seconds: float = 0.0,
    start: Mixture | None = None,
    lower_bound: float = -np.inf,
) -> MixtureResult:
    """Fit a Gaussian mixture to the rows of a prepared dataset.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        See `distclust.ops.profile.prepare`; Euclidean.
    config : MixtureConfig
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints; 0 saves after every pass.
    start : Mixture, optional
        A mixture to go on from, in the coordinates of the blocks; then there is one initialisation.
    lower_bound : float, optional
        Mean log-likelihood that the first pass of ``start`` is compared with.

    Raises
    ------
    DataError
        Fewer rows than components.
    UsageError
        Arrays to start from that do not fit the rows.
    """
    n, k = data.moments.n_rows, config.n_components
    if n < k:
        raise DataError(
            f"n_samples={n} should be >= n_components={k}.",
            where=data.source.describe_place(),
            do=f"Ask for at most {n} components.",
        )
    config.check_width(data.width)
    saver = _Saver(None if run is None else run.checkpoints("mixture"), checkpoint_seconds)
    climb = _Climb(engine, data, config, saver, lower_bound)
    state = saver.restore(config)
    while saver.number < (1 if start is not None else config.n_init):
        if state is None:
            first = start if start is not None else climb.first(saver.number, run)
            state = _State(first, climb.reg_covar)
            saver.save(state)
        saver.finished(climb.run(state))
        state = None
    best = saver.best
    assert best is not None
    reg_covar = max((entry.reg_covar for entry in best.history), default=climb.reg_covar)
    last = best.history[-1].log_likelihood
    raised = reg_covar > climb.reg_covar
    return MixtureResult(best.mixture, last, len(best.history), best.converged, raised, reg_covar, best.history)


@dataclass(frozen=True)
class _State:
    """A mixture on its way."""

    mixture: Mixture
    reg_covar: float
    history: tuple[MixturePass, ...] = ()
    converged: bool = False


class _Climb:
    """The passes of a fit over one dataset."""

    def __init__(
        self, engine: Engine, data: PreparedData, config: MixtureConfig, saver: _Saver, lower_bound: float
    ) -> None:
        self._saver, self._lower_bound = saver, lower_bound
        self._engine, self._data, self._config = engine, data, config
        self._grid: Grid = grid_of(data)
        scatter = scatter_of(engine, data).about_origin if config.covariance_type == "tied" else None
        self._spread = Spread(data.moments.variance, scatter)
        asked = config.reg_covar
        self.reg_covar = AUTO_REG * self._spread.mean_variance if asked == "auto" else float(asked)

    def run(self, state: _State) -> _State:
        """Make passes until the likelihood settles."""
        config, engine = self._config, self._engine
        engine.options.emit(
            StageStarted(stage="mixture", total_rows=self._data.pinned.n_rows, max_passes=config.max_iter)
        )
        began = time.perf_counter()
        try:
            while not state.converged and len(state.history) < config.max_iter:
                state = self._pass(state)
                self._saver.after_pass(state)
        except CancelledError:
            self._saver.save_last()
            raise
        engine.options.emit(StageEnded(stage="mixture", seconds=time.perf_counter() - began))
        return state

    def _pass(self, state: _State) -> _State:
        began = time.perf_counter()
        moments = expectation(self._engine, self._data.pinned, state.mixture, self._grid).moments(self._grid)
        mixture, reg_covar = self._maximised(lambda: maximised(moments, state.mixture, self._spread, state.reg_covar))
        if reg_covar > state.reg_covar:
            self._say_raised(reg_covar)
        bound = moments.log_density / self._data.moments.mass
        change = bound - (state.history[-1].log_likelihood if state.history else self._lower_bound)
        entry = MixturePass(
            len(state.history) + 1,
            bound,
            float(change) if np.isfinite(change) else 0.0,
            reg_covar,
            round(time.perf_counter() - began, 6),
        )
        self._engine.options.emit(
            LikelihoodEnded(
                stage="mixture",
                iteration=entry.iteration,
                log_likelihood=bound,
                change=entry.change,
                reg_covar=reg_covar,
                seconds=entry.seconds,
            )
        )
        return _State(mixture, reg_covar, (*state.history, entry), bool(abs(change) < self._config.tol))

    def first(self, number: int, run: Checkpointed | None) -> Mixture:
        """Return the mixture that an initialisation begins with."""
        config, data = self._config, self._data
        weights, means, precisions = config.weights_init, config.means_init, config.precisions_init
        found = None
        if weights is None or means is None or precisions is None:
            found = self._from_rows(number, run)
        try:
            mixture = Mixture(
                config.covariance_type,
                weights if weights is not None else _of(found).weights,
                means - data.offset if means is not None else _of(found).means,
                covariances_of(np.asarray(precisions, np.float64), config.covariance_type)
                if precisions is not None
                else _of(found).covariances,
            )
        except SingularCovarianceError as fault:
            raise UsageError(f"precisions_init: {fault.message}", do="Give positive definite precisions.") from None
        return mixture

    def _from_rows(self, number: int, run: Checkpointed | None) -> Mixture:
        """Return the mixture of the clusters, or the random responsibilities, that the settings ask for."""
        config, data, grid = self._config, self._data, self._grid
        k, seed = config.n_components, (config.seed + number) % 2**64
        centers = CenterSet(np.empty((0, data.width)))
        if config.init_params != "random":
            centers = self._centers(number, seed, run)
        # Of random responsibilities all components begin in the middle; of too few distinct rows, those left over.
        missing = np.repeat(data.moments.mean[None], k - len(centers), axis=0)
        base = self._base(np.concatenate([centers.rows.astype(np.float64), missing]))
        began = time.perf_counter()
        self._engine.options.emit(StageStarted(stage="start", total_rows=data.pinned.n_rows))
        if config.init_params == "random":
            stats = random_statistics(self._engine, data.pinned, base, grid, seed)
        else:
            stats = labelled(self._engine, data.pinned, base, grid, centers)
        self._engine.options.emit(StageEnded(stage="start", seconds=time.perf_counter() - began))
        moments = stats.moments(grid)
        mixture, reg_covar = self._maximised(lambda: maximised(moments, base, self._spread, self.reg_covar))
        if reg_covar > self.reg_covar:
            self._say_raised(reg_covar)
        return mixture

    def _centers(self, number: int, seed: int, run: Checkpointed | None) -> CenterSet:
        engine, data, k = self._engine, self._data, self._config.n_components
        if self._config.init_params == "random_from_data":
            rows = draw_rows(engine, data.pinned, k, seed=seed, stage=_STAGE_ROWS).rows
            return CenterSet(rows.astype(data.view.dtype))
        settings = KMeansConfig(n_clusters=k, seed=seed, max_iter=300, allow_fewer=True)
        if self._config.init_params == "k-means++":
            return CenterSet(initial_centers(engine, data, settings, 0).astype(data.view.dtype))
        named = None if run is None else _Named(run, number)
        return fit_kmeans(engine, data, settings, named).centers

    def _base(self, means: Floats) -> Mixture:
        """Return equal components with the variances of the columns: the scales for a first look at the rows."""
        spread = np.where(self._spread.variance > 0, self._spread.variance, 1.0)
        k, d = means.shape
        kind = self._config.covariance_type
        own: dict[str, Floats] = {"full": np.diag(spread), "tied": np.diag(spread), "diag": spread}
        shape = own.get(kind, np.array(np.cumsum(spread)[-1] / d))
        covariances = shape if kind == "tied" else np.repeat(shape[None], k, axis=0)
        return Mixture(kind, np.full(k, 1.0 / k), means, covariances)

    def _maximised(self, make: Any) -> tuple[Mixture, float]:
        try:
            found: tuple[Mixture, float] = make()
        except SingularCovarianceError as fault:
            raise DataError(
                f"{fault.message} No regularisation helps.",
                where=self._data.source.describe_place(),
                do="Scale the columns, or choose fewer components.",
            ) from None
        return found

    def _say_raised(self, reg_covar: float) -> None:
        message = f"A covariance is singular: reg_covar was raised to {reg_covar:.3g}."
        self._engine.options.emit(Note(message=message, level="warning"))


def _of(found: Mixture | None) -> Mixture:
    assert found is not None
    return found


@dataclass(frozen=True)
class _Named:
    """A run directory in which the k-means of each start has checkpoints of its own."""

    run: Checkpointed
    number: int

    def checkpoints(self, name: str) -> Checkpoints:
        """Return the checkpoints of one algorithm."""
        return self.run.checkpoints(f"{name}-{self.number}")


class _Saver:
    """Where the fit is; writes and reads checkpoints, and does without where there is no place for them.

    Attributes
    ----------
    number : int
        Initialisation in progress.
    best : _State or None
        The best finished one.
    """

    def __init__(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        self.number = 0
        self.best: _State | None = None
        self._checkpoints = checkpoints
        self._seconds = seconds
        self._saved = 0.0
        self._last: _State | None = None

    def after_pass(self, state: _State) -> None:
        """Save unless the last save is recent."""
        self._last = state
        if time.monotonic() - self._saved >= self._seconds:
            self.save(state)

    def save_last(self) -> None:
        """Save the last pass, if there was one."""
        if self._last is not None:
            self.save(self._last)

    def finished(self, state: _State) -> None:
        """Take a finished initialisation and go on to the next."""
        if self.best is None or state.history[-1].log_likelihood > self.best.history[-1].log_likelihood:
            self.best = state
        self.number += 1
        self._last = None
        self.save(None)

    def save(self, state: _State | None) -> None:
        """Save the state of the initialisation in progress."""
        if self._checkpoints is None:
            return
        record: dict[str, object] = {"run": self.number}
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for name, part in (("state", state), ("best", self.best)):
            if part is not None:
                record[name] = {
                    "reg_covar": part.reg_covar,
                    "converged": part.converged,
                    "history": [asdict(entry) for entry in part.history],
                }
                for what in ("weights", "means", "covariances"):
                    arrays[f"{name}-{what}"] = getattr(part.mixture, what)
        step = self.number * _STEPS_PER_INIT + (len(state.history) if state else 0)
        self._checkpoints.save(step, record, arrays)
        self._saved = time.monotonic()

    def restore(self, config: MixtureConfig) -> _State | None:
        """Go back to the last save; return the state of the initialisation in progress."""
        found = None if self._checkpoints is None else self._checkpoints.load()
        if found is None:
            return None
        states: dict[str, _State] = {}
        for name in ("state", "best"):
            if name in found.state:
                kept = found.state[name]
                parts = (found.arrays[f"{name}-{what}"] for what in ("weights", "means", "covariances"))
                states[name] = _State(
                    Mixture(config.covariance_type, *parts),
                    float(kept["reg_covar"]),
                    tuple(MixturePass(**entry) for entry in kept["history"]),
                    bool(kept["converged"]),
                )
        self.number = int(found.state["run"])
        self.best = states.get("best")
        return states.get("state")
