from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.data.cache import node_cache
from distclust.data.node import NodeConfig
from distclust.data.refs import BlockView, Columns, Fingerprint, PartitionRef, RawView
from distclust.engines.code import PACKAGE, code_version
from distclust.engines.events import Note, TaskEnded, TaskRetried
from distclust.engines.job import Job, balance
from distclust.engines.protocol import EngineOptions, Pinned
from distclust.engines.task import Failure, Task, TaskOutcome, run_task
from distclust.engines.tree import Part
from distclust.errors import CancelledError, DataError, EngineLostError, StorageError
from distclust.testing.engine_suite import NPY_VIEW, npy_refs
from distclust.testing.steps import FloatSum, FloatSums, Indices, RowIds, Trouble, UnpicklableError, add, join


@pytest.fixture
def node(tmp_path):
    config = NodeConfig(scratch=str(tmp_path / "scratch"))
    yield config
    node_cache(config).close()


@pytest.fixture
def make_task(tmp_path, node):
    def make(step, merge=None, *, start=0, sizes=(4, 3, 5), n_partitions=3):
        return Task(start, npy_refs(tmp_path, sizes), NPY_VIEW, step, merge, "stage", node, n_partitions)

    return make


def failing(error):
    def step(block, value, context):
        raise error

    return step


class TestRunTask:
    def test_map_returns_a_part_per_partition(self, make_task):
        outcome = run_task(make_task(RowIds(), start=5), None)
        assert [(part.start, part.stop, len(part.value)) for part in outcome.parts] == [(5, 6, 4), (6, 7, 3), (7, 8, 5)]
        assert outcome.rows == 12
        assert outcome.error is outcome.failure is None

    def test_exact_partials_become_one(self, make_task):
        assert run_task(make_task(Indices(), join, start=1), None).parts == (Part(1, 4, [0, 1, 2]),)

    def test_inexact_partials_become_maximal_subtrees(self, make_task):
        task = make_task(FloatSums(), FloatSum.merge, start=1, sizes=(1,) * 6, n_partitions=7)
        parts = run_task(task, None).parts
        assert [(part.start, part.stop, part.value.order) for part in parts] == [
            (1, 2, "0"),
            (2, 4, "(1 2)"),
            (4, 7, "((3 4) 5)"),
        ]

    @pytest.mark.parametrize("error", [DataError("bad", where="x.npy"), StorageError("full", where="disk")])
    def test_deterministic_errors_are_values(self, make_task, error):
        outcome = run_task(make_task(failing(error), add), None)
        assert outcome.parts == ()
        assert outcome.failure is None
        assert type(outcome.error) is type(error)
        assert outcome.error.where == f"stage 'stage', partition 0, {error.where}"

    @pytest.mark.parametrize(("error", "retryable"), [
        (OSError("disk"), True), (ConnectionResetError("peer"), True), (TimeoutError("late"), True),
        (MemoryError("full"), True), (EOFError("short"), True), (TypeError("bug"), False),
        (AssertionError("bug"), False), (KeyError("bug"), False), (ZeroDivisionError("bug"), False),
    ])  # fmt: skip
    def test_other_errors_are_failures(self, make_task, error, retryable):
        outcome = run_task(make_task(failing(error)), None)
        assert outcome.error is None
        assert outcome.failure.exception is error
        assert outcome.failure.retryable is retryable
        assert "in step" in outcome.failure.trace
        assert "stage 'stage', partition 0" in outcome.failure.where

    def test_error_of_the_source_names_the_partition(self, make_task):
        task = make_task(RowIds())
        np.save(task.refs[0].uri, np.zeros((12, 9), np.float32))
        outcome = run_task(task, None)
        assert isinstance(outcome.error, DataError)
        assert outcome.error.where.startswith("stage 'stage', partition 0")

    def test_interrupts_pass(self, make_task):
        with pytest.raises(KeyboardInterrupt):
            run_task(make_task(failing(KeyboardInterrupt())), None)

    def test_stops_before_the_next_partition(self, make_task, tmp_path):
        asked = []

        def stopped():
            asked.append(None)
            return len(asked) == 3

        with pytest.raises(CancelledError):
            run_task(make_task(Trouble("data", 9, tmp_path)), 1, 0, stopped)
        assert len(list(tmp_path.glob("call-*"))) == 2

    def test_raw_rows_have_no_state(self, tmp_path, node):
        def step(rows, value, context):
            context.state.put("kind", "tag", np.zeros(3))
            assert context.state.get("kind", "tag") is None
            return sum(batch.n for batch in rows.batches())

        task = Task(0, npy_refs(tmp_path, [4, 3]), RawView(Columns(), 4), step, add, "raw", node, 2)
        assert run_task(task, None).parts == (Part(0, 2, 7),)


