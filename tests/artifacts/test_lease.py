"""Leases: one living owner; the dead block nobody; whoever loses a lease notices."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from distclust.artifacts import lease
from distclust.artifacts.codec import decode_object, encode
from distclust.artifacts.lease import LEASE, Owner, acquire, process_start
from distclust.data.storage import Storage, open_storage
from distclust.errors import StorageError, UsageError


def this_process(**changes: object) -> Owner:
    now = time.time()
    pid = os.getpid()
    me = Owner("other", socket.gethostname(), lease._process_space(), pid, process_start(pid) or "", now, now)
    return replace(me, **changes)  # type: ignore[arg-type]


def leave(storage: Storage, owner: Owner) -> None:
    storage.put(LEASE, encode(asdict(owner)))


def owner_of(storage: Storage) -> Owner:
    return Owner(**decode_object(storage.read(LEASE), LEASE))


def test_second_is_refused_until_the_first_ends(storage: Storage) -> None:
    first = acquire(storage)
    with pytest.raises(UsageError) as caught:
        acquire(storage)
    text = str(caught.value)
    assert storage.where() in text
    assert f"process {os.getpid()} on host {socket.gethostname()} since 2" in text
    assert "last sign of life 0 s ago" in text
    first.release()
    first.release()
    assert not storage.exists(LEASE)
    acquire(storage).release()


def test_ended_process_does_not_block(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    start = process_start(ended.pid)
    ended.wait()
    leave(storage, this_process(pid=ended.pid, process_start=start))
    acquire(storage).release()


def test_killed_process_that_nobody_waited_for_does_not_block(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    zombie = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(storage, this_process(pid=zombie.pid, process_start=process_start(zombie.pid)))
    with pytest.raises(UsageError, match=str(zombie.pid)):
        acquire(storage)
    zombie.kill()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    acquire(storage).release()
    zombie.communicate()


def test_recycled_process_id_does_not_block(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    leave(storage, this_process(process_start="1"))
    acquire(storage).release()


@pytest.mark.parametrize("elsewhere", [{"host": "node-17"}, {"space": "another container"}])
def test_elsewhere_the_heartbeat_decides(storage: Storage, elsewhere: dict[str, str]) -> None:
    now = time.time()
    leave(storage, this_process(pid=2**22 + 1, heartbeat=now - 50, **elsewhere))
    with pytest.raises(UsageError, match=r"last sign of life 5\d s ago.*noticed after 60 s"):
        acquire(storage)
    leave(storage, this_process(pid=os.getpid(), heartbeat=now - 61, **elsewhere))
    taken = acquire(storage)
    assert owner_of(storage).token == taken.token
    taken.release()


def test_heartbeat_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    storage = open_storage(tmp_path)
    held = acquire(storage)
    first = owner_of(storage).heartbeat
    while owner_of(storage).heartbeat == first:
        time.sleep(0.01)
    held.check()
    held.pause()
    assert owner_of(storage).token == held.token
    held.release()


def test_failing_heartbeat_does_not_end_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    storage = open_storage(tmp_path)
    failures = []
    real = Storage.put

    def full(self: Storage, path: str, data: bytes) -> None:
        if len(failures) < 3:
            failures.append(path)
            raise StorageError("the disk or quota is full.")
        real(self, path, data)

    held = acquire(storage)
    first = owner_of(storage).heartbeat
    monkeypatch.setattr(Storage, "put", full)
    while owner_of(storage).heartbeat == first:
        time.sleep(0.01)
    assert failures == [LEASE] * 3
    held.release()


def test_loser_notices_and_leaves_the_winner_alone(storage: Storage) -> None:
    held = acquire(storage)
    leave(storage, this_process(token="thief", host="node-17"))
    held.check()
    held.beat()
    with pytest.raises(UsageError, match=r"another process took over this run directory: process .* on host node-17"):
        held.check()
    held.release()
    assert owner_of(storage).token == "thief"


def test_removed_lease_comes_back_with_the_heartbeat(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    held = acquire(storage)
    storage.remove(LEASE)
    held.beat()
    held.check()
    assert owner_of(storage).token == held.token
    held.release()


@pytest.mark.parametrize("place", ["moved", "s3"], indirect=True)
def test_simultaneous_takers_without_exclusive_create(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one writes while this one waits to read back: this one steps back."""

    def meanwhile(seconds: float) -> None:
        leave(storage, this_process(token="other", host="node-17"))

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    with pytest.raises(UsageError, match=r"in use by process .* on host node-17"):
        acquire(storage)
    assert owner_of(storage).token == "other"


def test_foreign_file_is_an_error(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put(LEASE, b"{}")
    with pytest.raises(StorageError, match=r"lease\.json: is no lease .* Remove the file"):
        acquire(storage)


def take(path: str, start: float) -> str | None:
    """Take the lease at the same moment as the others; keep it until this process ends."""
    time.sleep(max(0.0, start - time.time()))
    try:
        return acquire(open_storage(path)).token
    except UsageError:
        return None


@pytest.mark.parametrize("stale", [False, True])
def test_one_of_many_processes_wins(tmp_path: Path, stale: bool) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.map(abs, range(3), chunksize=1)
        for i in range(5):
            place = tmp_path / str(i)
            if stale:
                leave(open_storage(place), this_process(process_start="1"))
            found = pool.starmap(take, [(str(place), time.time() + 0.05)] * 3, chunksize=1)
            tokens = [token for token in found if token]
            assert tokens == [owner_of(open_storage(place)).token]
        pool.close()
        pool.join()
