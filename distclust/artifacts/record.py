"""``run.json`` and ``manifest.json``: what a run was asked for, and that it is complete."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distclust.artifacts.codec import decode, decode_object, differences, digest_of, encode
from distclust.data.storage import Storage, open_storage
from distclust.errors import UsageError

RUN = "run.json"
MANIFEST = "manifest.json"
FORMAT = 1
_PACKAGES = ("distclust", "numpy", "numba", "pyarrow", "distributed", "pyspark")
_SHOWN_FILES = 5


def as_storage(place: Storage | str | Path) -> Storage:
    """Open a place unless it is open."""
    return place if isinstance(place, Storage) else open_storage(place)


def now() -> str:
    """Return the time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed among those that matter."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def make_record(
    *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Any], seed: int, engine: str, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the content of run.json.

    Raises
    ------
    TypeError
        A value is not plain.
    """
    # What is compared later is compared with what was read back, so it goes through JSON once.
    what = decode(encode({"config": config, "inputs": inputs, "how": how}), RUN)
    return {
        "format_version": FORMAT,
        "kind": kind,
        "config": what["config"],
        "config_digest": config_digest(kind, what["config"], seed),
        "seed": seed,
        "inputs": what["inputs"],
        "how": what["how"],
        "engine": engine,
        "versions": package_versions(),
        "created": now(),
    }


def config_digest(kind: str, config: Mapping[str, Any], seed: int) -> str:
    """Return the digest of all that decides the result, besides the input."""
    return digest_of({"kind": kind, "config": config, "seed": seed})


def read_run(place: Storage | str | Path) -> dict[str, Any]:
    """Read run.json of a run directory.

    Raises
    ------
    FileNotFoundError
        There is none.
    UsageError
        A newer distclust wrote it.
    """
    return _read(as_storage(place), RUN)


def read_manifest(place: Storage | str | Path) -> dict[str, Any]:
    """Read manifest.json of a complete run directory.

    Raises
    ------
    FileNotFoundError
        There is none: the run is not complete.
    UsageError
        A newer distclust wrote it.
    """
    return _read(as_storage(place), MANIFEST)


def _read(storage: Storage, name: str) -> dict[str, Any]:
    found = decode_object(storage.read(name), storage.where(name))
    if found.get("format_version") != FORMAT:
        raise UsageError(
            f"format version {found.get('format_version')!r}; this distclust reads {FORMAT}.",
            where=storage.where(name),
            do="Use the version of distclust that wrote it, or a newer one.",
        )
    return found


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what makes two runs different ones, a line each: kind, seed, configuration, input."""
    lines = []
    for key in ("kind", "seed", "config"):
        lines += differences(there[key], wanted[key], "" if key == "config" else key)
    return lines + _differing_inputs(there["inputs"], wanted["inputs"])


def _differing_inputs(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    if "digest" in there and there["digest"] == wanted.get("digest"):
        return []
    before, now = _by_uri(there), _by_uri(wanted)
    lines = [f"input {uri} is missing now" for uri in before if uri not in now]
    lines += [f"input {uri} is new" for uri in now if uri not in before]
    for uri in before:
        if uri in now:
            lines += differences(before[uri], now[uri], f"input {uri}")[:1]
    if len(lines) > _SHOWN_FILES:
        lines = [*lines[:_SHOWN_FILES], f"and {len(lines) - _SHOWN_FILES} more input files"]
    rest = differences(_without_files(there), _without_files(wanted), "inputs")
    # A differing digest says nothing to a reader who sees what differs.
    return lines + [line for line in rest if not (lines and line.startswith("inputs.digest:"))]


def _by_uri(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {str(file["uri"]): file for file in inputs.get("files", ())}


def _without_files(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inputs.items() if key != "files"}
