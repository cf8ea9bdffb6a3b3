"""Death at every write: what is there afterwards is sound, and the next start ends with the same bits.

The process "dies" before its n-th write, or in the middle of the n-th one that has a middle, for every n: from then
on nothing it does reaches the storage. A heartbeat never interferes.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distclust.artifacts.commit import commit_file, groups, read_commits
from distclust.artifacts.lease import Lease, Owner
from distclust.artifacts.overwrite import beside, clear
from distclust.artifacts.record import read_run
from distclust.artifacts.verify import verify_run
from distclust.data._local_files import LocalFiles
from distclust.data._remote_files import RemoteFiles
from distclust.data.storage import open_storage
from distclust.errors import StorageError
from tests.artifacts.small_job import do_job, results

pytestmark = pytest.mark.usefixtures("quick_disk")

MOMENTS = ["before", "amid"]
METHODS = ("create", "append", "remove", "remove_tree", "move")
DIVISIBLE = ("append", "remove_tree")


class Death(BaseException):
    """The process is gone: no handler of its own may run on."""


class Reaper:
    """Counts the writes to a kind of storage and kills at one of them."""

    def __init__(self, kill_at: int, moment: str, error: Exception | None = None) -> None:
        self.n_writes = 0
        self.dead = False
        self._kill_at = kill_at
        self._moment = moment
        self._error = error

    def write(self, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Do a write, or half of it, or not; die if it is time."""
        if self.dead:
            raise self._error or Death
        if self._moment == "amid" and half is None:
            return act()
        self.n_writes += 1
        if self.n_writes != self._kill_at:
            return act()
        # An error, unlike death, may be handled; later writes then succeed.
        self.dead = self._error is None
        if self._moment == "amid" and half is not None:
            half()
        raise self._error or Death

    def install(self, patch: pytest.MonkeyPatch, files: type[LocalFiles] | type[RemoteFiles]) -> None:
        """Put this in front of all methods that change something."""
        real = {name: getattr(files, name) for name in (*METHODS, "open_output")}

        def wrapped(name: str) -> Callable[..., Any]:
            def method(this: Any, *args: Any) -> Any:
                half = (lambda: half_of(name, this, *args)) if name in DIVISIBLE else None
                return self.write(lambda: real[name](this, *args), half)

            return method

        def half_of(name: str, this: Any, *args: Any) -> None:
            if name == "append":
                real[name](this, args[0], args[1][: len(args[1]) // 2])
                return
            paths = sorted(path for path, _, _ in this.walk(args[0], True))
            for path in paths[: (len(paths) + 1) // 2]:
                real["remove"](this, path)

        @contextmanager
        def open_output(this: Any, path: str) -> Iterator[Any]:
            buffer = io.BytesIO()
            yield buffer

            def act() -> None:
                with real["open_output"](this, path) as file:
                    file.write(buffer.getvalue())

            self.write(act)

        for name in METHODS:
            patch.setattr(files, name, wrapped(name))
        patch.setattr(files, "open_output", open_output)


@pytest.fixture(params=["local", "memory"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, quick_lease: None) -> str:
    """Storage with renames of directories, and without. Leases of the dead are recognised as such."""
    monkeypatch.setattr(Lease, "_beat", lambda self: None)
    monkeypatch.setattr(Owner, "is_dead", lambda self, now: True)
    return str(request.param)


def address(kind: str, tmp_path: Path, name: str) -> str:
    return str(tmp_path / name) if kind == "local" else f"fsspec+memory:/{tmp_path}/{name}"


def files_of(kind: str) -> type[LocalFiles] | type[RemoteFiles]:
    return LocalFiles if kind == "local" else RemoteFiles


def run_with(reaper: Reaper, kind: str, *args: Any, **options: Any) -> bool:
    """Do the job under a reaper; return whether it survived."""
    with pytest.MonkeyPatch.context() as patch:
        reaper.install(patch, files_of(kind))
        try:
            do_job(*args, **options)
        except Death:
            return False
    return True


def leftovers(out: str) -> list[str]:
    """Files that no finished run should have: hidden ones and the lease."""
    names = [path for path, _, _ in open_storage(out)._files.walk("", True)]
    return [name for name in names if name == "lease.json" or any(part.startswith(".") for part in name.split("/"))]


@pytest.mark.parametrize("moment", MOMENTS)
def test_death_at_any_write_of_a_run(kind: str, moment: str, tmp_path: Path) -> None:
    expected = results(do_job(address(kind, tmp_path, "whole")))
    n = 0
    survived = False
    while not survived:
        n += 1
        out = address(kind, tmp_path, f"out-{n}")
        survived = run_with(Reaper(n, moment), kind, out)
        assert results(do_job(out)) == expected
        assert verify_run(out) == []
        # A complete run is not touched again, so the lease of its dead owner stays.
        assert leftovers(out) in ([], ["lease.json"])
        open_storage(out).remove_tree()
    assert n > (20 if moment == "before" else 4)


@pytest.mark.parametrize("moment", MOMENTS)
def test_death_at_any_write_of_a_replacement(kind: str, moment: str, tmp_path: Path) -> None:
    expected = results(do_job(address(kind, tmp_path, "whole"), k=4))
    n = 0
    survived = False
    while not survived:
        n += 1
        out = address(kind, tmp_path, f"out-{n}")
        do_job(out, k=3)
        survived = run_with(Reaper(n, moment), kind, out, k=4, overwrite=True)
        storage = open_storage(out)
        # Either run is there whole; between two renames (or two moves) the new one is, beside.
        if storage.exists("manifest.json"):
            assert verify_run(out) == []
        else:
            assert beside(storage).exists("manifest.json")
        assert results(do_job(out, k=4, overwrite=True)) == expected
        assert verify_run(out) == []
        assert read_run(out)["config"] == {"n_clusters": 4}
        assert not beside(storage).exists("run.json")
        assert leftovers(out) in ([], ["lease.json"])
        storage.remove_tree()
        beside(storage).remove_tree()
    assert n > (30 if moment == "before" else 4)


@pytest.mark.parametrize("moment", MOMENTS)
def test_death_at_any_write_of_the_second_attempt(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt died between the two renames; the second one dies, too, wherever it can."""
    monkeypatch.setattr(Lease, "_beat", lambda self: None)
    monkeypatch.setattr(Owner, "is_dead", lambda self, now: True)
    n, survived = 0, False
    while not survived:
        n += 1
        out = tmp_path / f"out-{n}"
        do_job(out, k=3)
        assert not run_with(DeathBetweenRenames(), "local", out, k=4, overwrite=True)
        assert not out.exists()
        survived = run_with(Reaper(n, moment), "local", out, k=4)
        do_job(out, k=4)
        assert verify_run(out) == []
        assert read_run(out)["config"] == {"n_clusters": 4}
        assert sorted(os.listdir(tmp_path)) == [f"out-{i + 1}" for i in range(n)] or n > 9
    assert n > (3 if moment == "before" else 1)


@pytest.mark.parametrize("content", [None, "lease.json", "notes.txt"])
def test_directory_that_appears_between_the_renames(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "_beat", lambda self: None)
    monkeypatch.setattr(Owner, "is_dead", lambda self, now: True)
    out = tmp_path / "out"
    do_job(out, k=3)
    assert not run_with(DeathBetweenRenames(), "local", out, k=4, overwrite=True)
    out.mkdir()
    if content == "lease.json":
        (out / content).write_bytes((tmp_path / "out.new" / content).read_bytes())
    if content == "notes.txt":
        (out / content).write_bytes(b"the user's own")
        with pytest.raises(StorageError, match=r"notes\.txt appeared in it while it was being replaced"):
            do_job(out, k=4)
        (out / content).unlink()
    do_job(out, k=4)
    assert verify_run(out) == []
    assert read_run(out)["config"] == {"n_clusters": 4}
    assert os.listdir(tmp_path) == ["out"]


def test_death_while_an_unfinished_run_is_cleared(kind: str, tmp_path: Path) -> None:
    """What is left is an unfinished run: no commit without its file, and run.json to the end."""
    n, survived = 0, False
    while not survived:
        n += 1
        storage = open_storage(address(kind, tmp_path, f"out-{n}"))
        storage.put("run.json", b"{}")
        for group in ("attic", "labels"):
            for index in range(2):
                commit_file(storage, group, index, "part", ".bin", bytes([index]), 1)
        with pytest.MonkeyPatch.context() as patch:
            Reaper(n, "before").install(patch, files_of(kind))
            try:
                clear(storage)
                survived = True
            except Death:
                assert storage.exists("run.json")
        for group in groups(storage):
            assert all(storage.exists(commit.file) for commit in read_commits(storage, group).values())
        assert survived == (storage.entries() == [])
    assert n > 3


class DeathBetweenRenames(Reaper):
    """Kills after the first move, which takes the old directory away."""

    def __init__(self) -> None:
        super().__init__(-1, "before")

    def install(self, patch: pytest.MonkeyPatch, files: type[LocalFiles] | type[RemoteFiles]) -> None:
        super().install(patch, files)
        counted = files.move

        def move(this: Any, source: str, target: str) -> None:
            counted(this, source, target)
            self.dead = True
            raise Death

        patch.setattr(files, "move", move)


def test_disk_full_at_any_write_then_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error instead of a death: handlers run, the lease is given back, the message says what to do."""
    monkeypatch.setattr(Lease, "_beat", lambda self: None)
    expected = results(do_job(tmp_path / "whole"))
    n, survived, messages = 0, False, []
    while not survived:
        n += 1
        out = tmp_path / f"out-{n}"
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            survived = run_with(Reaper(n, "before", full), "local", out)
        except StorageError as error:
            messages.append(str(error))
        assert results(do_job(out)) == expected
        assert verify_run(out) == []
    assert n > 20
    # Giving the lease back is the one write whose failure does not matter.
    assert n - 2 <= len(messages) <= n - 1
    assert all("the disk or quota is full. Free some space" in text and "/out-" in text for text in messages)
