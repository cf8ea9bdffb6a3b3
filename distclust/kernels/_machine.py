"""What the machine's vector units can do, asked from the compiler that will use them."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

import llvmlite.binding as llvm
import numba
from numba.core.codegen import get_host_cpu_features

_PROBE = """
define <16 x float> @probe(<16 x float> %a) {
  %b = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %a, <16 x float> %a)
  ret <16 x float> %b
}
define <8 x i64> @integers(<8 x double> %a) {
  %b = fptosi <8 x double> %a to <8 x i64>
  ret <8 x i64> %b
}
define <32 x i16> @shorts(<32 x i16> %a, <32 x i16> %b) {
  %c = sub <32 x i16> %a, %b
  ret <32 x i16> %c
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


class Machine(NamedTuple):
    """Vector units of this machine."""

    cpu: str
    """Name of the processor as the compiler knows it."""
    wide: bool
    """Whether a vector of 16 floats is one register, of 32 (AVX-512)."""
    fma: bool
    """Whether multiply and add are fused in hardware."""
    vector_int64: bool
    """Whether a vector of doubles is converted to int64 by one instruction (not so in AVX2)."""
    byte_products: bool
    """Whether 64 products of bytes are one instruction on a 512-bit register (AVX-512 VNNI)."""
    short_products: int
    """How many 16-bit integers x86's instruction for sums of two products takes; 0 on other machines."""


@functools.cache
def machine() -> Machine:
    """Compile a probe for the processor that numba compiles for, and read what became of it.

    Flags alone do not tell: `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` overrule them, and some processors have
    512-bit registers that the compiler avoids.
    """
    cpu = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    features = numba.config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    compiler = target.create_target_machine(cpu=cpu, features=features, opt=3)
    assembly = compiler.emit_assembly(llvm.parse_assembly(_PROBE))
    return Machine(
        cpu=cpu,
        wide="zmm" in assembly,
        fma=not re.search(r"\s(call|callq|bl)\s", assembly),
        vector_int64="cvttsd2si" not in assembly,
        byte_products="zmm" in assembly and "+avx512vnni" in features.split(","),
        short_products=_short_products(assembly),
    )


def _short_products(assembly: str) -> int:
    """Tell from a subtraction of 16-bit integers what registers they are held in."""
    subtraction = re.search(r"vpsubw.*%(.)mm", assembly)
    return {"z": 32, "y": 16}.get(subtraction.group(1), 0) if subtraction else 0


def has_fma() -> bool:
    """Tell whether the machine fuses multiply and add in hardware.

    Without it the kernels give the same bits, some 50 times slower: callers that run long should say so.
    """
    return machine().fma
