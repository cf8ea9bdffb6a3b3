"""Settings of bisecting k-means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distclust.data.refs import METRICS, Metric
from distclust.errors import UsageError, unknown_name

Strategy = Literal["biggest_inertia", "largest_cluster"]
TreeLabels = Literal["tree", "nearest"]
STRATEGIES: tuple[Strategy, ...] = ("biggest_inertia", "largest_cluster")
LABELS: tuple[TreeLabels, ...] = ("tree", "nearest")


@dataclass(frozen=True, kw_only=True)
class BisectingConfig:
    """Settings that decide the result of bisecting k-means; they validate themselves.

    There is no seed: splits start along the principal axis, and nothing is drawn.

    Parameters
    ----------
    n_clusters : int
        k, at least 1.
    bisecting_strategy : {"biggest_inertia", "largest_cluster"}, default="biggest_inertia"
        Which cluster is split next: the one of largest inertia, or of most rows.
    labels : {"tree", "nearest"}, default="tree"
        How rows are labelled at the end: by going down the tree, or by the nearest of all centres (lower inertia,
        but a row may be labelled outside the branch it was counted in).
    metric : {"euclidean", "cosine"}, default="euclidean"
    max_iter : int, default=20
        Most two-means passes of one split.
    rtol : float, default=1e-4
        A split is done when its new centres lower its inertia by no more than this share.
    allow_fewer : bool, default=False
        With fewer than k distinct rows, return fewer clusters instead of an error.
    """

    n_clusters: int
    bisecting_strategy: Strategy = "biggest_inertia"
    labels: TreeLabels = "tree"
    metric: Metric = "euclidean"
    max_iter: int = 20
    rtol: float = 1e-4
    allow_fewer: bool = False

    def __post_init__(self) -> None:
        for name in ("n_clusters", "max_iter"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise UsageError(f"{name} == {value!r}, must be an integer of at least 1.")
        if not isinstance(self.rtol, int | float | np.floating) or not (self.rtol >= 0 and math.isfinite(self.rtol)):
            raise UsageError(f"rtol == {self.rtol!r}, must be a finite number of at least 0.")
        for name, allowed in (("bisecting_strategy", STRATEGIES), ("labels", LABELS), ("metric", METRICS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
