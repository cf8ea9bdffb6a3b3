"""Equal bits of PPP where a run is killed, a worker is lost, or nothing keeps the blocks in memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distclust.config import PPPJob
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.ppp import run_ppp
from tests.recovery.cases import Bits, bits_of, write_vectors

WAIT_SECONDS = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 60 000 rows of nine clusters in three files, one row far away."""
    directory = tmp_path_factory.mktemp("ppp") / "data"
    directory.mkdir()
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(60_000, 5)) + rng.normal(size=(9, 5))[rng.integers(0, 9, 60_000)] * 4
    rows[777] *= 1e6
    for i, part in enumerate(np.array_split(rows, 3)):
        write_vectors(part, directory / f"part-{i}.parquet", row_group=3_000)
    return directory


def fitted(data: Path, output: Path, **more: Any) -> Bits:
    run_ppp(PPPJob(data=str(data), column="embedding", output=str(output), **more))
    return bits_of(output)


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    return fitted(data, tmp_path_factory.mktemp("reference") / "out", engine="local[2]")


def test_the_hostile_engine_agrees(
    data: Path, reference: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=9, options=options, harm=0.05)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert fitted(data, tmp_path / "out", target_bytes="100KB") == reference


def test_a_killed_and_resumed_run_gives_the_bits(data: Path, reference: Bits, tmp_path: Path) -> None:
    run = tmp_path / "out"
    command = [sys.executable, "-m", "distclust.cli.main", "ppp", str(data), "--column", "embedding", "-o", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while 4 not in _levels(run):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (run / "manifest.json").exists()
    begun = len(_levels(run))
    subprocess.run(command, check=True, capture_output=True)
    assert _levels(run)[begun] > 3, "levels that were saved are not cut again"
    assert bits_of(run) == reference


def _levels(run: Path) -> list[int]:
    path = run / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["iteration"] for event in events if event["event"] == "IterationEnded"]
