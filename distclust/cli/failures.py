"""How a command fails: one message on standard error, and the exit code of the error's class."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from distclust import errors
from distclust.errors import CancelledError, DistclustError

UNEXPECTED = 1

EXIT_CODES: dict[int, str] = {
    0: "done, or done before",
    UNEXPECTED: "an error of the program (traceback with --debug)",
    errors.UsageError.exit_code: "usage: an option, a job file, a missing package",
    errors.DataError.exit_code: "bad data, or files that fail their check",
    errors.EngineLostError.exit_code: "engine lost: no scheduler, or a task failed too often",
    errors.CancelledError.exit_code: "cancelled; `distclust resume` goes on",
    errors.QualityGateError.exit_code: "a quality gate failed",
    errors.StorageError.exit_code: "storage: full, not permitted, or not reachable",
}


def debugging(asked: bool) -> bool:
    """Return whether tracebacks are wanted: ``--debug``, or DISTCLUST_DEBUG in the environment."""
    return asked or os.environ.get("DISTCLUST_DEBUG", "0") not in ("", "0")


@contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Turn an exception into a message and an exit code.

    Parameters
    ----------
    debug : bool
        Show the traceback too.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except DistclustError as error:
        _say(f"error: {error}" if not isinstance(error, CancelledError) else str(error), debug)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _say("Stopped.", debug)
        raise typer.Exit(CancelledError.exit_code) from None
    except Exception as error:
        text = f"error: {type(error).__name__}: {error}" if str(error) else f"error: {type(error).__name__}"
        _say(text if debugging(debug) else f"{text}\nThis should not happen; --debug shows where it did.", debug)
        raise typer.Exit(UNEXPECTED) from None


def _say(message: str, debug: bool) -> None:
    if debugging(debug):
        traceback.print_exc()
    print(message, file=sys.stderr, flush=True)
