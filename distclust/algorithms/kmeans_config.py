"""Settings of k-means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.data.refs import METRICS, Metric
from distclust.errors import UsageError, unknown_name

FitMode = Literal["auto", "full", "progressive"]
FIT_MODES: tuple[FitMode, ...] = ("auto", "full", "progressive")
AlgorithmName = Literal["auto", "lloyd"]
ALGORITHMS: tuple[AlgorithmName, ...] = ("auto", "lloyd")
StrategyName = Literal["auto", "flat", "two-level"]
STRATEGIES: tuple[StrategyName, ...] = ("auto", "flat", "two-level")
InitName = Literal["k-means||", "k-means++", "random"]
INITS: tuple[InitName, ...] = ("k-means||", "k-means++", "random")


@dataclass(frozen=True, kw_only=True)
class KMeansConfig:
    """Settings that decide the result of k-means; they validate themselves.

    Parameters
    ----------
    n_clusters : int
        k, at least 1.
    init : {"k-means||", "k-means++", "random"} or (k, d) array, default="k-means||"
        Seeding. An array holds centres in the coordinates of the source.
    metric : {"euclidean", "cosine"}, default="euclidean"
        ``cosine`` is spherical k-means: unit rows, unit centres.
    max_iter : int, default=100
        Most full passes of one initialisation.
    tol : float, default=1e-4
        Stop when the sum of squared centre movements is at most ``tol`` times the mean variance of the columns.
    rtol : float, default=1e-4
        Stop when a pass lowers the inertia by less than this share; 0 switches the rule off.
    n_init : int, default=1
        Initialisations; the one of lowest inertia is kept.
    seed : int, default=0
        Key of all random draws.
    allow_fewer : bool, default=False
        With fewer than k distinct rows, return fewer clusters instead of an error.
    fit_mode : {"auto", "full", "progressive"}, default="auto"
        ``progressive`` runs the first passes on growing samples; ``auto`` does so from 50 000 rows and 48 rows a
        centre on. With centres given as ``init`` all passes are full. Where samples are used, and under ``auto`` from
        50 000 rows on, first centres come from a sample and centres go beyond the means of their rows until the last
        pass, which ends lower after as many passes; from 128 clusters and 48 dimensions on (512 and 32, 1000 and 16),
        rows of float32 are then compared with the 16 centres that were near them some passes before, and with all
        centres where this list is made and in the last pass; or in all passes, if rows lie in groups too tight for it.
        ``full`` is plain Lloyd from seeds found among all rows.
    algorithm : {"auto", "lloyd"}, default="auto"
        ``auto`` keeps bounds of distances where they pay and skips what they exclude; ``lloyd`` keeps none. The labels
        are the same bits.
    strategy : {"auto", "flat", "two-level"}, default="auto"
        ``two-level`` clusters within about sqrt(k) cells, then lets rows cross their borders: for very many clusters,
        see `distclust.algorithms.two_level`. ``auto`` takes it from 20 000 clusters on, unless centres are given as
        ``init`` or ``n_init`` is above 1.
    compute_labels : bool, default=True
        Whether labels are wanted. Without, a fit whose passes look at lists of near centres ends without the pass over
        all centres that proves labels; its centres are the same unless that pass would have found that it has to go on.
    """

    n_clusters: int
    init: InitName | npt.NDArray[np.floating] = "k-means||"
    metric: Metric = "euclidean"
    max_iter: int = 100
    tol: float = 1e-4
    rtol: float = 1e-4
    n_init: int = 1
    seed: int = 0
    allow_fewer: bool = False
    fit_mode: FitMode = "auto"
    algorithm: AlgorithmName = "auto"
    strategy: StrategyName = "auto"
    compute_labels: bool = True

    def __post_init__(self) -> None:
        for name, least in (("n_clusters", 1), ("max_iter", 1), ("n_init", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise UsageError(f"{name} == {value!r}, must be an integer of at least {least}.")
        if not isinstance(self.compute_labels, bool | np.bool_):
            raise UsageError(f"compute_labels == {self.compute_labels!r}, must be True or False.")
        if self.seed >= 2**64:
            raise UsageError(f"seed == {self.seed!r}, must be below 2**64.")
        for name in ("tol", "rtol"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.floating) or not (value >= 0 and math.isfinite(value)):
                raise UsageError(f"{name} == {value!r}, must be a finite number of at least 0.")
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)
        if self.algorithm not in ALGORITHMS:
            raise unknown_name("algorithm", self.algorithm, ALGORITHMS)
        if self.fit_mode not in FIT_MODES:
            raise unknown_name("fit_mode", self.fit_mode, FIT_MODES)
        if self.strategy not in STRATEGIES:
            raise unknown_name("strategy", self.strategy, STRATEGIES)
        if isinstance(self.init, str):
            if self.init not in INITS:
                raise unknown_name("init", self.init, INITS)
        elif self.init.ndim != 2 or len(self.init) != self.n_clusters or not np.isfinite(self.init).all():
            raise UsageError(
                f"init is an array of shape {self.init.shape}; needed are n_clusters = {self.n_clusters} rows of "
                "finite coordinates."
            )
