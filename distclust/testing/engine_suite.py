"""The laws of the engine protocol as tests; every engine runs them.

    from distclust.testing.engine_suite import EngineSuite

    class TestMyEngine(EngineSuite):
        @pytest.fixture
        def opened(self, my_cluster):
            return lambda options: MyEngine(my_cluster, options)

Rows are in files, so engines of many processes run the suite as it is; they must see the test's directories.
"""

# ruff: noqa: D102 - a test's name says it

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from traceback import format_exception
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distclust.data.node import NodeConfig
from distclust.data.refs import BlockView, Columns, Fingerprint, PartitionRef
from distclust.engines.events import Event, Note, TaskEnded, TaskRetried
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError, EngineLostError, UsageError
from distclust.testing.steps import (
    ColumnTotals,
    FloatSum,
    FloatSums,
    Indices,
    LastOf,
    Remembering,
    RowIds,
    Seen,
    Sleeping,
    Trouble,
    WeightedIds,
    add,
    count,
    join,
)

WIDTH = 4
NPY_VIEW = BlockView(Columns(), WIDTH)
PARQUET_VIEW = BlockView(Columns(vector="vector"), WIDTH)


def npy_refs(directory: Path, sizes: Sequence[int]) -> tuple[PartitionRef, ...]:
    """Write one ``.npy`` of small whole numbers and cut it into partitions of the given sizes."""
    n = sum(sizes)
    path = directory / f"rows-{n}-{len(sizes)}.npy"
    np.save(path, np.random.default_rng(n).integers(-50, 50, (n, WIDTH)).astype(np.float32))
    stat = path.stat()
    fingerprint = Fingerprint(stat.st_size, stat.st_mtime_ns)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return tuple(
        PartitionRef(i, str(path), "npy", (), offsets[i], size, offsets[i], fingerprint) for i, size in enumerate(sizes)
    )


def parquet_refs(directory: Path, sizes: Sequence[int]) -> tuple[PartitionRef, ...]:
    """Write one Parquet file with a row group, and a partition, of each of the given sizes."""
    path = directory / f"rows-{len(sizes)}.parquet"
    kind = pa.list_(pa.float32(), WIDTH)
    refs, offset = [], 0
    with pq.ParquetWriter(path, pa.schema([("vector", kind)])) as writer:
        for i, size in enumerate(sizes):
            rows = np.random.default_rng(i).integers(-50, 50, size * WIDTH).astype(np.float32)
            writer.write_table(pa.table({"vector": pa.FixedSizeListArray.from_arrays(rows, type=kind)}))
            refs.append(PartitionRef(i, str(path), "parquet", (i,), 0, size, offset, Fingerprint(0)))
            offset += size
    stat = path.stat()
    return tuple(replace(ref, fingerprint=Fingerprint(stat.st_size, stat.st_mtime_ns)) for ref in refs)


