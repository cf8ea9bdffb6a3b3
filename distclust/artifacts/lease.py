"""The lease of a run directory: one process at a time works in it, and a dead one does not block the next.

``lease.json`` holds the owner and a heartbeat. On the owner's machine the process table tells whether it lives,
by process id and start time, so that a recycled id is not taken for it. From elsewhere (another host, another
container) a heartbeat older than `STALE_SECONDS` counts as dead.

Taking is exclusive among the processes of a node by a lock file, among nodes by an exclusive create where the
storage has one. On storage without it, and after a dead owner, the taker waits a moment and reads back. Whoever
loses a lease after all notices at the next heartbeat, and stops writing.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distclust.artifacts.codec import decode_object, encode
from distclust.data.storage import Storage
from distclust.errors import StorageError, UsageError

LEASE = "lease.json"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""Twelve heartbeats: longer than a paused machine or a slow store usually takes."""
SETTLE_SECONDS = 1.0
_LOCK = ".lease.lock"


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes
    ----------
    token : str
        Random; tells two leases of one process apart.
    host : str
        Host name.
    space : str
        Boot and process namespace: where ``pid`` means something.
    pid : int
    process_start : str
        Start time of the process as its system spells it; empty if unknown.
    started, heartbeat : float
        Seconds since the epoch.
    """

    token: str
    host: str
    space: str
    pid: int
    process_start: str
    started: float
    heartbeat: float

    def is_dead(self, now: float) -> bool:
        """Return whether the owner is known to be gone."""
        if (self.host, self.space) == (socket.gethostname(), _process_space()):
            return process_start(self.pid) != self.process_start
        return now - self.heartbeat > STALE_SECONDS

    def describe(self, now: float) -> str:
        """Name the owner for a message."""
        since = datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        age = max(0.0, now - self.heartbeat)
        return f"process {self.pid} on host {self.host} since {since} (last sign of life {age:.0f} s ago)"


def process_start(pid: int) -> str | None:
    """Return when a process started, in its system's spelling; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended, though its parent has not asked for it yet.
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):
            return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _process_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


class Lease:
    """A held lease; a daemon thread keeps it fresh. Made by `acquire`."""

    def __init__(self, storage: Storage, owner: Owner) -> None:
        self._storage = storage
        self._owner = owner
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="distclust-lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """The owner's token."""
        return self._owner.token

    def check(self) -> None:
        """Raise `UsageError` if another process took the directory."""
        if self._lost:
            raise UsageError(
                f"another process took over this run directory: {self._lost}.",
                where=self._storage.where(),
                do="Let it finish, or stop it and run again.",
            )

    def pause(self) -> None:
        """Stop the heartbeat and leave the file: for the moment in which the directory is renamed."""
        self._ended.set()
        self._thread.join()

    def release(self) -> None:
        """Stop the heartbeat and remove the file, if it is still this lease's; twice is harmless."""
        self.pause()
        if not self._storage.exists(LEASE):
            return
        with self._storage.lock(_LOCK):
            found = _read(self._storage)
            if found is not None and found.token == self._owner.token:
                self._storage.remove(LEASE)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A full disk or a lost connection must not end the thread: the next beat may succeed.
            try:
                self.beat()
            except OSError:
                continue
            if self._lost:
                return

    def beat(self) -> None:
        """Write the heartbeat, unless the lease is another's by now."""
        with self._storage.lock(_LOCK):
            now = time.time()
            found = _read(self._storage)
            if found is not None and found.token != self._owner.token:
                self._lost = found.describe(now)
                return
            self._storage.put(LEASE, encode(asdict(replace(self._owner, heartbeat=now))))


def acquire(storage: Storage, token: str | None = None) -> Lease:
    """Take the lease of a run directory.

    Parameters
    ----------
    storage : Storage
        Run directory.
    token : str, optional
        Of a lease on another directory that this process already holds for the same run.

    Raises
    ------
    UsageError
        A living process has it.
    """
    now = time.time()
    owner = Owner(
        token or secrets.token_hex(8),
        socket.gethostname(),
        _process_space(),
        os.getpid(),
        process_start(os.getpid()) or "",
        now,
        now,
    )
    data = encode(asdict(owner))
    with storage.lock(_LOCK):
        before = _read(storage)
        if before is not None:
            _refuse_if_alive(storage, before)
            storage.put(LEASE, data)
        elif not storage.put_if_absent(LEASE, data):
            _refuse(storage)
        if not storage.is_local and (before is not None or not storage.exclusive):
            time.sleep(SETTLE_SECONDS)
            found = _read(storage)
            if found is None or found.token != owner.token:
                _refuse(storage)
    return Lease(storage, owner)


def check_free(storage: Storage) -> None:
    """Raise `UsageError` if a living process holds the lease of a directory."""
    found = _read(storage)
    if found is not None:
        _refuse_if_alive(storage, found)


def _refuse_if_alive(storage: Storage, owner: Owner) -> None:
    now = time.time()
    if not owner.is_dead(now):
        raise _taken(storage, owner.describe(now))


def _refuse(storage: Storage) -> None:
    found = _read(storage)
    raise _taken(storage, "another process" if found is None else found.describe(time.time()))


def _taken(storage: Storage, who: str) -> UsageError:
    return UsageError(
        f"the run directory is in use by {who}.",
        where=storage.where(),
        do=f"Wait for it or stop it (a process that died on another machine is noticed after {STALE_SECONDS:.0f} s), "
        "or choose another output.",
    )


def _read(storage: Storage) -> Owner | None:
    try:
        found: dict[str, Any] = decode_object(storage.read(LEASE), storage.where(LEASE))
        return Owner(**found)
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise StorageError(f"is no lease ({error}).", where=storage.where(LEASE), do="Remove the file.") from error
