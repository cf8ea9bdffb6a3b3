"""Gaussian mixtures: densities, responsibilities, and exact weighted sums about the means.

Axis letters: n rows, d dimensions, k components; t rows of a chunk, which are lanes. A component has a mean and a
factor U with ``U U^T`` = its precision; ``y = U^T (x - mean)`` are whitened coordinates, ``|y|^2`` the squared
Mahalanobis distance. Sums are taken of y, not of x: whatever the scale of a component, its terms are near 1, so one
unit of fixed point serves tight and wide components alike, and nothing cancels.

A component whose density at a row is less than ``unit / limit`` times the highest has no share of it: responsibility
exactly 0. That is too little for the units of the sums, does not depend on the order of rows, and lets bounds leave
out densities (`_mixture_bounds`).

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
from distclust.kernels._gauss import BLOCK, COLUMNS
from distclust.kernels._mixture import AXIS, FULL, LEVEL_BITS, LEVELS, TIED, TILE, run_chunks, whiten_means
from distclust.kernels._mixture_bounds import EXTRA, bound_tables

__all__ = [
    "LEVELS",
    "LEVEL_BITS",
    "Form",
    "Grid",
    "MixtureRows",
    "MixtureSums",
    "PackedMixture",
    "grid_for",
    "mixture_rows",
    "mixture_sums",
    "pack_mixture",
    "responsibilities",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Form = Literal["full", "axis", "tied"]
"""Own factor of each component; a scale of each column; one factor of all components."""

_CHUNK_BYTES = 1 << 20
"""Whitened rows of a chunk, for all components: they stay in L2 between densities and sums."""
_MOST_ROWS = 512
_BLOCK_BYTES = 32 << 20
"""Room for whitened rows of a block, were it for all components; lists touch a small part of it."""
_BLOCK_ROWS = 2048


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
    guesses: Floats
    """[1, q] scores for a guess of the component of a row; empty where every component is taken in full."""
    pairs: Floats
    """[k, q] scores of all components where one of them is near; see `_mixture_bounds`."""


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
        scales = np.ascontiguousarray(factors, np.float64)
        return PackedMixture(form, means, _NOTHING, scales, log_norms, _NOTHING, _NOTHING)
    packed = np.stack([_pack_factor(u) for u in factors.reshape(-1, d, d)])
    if form == "tied":
        whitened = np.zeros((k, d))
        whiten_means(np.ascontiguousarray(factors, np.float64), means, whitened)
        return PackedMixture(form, whitened, packed, np.ones((k, d)), log_norms, _NOTHING, _NOTHING)
    return PackedMixture(form, means, packed, _NOTHING, log_norms, *bound_tables(log_norms, means, factors))


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


_NOTHING = np.zeros((0, 0))
_ANY_GRID = Grid(1.0, 1.0, 2.0**-50, 2.0**-50)


def _run(
    x: np.ndarray,
    weights: Floats | None,
    packed: PackedMixture,
    grid: Grid,
    given: Floats | None,
    sums: tuple[Ints, ...] | None,
    rows: MixtureRows,
    table: Floats | None,
) -> int:
    """Give the loops what they take: empty arrays for what is not asked of them, and room to work in."""
    x = read_argument(x, "x", ("float32", "float64"), (None, packed.means.shape[1]))
    (n, d), k = x.shape, len(packed.means)
    given_array = np.empty((0, 0)) if given is None else read_argument(given, "responsibilities", "float64", (n, k))
    summed = sums is not None
    if sums is None:
        sums = (np.empty(0, np.int64), *[np.empty((0, 0), np.int64)] * 2, np.empty((0, 0, 0), np.int64))
        sums = (*sums, np.empty(0, np.int64))
    size, form = _gauss.padded(d), {"full": FULL, "axis": AXIS, "tied": TIED}[packed.form]
    held = k if form == FULL else 1
    chunk = min(_MOST_ROWS, max(TILE, _CHUNK_BYTES // (8 * held * size) // TILE * TILE))
    chunk = min(chunk, -(-max(n, 1) // TILE) * TILE)
    bits = np.array([_gauss.magic_of(grid.unit), _gauss.magic_of(grid.mass_unit)])
    least = grid.unit / grid.limit
    settings = [1.0 / grid.weight, grid.limit, 1.0 / grid.unit, 1.0 / grid.mass_unit, least, -math.log(least)]
    block = 0 if given is not None else _block_rows(packed, n)
    # Rows of a power of two of bytes would all lie in the same few lines of the cache.
    room = (block + TILE + 8) * (block > 0)
    scratch = np.zeros((6, max(chunk, room)))
    tile = np.zeros((size + EXTRA, TILE))
    tile[size] = 1.0
    return run_chunks(
        x,
        weights_argument(weights, n),
        form,
        *(read_argument(a, "mixture", "float64", (None,) * a.ndim) for a in packed[1:]),
        given_array,
        np.array([*settings, *bits]),
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
        np.zeros(size * TILE),
        np.zeros((size, room)),
        np.zeros((k, size, room)),
        np.empty((2, k, room)),
        np.empty((k, room), np.int64),
        np.arange(block),
        tile,
        np.empty((_gauss.padded(k) + 1, TILE)),
    )


def _block_rows(packed: PackedMixture, n: int) -> int:
    """Return the rows of a block with lists, 0 for none."""
    k, d = packed.means.shape
    rows = min(_BLOCK_ROWS, _BLOCK_BYTES // (8 * k * _gauss.padded(d)))
    # Rows of one guess fill half a tile at least, or the bounds would cost more than they save.
    return min(rows, n) if len(packed.pairs) and rows >= k * TILE // 2 else 0


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
