"""Register tiles of dissimilarities: rows by lanes of other rows, one accumulator a pair, column after column.

All arguments are addresses, counts and offsets as int64; see `_emit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I64, LANES, Emitter

# Columns per turn of the inner loop, as in `_ukernel`.
_UNROLL = 4

Sums = list[ir.Value]


def _step(kind: str, emit: Emitter) -> tuple[int, Callable[[Sums, ir.Value, ir.Value, Sums], Sums]]:
    """Return how many accumulators a pair has, and what one column adds to them."""
    b, suffix = emit.ir, f"v{emit.lanes}f{8 * emit.size}"
    one, nothing = emit.same(1.0), emit.same(0.0)

    def size(x: ir.Value, y: ir.Value) -> ir.Value:
        signature = ir.FunctionType(emit.vector, [emit.vector])
        return b.call(b.module.declare_intrinsic(f"llvm.fabs.{suffix}", (), signature), [b.fsub(x, y)])

    def squares(sums: Sums, x: ir.Value, y: ir.Value, _: Sums) -> Sums:
        difference = b.fsub(x, y)
        return [emit.fma(difference, difference, sums[0])]

    def sizes(sums: Sums, x: ir.Value, y: ir.Value, _: Sums) -> Sums:
        return [b.fadd(sums[0], size(x, y))]

    def largest(sums: Sums, x: ir.Value, y: ir.Value, _: Sums) -> Sums:
        found = size(x, y)
        return [b.select(b.fcmp_ordered(">", found, sums[0]), found, sums[0])]

    def unequal(sums: Sums, x: ir.Value, y: ir.Value, _: Sums) -> Sums:
        return [b.fadd(sums[0], b.select(b.fcmp_unordered("!=", x, y), one, nothing))]

    def gower(sums: Sums, x: ir.Value, y: ir.Value, column: Sums) -> Sums:
        inverse, weight = column
        numeric = b.fmul(size(x, y), inverse)
        other = b.select(b.fcmp_unordered("!=", x, y), one, nothing)
        value = b.select(b.fcmp_ordered(">", inverse, nothing), numeric, other)
        missing = b.fcmp_unordered("uno", x, y)
        value, weight = b.select(missing, nothing, value), b.select(missing, nothing, weight)
        return [emit.fma(weight, value, sums[0]), b.fadd(sums[1], weight)]

    steps = {
        "squares": (1, squares),
        "sizes": (1, sizes),
        "largest": (1, largest),
        "unequal": (1, unequal),
        "gower": (2, gower),
    }
    return steps[kind]


def make_pair_tile(kind: str, dtype: str, tile: tuple[int, int]) -> Any:
    """Return ``pair_tile(x, d, panel, columns, out)``, which stores the values of a tile row by row.

    `columns` holds, for Gower's coefficient, the inverse range and the weight of every column, each column's two side
    by side.
    """
    rows, vectors = tile

    @intrinsic
    def pair_tile(typing_context, x, d, panel, columns, out):
        def codegen(context, builder, signature, arguments):
            x, d, panel, columns, out = arguments
            emit = Emitter(builder, dtype)
            width = emit.lanes * vectors
            sums_each, step = _step(kind, emit)
            starts = [emit.place(x, builder.mul(d, ir.Constant(I64, r))) for r in range(rows)]

            def column(i: ir.Value, sums: Sums) -> Sums:
                line = emit.place(panel, builder.mul(i, ir.Constant(I64, width)))
                others = [emit.load(emit.place(line, q * emit.lanes), emit.vector, emit.size) for q in range(vectors)]
                about = []
                if sums_each == 2:
                    about = [emit.splat(_scalar(emit, columns, emit.add(builder.shl(i, ir.Constant(I64, 1)), at)))
                             for at in range(2)]  # fmt: skip
                out = []
                for r in range(rows):
                    value = emit.splat(_scalar(emit, starts[r], i))
                    for q in range(vectors):
                        at = (r * vectors + q) * sums_each
                        out += step(sums[at : at + sums_each], value, others[q], about)
                return out

            def several(i: ir.Value, sums: Sums) -> Sums:
                for at in range(_UNROLL):
                    sums = column(emit.add(i, at), sums)
                return sums

            first = [emit.same(0.0)] * (rows * vectors * sums_each)
            whole = builder.and_(d, ir.Constant(I64, -_UNROLL))
            sums = emit.loop(ir.Constant(I64, 0), whole, _UNROLL, first, several)
            sums = emit.loop(whole, d, 1, sums, column)
            for at in range(rows * vectors):
                value = sums[at * sums_each]
                if sums_each == 2:
                    shared = sums[at * 2 + 1]
                    none = builder.fcmp_ordered("==", shared, emit.same(0.0))
                    value = builder.select(none, emit.same(1.0), builder.fdiv(value, shared))
                emit.store(value, emit.place(out, at * emit.lanes), emit.size)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return pair_tile


def make_bits_tile(tile: tuple[int, int]) -> Any:
    """Return `make_pair_tile`'s function for Jaccard's coefficient of sets given as int64 words, in panels of 8."""
    rows, vectors = tile
    lanes = LANES["float64"]
    words = ir.VectorType(I64, lanes)

    @intrinsic
    def bits_tile(typing_context, x, d, panel, columns, out):
        def codegen(context, builder, signature, arguments):
            x, d, panel, _, out = arguments
            emit = Emitter(builder, "float64")
            count = builder.module.declare_intrinsic(f"llvm.ctpop.v{lanes}i64", (), ir.FunctionType(words, [words]))
            starts = [emit.place(x, builder.mul(d, ir.Constant(I64, r))) for r in range(rows)]

            def column(i: ir.Value, sums: Sums) -> Sums:
                line = emit.place(panel, builder.mul(i, ir.Constant(I64, lanes * vectors)))
                others = [emit.load(emit.place(line, q * lanes), words, 8) for q in range(vectors)]
                out = []
                for r in range(rows):
                    word = emit.splat(emit.load(emit.place(starts[r], i), I64, 8))
                    for q in range(vectors):
                        both, either = sums[2 * (r * vectors + q) : 2 * (r * vectors + q) + 2]
                        out.append(builder.add(both, builder.call(count, [builder.and_(word, others[q])])))
                        out.append(builder.add(either, builder.call(count, [builder.or_(word, others[q])])))
                return out

            first = [ir.Constant(words, [0] * lanes)] * (rows * vectors * 2)
            sums = emit.loop(ir.Constant(I64, 0), d, 1, first, column)
            for at in range(rows * vectors):
                both, either = (builder.sitofp(value, emit.vector) for value in sums[2 * at : 2 * at + 2])
                empty = builder.fcmp_ordered("==", either, emit.same(0.0))
                apart = builder.fdiv(builder.fsub(either, both), builder.select(empty, emit.same(1.0), either))
                emit.store(apart, emit.place(out, at * lanes), 8)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return bits_tile


def _scalar(emit: Emitter, start: ir.Value, i: ir.Value) -> ir.Value:
    return emit.load(emit.place(start, i), emit.scalar, emit.size)
