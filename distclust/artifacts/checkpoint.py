"""Checkpoints of a loop: state as JSON, arrays as npy, one directory a step, the two newest kept.

``LATEST`` is written last and holds the digests of both steps, so a step counts only if all its bytes are there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.artifacts.codec import decode_object, encode, sha256
from distclust.data.storage import Storage
from distclust.errors import StorageError, UsageError
from distclust.stats.codec import read_array

CHECKPOINTS = "checkpoints"
LATEST = "LATEST"
_FORMAT = 1
_KEPT = 2


class _DamagedError(Exception):
    """A saved step is not whole."""


@dataclass(frozen=True)
class Checkpoint:
    """A saved step.

    Attributes
    ----------
    step : int
    state : dict
        Plain values; tuples came back as lists.
    arrays : dict of str to ndarray
        Bit for bit as they were saved.
    """

    step: int
    state: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class Checkpoints:
    """Saves and loads the steps of one loop.

    Parameters
    ----------
    storage : Storage
        Run directory.
    name : str
        Of the loop, such as ``kmeans``.
    before_save : callable, optional
        Called first by `save`; may raise to keep a run that lost its lease from writing.

    Attributes
    ----------
    damaged : tuple of str
        What the last `load` could not use, one line each.
    """

    def __init__(self, storage: Storage, name: str, before_save: Callable[[], None] | None = None) -> None:
        self._storage = storage
        self._root = f"{CHECKPOINTS}/{name}"
        self._before_save = before_save
        self.damaged: tuple[str, ...] = ()

    def save(self, step: int, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Save a step and forget all but the one before it.

        Parameters
        ----------
        step : int
            Not negative; greater than those before it, or equal to save a step again.
        state : mapping
            Plain values, see `distclust.artifacts.codec.encode`.
        arrays : mapping of str to ndarray
            Any dtype but object.
        """
        if self._before_save is not None:
            self._before_save()
        files = {"state.json": encode(state)}
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            files[f"{name}.npy"] = buffer.getvalue()
        for name, data in files.items():
            self._storage.put(self._path(step, name), data)
        entry = {"step": step, "files": {name: sha256(data) for name, data in files.items()}}
        kept = [entry, *(old for old in self._entries() if old["step"] < step)][:_KEPT]
        self._storage.put(f"{self._root}/{LATEST}", encode({"format": _FORMAT, "steps": kept}))
        self._forget_all_but({_name(old["step"]) for old in kept})

    def load(self) -> Checkpoint | None:
        """Return the newest step that is whole, or None.

        Raises
        ------
        UsageError
            A newer distclust wrote the checkpoints.
        """
        self.damaged = ()
        for entry in self._entries():
            try:
                return self._load(entry)
            except _DamagedError as error:
                self.damaged += (str(error),)
        return None

    def _load(self, entry: Mapping[str, Any]) -> Checkpoint:
        state: dict[str, Any] = {}
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, digest in entry["files"].items():
            path = self._path(entry["step"], name)
            try:
                data = self._storage.read(path)
            except FileNotFoundError as error:
                raise _DamagedError(f"{self._storage.where(path)}: missing") from error
            if sha256(data) != digest:
                raise _DamagedError(f"{self._storage.where(path)}: not the bytes that were saved")
            if name.endswith(".npy"):
                arrays[name.removesuffix(".npy")] = read_array(io.BytesIO(data))
            else:
                state = decode_object(data, self._storage.where(path))
        return Checkpoint(entry["step"], state, arrays)

    def _entries(self) -> list[dict[str, Any]]:
        """Return the steps of ``LATEST``, newest first; none if there is no such file or it is damaged."""
        path = f"{self._root}/{LATEST}"
        try:
            data = self._storage.read(path)
        except FileNotFoundError:
            return []
        try:
            found = decode_object(data, self._storage.where(path))
        except StorageError as error:
            self.damaged += (str(error),)
            return []
        if found.get("format") != _FORMAT:
            raise UsageError(
                f"checkpoints of format {found.get('format')!r}; this distclust reads {_FORMAT}.",
                where=self._storage.where(path),
                do="Resume with the version that began the run, or start it again.",
            )
        return list(found["steps"])

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._storage.entries(self._root):
            if name.endswith("/") and name[:-1] not in names:
                self._storage.remove_tree(f"{self._root}/{name[:-1]}")

    def _path(self, step: int, name: str) -> str:
        return f"{self._root}/{_name(step)}/{name}"


def _name(step: int) -> str:
    return f"{step:06d}"
