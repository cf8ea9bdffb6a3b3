"""A Gaussian mixture as a shared value, and the passes over rows that need one: statistics, memberships, densities."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Engine, Pinned, StepContext
from distclust.errors import DataError, DistclustError
from distclust.kernels.elementary import logarithm
from distclust.kernels.linear import cholesky_upper, inverse_upper
from distclust.kernels.mixture import (
    Form,
    Grid,
    MixtureRows,
    MixtureSums,
    PackedMixture,
    grid_for,
    mixture_rows,
    mixture_sums,
    pack_mixture,
    responsibilities,
)
from distclust.kernels.random import uniform
from distclust.ops.centers import LabelRule
from distclust.ops.profile import PreparedData
from distclust.stats.covariance import CovarianceType
from distclust.stats.gaussian import GaussianStats

Floats = npt.NDArray[np.float64]
_FORMS: dict[CovarianceType, Form] = {"full": "full", "tied": "tied", "diag": "axis", "spherical": "axis"}
_BATCH_VALUES = 1 << 20
"""Given responsibilities of a batch of rows; bounds what a step holds besides its block."""


class SingularCovarianceError(DistclustError):
    """A covariance that is not positive definite. Whoever fits the mixture raises the regularisation."""

    exit_code = DataError.exit_code


class Mixture:
    """A mixture in the coordinates of the blocks.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
    weights : (k,) float64
        Positive, of sum 1.
    means : (k, d) float64
    covariances : float64
        (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical, as scikit-learn has them.

    Attributes
    ----------
    roots : float64
        Upper triangular R with R^T R = covariance, (k, d, d) or (1, d, d); standard deviations (k, d) for the others.
    factors : float64
        Inverses of `roots`: the ``precisions_cholesky_`` of scikit-learn, of the same shape as roots.
    tag : str
        Digest of the bits.

    Raises
    ------
    SingularCovarianceError
        A covariance is not positive definite.
    """

    def __init__(self, covariance_type: CovarianceType, weights: Floats, means: Floats, covariances: Floats) -> None:
        self.covariance_type = covariance_type
        self.weights, self.means, self.covariances = (
            np.ascontiguousarray(part, np.float64) for part in (weights, means, covariances)
        )
        k, d = self.means.shape
        positive: npt.NDArray[np.bool_]
        if covariance_type in ("full", "tied"):
            self.roots, positive = cholesky_upper(self.covariances.reshape(-1, d, d))
        else:
            spread = self.covariances if covariance_type == "diag" else np.repeat(self.covariances[:, None], d, axis=1)
            positive = np.logical_and(np.isfinite(spread), spread > 0).all(axis=1).reshape(-1)
            self.roots = np.sqrt(np.where(positive[:, None], spread, 1.0))
        if not positive.all():
            raise SingularCovarianceError(
                f"the covariance of component {int(np.argmin(positive))} is not positive definite."
            )
        self.factors = inverse_upper(self.roots) if self.roots.ndim == 3 else 1.0 / self.roots
        h = hashlib.sha256(repr((covariance_type, k, d)).encode())
        for part in (self.weights, self.means, self.covariances):
            h.update(part.tobytes())
        self.tag = h.hexdigest()[:24]

    def __reduce__(self) -> tuple[type[Mixture], tuple[CovarianceType, Floats, Floats, Floats]]:
        return Mixture, (self.covariance_type, self.weights, self.means, self.covariances)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def n_parameters(self) -> int:
        """Free parameters, as scikit-learn counts them."""
        k, d = self.means.shape
        spread = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return spread[self.covariance_type] + k * d + k - 1

    @cached_property
    def packed(self) -> PackedMixture:
        """The mixture as the kernels want it; never travels."""
        d = self.means.shape[1]
        diagonal = np.diagonal(self.factors, axis1=1, axis2=2) if self.factors.ndim == 3 else self.factors
        log_dets = np.cumsum(logarithm(np.abs(diagonal)), axis=1)[:, -1]
        log_norms = logarithm(self.weights) + log_dets - 0.5 * d * math.log(2 * math.pi)
        form = _FORMS[self.covariance_type]
        return pack_mixture(form, log_norms, self.means, self.factors[0] if form == "tied" else self.factors)

    def rows(self, block: Block) -> MixtureRows:
        """Return component, its responsibility and log density of every row of a block."""
        return mixture_rows(block.x, self.packed)

    def responsibilities(self, x: npt.NDArray[np.floating]) -> Floats:
        """Return the responsibilities of rows in the coordinates of the blocks, (n, k)."""
        return responsibilities(x, self.packed)

    def labels(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the most probable component of every row; the mixture as a `LabelRule`."""
        known = context.state.get("labels", self.tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        labels = self.rows(block).labels
        context.state.put("labels", self.tag, labels)
        return labels


def grid_of(data: PreparedData) -> Grid:
    """Return the units of all mixture statistics over a dataset."""
    return grid_for(data.moments.n_rows, data.max_weight, data.width)


@dataclass(frozen=True)
class MixtureValue:
    """What a pass of expectation shares."""

    mixture: Mixture
    grid: Grid


@dataclass(frozen=True)
class MixtureStep:
    """Responsibilities of a block, and their statistics: expectation, and the sums that maximisation needs."""

    def __call__(self, block: Block, value: MixtureValue, context: StepContext) -> GaussianStats:
        """Sum a block."""
        return GaussianStats.of(block.n, _sums(block, slice(None), value, None))


@dataclass(frozen=True)
class LabelledValue:
    """What a pass over labelled rows shares; the mixture gives coordinates and scales alone."""

    mixture: Mixture
    grid: Grid
    rule: LabelRule


@dataclass(frozen=True)
class LabelledStep:
    """Statistics of rows that belong to one component each, by a rule; -1 for none."""

    def __call__(self, block: Block, value: LabelledValue, context: StepContext) -> GaussianStats:
        """Sum a block."""
        labels = value.rule.labels(block, context)
        k = len(value.mixture)

        def given(rows: slice) -> Floats:
            return np.ascontiguousarray((labels[rows, None] == np.arange(k)).astype(np.float64))

        return _given_sums(block, MixtureValue(value.mixture, value.grid), given)


@dataclass(frozen=True)
class RandomStep:
    """Statistics under random responsibilities: uniform numbers by row and component, scaled to sum 1."""

    seed: int

    def __call__(self, block: Block, value: MixtureValue, context: StepContext) -> GaussianStats:
        """Sum a block."""

        def given(rows: slice) -> Floats:
            ids = block.row_ids[rows]
            drawn = np.stack([uniform(self.seed, c, ids) for c in range(len(value.mixture))], axis=1) + 2.0**-54
            return np.ascontiguousarray(drawn / np.cumsum(drawn, axis=1)[:, -1:])

        return _given_sums(block, value, given)


def expectation(
    engine: Engine, pinned: Pinned, mixture: Mixture, grid: Grid, *, label: str = "expectation"
) -> GaussianStats:
    """Return the statistics of all rows under the responsibilities of a mixture: one fold."""
    with engine.share(MixtureValue(mixture, grid)) as shared:
        stats: GaussianStats = engine.fold(pinned, MixtureStep(), GaussianStats.merge, shared, label=label)
    return stats


def labelled(
    engine: Engine, pinned: Pinned, mixture: Mixture, grid: Grid, rule: LabelRule, *, label: str = "partition"
) -> GaussianStats:
    """Return the statistics of all rows, each in the component that a rule names: one fold.

    Log density and doubt are zero.
    """
    with engine.share(LabelledValue(mixture, grid, rule)) as shared:
        stats: GaussianStats = engine.fold(pinned, LabelledStep(), GaussianStats.merge, shared, label=label)
    return stats


def random_statistics(engine: Engine, pinned: Pinned, mixture: Mixture, grid: Grid, seed: int) -> GaussianStats:
    """Return the statistics of all rows under random responsibilities: one fold."""
    with engine.share(MixtureValue(mixture, grid)) as shared:
        stats: GaussianStats = engine.fold(pinned, RandomStep(seed), GaussianStats.merge, shared, label="start")
    return stats


@dataclass(frozen=True)
class DensityStep:
    """Log density of every row of a partition in input order; NaN for a row that was dropped."""

    def __call__(self, block: Block, mixture: Mixture, context: StepContext) -> Floats:
        """Measure a block."""
        out = np.full(block.ref.n_rows, np.nan)
        out[block.positions] = mixture.rows(block).log_density
        return out


@dataclass(frozen=True)
class MembershipStep:
    """Responsibilities of every row of a partition in input order; NaN for a row that was dropped."""

    def __call__(self, block: Block, mixture: Mixture, context: StepContext) -> Floats:
        """Measure a block."""
        out = np.full((block.ref.n_rows, len(mixture)), np.nan)
        out[block.positions] = mixture.responsibilities(block.x)
        return out


def densities(engine: Engine, pinned: Pinned, mixture: Mixture) -> Floats:
    """Return the log densities of all rows, in input order, on the driver."""
    with engine.share(mixture) as shared:
        return np.concatenate(engine.map(pinned, DensityStep(), shared, label="densities"))


def memberships(engine: Engine, pinned: Pinned, mixture: Mixture) -> Floats:
    """Return the responsibilities of all components for all rows, in input order, on the driver."""
    with engine.share(mixture) as shared:
        return np.concatenate(engine.map(pinned, MembershipStep(), shared, label="memberships"))


def _given_sums(block: Block, value: MixtureValue, given: Callable[[slice], Floats]) -> GaussianStats:
    size = max(1, _BATCH_VALUES // len(value.mixture))
    total = GaussianStats.of(0, _sums(block, slice(0, 0), value, given(slice(0, 0))))
    for start in range(0, block.n, size):
        rows = slice(start, min(block.n, start + size))
        part = _sums(block, rows, value, given(rows))
        total = total.merge(GaussianStats.of(rows.stop - rows.start, part))
    return total


def _sums(block: Block, rows: slice, value: MixtureValue, given: Floats | None) -> MixtureSums:
    weights = None if block.weights is None else block.weights[rows]
    try:
        return mixture_sums(block.x[rows], weights, value.mixture.packed, value.grid, given)
    except OverflowError as fault:
        raise DataError(
            f"{fault}.", where=block.ref.describe(), do="Scale the columns, or raise reg_covar (--reg-covar)."
        ) from None
