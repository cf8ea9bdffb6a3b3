"""The first promise: equal bits of centres and labels on every engine, in every partitioning.

Real embeddings and two million generated rows; every test compares the files of a finished run with those of the
reference run (local, two threads), read without distclust.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distclust.config import AssignJob
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.assign import run_assign
from distclust.workflows.kmeans import run_kmeans
from tests.recovery.cases import Bits, Case, bits_of, labels_of, regroup, run_bits

ENGINES = ("local[1]", "local[3]", "dask", "local-cluster[2,1,1024]")
"""One thread; more threads than the reference; two Dask processes; two Spark executors."""


@pytest.fixture(params=["minipile", "wide"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture
def bits(case: Case, request: pytest.FixtureRequest) -> Bits:
    name = "minipile_bits" if case.data.name == "minipile" else "wide_bits"
    return request.getfixturevalue(name)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree(engine: str, case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", engine=engine)) == bits


def test_the_hostile_engine_agrees(case: Case, bits: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=5, options=options, harm=0.05)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert run_bits(case.job(tmp_path / "out")) == bits


@pytest.mark.parametrize("target_bytes", ["1MB", "5MB", "200MB"])
def test_partition_sizes_agree(target_bytes: str, case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", target_bytes=target_bytes)) == bits


@pytest.mark.parametrize(("rows_per_file", "row_group"), [(9_973, 777), (50_000, 20_000)])
def test_regrouped_files_agree(
    rows_per_file: int, row_group: int, minipile: Case, minipile_bits: Bits, tmp_path: Path
) -> None:
    files = regroup(minipile.data, tmp_path / "data", rows_per_file=rows_per_file, row_group=row_group)
    assert run_bits(minipile.at(files).job(tmp_path / "out")) == minipile_bits


def test_regrouped_wide_files_agree(wide: Case, wide_bits: Bits, tmp_path: Path) -> None:
    files = regroup(wide.data, tmp_path / "data", rows_per_file=300_007, row_group=100_000)
    assert run_bits(wide.at(files).job(tmp_path / "out")) == wide_bits


def test_another_seed_does_not_agree(minipile: Case, minipile_bits: Bits, tmp_path: Path) -> None:
    assert run_bits(minipile.job(tmp_path / "out", seed=8)) != minipile_bits, "the comparison must be able to fail"


def test_labelling_with_the_stored_model_gives_the_labels_of_the_run(minipile: Case, tmp_path: Path) -> None:
    outcome = run_kmeans(minipile.job(tmp_path / "out"))
    again = run_assign(AssignJob(data=str(minipile.data), output=str(tmp_path / "again"), model=str(tmp_path / "out")))
    assert again.digests == outcome.digests
    assert labels_of(tmp_path / "again") == bits_of(tmp_path / "out").labels
