"""Spark contexts: starting them, checking that their workers fit the driver, and reading what they complain about."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway

from distclust.engines.java import ensure_java
from distclust.engines.local import usable_memory
from distclust.errors import EngineLostError, UsageError
from distclust.kernels.slices import usable_cores

CONNECT_SECONDS = 10
"""How long to try to reach a master. Spark itself would try for a minute, and then say little."""

STOP_SECONDS = 30
"""How long the JVM may take to end."""

SPARK_ERRORS = (Py4JError, PySparkException, OSError, EOFError)
"""What a call into the JVM raises when a job fails or the JVM is gone."""

LOCAL_SOCKETS = "spark.python.unix.domain.socket.enabled"
"""Without it the TCP connection between JVM and worker stalls for 40 ms a task."""

_EVERYWHERE = {
    "spark.app.name": "distclust",
    "spark.ui.showConsoleProgress": "false",
    LOCAL_SOCKETS: "true",
    "spark.python.worker.reuse": "true",
    # How long a cancelled task may go on before its process is killed; tasks have nothing to tidy up.
    "spark.python.task.killTimeout": "300ms",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.driver.maxResultSize": "0",
}
# The JVM only passes messages: a quick start counts for more than quick code.
_QUICK_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
_ON_LOOPBACK = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": _QUICK_JVM,
    "spark.executor.extraJavaOptions": _QUICK_JVM,
}
_LOG = "jvm.log"
_DEFAULT_PORT = {"spark": "", "sc": "15002"}


@dataclass
class Session:
    """A Spark context and what the engine knows of it."""

    context: SparkContext
    same_machine: bool
    """Driver and workers share one machine."""
    owned: bool = False
    """The engine started it, and stops it."""
    scratch: Path | None = None
    """Directory of the JVM's log, if the engine started the JVM."""

    @property
    def alive(self) -> bool:
        """Whether the JVM answers and the context was not stopped."""
        gateway, context = SparkContext._gateway, self.context
        if gateway is None or context._jsc is None:
            return False
        process = getattr(gateway, "proc", None)
        if process is not None and process.poll() is not None:
            return False
        try:
            return not context._jsc.sc().isStopped()
        except SPARK_ERRORS:
            return False

    def last_words(self) -> str:
        """Return a remark with what the JVM said of memory, if it did."""
        lines = _tail(self.scratch / _LOG) if self.scratch is not None else ""
        return f" ({lines})" if "OutOfMemoryError" in lines else ""

    def stop(self) -> None:
        """Stop the context and the JVM, where the engine started them."""
        if not self.owned:
            return
        if not self.alive:
            self.context._jsc = None  # stop() would first call into the JVM, fail, and leave the rest undone
        with suppress(*SPARK_ERRORS):
            self.context.stop()
        if self.scratch is not None:
            _stop_gateway()
            sys.path[:] = [path for path in sys.path if not path.startswith(str(self.scratch))]
            shutil.rmtree(self.scratch, ignore_errors=True)


def wrap(context: SparkContext) -> Session:
    """Use a context of the caller's."""
    return Session(context, same_machine=context.master.startswith("local"))


def start(master: str | None, max_failures: int) -> Session:
    """Start a Spark context.

    Parameters
    ----------
    master : str or None
        As Spark names it; None for this machine's cores. If a context is active in this process already, and the
        master fits, that one is used and not stopped in the end: a process can have no second one.
    max_failures : int
        How often a task may fail.

    Raises
    ------
    UsageError
        A context with another master is active.
    EngineLostError
        No master answers, or the JVM did not start.
    MissingExtraError
        There is no Java.
    """
    active = SparkContext._active_spark_context
    if active is not None:
        if master not in (None, active.master):
            raise UsageError(
                f"A Spark session on {active.master} is active in this process, which cannot have a second one.",
                where=str(master),
                do="Stop that session, or pass it as the engine.",
            )
        return wrap(active)
    master = master or f"local[{usable_cores()},{max_failures}]"
    hosts = check_address(master)
    embedded = master.startswith("local")
    loopback = embedded or (bool(hosts) and all(_is_loopback(host) for host in hosts))
    settings = {**_EVERYWHERE, "spark.master": master, "spark.task.maxFailures": str(max_failures)}
    environment = {"JAVA_HOME": str(ensure_java())}
    if loopback:
        settings |= _ON_LOOPBACK
        # Workers of this machine import what the driver imports, from wherever the driver has it.
        settings["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment |= {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    else:
        environment["PYSPARK_PYTHON"] = os.environ.get("PYSPARK_PYTHON", sys.executable)
    if embedded:
        settings["spark.driver.memory"] = f"{min(max(usable_memory() >> 23, 1024), 8192)}m"  # an eighth, in MB
    with _environment(environment):
        return _launch(master, settings, same_machine=loopback)


def check_address(master: str) -> list[str]:
    """Return the hosts that a master names; one of them must take connections.

    Raises
    ------
    UsageError
        An address without a port.
    EngineLostError
        Nobody answers.
    """
    scheme, _, rest = master.partition("://")
    if scheme not in _DEFAULT_PORT:
        return []
    addresses = [_host_and_port(address, scheme, master) for address in re.split(r"[/;?]", rest)[0].split(",")]
    complaints = []
    for address in addresses:
        try:
            socket.create_connection(address, CONNECT_SECONDS).close()
        except OSError as error:
            complaints.append(str(error))
        else:
            return [host for host, _ in addresses]
    raise EngineLostError(
        f"No Spark server answers at {master}: {complaints[0]}.", do="Start it, or check the address."
    )


def _host_and_port(address: str, scheme: str, master: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^]]+\]|[^:]+)(?::(\d+))?", address)
    port = match and (match[2] or _DEFAULT_PORT[scheme])
    if not match or not port:
        raise UsageError(f"{address!r} is no host:port.", where=master)
    return match[1].strip("[]"), int(port)


