"""The loops of Gaussian mixtures over rows; `distclust.kernels.mixture` says what they compute, and calls them.

Rows go through in chunks, turned so that rows are lanes: densities of all components, responsibilities, then the sums
of one component after the other while its whitened rows lie in L2.
"""

from __future__ import annotations

import numpy as np

from distclust.kernels._emit import address
from distclust.kernels._gauss import BLOCK, VECTORS, product_row, scatter_tile, weigh_row, whiten_tile
from distclust.kernels._jit import jit
from distclust.kernels.elementary import logarithm_of, small_exponentials

LEVEL_BITS = 24
LEVELS = 7
"""Level 0 has the limit of the grid, each further one 2^24 times that of the one before."""

TILE = 8 * VECTORS
"""Rows of a tile: chunks are multiples of it."""

FULL, AXIS, TIED = 0, 1, 2
"""Forms of a mixture, as the loops take them."""


@jit
def whiten_means(u, means, out):
    for c in range(means.shape[0]):
        for j in range(means.shape[1]):
            for i in range(j + 1):
                out[c, j] += means[c, i] * u[i, j]


@jit
def _load(x, start, stop, xt):
    """Turn rows into lanes; lanes without a row are zero."""
    for t in range(stop - start):
        for i in range(x.shape[1]):
            xt[i, t] = x[start + t, i]
    for i in range(x.shape[1]):
        for t in range(stop - start, xt.shape[1]):
            xt[i, t] = 0.0


@jit
def _whiten(xt, mean, factor, y, q, diff):
    """Write whitened rows and their squared lengths."""
    d, size, count = mean.shape[0], y.shape[0], y.shape[1]
    for s in range(0, count, TILE):
        for i in range(d):
            for t in range(TILE):
                diff[i * TILE + t] = xt[i, s + t] - mean[i]
        whiten_tile(address(diff), address(factor), size, address(y) + 8 * s, 8 * count, address(q) + 8 * s)


@jit
def _scale(xt, mean, scale, y, q):
    """Write rows in units of standard deviations and their squared lengths."""
    count = y.shape[1]
    for t in range(count):
        q[t] = 0.0
    for i in range(mean.shape[0]):
        for t in range(count):
            value = (xt[i, t] - mean[i]) * scale[i]
            y[i, t] = value
            q[t] += value * value


@jit
def _soften(q, log_norms, r, density, best, doubt, powers, power_bits):
    """Turn squared lengths into responsibilities, log density, and the log of the highest responsibility."""
    k, count = r.shape
    for t in range(count):
        best[t] = log_norms[0] - 0.5 * q[0, t]
        doubt[t] = 0.0
    for c in range(1, k):
        for t in range(count):
            value = log_norms[c] - 0.5 * q[c, t]
            best[t] = value if value > best[t] else best[t]
    for c in range(k):
        for t in range(count):
            r[c, t] = (log_norms[c] - 0.5 * q[c, t]) - best[t]
        small_exponentials(r[c], powers, power_bits)
        for t in range(count):
            doubt[t] += r[c, t]
    for c in range(k):
        for t in range(count):
            r[c, t] /= doubt[t]
    for t in range(count):
        doubt[t] = logarithm_of(doubt[t])
        density[t] = best[t] + doubt[t]


@jit
def _level(value, limit):
    level = 0
    while value > limit:
        limit *= 2.0**LEVEL_BITS
        level += 1
    return level


@jit
def _add_far(weighted, y, t, first_scale, scale, first, second, full):
    """Add one row's terms for one component at coarser units."""
    d, at = first.shape[0], 0
    for i in range(d):
        value = weighted * y[i, t]
        first[i] += np.int64(np.rint(value * first_scale))
        for j in range(i, d if full else i + 1):
            second[at] += np.int64(np.rint(value * y[j, t] * scale))
            at += 1


@jit
def _sum_component(y, r, q, a, ones, limit, per_unit, magics, full, mass, first, second, far):
    """Add the terms of one component for a chunk; return the levels in use beyond the first, -1 if these are too few.

    `r` holds weighted responsibilities; those of rows that are too far for level 0 are set to zero on the way.
    """
    d, size, count = first.shape[0], y.shape[0], y.shape[1]
    n_levels, n_far = 0, 0
    product_row(address(r), address(ones), count, magics[1], address(mass))
    for t in range(count):
        n_far += r[t] * (q[t] if q[t] > 1.0 else 1.0) > limit
    if n_far > 0:
        for t in range(count):
            level = _level(r[t] * (q[t] if q[t] > 1.0 else 1.0), limit)
            if level >= LEVELS:
                return -1
            if level > 0:
                n_levels = max(n_levels, level)
                # The row itself has half the bits of its square, so it may be of a lower level.
                low = _level(r[t] * np.sqrt(q[t]), limit)
                target = first if low == 0 else far[low - 1, :d]
                scales = per_unit * 2.0 ** (-LEVEL_BITS * low), per_unit * 2.0 ** (-LEVEL_BITS * level)
                _add_far(r[t], y, t, scales[0], scales[1], target, far[level - 1, d:], full)
                r[t] = 0.0
    for i in range(d):
        weigh_row(address(r), address(y[i]), count, magics[0], address(a[i]), address(first[i:]))
    if full:
        at = 0
        for i in range(0, size, BLOCK):
            for j in range(i, size, BLOCK):
                scatter_tile(address(a[i]), address(y[j]), 8 * count, count, magics[0], address(second[at:]))
                at += BLOCK * BLOCK
    else:
        for i in range(d):
            product_row(address(a[i]), address(y[i]), count, magics[0], address(second[i:]))
    return n_levels


