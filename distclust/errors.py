"""Errors a user can act on: each says where, what was found, what is allowed and what to do.

A `DistclustError` is deterministic: engines bring it back from a task as a value and raise it once on the
driver. Everything else that escapes a task (I/O, a lost worker) is retried.

Exit codes of the command line are attributes of the classes, so that there is one table of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class DistclustError(Exception):
    """Base of all errors that distclust raises on purpose.

    Parameters
    ----------
    message : str
        What was found, and what is allowed.
    where : str, optional
        File, row group, row, stage: the place of the fault.
    do : str, optional
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", do: str = "") -> None:
        super().__init__(message, where, do)
        self.message = message
        self.where = where
        self.do = do

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} {self.do}" if self.do else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.where, self.do)

    def at(self, where: str) -> DistclustError:
        """Return the same error with `where` put in front of its place (a stage, a partition)."""
        return type(self)(self.message, where=f"{where}, {self.where}" if self.where else where, do=self.do)


def _rebuild(kind: type[DistclustError], message: str, where: str, do: str) -> DistclustError:
    return kind(message, where=where, do=do)


class UsageError(DistclustError, ValueError):
    """A parameter, option or combination of them that cannot work."""

    exit_code = 2


class DataError(DistclustError, ValueError):
    """Input rows, files or columns that cannot be used as they are."""

    exit_code = 3


class EngineLostError(DistclustError, RuntimeError):
    """The scheduler or session is gone, or a task failed more often than retries allow."""

    exit_code = 4


class CancelledError(DistclustError, RuntimeError):
    """The run was asked to stop (Ctrl-C, SIGTERM) and did, after its last checkpoint."""

    exit_code = 5


class QualityGateError(DistclustError, RuntimeError):
    """A result was computed but does not meet the limits that the user set."""

    exit_code = 6


class StorageError(DistclustError, OSError):
    """Output cannot be written or read back: disk full, no permission, digest mismatch."""

    exit_code = 7


class MissingExtraError(DistclustError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 2


def nearest_name(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest allowed word, or an empty string."""
    match = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"Did you mean {match[0]!r}?" if match else ""


def unknown_name(what: str, name: str, allowed: Iterable[str]) -> UsageError:
    """Build the error for a word that is not one of `allowed`, with the nearest one."""
    allowed = sorted(allowed)
    choices = ", ".join(repr(a) for a in allowed)
    return UsageError(f"Unknown {what} {name!r}; allowed are {choices}.", do=nearest_name(name, allowed))
