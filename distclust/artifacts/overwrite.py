"""Replacement of a run directory: the new run is built beside the old one and takes its place when it is complete.

``<out>.new`` is worked in; a hidden file in it says that it is a successor, and not a run that somebody named so.
Locally the end is two renames: the old directory moves into the new one under a hidden name, then the new one takes
its name, and what is hidden is removed. A store without directories loses the old manifest first, then gets the new
files one by one, the manifest last. Every step can be repeated, and `settle` does so when the directory is opened
next, whatever moment the first attempt died in.
"""

from __future__ import annotations

from distclust.artifacts.codec import decode_object
from distclust.artifacts.commit import COMMITS, on_each
from distclust.artifacts.lease import LEASE, acquire, check_free
from distclust.artifacts.record import MANIFEST, RUN
from distclust.data.storage import Storage
from distclust.errors import StorageError, UsageError

EVENTS = "events.jsonl"
_SUFFIX = ".new"
_REPLACED = ".replaced"
_SUCCESSOR = ".successor"


def beside(final: Storage) -> Storage:
    """Return the directory in which the successor of a run directory is built."""
    above, name = final.split()
    return above.child(name + _SUFFIX)


def successor(final: Storage) -> Storage | None:
    """Return the unfinished run that is to replace a run directory; None where there is none."""
    try:
        new = beside(final)
    except ValueError:  # the top of a filesystem has nothing beside it
        return None
    return new if new.exists(_SUCCESSOR) and new.exists(RUN) else None


def claim(new: Storage) -> None:
    """Mark an empty directory as a successor.

    Raises
    ------
    UsageError
        Something is in it that is no unfinished successor.
    """
    if new.exists(_SUCCESSOR):
        return
    foreign = [name for name in new.entries() if name != LEASE]
    if foreign:
        raise UsageError(
            f"the new run would be built here, but the directory holds {foreign[0]}.",
            where=new.where(),
            do="Move it away, or choose another output.",
        )
    new.put(_SUCCESSOR, b"")


def clear(new: Storage) -> None:
    """Remove an unfinished run, in an order in which what is left at any moment is an unfinished run."""
    new.remove_tree(COMMITS)
    for name in new.entries():
        if name.endswith("/"):
            new.remove_tree(name[:-1])
        elif name not in (RUN, LEASE):
            new.remove(name)
    new.remove(RUN)


def settle(final: Storage) -> bool:
    """Finish a replacement that was cut short; return whether there was one.

    Raises
    ------
    UsageError
        A living process is at work on it.
    """
    if final.is_local:
        _remove_traces(final)
    try:
        new = beside(final)
    except UsageError:  # the top of a filesystem has nothing beside it
        return False
    if not (new.exists(MANIFEST) and new.exists(_SUCCESSOR)):
        return False
    check_free(final)
    lease = acquire(new)
    lease.pause()
    replace(final)
    final.remove(LEASE)
    return True


def _remove_traces(final: Storage) -> None:
    """Remove what the renames leave behind in a directory that took its place."""
    if final.exists(_REPLACED):
        final.remove_tree(_REPLACED)
    if final.exists(_SUCCESSOR):
        final.remove(_SUCCESSOR)


def replace(final: Storage) -> None:
    """Put the complete run beside a directory in its place. Nobody else may be at work in either."""
    new = beside(final)
    if not new.exists(MANIFEST):
        raise StorageError("is not complete, so it replaces nothing.", where=new.where(), do="Run again.")
    if final.is_local:
        _rename(final, new)
    else:
        _move_files(final, new)


def _rename(final: Storage, new: Storage) -> None:
    above, name = final.split()
    try:
        if final.exists(""):
            if new.exists(_REPLACED):
                _remove_empty(final)
            else:
                above.move(name, f"{name}{_SUFFIX}/{_REPLACED}")
        above.move(f"{name}{_SUFFIX}", name)
    except OSError as error:
        reason = error.message if isinstance(error, StorageError) else f"{error.strerror or error}."
        raise StorageError(
            f"the complete new run in {new.where()} cannot take its place: {reason}",
            where=final.where(),
            do="Move it there yourself, or run the same command again.",
        ) from error
    _remove_traces(final)


def _remove_empty(final: Storage) -> None:
    """Remove a directory that somebody made while the name was free, unless something is in it."""
    inside = [name for name in final.entries() if name != LEASE]
    if inside:
        raise StorageError(f"{inside[0]} appeared in it while it was being replaced.", where=final.where())
    final.remove_tree()


def _move_files(final: Storage, new: Storage) -> None:
    above, name = final.split()
    manifest = decode_object(new.read(MANIFEST), new.where(MANIFEST))
    kept = {file["path"] for file in manifest["files"]} | {EVENTS, LEASE}
    final.remove(MANIFEST)
    for stat in final.list():
        if stat.path not in kept:
            final.remove(stat.path)
    paths = [stat.path for stat in new.list() if stat.path not in (MANIFEST, LEASE)]
    on_each(final, lambda path: above.move(f"{name}{_SUFFIX}/{path}", f"{name}/{path}"), paths)
    above.move(f"{name}{_SUFFIX}/{MANIFEST}", f"{name}/{MANIFEST}")
    new.remove_tree()
