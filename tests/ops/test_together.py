"""Algorithms in shared passes: the answers that each gets alone, fewer passes, errors that end all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distclust.data.refs import BlockView, Columns
from distclust.engines.events import Event, Note, StageStarted, TaskEnded
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import CancelledError, DataError
from distclust.ops.together import run_together
from distclust.testing.engine_suite import NPY_VIEW, WIDTH, npy_refs, reference_tree
from distclust.testing.hostile import HostileEngine
from distclust.testing.steps import FloatSum, FloatSums, Remembering, RowIds, Seen, Trouble, WeightedIds, add, count

SIZES = (7, 1, 40, 3, 90, 2, 5)
N = sum(SIZES)
TOTAL = N * (N - 1) // 2


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture(params=[lambda options: LocalEngine(2, options), lambda options: HostileEngine(3, options)])
def engine(request: pytest.FixtureRequest, events: list[Event]) -> Iterator[Engine]:
    with request.param(EngineOptions(emit=events.append)) as engine:
        yield engine


def sums(pinned: Any, factors: list[int]) -> Callable[[Engine], list[int]]:
    """Return a work of one fold after the other."""

    def work(engine: Engine) -> list[int]:
        found = []
        for factor in factors:
            with engine.share(factor) as shared:
                found.append(engine.fold(pinned, WeightedIds(), add, shared, label=f"times {factor}"))
        return found

    return work


def test_each_gets_its_answers_in_the_passes_of_the_longest(events: list[Event], tmp_path: Path) -> None:
    with LocalEngine(2, EngineOptions(emit=events.append)) as engine:
        pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")
        found = run_together(engine, [sums(pinned, [1, 2, 3, 4]), sums(pinned, [5, 6]), sums(pinned, [])], "abc")
    assert found == [[TOTAL, 2 * TOTAL, 3 * TOTAL, 4 * TOTAL], [5 * TOTAL, 6 * TOTAL], []]
    ended = [event for event in events if isinstance(event, TaskEnded)]
    assert sum(event.rows for event in ended) == 4 * N
    assert list(dict.fromkeys(event.label for event in ended)) == [
        "times 1 + times 5",
        "times 2 + times 6",
        "times 3",
        "times 4",
    ]


def test_all_calls_pass_and_other_rows_have_passes_of_their_own(engine: Engine, tmp_path: Path) -> None:
    refs = npy_refs(tmp_path, SIZES)
    other = BlockView(Columns(), WIDTH, center=np.ones(WIDTH))

    def ask(seen: Engine) -> Any:
        pinned = seen.pin(refs, other, label="rows")
        ids = np.concatenate(seen.map(pinned, RowIds(), label="ids"))
        with seen.share("value") as shared:
            told = seen.map(pinned, Seen(), shared, label="who")
        total = seen.fold(pinned, WeightedIds(), add, 2, label="sum")
        seen.close()
        return ids.tolist(), told[0], total, seen.info.name

    pinned = engine.pin(refs, NPY_VIEW, label="rows")
    asked, summed = run_together(engine, [ask, sums(pinned, [1] * 4)], "ab")
    assert asked == (list(range(N)), ("who", 0, "value"), 2 * TOTAL, engine.info.name)
    assert summed == [TOTAL] * 4


def test_inexact_partials_keep_their_tree(engine: Engine, tmp_path: Path) -> None:
    pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")
    alone = reference_tree(engine.map(pinned, FloatSums(), label="leaves"))

    def tree(seen: Engine) -> FloatSum:
        found: FloatSum = seen.fold(pinned, FloatSums(), FloatSum.merge, label="tree")
        return found

    assert run_together(engine, [tree, sums(pinned, [3])], "ab") == [alone, [3 * TOTAL]]


def test_rows_remember_for_each_by_its_name(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")
        for diary in ("one", "two", "three"):
            (tmp_path / diary).mkdir()

        def remember(diary: str) -> Callable[[Engine], None]:
            def work(seen: Engine) -> None:
                for tag in ("a", "b", "b"):
                    seen.fold(pinned, Remembering(tmp_path / diary), np.append, tag, label="ids")

            return work

        run_together(engine, [remember("one"), remember("two"), remember("three")], ["x", "y", "z"])
        for diary in ("one", "two", "three"):
            known = sum(count(tmp_path / diary, f"known-{i}") for i in range(len(SIZES)))
            assert known == len(SIZES), "state of a pass before; none of another's"


def test_an_error_of_one_ends_all_and_is_the_one_raised(engine: Engine, tmp_path: Path) -> None:
    pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")
    ended: list[str] = []

    def long(seen: Engine) -> None:
        try:
            sums(pinned, [1] * 50)(seen)
        except CancelledError:
            ended.append(threading.current_thread().name)
            raise

    def short(seen: Engine) -> None:
        sums(pinned, [1, 1])(seen)
        raise ValueError("a mistake of one work")

    with pytest.raises(ValueError, match="a mistake of one work"):
        run_together(engine, [long, short, long], ["x", "y", "z"])
    assert sorted(ended) == ["distclust-x", "distclust-z"]


def test_an_error_in_a_step_names_its_place(engine: Engine, tmp_path: Path) -> None:
    pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")
    diary = tmp_path / "diary"
    diary.mkdir()

    def bad(seen: Engine) -> None:
        seen.fold(pinned, Trouble("data", 4, diary), add, 1, label="lloyd")

    with pytest.raises(DataError, match="Row 3 has 5 values") as caught:
        run_together(engine, [sums(pinned, [1] * 9), bad], "ab")
    assert caught.value.where == "stage 'lloyd + times 1', partition 4, part.npy"


def test_cancelling_ends_all(tmp_path: Path) -> None:
    cancel = CancelToken()
    with LocalEngine(2, EngineOptions(cancel=cancel)) as engine:
        pinned = engine.pin(npy_refs(tmp_path, SIZES), NPY_VIEW, label="rows")

        def stopping(seen: Engine) -> None:
            sums(pinned, [1])(seen)
            seen.options.cancel.cancel()
            sums(pinned, [1])(seen)

        with pytest.raises(CancelledError, match="The run was cancelled"):
            run_together(engine, [sums(pinned, [1] * 50), stopping], "ab")
    assert not [thread for thread in threading.enumerate() if thread.name in ("distclust-a", "distclust-b")]


def test_of_the_events_of_each_only_notes_pass(events: list[Event], tmp_path: Path) -> None:
    def tell(seen: Engine) -> None:
        seen.options.emit(StageStarted(stage="lloyd"))
        seen.options.emit(Note(message="something to know"))

    with LocalEngine(1, EngineOptions(emit=events.append)) as engine:
        run_together(engine, [tell, tell], "ab")
    assert [event.message for event in events if isinstance(event, Note)] == ["something to know"]
    assert len(events) == 1
