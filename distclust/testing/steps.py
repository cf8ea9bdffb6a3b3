"""Steps and partials for testing engines: each makes one law visible. All pickle by reference."""
# ruff: noqa: D102 - a step's class says what calling it does

from __future__ import annotations

import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import Step, StepContext
from distclust.errors import DataError


@dataclass(frozen=True)
class RowIds:
    """Return the row ids of the partition, ascending."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> npt.NDArray[np.int64]:
        return np.sort(block.row_ids)


@dataclass(frozen=True)
class WeightedIds:
    """Return the sum of row ids times the shared value: an exact partial."""

    def __call__(self, block: Block, value: int, context: StepContext) -> int:
        return int(block.row_ids.sum()) * value


@dataclass(frozen=True)
class ColumnTotals:
    """Return the int64 column sums of integer-valued rows, as an array that a careless merge could overwrite."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> npt.NDArray[np.int64]:
        return np.asarray(block.x.astype(np.int64).sum(axis=0))


@dataclass(frozen=True)
class Seen:
    """Return what the step was told: label, index, value."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> tuple[str, int, Any]:
        return context.label, context.index, value


@dataclass(frozen=True)
class Process:
    """Return the id of the process that the step runs in."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Sleeping:
    """Take some seconds, and leave a note at the end."""

    seconds: float
    diary: Path

    def __call__(self, block: Block, value: Any, context: StepContext) -> None:
        time.sleep(self.seconds)
        note(self.diary, "slept")


@dataclass(frozen=True)
class Arrivals:
    """A value that leaves a note wherever it is unpickled."""

    diary: Path

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__dict__.update(state)
        note(self.diary, "arrived")


@dataclass(frozen=True)
class LastOf:
    """Return the length and the last item of a shared array."""

    def __call__(self, block: Block, value: npt.NDArray[np.float64], context: StepContext) -> tuple[int, float]:
        return len(value), float(value[-1])


@dataclass(frozen=True)
class FloatSum:
    """A partial that is not exact: its bits, and the order of its merges as a text like ``((0 1) 2)``."""

    exact: ClassVar[bool] = False

    total: float
    order: str

    def merge(self, other: FloatSum) -> FloatSum:
        """Add in floating point."""
        return FloatSum(self.total + other.total, f"({self.order} {other.order})")


@dataclass(frozen=True)
class FloatSums:
    """Return a float that makes the order of additions visible in the sum's last bits."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> FloatSum:
        return FloatSum(float(block.x.astype(np.float64).sum()) * 10.0 ** (context.index % 7) / 3.0, str(context.index))


@dataclass(frozen=True)
class Remembering:
    """Double the rows' ids, from the state where it has them; tell whether that was so in a file, not in the result."""

    diary: Path

    def __call__(self, block: Block, value: str, context: StepContext) -> npt.NDArray[np.int64]:
        known = context.state.get("doubled", value)
        if known is not None:
            note(self.diary, f"known-{context.index}")
            return np.sort(known)
        doubled = block.row_ids * 2
        context.state.put("doubled", value, doubled)
        return np.sort(doubled)


@dataclass(frozen=True)
class Trouble:
    """Do something bad in one partition, the first ``times`` times, then what ``inner`` does.

    The count is kept in a directory that all workers see, one file per call, so that tests can count calls whatever
    process they ran in.
    """

    kind: str
    """``data``, ``io``, ``memory``, ``type``, ``unpicklable`` or ``kill``."""
    index: int
    diary: Path
    times: int = 1 << 30
    inner: Step = field(default_factory=WeightedIds)

    def __call__(self, block: Block, value: Any, context: StepContext) -> Any:
        note(self.diary, f"call-{context.index}")
        if context.index == self.index and count(self.diary, "trouble") < self.times:
            note(self.diary, "trouble")
            self._raise()
        return self.inner(block, value, context)

    def _raise(self) -> None:
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        errors: dict[str, Exception] = {
            "data": DataError("Row 3 has 5 values, 4 are allowed.", where="part.npy", do="Repair it."),
            "io": ConnectionResetError("the storage hung up"),
            "memory": MemoryError("no more"),
            "type": TypeError("a mistake in the step"),
            "unpicklable": UnpicklableError("one", 2),
        }
        raise errors[self.kind]


class UnpicklableError(OSError):
    """An I/O error, like those of some storage clients, that cannot be rebuilt from its ``args``."""

    def __init__(self, first: str, second: int) -> None:
        super().__init__(f"{first} and {second}")


def note(diary: Path, kind: str) -> None:
    """Leave a file in the diary; atomic, and seen by all processes at once."""
    (diary / f"{kind}.{uuid.uuid4().hex}").touch()


def count(diary: Path, kind: str) -> int:
    """Count the files of a kind in the diary."""
    return sum(1 for _ in diary.glob(f"{kind}.*"))


def add(left: Any, right: Any) -> Any:
    """Merge by addition."""
    return left + right


def join(left: list[Any], right: list[Any]) -> list[Any]:
    """Merge by concatenation: associative, and not commutative."""
    return [*left, *right]


@dataclass(frozen=True)
class Indices:
    """Return the partition's index in a list of one, for `join`."""

    def __call__(self, block: Block, value: Any, context: StepContext) -> list[int]:
        return [context.index]