class EngineSuite:
    """Laws that every engine keeps. A subclass gives the fixture ``opened``."""

    retries: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, ...]] = (7, 1, 40, 3, 3, 90, 2, 5, 11, 30, 1)

    @pytest.fixture
    def opened(self) -> Callable[[EngineOptions], AbstractContextManager[Engine]]:
        """Return a function that opens an engine for the ``with`` of one test; a subclass overrides it."""
        raise NotImplementedError

    @pytest.fixture
    def events(self) -> list[Event]:
        """Everything that the test's engine reported."""
        return []

    @pytest.fixture
    def engine(
        self, opened: Callable[[EngineOptions], AbstractContextManager[Engine]], events: list[Event]
    ) -> Iterator[Engine]:
        """The test's engine."""
        with opened(EngineOptions(emit=events.append, retries=self.retries)) as engine:
            yield engine

    @pytest.fixture
    def diary(self, tmp_path: Path) -> Path:
        """Directory that all workers see, where steps leave traces."""
        path = tmp_path / "diary"
        path.mkdir()
        return path

    @pytest.fixture
    def pinned(self, engine: Engine, tmp_path: Path) -> Any:
        """Partitions of very unequal sizes."""
        return engine.pin(npy_refs(tmp_path, self.sizes), NPY_VIEW, label="suite")

    def test_map_keeps_partition_order(self, engine: Engine, pinned: Any) -> None:
        results = engine.map(pinned, RowIds(), label="ids")
        assert [len(ids) for ids in results] == list(self.sizes)
        np.testing.assert_array_equal(np.concatenate(results), np.arange(sum(self.sizes)))

    def test_map_reads_parquet(self, engine: Engine, tmp_path: Path) -> None:
        pinned = engine.pin(parquet_refs(tmp_path, self.sizes), PARQUET_VIEW, label="suite")
        results = engine.map(pinned, RowIds(), label="ids")
        np.testing.assert_array_equal(np.concatenate(results), np.arange(sum(self.sizes)))

    def test_step_is_told_label_index_and_value(self, engine: Engine, pinned: Any) -> None:
        value = {"centers": (1.0, 2.0)}
        assert engine.map(pinned, Seen(), value, label="who") == [("who", i, value) for i in range(len(self.sizes))]

    def test_subset_of_partitions_keeps_their_indices(self, engine: Engine, tmp_path: Path) -> None:
        refs = npy_refs(tmp_path, self.sizes)
        pinned = engine.pin([refs[8], refs[2], refs[5]], NPY_VIEW, label="suite")
        assert [index for _, index, _ in engine.map(pinned, Seen(), label="who")] == [8, 2, 5]
        assert engine.fold(pinned, FloatSums(), FloatSum.merge, label="sum").order == "((8 2) 5)"

    def test_fold_is_the_reduction_of_the_map(self, engine: Engine, pinned: Any) -> None:
        n = sum(self.sizes)
        assert engine.fold(pinned, WeightedIds(), add, 3, label="fold") == 3 * n * (n - 1) // 2

    def test_fold_merges_neighbours_in_order(self, engine: Engine, pinned: Any) -> None:
        assert engine.fold(pinned, Indices(), join, label="order") == list(range(len(self.sizes)))

    def test_fold_does_not_mutate_partials(self, engine: Engine, pinned: Any) -> None:
        expected = sum(engine.map(pinned, ColumnTotals(), label="totals"))
        for _ in range(2):
            np.testing.assert_array_equal(engine.fold(pinned, ColumnTotals(), add, label="totals"), expected)

    @pytest.mark.parametrize("n_parts", [1, 2, 3, 8, 13, 37])
    def test_inexact_partials_merge_along_the_fixed_tree(self, engine: Engine, tmp_path: Path, n_parts: int) -> None:
        pinned = engine.pin(npy_refs(tmp_path, [1 + 7 * i % 5 for i in range(n_parts)]), NPY_VIEW, label="suite")
        leaves = engine.map(pinned, FloatSums(), label="tree")
        total = engine.fold(pinned, FloatSums(), FloatSum.merge, label="tree")
        assert total == reference_tree(leaves)

    def test_shared_value_serves_many_calls(self, engine: Engine, pinned: Any) -> None:
        n = sum(self.sizes)
        with engine.share(2) as shared:
            totals = [engine.fold(pinned, WeightedIds(), add, shared, label="fold") for _ in range(3)]
            assert engine.map(pinned, Seen(), shared, label="who")[0] == ("who", 0, 2)
        assert totals == [n * (n - 1)] * 3

    def test_large_shared_value_arrives_whole(self, engine: Engine, pinned: Any) -> None:
        value = np.arange(1_500_000, dtype=np.float64)
        assert set(engine.map(pinned, LastOf(), value, label="large")) == {(1_500_000, 1_499_999.0)}

    def test_released_value_is_refused(self, engine: Engine, pinned: Any) -> None:
        with engine.share(2) as shared:
            pass
        with pytest.raises(UsageError, match="released"):
            engine.fold(pinned, WeightedIds(), add, shared, label="late")

    def test_state_is_advisory(self, engine: Engine, pinned: Any, diary: Path) -> None:
        step = Remembering(diary)
        results = [np.concatenate(engine.map(pinned, step, tag, label="state")) for tag in ("a", "a", "b", "a")]
        for result in results:
            np.testing.assert_array_equal(result, 2 * np.arange(sum(self.sizes)))

    def test_data_error_is_raised_once_and_names_its_place(self, engine: Engine, pinned: Any, diary: Path) -> None:
        with pytest.raises(DataError) as caught:
            engine.fold(pinned, Trouble("data", 4, diary), add, 1, label="lloyd")
        assert count(diary, "call-4") == 1
        assert caught.value.where == "stage 'lloyd', partition 4, part.npy"
        assert caught.value.do == "Repair it."

    @pytest.mark.parametrize("kind", ["io", "memory", "unpicklable"])
    def test_passing_trouble_is_cured_by_retries(
        self, engine: Engine, pinned: Any, diary: Path, events: list[Event], kind: str
    ) -> None:
        n = sum(self.sizes)
        step = Trouble(kind, 5, diary, times=self.retries)
        assert engine.fold(pinned, step, add, 1, label="flaky") == n * (n - 1) // 2
        assert count(diary, "trouble") == self.retries
        retried = [event for event in events if isinstance(event, TaskRetried)]
        assert [event.attempt for event in retried] == list(range(1, self.retries + 1))

    def test_lasting_trouble_ends_the_run(self, engine: Engine, pinned: Any, diary: Path) -> None:
        with pytest.raises(EngineLostError, match=r"storage hung up") as caught:
            engine.fold(pinned, Trouble("io", 5, diary), add, 1, label="broken")
        assert count(diary, "trouble") == self.retries + 1
        assert caught.value.where.startswith("stage 'broken', partition 5")

    def test_mistake_in_a_step_is_not_retried(self, engine: Engine, pinned: Any, diary: Path) -> None:
        with pytest.raises(TypeError, match="a mistake in the step") as caught:
            engine.map(pinned, Trouble("type", 2, diary), 1, label="wrong")
        assert count(diary, "call-2") == 1
        trace = "".join(format_exception(caught.value))
        assert "stage 'wrong', partition 2" in trace
        assert "steps.py" in trace

    def test_engine_goes_on_after_an_error(self, engine: Engine, pinned: Any, diary: Path) -> None:
        with pytest.raises(DataError):
            engine.map(pinned, Trouble("data", 0, diary), 1, label="first")
        assert engine.fold(pinned, Indices(), join, label="second") == list(range(len(self.sizes)))

    def test_nothing_pinned(self, engine: Engine) -> None:
        pinned = engine.pin([], NPY_VIEW, label="suite")
        assert engine.map(pinned, RowIds(), label="none") == []
        with pytest.raises(UsageError, match="at least one partition"):
            engine.fold(pinned, RowIds(), add, label="none")

    def test_many_partitions(self, engine: Engine, tmp_path: Path) -> None:
        pinned = engine.pin(npy_refs(tmp_path, [2] * 300), NPY_VIEW, label="suite")
        assert engine.fold(pinned, Indices(), join, label="many") == list(range(300))

    def test_tasks_are_few_and_report_their_rows(self, engine: Engine, pinned: Any, events: list[Event]) -> None:
        engine.fold(pinned, Indices(), join, label="rows")
        ended = [event for event in events if isinstance(event, TaskEnded)]
        assert sum(event.rows for event in ended) == sum(self.sizes)
        assert {event.label for event in ended} == {"rows"}
        assert len(ended) <= 4 * engine.info.slots

    def test_memory_references_run_or_are_refused(self, engine: Engine, tmp_path: Path) -> None:
        refs = [replace(ref, uri="memory://none", format="memory") for ref in npy_refs(tmp_path, [3, 4])]
        if engine.info.sees_driver_memory:
            assert engine.pin(refs, NPY_VIEW, label="suite").n_rows == 7
        else:
            with pytest.raises(UsageError, match="memory"):
                engine.pin(refs, NPY_VIEW, label="suite")

    def test_cancel_before_a_call(self, opened: Any, tmp_path: Path, diary: Path) -> None:
        cancel = CancelToken()
        with opened(EngineOptions(cancel=cancel)) as engine:
            pinned = engine.pin(npy_refs(tmp_path, self.sizes), NPY_VIEW, label="suite")
            cancel.cancel()
            with pytest.raises(CancelledError):
                engine.map(pinned, Trouble("data", 0, diary), 1, label="never")
        assert list(diary.iterdir()) == []

    def test_cancel_within_a_call(self, opened: Any, tmp_path: Path, diary: Path) -> None:
        cancel = CancelToken()
        with opened(EngineOptions(cancel=cancel)) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [1] * 64), NPY_VIEW, label="suite")
            timer = Timer(0.2, cancel.cancel)
            timer.start()
            with pytest.raises(CancelledError):
                engine.map(pinned, Sleeping(0.03, diary), label="slow")
            timer.join()

    def test_close_twice(self, opened: Any, tmp_path: Path) -> None:
        with opened(EngineOptions()) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [2, 3]), NPY_VIEW, label="suite")
            assert len(engine.map(pinned, RowIds(), label="ids")) == 2
            engine.close()
            engine.close()
            with pytest.raises(UsageError, match="closed"):
                engine.map(pinned, RowIds(), label="ids")

    def test_notes_of_the_node_cache_are_said_once(self, opened: Any, tmp_path: Path, events: list[Event]) -> None:
        with opened(EngineOptions(emit=events.append, node=NodeConfig(cache_bytes=0))) as engine:
            pinned = engine.pin(npy_refs(tmp_path, self.sizes), NPY_VIEW, label="suite")
            for _ in range(2):
                engine.map(pinned, RowIds(), label="ids")
        (note,) = [event.message for event in events if isinstance(event, Note)]
        assert "Scratch" in note


def reference_tree(leaves: list[FloatSum]) -> FloatSum:
    """Merge neighbours in pairs, level by level: the tree that `distclust.engines.tree` promises."""
    while len(leaves) > 1:
        pairs = [leaves[i : i + 2] for i in range(0, len(leaves), 2)]
        leaves = [pair[0].merge(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
    return leaves[0]
