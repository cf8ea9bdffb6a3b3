"""The run directory: opened as new, resumed or complete; held by a lease; complete when its manifest is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from distclust.artifacts.checkpoint import Checkpoints
from distclust.artifacts.codec import decode_object, encode
from distclust.artifacts.commit import groups, on_each, read_commits
from distclust.artifacts.lease import LEASE, Lease, acquire
from distclust.artifacts.overwrite import EVENTS, beside, claim, clear, replace, settle
from distclust.artifacts.record import FORMAT, MANIFEST, RUN, differing, make_record, now, package_versions
from distclust.artifacts.record import read_manifest as read_manifest
from distclust.artifacts.record import read_run as read_run
from distclust.data.storage import Storage, open_storage
from distclust.errors import StorageError, UsageError

State = Literal["new", "resumed", "complete"]

_ABANDONED_SECONDS = 3600.0
"""A temporary file of this age has no writer any more: single files take seconds to minutes."""
_SHOWN_NAMES = 5


class RunDirectory:
    """A run directory that this process works in, or that it found complete. Made by `open`; a context manager.

    Attributes
    ----------
    state : {"new", "resumed", "complete"}
    storage : Storage
        Where files of the run are written. With ``overwrite`` a directory beside the output, until `finish`.
    record : dict
        Content of run.json, as it was when the run began.
    """

    def __init__(self, final: Storage, storage: Storage, record: dict[str, Any], state: State) -> None:
        self.state = state
        self.storage = storage
        self.record = record
        self._final = final
        self._leases: list[Lease] = []
        self._unwritten: list[bytes] = []
        self._events_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        output: str | Path,
        *,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any],
        seed: int,
        engine: str,
        how: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool | None = None,
    ) -> RunDirectory:
        """Open a run directory: begin a run, go on with one, or find it complete.

        Parameters
        ----------
        output : str or Path
            Directory; need not exist.
        kind : str
            Of the run, such as ``kmeans/1``.
        config : mapping
            All that decides the result; plain values.
        inputs : mapping
            Fingerprint of the input: ``digest`` and ``files`` (each with ``uri``).
        seed : int
            Decides the result, too.
        engine : str
            Stored, not compared.
        how : mapping, optional
            Settings that do not change the result (memory, scratch): stored, not compared.
        overwrite : bool, default=False
            Build a new run beside an existing one and replace it at the end.
        resume : bool, optional
            True: there must be an unfinished run; False: there must be none. Default: go on if there is one.

        Raises
        ------
        UsageError
            The directory holds something else, or another run, or another process is at work in it.
        StorageError
            It cannot be written or read.
        """
        wanted = make_record(kind=kind, config=config, inputs=inputs, seed=seed, engine=engine, how=how or {})
        final = _opened(output)
        replaced = settle(final)
        if overwrite and final.exists(RUN) and not (replaced and not differing(read_run(final), wanted)):
            return cls._open_beside(final, wanted, resume)
        return cls._open_in(final, wanted, resume)

    @classmethod
    def _open_in(cls, final: Storage, wanted: dict[str, Any], resume: bool | None) -> RunDirectory:
        # Looked at before the lease is taken, so that a refusal leaves no trace, and again when nobody else can act.
        state, record = _look(final, wanted)
        if state == "complete":
            return cls(final, final, record, state)
        lease = acquire(final)
        try:
            state, record = _look(final, wanted)
            run = cls(final, final, record, state)
            if state == "complete":
                lease.release()
                return run
            run._begin(resume, lease)
        except BaseException:
            with suppress(OSError):
                lease.release()
            raise
        return run

    @classmethod
    def _open_beside(cls, final: Storage, wanted: dict[str, Any], resume: bool | None) -> RunDirectory:
        new = beside(final)
        leases = [acquire(final)]
        try:
            claim(new)
            leases.append(acquire(new, leases[0].token))
            if new.exists(RUN) and (resume is False or differing(read_run(new), wanted)):
                clear(new)
            state, record = _look(new, wanted)
            run = cls(final, new, record, state)
            run._begin(resume, *leases)
        except BaseException:
            for lease in leases:
                with suppress(OSError):
                    lease.release()
            raise
        return run

    def _begin(self, resume: bool | None, *leases: Lease) -> None:
        where = self.storage.where()
        if resume and self.state == "new":
            raise UsageError("there is no unfinished run to resume.", where=where, do="Run without resume.")
        if resume is False and self.state == "resumed":
            raise UsageError(
                "there is an unfinished run, and resume is off.",
                where=where,
                do="Resume it, pass --overwrite (overwrite=True), or choose another output.",
            )
        if self.state == "new":
            self.storage.put(RUN, encode(self.record))
        else:
            self.storage.sweep(_ABANDONED_SECONDS)
            self._end_torn_line()
        self._leases = list(leases)
        self.append_event({"event": "RunOpened", "state": self.state, "at": now(), "versions": package_versions()})

    @property
    def uri(self) -> str:
        """Where the run is, or will be when it is complete."""
        return self._final.uri

    @property
    def how(self) -> dict[str, Any]:
        """Settings that do not change the result, as they were when the run began."""
        return dict(self.record["how"])

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of a complete run."""
        return read_manifest(self.storage)

    def checkpoints(self, name: str) -> Checkpoints:
        """Return the checkpoints of one loop; saving raises `UsageError` once another process took the directory."""
        return Checkpoints(self.storage, name, self._before_checkpoint)

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add a line to events.jsonl. Object stores get it at the next checkpoint, at `finish` or at `close`."""
        self._check_lease()
        line = encode(event, pretty=False) + b"\n"
        if self.storage.is_local:
            self.storage.append(EVENTS, line)
            return
        with self._events_lock:
            self._unwritten.append(line)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events of the run, without lines that a crash tore."""
        data = self.storage.read(EVENTS) if self.storage.exists(EVENTS) else b""
        for line in data.splitlines() + self._unwritten:
            with suppress(StorageError):
                yield decode_object(line, self.storage.where(EVENTS))

    def finish(self, summary: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
        """Write the manifest: the run is complete. A run that overwrites takes the place of the old one now.

        Parameters
        ----------
        summary : mapping
            Figures of the result; plain values.
        digests : mapping of str to str
            What two equal runs have in common, such as the digests of centres and labels.

        Returns
        -------
        dict
            The manifest.

        Raises
        ------
        StorageError
            A committed file is not there, or has another size.
        UsageError
            Another process took the directory over.
        """
        for lease in self._leases:
            lease.beat()
        self._check_lease()
        self._write_events()
        self.storage.sweep(_ABANDONED_SECONDS)
        commits, files = _survey(self.storage)
        manifest = {
            "format_version": FORMAT,
            "kind": self.record["kind"],
            "config_digest": self.record["config_digest"],
            "inputs": self.record["inputs"],
            "commits": commits,
            "files": files,
            "digests": dict(digests),
            "summary": dict(summary),
            "finished": now(),
        }
        self.storage.put(MANIFEST, encode(manifest))
        if self.storage is not self._final:
            self._take_place()
        self.state = "complete"
        return self.manifest()

    def _take_place(self) -> None:
        # A heartbeat would make the directory again while its name is free.
        for lease in self._leases:
            lease.pause()
        replace(self._final)
        self.storage = self._final
        del self._leases[1:]

    def close(self) -> None:
        """Write what is left of the events and give the lease back; twice is harmless."""
        leases, self._leases = self._leases, []
        try:
            if leases:
                leases[0].check()
                self._write_events()
        finally:
            for lease in leases:
                lease.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        # The first error is the one to report.
        with suppress(OSError, UsageError):
            self.close()

    def _check_lease(self) -> None:
        if not self._leases:
            raise UsageError("the run is closed, or was complete when it was opened.", where=self.storage.where())
        for lease in self._leases:
            lease.check()

    def _before_checkpoint(self) -> None:
        self._check_lease()
        self._write_events()

    def _write_events(self) -> None:
        with self._events_lock:
            if self._unwritten:
                self.storage.append(EVENTS, b"".join(self._unwritten))
                self._unwritten.clear()

    def _end_torn_line(self) -> None:
        if self.storage.is_local and self.storage.exists(EVENTS) and not self.storage.read(EVENTS).endswith(b"\n"):
            self.storage.append(EVENTS, b"\n")


def _opened(output: str | Path) -> Storage:
    final = open_storage(output)
    if final.is_local and os.path.islink(final.uri):
        # A replacement would rename the link instead of what it leads to.
        return open_storage(Path(os.path.realpath(final.uri)))
    return final


def _look(storage: Storage, wanted: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """Return what a directory is to the wanted run, and its record; refuse what is not this run's."""
    try:
        there = read_run(storage)
    except FileNotFoundError:
        foreign = [name for name in storage.entries() if name != LEASE]
        if foreign:
            names = ", ".join(foreign[:_SHOWN_NAMES]) + (", ..." if len(foreign) > _SHOWN_NAMES else "")
            raise UsageError(
                f"the directory is no run of distclust and not empty: it holds {names}.",
                where=storage.where(),
                do="Choose an empty or a new directory.",
            ) from None
        return "new", wanted
    complete = storage.exists(MANIFEST)
    lines = differing(there, wanted)
    if lines:
        what = "a complete run" if complete else "an unfinished run"
        raise UsageError(
            f"the directory holds {what} that differs in " + "; ".join(lines) + ".",
            where=storage.where(),
            do="Use the same settings and input, pass --overwrite (overwrite=True) to replace it, "
            "or choose another output.",
        )
    return ("complete" if complete else "resumed"), there


def _survey(storage: Storage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Check that committed files are there, remove files of lost attempts, and list everything with its digest."""
    stats = {stat.path: stat for stat in storage.list()}
    digests: dict[str, str] = {}
    commits: dict[str, Any] = {}
    for group in groups(storage):
        found = read_commits(storage, group)
        for commit in found.values():
            stat = stats.get(commit.file)
            if stat is None or stat.size != commit.bytes:
                state = "is missing" if stat is None else f"has {stat.size} bytes, {commit.bytes} were written"
                raise StorageError(
                    f"a committed file {state}.",
                    where=storage.where(commit.file),
                    do=f"Remove {storage.where(f'commits/{group}/{commit.index:05d}.json')} and resume the run.",
                )
            digests[commit.file] = commit.digest
        for path in [path for path in stats if path.rpartition("/")[0] == group and path not in digests]:
            storage.remove(path)
            del stats[path]
        commits[group] = {
            "files": len(found),
            "rows": sum(commit.rows for commit in found.values()),
            "bytes": sum(commit.bytes for commit in found.values()),
        }
    kept = [path for path in stats if path not in (LEASE, EVENTS, MANIFEST)]
    unknown = [path for path in kept if path not in digests]
    digests.update(zip(unknown, on_each(storage, storage.digest, unknown), strict=True))
    return commits, [{"path": path, "bytes": stats[path].size, "digest": digests[path]} for path in kept]
