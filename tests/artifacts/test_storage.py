"""Storage: the same behaviour on every kind of place; nothing is ever half there; errors say what to do."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from distclust.data import _local_files
from distclust.data.storage import Storage, open_storage
from distclust.errors import MissingExtraError, StorageError, UsageError


def names(storage: Storage) -> list[str]:
    return [stat.path for stat in storage.list()]


def test_put_replaces(storage: Storage) -> None:
    storage.put("a/b.txt", b"one")
    storage.put("a/b.txt", b"three")
    assert storage.read("a/b.txt") == b"three"
    assert [(stat.path, stat.size) for stat in storage.list()] == [("a/b.txt", 5)]


def test_put_if_absent_keeps_the_first(storage: Storage) -> None:
    assert storage.put_if_absent("a/b", b"first")
    assert not storage.put_if_absent("a/b", b"second")
    assert storage.read("a/b") == b"first"
    assert names(storage) == ["a/b"]


def test_append(storage: Storage) -> None:
    storage.append("logs/e.jsonl", b"one\n")
    storage.append("logs/e.jsonl", b"two\n")
    assert storage.read("logs/e.jsonl") == b"one\ntwo\n"


def test_output_appears_at_the_end(storage: Storage) -> None:
    with storage.open_output("a/big") as file:
        file.write(b"x" * 1000)
        assert not storage.exists("a/big")
    assert storage.read("a/big") == b"x" * 1000


def test_failed_output_leaves_nothing(storage: Storage) -> None:
    storage.put("a/kept", b"old")

    def fail(path: str) -> None:
        with storage.open_output(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail("a/kept")
    with pytest.raises(KeyError):
        fail("a/new")
    assert storage.read("a/kept") == b"old"
    assert names(storage) == ["a/kept"]


def test_listing(storage: Storage) -> None:
    for path in ("b", "a/c", "a/d/e", ".hidden", "a/.hidden/f"):
        storage.put(path, b"12")
    assert names(storage) == ["a/c", "a/d/e", "b"]
    assert [stat.path for stat in storage.list("a", recursive=False)] == ["a/c"]
    assert storage.entries() == ["a/", "b"]
    assert storage.entries("a") == ["c", "d/"]
    assert storage.list("nowhere") == []
    assert storage.entries("nowhere") == []


def test_remove_and_move(storage: Storage) -> None:
    storage.put("a/b", b"1")
    storage.put("a/c", b"2")
    storage.move("a/b", "d/e/f")
    storage.move("a/c", "d/e/f")
    assert storage.read("d/e/f") == b"2"
    storage.remove("d/e/f")
    storage.remove("d/e/f")
    assert not storage.exists("d/e/f")
    storage.put("t/u/v", b"3")
    storage.remove_tree("t")
    storage.remove_tree("t")
    assert names(storage) == []


def test_missing_file(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")


def test_digest(storage: Storage) -> None:
    data = os.urandom((4 << 20) + 17)
    storage.put("x", data)
    assert storage.digest("x") == hashlib.sha256(data).hexdigest()


def test_input_is_seekable(storage: Storage) -> None:
    storage.put("x", b"0123456789")
    with storage.open_input("x") as file:
        file.seek(4)
        assert file.read(3) == b"456"


def test_travels_to_workers(storage: Storage) -> None:
    storage.put("a/b", b"1")
    copy = pickle.loads(pickle.dumps(storage.child("a")))
    assert copy.read("b") == b"1"
    assert (copy.is_local, copy.exclusive) == (storage.is_local, storage.exclusive)


def test_split_names_the_directory_above(storage: Storage) -> None:
    storage.put("a/b", b"1")
    above, name = storage.child("a").split()
    assert name == "a"
    assert above.read("a/b") == b"1"


def test_stays_inside(storage: Storage) -> None:
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(ValueError, match="inside"):
            storage.read(path)


@pytest.mark.parametrize(
    "uri", ["/", "s3://bucket?region=us-east-1", "s3://bucket/?region=us-east-1", "fsspec+file:///"]
)
def test_top_of_a_filesystem_has_nothing_above(uri: str) -> None:
    with pytest.raises(UsageError, match="one level below"):
        open_storage(uri).split()


def test_file_uri_and_path_are_the_same_place(tmp_path: Path) -> None:
    open_storage(f"file://{tmp_path}/a%20b").put("x", b"1")
    assert open_storage(tmp_path / "a b").read("x") == b"1"
    assert open_storage(f"file://{tmp_path}").uri == str(tmp_path)


def test_unknown_scheme() -> None:
    with pytest.raises(MissingExtraError, match="nosuch"):
        open_storage("nosuch://a/b")


def test_messages_hide_credentials() -> None:
    storage = open_storage("s3://KEY:SECRET@bucket/run?region=us-east-1&endpoint_override=127.0.0.1:1&scheme=http")
    assert storage.where("a/b") == "s3://KEY:***@bucket/run/a/b"
    assert "SECRET" not in repr(storage)


def test_missing_bucket(s3_bucket: str) -> None:
    uri = s3_bucket.replace("s3://", "s3://no-such-").format("run")
    with pytest.raises(StorageError, match=r"s3://no-such-.*/run/x: the bucket does not exist\. Create it"):
        open_storage(uri).put("x", b"1")


def test_endpoint_from_the_environment(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_storage(s3_bucket.format("env")).put("x", b"1")
    address, _, query = s3_bucket.format("env").partition("?")
    endpoint = dict(pair.split("=") for pair in query.split("&"))["endpoint_override"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{endpoint}")
    assert open_storage(f"{address}?region=us-east-1").read("x") == b"1"


@pytest.mark.parametrize(
    "operation",
    [
        lambda storage: storage.put("a/x", b"1"),
        lambda storage: storage.put_if_absent("a/x", b"1"),
        lambda storage: storage.append("a/x", b"1"),
        lambda storage: storage.lock("a/x").__enter__(),
    ],
)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk or quota is full. Free some space"),
        (errno.EDQUOT, "the disk or quota is full. Free some space"),
        (errno.EROFS, "the filesystem is read-only. Choose a place"),
        (errno.EACCES, "permission denied. Check its owner and mode"),
    ],
)
def test_refused_writes_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Storage], object], code: int, words: str
) -> None:
    storage = open_storage(tmp_path)
    storage.put("a/other", b"1")
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError) as caught:
        operation(storage)
    assert str(caught.value) == f"{tmp_path}/a/x: {caught.value.message} {caught.value.do}"
    assert words in str(caught.value)


def test_disk_full_in_the_middle_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    storage.put("a", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="full"):
            storage.put("a", b"new")
        with pytest.raises(StorageError, match="full"):
            storage.put_if_absent("b", b"new")
    assert os.listdir(tmp_path) == ["a"]
    assert storage.read("a") == b"old"


def test_name_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot be used \(Not a directory\)"):
        open_storage(tmp_path / "file" / "inside").put("x", b"1")


def test_other_errors_pass_for_another_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="input/output") as caught:
        open_storage(tmp_path).put("x", b"1")
    assert not isinstance(caught.value, StorageError)


def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    storage = open_storage(tmp_path)
    assert storage.put_if_absent("x", b"1")
    assert not storage.put_if_absent("x", b"2")
    assert os.listdir(tmp_path) == ["x"]


def test_lost_between_look_and_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    real = os.link

    def slower(source: str, target: str) -> None:
        Path(target).write_bytes(b"theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", slower)
    assert not storage.put_if_absent("x", b"mine")
    assert storage.read("x") == b"theirs"
    assert os.listdir(tmp_path) == ["x"]


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        open_storage(tmp_path).put("x", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_rename_refused_by_the_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDFS does not rename onto a file that is there."""
    storage = open_storage(f"fsspec+file://{tmp_path}")
    storage.put("x", b"1")
    storage._files._fs = OnlyFreeNames(storage._files._fs)  # type: ignore[union-attr]
    storage.put("x", b"2")
    assert storage.read("x") == b"2"
    assert os.listdir(tmp_path) == ["x"]


