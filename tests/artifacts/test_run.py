"""Run directories: new, resumed, complete or refused; events; the manifest; replacement."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distclust.artifacts.commit import commit_file
from distclust.artifacts.lease import LEASE
from distclust.artifacts.run import RunDirectory, read_manifest, read_run
from distclust.artifacts.verify import verify_run
from distclust.data.storage import Storage, open_storage
from distclust.errors import StorageError, UsageError
from tests.artifacts.small_job import INPUTS, STEPS, do_job, open_job, results, work

pytestmark = pytest.mark.usefixtures("quick_disk")

ROOT = Path(__file__).resolve().parents[2]


def test_whole_run(place: str) -> None:
    manifest = do_job(place, how={"memory": "2G"})
    assert verify_run(place) == []
    assert open_storage(place).entries() == [
        "checkpoints/",
        "commits/",
        "events.jsonl",
        "labels/",
        "manifest.json",
        "model/",
        "run.json",
    ]
    assert manifest == read_manifest(place)
    assert manifest["commits"] == {"labels": {"files": 2, "rows": 2, "bytes": 50}}
    assert manifest["summary"] == {"rows": 2}
    record = read_run(place)
    assert record["config_digest"] == manifest["config_digest"]
    assert record["how"] == {"memory": "2G"}
    assert set(record["versions"]) >= {"python", "numpy", "numba", "pyarrow"}


def test_complete_run_is_left_alone(place: str) -> None:
    manifest = do_job(place)
    before = [(stat.path, stat.mtime_ns) for stat in open_storage(place).list()]
    with open_job(place, how={"memory": "other"}, engine="dask", seed=7) as run:
        assert run.state == "complete"
        assert run.manifest() == manifest
        with pytest.raises(UsageError, match="was complete when it was opened"):
            run.append_event({})
    assert [(stat.path, stat.mtime_ns) for stat in open_storage(place).list()] == before


def test_unfinished_run_is_resumed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_job(place, how={"cut": 8}) as run:
        assert run.state == "new"
        run.checkpoints("kmeans").save(1, {}, {})
        created = run.record["created"]
    monkeypatch.setattr("distclust.artifacts.record.now", lambda: "later")
    with open_job(place, how={"cut": 9}, resume=True) as run:
        assert run.state == "resumed"
        assert run.record["created"] == created
        assert run.how == {"cut": 8}
        assert run.checkpoints("kmeans").load() is not None
        assert [event["state"] for event in run.events()] == ["new", "resumed"]


@pytest.mark.parametrize("made", [False, True])
def test_missing_and_empty_directories_are_new(tmp_path: Path, made: bool) -> None:
    out = tmp_path / "out"
    if made:
        out.mkdir()
    with open_job(out) as run:
        assert run.state == "new"
        assert run.uri == str(out)


def other_files(*files: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": {"digest": "d2", "files": list(files)}}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 4}, "n_clusters: 3 there, 4 now"),
        ({"seed": 8}, "seed: 7 there, 8 now"),
        ({"kind": "assign/1"}, 'kind: "kmeans/1" there, "assign/1" now'),
        ({"config": {"n_clusters": 3, "init": {"name": "x"}}}, 'init: nothing there, {"name":"x"} now'),
        (other_files({"uri": "a.parquet", "size": 11}), "input a.parquet.size: 10 there, 11 now"),
        (other_files(*INPUTS["files"], {"uri": "b"}), "input b is new"),
        (other_files(), "input a.parquet is missing now"),
        (other_files(*INPUTS["files"]), 'inputs.digest: "d1" there, "d2" now'),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, finished: bool, change: dict[str, Any], words: str) -> None:
    if finished:
        do_job(tmp_path / "out")
    else:
        open_job(tmp_path / "out").close()
    before = sorted(os.listdir(tmp_path / "out"))
    with pytest.raises(UsageError) as caught:
        open_job(tmp_path / "out", **change)
    text = str(caught.value)
    assert f"{'a complete' if finished else 'an unfinished'} run that differs in {words}." in text
    assert "--overwrite" in text
    assert sorted(os.listdir(tmp_path / "out")) == before


def test_many_changed_files_are_counted(tmp_path: Path) -> None:
    open_job(tmp_path / "out").close()
    with pytest.raises(UsageError, match=r"input f3 is new; and 6 more input files\."):
        open_job(tmp_path / "out", inputs={"digest": "d2", "files": [{"uri": f"f{i}"} for i in range(10)]})


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_content_is_refused_and_kept(place: str, overwrite: bool) -> None:
    storage = open_storage(place)
    storage.put("thesis.tex", b"1")
    storage.put("figures/a.png", b"1")
    with pytest.raises(UsageError, match=r"is no run of distclust and not empty: it holds figures/, thesis\.tex\."):
        open_job(place, overwrite=overwrite)
    assert [stat.path for stat in storage.list()] == ["figures/a.png", "thesis.tex"]


def test_resume_as_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no unfinished run to resume"):
        open_job(tmp_path / "out", resume=True)
    open_job(tmp_path / "out", resume=False).close()
    with pytest.raises(UsageError, match="there is an unfinished run, and resume is off"):
        open_job(tmp_path / "out", resume=False)
    open_job(tmp_path / "out", resume=True).close()


def test_newer_format_is_refused(tmp_path: Path) -> None:
    open_job(tmp_path / "out").close()
    path = tmp_path / "out" / "run.json"
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(UsageError, match=r"run\.json: format version 2; this distclust reads 1"):
        open_job(tmp_path / "out")


def test_events_survive_a_torn_line(place: str) -> None:
    storage = open_storage(place)
    with open_job(place) as run:
        run.append_event({"event": "A", "loss": float("nan")})
        assert [event["event"] for event in run.events()] == ["RunOpened", "A"]
    storage.append("events.jsonl", b'{"event": "to')
    with open_job(place) as run:
        run.append_event({"event": "B"})
        assert [event["event"] for event in run.events()] == ["RunOpened", "A", "RunOpened", "B"]
    assert storage.read("events.jsonl").endswith(b'{"event":"B"}\n')


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_object_stores_get_events_with_each_checkpoint(place: str) -> None:
    with open_job(place) as run:
        run.append_event({"event": "A"})
        assert not run.storage.exists("events.jsonl")
        run.checkpoints("x").save(1, {}, {})
        assert run.storage.read("events.jsonl").count(b"\n") == 2


def test_second_process_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = start_job(out, pause=60.0)
    try:
        with pytest.raises(UsageError, match=f"{out}: the run directory is in use by process {other.pid} on host"):
            open_job(out)
        with pytest.raises(UsageError, match=f"{out}: the run directory is in use by process {other.pid} on host"):
            open_job(out, overwrite=True)
    finally:
        other.kill()
        other.wait()
    assert os.listdir(tmp_path) == ["out"]


def test_killed_run_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    expected = results(do_job(tmp_path / "whole"))
    out = tmp_path / "out"
    other = start_job(out, pause=60.0)
    other.kill()
    other.wait()
    assert (out / LEASE).exists()
    with open_job(out) as run:
        assert run.state == "resumed"
        found = run.checkpoints("kmeans").load()
        assert found is not None
        assert 0 < found.step < STEPS
        manifest = work(run, 3)
    assert results(manifest) == expected
    assert verify_run(out) == []
    assert not (out / LEASE).exists()


def start_job(out: Path, pause: float) -> subprocess.Popen[bytes]:
    """Start the job in a process of its own; return when its first checkpoint is there."""
    script = ROOT / "tests" / "artifacts" / "small_job.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script), str(out), str(pause)], env=environment)
    while not (out / "checkpoints" / "kmeans" / "LATEST").exists() or b"IterationEnded" not in read_if(out):
        assert process.poll() is None
        time.sleep(0.02)
    return process


def read_if(out: Path) -> bytes:
    path = out / "events.jsonl"
    return path.read_bytes() if path.exists() else b""


def test_failed_run_gives_the_lease_back_and_reports_its_own_error(tmp_path: Path) -> None:
    def fail() -> None:
        with open_job(tmp_path / "out"):
            raise KeyError("the first error")

    with pytest.raises(KeyError, match="the first error"):
        fail()
    assert not (tmp_path / "out" / LEASE).exists()


def test_run_that_lost_its_lease_writes_no_more(tmp_path: Path) -> None:
    run = open_job(tmp_path / "out")
    lease = tmp_path / "out" / LEASE
    data = lease.read_bytes()
    token = run._leases[0].token.encode()
    lease.write_bytes(data.replace(token, b"somebody"))
    with pytest.raises(UsageError, match="another process took over"):
        run.finish({}, {})
    with pytest.raises(UsageError, match="another process took over"):
        run.checkpoints("x").save(1, {}, {})
    with pytest.raises(UsageError, match="another process took over"):
        run.append_event({})
    with pytest.raises(UsageError, match="another process took over"):
        run.close()
    assert lease.exists()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_files_of_lost_attempts_are_removed_at_the_end(place: str) -> None:
    with open_job(place) as run:
        run.storage.put("labels/part-00000-lost.parquet", b"1")
        work(run, 3)
    assert not open_storage(place).exists("labels/part-00000-lost.parquet")
    assert verify_run(place) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda storage, file: storage.remove(file), "a committed file is missing"),
        (lambda storage, file: storage.put(file, b"12"), "a committed file has 2 bytes, 3 were written"),
    ],
)
def test_no_manifest_without_the_committed_files(tmp_path: Path, damage: Any, words: str) -> None:
    with open_job(tmp_path / "out") as run:
        commit = commit_file(run.storage, "labels", 0, "part-00000", ".parquet", b"abc", 1)
        damage(run.storage, commit.file)
        with pytest.raises(StorageError, match=words):
            run.finish({}, {})
        assert not run.storage.exists("manifest.json")


def test_overwrite_replaces_at_the_end(place: str) -> None:
    old = do_job(place, k=3)
    with open_job(place, k=4, overwrite=True) as run:
        assert run.state == "new"
        assert run.uri == open_storage(place).uri
        assert results(read_manifest(place)) == results(old)
        assert run.storage.uri != run.uri
        work(run, 4)
        assert run.storage.uri == run.uri
    assert read_run(place)["config"] == {"n_clusters": 4}
    assert verify_run(place) == []
    assert siblings(place) == ["out/"]


def siblings(place: str) -> list[str]:
    return open_storage(place).split()[0].entries()


def test_overwrite_of_an_equal_run_does_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = do_job(tmp_path / "out")
    monkeypatch.setattr("distclust.artifacts.run.now", lambda: "later")
    again = do_job(tmp_path / "out", overwrite=True)
    assert results(first) == results(again)
    assert again["finished"] == "later"


def test_overwrite_of_nothing_is_a_new_run(tmp_path: Path) -> None:
    do_job(tmp_path / "out", overwrite=True)
    assert os.listdir(tmp_path) == ["out"]
    assert verify_run(tmp_path / "out") == []


@pytest.mark.parametrize(("k", "state"), [(4, "resumed"), (5, "new")])
def test_crashed_overwrite_is_resumed_or_begun_anew(place: str, k: int, state: str) -> None:
    do_job(place, k=3)
    with open_job(place, k=4, overwrite=True) as run:
        run.checkpoints("kmeans").save(1, {}, {})
        commit_file(run.storage, "labels", 0, "part-00000", ".parquet", b"of another k", 1)
    with open_job(place, k=k, overwrite=True) as run:
        assert run.state == state
        assert (run.checkpoints("kmeans").load() is None) == (state == "new")
        assert run.storage.exists("labels") == (state == "resumed")
    assert verify_run(place) == []


def test_overwrite_off_resume_begins_anew(tmp_path: Path) -> None:
    do_job(tmp_path / "out", k=3)
    open_job(tmp_path / "out", k=4, overwrite=True).close()
    with open_job(tmp_path / "out", k=4, overwrite=True, resume=False) as run:
        assert run.state == "new"


@pytest.mark.parametrize("make", [do_job, lambda place: open_storage(place).put("notes.txt", b"1")])
def test_neighbour_with_the_name_of_a_successor_is_kept(tmp_path: Path, make: Any) -> None:
    """A run that somebody called ``out.new`` is neither taken for the successor of ``out`` nor worked in."""
    do_job(tmp_path / "out", k=3)
    make(tmp_path / "out.new")
    before = sorted(os.listdir(tmp_path / "out.new"))
    with open_job(tmp_path / "out", k=3) as run:
        assert run.state == "complete"
    with pytest.raises(UsageError, match=r"out\.new: the new run would be built here, but the directory holds"):
        open_job(tmp_path / "out", k=4, overwrite=True)
    assert sorted(os.listdir(tmp_path / "out.new")) == before
    assert not (tmp_path / "out" / LEASE).exists()


def test_overwrite_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "run")
    do_job(tmp_path / "out", k=3)
    do_job(tmp_path / "out", k=4, overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["run"]
    assert read_run(tmp_path / "out")["config"] == {"n_clusters": 4}


def test_replacement_that_the_filesystem_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do_job(tmp_path / "out", k=3)

    def refuse(self: Storage, source: str, target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    with open_job(tmp_path / "out", k=4, overwrite=True) as run:
        monkeypatch.setattr(Storage, "move", refuse)
        with pytest.raises(StorageError, match=r"/out: the complete new run in .*/out\.new cannot take its place: Inv"):
            work(run, 4)
    monkeypatch.undo()
    assert read_run(tmp_path / "out")["config"] == {"n_clusters": 3}
    with open_job(tmp_path / "out", k=4, overwrite=True) as run:
        assert run.state == "complete"
    assert read_run(tmp_path / "out")["config"] == {"n_clusters": 4}
    assert verify_run(tmp_path / "out") == []


def test_no_heartbeat_while_the_name_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make the directory again that is just being renamed."""
    do_job(tmp_path / "out", k=3)
    real = Storage.move
    with open_job(tmp_path / "out", k=4, overwrite=True) as run:
        threads = [lease._thread for lease in run._leases]

        def move(self: Storage, source: str, target: str) -> None:
            assert not any(thread.is_alive() for thread in threads)
            real(self, source, target)

        monkeypatch.setattr(Storage, "move", move)
        assert len([thread for thread in threads if thread.is_alive()]) == 2
        work(run, 4)
    assert os.listdir(tmp_path) == ["out"]


def test_run_directory_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        open_job(tmp_path / "file" / "out")


def test_type_of_the_handle(tmp_path: Path) -> None:
    with open_job(tmp_path / "out") as run:
        assert isinstance(run, RunDirectory)
    with pytest.raises(UsageError, match="closed"):
        run.append_event({})
