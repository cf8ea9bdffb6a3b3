"""k-means with very many clusters: what two levels lose against flat k-means, and what they need.

First table: both ways on the same rows, at a k where flat is still possible. Second: two levels where it is not, each a
run of ``distclust kmeans --memory 2GB`` from Parquet to labels, with the peak of its resident memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import parse_arguments, print_machine, print_table, write_dataset
from kmeans_peers import low_rank

MEMORY = "2GB"


@dataclass(frozen=True)
class Outcome:
    """What a run of the command took and found."""

    summary: dict[str, Any]
    cpu: float
    peak_mb: float


def run(data: Path, output: Path, k: int, strategy: str) -> Outcome:
    """Run the command; read CPU time and peak memory from the process table when it ends."""
    command = [
        sys.executable, "-m", "distclust.cli.main", "kmeans", str(data), "--column", "embedding", "-k", str(k),
        "-o", str(output), "--strategy", strategy, "--engine", "local[2]", "--memory", MEMORY, "--json",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the job ended with code {process.returncode}")
        said.seek(0)
        summary = json.load(said)["summary"]
    print(f"  k = {k}, {strategy}: {summary['seconds']}", flush=True)
    return Outcome(summary, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    """Print the tables."""
    arguments = parse_arguments(__doc__ or "")
    print_machine()
    small, few, large, many = (500_000, (10_000,), 2_000_000, (100_000, 1_000_000))
    if arguments.smoke:
        small, few, large, many = 3_000, (100,), 3_000, (300,)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        data = write_dataset(low_rank(small, 64, 24, 0), here / "small", 8)
        loss = []
        for k in few:
            flat = run(data, here / f"flat-{k}", k, "flat")
            two = run(data, here / f"two-{k}", k, "two-level")
            loss.append((small, k, flat.cpu, two.cpu, f"{two.summary['inertia'] / flat.summary['inertia']:.4f}"))
        data = write_dataset(low_rank(large, 64, 24, 0), here / "large", 20)
        lines = []
        for k in many:
            two = run(data, here / f"many-{k}", k, "two-level")
            share = two.summary["label_exact_share"]
            lines.append(
                (large, k, two.summary["seconds"]["total"], two.cpu, f"{two.peak_mb:.0f}", f"{share:.3f}",
                 f"{two.summary['inertia']:.6g}")
            )  # fmt: skip
    print_table(("rows x 64", "k", "flat CPU s", "two-level CPU s", "inertia / flat"), loss)
    print_table(("rows x 64", "k", "wall s", "CPU s", "peak MB", "exact labels", "inertia"), lines)


if __name__ == "__main__":
    main()
