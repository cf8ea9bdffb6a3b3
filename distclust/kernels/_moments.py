"""Rows on their way into a block, and the terms of their column sums, vectorised.

Terms need no conversion: ``fma(a, b, M)``, with M = 1.5 * 2^52, is M plus the product rounded
to an integer, and its bits, as an integer, are added; what M put in is taken off at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, Emitter
from distclust.kernels._rows import widened

MAGIC = 1.5 * 2.0**52
MAGIC_BITS = 0x4338 << 48

INFINITE_BITS = 0x7F800000
"""Bits of infinity in float32; those of numbers are below, of NaN above."""

_MAGNITUDE = 0x7FFFFFFF
_WRITTEN = 16
"""Values written at once: a whole cache line, where rows begin at one."""


def make_add_moments(dtype: str, rows: int, low_part: float) -> Any:
    """Return ``add_moments(x, weights, scales, sq_scales, sums, abs_sums, sq_hi, sq_lo, d)``, all but `d` addresses.

    Adds, for every column of so many rows one after the other, ``w * x * scale`` and its absolute value, rounded, and
    the two parts of ``w * x * x * sq_scale``, each more by `MAGIC_BITS`, modulo 2^64. No term may be beyond 2^51.
    """
    size = np.dtype(dtype).itemsize

    @intrinsic
    def add_moments(typing_context, x, weights, scales, sq_scales, sums, abs_sums, sq_hi, sq_lo, d):
        def codegen(context, builder, signature, arguments):
            x, weights, scales, sq_scales, sums, abs_sums, sq_hi, sq_lo, d = arguments
            emit = Emitter(builder, "float64")
            each = [emit.load(emit.place(weights, row), ir.DoubleType(), 8) for row in range(rows)]
            starts = [builder.add(x, builder.mul(d, ir.Constant(I64, size * row))) for row in range(rows)]

            def step(lanes: int) -> Any:
                whole, real = (kind if lanes == 1 else ir.VectorType(kind, lanes) for kind in (I64, ir.DoubleType()))
                suffix = "f64" if lanes == 1 else f"v{lanes}f64"
                heavy = each if lanes == 1 else [emit.splat(weight) for weight in each]

                def call(name: str, *values: ir.Value) -> ir.Value:
                    kind = ir.FunctionType(real, [real] * len(values))
                    return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", (), kind), values)

                def same(number: float) -> ir.Value:
                    return ir.Constant(real, number if lanes == 1 else [number] * lanes)

                magic, low = same(MAGIC), same(low_part)

                def body(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                    scale, sq_scale = (emit.load(emit.place(array, i), real, 8) for array in (scales, sq_scales))
                    places = [emit.place(total, i) for total in (sums, abs_sums, sq_hi, sq_lo)]
                    totals = [emit.load(place, whole, 8) for place in places]
                    for start, weight in zip(starts, heavy, strict=True):
                        value = widened(emit, dtype, start, i, lanes)
                        weighted = builder.fmul(weight, value)
                        square = builder.fmul(weighted, value)
                        upper = call("fma", square, sq_scale, magic)
                        rest = call("fma", square, sq_scale, builder.fneg(builder.fsub(upper, magic)))
                        terms = (
                            call("fma", weighted, scale, magic),
                            call("fma", call("fabs", weighted), scale, magic),
                            upper,
                            call("fma", rest, low, magic),
                        )
                        totals = [
                            builder.add(total, builder.bitcast(term, whole))
                            for total, term in zip(totals, terms, strict=True)
                        ]
                    for total, place in zip(totals, places, strict=True):
                        emit.store(total, place, 8)
                    return []

                return body

            emit.each(d, step)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return add_moments


def make_center_row(dtype: str) -> Any:
    """Return ``center_row(x, center, out, d)``: ``out[i] = float32(x[i] - center[i])``, for a row `x` of `dtype`.

    The int32 that it returns has the bits of the largest magnitude written, of infinity or more if one is not finite.
    """

    @intrinsic
    def center_row(typing_context, x, center, out, d):
        def codegen(context, builder, signature, arguments):
            x, center, out, d = arguments
            emit = Emitter(builder, "float64")

            def step(lanes: int) -> Any:
                real, single, bits = (
                    kind if lanes == 1 else ir.VectorType(kind, lanes)
                    for kind in (ir.DoubleType(), ir.FloatType(), I32)
                )
                mask = ir.Constant(bits, _MAGNITUDE if lanes == 1 else [_MAGNITUDE] * lanes)

                def body(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                    middle = emit.load(emit.place(center, i), real, 8)
                    value = builder.fptrunc(builder.fsub(widened(emit, dtype, x, i, lanes), middle), single)
                    emit.store(value, emit.place(out, i, 4), 4)
                    magnitude = builder.and_(builder.bitcast(value, bits), mask)
                    larger = builder.icmp_unsigned(">", magnitude, carried[0])
                    return [builder.select(larger, magnitude, carried[0])]

                return body

            groups = builder.and_(d, ir.Constant(I64, -_WRITTEN))
            nothing = ir.Constant(ir.VectorType(I32, _WRITTEN), [0] * _WRITTEN)
            most = emit.loop(ir.Constant(I64, 0), groups, _WRITTEN, [nothing], step(_WRITTEN))[0]
            fold = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.umax.v{_WRITTEN}i32", (), ir.FunctionType(I32, [most.type])
            )
            return emit.loop(groups, d, 1, [builder.call(fold, [most])], step(1))[0]

        return types.int32(*[types.int64] * 4), codegen

    return center_row
