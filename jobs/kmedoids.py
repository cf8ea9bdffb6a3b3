"""Submit a job of k-medoids: what ``distclust kmedoids`` does, as a file that a scheduler can start.

    spark-submit --master spark://host:7077 jobs/kmedoids.py DATA --column embedding -k 100 --engine spark -o OUT
    python jobs/kmedoids.py DATA --columns a,b,c --metric gower -k 20 --engine dask://host:8786 -o OUT

Arguments are those of ``distclust kmedoids``; exit codes are those of ``distclust``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from distclust.cli.main import main


def use_submitted_session() -> None:
    """Start the session that spark-submit has prepared; ``--engine spark`` then runs on it, master and settings too."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        builder = import_module("pyspark.sql").SparkSession.builder
        # A TCP connection between JVM and Python worker stalls for 40 ms a task.
        builder.config("spark.python.unix.domain.socket.enabled", "true").getOrCreate()


if __name__ == "__main__":
    use_submitted_session()
    sys.argv[1:1] = ["kmedoids"]
    main()
