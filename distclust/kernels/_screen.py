"""Vector code of the screen: products of rows and centres rounded to 8-bit integers, four to a lane.

Axis letters: d dimensions, padded to a multiple of 4 (`quads` of four). A tile is `rows` rows by `vectors` vectors of
16 centres. All arguments are addresses, counts and offsets as int64 unless a function says otherwise.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter
from distclust.kernels._machine import machine
from distclust.kernels._products import QUAD, byte_dot

BIAS = 128
"""Added to rounded centres: the instruction multiplies unsigned values with signed ones."""

MOST = 127
"""Largest rounded value."""

ROW_FLOATS, CENTER_FLOATS = 3, 4
"""What a tile knows of a row and of a centre."""

CANDIDATE_LANES = LANES["float32"]

MINIMA = 64
"""Lanes of `lane_minima`."""

_I8 = ir.IntType(8)
_UNROLL = 2


def make_screen_tile(rows: int, vectors: int) -> Any:
    """Return ``screen_tile(x, stride, panel, quads, sums, row_floats, center_floats, out, out_stride, least)``.

    Stores for every row and centre of a tile a lower bound of ``||c||^2 - 2 x.c``, and lowers `least` ([rows, 16],
    float32), which takes upper bounds. `sums` (int32) has a value for each row. `row_floats` (float32) has turn, slack
    and tail of the first row, then of the second, and so on; `center_floats` (float32) steps, norms, lengths and tails
    of the centres of the panel, one after the other. A product is ``norm + turn * step * integer``, its error at most
    ``slack * length + tail * tail``.
    """

    @intrinsic
    def screen_tile(typing_context, x, stride, panel, quads, sums, row_floats, center_floats, out, out_stride, least):
        def codegen(context, builder, signature, arguments):
            x, stride, panel, quads, sums, row_floats, center_floats, out, out_stride, least = arguments
            emit = Emitter(builder, "float32")
            lanes = emit.lanes
            totals = _products(emit, (rows, vectors), x, stride, panel, quads, sums)
            for q in range(vectors):
                step, norm, length, tail = (
                    emit.load(emit.place(center_floats, (field * vectors + q) * lanes), emit.vector, 4)
                    for field in range(CENTER_FLOATS)
                )
                for r in range(rows):
                    turn, slack, rest = (
                        emit.splat(emit.load(emit.place(row_floats, r * ROW_FLOATS + field), emit.scalar, 4))
                        for field in range(ROW_FLOATS)
                    )
                    error = emit.fma(rest, tail, builder.fmul(slack, length))
                    product = builder.fmul(builder.sitofp(totals[r * vectors + q], emit.vector), step)
                    score = emit.fma(turn, product, norm)
                    row = emit.place(out, builder.mul(out_stride, ir.Constant(I64, r)))
                    emit.store(builder.fsub(score, error), emit.place(row, q * lanes), 4)
                    least_r = emit.place(least, r * lanes)
                    upper, low = builder.fadd(score, error), emit.load(least_r, emit.vector, 4)
                    emit.store(builder.select(builder.fcmp_ordered("<", upper, low), upper, low), least_r, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return screen_tile


def make_byte_scores(rows: int, vectors: int) -> Any:
    """Return ``byte_scores(x, stride, panel, quads, sums, turns, center_floats, out, out_stride)``.

    Stores ``norm + turn * step * integer`` for every row and centre of a tile; `turns` (float32) has a value for each
    row, the rest is as for `make_screen_tile`.
    """

    @intrinsic
    def byte_scores(typing_context, x, stride, panel, quads, sums, turns, center_floats, out, out_stride):
        def codegen(context, builder, signature, arguments):
            x, stride, panel, quads, sums, turns, center_floats, out, out_stride = arguments
            emit = Emitter(builder, "float32")
            totals = _products(emit, (rows, vectors), x, stride, panel, quads, sums)
            for q in range(vectors):
                step, norm = (
                    emit.load(emit.place(center_floats, (field * vectors + q) * emit.lanes), emit.vector, 4)
                    for field in range(2)
                )
                for r in range(rows):
                    turn = emit.splat(emit.load(emit.place(turns, r), emit.scalar, 4))
                    product = builder.fmul(builder.sitofp(totals[r * vectors + q], emit.vector), step)
                    row = emit.place(out, builder.mul(out_stride, ir.Constant(I64, r)))
                    emit.store(emit.fma(turn, product, norm), emit.place(row, q * emit.lanes), 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return byte_scores


def _products(
    emit: Emitter,
    tile: tuple[int, int],
    x: ir.Value,
    stride: ir.Value,
    panel: ir.Value,
    quads: ir.Value,
    sums: ir.Value,
) -> list[ir.Value]:
    """Emit the integer products of a tile, row by row; `sums` has what the bias of the centres adds to each row."""
    rows, vectors = tile
    builder = emit.ir
    bytes_of = ir.VectorType(_I8, QUAD * emit.lanes)
    starts = [emit.place(x, builder.mul(stride, ir.Constant(I64, r)), 1) for r in range(rows)]

    def quad(i: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        line = emit.place(panel, builder.mul(i, ir.Constant(I64, QUAD * emit.lanes * vectors)), 1)
        centers = [
            emit.load(emit.place(line, q * emit.lanes * QUAD, 1), bytes_of, emit.lanes * QUAD) for q in range(vectors)
        ]
        out = []
        for r in range(rows):
            four = emit.splat(emit.load(emit.place(starts[r], i, QUAD), I32, 1))
            row = builder.bitcast(four, bytes_of)
            out += [byte_dot(emit, totals[r * vectors + q], centers[q], row) for q in range(vectors)]
        return out

    def several(i: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        for step in range(_UNROLL):
            totals = quad(emit.add(i, step), totals)
        return totals

    first = []
    for r in range(rows):
        first += [emit.splat(emit.load(emit.place(sums, r, 4), I32, 4))] * vectors
    whole = builder.and_(quads, ir.Constant(I64, -_UNROLL))
    totals = emit.loop(ir.Constant(I64, 0), whole, _UNROLL, first, several)
    return emit.loop(whole, quads, 1, totals, quad)


@intrinsic
def lane_minima(typing_context, values, count, out):
    """Store the lowest of float32 `values` in each of 64 lanes, then the lowest and highest of these (`out`: [66]).

    `count` is a multiple of 16, at least 64.
    """

    def codegen(context, builder, signature, arguments):
        values, count, out = arguments
        emit = Emitter(builder, "float32")

        def lower(i: ir.Value, low: ir.Value) -> ir.Value:
            value = emit.load(emit.place(values, i), emit.vector, 4)
            return builder.select(builder.fcmp_ordered("<", value, low), value, low)

        def several(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            return [lower(emit.add(i, at * emit.lanes), low) for at, low in enumerate(carried)]

        def one(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            return [lower(i, carried[0]), *carried[1:]]

        turn = MINIMA // emit.lanes
        whole = builder.and_(count, ir.Constant(I64, -MINIMA))
        start = [emit.same(float("inf"))] * turn
        lowest = emit.loop(ir.Constant(I64, 0), whole, MINIMA, start, several)
        lowest = emit.loop(whole, count, emit.lanes, lowest, one)
        for at, low in enumerate(lowest):
            emit.store(low, emit.place(out, at * emit.lanes), 4)
        for at, (name, sign) in enumerate((("fmin", "<"), ("fmax", ">"))):
            extreme = lowest[0]
            for other in lowest[1:]:
                extreme = builder.select(builder.fcmp_ordered(sign, other, extreme), other, extreme)
            fold = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.{name}.v{emit.lanes}f32", (), ir.FunctionType(emit.scalar, [emit.vector])
            )
            emit.store(builder.call(fold, [extreme]), emit.place(out, MINIMA + at), 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def count_below(typing_context, values, count, limit):
    """Return how many of the float32 `values` are at most `limit` (float32). `count` is a multiple of 16."""

    def codegen(context, builder, signature, arguments):
        values, count, limit = arguments
        emit = Emitter(builder, "float32")
        limits = emit.splat(limit)

        def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            near = builder.fcmp_ordered("<=", emit.load(emit.place(values, i), emit.vector, 4), limits)
            bits = builder.ctpop(builder.bitcast(near, ir.IntType(emit.lanes)))
            return [builder.add(carried[0], builder.zext(bits, I64))]

        return emit.loop(ir.Constant(I64, 0), count, emit.lanes, [ir.Constant(I64, 0)], body)[0]

    return types.int64(types.int64, types.int64, types.float32), codegen


@intrinsic
def largest_value(typing_context, x, d):
    """Return the largest magnitude in a float32 row."""

    def codegen(context, builder, signature, arguments):
        x, d = arguments
        emit = Emitter(builder, "float32")
        whole = builder.and_(d, ir.Constant(I64, -emit.lanes))
        absolute = [
            builder.module.declare_intrinsic(f"llvm.fabs.{suffix}", (), ir.FunctionType(kind, [kind]))
            for suffix, kind in ((f"v{emit.lanes}f32", emit.vector), ("f32", emit.scalar))
        ]

        def body(one: bool) -> Any:
            def step(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                value = emit.load(emit.place(x, i), emit.scalar if one else emit.vector, 4)
                value = builder.call(absolute[one], [value])
                return [builder.select(builder.fcmp_ordered(">", value, carried[0]), value, carried[0])]

            return step

        (vector,) = emit.loop(ir.Constant(I64, 0), whole, emit.lanes, [emit.same(0.0)], body(False))
        fold = builder.module.declare_intrinsic(
            f"llvm.vector.reduce.fmax.v{emit.lanes}f32", (), ir.FunctionType(emit.scalar, [emit.vector])
        )
        (value,) = emit.loop(whole, d, 1, [builder.call(fold, [vector])], body(True))
        return value

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def round_bytes(typing_context, x, scale, step, d, out, sums):
    """Round ``x * scale`` of a float32 row to bytes; the caller pads `out`.

    `scale` and `step` are float32. `sums` (three float32) takes the sum of squares of ``x - step * rounded``, that of
    the rounded values, and of their squares: whole numbers, exact up to 2^24.
    """

    def codegen(context, builder, signature, arguments):
        x, scale, step, d, out, sums = arguments
        emit = Emitter(builder, "float32")
        lanes = emit.lanes
        whole = builder.and_(d, ir.Constant(I64, -lanes))

        def body(one: bool) -> Any:
            kind, integers = (emit.scalar, I32) if one else (emit.vector, emit.indices)
            suffix = "f32" if one else f"v{lanes}f32"
            rint = builder.module.declare_intrinsic(f"llvm.rint.{suffix}", (), ir.FunctionType(kind, [kind]))
            factor, back = (scale, step) if one else (emit.splat(scale), emit.splat(step))
            small = _I8 if one else ir.VectorType(_I8, lanes)

            def turn(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                total, squares, own = carried
                value = emit.load(emit.place(x, i), kind, 4)
                rounded = builder.call(rint, [builder.fmul(value, factor)])
                whole_number = builder.fptosi(rounded, integers)
                emit.store(builder.trunc(whole_number, small), emit.place(out, i, 1), 1)
                left = builder.fsub(value, builder.fmul(back, rounded))
                own = builder.fadd(own, builder.fmul(rounded, rounded))
                return [builder.add(total, whole_number), builder.fadd(squares, builder.fmul(left, left)), own]

            return turn

        nothing = ir.Constant(emit.indices, [0] * lanes)
        zeros = [nothing, emit.same(0.0), emit.same(0.0)]
        totals, squares, own = emit.loop(ir.Constant(I64, 0), whole, lanes, zeros, body(False))
        add = builder.module.declare_intrinsic(
            f"llvm.vector.reduce.add.v{lanes}i32", (), ir.FunctionType(I32, [emit.indices])
        )
        start = [builder.call(add, [totals]), emit.total(squares), emit.total(own)]
        total, square, own = emit.loop(whole, d, 1, start, body(True))
        for at, value in enumerate((square, builder.sitofp(total, emit.scalar), own)):
            emit.store(value, emit.place(sums, at), 4)
        return context.get_dummy_value()

    kinds = [types.int64, types.float32, types.float32, types.int64, types.int64, types.int64]
    return types.void(*kinds), codegen


@intrinsic
def list_below(typing_context, values, count, limit, out):
    """List the places of float32 `values` that are at most `limit` (float32), in order; return how many there are.

    `count` is a multiple of 16; `out` (int32) has room for all and a vector more. Quick where they are few.
    """

    def codegen(context, builder, signature, arguments):
        values, count, limit, out = arguments
        emit = Emitter(builder, "float32")

        def listed(places: ir.Value, _: ir.Value, near: ir.Value, found: ir.Value) -> ir.Value:
            return emit.pack_places(places, near, emit.place(out, found, 4))

        return _list_places(emit, values, count, limit, listed, branch=True)

    return types.int64(types.int64, types.int64, types.float32, types.int64), codegen


@intrinsic
def list_values_below(typing_context, values, count, limit, out, lows):
    """Do the same as `list_below`, and list the values beside their places (`lows`, float32). Quick for many, too."""

    def codegen(context, builder, signature, arguments):
        values, count, limit, out, lows = arguments
        emit = Emitter(builder, "float32")

        def listed(places: ir.Value, value: ir.Value, near: ir.Value, found: ir.Value) -> ir.Value:
            emit.pack_places(builder.bitcast(value, emit.indices), near, emit.place(lows, found, 4))
            return emit.pack_places(places, near, emit.place(out, found, 4))

        # Where packing is one instruction, it costs less than a wrong guess whether there is something to pack.
        return _list_places(emit, values, count, limit, listed, branch=not machine().byte_products)

    return types.int64(types.int64, types.int64, types.float32, types.int64, types.int64), codegen


def _list_places(
    emit: Emitter, values: ir.Value, count: ir.Value, limit: ir.Value, listed: Any, *, branch: bool
) -> ir.Value:
    """Emit a loop over vectors of values; ``listed(places, values, near, found)`` stores those that are near."""
    builder, lanes = emit.ir, emit.lanes
    limits, own = emit.splat(limit), ir.Constant(emit.indices, list(range(lanes)))

    def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        (found,) = carried
        value = emit.load(emit.place(values, i), emit.vector, 4)
        near = builder.fcmp_ordered("<=", value, limits)
        before = builder.block
        if branch:
            bits = builder.bitcast(near, ir.IntType(lanes))
            some, after = builder.append_basic_block("some"), builder.append_basic_block("none")
            builder.cbranch(builder.icmp_unsigned("==", bits, ir.Constant(bits.type, 0)), after, some)
            builder.position_at_end(some)
        places = builder.add(emit.splat(builder.trunc(i, I32)), own)
        more = builder.add(found, listed(places, value, near, found))
        if not branch:
            return [more]
        builder.branch(after)
        builder.position_at_end(after)
        new = builder.phi(I64)
        new.add_incoming(found, before)
        new.add_incoming(more, some)
        return [new]

    (found,) = emit.loop(ir.Constant(I64, 0), count, lanes, [ir.Constant(I64, 0)], body)
    return found


@intrinsic
def chain_score(typing_context, x, center, d, norm):
    """Return ``norm - 2 x.center`` in float32, bit for bit as the register tiles of `nearest` compute it."""

    def codegen(context, builder, signature, arguments):
        x, center, d, norm = arguments
        emit = Emitter(builder, "float32")
        kind = emit.scalar
        fma = builder.module.declare_intrinsic("llvm.fma.f32", (), ir.FunctionType(kind, [kind] * 3))

        def body(i: ir.Value, total: list[ir.Value]) -> list[ir.Value]:
            pair = [emit.load(emit.place(start, i), kind, 4) for start in (x, center)]
            return [builder.call(fma, [*pair, total[0]])]

        (total,) = emit.loop(ir.Constant(I64, 0), d, 1, [ir.Constant(kind, 0.0)], body)
        return builder.call(fma, [ir.Constant(kind, -2.0), total, norm])

    return types.float32(types.int64, types.int64, types.int64, types.float32), codegen
