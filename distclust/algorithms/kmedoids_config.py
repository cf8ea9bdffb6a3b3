"""Settings of k-medoids over an engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distclust.errors import UsageError, unknown_name

Method = Literal["auto", "fasterpam", "clara", "onebatch"]
METHODS: tuple[Method, ...] = ("auto", "fasterpam", "clara", "onebatch")

CLARA_SAMPLES = 5
"""Samples of CLARA (Kaufman and Rousseeuw, 1990)."""

BATCH_FACTOR = 100
"""The batch has 100 ln(n k) columns (de Mathelin et al., 2025)."""


@dataclass(frozen=True, kw_only=True)
class KMedoidsConfig:
    """Settings that decide the result of k-medoids; they validate themselves.

    Parameters
    ----------
    n_clusters : int or "auto"
        k, at least 1; ``"auto"`` chooses by medoid silhouette from 2 to ``k_max``.
    k_max : int, default=50
        Largest k of ``"auto"``.
    metric : str or callable, default="euclidean"
        See `distclust.kernels.dissimilarity.dissimilarity`. The loss is the sum of these, not of their squares.
    method : {"auto", "fasterpam", "clara", "onebatch"}, default="auto"
        ``fasterpam`` compares all rows with all rows in the driver's memory; ``clara`` solves samples; ``onebatch``
        swaps over all rows, judged on a batch of columns. ``auto`` is ``fasterpam`` where the matrix fits
        ``matrix_bytes``, else ``onebatch`` and ``clara``, the better one by the loss over all rows.
    max_iter : int, default=20
        Most swap passes over the rows; of ``fasterpam``, over the candidates.
    rtol : float, default=5e-3
        Passes end when one lowers the loss, on the batch or the sample, by less than this share; 0 goes on until no
        swap pays. A batch of two thousand columns does not tell smaller gains from chance.
    n_samples : int, default=5
        Samples of ``clara``.
    sample_size : int, optional
        Rows of a sample; default: 80 + 4 k.
    batch_size : int, optional
        Columns of the batch; default: 100 ln(n k).
    matrix_bytes : int, default=512 MB
        Largest distance matrix that is made. It decides the method, so it is part of what the result depends on, and
        not taken from the machine.
    seed : int, default=0
        Key of all random draws.
    """

    n_clusters: int | Literal["auto"]
    k_max: int = 50
    metric: str | Callable[..., Any] = "euclidean"
    method: Method = "auto"
    max_iter: int = 20
    rtol: float = 5e-3
    n_samples: int = CLARA_SAMPLES
    sample_size: int | None = None
    batch_size: int | None = None
    matrix_bytes: int = 512 << 20
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"k_max": 2, "max_iter": 1, "n_samples": 1, "matrix_bytes": 1, "seed": 0}
        optional = {name: 1 for name in ("sample_size", "batch_size") if getattr(self, name) is not None}
        number = {} if self.n_clusters == "auto" else {"n_clusters": 1}
        for name, smallest in {**number, **least, **optional}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < smallest:
                also = " or 'auto'" if name == "n_clusters" else ""
                raise UsageError(f"{name} == {value!r}, must be an integer of at least {smallest}{also}.")
        if self.seed >= 2**64:
            raise UsageError(f"seed == {self.seed!r}, must be below 2**64.")
        if not isinstance(self.rtol, int | float | np.floating) or not (self.rtol >= 0 and math.isfinite(self.rtol)):
            raise UsageError(f"rtol == {self.rtol!r}, must be a finite number of at least 0.")
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)

    def sample_rows(self, k: int) -> int:
        """Return the rows of a sample of CLARA."""
        return max(self.sample_size or 80 + 4 * k, k + 1)

    def batch_columns(self, n: int, k: int) -> int:
        """Return the columns of the batch."""
        return min(n, max(self.batch_size or math.ceil(BATCH_FACTOR * math.log(max(n * k, 2))), k + 1))
