"""Writing LLVM vector code from Python: what the register tiles and row sums share.

Code is emitted for addresses given as plain integers, because functions of integers compile fast and fit any
array; callers keep the arrays alive. Vectors have 16 floats or 8 doubles on every machine: LLVM lowers them to
AVX-512, AVX2 or NEON, so there is one source and, lane by lane, one order of additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from distclust.kernels._machine import machine

LANES = {"float32": 16, "float64": 8}
SIZES = {"float32": 4, "float64": 8}

I32 = ir.IntType(32)
I64 = ir.IntType(64)


class Emitter:
    """An LLVM builder that knows the vectors of one dtype."""

    def __init__(self, builder: ir.IRBuilder, dtype: str) -> None:
        self.ir = builder
        self.lanes = LANES[dtype]
        self.size = SIZES[dtype]
        self.scalar = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.indices = ir.VectorType(I32, self.lanes)
        suffix = f"v{self.lanes}f{8 * self.size}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        self._fma = builder.module.declare_intrinsic(f"llvm.fma.{suffix}", (), signature)
        self._suffix = suffix

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self.ir.call(self._fma, [a, b, c])

    def minimum(self, vector: ir.Value) -> ir.Value:
        """Return the lowest lane of a vector without NaN."""
        signature = ir.FunctionType(self.scalar, [self.vector])
        name = f"llvm.vector.reduce.fmin.{self._suffix}"
        return self.ir.call(self.ir.module.declare_intrinsic(name, (), signature), [vector])

    def total(self, vector: ir.Value) -> ir.Value:
        """Return the sum of the lanes of a vector, one added after the other."""
        signature = ir.FunctionType(self.scalar, [self.scalar, self.vector])
        fold = self.ir.module.declare_intrinsic(f"llvm.vector.reduce.fadd.{self._suffix}", (), signature)
        return self.ir.call(fold, [ir.Constant(self.scalar, 0.0), vector])

    def add(self, value: ir.Value, number: int) -> ir.Value:
        return self.ir.add(value, ir.Constant(I64, number))

    def same(self, number: float) -> ir.Value:
        return ir.Constant(self.vector, [number] * self.lanes)

    def whole(self, number: int) -> ir.Value:
        """Return an int32 in as many lanes as the vectors have."""
        return ir.Constant(self.indices, [number] * self.lanes)

    def splat(self, value: ir.Value) -> ir.Value:
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.ir.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.ir.shuffle_vector(first, undefined, ir.Constant(self.indices, [0] * self.lanes))

    def place(self, address: ir.Value, offset: ir.Value | int, size: int = 0) -> ir.Value:
        """Return the address `offset` elements on."""
        if isinstance(offset, int):
            return self.ir.add(address, ir.Constant(I64, offset * (size or self.size)))
        return self.ir.add(address, self.ir.mul(offset, ir.Constant(I64, size or self.size)))

    def load(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        value = self.ir.load(self.ir.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def store(self, value: ir.Value, address: ir.Value, align: int) -> None:
        self.ir.store(value, self.ir.inttoptr(address, value.type.as_pointer())).align = align

    def pack_places(self, places: ir.Value, chosen: ir.Value, target: ir.Value) -> ir.Value:
        """Store the chosen int32 lanes side by side at an address with room for all lanes; return how many there are.

        On AVX-512 they are packed in a register and stored whole: the instruction that packs into memory takes over a
        hundred cycles on Zen 4.
        """
        mask = ir.VectorType(ir.IntType(1), self.lanes)
        if machine().byte_products:
            name = f"llvm.x86.avx512.mask.compress.v{self.lanes}i32"
            signature = ir.FunctionType(self.indices, [self.indices, self.indices, mask])
            pack = self.ir.module.declare_intrinsic(name, (), signature)
            self.store(self.ir.call(pack, [places, self.whole(0), chosen]), target, 4)
        else:
            name = f"llvm.masked.compressstore.v{self.lanes}i32"
            signature = ir.FunctionType(ir.VoidType(), [self.indices, I32.as_pointer(), mask])
            pack = self.ir.module.declare_intrinsic(name, (), signature)
            self.ir.call(pack, [places, self.ir.inttoptr(target, I32.as_pointer()), chosen])
        return self.ir.zext(self.ir.ctpop(self.ir.bitcast(chosen, ir.IntType(self.lanes))), I64)

    def loop(
        self,
        start: ir.Value,
        stop: ir.Value,
        step: int,
        carried: Sequence[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """Emit ``for i in range(start, stop, step): carried = body(i, carried)``; return what is carried out."""
        before = self.ir.block
        inside = self.ir.append_basic_block("loop")
        after = self.ir.append_basic_block("loop.end")
        self.ir.cbranch(self.ir.icmp_signed("<", start, stop), inside, after)
        self.ir.position_at_end(inside)
        i = self.ir.phi(I64)
        old = [self.ir.phi(value.type) for value in carried]
        new = body(i, list(old))
        following = self.ir.add(i, ir.Constant(I64, step))
        last = self.ir.block
        for phi, first, later in zip([i, *old], [start, *carried], [following, *new], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, last)
        self.ir.cbranch(self.ir.icmp_signed("<", following, stop), inside, after)
        self.ir.position_at_end(after)
        out = []
        for first, later in zip(carried, new, strict=True):
            phi = self.ir.phi(first.type)
            phi.add_incoming(first, before)
            phi.add_incoming(later, last)
            out.append(phi)
        return out

    def each(
        self, count: ir.Value, step: Callable[[int], Callable[[ir.Value, list[ir.Value]], list[ir.Value]]]
    ) -> None:
        """Emit a loop over `count` elements by whole vectors, then one over the rest; ``step(lanes)`` is the body."""
        groups = self.ir.and_(count, ir.Constant(I64, -self.lanes))
        self.loop(ir.Constant(I64, 0), groups, self.lanes, [], step(self.lanes))
        self.loop(groups, count, 1, [], step(1))


@intrinsic
def address(typing_context, array):
    """Return the address of an array's first element. It keeps nothing alive."""
    if not isinstance(array, types.Array):
        raise TypingError("address() takes an array.")

    def codegen(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, value=arguments[0]).data
        return builder.ptrtoint(data, I64)

    return types.int64(array), codegen
