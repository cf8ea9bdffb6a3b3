"""The two datasets of the promise of equal bits, and the reference runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.recovery.cases import Bits, Case, run_bits, write_vectors

WIDE_ROWS, WIDE_WIDTH, WIDE_FILES = 2_000_000, 64, 40


@pytest.fixture(scope="session")
def minipile(shared_data: Path) -> Case:
    """Real embeddings: 64 900 x 384 float16 in 6 files, and clusters enough for passes by lists of near centres."""
    return Case(shared_data / "minipile", {"column": "embedding", "k": 300, "seed": 7, "max_iter": 12, "rtol": 0.0})


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Generated rows: 2 000 000 x 64 float32 in 40 files."""
    directory = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(150, WIDE_WIDTH)).astype(np.float32)
    per_file = WIDE_ROWS // WIDE_FILES
    for i in range(WIDE_FILES):
        rows = rng.standard_normal((per_file, WIDE_WIDTH), dtype=np.float32)
        rows += centers[rng.integers(0, len(centers), per_file)]
        write_vectors(rows, directory / f"part-{i:05d}.parquet", row_group=10_000)
    return Case(directory, {"column": "embedding", "k": 100, "seed": 1, "max_iter": 6, "rtol": 0.0})


@pytest.fixture(scope="session")
def medoids(shared_data: Path) -> Case:
    """The same embeddings by k-medoids: passes of swaps judged on 300 columns, and passes for central rows."""
    settings = {
        "column": "embedding",
        "k": 40,
        "metric": "cosine",
        "method": "onebatch",
        "batch_size": 300,
        "rtol": 0.0,
    }
    return Case(shared_data / "minipile", {**settings, "max_iter": 3}, "kmedoids")


@pytest.fixture(scope="session")
def diamonds(shared_data: Path) -> Case:
    """Real numbers and categories: 53 940 rows of 9 columns."""
    columns = ("carat", "cut", "color", "clarity", "depth", "table", "price", "x", "y")
    settings = {"columns": columns, "k": 15, "metric": "gower", "method": "onebatch", "batch_size": 300, "rtol": 0.0}
    return Case(shared_data / "mixed" / "diamonds.parquet", {**settings, "max_iter": 3}, "kmedoids")


@pytest.fixture(scope="session")
def medoids_bits(medoids: Case, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """The reference: local threads, two of them."""
    return run_bits(medoids.job(tmp_path_factory.mktemp("reference") / "out", engine="local[2]"))


@pytest.fixture(scope="session")
def diamonds_bits(diamonds: Case, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """The reference: local threads, two of them."""
    return run_bits(diamonds.job(tmp_path_factory.mktemp("reference") / "out", engine="local[2]"))


@pytest.fixture(scope="session")
def minipile_bits(minipile: Case, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """The reference: local threads, two of them."""
    return run_bits(minipile.job(tmp_path_factory.mktemp("reference") / "out", engine="local[2]"))


@pytest.fixture(scope="session")
def wide_bits(wide: Case, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """The reference: local threads, two of them."""
    return run_bits(wide.job(tmp_path_factory.mktemp("reference") / "out", engine="local[2]"))
