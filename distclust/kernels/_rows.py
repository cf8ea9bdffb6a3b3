"""Work on one row: its sum of squares and its fixed-point terms, vectorised.

Sums of squares are float64, added by fused multiply-add in an order that depends on d only. Element i of the first
``d // 16 * 16`` goes to lane i mod 16; lanes i and i + 8 are added; a group of 8 that is left goes to these 8
lanes, what is left then to the last of them; the lanes are folded by halves. A row of less than 8 elements is added
one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, Emitter
from distclust.kernels._machine import machine

_LANES = 8
_ACCUMULATORS = 2

SUMS = _LANES * _ACCUMULATORS
"""Sums that `make_lane_potentials` adds side by side: one alone waits for itself."""


def make_row_sqdist(dtype: str) -> Any:
    """Return ``row_sqdist(x, center, d) -> float64`` for two rows of `dtype`, given by address."""

    @intrinsic
    def row_sqdist(typing_context, x, center, d):
        def codegen(context, builder, signature, arguments):
            x, center, d = arguments
            emit = Emitter(builder, "float64")

            def difference(i: ir.Value, lanes: int) -> ir.Value:
                return builder.fsub(widened(emit, dtype, x, i, lanes), widened(emit, dtype, center, i, lanes))

            return _sum_of_squares(emit, difference, d)

        return types.float64(types.int64, types.int64, types.int64), codegen

    return row_sqdist


def make_row_sqnorm(dtype: str) -> Any:
    """Return ``row_sqnorm(x, d) -> float64`` for a row of `dtype` (floats or integers), given by address."""

    @intrinsic
    def row_sqnorm(typing_context, x, d):
        def codegen(context, builder, signature, arguments):
            x, d = arguments
            emit = Emitter(builder, "float64")
            return _sum_of_squares(emit, lambda i, lanes: widened(emit, dtype, x, i, lanes), d)

        return types.float64(types.int64, types.int64), codegen

    return row_sqnorm


@intrinsic
def prefetch(typing_context, start, count):
    """Ask for `count` bytes from an address on, to be used soon. It need not be mapped."""

    def codegen(context, builder, signature, arguments):
        start, count = arguments
        emit = Emitter(builder, "float64")
        pointer = ir.IntType(8).as_pointer()
        kinds = [pointer, I32, I32, I32]
        ask = builder.module.declare_intrinsic("llvm.prefetch.p0", (), ir.FunctionType(ir.VoidType(), kinds))

        def line(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            place = builder.inttoptr(builder.add(start, i), pointer)
            builder.call(ask, [place, ir.Constant(I32, 1), ir.Constant(I32, 3), ir.Constant(I32, 1)])
            return []

        emit.loop(ir.Constant(I64, 0), count, 64, [], line)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def make_add_row(dtype: str) -> Any:
    """Return ``add_row(x, w, scales, sums, d)``: ``sums[i] += rint(w * x[i] * scales[i])`` in int64."""

    @intrinsic
    def add_row(typing_context, x, w, scales, sums, d):
        def codegen(context, builder, signature, arguments):
            x, w, scales, sums, d = arguments
            emit = Emitter(builder, "float64")

            def step(lanes: int) -> Any:
                whole = I64 if lanes == 1 else ir.VectorType(I64, lanes)
                term_of = _term(emit, dtype, x, w, scales, lanes)

                def add(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    total = emit.place(sums, i)
                    emit.store(builder.add(emit.load(total, whole, 8), term_of(i)), total, 8)
                    return []

                return add

            emit.each(d, step)
            return context.get_dummy_value()

        return types.void(types.int64, types.float64, types.int64, types.int64, types.int64), codegen

    return add_row


def make_move_row(dtype: str) -> Any:
    """Return ``move_row(x, w, scales, old, new, d)``: take the terms of `make_add_row` from `old` to `new`."""

    @intrinsic
    def move_row(typing_context, x, w, scales, old, new, d):
        def codegen(context, builder, signature, arguments):
            x, w, scales, old, new, d = arguments
            emit = Emitter(builder, "float64")

            def step(lanes: int) -> Any:
                whole = I64 if lanes == 1 else ir.VectorType(I64, lanes)
                term_of = _term(emit, dtype, x, w, scales, lanes)

                def move(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    term = term_of(i)
                    for sums, change in ((old, builder.sub), (new, builder.add)):
                        total = emit.place(sums, i)
                        emit.store(change(emit.load(total, whole, 8), term), total, 8)
                    return []

                return move

            emit.each(d, step)
            return context.get_dummy_value()

        kinds = [types.int64, types.float64, *[types.int64] * 4]
        return types.void(*kinds), codegen

    return move_row


def _term(emit: Emitter, dtype: str, x: ir.Value, w: ir.Value, scales: ir.Value, lanes: int) -> Any:
    """Return what emits ``rint(w * x[i] * scales[i])`` as int64."""
    builder = emit.ir
    kind = ir.DoubleType() if lanes == 1 else emit.vector
    weight = w if lanes == 1 else emit.splat(w)
    suffix = "f64" if lanes == 1 else f"v{lanes}f64"
    rint = builder.module.declare_intrinsic(f"llvm.rint.{suffix}", (), ir.FunctionType(kind, [kind]))

    def term(i: ir.Value) -> ir.Value:
        weighted = builder.fmul(weight, widened(emit, dtype, x, i, lanes))
        scaled = builder.fmul(weighted, emit.load(emit.place(scales, i), kind, 8))
        return _to_int64(emit, builder.call(rint, [scaled]), lanes)

    return term


def _to_int64(emit: Emitter, value: ir.Value, lanes: int) -> ir.Value:
    """Convert doubles that hold integers below 2**63 to int64."""
    if lanes == 1:
        return emit.ir.fptosi(value, I64)
    whole = ir.VectorType(I64, lanes)
    if machine().vector_int64:
        return emit.ir.fptosi(value, whole)
    # Adding 1.5 * 2**84 leaves the bits from 2**32 on at the end of the significand, adding 1.5 * 2**52 to the rest
    # those below; both additions are exact. Half the time of 8 scalar conversions on AVX2.
    upper_magic, lower_magic = emit.same(1.5 * 2.0**84), emit.same(1.5 * 2.0**52)
    shifted = emit.ir.fadd(value, upper_magic)
    rest = emit.ir.fsub(value, emit.ir.fsub(shifted, upper_magic))
    upper = emit.ir.shl(emit.ir.bitcast(shifted, whole), ir.Constant(whole, [32] * lanes))
    lower = emit.ir.bitcast(emit.ir.fadd(rest, lower_magic), whole)
    return emit.ir.add(upper, emit.ir.sub(lower, emit.ir.bitcast(lower_magic, whole)))


def widened(emit: Emitter, dtype: str, start: ir.Value, i: ir.Value, lanes: int) -> ir.Value:
    """Load `lanes` values of `dtype` (one: a scalar) from element i on, as doubles."""
    kind = np.dtype(dtype)
    scalars = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
    scalar = scalars.get(dtype, ir.IntType(8 * kind.itemsize))
    loaded_type, wide = scalar, ir.DoubleType()
    if lanes > 1:
        loaded_type, wide = ir.VectorType(scalar, lanes), ir.VectorType(wide, lanes)
    value = emit.load(emit.place(start, i, kind.itemsize), loaded_type, kind.itemsize)
    if dtype == "float64":
        return value
    convert = {"f": emit.ir.fpext, "i": emit.ir.sitofp, "u": emit.ir.uitofp}[kind.kind]
    return convert(value, wide)


def _sum_of_squares(emit: Emitter, values: Any, d: ir.Value) -> ir.Value:
    zero, turn = ir.Constant(I64, 0), _LANES * _ACCUMULATORS
    short = emit.ir.icmp_signed("<", d, ir.Constant(I64, _LANES))

    def add(i: ir.Value, total: ir.Value) -> ir.Value:
        value = values(i, _LANES)
        return emit.fma(value, value, total)

    def add_last(i: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        # The last 8 elements, less those that are summed already: no load reaches beyond the row.
        start = emit.add(d, -_LANES)
        place = emit.ir.add(emit.splat(start), ir.Constant(ir.VectorType(I64, _LANES), list(range(_LANES))))
        fresh = emit.ir.icmp_signed(">=", place, emit.splat(i))
        value = emit.ir.select(fresh, values(start, _LANES), emit.same(0.0))
        return [emit.fma(value, value, totals[0])]

    turns = emit.ir.and_(d, ir.Constant(I64, -turn))
    totals = emit.loop(
        zero,
        turns,
        turn,
        [emit.same(0.0)] * _ACCUMULATORS,
        lambda i, old: [add(emit.add(i, at * _LANES), total) for at, total in enumerate(old)],
    )
    total = emit.ir.fadd(totals[0], totals[1])
    groups = emit.ir.and_(d, ir.Constant(I64, -_LANES))
    total = emit.loop(turns, groups, _LANES, [total], lambda i, old: [add(i, old[0])])[0]
    total = emit.loop(groups, emit.ir.select(short, zero, d), _LANES, [total], add_last)[0]
    folded = _fold(emit, total)
    return emit.loop(zero, emit.ir.select(short, d, zero), 1, [folded], _scalar_step(emit, values))[0]


def _scalar_step(emit: Emitter, values: Any) -> Any:
    double = ir.DoubleType()
    fma = emit.ir.module.declare_intrinsic("llvm.fma.f64", (), ir.FunctionType(double, [double] * 3))

    def step(i: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        value = values(i, 1)
        return [emit.ir.call(fma, [value, value, totals[0]])]

    return step


def _fold(emit: Emitter, vector: ir.Value) -> ir.Value:
    """Add the upper half of the lanes to the lower one until one is left."""
    lanes = _LANES
    while lanes > 1:
        lanes //= 2
        nothing = ir.Constant(vector.type, ir.Undefined)
        lower, upper = (
            emit.ir.shuffle_vector(vector, nothing, ir.Constant(ir.VectorType(I32, lanes), list(part)))
            for part in (range(lanes), range(lanes, 2 * lanes))
        )
        vector = emit.ir.fadd(lower, upper)
    return emit.ir.extract_element(vector, ir.Constant(I32, 0))


def make_lane_potentials(dtype: str) -> Any:
    """Return ``lane_potentials(products, norm, sqnorms, weights, current, count, lanes)`` for products of `dtype`.

    Stores ``sum of weight * min(max(product + norm + sqnorm, 0), current)`` in `SUMS` lanes (float64), row i in lane
    i mod `SUMS`; ``product + norm`` is rounded to `dtype`. `count` is a multiple of `SUMS`.
    """
    scalar = types.float32 if dtype == "float32" else types.float64

    @intrinsic
    def lane_potentials(typing_context, products, norm, sqnorms, weights, current, count, lanes):
        def codegen(context, builder, signature, arguments):
            products, norm, sqnorms, weights, current, count, lanes = arguments
            emit = Emitter(builder, "float64")
            narrow = ir.VectorType(norm.type, _LANES)
            norms = builder.insert_element(ir.Constant(narrow, ir.Undefined), norm, ir.Constant(I32, 0))
            norms = builder.shuffle_vector(norms, norms, ir.Constant(ir.VectorType(I32, _LANES), [0] * _LANES))
            size, zero = (4 if dtype == "float32" else 8), emit.same(0.0)

            def body(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                out = []
                for part, total in enumerate(sums):
                    at = emit.add(i, part * _LANES)
                    product = builder.fadd(emit.load(emit.place(products, at, size), narrow, size), norms)
                    if dtype == "float32":
                        product = builder.fpext(product, emit.vector)
                    square, weight, near = (
                        emit.load(emit.place(start, at), emit.vector, 8) for start in (sqnorms, weights, current)
                    )
                    sqdist = builder.fadd(product, square)
                    sqdist = builder.select(builder.fcmp_ordered(">", sqdist, zero), sqdist, zero)
                    sqdist = builder.select(builder.fcmp_ordered("<", sqdist, near), sqdist, near)
                    out.append(builder.fadd(total, builder.fmul(weight, sqdist)))
                return out

            sums = emit.loop(ir.Constant(I64, 0), count, SUMS, [zero] * _ACCUMULATORS, body)
            for part, total in enumerate(sums):
                emit.store(total, emit.place(lanes, part * _LANES), 8)
            return context.get_dummy_value()

        return types.void(types.int64, scalar, *[types.int64] * 5), codegen

    return lane_potentials
