"""One job from start to end on a terminal: signals, progress, what is said at the end."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from distclust.cli import late
from distclust.config import AnyJob
from distclust.errors import CancelledError

if TYPE_CHECKING:
    from distclust.engines.events import Emit
    from distclust.engines.protocol import CancelToken
    from distclust.workflows.common import JobOutcome

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2
_SHOW_CURSOR = "\x1b[?25h"
_STOPPING = "Stopping after the tasks in flight, with a checkpoint. Once more stops at once.\n"


def run_shown(job: AnyJob) -> JobOutcome:
    """Run a job with progress on standard error; Ctrl-C and SIGTERM cancel it.

    Parameters
    ----------
    job : KMeansJob, SweepJob, BisectJob, KMedoidsJob or AssignJob

    Raises
    ------
    CancelledError
        After a signal; says how to go on.
    DistclustError
        As the workflow raises them.
    """
    return shown(lambda emit, token: late.run_job(job, emit, token), job.output)


def shown(work: Callable[[Emit, CancelToken], T], output: str | None = None) -> T:
    """Do some work with progress on standard error; Ctrl-C and SIGTERM cancel it.

    Parameters
    ----------
    work : callable
        Takes what takes the events, and the token.
    output : str, optional
        Run directory that the work can go on from.
    """
    console = Console(stderr=True)
    with stopping_signals() as stop, late.shown_progress(console) as emit:
        token = late.cancel_token()
        stop.bind(token)
        try:
            return work(emit, token)
        except CancelledError as cancelled:
            raise _how_to_go_on(cancelled, output) from None


class StopRequest:
    """A wish to stop, which may come before there is a token to take it."""

    def __init__(self) -> None:
        self._asked = False
        self._token: CancelToken | None = None

    def bind(self, token: CancelToken) -> None:
        """Pass the wish on to a token, now or when it comes."""
        self._token = token
        if self._asked:
            token.cancel()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; the next one of the kinds that we handle ends the process at once."""
        self._asked = True
        for kind in _SIGNALS:
            signal.signal(kind, signal.SIG_DFL)
        # Straight to the terminal: the interrupted code may hold the locks of the streams and of the progress bar.
        os.write(_STDERR, _message())
        if self._token is not None:
            self._token.cancel()


def _message() -> bytes:
    return (f"{_SHOW_CURSOR}\n{_STOPPING}" if os.isatty(_STDERR) else _STOPPING).encode()


@contextmanager
def stopping_signals() -> Iterator[StopRequest]:
    """Handle Ctrl-C and SIGTERM while the ``with`` lasts; only the main thread can."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {kind: signal.signal(kind, request) for kind in _SIGNALS}
    try:
        yield request
    finally:
        for kind, handler in before.items():
            if handler is not None:  # set by something that is not Python, which Python cannot set again
                signal.signal(kind, handler)


def _how_to_go_on(cancelled: CancelledError, output: str | None) -> CancelledError:
    if output is not None and late.is_run(output):
        do = f"`distclust resume {shlex.quote(output)}` goes on from the last checkpoint."
    else:
        do = "Nothing was written yet; start it again."
    return CancelledError(cancelled.message, where=cancelled.where, do=do)
