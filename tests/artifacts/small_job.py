"""A job of a few milliseconds that does all a real one does in its run directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from distclust.artifacts.codec import sha256
from distclust.artifacts.commit import commit_file, read_commits
from distclust.artifacts.model import save_model
from distclust.artifacts.run import RunDirectory

STEPS = 3
PARTS = 2
INPUTS: dict[str, Any] = {"digest": "d1", "files": [{"uri": "a.parquet", "size": 10}]}


def open_job(output: str | Path, k: int = 3, **options: Any) -> RunDirectory:
    settings = {"kind": "kmeans/1", "config": {"n_clusters": k}, "inputs": INPUTS, "seed": 7, "engine": "local"}
    return RunDirectory.open(output, **{**settings, **options})


def work(run: RunDirectory, k: int, pause: float = 0.0) -> dict[str, Any]:
    """Iterate with checkpoints, label, save the model, finish: goes on from whatever is there."""
    checkpoints = run.checkpoints("kmeans")
    found = checkpoints.load()
    step, x = (found.step, found.arrays["x"]) if found else (0, np.full((k, 2), 0.1, np.float32))
    while step < STEPS:
        step, x = step + 1, np.sin(x * 3 + np.float32(step))
        checkpoints.save(step, {"inertia": float(x.sum())}, {"x": x})
        run.append_event({"event": "IterationEnded", "iteration": step})
        time.sleep(pause)
    for index in range(PARTS):
        data = x.tobytes() + bytes([index])
        commit_file(run.storage, "labels", index, f"part-{index:05d}", ".parquet", data, rows=1)
    assert len(read_commits(run.storage, "labels")) == PARTS
    save_model(
        run.storage, kind="kmeans/1", centers=x, sizes=np.ones(k, np.int64), inertias=np.ones(k), metric="euclidean"
    )
    return run.finish({"rows": PARTS}, {"centers": sha256(x.tobytes())})


def do_job(output: str | Path, k: int = 3, pause: float = 0.0, **options: Any) -> dict[str, Any]:
    """Run the job to its end; return the manifest."""
    with open_job(output, k, **options) as run:
        return run.manifest() if run.state == "complete" else work(run, k, pause)


def results(manifest: dict[str, Any]) -> dict[str, str]:
    """Digests of what a run is for: all but run.json, which tells the time, and checkpoints, which serve their end."""
    left_out = ("run.json", "checkpoints/")
    return {file["path"]: file["digest"] for file in manifest["files"] if not file["path"].startswith(left_out)}


if __name__ == "__main__":
    do_job(sys.argv[1], pause=float(sys.argv[2]))
