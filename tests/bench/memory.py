"""Peak resident memory of ``distclust kmeans`` on 2 000 000 x 64 with ``--memory 256MB``, beyond the interpreter.

The interpreter is what a process of the same command holds before it touches rows: the peak of the same job on
1 000 rows, which loads the same libraries and compiles the same kernels.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from _common import mixture, parse_arguments, print_machine, print_table, watched, write_dataset

MEMORY_MB = 256


def peaks(data: Path, output: Path, engine: str, k: int) -> list[float]:
    """Run the command; return each python process's peak resident MB, the largest first."""
    command = [
        sys.executable,
        "-m",
        "distclust.cli.main",
        "kmeans",
        str(data),
        "--column",
        "embedding",
        "-k",
        str(k),
        "-o",
        str(output),
        "--engine",
        engine,
        "--memory",
        f"{MEMORY_MB}MB",
        "--max-iter",
        "5",
    ]
    return watched(command).peaks


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    print_machine()
    n, d, files, k = (20_000, 16, 4, 10) if arguments.smoke else (2_000_000, 64, 40, 100)
    engines = ("local[2]",) if arguments.smoke else ("local[2]", "dask")
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        small = write_dataset(mixture(1_000, d, k, seed=0), here / "small", 1)
        big = write_dataset(mixture(n, d, k, seed=1), here / "big", files)
        table = []
        for number, engine in enumerate(engines):
            base = peaks(small, here / f"out-small-{number}", engine, k)
            full = peaks(big, here / f"out-big-{number}", engine, k)
            table.append((engine, f"{base[0]:.0f}", f"{full[0]:.0f}", f"{full[0] - base[0]:.0f}", MEMORY_MB))
    print_table(("engine", "MB on 1 000 rows", f"MB on {n} rows", "difference", "limit"), table)


if __name__ == "__main__":
    main()
