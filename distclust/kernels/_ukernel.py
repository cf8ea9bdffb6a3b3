"""Register tiles: the inner loops of brute-force distances, which numba alone does not write well.

Axis letters: d dimensions; a tile is `rows` rows by `vectors` vectors of centres. All arguments are addresses,
counts and offsets as int64; see `_emit`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter

# Dimensions per turn of a tile's inner loop. Measured with the tile 8x2 on AVX-512 (Emerald Rapids), % of peak at
# d = 128 / 384 / 768: 1 gives 81 / 68 / 71, 4 gives 85 / 82 / 78; on AVX2 no difference.
_UNROLL = 4


def _in_turn(emit: Emitter, rows: int, x: ir.Value, stride: ir.Value) -> list[ir.Value]:
    """Return the addresses of rows that lie one after the other."""
    return [emit.place(x, emit.ir.mul(stride, ir.Constant(I64, r))) for r in range(rows)]


def _scores(
    emit: Emitter, tile: tuple[int, int], starts: list[ir.Value], panel: ir.Value, d: ir.Value, norms: ir.Value
) -> list[ir.Value]:
    """Emit a tile: return its rows * vectors vectors of ``||c||^2 - 2 x.c``, row by row.

    `starts` are the addresses of the rows.
    """
    rows, vectors = tile
    width = emit.lanes * vectors

    def dimension(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        line = emit.place(panel, emit.ir.mul(i, ir.Constant(I64, width)))
        centers = [emit.load(emit.place(line, q * emit.lanes), emit.vector, emit.size) for q in range(vectors)]
        out = []
        for r in range(rows):
            value = emit.splat(emit.load(emit.place(starts[r], i), emit.scalar, emit.size))
            out += [emit.fma(value, centers[q], sums[r * vectors + q]) for q in range(vectors)]
        return out

    def several(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        for step in range(_UNROLL):
            sums = dimension(emit.add(i, step), sums)
        return sums

    whole = emit.ir.and_(d, ir.Constant(I64, -_UNROLL))
    sums = emit.loop(ir.Constant(I64, 0), whole, _UNROLL, [emit.same(0.0)] * (rows * vectors), several)
    sums = emit.loop(whole, d, 1, sums, dimension)
    loaded = [emit.load(emit.place(norms, q * emit.lanes), emit.vector, emit.size) for q in range(vectors)]
    return [emit.fma(emit.same(-2.0), total, loaded[at % vectors]) for at, total in enumerate(sums)]


def make_assign_tile(dtype: str, tile: tuple[int, int]) -> Any:
    """Return ``assign_tile(x, stride, panel, d, norms, first, best, index)``.

    It updates the lowest score and the index of its centre, per row and lane (`best`, `index`: [rows, lanes]), with
    the centres of a panel, the first of which has index `first`. A panel with `first` = 0 starts them.
    """
    rows, vectors = tile
    lanes = LANES[dtype]

    @intrinsic
    def assign_tile(typing_context, x, stride, panel, d, norms, first, best, index):
        def codegen(context, builder, signature, arguments):
            x, stride, panel, d, norms, first, best, index = arguments
            emit = Emitter(builder, dtype)
            scores = _scores(emit, tile, _in_turn(emit, rows, x, stride), panel, d, norms)
            fresh = builder.icmp_signed("==", first, ir.Constant(I64, 0))
            nothing, nowhere = emit.same(float("inf")), ir.Constant(emit.indices, [0] * lanes)
            base = emit.splat(builder.trunc(first, I32))
            mine = [
                builder.add(base, ir.Constant(emit.indices, list(range(q * lanes, (q + 1) * lanes))))
                for q in range(vectors)
            ]
            for r in range(rows):
                best_r, index_r = emit.place(best, r * lanes), emit.place(index, r * lanes, 4)
                low = builder.select(fresh, nothing, emit.load(best_r, emit.vector, emit.size))
                low_index = builder.select(fresh, nowhere, emit.load(index_r, emit.indices, 4))
                for q in range(vectors):
                    score = scores[r * vectors + q]
                    less = builder.fcmp_ordered("<", score, low)
                    low = builder.select(less, score, low)
                    low_index = builder.select(less, mine[q], low_index)
                emit.store(low, best_r, emit.size)
                emit.store(low_index, index_r, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return assign_tile


def make_score_tile(dtype: str, tile: tuple[int, int]) -> Any:
    """Return ``score_tile(x, stride, panel, d, norms, out, out_stride)``, which stores all scores of a tile."""
    rows, vectors = tile
    lanes = LANES[dtype]

    @intrinsic
    def score_tile(typing_context, x, stride, panel, d, norms, out, out_stride):
        def codegen(context, builder, signature, arguments):
            x, stride, panel, d, norms, out, out_stride = arguments
            emit = Emitter(builder, dtype)
            for at, score in enumerate(_scores(emit, tile, _in_turn(emit, rows, x, stride), panel, d, norms)):
                row = emit.place(out, builder.mul(out_stride, ir.Constant(I64, at // vectors)))
                emit.store(score, emit.place(row, at % vectors * lanes), emit.size)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return score_tile


def make_below_tile(dtype: str, tile: tuple[int, int]) -> Any:
    """Return ``below_tile(x, stride, panel, d, norms, limits, out, masks)``.

    It stores all scores of a tile (`out`: [rows, centres of a panel]), and per row which of them are below the row's
    limit, as bits of an int32 for each vector of centres (`masks`: [rows, vectors]).
    """
    rows, vectors = tile
    lanes = LANES[dtype]

    @intrinsic
    def below_tile(typing_context, x, stride, panel, d, norms, limits, out, masks):
        def codegen(context, builder, signature, arguments):
            x, stride, panel, d, norms, limits, out, masks = arguments
            emit = Emitter(builder, dtype)
            scores = _scores(emit, tile, _in_turn(emit, rows, x, stride), panel, d, norms)
            for at, score in enumerate(scores):
                limit = emit.splat(emit.load(emit.place(limits, at // vectors), emit.scalar, emit.size))
                bits = builder.bitcast(builder.fcmp_ordered("<", score, limit), ir.IntType(lanes))
                emit.store(builder.zext(bits, I32), emit.place(masks, at, 4), 4)
                emit.store(score, emit.place(out, at * lanes), emit.size)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return below_tile


def make_lane_minimum(dtype: str) -> Any:
    """Return ``lane_minimum(best, index, scores, labels)``: the lowest score and index over the lanes of a row.

    It takes as many rows as there are lanes at once, folding halves of two vectors into one until a vector holds
    one row a lane: 5 instructions a row in place of 20 for one row after the other.
    """
    lanes = LANES[dtype]

    @intrinsic
    def lane_minimum(typing_context, best, index, scores, labels):
        def codegen(context, builder, signature, arguments):
            best, index, scores, labels = arguments
            emit = Emitter(builder, dtype)
            pairs = [
                (
                    emit.load(emit.place(best, r * lanes), emit.vector, emit.size),
                    emit.load(emit.place(index, r * lanes, 4), emit.indices, 4),
                )
                for r in range(lanes)
            ]
            while len(pairs) > 1:
                part = len(pairs) // 2
                halves = [half_lanes(lanes, part, upper) for upper in (False, True)]
                pairs = [_lower(emit, a, b, halves) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
            emit.store(pairs[0][0], scores, emit.size)
            emit.store(pairs[0][1], labels, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return lane_minimum


def half_lanes(lanes: int, part: int, upper: bool) -> list[int]:
    """Lanes of the lower or upper `part` of every run of ``2 * part`` lanes in two vectors end to end."""
    return [i for i in range(2 * lanes) if (i % (2 * part) >= part) == upper]


def _lower(
    emit: Emitter, a: tuple[ir.Value, ir.Value], b: tuple[ir.Value, ir.Value], halves: list[list[int]]
) -> tuple[ir.Value, ir.Value]:
    (low, low_index), (high, high_index) = (
        tuple(emit.ir.shuffle_vector(u, v, ir.Constant(emit.indices, half)) for u, v in zip(a, b, strict=True))
        for half in halves
    )
    tied = emit.ir.and_(emit.ir.fcmp_ordered("==", high, low), emit.ir.icmp_signed("<", high_index, low_index))
    take = emit.ir.or_(emit.ir.fcmp_ordered("<", high, low), tied)
    return emit.ir.select(take, high, low), emit.ir.select(take, high_index, low_index)
