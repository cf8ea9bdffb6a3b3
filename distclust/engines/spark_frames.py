"""Spark data frames, written once as Parquet by the executors that hold them."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow.parquet as pq
from pyspark.errors import PySparkException
from pyspark.sql import Observation, functions

from distclust.data.storage import open_storage
from distclust.engines.spark_failures import read_abort
from distclust.errors import StorageError, UsageError

_COUNT = "n_rows"


def stage_spark(frame: Any, directory: str) -> None:
    """Write a Spark data frame as Parquet, one file per partition; file names sort in partition order.

    Parameters
    ----------
    frame : pyspark.sql.DataFrame
        Of a session or of Spark Connect. MLlib's vectors become lists of float64.
    directory : str
        Path or URI that the executors and the driver see; it may exist, empty.

    Raises
    ------
    UsageError
        There are files in the directory already, or no columns to write.
    StorageError
        Spark cannot write there, or the driver does not see all that was written.
    """
    storage = open_storage(directory)
    if storage.list():
        raise UsageError("the directory for staging is not empty.", where=storage.where(), do="Choose an empty one.")
    counted = Observation()
    target = f"file://{storage.uri}" if storage.is_local else storage.uri
    try:
        frame = _without_vectors(frame).observe(counted, functions.count(functions.lit(1)).alias(_COUNT))
        frame.write.mode("append").parquet(target)
        written = int(counted.get[_COUNT])
    except PySparkException as error:
        raise StorageError(
            f"Spark could not write the data frame: {read_abort(str(error)).reason}", where=storage.where()
        ) from error
    seen = sum(_n_rows(storage, file.path) for file in storage.list() if file.path.endswith(".parquet"))
    if seen != written:
        raise StorageError(
            f"Spark wrote {written} rows, the driver sees {seen} of them.",
            where=storage.where(),
            do="Choose a directory that the driver and all executors share.",
        )


def _n_rows(storage: Any, path: str) -> int:
    with storage.open_input(path) as file:
        return int(pq.read_metadata(file).num_rows)


def _without_vectors(frame: Any) -> Any:
    vectors = [field.name for field in frame.schema.fields if type(field.dataType).__name__ == "VectorUDT"]
    if vectors:
        # Late: it loads all of MLlib's Python side, and pandas.
        to_array = importlib.import_module("pyspark.ml.functions").vector_to_array
        frame = frame.withColumns({name: to_array(frame[name]) for name in vectors})
    return frame
