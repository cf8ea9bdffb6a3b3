"""Settings of balanced assignment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distclust.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BalancedConfig:
    """Settings that decide a balanced assignment; they validate themselves.

    Parameters
    ----------
    targets : "uniform" or (k,) array, default="uniform"
        Sizes to reach, in any unit: they are scaled to the rows that are assigned.
    capacity_slack : float, default=0.05
        Share of its target by which a cluster may be larger or smaller; 0 for sizes as equal as whole rows allow.
    mass : float, default=1.0
        Share of the rows to assign; the others, where they cost most, belong to no cluster.
    penalty : float, optional
        Instead of bounds: the sizes' divergence from their targets (Kullback-Leibler, in nats a row) costs this many
        times the mean squared distance of a row to its nearest centre. Sizes are then soft, and nothing is repaired.
    candidates : int, default=100
        With more centres than this, every row is shared out over so many only: those of lowest squared distance less
        price, listed anew whenever the regularisation shrinks.
    """

    targets: Literal["uniform"] | npt.NDArray[np.floating] = "uniform"
    capacity_slack: float = 0.05
    mass: float = 1.0
    penalty: float | None = None
    candidates: int = 100

    def __post_init__(self) -> None:
        _check_number("capacity_slack", self.capacity_slack, 0 <= self.capacity_slack < 1, "at least 0 and below 1")
        _check_number("mass", self.mass, 0 < self.mass <= 1, "above 0 and at most 1")
        if self.penalty is not None:
            _check_number("penalty", self.penalty, 0 < self.penalty < math.inf, "finite and above 0")
        if isinstance(self.candidates, bool) or not isinstance(self.candidates, int) or self.candidates < 2:
            raise UsageError(f"candidates == {self.candidates!r}, must be an integer of at least 2.")
        if isinstance(self.targets, str):
            if self.targets != "uniform":
                raise UsageError(f"targets == {self.targets!r}, must be 'uniform' or an array of sizes.")
        elif self.targets.ndim != 1 or not (np.isfinite(self.targets) & (self.targets > 0)).all():
            raise UsageError("targets must be one finite number above 0 for each cluster.")

    def shares(self, k: int) -> npt.NDArray[np.float64]:
        """Return what each of k clusters is to have of the assigned rows; they sum to 1.

        Raises
        ------
        UsageError
            There are targets for another number of clusters.
        """
        if isinstance(self.targets, str):
            return np.full(k, 1.0 / k)
        if len(self.targets) != k:
            raise UsageError(f"there are {len(self.targets)} targets for {k} clusters; one each is needed.")
        targets = self.targets.astype(np.float64)
        return targets / np.cumsum(targets)[-1]


def _check_number(name: str, value: object, holds: bool, allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not holds:
        raise UsageError(f"{name} == {value!r}, must be {allowed}.")
