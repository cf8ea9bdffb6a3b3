"""Rows grouped by key: the same groups in the same order however rows are cut and whoever runs the tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.artifacts.commit import forget, read_commits
from distclust.data.block import Block
from distclust.data.storage import Storage, open_storage
from distclust.engines.events import TaskEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine, EngineOptions, StepContext
from distclust.errors import StorageError, UsageError
from distclust.ops import exchange as module
from distclust.ops.exchange import Buckets, Exchange, Keyed, cut_buckets, gather, scatter, workspace
from distclust.ops.profile import PreparedData
from distclust.testing.hostile import HostileEngine
from tests.algorithms.rows import prepared, random_sizes

RECORD = np.dtype([("row_id", "<i8"), ("x", "<f4", (3,))])
BUCKETS = 7


@dataclass(frozen=True)
class ByKey:
    """Rows of a block under given keys."""

    keys: np.ndarray

    def __call__(self, block: Block, value: None, context: StepContext) -> Keyed:
        records = np.empty(block.n, RECORD)
        records["row_id"], records["x"] = block.row_ids, block.x
        return Keyed(self.keys[block.row_ids], block.row_ids, records, {"rows": block.n})


@dataclass(frozen=True)
class Describe:
    """Row ids and a digest of the rows of every bucket, tile by tile."""

    most: int | None = None

    def __call__(self, buckets: Buckets, value: None, context: StepContext) -> list[tuple[int, list[int], str]]:
        return [
            (key, tile["row_id"].tolist(), hashlib.sha256(tile["x"].tobytes()).hexdigest())
            for key, tile in buckets.tiles(self.most)
        ]


def rows_and_keys(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    keys = np.minimum(rng.geometric(0.4, n) - 1, BUCKETS - 1)  # the first bucket has nearly half of the rows
    return rng.normal(size=(n, 3)).astype(np.float32), np.where(keys == 4, 5, keys)  # one bucket stays empty


def exchanged(engine: Engine, data: PreparedData, keys: np.ndarray, storage: Storage) -> Exchange:
    return scatter(
        engine, data.pinned, ByKey(keys),
        storage=storage, name="rows", n_buckets=BUCKETS, dtype=RECORD, label="group",
    )  # fmt: skip


def groups(
    engine: Engine, X: np.ndarray, keys: np.ndarray, sizes: list[int] | None, place: Path, most: int | None = None
) -> list[Any]:
    with prepared(engine, X, sizes) as data:
        found = gather(engine, exchanged(engine, data, keys, open_storage(place)), Describe(most), label="describe")
        return [group for part in found for group in part]


def test_groups_hold_their_rows_in_row_id_order(tmp_path: Path) -> None:
    X, keys = rows_and_keys(500)
    with LocalEngine(2) as engine:
        found = groups(engine, X, keys, random_sizes(np.random.default_rng(1), 500, 6), tmp_path)
    assert [(key, ids) for key, ids, _ in found] == [
        (key, np.flatnonzero(keys == key).tolist()) for key in range(BUCKETS) if key != 4
    ]


def test_partitions_and_engines_agree(tmp_path: Path) -> None:
    X, keys = rows_and_keys(900)
    rng = np.random.default_rng(2)
    with LocalEngine(2) as local, HostileEngine(4) as hostile:
        whole = groups(local, X, keys, None, tmp_path / "a")
        assert groups(local, X, keys, random_sizes(rng, 900, 11), tmp_path / "b") == whole
        assert groups(hostile, X, keys, random_sizes(rng, 900, 7), tmp_path / "c") == whole


@pytest.mark.parametrize("most", [1, 10, 64, 10_000])
def test_a_group_above_the_limit_comes_in_tiles(most: int, tmp_path: Path) -> None:
    X, keys = rows_and_keys(700)
    rng = np.random.default_rng(3)
    with LocalEngine(2) as engine:
        tiled = groups(engine, X, keys, random_sizes(rng, 700, 9), tmp_path / "a", most)
        assert groups(engine, X, keys, None, tmp_path / "b", most) == tiled
    for key in range(BUCKETS):
        ids = np.flatnonzero(keys == key).tolist()
        assert [tile for k, tile, _ in tiled if k == key] == [ids[i : i + most] for i in range(0, len(ids), most)]


def test_one_file_a_partition(tmp_path: Path) -> None:
    X, keys = rows_and_keys(300)
    with LocalEngine(2) as engine, prepared(engine, X, [100, 150, 50]) as data:
        found = exchanged(engine, data, keys, open_storage(tmp_path))
    assert len(list((tmp_path / "rows").iterdir())) == 3
    assert found.counts.tolist() == np.bincount(keys, minlength=BUCKETS).tolist()
    assert [extra["rows"] for extra in found.extras] == [100, 150, 50]


def test_committed_partitions_are_not_written_again(tmp_path: Path) -> None:
    X, keys = rows_and_keys(300)
    tasks: list[TaskEnded] = []
    options = EngineOptions(emit=lambda event: tasks.append(event) if isinstance(event, TaskEnded) else None)
    storage = open_storage(tmp_path)
    with LocalEngine(2, options) as engine, prepared(engine, X, [100, 150, 50]) as data:
        first = exchanged(engine, data, keys, storage)
        storage.remove("commits/rows/00001.json")
        tasks.clear()
        again = exchanged(engine, data, keys, storage)
    assert [task.rows for task in tasks] == [150]
    assert again.files == first.files


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    X, keys = rows_and_keys(300)
    with LocalEngine(1) as engine, prepared(engine, X) as data:
        found = exchanged(engine, data, keys, open_storage(tmp_path))
        path = tmp_path / found.files[0]
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole[:40], b"", bytes(len(whole))):
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match="is not whole") as error:
                gather(engine, found, Describe(), label="describe")
            assert "resume the run" in error.value.do


def test_workers_that_write_elsewhere_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, keys = rows_and_keys(100)
    elsewhere = open_storage(tmp_path / "worker")
    monkeypatch.setattr(module, "ScatterStep", lambda produce, storage, *rest: Elsewhere(produce, elsewhere, *rest))
    with (
        LocalEngine(1) as engine,
        prepared(engine, X, [60, 40]) as data,
        pytest.raises(StorageError, match="files of 2 of 2 partitions were written but are not here"),
    ):
        exchanged(engine, data, keys, open_storage(tmp_path / "driver"))


class Elsewhere(module.ScatterStep):
    """Writes to a directory that the driver does not look into."""


def test_an_engine_without_shared_storage_is_refused() -> None:
    with LocalEngine(1) as engine:
        engine.info = replace(engine.info, name="dask", shared_storage=False)
        with (
            pytest.raises(UsageError, match="the workers of the dask engine do not see the driver's"),
            workspace(engine),
        ):
            raise AssertionError("not reached")


def test_without_a_run_directory_scratch_is_used_and_left_empty(tmp_path: Path) -> None:
    options = EngineOptions()
    options = replace(options, node=replace(options.node, scratch=str(tmp_path)))
    X, keys = rows_and_keys(100)
    with LocalEngine(1, options) as engine, prepared(engine, X) as data:
        with workspace(engine) as storage:
            exchanged(engine, data, keys, storage)
            assert Path(storage.uri).is_relative_to(tmp_path)
        assert not Path(storage.uri).exists()


def test_forgetting_removes_files_and_commits(tmp_path: Path) -> None:
    X, keys = rows_and_keys(100)
    storage = open_storage(tmp_path)
    with LocalEngine(1) as engine, prepared(engine, X) as data:
        exchanged(engine, data, keys, storage)
    forget(storage, "rows")
    assert read_commits(storage, "rows") == {}
    assert storage.list() == []


def test_keys_out_of_range_are_an_error(tmp_path: Path) -> None:
    X, keys = rows_and_keys(100)
    with (
        LocalEngine(1) as engine,
        prepared(engine, X) as data,
        pytest.raises(ValueError, match=f"0 to {BUCKETS - 1} is allowed"),
    ):
        exchanged(engine, data, keys + 3, open_storage(tmp_path))


@given(st.lists(st.integers(0, 500_000), min_size=1, max_size=40), st.integers(1, 4000))
def test_gather_partitions_cover_all_buckets_and_stay_small(counts: list[int], record_bytes: int) -> None:
    cuts = cut_buckets(np.array(counts, np.int64), record_bytes)
    assert cuts[0] == 0
    assert cuts[-1] == len(counts)
    assert list(cuts) == sorted(set(cuts))
    most = min(module.RANGE_BYTES // record_bytes, -(-sum(counts) // module.LEAST_RANGES))
    for start, stop in pairwise(cuts):
        filled = [count for count in counts[start:stop] if count]
        assert sum(filled) <= max(1, most) or len(filled) == 1