class TestFailure:
    def test_pickles_what_it_can(self):
        failure = pickle.loads(pickle.dumps(Failure(KeyError("k"), "there", "trace")))
        assert isinstance(failure.exception, KeyError)
        assert (failure.where, failure.trace) == ("there", "trace")

    @pytest.mark.parametrize(("error", "kind"), [
        (UnpicklableError("a", 1), OSError), (ValueError(lambda: None), RuntimeError),
    ])  # fmt: skip
    def test_stands_in_for_what_it_cannot(self, error, kind):
        failure = Failure(error, "there", "trace")
        there = pickle.loads(pickle.dumps(failure))
        assert type(there.exception) is kind
        assert type(error).__name__ in str(there.exception)
        assert there.retryable == failure.retryable


def ref(index, n_rows):
    return PartitionRef(index, "x.npy", "npy", (), 0, n_rows, 0, Fingerprint(0))


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 20))
def test_balance_covers_all_in_order_and_evenly(sizes, n_tasks):
    runs = balance([ref(i, size) for i, size in enumerate(sizes)], n_tasks)
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(sizes)))
    assert all(start < stop for start, stop in runs)
    assert len(runs) <= n_tasks
    loads = [sum(size + 1 for size in sizes[start:stop]) for start, stop in runs]
    if sizes:
        assert max(loads) <= sum(size + 1 for size in sizes) / n_tasks + max(sizes) + 1


def test_balance_gives_each_slot_one_of_equal_partitions():
    assert balance([ref(i, 10) for i in range(6)], 6) == [(i, i + 1) for i in range(6)]
    assert balance([ref(i, 10) for i in range(6)], 3) == [(0, 2), (2, 4), (4, 6)]


class TestJob:
    @pytest.fixture
    def events(self):
        return []

    @pytest.fixture
    def job(self, events):
        pinned = Pinned(tuple(ref(i, 1) for i in range(4)), BlockView(Columns(), 4), "rows")
        options = EngineOptions(emit=events.append, retries=1)
        return Job(pinned, Indices(), join, label="fold", options=options, runs=[(0, 1), (1, 3), (3, 4)])

    @staticmethod
    def outcome(job, number, **fields):
        start, stop = job.tasks[number].start, job.tasks[number].start + len(job.tasks[number].refs)
        return TaskOutcome((Part(start, stop, list(range(start, stop))),), rows=stop - start, **fields)

    def test_takes_outcomes_in_any_order_and_each_once(self, job, events):
        for number in (2, 0, 2, 0, 1, 1):
            assert job.accept(number, self.outcome(job, number))
        assert job.done
        assert job.total() == [0, 1, 2, 3]
        assert [event.rows for event in events if isinstance(event, TaskEnded)] == [1, 1, 2]

    def test_passes_notes_on(self, job, events):
        job.accept(0, self.outcome(job, 0, notes=("streaming",)))
        assert [event.message for event in events if isinstance(event, Note)] == ["streaming"]

    def test_counts_failures_and_losses_together(self, job, events):
        assert not job.accept(1, TaskOutcome(failure=Failure(OSError("disk"), "partition 1", "")))
        assert job.attempts == [0, 1, 0]
        with pytest.raises(EngineLostError, match="failed 2 times, last with its worker died") as caught:
            job.lost(1, "its worker died")
        assert caught.value.where == "stage 'fold', partitions 1-2"
        assert [(event.attempt, event.reason) for event in events if isinstance(event, TaskRetried)] == [
            (1, "OSError: disk")
        ]

    def test_late_failure_of_a_done_task_is_ignored(self, job):
        job.accept(0, self.outcome(job, 0))
        assert job.accept(0, TaskOutcome(failure=Failure(TypeError("late"), "", "")))
        assert job.accept(0, TaskOutcome(error=DataError("late")))


def test_code_version_depends_on_every_file():
    assert code_version() == code_version()
    assert (PACKAGE / "engines" / "code.py").exists()
    assert len(code_version()) == 12