def _launch(master: str, settings: dict[str, str], *, same_machine: bool) -> Session:
    scratch = None
    interrupt = _main_thread_handler()
    try:
        if SparkContext._gateway is None:
            scratch = Path(tempfile.mkdtemp(prefix="distclust-spark-"))
            if same_machine:
                settings = {**settings, **_inside(scratch)}
            _start_gateway(settings, scratch / _LOG)
        conf = SparkConf()
        for key, value in settings.items():
            conf.set(key, value)
        context = SparkContext(conf=conf)
        context.setLogLevel("ERROR")
        # It prints a stack trace when the JVM goes away; the engine says that better.
        context._accumulatorServer.handle_error = lambda *_: None
    except BaseException as error:
        reason = _tail(scratch / _LOG) if scratch else str(error)
        if scratch is not None:
            _stop_gateway()
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, SPARK_ERRORS):
            raise EngineLostError(f"Spark did not start: {reason}", where=master) from error
        raise
    finally:
        if interrupt is not None:  # Spark's own would kill the jobs before the run has a say
            signal.signal(signal.SIGINT, interrupt)
    return Session(context, same_machine, owned=True, scratch=scratch)


def _inside(scratch: Path) -> dict[str, str]:
    """Return settings that keep the JVM's temporary files in a directory, which outlives it however it ends."""
    settings = {"spark.local.dir": str(scratch)}
    # The JVM makes its sockets there, and the path of a socket may have 104 characters.
    if len(str(scratch)) <= 60 and " " not in str(scratch):
        settings["spark.driver.extraJavaOptions"] = f"{_QUICK_JVM} -Djava.io.tmpdir={scratch}"
    return settings


def _start_gateway(settings: dict[str, str], log: Path) -> None:
    """Start the JVM with its console in a file; what matters in it comes back in errors."""
    conf = SparkConf(loadDefaults=False, _jvm=None)
    for key, value in settings.items():
        conf.set(key, value)
    with log.open("wb") as file, warnings.catch_warnings():
        # From Python 3.12 on, a fork with threads around warns; this one only calls signal() before it executes.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        gateway = launch_gateway(conf, {"stdout": file, "stderr": file})
    SparkContext._gateway = gateway
    SparkContext._jvm = gateway.jvm


def _stop_gateway() -> None:
    """End the JVM, so that nothing is left of an engine, and the next one can start another."""
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    if gateway is None:
        return
    with suppress(*SPARK_ERRORS):
        gateway.shutdown()
    if gateway.proc is not None:
        gateway.proc.stdin.close()  # the JVM ends when its input does
        try:
            gateway.proc.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
            gateway.proc.wait()


def _main_thread_handler() -> Any:
    if threading.current_thread() is threading.main_thread():
        return signal.getsignal(signal.SIGINT)
    return None


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _tail(log: Path) -> str:
    """Return the last words of a log that are no stack trace and no routine."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    routine = re.compile(r"\t|[\d/]+ [\d:]+ (INFO|WARN) |WARNING:|Using ")
    words = [line for line in lines if line.strip() and not routine.match(line)]
    return " | ".join(line.removeprefix('Exception in thread "main" ') for line in words[-2:])
