"""Row state may fail in every way and then is None."""

from __future__ import annotations

import errno
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from distclust.data.state import FileState, MemoryState, NoState, RowState


@pytest.fixture(params=["file", "memory"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> RowState:
    return FileState(tmp_path / "state") if request.param == "file" else MemoryState()


def test_what_is_put_is_got(state: RowState) -> None:
    assert state.get("labels", "1") is None
    for array in (np.arange(5, dtype=np.int32), np.ones((3, 2)), np.zeros(0, np.float32), np.arange(10)[::2]):
        state.put("labels", "1", array)
        got = state.get("labels", "1")
        assert got is not None
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        assert not got.flags.writeable


def test_later_changes_of_the_array_do_not_matter(state: RowState) -> None:
    array = np.zeros(3)
    state.put("labels", "1", array)
    array[:] = 1
    np.testing.assert_array_equal(state.get("labels", "1"), np.zeros(3))


def test_the_last_two_tags_of_a_kind_are_kept(state: RowState) -> None:
    state.put("bounds", "1", np.zeros(1))
    for tag in ("1", "2", "3", "2", "4"):
        state.put("labels", tag, np.full(2, int(tag)))
    assert [state.get("labels", tag) is not None for tag in ("1", "2", "3", "4")] == [False, True, False, True]
    assert state.get("bounds", "1") is not None


def test_any_name_will_do(state: RowState) -> None:
    for kind, tag in (("../x", "a/b"), ("lloyd labels", "0|é"), (".", "..")):
        state.put(kind, tag, np.ones(2))
        assert state.get(kind, tag) is not None
        assert state.get(kind, tag + "x") is None


def test_files_stay_inside_their_directory(tmp_path: Path) -> None:
    FileState(tmp_path / "in" / "state").put("../../x", "../../y", np.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_damaged_files_are_none(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    state.put("labels", "1", np.arange(100))
    (path,) = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:20], b"", whole + b"x", b"x" * 200):
        path.write_bytes(data)
        assert state.get("labels", "1") is None
    path.write_bytes(whole)
    assert state.get("labels", "1") is not None


def test_what_is_taken_is_gone_until_it_is_given_back(state: RowState) -> None:
    state.give("bounds", "1", np.arange(4.0))
    array = state.take("bounds", "1")
    assert array is not None
    assert state.take("bounds", "1") is None
    array *= 2
    state.put("bounds", "0", np.zeros(1))
    state.give("bounds", "2", array)
    assert state.get("bounds", "0") is None, "only one of its kind stays"
    assert state.take("bounds", "1") is None
    again = state.take("bounds", "2")
    assert again is not None
    np.testing.assert_array_equal(again, [0.0, 2.0, 4.0, 6.0])


def test_a_taken_file_is_written_in_place_and_leaves_nothing_behind(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    state.give("bounds", "1", np.zeros(1000))
    (path,) = tmp_path.rglob("*.npy")
    before = path.stat().st_ino
    array = state.take("bounds", "1")
    assert array is not None
    array[:] = 7
    state.give("bounds", "2", array)
    (path,) = tmp_path.rglob("*.npy")
    assert path.stat().st_ino == before
    del array
    gc.collect()
    kept = state.take("bounds", "2")
    assert kept is not None
    assert (kept == 7).all()
    del kept
    gc.collect()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_damaged_files_are_not_taken(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    for cut in (slice(0, -1), slice(0, 20), slice(0, 0), None):
        state.give("bounds", "1", np.arange(100))
        (path,) = tmp_path.rglob("*.npy")
        whole = path.read_bytes()
        path.write_bytes(whole + b"x" if cut is None else whole[cut])
        assert state.take("bounds", "1") is None
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    state.put("labels", "1", np.arange(3))
    (path,) = tmp_path.rglob("*.npy")
    np.save(path, np.array([{}], object), allow_pickle=True)
    assert state.get("labels", "1") is None
    state.put("labels", "2", np.array([{}], object))
    assert state.get("labels", "2") is None


def test_a_full_disk_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = FileState(tmp_path)
    state.put("labels", "1", np.zeros(3))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    state.put("labels", "2", np.ones(3))
    assert state.get("labels", "2") is None
    assert state.get("labels", "1") is not None
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["1.npy"]


def test_a_directory_that_is_gone_stores_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    state = FileState(tmp_path / "file")
    state.put("labels", "1", np.zeros(3))
    assert state.get("labels", "1") is None


def test_no_state() -> None:
    state = NoState()
    state.put("labels", "1", np.zeros(3))
    assert state.get("labels", "1") is None


def test_many_threads(state: RowState) -> None:
    def work(i: int) -> None:
        for _ in range(20):
            state.put("labels", str(i % 3), np.full(50, i % 3))
            got = state.get("labels", str(i % 3))
            assert got is None or (got == i % 3).all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
