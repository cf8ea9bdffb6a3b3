"""Tables of dissimilarities between rows under ten measures or a user's own.

Axis letters: n and m rows, d columns. The value of a pair depends on its two rows alone, not on the shape of the
table or the place in it: one accumulator a pair takes column after column, SIMD lanes are different rows of the
second argument. Every measure but a user's function is symmetric bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from distclust.errors import UsageError, unknown_name
from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._emit import LANES, SIZES, address
from distclust.kernels._jit import jit, jit_here, once
from distclust.kernels._machine import machine
from distclust.kernels._pairs import make_bits_tile, make_pair_tile
from distclust.kernels.elementary import arcsine, sine_cosine
from distclust.kernels.lloyd import row_sqnorm

Array = npt.NDArray[np.floating[Any]]

# What is added up over the columns, and what is made of the sum.
_KINDS = {
    "sqeuclidean": ("squares", "as it is"),
    "euclidean": ("squares", "root"),
    "cosine": ("squares", "half"),
    "haversine": ("squares", "arc"),
    "manhattan": ("sizes", "as it is"),
    "chebyshev": ("largest", "as it is"),
    "hamming": ("unequal", "mean"),
    "jaccard": ("bits", "as it is"),
    "gower": ("gower", "as it is"),
}
_FINISHES = ("as it is", "root", "half", "arc", "mean")
_, _ROOT, _HALF, _ARC, _MEAN = range(len(_FINISHES))

METRICS = tuple(_KINDS)
"""Names of the measures."""

_NO_COLUMNS = np.empty(0, np.float64)

# Rows that pass under all panels before the next ones do, as in `nearest`.
_BLOCK_ROWS = 144

# A table of `nearest_two` stays within this: it is read again at once.
_TABLE_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Dissimilarity:
    """A measure with its parameters; made by `dissimilarity`. It can be pickled (functions by numba's own means)."""

    name: str
    """One of `METRICS`, or ``"function"``."""
    ranges: npt.NDArray[np.float64] = field(default_factory=lambda: _NO_COLUMNS)
    """[d] for Gower's coefficient: range of a numeric column; 0 or less for a categorical one."""
    weights: npt.NDArray[np.float64] = field(default_factory=lambda: _NO_COLUMNS)
    """[d] for Gower's coefficient: weight of every column."""
    function: Any = None
    """The numba function of a user's own measure."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """What rows may be of."""
        if self.name == "jaccard":
            return ("uint8",)
        return ("float64",) if self.name in ("gower", "haversine") else ("float32", "float64")


def dissimilarity(
    metric: str | Callable[..., Any],
    *,
    ranges: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> Dissimilarity:
    """Make a measure from its name or from a function.

    Parameters
    ----------
    metric : str or callable
        ``"sqeuclidean"``, ``"euclidean"``, ``"manhattan"``, ``"chebyshev"``;
        ``"cosine"``: 1 - cos, taken as half the squared distance of the rows' directions; a row of zeros is at 1 from
        every other row and at 0 from another row of zeros;
        ``"hamming"``: share of columns that differ;
        ``"jaccard"``: of sets whose bits are packed in uint8 columns (`numpy.packbits`), two empty sets are at 0;
        ``"haversine"``: rows are latitude and longitude in radians, the result is the arc on the unit sphere;
        ``"gower"``: mean over the columns that both rows have (NaN is missing) of abs(a - b) / range or, for
        categorical columns, of a != b; 1 for rows that share no column;
        or a function ``f(x, y) -> float`` of two rows that numba compiles or has compiled.
    ranges : float [d], optional
        For Gower, required: the range of every numeric column; 0 or less marks a column as categorical.
    weights : float [d], optional
        For Gower: weights of the columns, 1 by default.

    Returns
    -------
    Dissimilarity

    Raises
    ------
    UsageError
        Unknown name, parameters that do not fit the measure, or a function that cannot be compiled.

    References
    ----------
    Gower, *A general coefficient of similarity and some of its properties*, 1971.

    Examples
    --------
    >>> measure = dissimilarity("gower", ranges=[10.0, -1.0])
    >>> table(measure, np.array([[0.0, 1.0]]), np.array([[5.0, 1.0], [0.0, 2.0], [np.nan, 2.0]])).tolist()
    [[0.25, 0.5, 1.0]]
    """
    if callable(metric):
        _refuse_columns("a function", ranges, weights)
        return Dissimilarity("function", function=_compiled(metric))
    if metric not in _KINDS:
        raise unknown_name("metric", metric, METRICS)
    if metric != "gower":
        _refuse_columns(f"metric {metric!r}", ranges, weights)
        return Dissimilarity(metric)
    if ranges is None:
        raise UsageError(
            "metric 'gower' needs the range of every column.", do="Give ranges; 0 or less marks a categorical column."
        )
    widths = _columns("ranges", ranges)
    shares = np.ones(len(widths)) if weights is None else _columns("weights", weights)
    if len(widths) != len(shares):
        raise UsageError(f"ranges has {len(widths)} columns, weights has {len(shares)}; they must be equal.")
    if (shares < 0).any() or not shares.any():
        raise UsageError("Weights of columns must be 0 or more, and one of them above 0.")
    return Dissimilarity("gower", widths, shares)


def table(measure: Dissimilarity, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> Array:
    """Return the dissimilarity of every row of `a` to every row of `b`.

    Parameters
    ----------
    measure : Dissimilarity
        See `dissimilarity`.
    a, b : [n, d] and [m, d]
        Rows, C-contiguous, of one dtype: float32 or float64; uint8 bits for ``jaccard``; float64 for ``gower`` and
        ``haversine``. Without NaN, except for ``gower``.
    out : float32 or float64 [n, m], optional
        Written and returned.

    Returns
    -------
    [n, m]
        float32 for float32 rows, else float64, unless `out` has another dtype. Values are computed in the dtype of
        the rows (a user's function: in its own) and then cast.

    Raises
    ------
    ValueError
        Shapes or dtypes do not fit together.

    Examples
    --------
    >>> table(dissimilarity("manhattan"), np.array([[0.0, 0.0]]), np.array([[1.0, 2.0], [0.0, 0.0]])).tolist()
    [[3.0, 0.0]]
    """
    a = _rows_argument(measure, a, "a", None)
    b = _rows_argument(measure, b, "b", a)
    if out is None:
        out = np.empty((len(a), len(b)), np.float32 if a.dtype == np.float32 else np.float64)
    out = write_argument(out, "out", ("float32", "float64"), (len(a), len(b)))
    if out.size:
        _fill(measure, _prepared(measure, a), _packed(measure, _prepared(measure, b)), out)
    return out


def nearest_two(
    measure: Dissimilarity, rows: np.ndarray, medoids: np.ndarray
) -> tuple[npt.NDArray[np.int32], Array, npt.NDArray[np.int32], Array]:
    """Find the nearest and the second nearest medoid of every row.

    Parameters
    ----------
    measure : Dissimilarity
    rows : [n, d]
        As in `table`.
    medoids : [k, d], dtype of rows
        k >= 1.

    Returns
    -------
    near, near_dist, second, second_dist : int32 [n], float [n], int32 [n], float [n]
        Among equals the lower index comes first. With one medoid, `second` is -1 at distance inf.

    Examples
    --------
    >>> rows, medoids = np.array([[1.0], [9.0]]), np.array([[0.0], [4.0], [8.0]])
    >>> [part.tolist() for part in nearest_two(dissimilarity("euclidean"), rows, medoids)]
    [[0, 2], [1.0, 1.0], [1, 1], [3.0, 5.0]]
    """
    rows = _rows_argument(measure, rows, "rows", None)
    medoids = _rows_argument(measure, medoids, "medoids", rows)
    if not len(medoids):
        raise ValueError("medoids has no rows; at least one is needed.")
    n, k = len(rows), len(medoids)
    kind = np.dtype(np.float32 if rows.dtype == np.float32 else np.float64)
    near, second = np.empty(n, np.int32), np.empty(n, np.int32)
    near_dist, second_dist = np.empty(n, kind), np.empty(n, kind)
    packed = _packed(measure, _prepared(measure, medoids))
    step = max(_BLOCK_ROWS, _TABLE_BYTES // (k * kind.itemsize) // _BLOCK_ROWS * _BLOCK_ROWS)
    buffer = np.empty((min(step, n), k), kind)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        tile = buffer[: part.stop - start]
        _fill(measure, _prepared(measure, rows[part]), packed, tile)
        two_lowest(tile, near[part], near_dist[part], second[part], second_dist[part])
    return near, near_dist, second, second_dist


@jit
def two_lowest(values, near, near_dist, second, second_dist):
    """Write column and value of the lowest and second lowest entry of every row, the lower column first on ties."""
    n, k = values.shape
    for i in range(n):
        low, low_at = values[i, 0], 0
        other, other_at = values.dtype.type(np.inf), -1
        for j in range(1, k):
            value = values[i, j]
            if value < low:
                other, other_at = low, low_at
                low, low_at = value, j
            elif value < other or other_at < 0:
                other, other_at = value, j
        near[i], near_dist[i], second[i], second_dist[i] = low_at, low, other_at, other


def _refuse_columns(what: str, ranges: Any, weights: Any) -> None:
    given = "ranges" if ranges is not None else "weights" if weights is not None else ""
    if given:
        raise UsageError(f"{given} is for metric 'gower'; {what} takes none.")


def _columns(what: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise UsageError(f"{what} must be one finite number a column, not {array.dtype} of shape {array.shape}.")
    return array


def _compiled(function: Callable[..., Any]) -> Any:
    """Return a user's function compiled, and tried on rows of float64."""
    compiled = function if isinstance(function, Dispatcher) else jit_here(function)
    row = np.zeros(2)
    row.flags.writeable = False
    try:
        compiled.compile((numba.typeof(row), numba.typeof(row)))
        returned = compiled.overloads[(numba.typeof(row),) * 2].signature.return_type
    except NumbaError as error:
        reason = " ".join(str(error).split("\n")[:2])
        raise UsageError(
            f"The metric {getattr(function, '__name__', function)!r} cannot be compiled by numba: {reason}",
            do="It must take two rows (1-d arrays) and return a number.",
        ) from None
    if not isinstance(returned, (numba.types.Number, numba.types.Boolean)):
        raise UsageError(f"The metric {compiled.__name__!r} returns {returned}; it must return a number.")
    return compiled


def _rows_argument(measure: Dissimilarity, rows: np.ndarray, what: str, like: np.ndarray | None) -> np.ndarray:
    dtypes = measure.dtypes if like is None else like.dtype.name
    width: int | None = None if like is None else like.shape[1]
    if measure.name == "gower":
        width = len(measure.ranges)
    if measure.name == "haversine":
        width = 2
    return read_argument(rows, what, dtypes, (None, width))


def _prepared(measure: Dissimilarity, rows: np.ndarray) -> np.ndarray:
    """Return rows as the tiles read them: directions for cosine, points of the sphere, words of bits."""
    if measure.name == "cosine":
        lengths = np.sqrt(row_sqnorm(rows))
        lengths[lengths == 0] = 1.0
        return (rows / lengths[:, None]).astype(rows.dtype)
    if measure.name == "haversine":
        (sin_lat, sin_lon), (cos_lat, cos_lon) = sine_cosine(rows.T)
        return np.stack([cos_lat * cos_lon, cos_lat * sin_lon, sin_lat], axis=1)
    if measure.name == "jaccard":
        words = np.zeros((len(rows), -(-rows.shape[1] // 8)), np.int64)
        words.view(np.uint8)[:, : rows.shape[1]] = rows
        return words
    return rows


@dataclass(frozen=True)
class _Packed:
    """Rows side by side, column by column, as the tiles read them."""

    rows: np.ndarray
    panels: np.ndarray
    tile: tuple[int, int]


def _packed(measure: Dissimilarity, rows: np.ndarray) -> _Packed:
    if measure.function is not None:
        return _Packed(rows, np.empty((0, 0, 0)), (0, 0))
    lanes = LANES["float32" if rows.dtype == np.float32 else "float64"]
    tile = _tile(_KINDS[measure.name][0], len(rows), lanes)
    width = lanes * tile[1]
    n_panels = -(-len(rows) // width)
    panels = np.zeros((n_panels, rows.shape[1], width), rows.dtype)
    whole = len(rows) // width
    panels[:whole] = rows[: whole * width].reshape(whole, width, rows.shape[1]).transpose(0, 2, 1)
    if whole < n_panels:
        panels[whole, :, : len(rows) - whole * width] = rows[whole * width :].T
    return _Packed(rows, panels, tile)


def _tile(kind: str, m: int, lanes: int) -> tuple[int, int]:
    """Choose the tile: what accumulators and temporaries leave of 32 wide registers, or of 16 half as wide."""
    if kind in ("gower", "bits"):
        return (8, 1) if machine().wide else (2, 1)
    if machine().wide:
        return (12, 1) if m <= lanes else (8, 2)
    return (4, 1)


def _fill(measure: Dissimilarity, a: np.ndarray, packed: _Packed, out: np.ndarray) -> None:
    if measure.function is not None:
        _function_table(measure.function, a, packed.rows, out)
        return
    kind, finish = _KINDS[measure.name]
    columns = _NO_COLUMNS
    if kind == "gower":
        # Below the smallest normal number the inverse would be infinite.
        numeric = measure.ranges >= np.finfo(np.float64).tiny
        inverse = np.where(numeric, 1.0 / np.where(numeric, measure.ranges, 1.0), -1.0)
        columns = np.stack([inverse, measure.weights], axis=1).ravel()
    rows = packed.tile[0]
    tail = np.zeros((rows, a.shape[1]), a.dtype)
    tail[: len(a) % rows] = a[len(a) - len(a) % rows :]
    value_type = "float32" if a.dtype == np.float32 else "float64"
    values = np.empty((rows, packed.panels.shape[2]), value_type)
    _table_kernel(kind, value_type, out.dtype.name, packed.tile)(
        a, tail, packed.panels, columns, values, out, _FINISHES.index(finish)
    )
    if measure.name == "cosine":
        zero_a, zero_b = ~a.any(axis=1), ~packed.rows.any(axis=1)
        if zero_a.any() or zero_b.any():
            out[zero_a] = 1.0
            out[:, zero_b] = 1.0
            out[np.ix_(zero_a, zero_b)] = 0.0


@once
def _table_kernel(kind: str, dtype: str, out_dtype: str, tile: tuple[int, int]) -> Any:
    rows, vectors = tile
    size, width = SIZES[dtype], LANES[dtype] * vectors
    pair_tile = make_bits_tile(tile) if kind == "bits" else make_pair_tile(kind, dtype, tile)

    @jit(name=f"pairs_{kind}_{dtype}_{out_dtype}_{rows}x{vectors}")
    def pairs(a, tail, panels, columns, values, out, finish):
        n, d = a.shape
        m = out.shape[1]
        whole = n - n % rows
        a_at, tail_at, panels_at, columns_at = address(a), address(tail), address(panels), address(columns)
        tile_at = address(values)
        for start in range(0, n, _BLOCK_ROWS):
            for p in range(panels.shape[0]):
                first = p * width
                for r in range(start, min(start + _BLOCK_ROWS, n), rows):
                    x_at = a_at + r * d * size if r < whole else tail_at
                    # Through a tile of its own: stored with the stride of `out`, the same takes a sixth longer.
                    pair_tile(x_at, d, panels_at + first * d * size, columns_at, tile_at)
                    for i in range(min(rows, n - r)):
                        for j in range(min(width, m - first)):
                            value = values[i, j]
                            if finish == _ROOT:
                                value = np.sqrt(value)
                            elif finish == _HALF:
                                value = value * values.dtype.type(0.5)
                            elif finish == _ARC:
                                value = 2.0 * arcsine(min(math.sqrt(value) * 0.5, 1.0))
                            elif finish == _MEAN:
                                value = value / values.dtype.type(d)
                            out[r + i, first + j] = value

    return pairs


@jit_here
def _function_table(function, a, b, out):
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            out[i, j] = function(a[i], b[j])