@jit
def _write_rows(r, density, start, stop, labels, probability, log_density, table):
    """Write what is asked of the rows of a chunk."""
    k = r.shape[0]
    for t in range(stop - start):
        if labels.shape[0] > 0:
            top = 0
            for c in range(1, k):
                top = c if r[c, t] > r[top, t] else top
            labels[start + t], probability[start + t], log_density[start + t] = top, r[top, t], density[t]
        if table.shape[0] > 0:
            for c in range(k):
                table[start + t, c] = r[c, t]


@jit
def run_chunks(
    x, weights, form, means, factors, scales, log_norms, given, settings, magic_bits, summed,
    mass, first, second, far, scalars, labels, probability, log_density, table,
    lanes, y, qr, scratch, scratch_bits, diff,
):  # fmt: skip
    """Go through the rows chunk by chunk; return the levels in use beyond the first, -1 if these are too few."""
    (n, d), (k, chunk) = x.shape, qr.shape[1:]
    inverse_weight, limit, per_unit, per_mass = settings[0], settings[1], settings[2], settings[3]
    xt, a, q, r = lanes[0], lanes[1], qr[0], qr[1]
    omega, density, best = scratch[:chunk], scratch[chunk : 2 * chunk], scratch[2 * chunk : 3 * chunk]
    doubt, ones = scratch[3 * chunk : 4 * chunk], scratch[4 * chunk : 5 * chunk]
    powers, power_bits = scratch[5 * chunk : 6 * chunk], scratch_bits[5 * chunk : 6 * chunk]
    n_levels, n_lanes, origin = 0, 0, np.zeros(d)
    ones[:] = 1.0
    for start in range(0, n, chunk):
        stop = min(n, start + chunk)
        if form == TIED:
            _load(x, start, stop, a)
            _whiten(a, origin, factors[0], xt, best, diff)
        else:
            _load(x, start, stop, xt)
        for c in range(k):
            if form == FULL:
                _whiten(xt, means[c], factors[c], y[c], q[c], diff)
            else:
                _scale(xt, means[c], scales[c], y[0], q[c])
        if given.shape[0] > 0:
            for t in range(stop - start):
                for c in range(k):
                    r[c, t] = given[start + t, c]
        else:
            _soften(q, log_norms, r, density, best, doubt, powers, power_bits)
        _write_rows(r, density, start, stop, labels, probability, log_density, table)
        if not summed:
            continue
        for t in range(chunk):
            omega[t] = 0.0 if t >= stop - start else (weights[start + t] if weights.shape[0] > 0 else 1.0)
            omega[t] *= inverse_weight
        if given.shape[0] == 0:
            for t in range(stop - start):
                value = omega[t] * density[t]
                level = _level(abs(value), limit)
                if level >= LEVELS:
                    return -1
                scalars[level] += np.int64(np.rint(value * per_unit * 2.0 ** (-LEVEL_BITS * level)))
                scalars[LEVELS] += np.int64(np.rint(omega[t] * doubt[t] * per_mass))
        n_lanes += chunk
        for c in range(k):
            for t in range(chunk):
                # Lanes without a row may hold anything, NaN of given responsibilities too.
                r[c, t] = r[c, t] * omega[t] if t < stop - start else 0.0
            if form != FULL:
                _scale(xt, means[c], scales[c], y[0], q[c])
            level = _sum_component(
                y[c if form == FULL else 0], r[c], q[c], a, ones, limit, per_unit, settings[4:], form == FULL,
                mass[c:], first[c, :d], second[c], far[:, c],
            )  # fmt: skip
            if level < 0:
                return -1
            n_levels = max(n_levels, level)
    if summed:
        _take_off(mass, first, second, d, form == FULL, n_lanes * magic_bits[0], n_lanes * magic_bits[1])
    return n_levels


@jit
def _take_off(mass, first, second, d, full, bias, mass_bias):
    """Take off the sums what the addends M put into them."""
    for c in range(mass.shape[0]):
        mass[c] -= mass_bias
        first[c, :d] -= bias
        second[c, : second.shape[1] if full else d] -= bias
