"""The node cache: blocks decoded once per node, then mapped from scratch by every process that needs them."""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distclust.data.block import Block, RawRows, RecordRows
from distclust.data.blockfile import VERSION, Draft, Layout, Rows, open_block
from distclust.data.build import build_rows
from distclust.data.decode import read_batches, read_records
from distclust.data.memory import lookup
from distclust.data.node import NodeConfig
from distclust.data.parquet import release_parked
from distclust.data.refs import BlockView, PartitionRef, RawView, RecordView, View
from distclust.data.scratch import RunDirectory, scratch_root, sweep
from distclust.data.state import FileState, MemoryState, NoState, RowState

FREE_SHARE = 0.1
"""Share of the scratch disk that stays free when no budget is given."""
STATE_BYTES_PER_ROW = 24
"""Set aside for row state within a budget: labels, a bound and a distance of 4 bytes each, for two passes."""
_MEMORY_VIEWS = 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)


class NodeCache:
    """Blocks and row state of one run in one process; files are shared with the node's other processes.

    All methods are safe in any thread. Use `node_cache` to get the one of this process.

    Parameters
    ----------
    config : NodeConfig
        Where, and how much.

    Attributes
    ----------
    streaming : bool
        There was no room for a block at some time: it is decoded from the source in every pass.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.streaming = False
        self._root = scratch_root(config.scratch)
        self._run: RunDirectory | None = None
        self._notes: list[str] = []
        self._lock = threading.RLock()
        self._building: dict[str, threading.Lock] = {}
        self._open: OrderedDict[str, tuple[Rows, int]] = OrderedDict()
        self._open_limit = _quarter_of_memory() if config.memory_bytes is None else config.memory_bytes

    @contextmanager
    def open(self, ref: PartitionRef, view: View) -> Iterator[Block | RawRows | RecordRows]:
        """Open the rows of a partition; they are valid until the end of the ``with``.

        Parameters
        ----------
        ref : PartitionRef
            The partition.
        view : BlockView, RawView or RecordView
            A block from the cache, built on first touch; or raw rows or records streamed from the source.

        Raises
        ------
        DataError
            See `distclust.data.build.build_rows`.
        OSError
            The source cannot be read now.
        """
        if isinstance(view, RawView):
            yield RawRows(ref, view, lambda: read_batches(ref, view.columns, view.width))
        elif isinstance(view, RecordView):
            yield RecordRows(ref, view, lambda: read_records(ref, view.columns))
        elif ref.format == "memory":
            yield self._memory_block(ref, view)
        else:
            rows = self._file_rows(ref, view)
            yield Block(rows.x, rows.row_ids, rows.weights, ref, view)

    def state(self, ref: PartitionRef, view: View) -> RowState:
        """Return the advisory per-row arrays of a partition under a view."""
        if isinstance(view, RawView | RecordView):
            return NoState()
        if ref.format == "memory":
            key = (view.digest, ref.start, ref.n_rows, ref.offset)
            return lookup(ref.uri).states.setdefault(key, MemoryState())
        directory = self._directory()
        if directory is None or self.config.cache_bytes == 0:
            return NoState()
        return FileState(directory / "state" / _block_name(ref, view))

    def take_notes(self) -> list[str]:
        """Return what the user should be told, and forget it."""
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Let go of all blocks, and remove the files if no other process of the node uses them; twice is harmless."""
        with self._lock:
            self._open.clear()
            self._building.clear()
            run, self._run = self._run, None
        release_parked()
        if run is not None:
            run.leave()
        with _caches_lock:
            for key in [key for key, cache in _caches.items() if cache is self]:
                del _caches[key]

    def _memory_block(self, ref: PartitionRef, view: BlockView) -> Block:
        rows = lookup(ref.uri)
        key = (ref.start, ref.n_rows, ref.offset)
        with self._alone(f"{ref.uri} {key} {view.digest}"):
            with rows.lock:
                blocks = rows.blocks.pop(view.digest, {})
                rows.blocks[view.digest] = blocks
                for old in list(rows.blocks)[:-_MEMORY_VIEWS]:
                    del rows.blocks[old]
            if key not in blocks:
                built = self._in_memory(ref, view)
                blocks[key] = Block(built.x, built.row_ids, built.weights, ref, view)
            return blocks[key]

    def _file_rows(self, ref: PartitionRef, view: BlockView) -> Rows:
        name = _block_name(ref, view)
        with self._alone(name):
            rows = self._kept_open(name)
            if rows is not None:
                return rows
            directory = self._directory()
            if directory is None:
                return self._in_memory(ref, view)
            layout = _layout(ref, view)
            path = directory / "blocks" / name
            rows = open_block(path, layout)
            if rows is None:
                draft = self._draft(path, layout, view)
                if draft is None:
                    return self._in_memory(ref, view)
                try:
                    rows = draft.publish(build_rows(ref, view, draft.rows))
                except BaseException:
                    draft.discard()
                    raise
            with contextlib.suppress(OSError):
                os.utime(path)  # the time of last use, by which blocks are evicted
            self._keep_open(name, rows, layout.n_bytes)
            return rows

    @staticmethod
    def _in_memory(ref: PartitionRef, view: BlockView) -> Rows:
        rows = Rows.empty(_layout(ref, view))
        return rows.first(build_rows(ref, view, rows))

    def _draft(self, path: Path, layout: Layout, view: BlockView) -> Draft | None:
        """Start a block file, making room if need be; None (and a note, once) if there is none."""
        try:
            if self._make_room(path.parent, layout, view):
                return Draft(path, layout)
            reason = "no room is left"
        except OSError as exc:
            if exc.errno not in _NO_ROOM:
                raise
            reason = exc.strerror or str(exc)
        self._stream(reason)
        return None

    def _make_room(self, blocks: Path, layout: Layout, view: BlockView) -> bool:
        """Whether a block fits, after removing blocks of other views, least recently used first.

        Blocks of the same view stay: a pass touches each of them once, and evicting the oldest of those would
        evict exactly what the pass needs next.
        """
        if self._fits(blocks, layout):
            return True
        others = []
        for path in blocks.glob("*.blk"):
            if not path.name.startswith(view.digest):
                with contextlib.suppress(FileNotFoundError):
                    others.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(others):
            with self._lock:
                self._open.pop(path.name, None)
            path.unlink(missing_ok=True)
            shutil.rmtree(blocks.parent / "state" / path.name, ignore_errors=True)
            if self._fits(blocks, layout):
                return True
        return False

    def _fits(self, blocks: Path, layout: Layout) -> bool:
        if self.config.cache_bytes is None:
            disk = shutil.disk_usage(blocks)
            return disk.free - layout.n_bytes >= FREE_SHARE * disk.total
        row_bytes = layout.n_bytes / max(1, layout.capacity)
        budget = self.config.cache_bytes * row_bytes / (row_bytes + STATE_BYTES_PER_ROW)
        used = 0
        for entry in os.scandir(blocks):
            with contextlib.suppress(FileNotFoundError):
                used += entry.stat().st_size
        return used + layout.n_bytes <= budget

    def _directory(self) -> Path | None:
        """Return the run's directory, joined on first use; None if it cannot be made."""
        with self._lock:
            if self._run is None:
                try:
                    _sweep_once(self._root)
                    run = RunDirectory(self._root, self.config.token, self.config.keep)
                    (run.path / "blocks").mkdir(mode=0o700, exist_ok=True)
                except OSError as exc:
                    self._stream(exc.strerror or str(exc))
                    return None
                self._run = run
            return self._run.path

    def _stream(self, reason: str) -> None:
        with self._lock:
            if not self.streaming:
                self.streaming = True
                self._notes.append(
                    f"Scratch {self._root} takes no more blocks ({reason}): the others are decoded from the source in "
                    "every pass, which is slower. Give --scratch a larger disk, or --cache-bytes more."
                )

    def _kept_open(self, name: str) -> Rows | None:
        with self._lock:
            if name not in self._open:
                return None
            self._open.move_to_end(name)
            return self._open[name][0]

    def _keep_open(self, name: str, rows: Rows, n_bytes: int) -> None:
        with self._lock:
            self._open[name] = rows, n_bytes
            total = sum(size for _, size in self._open.values())
            while total > self._open_limit:
                _, (_, size) = self._open.popitem(last=False)
                total -= size

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Let one thread at a time open or build a block."""
        with self._lock:
            lock = self._building.setdefault(name, threading.Lock())
        with lock:
            yield


_caches: dict[tuple[int, str, str | None], NodeCache] = {}
_caches_lock = threading.Lock()
_swept: set[Path] = set()


def node_cache(config: NodeConfig) -> NodeCache:
    """Return this process's cache for a run's token and scratch directory.

    It is closed when the process ends, if not before. A forked child gets a cache of its own.
    """
    key = (os.getpid(), config.token, config.scratch)
    with _caches_lock:
        if key not in _caches:
            _caches[key] = NodeCache(config)
        return _caches[key]


@atexit.register
def _close_all() -> None:
    for (pid, _, _), cache in list(_caches.items()):
        if pid == os.getpid():
            cache.close()


def _sweep_once(root: Path) -> None:
    """Remove what dead runs left, once per process: it costs a directory listing."""
    with _caches_lock:
        if root in _swept:
            return
        _swept.add(root)
    sweep(root)


def _block_name(ref: PartitionRef, view: BlockView) -> str:
    identity = (ref.uri, ref.fingerprint, ref.groups, ref.start, ref.n_rows, ref.offset, view.columns, VERSION)
    return f"{view.digest}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}.blk"


def _layout(ref: PartitionRef, view: BlockView) -> Layout:
    return Layout(ref.n_rows, view.block_width, view.dtype, view.columns.weight is not None)


def _quarter_of_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


__all__ = ["NodeCache", "node_cache", "sweep"]
