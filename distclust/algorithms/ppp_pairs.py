"""Whether two components are two clusters: the valley of the density between them, in the mixture and in the rows.

Source: Ray and Lindsay, *The topography of multivariate normal mixtures* (2005): all maxima of the density of two
Gaussians lie on their ridgeline. Hennig, *Methods for merging Gaussian mixture components* (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from distclust.algorithms.ppp_cells import full_covariances, log_densities
from distclust.kernels.eigen import product, symmetric_eigen
from distclust.kernels.elementary import exponential, logarithm
from distclust.kernels.linear import cholesky_upper, congruence, inverse_upper
from distclust.kernels.pairs import MARGIN
from distclust.ops.mixture import Mixture
from distclust.ops.validation import PairFrames
from distclust.stats.shape import AD_REJECTS, anderson_darling, dip, valley_p, values_of
from distclust.stats.validation import ValidationStats

Floats = npt.NDArray[np.float64]

RIDGE_POINTS = 61

DOUBTFUL = 0.35
"""Pairs with a deeper valley in the mixture are two clusters without further question; the rows decide on the others.
Two Gaussians fitted to the halves of a uniform distribution have a valley of 0.45."""

LEVEL = 0.01
"""A valley counts if one as deep would come of no valley with less than this probability."""

POOLED = 4.0
"""Where the valleys of all doubtful pairs together are as many standard deviations deep, there is structure at this
scale, and a pair is refused only if its rows rather speak against a valley. On s4 single pairs of true clusters have p
up to 0.02, all together 20; on uniform noise all together reach 2."""

POOLED_LEVEL = 0.5


@dataclass(frozen=True)
class Pair:
    """Two components.

    Attributes
    ----------
    first, second : int
    valley : float
        Least density between the two peaks over the lower peak, in the mixture of both; 1 where there is one peak only.
    """

    first: int
    second: int
    valley: float


@dataclass(frozen=True)
class Split:
    """A decision on two components: two clusters, or one.

    Attributes
    ----------
    round : int
        Of validation.
    clusters : (int, int)
        Numbers of the components in that round.
    accepted : bool
    distance : float
        Between the means, in common standard deviations.
    valley : float
        See `Pair`.
    rows : (int, int, int)
        Near the line through the means: at one, in the valley, at the other.
    p : float
        Probability of as deep a valley if there were none.
    icl_change : float
        Of hard labels, if the two were one; positive where they are better apart.
    anderson_darling : float
        A*^2 of the rows of both along the line.
    dip : float
        Of the same.
    reason : str
    """

    round: int
    clusters: tuple[int, int]
    accepted: bool
    distance: float
    valley: float
    rows: tuple[int, int, int]
    p: float
    icl_change: float
    anderson_darling: float
    dip: float
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "clusters": list(self.clusters), "rows": list(self.rows)}


def pairs_of(mixture: Mixture) -> list[Pair]:
    """Return all pairs of components with their valleys."""
    covariances = full_covariances(mixture)
    k = len(mixture)
    if k == 1:
        return []
    roots, _ = cholesky_upper(covariances)
    return [
        Pair(i, j, _valley(mixture.weights, mixture.means, covariances, roots, i, j))
        for i in range(k)
        for j in range(i + 1, k)
    ]


def frames_of(mixture: Mixture, pairs: list[Pair]) -> PairFrames:
    """Return the coordinates in which the rows of pairs are looked at: those of their pooled covariance.

    Windows are as wide as a third of the distance between the means. A row of a Gaussian is near enough to the line
    with probability 1/2 in any number of dimensions, so that windows do not end where clusters get narrow.
    """
    covariances = full_covariances(mixture)
    d = mixture.means.shape[1]
    first = np.array([pair.first for pair in pairs], np.intp)
    second = np.array([pair.second for pair in pairs], np.intp)
    share = (mixture.weights[first] / (mixture.weights[first] + mixture.weights[second]))[:, None, None]
    roots, _ = cholesky_upper(share * covariances[first] + (1 - share) * covariances[second])
    factors = inverse_upper(roots)
    apart = mixture.means[second] - mixture.means[first]
    whitened = np.array([_product(u.T, v) for u, v in zip(factors, apart, strict=True)]).reshape(-1, d)
    distances = np.sqrt(np.cumsum(whitened**2, axis=1)[:, -1])
    unit = whitened / np.where(distances > 0, distances, 1.0)[:, None]
    directions = np.array([_product(u, v) for u, v in zip(factors, unit, strict=True)]).reshape(-1, d)
    places = np.zeros((len(pairs), 4))
    inner = np.linspace(1 / 3, 2 / 3, RIDGE_POINTS)
    for at, (i, reach) in enumerate(zip(first, distances, strict=True)):
        line = mixture.means[i] + inner[:, None] * apart[at]
        logs = log_densities(line, mixture.weights, mixture.means, covariances)
        lowest = inner[int(np.argmin(_log_sums(logs)))]
        places[at] = 0.0, lowest * reach, reach, reach / 6
    radius = float(chi2.ppf(0.5, d - 1)) if d > 1 else 1.0
    members = np.stack([first, second], axis=1).astype(np.int32)
    return PairFrames(members, np.ascontiguousarray(mixture.means[first]), factors, directions, places, radius)


def judged(
    number: int, mixture: Mixture, pairs: list[Pair], frames: PairFrames, counts: ValidationStats, max_valley: float
) -> list[Split]:
    """Decide on pairs by what was counted between their means.

    Parameters
    ----------
    number : int
        Of the round.
    mixture : Mixture
    pairs : list of Pair
    frames : PairFrames
        Of the pairs.
    counts : ValidationStats
        Of the pass in these frames.
    max_valley : float
    """
    n_rows = int(counts.confusion.sum())
    doubtful = np.array([pair.valley > DOUBTFUL for pair in pairs], bool)
    lower = np.minimum(counts.windows[:, 0], counts.windows[:, 2])[doubtful]
    between = counts.windows[doubtful, 1]
    pooled = float((lower - between).sum() / np.sqrt(max(int((lower + between).sum()), 1)))
    level = POOLED_LEVEL if pooled >= POOLED else LEVEL
    out = []
    for at, pair in enumerate(pairs):
        first, valley, second = (int(count) for count in counts.windows[at])
        p, reach = valley_p(first, valley, second), float(frames.places[at, 2])
        normal = anderson_darling(values_of(counts.between[at], -MARGIN, reach + MARGIN))
        reason, accepted = _reason(pair.valley, p, level, normal, max_valley)
        out.append(
            Split(
                number,
                (pair.first, pair.second),
                accepted,
                reach,
                pair.valley,
                (first, valley, second),
                p,
                icl_change(mixture, pair, n_rows),
                normal,
                dip(counts.between[at]),
                reason,
            )
        )
    return out


def _reason(valley: float, p: float, level: float, normal: float, max_valley: float) -> tuple[str, bool]:
    if valley > max_valley:
        return f"refused: the density hardly falls between them (valley {valley:.2f})", False
    if valley <= DOUBTFUL:
        return f"accepted: a deep valley ({valley:.2f})", True
    if p >= level:
        return f"refused: the rows show no valley (p {p:.2g}, needed {level})", False
    if normal <= AD_REJECTS:
        return f"refused: together they look like one Gaussian (A*2 {normal:.2f})", False
    return f"accepted: the rows show a valley (p {p:.2g}) and are not one Gaussian (A*2 {normal:.1f})", True


def icl_change(mixture: Mixture, pair: Pair, n_rows: int) -> float:
    """Return what ICL of hard labels would gain if two components were one of the same moments."""
    covariances = full_covariances(mixture)
    i, j = pair.first, pair.second
    a, b = mixture.weights[i], mixture.weights[j]
    apart = mixture.means[i] - mixture.means[j]
    together = (a * covariances[i] + b * covariances[j]) / (a + b) + np.outer(apart, apart) * (a * b / (a + b) ** 2)
    dets = [_log_det(matrix) for matrix in (covariances[i], covariances[j], together)]
    terms = [w * (np.log(w) - 0.5 * det) for w, det in zip((a, b, a + b), dets, strict=True)]
    d = len(apart)
    parameters = 1 + d + {"full": d * (d + 1) // 2, "tied": 0, "diag": d}.get(mixture.covariance_type, 1)
    return float(2 * n_rows * (terms[0] + terms[1] - terms[2]) - parameters * np.log(max(n_rows, 2)))


def independent(pairs: list[Pair]) -> list[Pair]:
    """Return pairs, those of the least valley last, so that no component is in two of them."""
    taken: set[int] = set()
    out = []
    for pair in sorted(pairs, key=lambda pair: (-pair.valley, pair.first, pair.second)):
        if not taken & {pair.first, pair.second}:
            out.append(pair)
            taken |= {pair.first, pair.second}
    return out


def _valley(weights: Floats, means: Floats, covariances: Floats, roots: Floats, i: int, j: int) -> float:
    # In coordinates where the first is the unit Gaussian and the second has axes of its own, the ridgeline needs no
    # system of equations per point.
    inverse = inverse_upper(roots[i : i + 1])
    spread, axes = symmetric_eigen(congruence(inverse, covariances[j : j + 1])[0])
    apart = product(product((means[j] - means[i])[None], inverse[0]), axes)
    a = np.linspace(0.0, 1.0, RIDGE_POINTS)[:, None]
    points = means[i] + product(product(a * apart / ((1 - a) * spread + a), axes.T), roots[i])
    chosen = [i, j]
    density = _log_sums(log_densities(points, weights[chosen], means[chosen], covariances[chosen]))
    left = np.maximum.accumulate(density)
    right = np.maximum.accumulate(density[::-1])[::-1]
    return float(exponential(np.array([np.min(density - np.minimum(left, right))]))[0])


def _log_sums(logs: Floats) -> Floats:
    top = logs.max(axis=1)
    return np.asarray(top + logarithm(np.cumsum(exponential(logs - top[:, None]), axis=1)[:, -1]))


def _log_det(matrix: Floats) -> float:
    roots, _ = cholesky_upper(matrix[None])
    return 2.0 * float(np.cumsum(logarithm(np.diagonal(roots[0])))[-1])


def _product(matrix: Floats, vector: Floats) -> Floats:
    return np.asarray(np.cumsum(matrix * vector, axis=1)[:, -1])
