"""Runs as they stand: stopped and resumed, inspected, verified, planned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from distclust.artifacts.lease import acquire
from distclust.cli.plan import plan_job
from distclust.cli.session import stopping_signals
from distclust.config import KMeansJob
from distclust.data.state import FileState
from distclust.data.storage import open_storage
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError
from distclust.workflows.kmeans import run_kmeans
from tests.jobs.conftest import BLOBS, ROWS, digests, subprocess_environment, write_rows

LONG = ("-k", "60", "--tol", "0", "--rtol", "0", "--max-iter", "70", "--engine", "local[1]", "--json")
WAIT_SECONDS = 120


@pytest.fixture
def many_passes(tmp_path: Path) -> Path:
    """Rows without clusters: Lloyd takes all its passes."""
    rows = np.random.default_rng(1).random((15_000, 8), dtype=np.float32)
    return write_rows(tmp_path / "rows.parquet", rows)


def passes(run: Path) -> int:
    """Return the passes that the event log tells of."""
    events = run / "events.jsonl"
    return events.read_text().count("IterationEnded") if events.exists() else 0


def test_a_stopped_run_exits_5_and_resumes_with_the_same_bits(
    cli: Callable[..., Result], many_passes: Path, tmp_path: Path
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    command = [sys.executable, "-m", "distclust.cli.main", "kmeans", "rows.parquet", "--column", "embedding", *LONG]
    with subprocess.Popen(
        [*command, "-o", "stopped"],
        cwd=tmp_path,
        env=subprocess_environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        until = time.monotonic() + WAIT_SECONDS
        while passes(stopped) < 5 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 5, err
    assert out == ""
    assert "distclust resume stopped" in err
    assert 5 <= passes(stopped) < 70

    state = json.loads(cli("inspect", stopped, "--json").stdout)
    assert state["state"] == "unfinished"
    assert len(state["history"]) == passes(stopped)

    resumed = cli("resume", stopped, "--json", "--engine", "local[2]")
    assert "goes on from its last checkpoint" in resumed.stderr
    iterations = json.loads(resumed.stdout)["summary"]["iterations"]
    assert passes(stopped) == iterations, "no pass was done twice"
    assert digests(resumed) == digests(cli("kmeans", many_passes, "--column", "embedding", *LONG, "-o", whole))
    history = json.loads(cli("inspect", stopped, "--json").stdout)["history"]
    assert [entry["iteration"] for entry in history] == list(range(1, iterations + 1))


def test_resume_of_a_complete_run_does_nothing(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    before = digests(cluster("--json"))
    result = cli("resume", tmp_path / "out")
    assert "nothing was done" in result.stdout
    assert digests(cli("resume", tmp_path / "out", "--json")) == before


def test_resume_of_an_assignment_finds_its_model(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    cluster()
    labels = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "labels", "--json"))
    (tmp_path / "labels" / "manifest.json").unlink()
    resumed = cli("resume", tmp_path / "labels", "--json")
    assert digests(resumed) == labels
    assert json.loads(resumed.stdout)["already_complete"] is False


def test_resume_goes_on_with_an_overwrite_that_was_stopped(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise CancelledError("The run was cancelled.")

    out = tmp_path / "out"
    before = digests(cluster("--json"))
    wanted = digests(cluster("--metric", "cosine", "-o", tmp_path / "other", "--json"))
    with monkeypatch.context() as patch:
        patch.setattr("distclust.workflows.kmeans.save_model", stop)
        stopped = cluster("--metric", "cosine", "--overwrite")
    assert stopped.exit_code == 5
    assert f"distclust resume {out}" in stopped.stderr
    assert json.loads(cli("inspect", out, "--json").stdout)["digests"] == before, "the old run stays until the end"
    assert digests(cli("resume", out, "--json")) == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other", "out"]
    assert json.loads(cli("inspect", out, "--json").stdout)["record"]["config"]["metric"] == "cosine"


def test_inspect_sees_that_a_run_is_at_work(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    cluster()
    (tmp_path / "out" / "manifest.json").unlink()
    lease = acquire(open_storage(tmp_path / "out"))
    try:
        assert "kmeans/1, running" in cli("inspect", tmp_path / "out").stdout
        busy = cli("resume", tmp_path / "out")
        assert busy.exit_code == 2
        assert "in use by process" in busy.stderr
    finally:
        lease.release()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_cancels_and_a_second_one_is_not_ours(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    token = CancelToken()
    with stopping_signals() as stop:
        stop.bind(token)
        assert not token.cancelled
        signal.raise_signal(number)
        assert token.cancelled
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(number) == before


def test_a_signal_before_there_is_a_token_is_kept_for_it() -> None:
    token = CancelToken()
    with stopping_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.bind(token)
    assert token.cancelled


def test_inspect_prints_the_run(cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path) -> None:
    done = digests(cluster("--json"))
    text = cli("inspect", tmp_path / "out").stdout
    for said in (
        f"{tmp_path / 'out'}: kmeans/1, complete",
        "local[2]",
        f"{ROWS} rows × 6 float32 in 2 files",
        "a.parquet",
        f"n_clusters={BLOBS}",
        "History:",
        f"Largest {BLOBS} of {BLOBS} clusters",
        "labels/",
        "manifest.json",
        done["centers"],
    ):
        assert said in text
    found = json.loads(cli("inspect", tmp_path / "out", "--json").stdout)
    assert found["digests"] == done
    assert sum(one["size"] for one in found["clusters"]) == ROWS
    assert found["history"][0]["moved"] == ROWS


def test_verify_finds_a_flipped_byte(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    cluster()
    good = cli("verify", tmp_path / "out")
    assert good.exit_code == 0
    assert "all as recorded" in good.stdout
    damaged = sorted((tmp_path / "out" / "labels").iterdir())[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    bad = cli("verify", tmp_path / "out")
    assert bad.exit_code == 3
    assert f"labels/{damaged.name}: changed" in bad.stdout
    found = cli("verify", tmp_path / "out", "--json")
    assert found.exit_code == 3
    assert [problem["path"] for problem in json.loads(found.stdout)["problems"]] == [f"labels/{damaged.name}"]


def test_verify_of_an_unfinished_run_fails(
    cli: Callable[..., Result], cluster: Callable[..., Result], tmp_path: Path
) -> None:
    cluster()
    (tmp_path / "out" / "manifest.json").unlink()
    result = cli("verify", tmp_path / "out")
    assert result.exit_code == 3
    assert "not complete" in result.stdout


def test_plan_counts_and_writes_nothing(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    before = sorted(tmp_path.rglob("*"))
    command = ("plan", dataset, "--column", "embedding", "-k", BLOBS, "--engine", "local[2]", "--scratch", scratch)
    text = cli(*command).stdout
    for said in ("Nothing was run or written", f"{ROWS} rows × 6 float32, 2 files", "local, 2 slots", "partitions"):
        assert said in text
    found = json.loads(cli(*command, "--json", "--init", "random", "--max-iter", 7, "--n-init", 2).stdout)
    assert found["rows"] == ROWS
    assert found["model_bytes"] == BLOBS * 6 * 4
    assert found["scratch_bytes"] >= ROWS * 6 * 4
    assert (found["seeding_passes"], found["iterations"]) == (2, 14)
    assert found["sent_bytes"] == 0, "tasks of the local engine are threads"
    assert sorted(tmp_path.rglob("*")) == before


def test_plan_says_what_would_fail(cli: Callable[..., Result], dataset: Path) -> None:
    assert "the run would fail" in cli("plan", dataset, "--column", "embedding", "-k", ROWS + 1).stdout


def test_plan_is_what_the_run_does(
    cli: Callable[..., Result], cluster: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    more = ("--target-bytes", "3KB")
    plan = cli("plan", dataset, "--column", "embedding", "-k", BLOBS, "--engine", "local[2]", "--json", *more)
    cluster(*more)
    assert json.loads(plan.stdout)["partitions"] == len(list((tmp_path / "out" / "labels").iterdir()))


@pytest.mark.parametrize("fit_mode", ["full", "progressive"])
def test_plan_counts_what_rows_keep(fit_mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).normal(size=(12_000, 64)).astype(np.float32)
    data = write_rows(tmp_path / "data" / "a.parquet", rows)
    kept: dict[str, dict[Path, int]] = defaultdict(dict)  # bytes by kind and partition
    for store in ("put", "give"):
        plain = getattr(FileState, store)

        def counted(self: FileState, kind: str, tag: str, array: np.ndarray, plain: Any = plain) -> None:
            place = self._directory
            kept[kind][place] = max(kept[kind].get(place, 0), array.nbytes)
            plain(self, kind, tag, array)

        monkeypatch.setattr(FileState, store, counted)
    more = {"fit_mode": fit_mode, "max_iter": 8, "rtol": 1e-4, "output": str(tmp_path / "out")}
    job = KMeansJob(data=str(data), column="embedding", k=300, **more)
    planned = plan_job(job)
    run_kmeans(job)
    found = {kind: sum(sizes.values()) for kind, sizes in kept.items() if "candidate" not in kind}
    # Labels are kept twice; blocks hold rows and row ids; what a sample knows of its candidates goes unsaid.
    assert planned.scratch_bytes == rows.nbytes + 8 * len(rows) + sum(found.values()) + found["labels"]
    assert ("bounds" in found) == (fit_mode == "full")
