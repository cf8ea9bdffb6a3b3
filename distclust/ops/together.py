"""Several algorithms over the same rows at once: each pass over the rows serves all of them.

Every algorithm runs unchanged, as if it were alone, in a thread of the driver, on an engine that only asks. When all
of them have asked, their folds over the same rows are done as one, whose step does each one's step in turn while the
rows are at hand. Steps and merges are the algorithms' own, so each gets the bits that it gets alone; and an algorithm
that ends early just asks no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy.typing as npt

from distclust.data.refs import PartitionRef, View
from distclust.data.state import RowState
from distclust.engines.events import Event, Note
from distclust.engines.protocol import Engine, Merge, Pinned, Shared, Step, StepContext
from distclust.engines.tree import is_exact
from distclust.errors import CancelledError

T = TypeVar("T")


class NamedState(RowState):
    """One algorithm's own part of the state of a partition's rows.

    State keeps few arrays of a kind; algorithms that shared them would push out each other's.
    """

    def __init__(self, state: RowState, name: str) -> None:
        self._state = state
        self._name = name

    def get(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Return the array of this algorithm, or None."""
        return self._state.get(f"{self._name}-{kind}", tag)

    def put(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Store an array for this algorithm."""
        self._state.put(f"{self._name}-{kind}", tag, array)

    def take(self, kind: str, tag: str) -> npt.NDArray[Any] | None:
        """Take the array of this algorithm."""
        return self._state.take(f"{self._name}-{kind}", tag)

    def give(self, kind: str, tag: str, array: npt.NDArray[Any]) -> None:
        """Give an array back to this algorithm."""
        self._state.give(f"{self._name}-{kind}", tag, array)

    @property
    def whole(self) -> RowState:
        """See `RowState`: what is known of a row by itself serves all algorithms."""
        return self._state.whole


class Partials(tuple[Any, ...]):
    """One partial of each algorithm, all of them exact."""

    exact: ClassVar[bool] = True


class InexactPartials(Partials):
    """One partial of each algorithm, some of which merge along the fixed tree only; so all do."""

    exact: ClassVar[bool] = False


@dataclass(frozen=True)
class EachStep:
    """Do the step of each algorithm on the same rows."""

    steps: tuple[Step, ...]
    names: tuple[str, ...]

    def __call__(self, rows: Any, values: tuple[Any, ...], context: StepContext) -> Partials:
        """Return the partials of one partition, in the order of the steps."""
        parts = [
            step(rows, value, replace(context, state=NamedState(context.state, name)))
            for step, name, value in zip(self.steps, self.names, values, strict=True)
        ]
        return Partials(parts) if all(map(is_exact, parts)) else InexactPartials(parts)


@dataclass(frozen=True)
class EachMerge:
    """Merge the partials of each algorithm by its own rule."""

    merges: tuple[Merge, ...]

    def __call__(self, left: Partials, right: Partials) -> Partials:
        """Return the merged partials."""
        return type(left)(merge(a, b) for merge, a, b in zip(self.merges, left, right, strict=True))


@dataclass
class _Ask:
    """What one algorithm wants of the engine, and the answer."""

    do: Callable[[Engine], Any]
    fold: _Fold | None = None
    """Set for a fold, which can be done with others; then ``do`` is not called."""
    answer: Any = None
    done: bool = False


@dataclass(frozen=True)
class _Fold:
    pinned: Pinned
    step: Step
    merge: Merge
    value: Any
    label: str
    name: str

    def fits(self, other: _Fold) -> bool:
        """Whether both are over the same rows in the same form."""
        return self.pinned.view is other.pinned.view and self.pinned.refs == other.pinned.refs


@dataclass
class _Table:
    """Where algorithms wait for each other, and for what they asked."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    asks: dict[int, _Ask] = field(default_factory=dict)
    """By number of the algorithm."""
    running: int = 0
    """Algorithms that have not ended."""
    stopped: bool = False
    """No more answers: one of them failed, or the run was cancelled."""
    errors: dict[int, BaseException] = field(default_factory=dict)

    def ask(self, number: int, wanted: _Ask) -> Any:
        """Wait for the answer, in the thread of an algorithm."""
        with self.changed:
            self.asks[number] = wanted
            self.changed.notify_all()
            while not (wanted.done or self.stopped):
                self.changed.wait()
            if not wanted.done:
                raise CancelledError("Another part of the run ended it.")
        return wanted.answer

    def end(self, number: int, error: BaseException | None) -> None:
        """Take note that an algorithm has ended."""
        with self.changed:
            self.running -= 1
            if error is not None:
                self.errors[number] = error
            self.changed.notify_all()

    def all_asked(self) -> list[_Ask]:
        """Wait until every algorithm has asked or ended; return what they ask, in their order."""
        with self.changed:
            while len(self.asks) < self.running:
                self.changed.wait()
            return [self.asks[number] for number in sorted(self.asks)]

    def answered(self) -> None:
        """Let the algorithms go on."""
        with self.changed:
            for wanted in self.asks.values():
                wanted.done = True
            self.asks.clear()
            self.changed.notify_all()

    def stop(self) -> None:
        """Let the algorithms end."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class AskingEngine:
    """The engine as one of several algorithms sees it: it asks, and waits until all have asked.

    Only notes of its events are passed on: stages and iterations of several algorithms at once tell nobody anything.
    """

    def __init__(self, engine: Engine, table: _Table, number: int, name: str) -> None:
        def emit(event: Event) -> None:
            if isinstance(event, Note):
                engine.options.emit(event)

        self.info = engine.info
        self.options = replace(engine.options, emit=emit)
        self._table = table
        self._number = number
        self._name = name

    def pin(self, refs: Sequence[PartitionRef], view: View, *, label: str) -> Pinned:
        """Bind references to a view."""
        pinned: Pinned = self._ask(_Ask(lambda engine: engine.pin(refs, view, label=label)))
        return pinned

    def share(self, value: Any) -> Shared:
        """Keep a value until it is sent, with those of the others, for a pass."""
        return Shared(value)

    def map(self, pinned: Pinned, step: Step, value: Any = None, *, label: str) -> list[Any]:
        """Run a step on every partition, apart from the others."""
        held = value.value if isinstance(value, Shared) else value
        results: list[Any] = self._ask(_Ask(lambda engine: engine.map(pinned, step, held, label=label)))
        return results

    def fold(self, pinned: Pinned, step: Step, merge: Merge, value: Any = None, *, label: str) -> Any:
        """Run a step on every partition in a pass that serves the others too."""
        held = value.value if isinstance(value, Shared) else value
        fold = _Fold(pinned, step, merge, held, label, self._name)
        return self._ask(_Ask(lambda engine: None, fold))

    def close(self) -> None:
        """Do nothing: the engine belongs to the caller."""

    def _ask(self, wanted: _Ask) -> Any:
        return self._table.ask(self._number, wanted)


def run_together(engine: Engine, works: Sequence[Callable[[Engine], T]], names: Sequence[str]) -> list[T]:
    """Run algorithms at once, each in a thread of its own, with passes that serve all of them.

    Parameters
    ----------
    engine : Engine
        Used by the calling thread only.
    works : sequence of callable
        Each takes an engine and returns its result.
    names : sequence of str
        Of the works, all different and the same in every run: under them rows keep what the works remember.

    Returns
    -------
    list
        Results in order of the works.

    Raises
    ------
    Exception
        What a work, or the engine, raised; with several at the same time, that of the first work. The other works
        get a `CancelledError` from their next call and can save where they are.
    """
    table = _Table(running=len(works))
    results: dict[int, T] = {}

    def run(number: int, work: Callable[[Engine], T]) -> None:
        error: BaseException | None = None
        try:
            results[number] = work(AskingEngine(engine, table, number, names[number]))
        except BaseException as raised:  # whatever it is, the calling thread raises it
            error = raised
        finally:
            table.end(number, error)

    threads = [
        threading.Thread(target=run, args=(number, work), name=f"distclust-{names[number]}", daemon=True)
        for number, work in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    try:
        while asks := table.all_asked():
            if table.errors:
                break
            _answer(engine, asks)
            table.answered()
    finally:
        failed = dict(table.errors)  # before the others are stopped, which is an error of theirs too
        table.stop()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[min(failed)]
    return [results[number] for number in range(len(works))]


def _answer(engine: Engine, asks: list[_Ask]) -> None:
    waiting = [wanted for wanted in asks if wanted.fold is not None]
    for wanted in asks:
        if wanted.fold is None:
            wanted.answer = wanted.do(engine)
    while waiting:
        first = waiting[0].fold
        assert first is not None
        same = [wanted for wanted in waiting if wanted.fold is not None and first.fits(wanted.fold)]
        for wanted, part in zip(same, _fold_each(engine, [w.fold for w in same if w.fold is not None]), strict=True):
            wanted.answer = part
        waiting = [wanted for wanted in waiting if all(wanted is not done for done in same)]


def _fold_each(engine: Engine, folds: list[_Fold]) -> Partials:
    label = " + ".join(sorted({fold.label for fold in folds}))
    step = EachStep(tuple(fold.step for fold in folds), tuple(fold.name for fold in folds))
    merge = EachMerge(tuple(fold.merge for fold in folds))
    with engine.share(tuple(fold.value for fold in folds)) as shared:
        parts: Partials = engine.fold(folds[0].pinned, step, merge, shared, label=label)
    return parts
