"""Whose scratch directories live and whose are dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distclust.data import scratch
from distclust.data.cache import NodeCache, sweep
from distclust.data.node import NodeConfig
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.scratch import RunDirectory, scratch_root
from distclust.data.sources import open_source
from tests.data.writers import make_rows, make_table, write_parquet

HOLDER = """
import sys, time
from pathlib import Path
from distclust.data.scratch import RunDirectory
run = RunDirectory(Path(sys.argv[1]), sys.argv[2], keep=False)
(run.path / "blocks").mkdir(exist_ok=True)
(run.path / "blocks" / "x.blk").write_bytes(b"x")
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the run ``run-1``."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root), "run-1"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_killed_run_is_swept_and_a_living_one_stays(root: Path, holder: subprocess.Popen[str]) -> None:
    assert sweep(root) == 0
    assert (root / "run-1/blocks/x.blk").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (root / "run-1/blocks/x.blk").exists()
    assert sweep(root) == 1
    assert list(root.iterdir()) == []


def test_the_next_run_sweeps(root: Path, holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(make_rows(10, 2))))
    cache = NodeCache(NodeConfig(token="run-2", scratch=str(root)))
    with cache.open(plan_partitions(source, 1 << 20)[0], BlockView(source.columns, 2)):
        assert [path.name for path in root.iterdir()] == ["run-2"]
    cache.close()
    assert list(root.iterdir()) == []


def test_who_leaves_last_removes(root: Path, holder: subprocess.Popen[str]) -> None:
    run = RunDirectory(root, "run-1", keep=False)
    run.leave()
    run.leave()
    assert (root / "run-1/blocks/x.blk").exists()
    again = RunDirectory(root, "run-1", keep=False)
    holder.kill()
    holder.wait()
    assert sweep(root) == 0, "this process is still there"
    again.leave()
    assert list(root.iterdir()) == []


def test_kept_directories_stay(root: Path) -> None:
    run = RunDirectory(root, "run-1", keep=True)
    run.leave()
    assert sweep(root) == 0
    assert (root / "run-1").is_dir()


def test_foreign_directories_are_not_touched(root: Path, tmp_path: Path) -> None:
    (root / "photos").mkdir(parents=True)
    (root / "photos/in-use").write_text("")
    (root / "letter.txt").write_text("dear")
    outside = RunDirectory(tmp_path / "elsewhere", "run-9", keep=False)
    (root / "link").symlink_to(outside.path, target_is_directory=True)
    os.close(outside._lock)  # as a dead process would
    assert sweep(root) == 0
    assert sorted(path.name for path in root.iterdir()) == ["letter.txt", "link", "photos"]
    assert outside.path.is_dir()
    assert sweep(tmp_path / "nowhere") == 0


def test_half_removed_directories_are_removed(root: Path) -> None:
    (root / f"{scratch._DEAD}run-1-0a0b" / "blocks").mkdir(parents=True)
    sweep(root)
    assert list(root.iterdir()) == []


def test_joining_while_another_removes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock was taken on a file that is gone by then: it would protect nothing."""
    first = RunDirectory(root, "run-1", keep=False)
    flock = scratch.fcntl.flock
    calls = []

    def race(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            monkeypatch.setattr(scratch.fcntl, "flock", flock)
            first.leave()
        flock(descriptor, operation)

    monkeypatch.setattr(scratch.fcntl, "flock", race)
    second = RunDirectory(root, "run-1", keep=False)
    assert (second.path / scratch.MARKER).exists()
    assert sweep(root) == 0
    second.leave()
    assert list(root.iterdir()) == []


def test_directories_are_private(root: Path) -> None:
    run = RunDirectory(root, "run-1", keep=False)
    assert root.stat().st_mode & 0o777 == 0o700
    assert run.path.stat().st_mode & 0o777 == 0o700
    run.leave()


def test_a_directory_of_another_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "run-1").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: (root / "run-1").stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        RunDirectory(root, "run-1", keep=False)
    assert list((root / "run-1").iterdir()) == []


def test_default_scratch_is_per_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(scratch.getpass, "getuser", lambda: "ada")
    assert scratch_root(None) == tmp_path / "distclust-ada"

    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(scratch.getpass, "getuser", nameless)
    assert scratch_root(None) == tmp_path / f"distclust-{os.getuid()}"
    assert scratch_root("/somewhere") == Path("/somewhere")


def test_the_end_of_a_process_removes_its_run(root: Path, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(10, 2)))
    code = f"""
from distclust.data.cache import node_cache
from distclust.data.node import NodeConfig
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.sources import open_source
from pathlib import Path
source = open_source({str(path)!r})
with node_cache(NodeConfig(scratch={str(root)!r})).open(plan_partitions(source, 100)[0], BlockView(source.columns, 2)):
    print(len(list(Path({str(root)!r}).glob("*/blocks/*.blk"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert list(root.iterdir()) == []
