"""Commits: the first writer wins, others leave nothing, readers see whole files only."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from distclust.artifacts.codec import sha256
from distclust.artifacts.commit import Commit, commit_file, groups, read_commit, read_commits
from distclust.data.storage import Storage, open_storage
from distclust.errors import StorageError

N_COMMITS = 25


def put(storage: Storage, index: int, data: bytes, group: str = "labels") -> Commit:
    return commit_file(storage, group, index, f"part-{index:05d}", ".bin", data, rows=len(data), extra={"o": index})


def test_commit_describes_the_file(storage: Storage) -> None:
    commit = put(storage, 17, b"abc")
    assert commit == Commit(17, f"labels/part-00017-{sha256(b'abc')[:12]}.bin", 3, 3, sha256(b"abc"), {"o": 17})
    assert storage.read(commit.file) == b"abc"
    assert read_commits(storage, "labels") == {17: commit}
    assert storage.exists("commits/labels/00017.json")


def test_the_first_writer_wins(storage: Storage) -> None:
    first = put(storage, 0, b"first")
    assert put(storage, 0, b"second") == first
    assert [stat.path for stat in storage.list("labels")] == [first.file]


def test_a_task_that_runs_twice_keeps_its_file(storage: Storage) -> None:
    first = put(storage, 0, b"same")
    assert put(storage, 0, b"same") == first
    assert storage.read(first.file) == b"same"


@pytest.mark.parametrize("place", ["local", "memory", "s3"], indirect=True)
def test_lost_race_removes_the_own_file_only_where_the_winner_is_certain(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer commits between this one's look and its own commit."""
    real = Storage.put_if_absent

    def slower(self: Storage, path: str, data: bytes) -> bool:
        monkeypatch.undo()
        put(self, 0, b"theirs")
        return real(self, path, data)

    monkeypatch.setattr(Storage, "put_if_absent", slower)
    commit = put(storage, 0, b"mine")
    assert storage.read(commit.file) == b"theirs"
    names = [stat.path for stat in storage.list("labels")]
    assert (names == [commit.file]) == storage.exclusive
    assert commit.file in names


def test_commits_come_in_order_of_their_index(storage: Storage) -> None:
    for index in (3, 100_000, 0, 12):
        put(storage, index, bytes([index % 7]))
    assert list(read_commits(storage, "labels")) == [0, 3, 12, 100_000]


def test_groups(storage: Storage) -> None:
    assert groups(storage) == []
    assert read_commits(storage, "labels") == {}
    assert read_commit(storage, "labels", 0) is None
    put(storage, 0, b"1")
    put(storage, 0, b"1", group="exchange/level_1")
    assert groups(storage) == ["exchange/level_1", "labels"]


def test_foreign_commit_is_an_error(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.put("commits/labels/00000.json", b'{"index": 0, "path": "x"}')
    with pytest.raises(StorageError, match=r"00000\.json: is no commit"):
        read_commits(storage, "labels")


def write_all(storage: Storage, start: float, who: int) -> list[tuple[int, str]]:
    """Commit everything with content of one's own, beginning at the same moment as the others."""
    time.sleep(max(0.0, start - time.time()))
    return [(index, put(storage, index, b"by %d: %d" % (who, index)).digest) for index in range(N_COMMITS)]


def test_racing_processes_agree(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.map(abs, range(3), chunksize=1)
        start = time.time() + 0.3
        seen = pool.starmap(write_all, [(storage, start, who) for who in range(3)], chunksize=1)
        pool.close()
        pool.join()
    commits = read_commits(storage, "labels")
    assert list(commits) == list(range(N_COMMITS))
    assert seen == [[(index, commits[index].digest) for index in range(N_COMMITS)]] * 3
    assert [stat.path for stat in storage.list("labels")] == sorted(commit.file for commit in commits.values())
    assert all(storage.digest(commit.file) == commit.digest for commit in commits.values())
