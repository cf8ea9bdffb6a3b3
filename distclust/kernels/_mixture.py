"""The loops of Gaussian mixtures over rows; `distclust.kernels.mixture` says what they compute, and calls them.

Rows go through in chunks, turned so that rows are lanes: densities of all components, responsibilities, then the sums
of one component after the other while its whitened rows lie in L2.
"""

from __future__ import annotations

import numpy as np

from distclust.kernels._emit import address
from distclust.kernels._gauss import BLOCK, product_row, scatter_tile, weigh_row, whiten_tile
from distclust.kernels._jit import jit
from distclust.kernels._mixture_lists import TILE, list_members, soften_lists, write_lists
from distclust.kernels.elementary import logarithm_of, small_exponentials

LONGEST = 0.5
"""Share of all pairs of rows and components on lists up to which these pay."""

LEVEL_BITS = 24
LEVELS = 7
"""Level 0 has the limit of the grid, each further one 2^24 times that of the one before."""

FULL, AXIS, TIED = 0, 1, 2
"""Forms of a mixture, as the loops take them."""

PROBE, DENSE = 512, 40_000
"""Rows of a first block with lists, and rows without lists after a block whose lists did not pay."""


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
def _soften(q, log_norms, least, r, density, best, doubt, powers, power_bits):
    """Turn squared lengths into responsibilities, log density, and the log of the highest responsibility.

    A component whose density is less than `least` times the highest has no share.
    """
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
            r[c, t] = 0.0 if r[c, t] < least else r[c, t]
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
def _keep_heavy(count, y, r, q, d, per_unit):
    """Move the rows that have terms other than zero to the front; return their number, filled up to whole vectors.

    Where ``w r max(1, |y|^2)`` is less than a quarter of the unit, all terms are rounded to zero: leaving them out
    changes no bit. In well separated components that is most of a chunk.
    """
    kept = 0
    for t in range(count):
        if r[t] * (q[t] if q[t] > 1.0 else 1.0) * per_unit > 0.25:
            q[kept] = t  # squared lengths are not needed any more
            kept += 1
    if 8 * kept > 7 * count:
        return count
    for i in range(d):
        for p in range(kept):
            y[i, p] = y[i, np.int64(q[p])]
    for p in range(kept):
        r[p] = r[np.int64(q[p])]
    whole = (kept + 7) // 8 * 8
    for p in range(kept, whole):
        r[p] = 0.0
    return whole


@jit
def _sum_component(count, y, r, q, a, ones, limit, per_unit, magics, full, mass, first, second, far, lanes):
    """Add the terms of one component for `count` lanes; return the levels in use beyond the first, -1 if too few.

    `r` holds weighted responsibilities; `lanes` takes the number of rows whose terms went to level 0. Whitened rows,
    responsibilities and squared lengths are of no use afterwards.
    """
    d, size, stride = first.shape[0], y.shape[0], 8 * y.shape[1]
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
    count = _keep_heavy(count, y, r, q, d, per_unit)
    lanes[0] += count
    for i in range(d):
        weigh_row(address(r), address(y[i]), count, magics[0], address(a[i]), address(first[i:]))
    if full:
        at = 0
        for i in range(0, size, BLOCK):
            for j in range(i, size, BLOCK):
                scatter_tile(address(a[i]), address(y[j]), stride, count, magics[0], address(second[at:]))
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
def _weigh(weights, inverse_weight, start, n, omega):
    for t in range(n):
        omega[t] = (weights[start + t] if weights.shape[0] > 0 else 1.0) * inverse_weight


@jit
def _add_scalars(omega, density, doubt, n, limit, per_unit, per_mass, scalars):
    """Add what is summed once a row; return -1 if the levels are too few."""
    for t in range(n):
        value = omega[t] * density[t]
        level = _level(abs(value), limit)
        if level >= LEVELS:
            return -1
        scalars[level] += np.int64(np.rint(value * per_unit * 2.0 ** (-LEVEL_BITS * level)))
        scalars[LEVELS] += np.int64(np.rint(omega[t] * doubt[t] * per_mass))
    return 0


@jit
def _run_lists(x, weights, mixture, start, n, settings, summed, sums, asked, a, y, qr, scratch, scratch_bits, lists):
    """Go through one block by lists; return the levels in use beyond the first, and the length of all lists."""
    (means, factors, log_norms, guesses, pairs, origin), (members, counts, ids, guess, tile, scores) = mixture, lists
    mass, first, second, far, scalars, mass_lanes, summed_lanes = sums
    inverse_weight, limit, per_unit, per_mass, least, cut = settings[:6]
    d, q, r = means.shape[1], qr[0], qr[1]
    omega, density, best, doubt, ones, powers = scratch
    total = list_members(
        x, start, n, means, factors, guesses, pairs, cut, origin, y, q, members, counts, ids, guess, tile, scores
    )
    soften_lists(q, log_norms, least, n, members, counts, r, density, best, doubt, powers, scratch_bits[5])
    write_lists(r, density, start, n, members, counts, *asked)
    if not summed:
        return 0, total
    _weigh(weights, inverse_weight, start, n, omega)
    n_levels = _add_scalars(omega, density, doubt, n, limit, per_unit, per_mass, scalars)
    for c in range(means.shape[0]):
        if counts[c] == 0 or n_levels < 0:
            continue
        for p in range(counts[c]):
            r[c, p] *= omega[members[c, p]]
        whole = (counts[c] + 7) // 8 * 8
        for p in range(counts[c], whole):
            r[c, p] = 0.0
        mass_lanes[c] += whole
        level = _sum_component(
            whole, y[c], r[c], q[c], a, ones, limit, per_unit, settings[6:], True,
            mass[c:], first[c, :d], second[c], far[:, c], summed_lanes[c:],
        )  # fmt: skip
        n_levels = -1 if level < 0 else max(n_levels, level)
    return n_levels, total


