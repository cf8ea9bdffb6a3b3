"""Products of short integers, by the instruction that the machine has for them. All sums are exact, so any will do."""

from __future__ import annotations

from llvmlite import ir

from distclust.kernels._emit import I32, LANES, Emitter
from distclust.kernels._machine import machine

QUAD = 4
"""8-bit values that one lane multiplies and adds at once."""

_LANES = LANES["float32"]
_SHORTS = ir.VectorType(ir.IntType(16), 2 * _LANES)


def pair_sums(emit: Emitter, a: ir.Value, b: ir.Value) -> ir.Value:
    """Emit 16 sums of two products each of neighbouring 16-bit integers: x86 has one instruction for it.

    LLVM does not find it, hence its name.
    """
    if machine().short_products == 2 * _LANES:
        signature = ir.FunctionType(emit.indices, [a.type, a.type])
        return emit.ir.call(emit.ir.module.declare_intrinsic("llvm.x86.avx512.pmaddw.d.512", (), signature), [a, b])
    eight, halves = ir.VectorType(I32, _LANES // 2), []
    for part in (range(_LANES), range(_LANES, 2 * _LANES)):
        mask = ir.Constant(emit.indices, list(part))
        low, high = (emit.ir.shuffle_vector(v, v, mask) for v in (a, b))
        signature = ir.FunctionType(eight, [low.type, low.type])
        call = emit.ir.module.declare_intrinsic("llvm.x86.avx2.pmadd.wd", (), signature)
        halves.append(emit.ir.call(call, [low, high]))
    return emit.ir.shuffle_vector(*halves, ir.Constant(emit.indices, list(range(_LANES))))


def byte_dot(emit: Emitter, total: ir.Value, centers: ir.Value, row: ir.Value) -> ir.Value:
    """Emit ``total + sum of four products`` of 64 unsigned and 64 signed bytes, lane by lane."""
    builder = emit.ir
    if machine().byte_products:
        signature = ir.FunctionType(emit.indices, [emit.indices, centers.type, centers.type])
        dot = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), signature)
        return builder.call(dot, [total, centers, row])
    if machine().short_products:
        eight = ir.Constant(_SHORTS, [8] * 2 * _LANES)
        wide, signed = (builder.bitcast(part, _SHORTS) for part in (centers, row))
        even = (
            builder.and_(wide, ir.Constant(_SHORTS, [255] * 2 * _LANES)),
            builder.ashr(builder.shl(signed, eight), eight),
        )
        odd = builder.lshr(wide, eight), builder.ashr(signed, eight)
        return builder.add(builder.add(total, pair_sums(emit, *even)), pair_sums(emit, *odd))
    lines = [builder.bitcast(part, emit.indices) for part in (centers, row)]
    for place in range(QUAD):
        # The byte moves to the top of its lane and down again: what comes back has the sign it is meant to have.
        top = [builder.shl(part, emit.whole(32 - 8 * (place + 1))) for part in lines]
        center = builder.lshr(top[0], emit.whole(24))
        total = builder.add(total, builder.mul(center, builder.ashr(top[1], emit.whole(24))))
    return total
