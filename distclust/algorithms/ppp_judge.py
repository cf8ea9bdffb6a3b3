"""What a fit of PPP is worth: verdicts on clusters, columns that separate them, clusterability of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.stats import chi2

from distclust.algorithms.ppp_cells import full_covariances
from distclust.algorithms.ppp_config import PPPConfig
from distclust.algorithms.ppp_fit import PPPFit
from distclust.kernels.eigen import product, symmetric_eigen
from distclust.kernels.linear import cholesky_upper, congruence, inverse_upper
from distclust.kernels.random import uniform
from distclust.ops.mixture import Mixture
from distclust.stats.shape import DIP_REJECTS, dip
from distclust.stats.validation import SHARE_UNITS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GAIN_LEVEL = 1e-3
"""A column separates if as much information by chance is less likely than this over the number of columns, and ..."""

LEAST_RATIO = 0.05
"""... if at least this share of its variance lies between the clusters."""

STABLE = 0.75
"""Hennig's bound of the Jaccard index above which a cluster counts as found again (*Cluster-wise assessment of cluster
stability*, 2007)."""

HOPKINS_POINTS = 200
_STAGE_HOPKINS = 0x484F50
_DIP_BINS = 64


@dataclass(frozen=True)
class Verdict:
    """Whether a cluster is one, and why.

    Attributes
    ----------
    cluster : int
    rows : int
    weight : float
    overlap : float
        Jaccard index of its rows in the partition and in the mixture.
    posterior : float
        Mean probability with which its rows belong to it.
    stability : float
        Mean Jaccard index with its best match in fits to halves of the rows.
    leak : float
        Share of its rows' probability that goes to the cluster next to it.
    leaks_to : int
        That cluster; -1 for none.
    sure_rows : int
        Rows that belong to it with a probability of 0.95.
    valid : bool
    reasons : tuple of str
    """

    cluster: int
    rows: int
    weight: float
    overlap: float
    posterior: float
    stability: float
    leak: float
    leaks_to: int
    sure_rows: int
    valid: bool
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class ColumnScore:
    """What a column tells of the clusters.

    Attributes
    ----------
    column : int
    between : float
        Share of its variance that lies between the clusters.
    information : float
        Mutual information of its values, in 32 bins, and the clusters, in nats.
    p : float
        Probability of as much by chance.
    separable : bool
    """

    column: int
    between: float
    information: float
    p: float
    separable: bool


@dataclass(frozen=True)
class Clusterability:
    """How clustered rows are.

    Attributes
    ----------
    trace : float
        Of the inverse within-cluster covariance times that between the clusters.
    hopkins : float
        0.5 for uniform rows, towards 1 for clustered ones (Hopkins and Skellam, 1954); NaN for too few rows.
    dip : float
        Of the rows along their first principal axis.
    dip_rejects : bool
        Whether it rejects that they have one mode there.
    """

    trace: float
    hopkins: float
    dip: float
    dip_rejects: bool


def verdicts_of(fit: PPPFit, config: PPPConfig) -> tuple[Verdict, ...]:
    """Judge every cluster of a fit."""
    counts = fit.counts
    k = len(fit.mixture)
    rows = counts.confusion.sum(axis=0)
    out = []
    for j in range(k):
        both = int(counts.confusion[j, j])
        union = int(counts.confusion[j].sum() + rows[j]) - both
        shares = counts.shares[j] / SHARE_UNITS / max(int(rows[j]), 1)
        others = np.delete(np.arange(k), j)
        to = int(others[np.argmax(shares[others])]) if k > 1 else -1
        out.append(
            _verdict(
                j,
                int(rows[j]),
                float(fit.mixture.weights[j]),
                both / union if union else 0.0,
                float(shares[j]),
                float(fit.stability[j]),
                float(shares[to]) if k > 1 else 0.0,
                to,
                int(counts.sure[j]),
                config,
            )
        )
    return tuple(out)


def _verdict(
    cluster: int,
    rows: int,
    weight: float,
    overlap: float,
    posterior: float,
    stability: float,
    leak: float,
    to: int,
    sure: int,
    config: PPPConfig,
) -> Verdict:
    reasons = []
    if overlap < config.min_overlap:
        reasons.append(f"partition and mixture agree on {overlap:.0%} of it, {config.min_overlap:.0%} needed")
    if posterior < config.min_posterior:
        reasons.append(
            f"its rows belong to it with {posterior:.0%} on average, {config.min_posterior:.0%} needed; "
            f"{leak:.0%} go to cluster {to}"
        )
    valid = not reasons
    if valid:
        reasons.append("partition and mixture agree, and its rows are sure")
    if stability < STABLE:
        reasons.append(f"halves of the rows find {stability:.0%} of it")
    return Verdict(cluster, rows, weight, overlap, posterior, stability, leak, to, sure, valid, tuple(reasons))


def columns_of(fit: PPPFit, names: Ints) -> tuple[ColumnScore, ...]:
    """Score the columns of a fit whose coordinates are columns of the source.

    Parameters
    ----------
    fit : PPPFit
    names : (d,) int64
        Number of each column in the source.
    """
    counts = fit.counts.columns
    covariances = np.diagonal(full_covariances(fit.mixture), axis1=1, axis2=2)
    weights, means = fit.mixture.weights[:, None], fit.mixture.means
    middle = np.cumsum(weights * means, axis=0)[-1]
    between = np.cumsum(weights * (means - middle) ** 2, axis=0)[-1]
    within = np.cumsum(weights * covariances, axis=0)[-1]
    out = []
    for at, name in enumerate(names):
        gain, p = information_gain(counts[:, at])
        ratio = float(between[at] / (between[at] + within[at]))
        separable = p < GAIN_LEVEL / len(names) and ratio >= LEAST_RATIO
        out.append(ColumnScore(int(name), ratio, gain, p, separable))
    return tuple(out)


def information_gain(counts: Ints) -> tuple[float, float]:
    """Return mutual information in nats and its p (G-test, chi-squared) of a table of counts.

    Examples
    --------
    >>> gain, p = information_gain(np.array([[50, 0], [0, 50]]))
    >>> round(gain, 6), p < 1e-9
    (0.693147, True)
    """
    table = counts[:, counts.sum(axis=0) > 0]
    table = table[table.sum(axis=1) > 0].astype(np.float64)
    total = table.sum()
    if not total or min(table.shape) < 2:
        return 0.0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    logs = np.log(np.where(table > 0, table / expected, 1.0))
    gain = float(np.cumsum((table * logs).ravel())[-1] / total)
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return max(gain, 0.0), float(chi2.sf(2 * total * gain, freedom))


def clusterability(mixture: Mixture, sample: Floats) -> Clusterability:
    """Measure how clustered rows are.

    Parameters
    ----------
    mixture : Mixture
    sample : (m, d) float64
        Rows in its coordinates.
    """
    covariances = full_covariances(mixture)
    weights = mixture.weights
    middle = np.cumsum(weights[:, None] * mixture.means, axis=0)[-1]
    off = mixture.means - middle
    within = np.cumsum(weights[:, None, None] * covariances, axis=0)[-1]
    between = np.cumsum(weights[:, None, None] * off[:, :, None] * off[:, None, :], axis=0)[-1]
    roots, _ = cholesky_upper(within[None])
    trace = float(np.cumsum(np.diagonal(congruence(inverse_upper(roots), between[None])[0]))[-1])
    depth, rejects = _dip_of(sample)
    return Clusterability(trace, hopkins(sample), depth, rejects)


def hopkins(sample: Floats) -> float:
    """Return the Hopkins statistic of rows: distances of uniform points to the rows against those between rows."""
    m, d = sample.shape
    probes = min(HOPKINS_POINTS, m // 10)
    low, extent = sample.min(axis=0), np.ptp(sample, axis=0)
    if probes < 5 or not (extent > 0).any():
        return float("nan")
    draws = uniform(0, _STAGE_HOPKINS, np.arange(probes * d, dtype=np.int64)).reshape(probes, d)
    tree = cKDTree(sample)
    from_points = tree.query(low + draws * extent)[0]
    # Rows come by their hash: the first are a sample of them.
    from_rows = tree.query(sample[:probes], k=2)[0][:, 1]
    power = min(d, 10)  # higher powers of distances are one distance only
    a, b = float(np.cumsum(from_points**power)[-1]), float(np.cumsum(from_rows**power)[-1])
    return a / (a + b) if a + b > 0 else float("nan")


def _dip_of(sample: Floats) -> tuple[float, bool]:
    centered = sample - sample.mean(axis=0)
    if len(sample) < 8 or not np.ptp(sample, axis=0).any():
        return 0.0, False
    _, vectors = symmetric_eigen(product(centered.T, centered))
    depth = dip(np.histogram(product(centered, vectors[:, -1:])[:, 0], _DIP_BINS)[0])
    return depth, bool(depth * np.sqrt(len(sample)) > DIP_REJECTS)
