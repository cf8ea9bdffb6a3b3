"""Killing processes in the middle of a run, when its events say that the time has come."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from distclust.engines.events import Event, TaskEnded
from tests.recovery.cases import Case

WAIT_SECONDS = 240

Moment = Callable[[dict[str, Any]], bool]
"""Whether an event, as plain values, is the one to wait for."""


def pass_ended(number: int, stage: str | None = "lloyd") -> Moment:
    """Return the end of a pass of a stage over all rows; of any stage if it is None."""

    def moment(event: dict[str, Any]) -> bool:
        named = event["event"] == "IterationEnded" and event["iteration"] == number
        return named and stage in (None, event["stage"])

    return moment


def events_of(run: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's log of events."""
    path = run / "events.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def kill_at(command: list[str], run: Path, moment: Moment, times: int = 1) -> None:
    """Start a run and kill its process with -9 once its log has so many more events of a kind."""
    begun = len(events_of(run))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while sum(moment(event) for event in events_of(run)[begun:]) < times:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (run / "manifest.json").exists()


def command_of(case: Case, run: Path, *more: str) -> list[str]:
    """Return the command line of a case."""
    options = [
        word
        for key, value in case.settings.items()
        if key != "model"
        for word in _option("-k" if key == "k" else f"--{key.replace('_', '-')}", value)
    ]
    model = [str(case.settings["model"])] if "model" in case.settings else []
    head = [sys.executable, "-m", "distclust.cli.main", case.kind, *model, str(case.data)]
    return [*head, *options, "-o", str(run), *more]


def _option(name: str, value: object) -> list[str]:
    return [name] if value is True else [name, ",".join(value) if isinstance(value, tuple) else str(value)]


class Killer:
    """Kills one process, chosen when the time comes, shortly after a moment: in the middle of the next pass."""

    def __init__(self, choose: Callable[[], int], moment: Moment, *, times: int = 1, delay: float) -> None:
        self._choose = choose
        self._moment = moment
        self._left = times
        self._delay = delay
        self.killed: int | None = None
        self.tasks_after = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and self.killed is not None:
            self.tasks_after += 1
        if self._left and self._moment(event.as_dict()):
            self._left -= 1
            if not self._left:
                threading.Timer(self._delay, self._kill).start()

    def _kill(self) -> None:
        pid = self._choose()
        os.kill(pid, signal.SIGKILL)
        self.killed = pid


def executors() -> list[int]:
    """Return the process ids of this process's Spark executors."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # ended meanwhile
            if any("CoarseGrainedExecutorBackend" in word for word in process.cmdline()):
                found.append(process.pid)
    return found