class OnlyFreeNames:
    """A filesystem whose `move` refuses a target that exists."""

    def __init__(self, filesystem: object) -> None:
        self._filesystem = filesystem

    def __getattr__(self, name: str) -> object:
        return getattr(self._filesystem, name)

    def move(self, source: str, target: str) -> None:
        if os.path.exists(target):
            raise OSError("target exists")
        os.rename(source, target)


def test_sweep_removes_what_killed_writers_left(tmp_path: Path) -> None:
    for root in (str(tmp_path), f"fsspec+file://{tmp_path}"):
        storage = open_storage(root)
        storage.put("a/x", b"1")
        old = tmp_path / "a" / _local_files.aside_name("part.parquet")
        young = tmp_path / "a" / _local_files.aside_name("part.parquet")
        for path in (old, young):
            path.write_bytes(b"half")
        os.utime(old, (1, 1))
        storage.sweep(older_than=60.0)
        assert not old.exists()
        assert young.exists()
        assert names(storage) == ["a/x"]
        young.unlink()


def test_lock_holds_out_others_and_leaves_no_file(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "new")
    with storage.lock(".lock"):
        handle = os.open(tmp_path / "new" / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            _local_files.fcntl.flock(handle, _local_files.fcntl.LOCK_EX | _local_files.fcntl.LOCK_NB)
        os.close(handle)
    assert os.listdir(tmp_path / "new") == []
