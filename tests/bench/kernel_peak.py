"""Kernel speeds against the peak of this machine, measured in the same run.

    python -m tests.bench.kernel_peak [--smoke] [--threads 2] [--dtype float32]

Peak is a loop of fused multiply-adds on registers, written with the machinery of the kernels. Every figure is the
best of several rounds in which each shape and the peak take turns, so that a neighbour's load meets them all.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter
from distclust.kernels._machine import machine
from distclust.kernels.lloyd import accumulate, row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers

SHAPES = [
    (100_000, 128, 1000),
    (50_000, 384, 1000),
    (20_000, 768, 2000),
    (4_000, 4096, 1000),
    (400_000, 16, 100),
    (200_000, 16, 1000),
    (100_000, 64, 256),
    (200_000, 128, 16),
]
UPDATE_SHAPES = [(200_000, 128, 1000), (1_000_000, 16, 100), (100_000, 384, 1000)]
SMOKE_SHAPES = [(300, 20, 17), (500, 3, 40)]
PEAK_TURNS = 4_000_000

FIRST_CALLS = """
import time
start = time.perf_counter()
import numpy as np
from distclust.kernels.lloyd import accumulate, row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers
imported = time.perf_counter()
x = np.ones((100, 32), np.float32)
labels, _ = assign_nearest(x, pack_centers(np.eye(100, 32, dtype=np.float32)))
totals = np.zeros((100, 32), np.int64), np.zeros(100, np.int64), np.zeros(100, np.int64)
accumulate(x, None, labels, np.ones(32), 1.0, *totals)
row_sqdist(x, x, labels)
print(imported - start, time.perf_counter() - imported)
"""


def make_peak_loop(dtype: str) -> tuple[Callable[[int], float], int]:
    """Return a function of `turns` that multiplies and adds on registers, and its operations in one turn."""
    # Enough independent sums to hide the latency, few enough to stay in registers.
    accumulators = 12 if machine().wide else 5

    @intrinsic
    def spin(typing_context, turns):
        def codegen(context, builder, signature, arguments):
            emit = Emitter(builder, dtype)
            factor, step = emit.same(0.9999), emit.same(1e-5)
            start = [emit.same(float(at)) for at in range(accumulators)]
            sums = emit.loop(
                ir.Constant(I64, 0), arguments[0], 1, start, lambda _, old: [emit.fma(one, factor, step) for one in old]
            )
            total = functools.reduce(builder.fadd, sums)
            first = builder.extract_element(total, ir.Constant(I32, 0))
            return builder.fpext(first, ir.DoubleType()) if dtype == "float32" else first

        return types.float64(types.int64), codegen

    @numba.njit(nogil=True)
    def peak(turns):
        return spin(turns)

    return peak, 2 * accumulators * LANES[dtype]


def seconds(work: Callable[[int], object], pool: ThreadPoolExecutor, threads: int) -> float:
    """Return the wall time of `work` on all threads at once."""
    start = time.perf_counter()
    list(pool.map(work, range(threads)))
    return time.perf_counter() - start


def halves(n: int, threads: int) -> list[slice]:
    """Cut n rows into one run per thread."""
    cuts = np.linspace(0, n, threads + 1).astype(int)
    return [slice(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def bench_assign(shapes: list[tuple[int, int, int]], dtype: str, threads: int, rounds: int) -> None:
    """Print GFLOP/s (``2 n d k / s``) of `assign_nearest` and its share of peak."""
    rng = np.random.default_rng(0)
    peak, flops = make_peak_loop(dtype)
    peak(1)
    print(f"\nassign_nearest, {dtype}, {threads} threads, {machine().cpu}")
    print(f"{'n':>9} {'d':>5} {'k':>5} {'tile':>6} {'ms':>9} {'GFLOP/s':>8} {'% of peak':>9}")
    with ThreadPoolExecutor(threads) as pool:
        for n, d, k in shapes:
            x = rng.normal(size=(n, d)).astype(dtype)
            packed = pack_centers(rng.normal(size=(k, d)).astype(dtype))
            parts = halves(n, threads)
            assign_nearest(x[:100], packed)
            best = top = float("inf")
            for _ in range(rounds):
                top = min(top, seconds(lambda _: peak(PEAK_TURNS), pool, threads))
                best = min(best, seconds(lambda at, x=x, packed=packed, parts=parts:
                                         assign_nearest(x[parts[at]], packed), pool, threads))
            speed = 2 * n * d * k / best / 1e9
            limit = threads * PEAK_TURNS * flops / top / 1e9
            tile = "x".join(map(str, packed.tile))
            print(f"{n:>9} {d:>5} {k:>5} {tile:>6} {best * 1e3:>9.2f} {speed:>8.0f} {100 * speed / limit:>8.0f}%")


def bench_updates(shapes: list[tuple[int, int, int]], dtype: str, threads: int, rounds: int) -> None:
    """Print the times of `accumulate` and `row_sqdist` for random labels."""
    rng = np.random.default_rng(1)
    print(f"\n{'n':>9} {'d':>5} {'k':>5} {'accumulate ms':>14} {'GB/s read':>10} {'row_sqdist ms':>14} {'GB/s read':>10}")
    with ThreadPoolExecutor(threads) as pool:
        for n, d, k in shapes:
            x = rng.normal(size=(n, d)).astype(dtype)
            centers = x[:k].copy()
            labels = rng.integers(0, len(centers), n).astype(np.int32)
            scales = np.full(d, 2.0**30)
            totals = [(np.zeros((k, d), np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64))
                      for _ in range(threads)]
            parts = halves(n, threads)

            def add(at: int) -> None:
                accumulate(x[parts[at]], None, labels[parts[at]], scales, 1.0, *totals[at])  # noqa: B023

            def measure(at: int) -> None:
                row_sqdist(x[parts[at]], centers, labels[parts[at]])  # noqa: B023

            add(0)
            measure(0)
            added = min(seconds(add, pool, threads) for _ in range(rounds))
            measured = min(seconds(measure, pool, threads) for _ in range(rounds))
            print(f"{n:>9} {d:>5} {k:>5} {added * 1e3:>14.2f} {x.nbytes / added / 1e9:>10.1f} "
                  f"{measured * 1e3:>14.2f} {x.nbytes / measured / 1e9:>10.1f}")


def bench_compile() -> None:
    """Print the time to the first assign + accumulate + row_sqdist with an empty and a filled cache."""
    with tempfile.TemporaryDirectory() as cache:
        print()
        for what in ("cold", "warm"):
            environment = os.environ | {"DISTCLUST_KERNEL_CACHE": cache}
            found = subprocess.run(
                [sys.executable, "-c", FIRST_CALLS], env=environment, capture_output=True, text=True, check=True
            )
            imported, called = map(float, found.stdout.split())
            print(f"first calls, {what} cache: import {imported:.2f} s, assign + accumulate + row_sqdist {called:.2f} s")


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, one round: does it run?")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", choices=sorted(LANES), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rounds = 1 if options.smoke else options.rounds
    bench_assign(SMOKE_SHAPES if options.smoke else SHAPES, options.dtype, options.threads, rounds)
    bench_updates(SMOKE_SHAPES if options.smoke else UPDATE_SHAPES, options.dtype, options.threads, rounds)
    bench_compile()


if __name__ == "__main__":
    main()
