"""Kernel speeds beside the peak of this machine, measured in turn in the same run.

    python tests/bench/kernel_peak.py [--smoke] [--threads 2] [--dtype float32] [--repeat 9]

Peak is a loop of fused multiply-adds on registers, written with the machinery of the kernels. Times are seconds of
processor time, per thread, the best of several turns: what other programs take from the machine does not count,
except for what they take from shared caches and memory. GFLOP/s are ``2 n d k / s``, summed over threads.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from _common import print_machine, print_table
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from distclust.kernels._emit import I32, I64, LANES, Emitter
from distclust.kernels._machine import machine
from distclust.kernels.lloyd import accumulate, row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers

Shapes = tuple[tuple[int, int, int], ...]

ASSIGN_SHAPES: Shapes = (
    (40_000, 128, 1000),
    (20_000, 384, 1000),
    (8_000, 768, 2000),
    (2_000, 4096, 1000),
    (100_000, 64, 256),
    (400_000, 16, 100),
    (100_000, 16, 1000),
    (200_000, 128, 16),
)
UPDATE_SHAPES: Shapes = ((200_000, 128, 1000), (1_000_000, 16, 100), (100_000, 384, 1000))
SMOKE_SHAPES: Shapes = ((300, 20, 17), (500, 3, 40))
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


class Team:
    """Threads that do the same work at the same time, each on its part of the rows."""

    def __init__(self, threads: int, repeat: int) -> None:
        self.threads = threads
        self.repeat = repeat
        self._pool = ThreadPoolExecutor(threads)
        self._barrier = threading.Barrier(threads)

    def parts(self, n: int) -> list[slice]:
        """Cut n rows into one run per thread."""
        return [slice(a, b) for a, b in itertools.pairwise(n * at // self.threads for at in range(self.threads + 1))]

    def seconds(self, work: Callable[[int], object]) -> float:
        """Return the mean processor time of one turn."""

        def turn(at: int) -> float:
            self._barrier.wait()
            start = time.thread_time()
            work(at)
            return time.thread_time() - start

        return sum(self._pool.map(turn, range(self.threads))) / self.threads

    def best(self, *works: Callable[[int], object]) -> list[float]:
        """Return the best time of each work, taking turns; the first turn, which may compile, does not count."""
        turns = [[self.seconds(work) for work in works] for _ in range(self.repeat + 1)]
        return [min(times) for times in zip(*turns[1:], strict=True)]


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


def bench_assign(shapes: Shapes, dtype: str, team: Team) -> None:
    """Print the speed of `assign_nearest` and its share of peak."""
    rng = np.random.default_rng(0)
    peak, flops = make_peak_loop(dtype)
    rows = []
    for n, d, k in shapes:
        x = rng.normal(size=(n, d)).astype(dtype)
        packed = pack_centers(rng.normal(size=(k, d)).astype(dtype))
        parts = team.parts(n)

        def assign(at: int) -> object:
            return assign_nearest(x[parts[at]], packed)  # noqa: B023

        seconds, spun = team.best(assign, lambda _: peak(PEAK_TURNS))
        speed = 2 * n * d * k / seconds / 1e9
        limit = team.threads * PEAK_TURNS * flops / spun / 1e9
        tile = "x".join(map(str, packed.tile))
        rows.append(
            (n, d, k, tile, f"{seconds * 1e3:.1f}", f"{speed:.0f}", f"{limit:.0f}", f"{100 * speed / limit:.0f}")
        )
    print(f"\nassign_nearest, {dtype}, {team.threads} threads, code for {machine().cpu}:")
    print_table(["n", "d", "k", "tile", "ms", "GFLOP/s", "peak", "% of peak"], rows)


def bench_updates(shapes: Shapes, dtype: str, team: Team) -> None:
    """Print the times of `accumulate` and `row_sqdist` for labels in random order."""
    rng = np.random.default_rng(1)
    rows = []
    for n, d, k in shapes:
        x = rng.normal(size=(n, d)).astype(dtype)
        centers = x[rng.integers(0, n, k)]
        labels = rng.integers(0, k, n).astype(np.int32)
        scales = np.full(d, 2.0**30)
        totals = [
            (np.zeros((k, d), np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64)) for _ in range(team.threads)
        ]
        parts = team.parts(n)

        def add(at: int) -> None:
            accumulate(x[parts[at]], None, labels[parts[at]], scales, 1.0, *totals[at])  # noqa: B023

        def measure(at: int) -> None:
            row_sqdist(x[parts[at]], centers, labels[parts[at]])  # noqa: B023

        cells = []
        for seconds in team.best(add, measure):
            cells += [f"{seconds * 1e3:.1f}", f"{x.nbytes / seconds / 1e9:.1f}"]
        rows.append((n, d, k, *cells))
    print("\naccumulate and row_sqdist:")
    print_table(["n", "d", "k", "accumulate ms", "GB/s", "row_sqdist ms", "GB/s"], rows)


def bench_compile() -> None:
    """Print the time to the first assign + accumulate + row_sqdist with an empty and a filled cache."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for what in ("empty", "filled"):
            found = subprocess.run(
                [sys.executable, "-c", FIRST_CALLS],
                env=os.environ | {"DISTCLUST_KERNEL_CACHE": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append((what, *(f"{float(seconds):.2f}" for seconds in found.stdout.split())))
    print("\nFirst calls of a fresh process (wall time):")
    print_table(["cache", "import s", "assign + accumulate + row_sqdist s"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that the benchmark runs")
    parser.add_argument("--repeat", type=int, default=9, help="turns of each measurement; the best is printed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", choices=sorted(LANES), default="float32")
    options = parser.parse_args()
    print_machine()
    team = Team(options.threads, 1 if options.smoke else options.repeat)
    bench_assign(SMOKE_SHAPES if options.smoke else ASSIGN_SHAPES, options.dtype, team)
    bench_updates(SMOKE_SHAPES if options.smoke else UPDATE_SHAPES, options.dtype, team)
    bench_compile()


if __name__ == "__main__":
    main()
