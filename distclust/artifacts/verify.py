"""Check of a run directory against its manifest: every byte is read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distclust.artifacts.commit import groups, on_each, read_commits
from distclust.artifacts.lease import LEASE
from distclust.artifacts.model import MODEL, load_model
from distclust.artifacts.overwrite import EVENTS
from distclust.artifacts.record import MANIFEST, RUN, as_storage, config_digest, read_manifest, read_run
from distclust.data.storage import Storage
from distclust.errors import StorageError, UsageError


@dataclass(frozen=True)
class Problem:
    """Something in a run directory that is not as the manifest says.

    Attributes
    ----------
    severity : {"error", "warning"}
        A warning does not make any result wrong.
    path : str
        Relative to the run directory.
    message : str
    """

    severity: Literal["error", "warning"]
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


def verify_run(place: Storage | str | Path) -> list[Problem]:
    """Read a complete run directory again and list what is missing, changed or not committed; empty if all is well.

    Raises
    ------
    StorageError
        The directory cannot be read.
    """
    storage = as_storage(place)
    try:
        manifest = read_manifest(storage)
    except FileNotFoundError:
        what = "the run is not complete" if storage.exists(RUN) else "this is no run directory"
        return [Problem("error", MANIFEST, f"missing: {what}")]
    except (StorageError, UsageError) as error:
        return [Problem("error", MANIFEST, str(error))]
    problems = _files(storage, manifest)
    damaged = {problem.path for problem in problems}
    problems += _record(storage, manifest, damaged)
    problems += _commits(storage, manifest, damaged)
    problems += _uncommitted(storage, manifest)
    problems += _model(storage, manifest, damaged)
    return problems


def _files(storage: Storage, manifest: Mapping[str, Any]) -> list[Problem]:
    listed = {file["path"]: file for file in manifest["files"]}
    sizes = {stat.path: stat.size for stat in storage.list()}

    def check(path: str) -> Problem | None:
        size = sizes.get(path)
        if size is None:
            return Problem("error", path, "missing")
        if size != listed[path]["bytes"]:
            return Problem("error", path, f"changed: {size} bytes, {listed[path]['bytes']} were written")
        if storage.digest(path) != listed[path]["digest"]:
            return Problem("error", path, "changed: not the bytes that were written")
        return None

    return [problem for problem in on_each(storage, check, list(listed)) if problem is not None]


def _record(storage: Storage, manifest: Mapping[str, Any], damaged: set[str]) -> Iterator[Problem]:
    if RUN in damaged:
        return
    try:
        record = read_run(storage)
    except FileNotFoundError:
        yield Problem("error", RUN, "missing")
        return
    found = config_digest(record["kind"], record["config"], record["seed"])
    if not found == record["config_digest"] == manifest["config_digest"]:
        yield Problem("error", RUN, "the configuration is not the one that the manifest was written for")


def _commits(storage: Storage, manifest: Mapping[str, Any], damaged: set[str]) -> Iterator[Problem]:
    if any(path.startswith("commits/") for path in damaged):
        return
    digests = {file["path"]: file["digest"] for file in manifest["files"]}
    for group, totals in manifest["commits"].items():
        found = read_commits(storage, group)
        if len(found) != totals["files"]:
            yield Problem("error", f"commits/{group}", f"{len(found)} commits, {totals['files']} were made")
        for commit in found.values():
            if digests.get(commit.file) != commit.digest:
                yield Problem("error", commit.file, "its commit and the manifest disagree")


def _uncommitted(storage: Storage, manifest: Mapping[str, Any]) -> Iterator[Problem]:
    listed = {file["path"] for file in manifest["files"]} | {LEASE, EVENTS, MANIFEST}
    directories = {*manifest["commits"], *(f"commits/{group}" for group in groups(storage))}
    for stat in storage.list():
        if stat.path not in listed and stat.path.rpartition("/")[0] in directories:
            yield Problem("warning", stat.path, "not committed: left by a task that was lost; remove it")


def _model(storage: Storage, manifest: Mapping[str, Any], damaged: set[str]) -> Iterator[Problem]:
    paths = [file["path"] for file in manifest["files"] if file["path"].startswith(f"{MODEL}/")]
    if not paths or damaged.intersection(paths):
        return
    try:
        load_model(storage)
    except (StorageError, UsageError) as error:
        yield Problem("error", MODEL, str(error))
