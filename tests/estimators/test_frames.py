"""Frames of Dask and Spark, and arrays on their engines, give the bits of the same rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from pyspark.sql import SparkSession

from distclust import KMeans
from distclust.engines.protocol import EngineOptions
from distclust.engines.spark import SparkEngine


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(m, 0.5, (150, 4)) for m in (-3, 0, 3)])


@pytest.fixture(scope="module")
def expected(rows: np.ndarray) -> KMeans:
    return KMeans(4, random_state=0).fit(rows)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    engine = SparkEngine.open("spark", EngineOptions())
    try:
        yield SparkSession(engine.context)
    finally:
        engine.close()


def assert_same(km: KMeans, expected: KMeans) -> None:
    assert np.array_equal(km.cluster_centers_, expected.cluster_centers_)
    assert np.array_equal(km.labels_, expected.labels_)
    assert km.inertia_ == expected.inertia_


def test_an_array_on_dask(client: Client, rows: np.ndarray, expected: KMeans, tmp_path: Path) -> None:
    km = KMeans(4, random_state=0, engine=client, staging=str(tmp_path)).fit(rows)
    assert_same(km, expected)
    assert np.array_equal(km.predict(rows), expected.labels_), "a second staging beside the first"


def test_dask_arrays_and_data_frames(client: Client, rows: np.ndarray, expected: KMeans) -> None:
    assert_same(KMeans(4, random_state=0, engine=client).fit(da.from_array(rows, chunks=(100, 4))), expected)
    frame = dd.from_pandas(pd.DataFrame(rows, columns=list("abcd")), npartitions=3)
    assert_same(KMeans(4, random_state=0, engine=client).fit(frame, columns=list("abcd")), expected)


def test_spark_data_frames_and_arrays(session: SparkSession, rows: np.ndarray, expected: KMeans) -> None:
    values = [([float(v) for v in row],) for row in rows]
    frame = session.createDataFrame(values, "embedding array<double>").coalesce(1)
    km = KMeans(4, random_state=0, engine=session).fit(frame, column="embedding")
    assert_same(km, expected)
    assert_same(KMeans(4, random_state=0, engine=session).fit(rows), expected)
