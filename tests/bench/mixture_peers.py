"""One pass of expectation and maximisation beside scikit-learn and Spark MLlib: full covariances, same rows and cores.

A pass costs what a fit of 1 + m passes takes beyond one of a single pass. Seconds are of processors, not of clocks:
those of this process and of its children, Spark's Java among them, so that a busy machine changes the ratios little.
All begin at the same partition by k-means, the default of scikit-learn and ours, but MLlib, which draws its own start.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from _common import mixture, parse_arguments, print_machine, print_table, write_dataset
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitLearn

from distclust import GaussianMixture
from distclust.engines.java import ensure_java

Fit = Callable[[int], object]


def processor_seconds() -> float:
    """Return the processor time of this process and all that it started and that still runs."""
    me = psutil.Process()
    times = [process.cpu_times() for process in [me, *me.children(recursive=True)]]
    return sum(t.user + t.system for t in times)


def pass_seconds(fit: Fit, passes: int) -> tuple[float, float]:
    """Return processor and wall seconds of one pass."""
    fit(1)  # compiles, and fills caches
    found = []
    for count in (1, 1 + passes):
        before, began = processor_seconds(), time.perf_counter()
        fit(count)
        found.append((processor_seconds() - before, time.perf_counter() - began))
    return (found[1][0] - found[0][0]) / passes, (found[1][1] - found[0][1]) / passes


def in_memory(model: type, X: np.ndarray, k: int, start: dict[str, np.ndarray]) -> Fit:
    """Return the fit of a model with scikit-learn's interface."""
    return lambda passes: model(k, max_iter=passes, tol=0.0, **start).fit(X)


def partition_start(X: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return weights, means and precisions of the clusters of k-means."""
    labels = KMeans(k, n_init=1, random_state=0).fit_predict(X)
    clusters = [X[labels == cluster] for cluster in range(k)]
    return {
        "weights_init": np.array([len(rows) for rows in clusters]) / len(X),
        "means_init": np.array([rows.mean(axis=0) for rows in clusters]),
        "precisions_init": np.array([np.linalg.inv(np.cov(rows.T) + 1e-6 * np.eye(X.shape[1])) for rows in clusters]),
    }


def spark_mllib(X: np.ndarray, k: int, directory: str) -> Fit:
    """Return the fit of MLlib's GaussianMixture, rows cached as its vectors."""
    os.environ["JAVA_HOME"], os.environ["PYSPARK_PYTHON"] = str(ensure_java()), sys.executable
    from pyspark.ml.clustering import GaussianMixture as MLlib
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import SparkSession

    cores = len(os.sched_getaffinity(0))
    settings = {"spark.driver.memory": "3g", "spark.ui.enabled": "false", "spark.local.dir": directory}
    builder = SparkSession.builder.master(f"local[{cores}]").appName("peer")
    for key, value in (settings | {"spark.driver.host": "127.0.0.1", "spark.ui.showConsoleProgress": "false"}).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    path = write_dataset(X, Path(directory) / "rows", 4)
    rows = session.read.parquet(str(path)).select(array_to_vector("embedding").alias("features")).cache()
    rows.count()
    return lambda passes: MLlib(k=k, maxIter=passes, tol=0.0, seed=1).fit(rows)


def compare(n: int, d: int, k: int, passes: int) -> list[tuple[object, ...]]:
    """Return the lines of one dataset."""
    X = mixture(n, d, k, 0).astype(np.float64)
    start = partition_start(X, k)
    found: dict[str, tuple[float, float]] = {}

    def measure(who: str, fit: Fit, count: int) -> None:
        found[who] = pass_seconds(fit, count)
        print(f"{who}: {found[who][0]:.3g} processor seconds a pass", flush=True)

    measure("distclust", in_memory(GaussianMixture, X, k, start), passes)
    measure("scikit-learn", in_memory(ScikitLearn, X, k, start), passes)
    if importlib.util.find_spec("pyspark") is None:
        print("Spark MLlib: package 'pyspark' is not installed, left out")
    else:
        with tempfile.TemporaryDirectory() as directory:
            measure("Spark MLlib", spark_mllib(X.astype(np.float32), k, directory), 1)
    ours = max(found["distclust"][0], 1e-6)  # a clock of 10 ms may see nothing of tiny sizes
    name = f"{n} x {d}, k = {k}"
    return [(name, who, cpu, wall, cpu / ours) for who, (cpu, wall) in found.items()]


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print_machine("scikit-learn")
    lines = compare(5000, 16, 4, 2) if arguments.smoke else compare(500_000, 32, 16, 4)
    print_table(("rows", "who", "processor s a pass", "wall s a pass", "times ours"), lines)


if __name__ == "__main__":
    main()
