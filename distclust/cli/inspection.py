"""What a run directory says about its run, and the job to go on with."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distclust.artifacts.codec import decode_object
from distclust.artifacts.lease import check_free
from distclust.artifacts.model import MODEL, load_model
from distclust.artifacts.overwrite import EVENTS, successor
from distclust.artifacts.record import MANIFEST, RUN, read_manifest, read_run
from distclust.config import JOBS, AnyJob, parse_job
from distclust.data.storage import Storage, open_storage
from distclust.errors import DistclustError, UsageError

LISTED_CLUSTERS = 10_000
_HISTORY_KEYS = {
    "IterationEnded": ("iteration", "inertia", "shift", "moved", "reassigned", "seconds"),
    "LikelihoodEnded": ("iteration", "log_likelihood", "change", "reg_covar", "seconds"),
}
"""What a pass leaves in the history, by the event that tells of it."""


@dataclass(frozen=True)
class ClusterView:
    """A cluster of the model.

    Attributes
    ----------
    cluster : int
    size : int
        Rows.
    inertia : float
        Weighted sum of squared distances.
    """

    cluster: int
    size: int
    inertia: float


@dataclass(frozen=True)
class FileView:
    """Files of one directory of the run.

    Attributes
    ----------
    path : str
        A directory with a slash at its end, or a file at the top.
    files : int
    bytes : int
    """

    path: str
    files: int
    bytes: int


@dataclass(frozen=True)
class RunView:
    """A run as it stands.

    Attributes
    ----------
    output : str
    state : str
        ``complete``, ``running`` or ``unfinished``.
    record : dict
        run.json: kind, config, seed, inputs, how, engine, versions, created.
    finished : str
        Time of the manifest; empty without one.
    summary, digests : dict
        As in manifest.json; empty without one.
    history : list of dict
        One entry a pass.
    clusters : list of ClusterView
        Of the model, the largest first, at most 10 000; none before there is a model.
    n_clusters : int
        How many the model has.
    files : list of FileView
    """

    output: str
    state: str
    record: dict[str, Any]
    finished: str
    summary: dict[str, Any]
    digests: dict[str, str]
    history: list[dict[str, Any]]
    clusters: list[ClusterView]
    n_clusters: int
    files: list[FileView]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        summary = {key: value for key, value in self.summary.items() if key != "history"}
        return {**asdict(self), "summary": summary}


def is_run(output: str) -> bool:
    """Return whether there is a run directory, complete or not."""
    storage = open_storage(output)
    return storage.exists(RUN)


def inspect_run(output: str) -> RunView:
    """Read a run directory.

    Raises
    ------
    UsageError
        It is none.
    """
    storage = open_storage(output)
    record = require_run(storage)
    complete = storage.exists(MANIFEST)
    manifest: dict[str, Any] = read_manifest(storage) if complete else {"finished": "", "summary": {}, "digests": {}}
    clusters, n_clusters = _clusters(storage) if storage.exists(f"{MODEL}/model.json") else ([], 0)
    return RunView(
        output=output,
        state="complete" if complete else _unfinished_state(storage),
        record=record,
        finished=manifest["finished"],
        summary=manifest["summary"],
        digests=manifest["digests"],
        history=manifest["summary"].get("history") or _events_history(storage),
        clusters=clusters,
        n_clusters=n_clusters,
        files=_files(storage),
    )


def resumed_job(output: str, changes: dict[str, Any]) -> AnyJob:
    """Return the job that a run directory was made by, to go on with.

    Parameters
    ----------
    output : str
        Run directory. Where an ``--overwrite`` was stopped, the job is the one that was to replace it.
    changes : dict
        Keys to replace; none that decides the result.

    Raises
    ------
    UsageError
        No run directory.
    """
    storage = open_storage(output)
    replacement = successor(storage)
    record = require_run(replacement or storage)
    kind = record["kind"].partition("/")[0]
    if kind not in JOBS:
        raise UsageError(f"a run of kind {record['kind']!r} cannot be resumed.", where=storage.where())
    names = {name: field.alias or name for name, field in JOBS[kind].model_fields.items()}
    values = {names.get(name, name): value for name, value in (record["config"] | record["how"]).items()}
    overwrite = replacement is not None
    return parse_job({**values, **changes, "kind": kind, "output": output, "overwrite": overwrite}, where=output)


def require_run(storage: Storage) -> dict[str, Any]:
    """Return run.json, or say that this is no run."""
    try:
        return read_run(storage)
    except FileNotFoundError:
        raise UsageError(
            f"there is no run of distclust here: {RUN} is missing.", where=storage.where(), do="Give the -o of a run."
        ) from None


def _unfinished_state(storage: Storage) -> str:
    try:
        check_free(storage)
    except UsageError:
        return "running"
    return "unfinished"


def _events_history(storage: Storage) -> list[dict[str, Any]]:
    """Return the passes that the event log tells of; a pass that was done again after a kill counts once."""
    if not storage.exists(EVENTS):
        return []
    history: list[dict[str, Any]] = []
    for event in _events(storage.read(EVENTS).splitlines(), storage.where(EVENTS)):
        keys = _HISTORY_KEYS.get(str(event.get("event")))
        if keys is not None:
            # Other keys: passes of another kind, that only led to these, as k-means does to a mixture.
            while history and (history[-1]["iteration"] >= event["iteration"] or history[-1].keys() != set(keys)):
                history.pop()
            history.append({key: event[key] for key in keys})
    return history


def _events(lines: Iterable[bytes], where: str) -> Iterable[dict[str, Any]]:
    for line in lines:
        with suppress(DistclustError):  # a line that a crash tore
            yield decode_object(line, where)


def _clusters(storage: Storage) -> tuple[list[ClusterView], int]:
    """Return the largest clusters of the model, and how many it has."""
    model = load_model(storage)
    order = np.argsort(-model.sizes, kind="stable")[:LISTED_CLUSTERS]
    views = [ClusterView(int(i), int(model.sizes[i]), float(model.inertias[i])) for i in order]
    return views, len(model.sizes)


def _files(storage: Storage) -> list[FileView]:
    sizes: dict[str, list[int]] = {}
    for stat in storage.list():
        top, slash, _ = stat.path.partition("/")
        sizes.setdefault(top + slash, []).append(stat.size)
    return [FileView(path, len(found), sum(found)) for path, found in sizes.items()]
