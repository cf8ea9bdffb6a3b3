"""Progress of a job, from its events: a live bar on a terminal, one line a stage anywhere else. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from distclust.cli.text import amount_text, rate_text, seconds_text
from distclust.engines.events import (
    Emit,
    Event,
    IterationEnded,
    LikelihoodEnded,
    Note,
    StageEnded,
    StageStarted,
    TaskEnded,
    TaskRetried,
)


@dataclass
class Stage:
    """What is known of the stage that runs.

    Attributes
    ----------
    name : str
    pass_rows : int
        Rows of one pass; 0 if unknown.
    max_passes : int
        Upper bound of the passes.
    began : float
        Seconds of a monotonic clock.
    rows : int
        Rows that ended tasks have touched.
    iteration : int
        Passes done, those before a resume included; 0 in stages that do not iterate.
    score : str
        Inertia or likelihood of the last pass.
    """

    name: str
    pass_rows: int = 0
    max_passes: int = 1
    began: float = field(default_factory=time.monotonic)
    rows: int = 0
    iteration: int = 0
    score: str = ""
    _earlier: int = 0
    """Rows of passes before a resume."""

    def take(self, event: Event) -> None:
        """Learn from an event of this stage."""
        if isinstance(event, TaskEnded):
            self.rows += event.rows
        elif isinstance(event, IterationEnded | LikelihoodEnded):
            self.iteration = event.iteration
            self._earlier = event.iteration * self.pass_rows - self.rows
            if isinstance(event, IterationEnded):
                self.score = f"inertia {event.inertia:.6g}"
            else:
                self.score = f"log-likelihood {event.log_likelihood:.6g}"

    @property
    def share(self) -> float | None:
        """Part that is done, at least: a stage may converge before its last pass. None where it is unknown."""
        total, done = self.pass_rows * self.max_passes, self._earlier + self.rows
        return done / total if total > 0 and done <= total else None

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds to the last pass, at the pace so far; None where nothing can be said."""
        share = self.share
        if not share or not self.rows:
            return None
        left = (1 - share) * self.pass_rows * self.max_passes
        return left * (now - self.began) / self.rows

    def describe(self, now: float) -> str:
        """Return what stands behind the bar: iteration, pace, time left."""
        parts = []
        if self.iteration:
            most = f" of at most {self.max_passes}" if self.max_passes else ""
            parts += [f"pass {self.iteration}{most}", self.score]
        parts.append(rate_text(self.rows, now - self.began))
        left = self.seconds_left(now)
        if left is not None:
            parts.append(f"ETA {'≤ ' if self.max_passes > 1 else ''}{seconds_text(left)}")
        return "  ".join(part for part in parts if part)

    def report(self, seconds: float) -> str:
        """Return the line of a stage that has ended."""
        parts = [f"{self.name:<8}"]
        if self.iteration:
            parts += [amount_text(self.iteration, "pass"), self.score]
        elif self.pass_rows:
            parts.append(amount_text(self.pass_rows, "row"))
        parts += [seconds_text(seconds), rate_text(self.rows, seconds)]
        return "  ".join(part for part in parts if part)


def remark(event: Event) -> str:
    """Return the line of an event that a user should see as it comes, or nothing."""
    if isinstance(event, Note):
        return event.message
    if isinstance(event, TaskRetried):
        return f"{event.label}: a task is tried again (attempt {event.attempt + 1}): {event.reason}"
    return ""


class LineProgress:
    """One line for each stage that ends, for logs.

    Parameters
    ----------
    say : callable
        Takes a line.

    Attributes
    ----------
    stage : Stage or None
        The one that runs.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stage: Stage | None = None
        self._say = say

    def __call__(self, event: Event) -> None:
        """Take an event."""
        line = remark(event)
        if line:
            self._say(line)
        if isinstance(event, StageStarted):
            self.stage = Stage(event.stage, event.total_rows, event.max_passes)
        elif isinstance(event, StageEnded):
            self._say((self.stage or Stage(event.stage)).report(event.seconds))
            self.stage = None
        elif self.stage is not None:
            self.stage.take(event)


class BarProgress:
    """A live bar for the stage that runs, and a line for each that has ended.

    Parameters
    ----------
    progress : rich.progress.Progress
        Started by the caller.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines = LineProgress(lambda line: progress.console.print(line, markup=False, highlight=False))
        self._bar: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if self._bar is not None and isinstance(event, StageEnded | StageStarted):
            self._progress.remove_task(self._bar)
            self._bar = None
        self._lines(event)
        stage = self._lines.stage
        if isinstance(event, StageStarted):
            self._bar = self._progress.add_task(event.stage, total=None, behind="")
        elif stage is not None and self._bar is not None:
            self._progress.update(
                self._bar,
                total=None if stage.share is None else 1.0,
                completed=stage.share or 0.0,
                behind=stage.describe(time.monotonic()),
            )


@contextmanager
def shown_progress(console: Console) -> Iterator[Emit]:
    """Show progress on a console while the ``with`` lasts; yields what takes the events.

    Parameters
    ----------
    console : rich.console.Console
        Standard error.
    """
    if not console.is_terminal:
        yield LineProgress(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    progress = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[behind]}", markup=False),
        console=console,
        transient=True,
    )
    with progress:
        yield BarProgress(progress)
