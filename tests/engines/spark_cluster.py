"""Spark servers on the loopback addresses of this machine, for tests; stopped by their process ids."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark

from distclust.engines.java import ensure_java

SPARK_HOME = Path(pyspark.__file__).parent
QUICK_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"


@contextmanager
def standalone_cluster(worker_hosts=("127.0.0.1", "127.0.0.2"), cores=1):
    """Start a master and a worker per host; yield the master's URL and the workers' processes."""
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        master_port = free_port()
        stack.enter_context(
            _server(
                scratch,
                "master",
                "127.0.0.1",
                "org.apache.spark.deploy.master.Master",
                "--host",
                "127.0.0.1",
                "--port",
                master_port,
                "--webui-port",
                free_port(),
            )
        )
        wait_for_port("127.0.0.1", master_port, scratch / "master.log")
        workers = []
        for number, host in enumerate(worker_hosts):
            port = free_port(host)
            workers.append(
                (
                    host,
                    port,
                    stack.enter_context(
                        _server(
                            scratch,
                            f"worker-{number}",
                            host,
                            "org.apache.spark.deploy.worker.Worker",
                            "--host",
                            host,
                            "--port",
                            port,
                            "--webui-port",
                            free_port(),
                            "--cores",
                            cores,
                            "--memory",
                            "1g",
                            "--work-dir",
                            scratch / f"work-{number}",
                            f"spark://127.0.0.1:{master_port}",
                        )
                    ),
                )
            )
        for number, (host, port, _) in enumerate(workers):
            wait_for_port(host, port, scratch / f"worker-{number}.log")
            wait_for_text(scratch / f"worker-{number}.log", "Successfully registered with master")
        yield f"spark://127.0.0.1:{master_port}", [process for _, _, process in workers]


@contextmanager
def connect_server(slots=2, max_failures=4):
    """Start a Spark Connect server on an embedded Spark; yield its URL and its process."""
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        port = free_port()
        settings = {
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": port,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.extraJavaOptions": QUICK_JVM,
            "spark.ui.enabled": "false",
            "spark.python.unix.domain.socket.enabled": "true",
            "spark.local.dir": scratch,
            "spark.sql.warehouse.dir": scratch / "warehouse",
        }
        arguments = [text for key, value in settings.items() for text in ("--conf", f"{key}={value}")]
        process = stack.enter_context(
            _server(
                scratch,
                "connect",
                "127.0.0.1",
                "org.apache.spark.deploy.SparkSubmit",
                "--master",
                f"local[{slots},{max_failures}]",
                *arguments,
                "--class",
                "org.apache.spark.sql.connect.service.SparkConnectServer",
                "spark-internal",
            )
        )
        wait_for_port("127.0.0.1", port, scratch / "connect.log")
        yield f"sc://127.0.0.1:{port}", process


def free_port(host="127.0.0.1"):
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def wait_for_port(host, port, log, seconds=90):
    """Wait until something listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nothing listens on {host}:{port}:\n{log.read_text()[-3000:]}")


def wait_for_text(log, text, seconds=90):
    """Wait until a log has a text."""
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {text!r} in the log:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)


@contextmanager
def _scratch():
    # Not pytest's: the path of a Unix socket may have 108 characters only.
    path = tempfile.mkdtemp(prefix="spark-test-")
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _server(scratch, name, host, *command):
    environment = {
        **os.environ,
        "JAVA_HOME": str(ensure_java()),
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": host,
        "SPARK_DAEMON_MEMORY": "512m",
        "SPARK_DAEMON_JAVA_OPTS": QUICK_JVM,
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    with (scratch / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [SPARK_HOME / "bin" / "spark-class", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=scratch,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
