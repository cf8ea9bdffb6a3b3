"""What the files in ``jobs/`` do: run one command, on the session that spark-submit has prepared."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from distclust.cli.main import main


def submit(command: str) -> None:
    """Run a command with the arguments of this process; ends the process with the command's exit code."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        # Started here, the session has the master and settings of spark-submit, and --engine spark runs on it.
        builder = import_module("pyspark.sql").SparkSession.builder
        # A TCP connection between JVM and Python worker stalls for 40 ms a task.
        builder.config("spark.python.unix.domain.socket.enabled", "true").getOrCreate()
    sys.argv[1:1] = [command]
    main()
