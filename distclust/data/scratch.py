"""The scratch directory of a run on one node: made by whoever comes first, removed by whoever leaves last.

Each process that uses ``<scratch>/<token>`` holds a shared `flock` on the file ``in-use`` in it. The kernel
drops the lock however the process ends, ``kill -9`` included, so a directory whose lock can be taken exclusively
belongs to nobody any more. No process ids (containers reuse them), no ages, no heartbeats.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import secrets
import shutil
import tempfile
from pathlib import Path

MARKER = "distclust-scratch"
"""A file of this name says that a directory was made here and may be removed."""
KEEP = "keep"
IN_USE = "in-use"
_DEAD = ".distclust-dead-"
"""Prefix of directories that somebody is removing, or was when it died."""
_JOIN_ATTEMPTS = 100


def scratch_root(scratch: str | None) -> Path:
    """Return the directory that holds the runs' directories; by default one of the user's own in the temporary one."""
    if scratch is not None:
        return Path(scratch)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in many containers
        user = str(os.getuid())
    return Path(tempfile.gettempdir()) / f"distclust-{user}"


class RunDirectory:
    """The share of this process in a run's directory; the directory exists as long as the share is held.

    Parameters
    ----------
    root : Path
        Holds the directories of all runs; made with mode 0700 where it is missing.
    token : str
        Name of the run's directory.
    keep : bool
        Nobody removes the directory, not even later runs.

    Raises
    ------
    OSError
        The directory cannot be made or locked, or belongs to another user.
    """

    def __init__(self, root: Path, token: str, keep: bool) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = root / token
        self._keep = keep
        self._lock = self._join()
        try:
            (self.path / MARKER).touch()
            if keep:
                (self.path / KEEP).touch()
        except OSError:
            os.close(self._lock)
            raise

    def leave(self) -> None:
        """Give the share back, and remove the directory if no other process has one; twice is harmless."""
        if self._lock < 0:
            return
        lock, self._lock = self._lock, -1
        try:
            if not self._keep and _try_lock(lock):
                _remove(self.path)
        finally:
            # Explicitly, since a forked child may hold a copy of the descriptor.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _join(self) -> int:
        """Return a descriptor with the shared lock, held on the file that the path still names."""
        in_use = self.path / IN_USE
        for _ in range(_JOIN_ATTEMPTS):
            try:
                self.path.mkdir(mode=0o700, exist_ok=True)
                if self.path.stat().st_uid != os.geteuid():
                    raise PermissionError(f"{self.path} belongs to another user")
                lock = os.open(in_use, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # removed between the calls by a process that left
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
                if _names(in_use, lock):
                    return lock
            except OSError:
                os.close(lock)
                raise
            os.close(lock)
        raise FileNotFoundError(f"{self.path} is removed again and again")


def sweep(root: Path) -> int:
    """Remove the directories of runs that died on this node; return how many.

    Directories without our marker, kept ones and those that a living process uses stay.
    """
    try:
        children = sorted(root.iterdir())
    except OSError:
        return 0
    return sum(_sweep_one(child) for child in children)


def _sweep_one(path: Path) -> bool:
    if path.name.startswith(_DEAD):
        shutil.rmtree(path, ignore_errors=True)
        return False
    if path.is_symlink() or not (path / MARKER).is_file() or (path / KEEP).exists():
        return False
    try:
        lock = os.open(path / IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if _try_lock(lock) and _names(path / IN_USE, lock):
            _remove(path)
            return True
        return False
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    """Take the exclusive lock if nobody else has a share. A filesystem without locks counts as in use."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file: it does not after another process removed the directory."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    """Remove a directory whose exclusive lock is held: renamed first, so that a newcomer starts a fresh one."""
    dead = path.with_name(f"{_DEAD}{path.name.removeprefix(_DEAD)[:64]}-{secrets.token_hex(4)}")
    try:
        path.rename(dead)
    except OSError:
        return
    shutil.rmtree(dead, ignore_errors=True)
