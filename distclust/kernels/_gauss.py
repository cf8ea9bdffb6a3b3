"""Register tiles of Gaussian mixtures: whitened rows, and sums of their products in fixed point.

Lanes are rows. Sums are exact without a conversion per term: ``fma(a, b, M)``, with M = 1.5 * 2^52 units, is M plus the
product rounded to whole units, so its bits, taken as an integer, are those of M plus the number of units. Integers are
added; what M put into the total is taken off at the end. Every term is rounded by itself, ties to even on the same M,
so the total does not depend on any order. Two instructions a term, where the bare sum needs one.

All arguments are addresses and counts as int64 unless said otherwise; see `_emit`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter
from distclust.kernels._machine import machine

COLUMNS = 4
"""Columns of a factor, or of products, that a tile takes at once: rows of whitened coordinates are padded to it."""
VECTORS = 4 if machine().wide else 1
"""Vectors of 8 rows in a tile of `whiten_tile`: 16 sums stay in 32 registers, or 4 double ones in 16."""
BLOCK = 4 if machine().wide else 2
"""Rows and columns of products in a tile of `scatter_tile`."""

_LANES = LANES["float64"]
_WHOLE = ir.VectorType(I64, _LANES)


@intrinsic
def whiten_tile(typing_context, diff, factor, width, y, stride, q):
    """Write ``y = U^T diff`` and its squared lengths for one tile of rows.

    `diff` [width, rows] holds rows less the mean, `width` is a multiple of `COLUMNS`; `factor` the upper triangle U,
    `COLUMNS` columns side by side, row by row down to the diagonal. `y` has rows `stride` bytes apart; `q` [rows].
    """

    def codegen(context, builder, signature, arguments):
        diff, factor, width, y, stride, q = arguments
        emit = Emitter(builder, "float64")

        def block(j: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            start, squares = carried[0], carried[1:]

            def row(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                return _add_row(emit, diff, start, i, sums)

            stop = emit.add(j, COLUMNS)
            zeros = [emit.same(0.0)] * (COLUMNS * VECTORS)
            sums = emit.loop(ir.Constant(I64, 0), stop, 1, zeros, row)
            for c in range(COLUMNS):
                target = builder.add(y, builder.mul(emit.add(j, c), stride))
                for v in range(VECTORS):
                    value = sums[c * VECTORS + v]
                    emit.store(value, emit.place(target, v * _LANES), 8)
                    squares[v] = emit.fma(value, value, squares[v])
            following = emit.place(start, builder.mul(stop, ir.Constant(I64, COLUMNS)))
            return [following, *squares]

        first = [factor, *[emit.same(0.0)] * VECTORS]
        out = emit.loop(ir.Constant(I64, 0), width, COLUMNS, first, block)
        for v, square in enumerate(out[1:]):
            emit.store(square, emit.place(q, v * _LANES), 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def affine_tile(typing_context, z, weights, depth, width, out):
    """Write ``out[j] = sum_i weights[i, j] z[i]`` for one tile of rows.

    `z` [depth, rows]; `width` sums, a multiple of `COLUMNS`, are `COLUMNS` side by side in `weights`; `out`
    [width, rows].
    """

    def codegen(context, builder, signature, arguments):
        z, weights, depth, width, out = arguments
        emit = Emitter(builder, "float64")

        def block(j: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            def row(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                return _add_row(emit, z, carried[0], i, sums)

            sums = emit.loop(ir.Constant(I64, 0), depth, 1, [emit.same(0.0)] * (COLUMNS * VECTORS), row)
            target = emit.place(out, builder.mul(j, ir.Constant(I64, VECTORS * _LANES)))
            for at, value in enumerate(sums):
                emit.store(value, emit.place(target, at * _LANES), 8)
            return [emit.place(carried[0], builder.mul(depth, ir.Constant(I64, COLUMNS)))]

        emit.loop(ir.Constant(I64, 0), width, COLUMNS, [weights], block)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen


def _add_row(emit: Emitter, z: ir.Value, weights: ir.Value, i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
    """Add row i of a tile, weighted, to `COLUMNS` sums."""
    line = emit.place(z, emit.ir.mul(i, ir.Constant(I64, VECTORS * _LANES)))
    values = [emit.load(emit.place(line, v * _LANES), emit.vector, 8) for v in range(VECTORS)]
    at = emit.place(weights, emit.ir.mul(i, ir.Constant(I64, COLUMNS)))
    out = []
    for c in range(COLUMNS):
        u = emit.splat(emit.load(emit.place(at, c), emit.scalar, 8))
        out += [emit.fma(values[v], u, sums[c * VECTORS + v]) for v in range(VECTORS)]
    return out


@intrinsic
def scatter_tile(typing_context, a, b, stride, count, magic, out):
    """Add ``sum_t a[i, t] * b[j, t]``, in units of `magic` (float64), to `out` [BLOCK, BLOCK] int64.

    Rows of `a` and `b` lie `stride` bytes apart and have `count` values, a multiple of 8.
    """

    def codegen(context, builder, signature, arguments):
        a, b, stride, count, magic, out = arguments
        emit = Emitter(builder, "float64")
        base = emit.splat(magic)

        def lanes(start: ir.Value, t: ir.Value) -> list[ir.Value]:
            rows = [builder.add(start, builder.mul(stride, ir.Constant(I64, i))) for i in range(BLOCK)]
            return [emit.load(emit.place(row, t), emit.vector, 8) for row in rows]

        def eight(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            left, right = lanes(a, t), lanes(b, t)
            pairs = [(u, v) for u in left for v in right]
            return [_add_term(emit, total, u, v, base) for total, (u, v) in zip(sums, pairs, strict=True)]

        nothing = [ir.Constant(_WHOLE, [0] * _LANES)] * (BLOCK * BLOCK)
        sums = emit.loop(ir.Constant(I64, 0), count, _LANES, nothing, eight)
        _add_totals(emit, sums, out)
        return context.get_dummy_value()

    signature = types.void(types.int64, types.int64, types.int64, types.int64, types.float64, types.int64)
    return signature, codegen


@intrinsic
def weigh_row(typing_context, r, y, count, magic, a, out):
    """Write ``a = r * y`` and add its sum, in units of `magic` (float64), to `out` [1] int64."""

    def codegen(context, builder, signature, arguments):
        r, y, count, magic, a, out = arguments
        emit = Emitter(builder, "float64")
        base, one = emit.splat(magic), emit.same(1.0)

        def eight(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            weight = emit.load(emit.place(r, t), emit.vector, 8)
            value = builder.fmul(weight, emit.load(emit.place(y, t), emit.vector, 8))
            emit.store(value, emit.place(a, t), 8)
            return [_add_term(emit, sums[0], value, one, base)]

        sums = emit.loop(ir.Constant(I64, 0), count, _LANES, [ir.Constant(_WHOLE, [0] * _LANES)], eight)
        _add_totals(emit, sums, out)
        return context.get_dummy_value()

    signature = types.void(types.int64, types.int64, types.int64, types.float64, types.int64, types.int64)
    return signature, codegen


@intrinsic
def product_row(typing_context, a, b, count, magic, out):
    """Add ``sum_t a[t] * b[t]``, in units of `magic` (float64), to `out` [1] int64."""

    def codegen(context, builder, signature, arguments):
        a, b, count, magic, out = arguments
        emit = Emitter(builder, "float64")
        base = emit.splat(magic)

        def eight(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            left = emit.load(emit.place(a, t), emit.vector, 8)
            right = emit.load(emit.place(b, t), emit.vector, 8)
            return [_add_term(emit, sums[0], left, right, base)]

        sums = emit.loop(ir.Constant(I64, 0), count, _LANES, [ir.Constant(_WHOLE, [0] * _LANES)], eight)
        _add_totals(emit, sums, out)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float64, types.int64), codegen


def _add_term(emit: Emitter, total: ir.Value, u: ir.Value, v: ir.Value, base: ir.Value) -> ir.Value:
    return emit.ir.add(total, emit.ir.bitcast(emit.fma(u, v, base), _WHOLE))


def _add_totals(emit: Emitter, sums: list[ir.Value], out: ir.Value) -> None:
    """Add the lanes of each vector to its place in `out`; eight vectors at once where there are so many."""
    while len(sums) >= _LANES:
        folded, sums = sums[:_LANES], sums[_LANES:]
        while len(folded) > 1:
            part = len(folded) // 2
            folded = [_fold_pair(emit, u, v, part) for u, v in zip(folded[::2], folded[1::2], strict=True)]
        emit.store(emit.ir.add(emit.load(out, _WHOLE, 8), folded[0]), out, 8)
        out = emit.place(out, _LANES)
    reduce_type = ir.FunctionType(I64, [_WHOLE])
    for at, vector in enumerate(sums):
        total = emit.ir.call(
            emit.ir.module.declare_intrinsic("llvm.vector.reduce.add.v8i64", (), reduce_type), [vector]
        )
        place = emit.place(out, at)
        emit.store(emit.ir.add(emit.load(place, I64, 8), total), place, 8)


def _fold_pair(emit: Emitter, u: ir.Value, v: ir.Value, part: int) -> ir.Value:
    """Add the lower and upper `part` lanes of every run of twice as many in two vectors end to end."""
    halves = []
    for upper in (False, True):
        chosen = [i for i in range(2 * _LANES) if (i % (2 * part) >= part) == upper]
        halves.append(emit.ir.shuffle_vector(u, v, ir.Constant(ir.VectorType(I32, _LANES), chosen)))
    return emit.ir.add(halves[0], halves[1])


def magic_of(unit: float) -> float:
    """Return M for a unit, a power of two."""
    return 1.5 * 2.0**52 * unit


def padded(width: int) -> int:
    """Return the width of whitened rows in memory."""
    return -(-width // COLUMNS) * COLUMNS
