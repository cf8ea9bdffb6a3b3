"""Events that a run emits; the progress bar, events.jsonl and the report read them.

Everything that reports goes through one callable, given to the engine when it is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""

    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    def as_dict(self) -> dict[str, object]:
        """Return the event as plain values, its kind under ``event``."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    stage: str
    """Human name: ``profile``, ``cache``, ``seed``, ``sample`` (Lloyd on part of the rows), ``lloyd``, ``label``."""
    total_rows: int = 0
    """Rows that one pass of the stage touches; 0 if unknown."""
    max_passes: int = 1
    """Upper bound of the passes over the rows; 0 if unknown."""


@dataclass(frozen=True, kw_only=True)
class StageEnded(Event):
    stage: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TaskEnded(Event):
    label: str
    """Label of the map or fold that the task belongs to."""
    rows: int
    """Rows that the task touched."""
    seconds: float
    """Time inside the task, on the worker."""


@dataclass(frozen=True, kw_only=True)
class TaskRetried(Event):
    label: str
    reason: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class IterationEnded(Event):
    stage: str
    iteration: int
    inertia: float
    shift: float
    """Sum of squared centre movements."""
    moved: int
    """Rows that changed cluster; -1 in a first iteration."""
    reassigned: int
    """Empty clusters that took a far row."""
    seconds: float
    rows: int
    """About how many rows took part: fewer than all in the first passes of a progressive fit."""


@dataclass(frozen=True, kw_only=True)
class LikelihoodEnded(Event):
    """A pass of a mixture has ended."""

    stage: str
    iteration: int
    log_likelihood: float
    """Mean over the rows, of the mixture that the pass began with."""
    change: float
    """Since the pass before; 0 in a first one."""
    reg_covar: float
    """What was added to the variances."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    message: str
    """Something a user should know that is no error; said once."""
    level: str = "info"


Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event."""