@jit
def _run_chunk(
    x, weights, form, mixture, given, start, stop, settings, summed, sums, asked, lanes, y, qr, scratch, scratch_bits,
    diff,
):  # fmt: skip
    """Go through one chunk, all components for all rows; return the levels in use beyond the first."""
    means, factors, scales, log_norms, origin = mixture
    mass, first, second, far, scalars, mass_lanes, summed_lanes = sums
    inverse_weight, limit, per_unit, per_mass, least = settings[:5]
    (k, d), chunk, xt, a, q, r = means.shape, qr.shape[2], lanes[0], lanes[1], qr[0], qr[1]
    omega, density, best, doubt, ones, powers = scratch
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
        _soften(q, log_norms, least, r, density, best, doubt, powers[:chunk], scratch_bits[5])
    _write_rows(r, density, start, stop, *asked)
    if not summed:
        return 0
    _weigh(weights, inverse_weight, start, stop - start, omega)
    n_levels = 0
    if given.shape[0] == 0:
        n_levels = _add_scalars(omega, density, doubt, stop - start, limit, per_unit, per_mass, scalars)
    for c in range(k):
        if n_levels < 0:
            return -1
        for t in range(chunk):
            # Lanes without a row may hold anything, NaN of given responsibilities too.
            r[c, t] = r[c, t] * omega[t] if t < stop - start else 0.0
        if form != FULL:
            _scale(xt, means[c], scales[c], y[0], q[c])
        mass_lanes[c] += chunk
        level = _sum_component(
            chunk, y[c if form == FULL else 0], r[c], q[c], a, ones, limit, per_unit, settings[6:], form == FULL,
            mass[c:], first[c, :d], second[c], far[:, c], summed_lanes[c:],
        )  # fmt: skip
        n_levels = -1 if level < 0 else max(n_levels, level)
    return n_levels


@jit
def run_chunks(
    x, weights, form, means, factors, scales, log_norms, guesses, pairs, given, settings, magic_bits, summed,
    mass, first, second, far, scalars, labels, probability, log_density, table,
    lanes, y, qr, scratch, scratch_bits, diff, block_lanes, block_y, block_qr, members, ids, tile, scores,
):  # fmt: skip
    """Go through the rows; return the levels in use beyond the first, -1 if these are too few."""
    (n, d), (k, chunk), block = x.shape, qr.shape[1:], ids.shape[0]
    origin, guess, counts = np.zeros(d), np.empty(block + TILE, np.int64), np.empty(k, np.int64)
    sums = mass, first, second, far, scalars, np.zeros(k, np.int64), np.zeros(k, np.int64)
    asked, mixture = (labels, probability, log_density, table), (means, factors, scales, log_norms, origin)
    near, lists = (means, factors, log_norms, guesses, pairs, origin), (members, counts, ids, guess, tile, scores)
    rooms = (scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5])
    dense, rows = 0 if block > 0 else n, min(block, PROBE)
    n_levels, start = 0, 0
    rooms[4][:] = 1.0
    while start < n:
        if dense <= 0:
            stop = min(n, start + rows)
            level, total = _run_lists(
                x, weights, near, start, stop - start, settings, summed, sums, asked, block_lanes, block_y, block_qr,
                rooms, scratch_bits, lists,
            )  # fmt: skip
            pays = total < LONGEST * k * (stop - start)
            dense, rows = (0, block) if pays else (DENSE, min(block, PROBE))
        else:
            stop = min(n, start + chunk)
            level = _run_chunk(
                x, weights, form, mixture, given, start, stop, settings, summed, sums, asked, lanes, y, qr, rooms,
                scratch_bits, diff,
            )  # fmt: skip
            dense -= chunk
        if level < 0:
            return -1
        n_levels, start = max(n_levels, level), stop
    if summed:
        _take_off(mass, first, second, d, form == FULL, magic_bits, sums[5], sums[6])
    return n_levels


@jit
def _take_off(mass, first, second, d, full, magic_bits, mass_lanes, lanes):
    """Take off the sums what the addends M put into them."""
    for c in range(mass.shape[0]):
        mass[c] -= mass_lanes[c] * magic_bits[1]
        bias = lanes[c] * magic_bits[0]
        first[c, :d] -= bias
        second[c, : second.shape[1] if full else d] -= bias
