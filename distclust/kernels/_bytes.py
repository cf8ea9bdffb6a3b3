"""Vector code of bounded assignment: bounds of one byte, and products of rows rounded to 16-bit integers.

Axis letters: d dimensions. All arguments are addresses, counts and offsets as int64 unless a function says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter
from distclust.kernels._jit import jit
from distclust.kernels._machine import machine
from distclust.kernels._products import pair_sums

WORD = 64
"""Bounds that are tested together: bits of a mask."""

QUICK_LANES = 64
"""16-bit values that are multiplied together, as two vectors: one sum would wait for itself. Rounded rows are padded to
a multiple of it."""

PAIRS = 4
"""Rounded centres that one rounded row is multiplied with together. 8 and 16 took as long per pair, and pad more."""

_BITS = 4
_I8, _I16 = ir.IntType(8), ir.IntType(16)
_LANES = LANES["float32"]


_ROOM_BELOW = 32
"""Levels below a row's nearest centre at the start: its distance will fall while centres settle."""


@jit
def first_floor(square, per_length):
    """Return the distance that level 0 stands for, from a squared distance to the nearest centre."""
    return max(np.sqrt(max(square, 0.0)) - _ROOM_BELOW / per_length, 0.0) if square < np.inf else 0.0


@intrinsic
def lower_bytes(typing_context, bounds, falls, threshold):
    """Lower 64 bounds by `falls`, not below 0; return a uint64 whose bits tell which are not above `threshold`."""

    def codegen(context, builder, signature, arguments):
        bounds, falls, threshold = arguments
        emit = Emitter(builder, "float32")
        vector = ir.VectorType(_I8, WORD)
        subtract = builder.module.declare_intrinsic(
            f"llvm.usub.sat.v{WORD}i8", (), ir.FunctionType(vector, [vector, vector])
        )
        lowered = builder.call(subtract, [emit.load(bounds, vector, 1), emit.load(falls, vector, 1)])
        emit.store(lowered, bounds, 1)
        limits = builder.insert_element(
            ir.Constant(vector, ir.Undefined), builder.trunc(threshold, _I8), ir.Constant(I32, 0)
        )
        limits = builder.shuffle_vector(limits, limits, ir.Constant(ir.VectorType(I32, WORD), [0] * WORD))
        return builder.bitcast(builder.icmp_unsigned("<=", lowered, limits), I64)

    return types.uint64(types.int64, types.int64, types.int64), codegen


@intrinsic
def four_bits(typing_context, mask, first, out):
    """Store ``first`` plus the positions of the four lowest set bits of a uint64 (int32; 64 where there is none).

    Return the mask without them. No branch depends on the bits: a loop over a few of them costs more in wrong guesses.
    """

    def codegen(context, builder, signature, arguments):
        mask, first, out = arguments
        emit = Emitter(builder, "float32")
        for at in range(_BITS):
            place = builder.add(builder.cttz(mask, ir.Constant(ir.IntType(1), 0)), first)
            emit.store(builder.trunc(place, I32), emit.place(out, at, 4), 4)
            mask = builder.and_(mask, builder.sub(mask, ir.Constant(I64, 1)))
        return mask

    return types.uint64(types.uint64, types.int64, types.int64), codegen


@intrinsic
def count_bits(typing_context, mask):
    """Return the number of set bits of a uint64."""

    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), codegen


def make_round_row(dtype: str) -> Any:
    """Return ``round_row(x, scale, d, out)``, which stores the 16-bit integers nearest to ``x * scale``.

    `scale` is a float of `dtype`, and so is what is returned: the sum of squares of what rounding took away.
    """
    scalar = types.float32 if dtype == "float32" else types.float64
    lanes = LANES[dtype]

    @intrinsic
    def round_row(typing_context, x, scale, d, out):
        def codegen(context, builder, signature, arguments):
            x, scale, d, out = arguments
            emit = Emitter(builder, dtype)
            factors = emit.splat(scale)
            whole = builder.and_(d, ir.Constant(I64, -lanes))

            def step(width: int) -> Any:
                kind = emit.vector if width > 1 else emit.scalar
                suffix = (f"v{width}" if width > 1 else "") + f"f{8 * emit.size}"
                rint = builder.module.declare_intrinsic(f"llvm.rint.{suffix}", (), ir.FunctionType(kind, [kind]))
                integers = [ir.VectorType(t, width) if width > 1 else t for t in (I32, _I16)]

                def body(i: ir.Value, squares: list[ir.Value]) -> list[ir.Value]:
                    value = emit.load(emit.place(x, i), kind, emit.size)
                    value = builder.fmul(value, factors if width > 1 else scale)
                    rounded = builder.call(rint, [value])
                    integer = builder.trunc(builder.fptosi(rounded, integers[0]), integers[1])
                    emit.store(integer, emit.place(out, i, 2), 2)
                    left = builder.fsub(value, rounded)
                    return [builder.fadd(squares[0], builder.fmul(left, left))]

                return body

            squares = emit.loop(ir.Constant(I64, 0), whole, lanes, [emit.same(0.0)], step(lanes))
            (square,) = emit.loop(whole, d, 1, [emit.total(*squares)], step(1))
            return square

        return scalar(types.int64, scalar, types.int64, types.int64), codegen

    return round_row


