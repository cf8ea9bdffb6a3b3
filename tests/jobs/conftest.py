"""A small dataset, and the command line as tests call it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from distclust.cli.main import app

ROWS, WIDTH, BLOBS = 900, 6, 5


def write_rows(path: Path, rows: np.ndarray, *, first_id: int = 0) -> Path:
    """Write rows with an id, a weight and their single columns."""
    columns: dict[str, Any] = {
        "key": [f"row-{first_id + i}" for i in range(len(rows))],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1]),
        "weight": np.ones(len(rows)),
    }
    columns |= {f"x{i}": rows[:, i] for i in range(rows.shape[1])}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=200)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five far blobs, 900 x 6 float32, in two files."""
    rng = np.random.default_rng(5)
    centers = rng.normal(size=(BLOBS, WIDTH)) * 20
    rows = (centers[rng.integers(0, BLOBS, ROWS)] + rng.normal(size=(ROWS, WIDTH))).astype(np.float32)
    write_rows(tmp_path / "data" / "a.parquet", rows[:500])
    write_rows(tmp_path / "data" / "b.parquet", rows[500:], first_id=500)
    return tmp_path / "data"


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Call the command line in this process."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def cluster(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``kmeans`` on the dataset into ``tmp_path / "out"``, with further arguments."""

    def call(*more: object) -> Result:
        command = ("kmeans", dataset, "--column", "embedding", "-k", BLOBS, "-o", tmp_path / "out")
        return cli(*command, "--engine", "local[2]", *more)

    return call


def digests(result: Result) -> dict[str, str]:
    """Return the digests of a command that ran with ``--json``."""
    assert result.exit_code == 0, result.output
    found: dict[str, str] = json.loads(result.stdout)["digests"]
    return found


def subprocess_environment() -> dict[str, str]:
    """Return an environment in which a new process imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
