"""Vector code for rows that are compared with a list of centres each: 16 products at once, one for each of a list.

All arguments are addresses and counts as int64 unless a function says otherwise.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, Emitter
from distclust.kernels._products import QUAD, byte_dot
from distclust.kernels._ukernel import half_lanes

_I8, _I16 = ir.IntType(8), ir.IntType(16)


@intrinsic
def nearest_listed(typing_context, x, first, turn, centers, width, steps, norms, places):
    """Return which of 16 centres has the lowest ``norm + turn * step * (first + x.c)``, the lowest place among equals.

    A row `x` (int8) and those of `centers` (uint8) have `width` bytes, a multiple of 64; `steps` and `norms` (float32)
    a value for each centre, `places` are 16 uint16. `first` is an int64, `turn` a float32.
    """

    def codegen(context, builder, signature, arguments):
        x, first, turn, centers, width, steps, norms, places = arguments
        emit = Emitter(builder, "float32")
        lanes = emit.lanes
        line = QUAD * lanes
        bytes_of = ir.VectorType(_I8, line)
        whole = builder.zext(emit.load(places, ir.VectorType(_I16, lanes), 2), emit.indices)
        each = [builder.zext(builder.extract_element(whole, ir.Constant(I32, lane)), I64) for lane in range(lanes)]
        starts = [builder.add(centers, builder.mul(place, width)) for place in each]

        def body(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            value = emit.load(emit.place(x, i, 1), bytes_of, 1)
            loaded = (emit.load(emit.place(start, i, 1), bytes_of, 1) for start in starts)
            return [byte_dot(emit, total, center, value) for center, total in zip(loaded, sums, strict=True)]

        sums = emit.loop(ir.Constant(I64, 0), width, line, [emit.whole(0)] * lanes, body)
        while len(sums) > 1:
            part = len(sums) // 2
            halves = [ir.Constant(emit.indices, half_lanes(lanes, part, upper)) for upper in (False, True)]
            sums = [
                builder.add(*(builder.shuffle_vector(a, b, half) for half in halves))
                for a, b in zip(sums[::2], sums[1::2], strict=True)
            ]

        def gather(values: ir.Value) -> ir.Value:
            found = ir.Constant(emit.vector, ir.Undefined)
            for lane, place in enumerate(each):
                value = emit.load(emit.place(values, place), emit.scalar, 4)
                found = builder.insert_element(found, value, ir.Constant(I32, lane))
            return found

        products = builder.add(sums[0], emit.splat(builder.trunc(first, I32)))
        product = builder.fmul(builder.sitofp(products, emit.vector), gather(steps))
        scores = emit.fma(emit.splat(turn), product, gather(norms))
        best = builder.fcmp_ordered("==", scores, emit.splat(emit.minimum(scores)))
        lowest = builder.module.declare_intrinsic(
            f"llvm.vector.reduce.umin.v{lanes}i32", (), ir.FunctionType(I32, [emit.indices])
        )
        return builder.call(lowest, [builder.select(best, whole, emit.whole(-1))])

    kinds = [types.int64, types.int64, types.float32, types.int64, types.int64, types.int64, types.int64, types.int64]
    return types.int32(*kinds), codegen
