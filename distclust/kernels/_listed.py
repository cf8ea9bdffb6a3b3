"""Vector code for rows that are compared with a list of centres each: 16 products at once, one for each of a list.

Axis letters: d dimensions. All arguments are addresses and counts as int64.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, Emitter
from distclust.kernels._ukernel import half_lanes

_I16 = ir.IntType(16)


@intrinsic
def nearest_listed(typing_context, x, centers, norms, d, places):
    """Return which of 16 centres has the lowest ``norm - 2 x.c``, the lowest place among equals.

    `x` (float32) and the rows of `centers` have d >= 16 values; `places` are 16 uint16. Products are summed in lanes of
    16, dimension after dimension, what is behind the last whole vector by one more; lanes are folded by halves. The
    first place is returned where no score is a number.
    """

    def codegen(context, builder, signature, arguments):
        x, centers, norms, d, places = arguments
        emit = Emitter(builder, "float32")
        lanes = emit.lanes
        whole = builder.zext(emit.load(places, ir.VectorType(_I16, lanes), 2), emit.indices)
        each = [builder.extract_element(whole, ir.Constant(I32, lane)) for lane in range(lanes)]
        row_bytes = builder.mul(d, ir.Constant(I64, emit.size))
        starts = [builder.add(centers, builder.mul(builder.zext(place, I64), row_bytes)) for place in each]

        def body(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            value = emit.load(emit.place(x, i), emit.vector, 4)
            loaded = (emit.load(emit.place(start, i), emit.vector, 4) for start in starts)
            return [emit.fma(value, center, total) for center, total in zip(loaded, sums, strict=True)]

        def body_last(i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            # The last 16 values, less those that are summed already: no load reaches beyond the row.
            start = emit.add(d, -lanes)
            place = builder.add(emit.splat(builder.trunc(start, I32)), ir.Constant(emit.indices, list(range(lanes))))
            fresh = builder.icmp_signed(">=", place, emit.splat(builder.trunc(i, I32)))
            value = builder.select(fresh, emit.load(emit.place(x, start), emit.vector, 4), emit.same(0.0))
            loaded = (emit.load(emit.place(at, start), emit.vector, 4) for at in starts)
            return [emit.fma(value, center, total) for center, total in zip(loaded, sums, strict=True)]

        vectors = builder.and_(d, ir.Constant(I64, -lanes))
        sums = emit.loop(ir.Constant(I64, 0), vectors, lanes, [emit.same(0.0)] * lanes, body)
        sums = emit.loop(vectors, d, lanes, sums, body_last)
        while len(sums) > 1:
            part = len(sums) // 2
            halves = [ir.Constant(emit.indices, half_lanes(lanes, part, upper)) for upper in (False, True)]
            sums = [
                builder.fadd(*(builder.shuffle_vector(a, b, half) for half in halves))
                for a, b in zip(sums[::2], sums[1::2], strict=True)
            ]
        norm = ir.Constant(emit.vector, ir.Undefined)
        for lane, place in enumerate(each):
            value = emit.load(emit.place(norms, builder.zext(place, I64)), emit.scalar, 4)
            norm = builder.insert_element(norm, value, ir.Constant(I32, lane))
        scores = emit.fma(emit.same(-2.0), sums[0], norm)
        best = builder.fcmp_ordered("==", scores, emit.splat(emit.minimum(scores)))
        lowest = builder.module.declare_intrinsic(
            f"llvm.vector.reduce.umin.v{lanes}i32", (), ir.FunctionType(I32, [emit.indices])
        )
        found = builder.call(lowest, [builder.select(best, whole, emit.whole(-1))])
        none = builder.icmp_signed("==", found, ir.Constant(I32, -1))
        return builder.select(none, each[0], found)

    return types.int32(*[types.int64] * 5), codegen
