"""Processor seconds of every pass of a fit, with bounds and without, on the same rows from the same first centres.

Seconds of all threads together, so that a busy machine matters less. Prints, per data set: the first pass, passes
2-10 and 11-25 as shares of it, and the whole fit with and without bounds. The goal: a pass after the tenth under 15 %
of the first on embeddings. ``--embeddings FILES`` adds rows of Parquet files that have a fixed-size list column
``embedding``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from glob import glob
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _common import mixture, print_machine, print_table

from distclust import KMeans
from distclust.engines.events import IterationEnded, StageStarted
from distclust.engines.open import open_engine
from distclust.engines.protocol import EngineOptions

PASSES = 25


def low_rank(n: int, d: int, rank: int) -> np.ndarray:
    """Return rows that lie near a subspace, as embeddings do."""
    rng = np.random.default_rng(7)
    rows = mixture(n, rank, 2000, seed=1) @ (rng.normal(size=(rank, d)) / np.sqrt(rank)).astype(np.float32)
    return rows + np.float32(0.05) * rng.standard_normal((n, d), dtype=np.float32)


def embeddings(pattern: str) -> np.ndarray:
    """Return the column ``embedding`` of Parquet files as float32."""
    columns = [pq.read_table(path, columns=["embedding"])["embedding"] for path in sorted(glob(pattern))]
    column = pa.chunked_array([chunk for c in columns for chunk in c.chunks])
    width = column.type.list_size
    return np.concatenate([c.flatten().to_numpy().reshape(-1, width) for c in column.chunks]).astype(np.float32)


def datasets(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], np.ndarray], int]]:
    """Yield names, rows and numbers of clusters."""
    if arguments.smoke:
        yield "2 000 x 64", lambda: low_rank(2000, 64, 8), 70
        return
    for k in (200, 1000) if arguments.embeddings else ():
        yield f"embeddings, k = {k}", lambda: embeddings(arguments.embeddings), k
    yield "200 000 x 384, low rank, k = 1000", lambda: low_rank(200_000, 384, 32), 1000
    yield "200 000 x 128, mixture, k = 1000", lambda: mixture(200_000, 128, 2000, seed=1), 1000
    yield "1 000 000 x 32, mixture, k = 256", lambda: mixture(1_000_000, 32, 512, seed=1), 256


def pass_seconds(X: np.ndarray, init: np.ndarray, algorithm: str) -> tuple[list[float], float]:
    """Return the processor seconds of every pass, and the inertia."""
    marks: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, IterationEnded) or (isinstance(event, StageStarted) and event.stage == "lloyd"):
            marks.append(time.process_time())

    with open_engine("local", EngineOptions(emit=note)) as engine:
        settings = {"max_iter": PASSES, "tol": 0, "rtol": 0, "algorithm": algorithm, "engine": engine}
        model = KMeans(len(init), init=init, **settings).fit(X)
    return [later - before for before, later in pairwise(marks)], model.inertia_


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that the benchmark runs")
    parser.add_argument("--repeat", type=int, default=3, help="fits; the median of each pass is printed")
    parser.add_argument("--embeddings", help="Parquet files to cluster as well")
    parser.add_argument("--every-pass", action="store_true", help="print the share of every pass too")
    arguments = parser.parse_args()
    print_machine()
    table = []
    for name, make, k in datasets(arguments):
        X = make()
        init = X[np.random.default_rng(0).choice(len(X), k, replace=False)].copy()
        medians: dict[str, list[float]] = {}
        inertias = set()
        for algorithm in ("auto", "lloyd"):
            runs = [pass_seconds(X, init, algorithm) for _ in range(arguments.repeat)]
            medians[algorithm] = [statistics.median(times) for times in zip(*(run[0] for run in runs), strict=True)]
            inertias |= {run[1] for run in runs}
        if len(inertias) != 1:
            raise SystemExit("bounds changed the result")
        auto, plain = medians["auto"], medians["lloyd"]
        first = auto[0]
        if arguments.every_pass:
            print(name, " ".join(f"{seconds / first:.0%}" for seconds in auto))
        shares = [f"{statistics.mean(part) / first:.0%}" for part in (auto[1:10], auto[10:] or auto[-1:])]
        table.append((name, first, *shares, sum(auto), sum(plain), sum(plain) / sum(auto)))
    print_table(("rows", "pass 1, s", "2-10", "11-25", "25 passes, s", "without bounds, s", "ratio"), table)


if __name__ == "__main__":
    main()
