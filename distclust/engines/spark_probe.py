"""What Spark's workers are: asked once when an engine opens, so that a wrong set-up shows before any work."""

from __future__ import annotations

import os
import pickle
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numba

from distclust.engines.code import code_version
from distclust.errors import UsageError


@dataclass(frozen=True)
class WorkerInfo:
    """What one worker process says of itself."""

    host: str
    interpreter: str
    python: str
    """Version."""
    sees_marker: bool
    """A file of the driver is there too."""
    problem: str = ""
    """Why distclust cannot be imported; then the rest is empty."""
    distclust: str = ""
    """`code_version`."""
    numba: str = ""
    memory: int = 0
    """Bytes that processes of its node may use."""


def make_probe(marker: str) -> Callable[[Iterable[Any]], Iterator[bytes]]:
    """Return a function that yields what a worker is, as a pickled dict for `read_infos`.

    A nested function travels by value, so it runs, and can tell why, where distclust cannot be imported.
    """

    def probe(rows: Iterable[Any]) -> Iterator[bytes]:
        import os
        import pickle
        import platform
        import sys

        for _ in rows:
            pass
        facts: dict[str, Any] = {
            "host": platform.node(),
            "interpreter": sys.executable,
            "python": platform.python_version(),
            "sees_marker": os.path.exists(marker),
        }
        try:
            import numba

            import distclust.engines.spark_worker  # noqa: F401  (what the tasks will need)
            from distclust.engines.code import code_version
            from distclust.engines.local import usable_memory

            facts |= {"distclust": code_version(), "numba": numba.__version__, "memory": usable_memory()}
        except Exception as error:
            facts["problem"] = f"{type(error).__name__}: {error}"
        yield pickle.dumps(facts)

    return probe


def read_infos(found: Iterable[bytes], where: str) -> list[WorkerInfo]:
    """Return what probes yielded, if all workers fit the driver.

    Raises
    ------
    UsageError
        A worker cannot import distclust, or has another Python, numba or distclust than the driver.
    """
    infos = [WorkerInfo(**pickle.loads(facts)) for facts in found]
    driver = {"Python": platform.python_version(), "numba": numba.__version__, "distclust": code_version()}
    do = (
        "Install the same Python, numba and distclust on all nodes, or name an interpreter that has them, at a path "
        "that exists on all nodes, in PYSPARK_PYTHON."
    )
    for info in infos:
        place = f"{where}, {info.interpreter} on {info.host}"
        if info.problem:
            raise UsageError(f"the worker cannot import distclust: {info.problem}.", where=place, do=do)
        worker = {"Python": info.python, "numba": info.numba, "distclust": info.distclust}
        for what, version in worker.items():
            if version != driver[what]:
                raise UsageError(
                    f"the worker has {what} {version}, the driver {driver[what]}; they must be equal.",
                    where=place,
                    do=do,
                )
    return infos


def memory_per_slot(infos: Sequence[WorkerInfo]) -> int:
    """Return the bytes that a task may use on the tightest node: its memory shared out among its slots."""
    on_host = Counter(info.host for info in infos)
    return min(info.memory // on_host[info.host] for info in infos)


@contextmanager
def visible_marker() -> Iterator[str]:
    """Give the path of a file in the working directory, where relative paths lead; an empty one if it is read-only."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=".distclust-", dir=os.getcwd())
    except OSError:
        yield ""
        return
    os.close(descriptor)
    try:
        yield path
    finally:
        os.unlink(path)