def make_products(pairs: int) -> Any:
    """Return ``products(x, centers, stride, ids, d, out)``: int32 products of a rounded row and 1, 2, 4 or 8 centres.

    `ids` (int32) are the centres' places in `centers`, `stride` bytes apart; `d` is a multiple of `QUICK_LANES`.
    """

    @intrinsic
    def products(typing_context, x, centers, stride, ids, d, out):
        def codegen(context, builder, signature, arguments):
            x, centers, stride, ids, d, out = arguments
            emit = Emitter(builder, "float32")
            shorts = ir.VectorType(_I16, QUICK_LANES // 2)
            starts = []
            for q in range(pairs):
                at = builder.zext(emit.load(emit.place(ids, q, 4), I32, 4), I64)
                starts.append(builder.add(centers, builder.mul(at, stride)))

            def body(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                out = []
                for half in range(2):
                    at = emit.add(i, half * QUICK_LANES // 2)
                    values = emit.load(emit.place(x, at, 2), shorts, 2)
                    for total, start in zip(sums[half * pairs : (half + 1) * pairs], starts, strict=True):
                        other = emit.load(emit.place(start, at, 2), shorts, 2)
                        out.append(builder.add(total, _multiply(emit, values, other)))
                return out

            nothing = ir.Constant(emit.indices, [0] * _LANES)
            both = emit.loop(ir.Constant(I64, 0), d, QUICK_LANES, [nothing] * (2 * pairs), body)
            sums = [builder.add(*halves) for halves in zip(both[:pairs], both[pairs:], strict=True)]
            emit.store(_fold(emit, sums), out, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return products


def _multiply(emit: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """Return 16 sums of two products each of 16-bit integers; which products share a sum is left open."""
    if machine().short_products:
        return pair_sums(emit, a, b)
    halves = []
    for part in (range(_LANES), range(_LANES, 2 * _LANES)):
        mask = ir.Constant(emit.indices, list(part))
        low, high = (emit.ir.shuffle_vector(v, v, mask) for v in (a, b))
        halves.append(emit.ir.mul(emit.ir.sext(low, emit.indices), emit.ir.sext(high, emit.indices)))
    return emit.ir.add(*halves)


def _fold(emit: Emitter, vectors: list[ir.Value]) -> ir.Value:
    """Return one lane for each of a few vectors: the sum over its lanes."""
    pairs, run = len(vectors), _LANES // 2
    while len(vectors) > 1:
        masks = [
            ir.Constant(emit.indices, [i for i in range(2 * _LANES) if (i % (2 * run) >= run) == upper])
            for upper in (False, True)
        ]
        vectors = [
            emit.ir.add(*(emit.ir.shuffle_vector(a, b, mask) for mask in masks))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        run //= 2
    (vector,) = vectors
    lanes = _LANES
    while lanes > pairs:
        lanes //= 2
        kind = ir.VectorType(I32, lanes)
        vector = emit.ir.add(
            *(
                emit.ir.shuffle_vector(vector, vector, ir.Constant(kind, list(range(odd, 2 * lanes, 2))))
                for odd in (0, 1)
            )
        )
    return vector


def _levels(emit: Emitter, squares: ir.Value, floors: ir.Value, rates: ir.Value) -> ir.Value:
    """Return ``(sqrt(square) * shrink - floor) * rate`` rounded down into 0 ... 255, as bytes."""
    sqrt = emit.ir.module.declare_intrinsic(
        f"llvm.sqrt.v{emit.lanes}f{8 * emit.size}", (), ir.FunctionType(emit.vector, [emit.vector])
    )

    def within(value: ir.Value, sign: str, end: float) -> ir.Value:
        return emit.ir.select(emit.ir.fcmp_ordered(sign, value, emit.same(end)), value, emit.same(end))

    length = emit.ir.fmul(emit.ir.call(sqrt, [within(squares, ">", 0.0)]), emit.same(1 - 2.0**-20))
    bound = within(within(emit.ir.fmul(emit.ir.fsub(length, floors), rates), ">", 0.0), "<", 255.0)
    return emit.ir.trunc(emit.ir.fptosi(bound, emit.indices), ir.VectorType(_I8, emit.lanes))


def make_first_bytes(dtype: str) -> Any:
    """Return ``first_bytes(scores, norms, k, base, less, floor, rate, out)``: bounds of a row from its scores.

    A bound is ``(sqrt(score + base - less * norm) * shrink - floor) * rate``, rounded down into 0 ... 255; `k` is a
    multiple of the lanes of a vector. Scores and norms have `dtype`, and so have the numbers.
    """
    scalar = types.float32 if dtype == "float32" else types.float64
    lanes = LANES[dtype]

    @intrinsic
    def first_bytes(typing_context, scores, norms, k, base, less, floor, rate, out):
        def codegen(context, builder, signature, arguments):
            scores, norms, k, base, less, floor, rate, out = arguments
            emit = Emitter(builder, dtype)
            bases, floors, rates = emit.splat(base), emit.splat(floor), emit.splat(rate)
            lesses = emit.splat(builder.fneg(less))

            def body(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                norm, score = (emit.load(emit.place(array, i), emit.vector, emit.size) for array in (norms, scores))
                square = emit.fma(lesses, norm, builder.fadd(score, bases))
                whole = _levels(emit, square, floors, rates)
                emit.store(whole, emit.place(out, i, 1), 1)
                return []

            emit.loop(ir.Constant(I64, 0), k, lanes, [], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3, *[scalar] * 4, types.int64), codegen

    return first_bytes


def make_lane_scores(dtype: str) -> Any:
    """Return ``lane_scores(scores, k, best, index)``: per lane the lowest of a row's scores and its place.

    Among equals the first place stays; `k` is a multiple of the lanes of a vector.
    """
    lanes = LANES[dtype]

    @intrinsic
    def lane_scores(typing_context, scores, k, best, index):
        def codegen(context, builder, signature, arguments):
            scores, k, best, index = arguments
            emit = Emitter(builder, dtype)
            own = ir.Constant(emit.indices, list(range(lanes)))

            def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                low, place = carried
                score = emit.load(emit.place(scores, i), emit.vector, emit.size)
                less = builder.fcmp_ordered("<", score, low)
                here = builder.add(emit.splat(builder.trunc(i, I32)), own)
                return [builder.select(less, score, low), builder.select(less, here, place)]

            start = [emit.same(float("inf")), ir.Constant(emit.indices, [0] * lanes)]
            low, place = emit.loop(ir.Constant(I64, 0), k, lanes, start, body)
            emit.store(low, best, emit.size)
            emit.store(place, index, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return lane_scores


@intrinsic
def quick_squares(typing_context, sums, sqnorms, steps, count, base, turn, slack, floor, rate, squares, levels):
    """Bound squared distances from below by products of rounded rows and centres; return the lowest.

    `sums` (int32), `sqnorms`, `steps` and `squares` (float32), `levels` (bytes) are arrays of `count` values, with room
    for a vector behind; a square is ``(base + sqnorm) * (1 - 2**-18) - step * (turn * sum + slack)``. `levels` takes
    the bounds that follow.
    """

    def codegen(context, builder, signature, arguments):
        sums, sqnorms, steps, count, base, turn, slack, floor, rate, squares, levels = arguments
        emit = Emitter(builder, "float32")
        bases, turns, slacks, floors, rates = (emit.splat(v) for v in (base, turn, slack, floor, rate))
        counts = emit.splat(builder.trunc(count, I32))
        lanes = ir.Constant(emit.indices, list(range(_LANES)))

        def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            total = builder.sitofp(emit.load(emit.place(sums, i), emit.indices, 4), emit.vector)
            product = builder.fadd(builder.fmul(turns, total), slacks)
            product = builder.fmul(emit.load(emit.place(steps, i), emit.vector, 4), product)
            lengths = builder.fadd(bases, emit.load(emit.place(sqnorms, i), emit.vector, 4))
            square = builder.fsub(builder.fmul(lengths, emit.same(1 - 2.0**-18)), product)
            emit.store(square, emit.place(squares, i), 4)
            emit.store(_levels(emit, square, floors, rates), emit.place(levels, i, 1), 1)
            places = builder.add(emit.splat(builder.trunc(i, I32)), lanes)
            meant = builder.icmp_signed("<", places, counts)
            lower = builder.and_(meant, builder.fcmp_ordered("<", square, carried[0]))
            return [builder.select(lower, square, carried[0])]

        (low,) = emit.loop(ir.Constant(I64, 0), count, _LANES, [emit.same(float("inf"))], body)
        return emit.minimum(low)

    floats = [types.float32] * 5
    return types.float32(*[types.int64] * 4, *floats, types.int64, types.int64), codegen


def make_score(dtype: str) -> Any:
    """Return ``score(x, center, d, norm)``: ``norm - 2 x.center``, bit for bit as the register tiles compute it."""
    scalar = types.float32 if dtype == "float32" else types.float64

    @intrinsic
    def score(typing_context, x, center, d, norm):
        def codegen(context, builder, signature, arguments):
            x, center, d, norm = arguments
            emit = Emitter(builder, dtype)
            kind = emit.scalar
            fma = builder.module.declare_intrinsic(f"llvm.fma.f{8 * emit.size}", (), ir.FunctionType(kind, [kind] * 3))

            def body(i: ir.Value, total: list[ir.Value]) -> list[ir.Value]:
                pair = [emit.load(emit.place(start, i), kind, emit.size) for start in (x, center)]
                return [builder.call(fma, [*pair, total[0]])]

            (total,) = emit.loop(ir.Constant(I64, 0), d, 1, [ir.Constant(kind, 0.0)], body)
            return builder.call(fma, [ir.Constant(kind, -2.0), total, norm])

        return scalar(types.int64, types.int64, types.int64, scalar), codegen

    return score
