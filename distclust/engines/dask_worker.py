"""What the Dask engine runs on workers and on the scheduler."""

from __future__ import annotations

import pickle
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from distributed import Scheduler, Worker

from distclust.data.cache import node_cache
from distclust.data.node import NodeConfig
from distclust.engines.code import code_version
from distclust.engines.local import usable_memory
from distclust.engines.task import Task, TaskOutcome, run_task

_KEPT_VALUES = 2
_values: OrderedDict[str, Any] = OrderedDict()
_values_lock = Lock()
_abandoned: deque[str] = deque(maxlen=64)


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself."""

    version: str
    threads: int
    host: str
    memory: int
    """Bytes that its node has."""
    limit: int | None
    """Bytes above which Dask restarts it."""
    sees_driver_paths: bool


def probe(driver_directory: tuple[str, int, int], dask_worker: Worker) -> WorkerInfo:
    """Describe this worker."""
    try:
        same = path_identity(Path(driver_directory[0])) == driver_directory
    except OSError:
        same = False
    limit = dask_worker.memory_manager.memory_limit
    return WorkerInfo(code_version(), dask_worker.state.nthreads, dask_worker.ip, usable_memory(), limit, same)


def path_identity(path: Path) -> tuple[str, int, int]:
    """Name a directory so that another machine can tell whether it sees the same one."""
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_mtime_ns


def carry(blob: bytes) -> bytes:
    """Hold a large value as a task's result."""
    return blob


def run_on_worker(task: Task, token: str, blob: bytes, attempt: int, name: str) -> TaskOutcome:
    """Run a task of job ``name`` with the value pickled in ``blob``."""
    return run_task(task, _load(token, blob), attempt, lambda: name in _abandoned)


def _load(token: str, blob: bytes) -> Any:
    """Unpickle a value once per process: what it computes of itself on first use stays with it."""
    with _values_lock:
        if token not in _values:
            _values[token] = pickle.loads(blob)
            while len(_values) > _KEPT_VALUES:
                _values.popitem(last=False)
        return _values[token]


def abandon(name: str) -> None:
    """Stop the tasks of a job before their next partition."""
    _abandoned.append(name)


def close_cache(node: NodeConfig) -> None:
    """Forget values, close the node cache."""
    with _values_lock:
        _values.clear()
    node_cache(node).close()


def stuck_tasks(name: str, dask_scheduler: Scheduler) -> list[str]:
    """Return the tasks of a job that wait for a worker that will not come back; runs on the scheduler.

    When all workers die at once, tasks that prefer one of them are kept for a worker of that address, though
    they may run anywhere: `allow_other_workers` is not looked at when workers arrive (distributed 2026.8).
    """
    return [task.key for task in dask_scheduler.unrunnable if str(task.key).startswith(name)]
