"""Verification finds each kind of damage, and nothing in a sound run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distclust.artifacts.verify import Problem, verify_run
from distclust.data.storage import Storage, open_storage
from tests.artifacts.small_job import do_job, open_job

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    do_job(tmp_path / "out")
    return open_storage(tmp_path / "out")


def flip(storage: Storage, path: str) -> None:
    data = storage.read(path)
    storage.put(path, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def test_sound_run(run: Storage) -> None:
    assert verify_run(run) == []
    assert verify_run(run.uri) == []


def test_each_changed_missing_or_cut_file_is_found(run: Storage) -> None:
    paths = [stat.path for stat in run.list() if stat.path not in ("events.jsonl", "manifest.json")]
    assert len(paths) >= 10
    for path in paths:
        data = run.read(path)
        flip(run, path)
        assert Problem("error", path, "changed: not the bytes that were written") in verify_run(run)
        run.put(path, data[:-1])
        words = f"changed: {len(data) - 1} bytes, {len(data)} were written"
        assert Problem("error", path, words) in verify_run(run)
        run.remove(path)
        assert Problem("error", path, "missing") in verify_run(run)
        run.put(path, data)
    assert verify_run(run) == []


def test_log_and_lease_may_change(run: Storage) -> None:
    run.append("events.jsonl", b"{}\n")
    run.put("lease.json", b"{}")
    assert verify_run(run) == []


def test_uncommitted_files_are_warned_of(run: Storage) -> None:
    run.put("labels/part-00000-zombie.parquet", b"1")
    run.put("notes.txt", b"the user's own")
    (problem,) = verify_run(run)
    assert str(problem).startswith("warning: labels/part-00000-zombie.parquet: not committed")


def test_late_commit_is_found(run: Storage) -> None:
    run.put("commits/labels/00009.json", run.read("commits/labels/00000.json").replace(b'"index": 0', b'"index": 9'))
    problems = {problem.path: problem.severity for problem in verify_run(run)}
    assert problems == {"commits/labels": "error", "commits/labels/00009.json": "warning"}


def test_exchanged_configuration_is_found(tmp_path: Path) -> None:
    do_job(tmp_path / "a", k=3)
    do_job(tmp_path / "b", k=4)
    run, other = open_storage(tmp_path / "a"), open_storage(tmp_path / "b")
    digests = [run.digest("run.json"), other.digest("run.json")]
    run.put("run.json", other.read("run.json"))
    run.put("manifest.json", run.read("manifest.json").replace(*[digest.encode() for digest in digests]))
    (problem,) = verify_run(run)
    assert (problem.path, problem.severity) == ("run.json", "error")
    assert "configuration" in problem.message


def test_incomplete_and_foreign_directories(tmp_path: Path) -> None:
    with open_job(tmp_path / "out"):
        (problem,) = verify_run(tmp_path / "out")
    assert str(problem) == "error: manifest.json: missing: the run is not complete"
    (problem,) = verify_run(tmp_path / "no")
    assert str(problem) == "error: manifest.json: missing: this is no run directory"


def test_damaged_manifest(run: Storage) -> None:
    run.put("manifest.json", run.read("manifest.json")[:-20])
    (problem,) = verify_run(run)
    assert "not readable as JSON" in problem.message
