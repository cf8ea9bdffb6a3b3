"""The places where one row of numbers is below another: vector compare and compress."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter


def make_places_below(dtype: str) -> Any:
    """Return ``places_below(row, limits, n, chosen) -> int64``: the number of i with ``row[i] < limits[i]``.

    `chosen` (int32) takes these i in order; it has room for n and a vector more. `n` is a multiple of the lanes; all
    are addresses.
    """
    lanes = LANES[dtype]

    @intrinsic
    def places_below(typing_context, row, limits, n, chosen):
        def codegen(context, builder, signature, arguments):
            row, limits, n, chosen = arguments
            emit = Emitter(builder, dtype)
            order = ir.Constant(emit.indices, list(range(lanes)))

            def several(i: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
                (count,) = carried
                value = emit.load(emit.place(row, i), emit.vector, emit.size)
                below = builder.fcmp_ordered("<", value, emit.load(emit.place(limits, i), emit.vector, emit.size))
                place = builder.add(emit.splat(builder.trunc(i, I32)), order)
                return [builder.add(count, emit.pack_places(place, below, emit.place(chosen, count, 4)))]

            return emit.loop(ir.Constant(I64, 0), n, lanes, [ir.Constant(I64, 0)], several)[0]

        return types.int64(*[types.int64] * 4), codegen

    return places_below
