"""What Spark's error messages mean. Spark tells in text only why a job failed; the patterns are in one place."""

from __future__ import annotations

import logging
import re
from typing import Literal, NamedTuple

from distclust.errors import DistclustError, EngineLostError, UsageError

Kind = Literal["worker", "cancelled", "setup", "other"]

_FAILED_TASK = re.compile(
    r"Task (\d+) in stage [\d.]+ failed (\d+) times?, most recent failure: (?:Lost task [^)]*\) \([^)]*\): )?(.*)",
    re.DOTALL,
)
_LOST_WORKER = re.compile(
    r"ExecutorLostFailure|Python worker (?:exited unexpectedly|failed to connect back)|worker.{0,30}crashed|"
    r"Connection reset|Broken pipe|SocketException|executor .* (?:lost|decommission)",
    re.IGNORECASE,
)
_CANCELLED = re.compile(r"Job \d+ cancelled|OPERATION_CANCELED|was cancelled")
_SETUP = re.compile(
    r"PYTHON_VERSION_MISMATCH|Cannot run program|ModuleNotFoundError|ImportError|No module named|"
    r"Python in worker has different version"
)
_PYTHON_ERROR = re.compile(r"^((?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b|\[[A-Z_]+\]).*)$", re.MULTILINE)


class Abort(NamedTuple):
    """Why Spark gave up a job."""

    kind: Kind
    """``worker``: a worker or executor died; ``setup``: workers lack Python or packages."""
    task: int
    """Number of the task within the job."""
    failures: int
    """How often it failed."""
    reason: str
    """One line."""

    def error(self, where: str) -> DistclustError:
        """Return what the user should read, where another attempt makes no sense."""
        if self.kind == "setup":
            return UsageError(
                f"A Spark worker cannot run distclust: {self.reason}",
                where=where,
                do="Install the driver's Python version and distclust on all nodes, or name an interpreter that has "
                "them in PYSPARK_PYTHON.",
            )
        if self.kind == "cancelled":
            return EngineLostError("The Spark job was cancelled from outside.", where=where)
        return EngineLostError(f"Spark gave up: {self.reason}", where=where)


def read_abort(text: str) -> Abort:
    """Read the message of a failed job."""
    failed = _FAILED_TASK.search(text)
    task, failures, reason = (int(failed[1]), int(failed[2]), failed[3]) if failed else (0, 1, text)
    kind: Kind = "other"
    for name, pattern in (("setup", _SETUP), ("cancelled", _CANCELLED), ("worker", _LOST_WORKER)):
        if pattern.search(reason):
            kind = name  # type: ignore[assignment]
            break
    return Abort(kind, task, failures, _one_line(reason))


def _one_line(text: str) -> str:
    """Return the most telling line: the last of a Python traceback, else the first."""
    body = text.split("\nDriver stacktrace:")[0]
    told = [line for line in _PYTHON_ERROR.findall(body) if not line.startswith(("org.", "java."))]
    line = told[-1] if "Traceback" in body and told else body.strip().split("\n")[0]
    return re.sub(r"^(?:org|java)\.[\w.$]+: ", "", line).strip()[:500]


class QuietGateway(logging.Filter):
    """Drop what py4j logs, with stack traces, through the root logger when the JVM goes away."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep a record."""
        return not (record.module in ("java_gateway", "clientserver") and "sending command" in str(record.msg))
