"""What benchmarks share: arguments, the machine's line, data, tables, peak memory."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of ``--smoke`` (tiny sizes, to see that it runs) and ``--repeat``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that the benchmark runs")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each measurement; the median is printed")
    return parser


def parse_arguments(description: str) -> argparse.Namespace:
    """Read the arguments that all benchmarks have."""
    return make_parser(description).parse_args()


def print_machine(*packages: str) -> None:
    """Print date, processor, cores, load and versions: without them a figure means nothing."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("distclust", "numpy", "numba", *packages))
    print(f"{time.strftime('%Y-%m-%d')}, {cpu}, {len(os.sched_getaffinity(0))} cores, load {load:.1f}; {versions}")


def mixture(n: int, d: int, components: int, seed: int, *, spread: float = 0.7) -> np.ndarray:
    """Return float32 rows of a mixture of round Gaussians."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(components, d)).astype(np.float32)
    rows = rng.standard_normal((n, d), dtype=np.float32) * np.float32(spread)
    rows += centers[rng.integers(0, components, n)]
    return rows


def write_dataset(rows: np.ndarray, directory: Path, files: int, *, row_group: int = 10_000) -> Path:
    """Write rows as Parquet files of a fixed-size list column ``embedding``."""
    directory.mkdir(parents=True, exist_ok=True)
    cuts = np.linspace(0, len(rows), files + 1).astype(int)
    for i, (start, stop) in enumerate(pairwise(cuts)):
        flat = pa.array(rows[start:stop].reshape(-1))
        table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})
        pq.write_table(table, directory / f"part-{i:05d}.parquet", row_group_size=row_group, compression="none")
    return directory


def median_seconds(run: Callable[[], object], repeat: int) -> float:
    """Return the median wall time of ``repeat`` calls."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@dataclass(frozen=True)
class Footprint:
    """What a command took.

    Attributes
    ----------
    peaks : list of float
        Peak resident MB of each python process, the largest first.
    wall, cpu : float
        Seconds; processor time of the processes that were waited for: what a JVM or a daemon started may be missing.
    """

    peaks: list[float]
    wall: float
    cpu: float


def watched(command: Sequence[str]) -> Footprint:
    """Run a command to its end and watch its processes; ends this program if it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen: dict[int, float] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                try:
                    if "python" in member.name():
                        seen[member.pid] = max(seen.get(member.pid, 0.0), member.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
            time.sleep(0.01)

    def guarded() -> None:
        try:
            watch()
        except psutil.NoSuchProcess:
            return

    watcher = threading.Thread(target=guarded, daemon=True)
    watcher.start()
    code = process.wait()
    stop.set()
    watcher.join()
    if code:
        raise SystemExit(f"the job ended with code {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Footprint(sorted(seen.values(), reverse=True), time.perf_counter() - started, cpu)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    cells = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(len(h), *(len(row[i]) for row in cells)) for i, h in enumerate(header)]
    for line in [list(header), ["-" * w for w in widths], *cells]:
        print("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |")
