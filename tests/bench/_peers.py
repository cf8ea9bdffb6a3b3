"""Peers that are systems of their own, as functions of the benchmarks: ``fit(X, k) -> centers``.

Each takes float32 rows [n, d] and k, and returns centres [k, d]. A function's first call for an array also starts its
engine and hands it the rows; later calls for the same array only fit. So the second and later calls are what to time.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Fit = Callable[[np.ndarray, int], np.ndarray]

ITERATIONS = 25
PARTS = 8
"""Partitions that the rows are handed over in: four for each of two cores."""


def spark_mllib(X: np.ndarray, k: int) -> np.ndarray:
    """Run Spark MLlib's KMeans: k-means||, 25 iterations, its own tolerance, rows in memory as MLlib's vectors.

    On ``local[2]``, with a JVM whose compiler is not held back. Where the Java runtime lacks the vector module,
    MLlib multiplies without vector instructions.
    """
    from pyspark.ml.clustering import KMeans

    rows = _in_spark(_Held(X))
    model = KMeans(k=k, maxIter=ITERATIONS, initMode="k-means||", seed=0, featuresCol="v").fit(rows)
    return np.asarray(model.clusterCenters(), dtype=np.float32)


def dask_ml(X: np.ndarray, k: int) -> np.ndarray:
    """Run dask-ml's KMeans: k-means||, 25 iterations, on Dask's threads."""
    from dask_ml.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = KMeans(k, init="k-means||", max_iter=ITERATIONS, random_state=0).fit(_in_dask(_Held(X)))
    return np.asarray(model.cluster_centers_)


PEERS: dict[str, tuple[str, Fit]] = {
    "Spark MLlib": ("pyspark", spark_mllib),
    "dask-ml": ("dask_ml", dask_ml),
}
"""Name, package that it needs, function."""


class _Held:
    """An array as a key of a cache: equal if it is the same memory."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X

    def __hash__(self) -> int:
        return hash((self.X.ctypes.data, self.X.shape))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.X is other.X


@functools.lru_cache(maxsize=1)
def _in_dask(held: _Held) -> Any:
    import dask.array as da

    return da.from_array(held.X, chunks=(-(-len(held.X) // PARTS), held.X.shape[1])).persist(scheduler="threads")


@functools.lru_cache(maxsize=1)
def _in_spark(held: _Held) -> Any:
    from pyspark.ml.functions import array_to_vector

    spark = _session()
    spark.catalog.clearCache()
    column = pa.FixedSizeListArray.from_arrays(pa.array(held.X.reshape(-1)), held.X.shape[1])
    path = Path(_directory().name) / f"{id(held.X)}.parquet"
    pq.write_table(pa.table({"v": column}), path, row_group_size=-(-len(held.X) // PARTS), compression="none")
    rows = spark.read.parquet(str(path)).select(array_to_vector("v").alias("v")).repartition(PARTS).cache()
    rows.count()
    return rows


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="distclust-bench-")


@functools.cache
def _session() -> Any:
    from pyspark.sql import SparkSession

    from distclust.engines.java import ensure_java

    os.environ["JAVA_HOME"] = str(ensure_java())
    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.driver.memory": "4g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": _directory().name,
        "spark.sql.warehouse.dir": f"{_directory().name}/warehouse",
    }
    builder = SparkSession.builder.master("local[2]").appName("peer")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    atexit.register(_stop, session)
    return session


def _stop(session: Any) -> None:
    with contextlib.suppress(OSError):  # its virtual machine may be that of our engine, and gone with it
        session.stop()
