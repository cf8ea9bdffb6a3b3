"""What shows, without its density, that a component has no share of a row.

With ``y_g`` the whitened row of a component g that is near, ``A = U_c^T U_g^-T`` and ``b = U_c^T (m_g - m_c)``, the
whitened row of another component c is ``A y_g + b``, so

    |y_c|^2 >= |b|^2 + 2 (U_c b) . (x - m_g) + s |y_g|^2,    s at most the square of the lowest singular value of A.

That is one product of length d in place of d^2 / 2, and an equation where both covariances are the same. `s` is found
by way of one reference precision ``P_0``: from ``P_c >= low_c P_0`` and ``P_g <= high_g P_0`` follows
``low_c / high_g``, whatever P_0 is, so k decompositions do for k^2 pairs.

Rounding is bounded by norms and taken off, so a bound never says more than the density in full would: what is
left out has no share by the definition, and no bit depends on the bounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.kernels._gauss import COLUMNS, padded
from distclust.kernels.eigen import symmetric_eigen
from distclust.kernels.linear import cholesky_upper, inverse_upper

Floats = npt.NDArray[np.float64]

EXTRA = 3
"""Rows of a tile below the padded row itself: 1, the squared length of the whitened row, that of the row."""
_FEWEST = 4
_WIDEST = 128
"""Eigenvalues of wider precisions would take longer than passes over few rows."""
_MOST_BYTES = 4 << 20
"""The pairs of a component are read once for every tile of 32 rows."""
_ROUNDING = 64 * 2.0**-53


def bound_tables(log_norms: Floats, means: Floats, factors: Floats) -> tuple[Floats, Floats]:
    """Return what `affine_tile` takes: scores for a guess [1, q], of the pairs [k, q]; empty where they do not pay."""
    k, d = means.shape
    none = np.zeros((0, 0)), np.zeros((0, 0))
    if k < _FEWEST or d > _WIDEST or 8 * k * padded(k) * (padded(d) + EXTRA) > _MOST_BYTES:
        return none
    factors = np.triu(factors)
    precisions = factors @ factors.transpose(0, 2, 1)
    log_dets = 2 * np.log(np.abs(np.diagonal(factors, axis1=1, axis2=2))).sum(axis=1) / d
    # Without the scales of the components, or the tightest would be the only one that counts.
    reference = (precisions * np.exp(-log_dets)[:, None, None]).mean(axis=0)
    roots, positive = cholesky_upper(reference[None])
    if not positive.all():
        return none
    whitener = inverse_upper(roots)[0]
    inside = whitener.T @ precisions @ whitener
    if not np.isfinite(inside).all():
        return none
    pairs = _pair_scores(log_norms, means, factors, _ratios(inside, factors, whitener))
    guesses = np.zeros((1, k, padded(d) + 1))
    common = reference * np.exp(log_dets.mean())
    guesses[0, :, :d] = means @ common
    guesses[0, :, -1] = log_norms - 0.5 * ((means @ common) * means).sum(axis=1)
    if not (np.isfinite(pairs).all() and np.isfinite(guesses).all()):
        return none
    return _pack(guesses), _pack(pairs)


def _ratios(inside: Floats, factors: Floats, whitener: Floats) -> Floats:
    """Return ``s`` of the near and the other component, [k, k]."""
    values = symmetric_eigen(inside)[0]
    norms = np.square(factors).sum(axis=(1, 2))
    error = 1e-14 * len(whitener) * norms * np.square(whitener).sum()
    low, high = np.maximum(values[:, 0] - error, 0.0), values[:, -1] + error
    return low[None, :] / high[:, None]


def _pair_scores(log_norms: Floats, means: Floats, factors: Floats, ratios: Floats) -> Floats:
    """Return the weights of a score that is at most ``ln p_g - ln p_c``, [k near, k others, depth]."""
    k, d = means.shape
    size = padded(d)
    out = np.zeros((k, k, size + EXTRA))
    norms = np.square(factors).sum(axis=(1, 2))
    for c in range(k):
        apart = means - means[c]
        b = apart @ factors[c]
        # Every term, and every sum on the way to it, is at most (norms) (|x - m_g| + |m_g - m_c|)^2.
        slack = _ROUNDING * (d + EXTRA) * (norms[c] + (1.0 + ratios[:, c]) * norms)
        out[:, c, :d] = b @ factors[c].T
        fixed = 0.5 * np.square(b).sum(axis=1) - log_norms[c] + log_norms
        fixed -= 2.0 * slack * np.square(apart).sum(axis=1)
        out[:, c, size] = fixed - 1e-6 - 1e-12 * (np.abs(log_norms) + abs(log_norms[c]))
        out[:, c, size + 1] = 0.5 * (ratios[:, c] - 1.0)
        out[:, c, size + 2] = -2.0 * slack
    return out


def _pack(scores: Floats) -> Floats:
    """Lay out [m, k, depth] as `affine_tile` reads it, `COLUMNS` scores side by side."""
    m, k, depth = scores.shape
    square = np.zeros((m, padded(k), depth))
    square[:, :k] = scores
    blocks = square.reshape(m, -1, COLUMNS, depth).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(blocks).reshape(m, -1)
