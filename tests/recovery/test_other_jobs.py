"""Equal bits of bisecting, balanced assignment, sweeps and streams: engines, partitions, kills, lost workers.

Small generated rows; every test compares the files of a finished run with those of the reference run (local, two
threads), read without distclust. The clusters are started once and shared by the jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster

from distclust import KMeans
from distclust.config import KMeansJob
from distclust.engines import spark_session
from distclust.testing.hostile import HostileEngine
from distclust.workflows import common
from distclust.workflows.kmeans import run_kmeans
from tests.recovery.cases import Bits, Case, run_bits, write_vectors
from tests.recovery.killing import Killer, Moment, command_of, events_of, executors, kill_at

WIDTH, FILES, ROWS_PER_FILE = 8, 4, 3_000
SPARK = "local-cluster[2,1,1024]"

JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "bisect": ("bisect", {"column": "embedding", "k": 8, "max_iter": 5}),
    "balanced": ("assign", {"balanced": True, "capacity_slack": 0.02}),
    "sweep": ("sweep", {"column": "embedding", "k": "4,12", "seed": 3, "max_iter": 8, "rtol": 0.0}),
}
"""Kind and settings."""

LOOPS = {"bisect": "bisect", "balanced": "balance: prices", "sweep": "lloyd"}
"""Label of the passes that a job repeats, and in which it is killed."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 000 x 8 float32 in four files: 20 overlapping clouds of different sizes."""
    directory = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(20, WIDTH)).astype(np.float32) * 2
    shares = np.arange(1, 21) / np.arange(1, 21).sum()
    for i in range(FILES):
        block = rng.standard_normal((ROWS_PER_FILE, WIDTH), dtype=np.float32)
        block += centers[rng.choice(20, ROWS_PER_FILE, p=shares)]
        write_vectors(block, directory / f"part-{i}.parquet", row_group=700)
    return directory


@pytest.fixture(scope="module")
def model(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to assign with."""
    run = tmp_path_factory.mktemp("model") / "out"
    run_kmeans(KMeansJob(data=str(rows), column="embedding", k=12, max_iter=4, output=str(run), engine="local[2]"))
    return run


@pytest.fixture(scope="module", params=JOBS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def case(name: str, rows: Path, model: Path) -> Case:
    kind, settings = JOBS[name]
    return Case(rows, settings | ({"model": str(model)} if kind == "assign" else {}), kind)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference runs are."""
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def bits(name: str, case: Case, reference: Path) -> Bits:
    """The reference: local threads, two of them."""
    return run_bits(case.job(reference / name, engine="local[2]"))


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two worker processes; one that is killed is replaced."""
    directory = str(tmp_path_factory.mktemp("dask"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=directory) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def spark() -> Iterator[str]:
    """Two executors; one that is killed is replaced. Engines use the context that is active in the process."""
    session = spark_session.start(SPARK, 4)
    yield SPARK
    session.stop()


def address(dask: LocalCluster) -> str:
    return dask.scheduler_address.replace("tcp://", "dask://")


def task_ended(name: str) -> Moment:
    """Return the end of a task of the passes that a job repeats."""

    def moment(event: dict[str, Any]) -> bool:
        return event["event"] == "TaskEnded" and event["label"] == LOOPS[name]

    return moment


@pytest.mark.parametrize("engine", ["local[1]", "local[3]"])
def test_threads_agree(engine: str, case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", engine=engine)) == bits


def test_dask_agrees(case: Case, bits: Bits, dask: LocalCluster, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", engine=address(dask))) == bits


def test_spark_agrees(case: Case, bits: Bits, spark: str, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", engine=spark)) == bits


def test_lists_of_nearest_centres_agree(
    rows: Path, model: Path, dask: LocalCluster, spark: str, tmp_path: Path
) -> None:
    case = Case(rows, {"model": str(model), "top": 5}, "assign")
    found = [run_bits(case.job(tmp_path / str(i), engine=e)) for i, e in enumerate(("local[2]", address(dask), spark))]
    assert found[0] == found[1] == found[2]
    assert found[0] != run_bits(case.job(tmp_path / "fewer", top=4)), "the comparison must be able to fail"


def test_streams_agree(rows: Path, dask: LocalCluster, spark: str) -> None:
    fits = []
    for engine in ("local[2]", address(dask), spark):
        km = KMeans(9, random_state=2, engine=engine)
        for batch in sorted(rows.glob("*.parquet"))[:3]:
            km.partial_fit(batch, column="embedding")
        fits.append((km.cluster_centers_.tobytes(), km.labels_.tobytes(), km.counts_.tobytes(), km.inertia_))
    assert fits[0] == fits[1] == fits[2]


def test_the_hostile_engine_agrees(case: Case, bits: Bits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(spec: object, options: Any) -> HostileEngine:
        return HostileEngine(seed=5, options=options, harm=0.05)

    monkeypatch.setattr(common, "open_engine", hostile)
    assert run_bits(case.job(tmp_path / "out", target_bytes="40KB")) == bits


@pytest.mark.parametrize("target_bytes", ["20KB", "200MB"])
def test_partition_sizes_agree(target_bytes: str, case: Case, bits: Bits, tmp_path: Path) -> None:
    assert run_bits(case.job(tmp_path / "out", target_bytes=target_bytes)) == bits


def test_a_run_killed_and_resumed_gives_the_bits(
    name: str, case: Case, bits: Bits, reference: Path, tmp_path: Path
) -> None:
    run, moment = tmp_path / "out", task_ended(name)
    kill_at(command_of(case, run, "--engine", "local[2]"), run, moment, times=40)
    begun = len(events_of(run))
    assert run_bits(case.job(run, engine="local[2]")) == bits
    again, whole = (sum(map(moment, events)) for events in (events_of(run)[begun:], events_of(reference / name)))
    assert 0 < again < whole, "the second run goes on from the first one's checkpoint"


def test_a_lost_dask_worker_changes_no_bit(
    name: str, case: Case, bits: Bits, dask: LocalCluster, tmp_path: Path
) -> None:
    killer = Killer(lambda: next(iter(dask.workers.values())).pid, task_ended(name), times=9, delay=0.01)
    assert run_bits(case.job(tmp_path / "out", engine=address(dask)), killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0


def test_a_lost_spark_executor_changes_no_bit(name: str, case: Case, bits: Bits, spark: str, tmp_path: Path) -> None:
    killer = Killer(lambda: executors()[0], task_ended(name), times=9, delay=0.02)
    assert run_bits(case.job(tmp_path / "out", engine=spark), killer) == bits
    assert killer.killed is not None
    assert killer.tasks_after > 0


def test_other_settings_do_not_agree(case: Case, bits: Bits, tmp_path: Path) -> None:
    other = {"bisect": {"k": 9}, "sweep": {"seed": 4}, "assign": {"capacity_slack": 0.1}}[case.kind]
    assert run_bits(case.job(tmp_path / "out", **other)) != bits, "the comparison must be able to fail"
