"""The check of a run directory, counted for the user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distclust.artifacts.record import MANIFEST, read_manifest
from distclust.artifacts.verify import Problem, verify_run
from distclust.cli.inspection import require_run
from distclust.data.storage import open_storage


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Attributes
    ----------
    output : str
    files, bytes : int
        That the manifest lists.
    problems : list of Problem
        Errors and warnings.
    """

    output: str
    files: int
    bytes: int
    problems: list[Problem]

    @property
    def failed(self) -> bool:
        """Whether there is a problem that makes a result wrong."""
        return any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "ok": not self.failed}


def verify_output(output: str) -> Verification:
    """Hash the files of a run again.

    Raises
    ------
    UsageError
        No run directory.
    """
    storage = open_storage(output)
    require_run(storage)
    problems = verify_run(storage)
    listed = read_manifest(storage)["files"] if storage.exists(MANIFEST) else []
    return Verification(output, len(listed), sum(file["bytes"] for file in listed), problems)
