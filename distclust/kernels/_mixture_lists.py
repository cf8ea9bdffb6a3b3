"""A block of rows of a mixture of which most components have no share: every component has a list of its rows.

A row is whitened for the component that a score of all components with one precision puts first, then for those that
the bounds of `_mixture_bounds` leave. Rows of one guess make up the tiles, since bounds are about pairs.
"""

from __future__ import annotations

import numpy as np

from distclust.kernels._emit import address
from distclust.kernels._gauss import VECTORS, affine_tile, whiten_tile
from distclust.kernels._jit import jit
from distclust.kernels._mixture_bounds import EXTRA
from distclust.kernels.elementary import logarithm_of, small_exponentials

TILE = 8 * VECTORS
"""Rows of a tile: chunks are multiples of it."""


@jit
def _gather(x, start, rows, mean, tile):
    """Turn rows less a mean into lanes, of which those without a row are zero."""
    for t in range(rows.shape[0]):
        row = start + rows[t]
        for i in range(mean.shape[0]):
            tile[i, t] = x[row, i] - mean[i]
    if rows.shape[0] < TILE:
        for i in range(mean.shape[0]):
            for t in range(rows.shape[0], TILE):
                tile[i, t] = 0.0


@jit
def _guess(x, start, n, guesses, origin, k, width, tile, scores, ids, guess):
    """Write a likely component of every row."""
    depth = tile.shape[0] - EXTRA + 1
    top = scores[width]
    for s in range(0, n, TILE):
        count = min(TILE, n - s)
        _gather(x, start, ids[s : s + count], origin, tile)
        affine_tile(address(tile), address(guesses), depth, width, address(scores))
        for t in range(TILE):
            top[t] = scores[0, t]
            guess[s + t] = 0
        for c in range(1, k):
            for t in range(TILE):
                better = scores[c, t] > top[t]
                top[t] = scores[c, t] if better else top[t]
                guess[s + t] = c if better else guess[s + t]


@jit
def _screen_tile(rows, g, k, cut, scores, members, counts):
    """Put the rows on the lists of all components other than g that may have a share of them."""
    for c in range(k):
        if c == g:
            continue
        kept, line, found = counts[c], scores[c], members[c]
        for t in range(rows.shape[0]):
            found[kept] = rows[t]
            kept += not line[t] > cut  # not a number: not shown
        counts[c] = kept


@jit
def list_members(
    x, start, n, means, factors, guesses, pairs, cut, origin, y, q, members, counts, ids, guess, tile, scores
):
    """Write lists of rows, whitened rows and squared lengths of all components; return the number of all."""
    k, size, stride = y.shape[0], y.shape[1], 8 * y.shape[2]
    width = scores.shape[0] - 1
    _guess(x, start, n, guesses, origin, k, width, tile, scores, ids, guess)
    for c in range(k):
        counts[c] = 0
    for t in range(n):
        members[guess[t], counts[guess[t]]] = t
        counts[guess[t]] += 1
    own = counts.copy()
    for g in range(k):
        for s in range(0, own[g], TILE):
            rows = members[g, s : min(s + TILE, own[g])]
            _gather(x, start, rows, means[g], tile)
            whiten_tile(
                address(tile), address(factors[g]), size, address(y[g]) + 8 * s, stride, address(tile[size + 1])
            )
            for t in range(TILE):
                q[g, s + t] = tile[size + 1, t]
                tile[size + 2, t] = 0.0
            for i in range(means.shape[1]):
                for t in range(TILE):
                    tile[size + 2, t] += tile[i, t] * tile[i, t]
            affine_tile(address(tile), address(pairs[g]), size + EXTRA, width, address(scores))
            _screen_tile(rows, g, k, cut, scores, members, counts)
    total = 0
    for c in range(k):
        for s in range(own[c], counts[c], TILE):
            _gather(x, start, members[c, s : min(s + TILE, counts[c])], means[c], tile)
            whiten_tile(address(tile), address(factors[c]), size, address(y[c]) + 8 * s, stride, address(q[c]) + 8 * s)
        total += counts[c]
    return total


@jit
def soften_lists(q, log_norms, least, n, members, counts, r, density, best, doubt, powers, power_bits):
    """Do as `_soften` of `_mixture` does, on lists."""
    for t in range(n):
        best[t] = -np.inf
        doubt[t] = 0.0
    for c in range(q.shape[0]):
        for p in range(counts[c]):
            value, t = log_norms[c] - 0.5 * q[c, p], members[c, p]
            r[c, p] = value
            best[t] = value if value > best[t] else best[t]
    for c in range(q.shape[0]):
        line, found = r[c, : counts[c]], members[c]
        for p in range(counts[c]):
            line[p] -= best[found[p]]
        small_exponentials(line, powers, power_bits)
        for p in range(counts[c]):
            line[p] = 0.0 if line[p] < least else line[p]
            doubt[found[p]] += line[p]
    for c in range(q.shape[0]):
        for p in range(counts[c]):
            r[c, p] /= doubt[members[c, p]]
    for t in range(n):
        doubt[t] = logarithm_of(doubt[t])
        density[t] = best[t] + doubt[t]


@jit
def write_lists(r, density, start, n, members, counts, labels, probability, log_density, table):
    """Write what is asked of the rows of a block."""
    k = r.shape[0]
    if labels.shape[0] > 0:
        for t in range(start, start + n):
            labels[t], probability[t], log_density[t] = 0, -1.0, density[t - start]
        for c in range(k):
            for p in range(counts[c]):
                t = start + members[c, p]
                if r[c, p] > probability[t]:
                    labels[t], probability[t] = c, r[c, p]
    if table.shape[0] > 0:
        for t in range(start, start + n):
            for c in range(k):
                table[t, c] = 0.0
        for c in range(k):
            for p in range(counts[c]):
                table[start + members[c, p], c] = r[c, p]
