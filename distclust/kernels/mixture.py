"""Gaussian mixtures: densities, responsibilities, and exact weighted sums about the means.

Axis letters: n rows, d dimensions, k components; t rows of a chunk, which are lanes. A component has a mean and a
factor U with ``U U^T`` = its precision; ``y = U^T (x - mean)`` are whitened coordinates, ``|y|^2`` the squared
Mahalanobis distance. Sums are taken of y, not of x: whatever the scale of a component, its terms are near 1, so one
unit of fixed point serves tight and wide components alike, and nothing cancels.

Terms of rows far outside (``w r |y|^2`` above a limit) would not fit the unit. They are summed at coarser units, a
level for every `LEVEL_BITS` bits, each as exact as the others.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels import _gauss
from distclust.kernels._arguments import read_argument, weights_argument
from distclust.kernels._emit import address
from distclust.kernels._gauss import BLOCK, COLUMNS, VECTORS, product_row, scatter_tile, weigh_row, whiten_tile
from distclust.kernels._jit import jit
from distclust.kernels.elementary import logarithm_of, small_exponentials

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Form = Literal["full", "axis", "tied"]
"""Own factor of each component; a scale of each column; one factor of all components."""

LEVEL_BITS = 24
LEVELS = 7
"""Level 0 has the limit of the grid, each further one 2^24 times that of the one before."""

_TILE = 8 * VECTORS
_CHUNK_BYTES = 1 << 20
"""Whitened rows of a chunk, for all components: they stay in L2 between densities and sums."""
_MOST_ROWS = 512
_FULL, _AXIS, _TIED = 0, 1, 2


class PackedMixture(NamedTuple):
    """A mixture as the kernels read it."""

    form: Form
    means: Floats
    """[k, d]; of a tied mixture whitened, about the origin of the rows."""
    factors: Floats
    """Full: [k, p] packed columns of U; tied: [1, p]; axis: [0, 0]."""
    scales: Floats
    """[k, d] reciprocal standard deviations; ones for a tied mixture, unused for a full one."""
    log_norms: Floats
    """[k] ``ln weight + ln det U - d/2 ln 2 pi``."""


class Grid(NamedTuple):
    """Units of the fixed-point sums, powers of two; the same for every pass over the same rows."""

    weight: float
    """Row weights are divided by it; at least the largest."""
    limit: float
    """Largest ``w r max(1, |y|^2)`` of level 0."""
    unit: float
    """Of sums of products at level 0."""
    mass_unit: float
    """Of sums of ``w r``."""


class MixtureSums(NamedTuple):
    """Integer sums over rows; see `distclust.stats.gaussian` for what they mean."""

    mass: Ints
    """[k] ``w r``, in mass units."""
    first: Ints
    """[levels, k, d] ``w r y``, in units of the level."""
    second: Ints
    """[levels, k, p] ``w r y y^T``: upper triangle row by row (full), else the diagonal."""
    log_density: Ints
    """[LEVELS] ``w ln p(x)``, in units of the level."""
    doubt: int
    """``-w ln max_k r``, in mass units."""


class MixtureRows(NamedTuple):
    """What a mixture says of each row."""

    labels: npt.NDArray[np.int32]
    """[n] most probable component, the lowest among equals."""
    probability: Floats
    """[n] its responsibility."""
    log_density: Floats
    """[n] ln p(x)."""


def grid_for(n_rows: int, max_weight: float, width: int) -> Grid:
    """Choose units at which sums over a dataset cannot overflow.

    Parameters
    ----------
    n_rows : int
        Of the whole dataset.
    max_weight : float
        Largest row weight.
    width : int
        d; rows of a component have ``|y|^2`` near d.
    """
    rows = max(1, math.frexp(float(n_rows))[1])
    limit = 2.0 ** math.frexp(64.0 + 8.0 * width)[1]
    fraction, exponent = math.frexp(max_weight)
    weight = math.ldexp(1.0, exponent if fraction > 0.5 else exponent - 1)
    # A term has 50 bits at most (see `_gauss`), a total 61.
    return Grid(weight, limit, limit * 2.0 ** -min(50, 61 - rows), 2.0 ** -min(50, 61 - rows - 3))


def pack_mixture(form: Form, log_norms: Floats, means: Floats, factors: Floats) -> PackedMixture:
    """Lay a mixture out for the kernels.

    Parameters
    ----------
    form : {"full", "axis", "tied"}
    log_norms : float64 [k]
        ``ln weight + ln det U - d/2 ln 2 pi``.
    means : float64 [k, d]
        In the coordinates of the rows.
    factors : float64
        U, upper triangular: [k, d, d] (full), [d, d] (tied); reciprocal standard deviations [k, d] (axis).
    """
    k, d = means.shape
    log_norms, means = np.ascontiguousarray(log_norms, np.float64), np.ascontiguousarray(means, np.float64)
    if form == "axis":
        return PackedMixture(form, means, np.zeros((0, 0)), np.ascontiguousarray(factors, np.float64), log_norms)
    packed = np.stack([_pack_factor(u) for u in factors.reshape(-1, d, d)])
    if form == "tied":
        whitened = np.zeros((k, d))
        _whiten_means(np.ascontiguousarray(factors, np.float64), means, whitened)
        return PackedMixture(form, whitened, packed, np.ones((k, d)), log_norms)
    return PackedMixture(form, means, packed, np.zeros((0, 0)), log_norms)


def mixture_sums(
    x: np.ndarray,
    weights: Floats | None,
    packed: PackedMixture,
    grid: Grid,
    responsibilities: Floats | None = None,
) -> MixtureSums:
    """Sum weighted responsibilities, whitened rows and their products over all rows.

    Parameters
    ----------
    x : float32 or float64 [n, d]
        Rows.
    weights : float64 [n] or None
        Row weights; None for 1.
    packed : PackedMixture
    grid : Grid
    responsibilities : float64 [n, k], optional
        Given ones, in [0, 1], in place of those of the mixture.

    Returns
    -------
    MixtureSums

    Raises
    ------
    OverflowError
        A row lies 10^25 standard deviations or more from a component that has a share of it.
    """
    k, d = packed.means.shape
    width = d * (d + 1) // 2 if packed.form == "full" else d
    size = _gauss.padded(d)
    blocks = (size // BLOCK) * (size // BLOCK + 1) // 2 if packed.form == "full" else 0
    mass, first = np.zeros(k, np.int64), np.zeros((k, size), np.int64)
    second = np.zeros((k, blocks * BLOCK * BLOCK if blocks else size), np.int64)
    far = np.zeros((LEVELS - 1, k, d + width), np.int64)
    scalars = np.zeros(LEVELS + 2, np.int64)
    nothing = MixtureRows(np.empty(0, np.int32), np.empty(0), np.empty(0))
    n_levels = _run(x, weights, packed, grid, responsibilities, (mass, first, second, far, scalars), nothing, None)
    if n_levels < 0:
        raise OverflowError("a row lies 10^25 standard deviations or more from a component that has a share of it")
    products = _unpack(second, d, size) if blocks else second[:, :d]
    return MixtureSums(
        mass,
        np.concatenate([first[None, :, :d], far[:n_levels, :, :d]]),
        np.concatenate([products[None], far[:n_levels, :, d:]]),
        scalars[:LEVELS].copy(),
        int(scalars[LEVELS]),
    )


def mixture_rows(x: np.ndarray, packed: PackedMixture) -> MixtureRows:
    """Return the most probable component, its responsibility and the log density of every row.

    Parameters
    ----------
    x : float32 or float64 [n, d]
    packed : PackedMixture

    Examples
    --------
    >>> one = pack_mixture("axis", np.full(2, -1.6), np.array([[0.0], [9.0]]), np.ones((2, 1)))
    >>> mixture_rows(np.array([[1.0], [8.5]]), one).labels.tolist()
    [0, 1]
    """
    n = len(x)
    rows = MixtureRows(np.empty(n, np.int32), np.empty(n), np.empty(n))
    _run(x, None, packed, _ANY_GRID, None, None, rows, None)
    return rows


def responsibilities(x: np.ndarray, packed: PackedMixture) -> Floats:
    """Return the responsibility of every component for every row, float64 [n, k]; see `mixture_rows`."""
    out = np.empty((len(x), len(packed.means)))
    _run(x, None, packed, _ANY_GRID, None, None, MixtureRows(np.empty(0, np.int32), np.empty(0), np.empty(0)), out)
    return out


_ANY_GRID = Grid(1.0, 1.0, 2.0**-50, 2.0**-50)


def _run(x, weights, packed, grid, given, sums, rows, table):  # type: ignore[no-untyped-def]
    x = read_argument(x, "x", ("float32", "float64"), (None, packed.means.shape[1]))
    (n, d), k = x.shape, len(packed.means)
    given_array = np.empty((0, 0)) if given is None else read_argument(given, "responsibilities", "float64", (n, k))
    summed = sums is not None
    if sums is None:
        sums = (np.empty(0, np.int64), *[np.empty((0, 0), np.int64)] * 2, np.empty((0, 0, 0), np.int64))
        sums = (*sums, np.empty(0, np.int64))
    size, form = _gauss.padded(d), {"full": _FULL, "axis": _AXIS, "tied": _TIED}[packed.form]
    held = k if form == _FULL else 1
    chunk = min(_MOST_ROWS, max(_TILE, _CHUNK_BYTES // (8 * held * size) // _TILE * _TILE))
    chunk = min(chunk, -(-max(n, 1) // _TILE) * _TILE)
    bits = np.array([_gauss.magic_of(grid.unit), _gauss.magic_of(grid.mass_unit)])
    settings = np.array([1.0 / grid.weight, grid.limit, 1.0 / grid.unit, 1.0 / grid.mass_unit, *bits])
    scratch = np.zeros(8 * chunk)
    return _chunks(
        x,
        weights_argument(weights, n),
        form,
        *(read_argument(a, "mixture", "float64", (None,) * a.ndim) for a in packed[1:]),
        given_array,
        settings,
        bits.view(np.int64),
        summed,
        *sums,
        *rows,
        np.empty((0, 0)) if table is None else table,
        np.zeros((2, size, chunk)),
        np.zeros((held, size, chunk)),
        np.empty((2, k, chunk)),
        scratch,
        scratch.view(np.int64),
        np.zeros(size * _TILE),
    )


def _pack_factor(u: Floats) -> Floats:
    """Return the upper triangle as `whiten_tile` reads it."""
    d = len(u)
    size = _gauss.padded(d)
    square = np.zeros((size, size))
    square[:d, :d] = np.triu(u)
    return np.concatenate([square[: j + COLUMNS, j : j + COLUMNS].reshape(-1) for j in range(0, size, COLUMNS)])


def _unpack(second: Ints, d: int, size: int) -> Ints:
    """Return the upper triangle, row by row, of blocks of products."""
    square = np.zeros((len(second), size, size), np.int64)
    at = 0
    for i in range(0, size, BLOCK):
        for j in range(i, size, BLOCK):
            square[:, i : i + BLOCK, j : j + BLOCK] = second[:, at : at + BLOCK * BLOCK].reshape(-1, BLOCK, BLOCK)
            at += BLOCK * BLOCK
    row, column = np.triu_indices(d)
    return np.ascontiguousarray(square[:, row, column])


@jit
def _whiten_means(u, means, out):
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
    for s in range(0, count, _TILE):
        for i in range(d):
            for t in range(_TILE):
                diff[i * _TILE + t] = xt[i, s + t] - mean[i]
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
def _chunks(
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
        if form == _TIED:
            _load(x, start, stop, a)
            _whiten(a, origin, factors[0], xt, best, diff)
        else:
            _load(x, start, stop, xt)
        for c in range(k):
            if form == _FULL:
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
            if form != _FULL:
                _scale(xt, means[c], scales[c], y[0], q[c])
            level = _sum_component(
                y[c if form == _FULL else 0], r[c], q[c], a, ones, limit, per_unit, settings[4:], form == _FULL,
                mass[c:], first[c, :d], second[c], far[:, c],
            )  # fmt: skip
            if level < 0:
                return -1
            n_levels = max(n_levels, level)
    if summed:
        _take_off(mass, first, second, d, form == _FULL, n_lanes * magic_bits[0], n_lanes * magic_bits[1])
    return n_levels


@jit
def _take_off(mass, first, second, d, full, bias, mass_bias):
    """Take off the sums what the addends M put into them."""
    for c in range(mass.shape[0]):
        mass[c] -= mass_bias
        first[c, :d] -= bias
        second[c, : second.shape[1] if full else d] -= bias
