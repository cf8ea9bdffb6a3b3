"""k-medoids of 1 000 000 x 64, k = 100: ``distclust kmedoids`` on every engine beside the kmedoids package's route.

The package has no way to all rows: it solves a sample's matrix (FasterPAM), then rows are assigned to its medoids. The
route is timed with scikit-learn's distances, for several sample sizes; ours reads the rows from Parquet and writes
labels, model and manifest. Loss is the sum of Euclidean distances over all rows. `kmedoids` is no dependency: install
it beside distclust to see its lines.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import Footprint, mixture, parse_arguments, print_machine, print_table, watched, write_dataset
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min

CHUNK = 50_000


def ours(data: Path, output: Path, engine: str, k: int, method: str) -> tuple[Footprint, dict[str, object]]:
    """Run the command; return what it took and its summary."""
    command = [sys.executable, "-m", "distclust.cli.main", "kmedoids", str(data), "--column", "embedding", "-k", str(k)]
    taken = watched([*command, "-o", str(output), "--engine", engine, "--method", method])
    return taken, json.loads((output / "manifest.json").read_text())["summary"]


def package_route(rows: np.ndarray, size: int, k: int) -> tuple[float, float, float]:
    """Solve a sample and assign all rows; return loss, wall and CPU seconds."""
    import kmedoids

    wall, cpu = time.perf_counter(), time.process_time()
    sample = rows[np.random.default_rng(0).choice(len(rows), size, replace=False)]
    matrix = pairwise_distances(sample).astype(np.float32, copy=False)
    medoids = sample[kmedoids.fasterpam(matrix, k, random_state=0, n_cpu=1).medoids]
    del matrix
    loss = 0.0
    for start in range(0, len(rows), CHUNK):
        _, distances = pairwise_distances_argmin_min(rows[start : start + CHUNK], medoids)
        loss += float(distances.sum(dtype=np.float64))
    return loss, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the tables."""
    arguments = parse_arguments(__doc__ or "")
    print_machine("scikit-learn")
    n, d, k = (20_000, 16, 10) if arguments.smoke else (1_000_000, 64, 100)
    sizes = (1_000, 2_000) if arguments.smoke else (5_000, 10_000, 20_000)
    engines = ("local[2]",) if arguments.smoke else ("local[2]", "dask", "spark")
    rows = mixture(n, d, 150, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        data = write_dataset(rows, here / "data", 4 if arguments.smoke else 20, row_group=50_000)
        small = write_dataset(rows[:2000], here / "small", 1)
        for method in ("auto", "clara", "onebatch"):  # compile the kernels
            ours(small, here / f"warm-{method}", "local[2]", 2, method)
        known = importlib.util.find_spec("kmedoids") is not None
        losses = [package_route(rows, size, k) for size in sizes] if known else []
        reference = losses[-1][0] if known else float("nan")
        table = [
            (f"kmedoids, sample of {size}", f"{loss:.6g}", f"{loss / reference:.4f}", f"{wall:.1f}", f"{cpu:.1f}", "")
            for size, (loss, wall, cpu) in zip(sizes, losses, strict=False)
        ]
        del rows
        for number, (engine, method) in enumerate([(e, "auto") for e in engines] + [("local[2]", "clara")]):
            taken, summary = ours(data, here / f"out-{number}", engine, k, method)
            loss = float(summary["loss"])  # type: ignore[arg-type]
            peaks = " + ".join(f"{peak:.0f}" for peak in taken.peaks[:3])
            name = f"{engine}, {summary['method']}"
            table.append(
                (name, f"{loss:.6g}", f"{loss / reference:.4f}", f"{taken.wall:.1f}", f"{taken.cpu:.1f}", peaks)
            )
            if method == "auto":
                print(engine, summary["seconds"])
    print_table(("route", "loss", f"of that of {sizes[-1]}", "wall s", "CPU s", "peak MB of processes"), table)


if __name__ == "__main__":
    main()
