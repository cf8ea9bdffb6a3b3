"""Equal bits of Gaussian mixtures on real embeddings: engines, partitions, lost runs; principal axes included."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distclust.config import GMMJob
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.gmm import run_gmm
from tests.recovery.cases import Bits, Case, labels_of, regroup

SETTINGS: dict[str, Any] = {
    "column": "embedding",
    "k": 8,
    "pca": 24,
    "covariance_type": "full",
    "top": 3,
    "max_iter": 9,
    "tol": 0.0,
}
WAIT_SECONDS = 240


def mixture_bits(run: Path) -> Bits:
    """Hash mixture, projection and labels of a finished run."""
    model = hashlib.sha256()
    for name in ("mixture.parquet", "projection.parquet"):
        model.update((run / "model" / name).read_bytes())
    return Bits(model.hexdigest(), labels_of(run), "")


def fitted(data: Path, output: Path, **more: Any) -> Bits:
    run_gmm(GMMJob(data=str(data), output=str(output), **{**SETTINGS, **more}))
    return mixture_bits(output)


@pytest.fixture(scope="module")
def reference(minipile: Case, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    return fitted(minipile.data, tmp_path_factory.mktemp("mixture") / "out", engine="local[2]")


@pytest.mark.parametrize("engine", ["local[1]", "dask", "local-cluster[2,1,1024]"])
def test_engines_agree(engine: str, minipile: Case, reference: Bits, tmp_path: Path) -> None:
    assert fitted(minipile.data, tmp_path / "out", engine=engine) == reference


def test_the_hostile_engine_agrees(
    minipile: Case, reference: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=5, options=options, harm=0.05)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert fitted(minipile.data, tmp_path / "out") == reference


def test_other_files_and_partitions_agree(minipile: Case, reference: Bits, tmp_path: Path) -> None:
    files = regroup(minipile.data, tmp_path / "data", rows_per_file=9_973, row_group=777)
    assert fitted(files, tmp_path / "out", target_bytes="3MB") == reference


def test_another_seed_does_not_agree(minipile: Case, reference: Bits, tmp_path: Path) -> None:
    assert fitted(minipile.data, tmp_path / "out", seed=8) != reference, "the comparison must be able to fail"


def test_a_killed_and_resumed_run_gives_the_bits(minipile: Case, reference: Bits, tmp_path: Path) -> None:
    run = tmp_path / "out"
    flags = [w for key, v in SETTINGS.items() for w in ("-k" if key == "k" else f"--{key.replace('_', '-')}", str(v))]
    command = [sys.executable, "-m", "distclust.cli.main", "gmm", str(minipile.data), *flags, "-o", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while 2 not in _passes(run):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (run / "manifest.json").exists()
    begun = len(_passes(run))
    subprocess.run(command, check=True, capture_output=True)
    assert 0 < len(_passes(run)) - begun < SETTINGS["max_iter"], "it goes on from a checkpoint"
    assert mixture_bits(run) == reference
    assert json.loads((run / "manifest.json").read_text())["summary"]["projection"]["components"] == 24


def _passes(run: Path) -> list[int]:
    path = run / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["iteration"] for event in events if event["event"] == "LikelihoodEnded"]
