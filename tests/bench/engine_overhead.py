"""What an engine adds to an iteration: 16 partitions of 10 000 x 128, k = 100, milliseconds beyond local.

The goals: under 60 ms for Dask, under 120 ms for Spark, both embedded with two workers.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import mixture, parse_arguments, print_machine, print_table, write_dataset

from distclust.algorithms.kmeans import fit_kmeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.data.sources import open_source
from distclust.engines.open import open_engine
from distclust.ops.profile import plan, prepare

GOALS = {"local[2]": 0.0, "dask": 60.0, "spark": 120.0}


def iteration_ms(engine_name: str, data: Path, init: np.ndarray, passes: int) -> tuple[float, float, str]:
    """Return median milliseconds of a later pass, seconds to open the engine, and the digest of the centres."""
    started = time.perf_counter()
    engine = open_engine(engine_name)
    opened = time.perf_counter() - started
    try:
        source = open_source(data, column="embedding")
        prepared = prepare(engine, source, plan(engine, source, target_bytes=10_000 * 128 * 4))
        config = KMeansConfig(n_clusters=len(init), init=init, max_iter=passes, tol=0, rtol=0)
        result = fit_kmeans(engine, prepared, config)
    finally:
        engine.close()
    return statistics.median(entry.seconds for entry in result.history[2:]) * 1e3, opened, result.centers.tag


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    print_machine("distributed", "pyspark")
    partitions, rows, d, k, passes = (4, 500, 16, 5, 5) if arguments.smoke else (16, 10_000, 128, 100, 22)
    X = mixture(partitions * rows, d, 2 * k, seed=1)
    init = X[np.random.default_rng(0).choice(len(X), k, replace=False)].copy()
    with tempfile.TemporaryDirectory() as scratch:
        data = write_dataset(X, Path(scratch) / "data", partitions)
        table, local, tags = [], 0.0, set()
        for engine, goal in GOALS.items():
            ms, opened, tag = iteration_ms(engine, data, init, passes)
            tags.add(tag)
            if engine.startswith("local"):
                local = ms
            table.append((engine, opened, ms, ms - local, goal))
    print_table(("engine", "s to open", "ms a pass", "ms beyond local", "goal"), table)
    if len(tags) != 1:
        raise SystemExit("the engines do not agree on the centres")


if __name__ == "__main__":
    main()
