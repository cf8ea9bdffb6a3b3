"""The node cache: files appear once, are found again, are bounded, and never decide a result."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from distclust.data import cache as cache_module
from distclust.data.block import Block
from distclust.data.cache import NodeCache, node_cache
from distclust.data.node import NodeConfig
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView, PartitionRef, RawView
from distclust.data.sources import Source, open_source
from distclust.data.state import NoState
from distclust.errors import UsageError
from tests.data.writers import in_id_order, make_rows, make_table, open_blocks, write_parquet

N, D = 1200, 8
BLOCK_BYTES = 4096 + 300 * D * 4 + 300 * 8 + 64


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(write_parquet(tmp_path / "in" / "a.parquet", make_table(make_rows(N, D)), 300))


@pytest.fixture
def view(source: Source) -> BlockView:
    return BlockView(source.columns, D, np.full(D, 0.5))


@pytest.fixture
def refs(source: Source) -> tuple[PartitionRef, ...]:
    refs = plan_partitions(source, 300 * D * 4)
    assert len(refs) == 4
    return refs


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[PartitionRef]:
    """References that were decoded, in order."""
    built: list[PartitionRef] = []
    build = cache_module.build_rows

    def counted(ref: PartitionRef, view: BlockView, out: Any) -> int:
        built.append(ref)
        return build(ref, view, out)

    monkeypatch.setattr(cache_module, "build_rows", counted)
    return built


def rows_of(cache: NodeCache, ref: PartitionRef, view: BlockView) -> npt.NDArray[Any]:
    with cache.open(ref, view) as block:
        assert isinstance(block, Block)
        return block.x.copy()


def block_files(cache: NodeCache) -> list[Path]:
    return sorted((Path(str(cache.config.scratch)) / cache.config.token / "blocks").glob("*"))


def fresh(cache: NodeCache, **changes: Any) -> NodeCache:
    """Return another process's cache of the same run, as far as one process can tell."""
    return NodeCache(replace(cache.config, **changes))


def test_a_block_is_built_once_per_node(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    first = rows_of(cache, refs[0], view)
    np.testing.assert_array_equal(rows_of(cache, refs[0], view), first)
    other = fresh(cache)
    np.testing.assert_array_equal(rows_of(other, refs[0], view), first)
    assert builds == [refs[0]]
    assert [path.suffix for path in block_files(cache)] == [".blk"]
    other.close()


def test_another_view_or_ref_is_another_block(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    ref = refs[0]
    variants = [
        (ref, view),
        (refs[1], view),
        (ref, replace(view, center=None)),
        (ref, replace(view, dtype="float64")),
        (replace(ref, offset=7), view),
        (replace(ref, n_rows=299), view),
        (replace(ref, start=1, n_rows=299), view),
    ]
    for one in variants:
        rows_of(cache, *one)
    assert len(block_files(cache)) == len(variants)
    rows_of(cache, replace(ref, index=9), view)
    assert len(builds) == len(variants)


def test_blocks_are_read_only(cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView) -> None:
    array = open_source(make_rows(10, D))
    for ref, one in ((refs[0], view), (plan_partitions(array, 1 << 20)[0], BlockView(array.columns, D))):
        for _ in range(2):
            with cache.open(ref, one) as block:
                assert isinstance(block, Block)
                with pytest.raises(ValueError, match="read-only"):
                    block.x[0, 0] = 1
                with pytest.raises(ValueError, match="read-only"):
                    block.row_ids[0] = 1
    array.close()


def damage_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 64)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:40] = b"x" * 40
    path.write_bytes(data)


def damage_count(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"n": 300', b'"n": 301'))


def damage_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 0'))


@pytest.mark.parametrize("damage", [damage_short, damage_empty, damage_header, damage_count, damage_version])
def test_damaged_blocks_are_built_again(
    cache: NodeCache,
    refs: tuple[PartitionRef, ...],
    view: BlockView,
    builds: list[PartitionRef],
    damage: Callable[[Path], None],
) -> None:
    first = rows_of(cache, refs[0], view)
    (path,) = block_files(cache)
    before = path.read_bytes()
    damage(path)
    assert path.read_bytes() != before
    for _ in range(2):
        other = fresh(cache)
        np.testing.assert_array_equal(rows_of(other, refs[0], view), first)
        other.close()
    assert len(builds) == 2
    assert path.read_bytes() == before


def test_a_failed_build_leaves_nothing(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "build_rows", fail)
        with pytest.raises(OSError, match="Input/output error"):
            rows_of(cache, refs[0], view)
    assert block_files(cache) == []
    assert not cache.streaming
    rows_of(cache, refs[0], view)


def test_no_room_streams_and_says_so_once(
    tmp_path: Path, source: Source, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    expected = source_rows(source)
    for cache_bytes in (0, BLOCK_BYTES * 3):
        builds.clear()
        cache = NodeCache(NodeConfig(scratch=str(tmp_path / "s"), cache_bytes=cache_bytes))
        for _ in range(2):
            _, rows = in_id_order(open_blocks(cache, source, view, 300 * D * 4))
            np.testing.assert_array_equal(rows, expected - 0.5)
        kept = len(block_files(cache))
        assert kept == (0 if cache_bytes == 0 else 2)  # 24 bytes a row are set aside for state
        assert len(builds) == 4 + (4 - kept)
        assert sum(path.stat().st_size for path in block_files(cache)) <= cache_bytes
        assert cache.streaming
        (note,) = cache.take_notes()
        assert note.startswith(f"Scratch {tmp_path}/s takes no more blocks (no room is left): the others are decoded")
        assert cache.take_notes() == []
        cache.close()


def source_rows(source: Source) -> npt.NDArray[np.float32]:
    return make_rows(source.n_rows, source.width)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_streams(
    cache: NodeCache,
    refs: tuple[PartitionRef, ...],
    view: BlockView,
    builds: list[PartitionRef],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    expected = rows_of(cache, refs[0], view)

    def full(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    other = replace(view, center=None)
    for _ in range(2):
        np.testing.assert_array_equal(rows_of(cache, refs[0], other), expected + 0.5)
    assert len(builds) == 3
    assert [path.suffix for path in block_files(cache)] == [".blk"]
    assert os.strerror(code) in cache.take_notes()[0]


def test_a_tenth_of_the_disk_stays_free(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1000 + BLOCK_BYTES

    class Disk:
        total = 10_000

        def __init__(self, *args: object) -> None:
            self.free = free

    monkeypatch.setattr(cache_module.shutil, "disk_usage", Disk)
    rows_of(cache, refs[0], view)
    assert not cache.streaming
    free = 1000 + 300 * D * 4
    rows_of(cache, refs[1], view)
    assert cache.streaming


def test_scratch_that_cannot_be_made_streams(
    tmp_path: Path, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = NodeCache(NodeConfig(scratch=str(tmp_path / "file" / "scratch")))
    for _ in range(2):
        rows_of(cache, refs[0], view)
    assert len(builds) == 2
    assert "Not a directory" in cache.take_notes()[0]
    assert isinstance(cache.state(refs[0], view), NoState)
    cache.close()


def test_scratch_removed_under_the_run_streams(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView
) -> None:
    rows_of(cache, refs[0], view)
    for path in block_files(cache):
        path.unlink()
    (Path(str(cache.config.scratch)) / cache.config.token / "blocks").rmdir()
    rows_of(cache, refs[1], view)
    assert cache.streaming


def test_eviction_takes_the_least_recently_used_block_of_other_views(
    tmp_path: Path, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    cache = NodeCache(NodeConfig(scratch=str(tmp_path / "s"), cache_bytes=int(BLOCK_BYTES * 4.5), memory_bytes=0))
    old, new = view, replace(view, center=None)
    rows_of(cache, refs[0], old)
    rows_of(cache, refs[1], old)
    cache.state(refs[1], old).put("labels", "1", np.zeros(300, np.int32))
    rows_of(cache, refs[2], old)
    for i, name in enumerate(names(cache, refs[:3], old)):  # as if used in this order, a second apart
        os.utime(name, ns=(0, (10, 30, 20)[i] * 10**9))
    rows_of(cache, refs[0], old)
    kept = set(names(cache, refs, old))
    assert len(kept) == 3
    rows_of(cache, refs[0], new)
    rows_of(cache, refs[1], new)
    alive = set(names(cache, refs, old))
    assert alive == set(names(cache, refs[:1], old)), "the one that was used again is still there"
    assert cache.state(refs[1], old).get("labels", "1") is None
    rows_of(cache, refs[2], new)
    assert not cache.streaming
    rows_of(cache, refs[3], new)
    assert cache.streaming, "blocks of the same view are not evicted"
    assert len(names(cache, refs, new)) == 3
    cache.close()


def names(cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView) -> list[Path]:
    wanted = [cache_module._block_name(ref, view) for ref in refs]
    return [path for name in wanted for path in block_files(cache) if path.name == name]


def maps(needle: str) -> int:
    return Path("/proc/self/maps").read_text().count(needle)


def test_open_blocks_stay_within_the_memory_budget(
    tmp_path: Path, refs: tuple[PartitionRef, ...], view: BlockView
) -> None:
    cache = NodeCache(NodeConfig(scratch=str(tmp_path / "bounded"), memory_bytes=2 * BLOCK_BYTES))
    for ref in refs:
        with cache.open(ref, view) as block:
            assert maps("/bounded/") <= 3
        del block
    gc.collect()
    assert maps("/bounded/") == 2
    cache.close()
    assert maps("/bounded/") == 0


def test_without_memory_budget_nothing_stays_mapped(
    tmp_path: Path, refs: tuple[PartitionRef, ...], view: BlockView
) -> None:
    cache = NodeCache(NodeConfig(scratch=str(tmp_path / "closed"), memory_bytes=0))
    with cache.open(refs[0], view) as block:
        assert maps("/closed/") == 1
        kept = block.x
    del block
    assert kept[0, 0] == kept[0, 0], "an array that a step kept stays valid"
    assert maps("/closed/") == 1
    del kept
    assert maps("/closed/") == 0
    cache.close()


def test_concurrent_opens_build_once(
    cache: NodeCache, source: Source, refs: tuple[PartitionRef, ...], view: BlockView, builds: list[PartitionRef]
) -> None:
    barrier = threading.Barrier(8)

    def read(i: int) -> npt.NDArray[Any]:
        barrier.wait()
        return np.concatenate([rows_of(cache, refs[(i + j) % 4], view) for j in range(4)])

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(read, range(8)))
    assert sorted(ref.index for ref in builds) == [0, 1, 2, 3]
    for rows in got:
        np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(got[0], axis=0))


def test_concurrent_opens_of_an_array_build_once(cache: NodeCache, builds: list[PartitionRef]) -> None:
    array = open_source(make_rows(N, D))
    ref = plan_partitions(array, 1 << 20)[0]
    view = BlockView(array.columns, D)
    barrier = threading.Barrier(4)

    def read(_: int) -> int:
        barrier.wait()
        with cache.open(ref, view) as block:
            return id(block)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(read, range(4)))) == 1
    assert len(builds) == 1
    array.close()


def test_two_processes_may_build_the_same_block(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one finds no file, builds, and replaces what the first one published meanwhile."""
    other = fresh(cache)
    build = cache_module.build_rows

    def race(ref: PartitionRef, view: BlockView, out: Any) -> int:
        monkeypatch.setattr(cache_module, "build_rows", build)
        rows_of(other, ref, view)
        return build(ref, view, out)

    monkeypatch.setattr(cache_module, "build_rows", race)
    np.testing.assert_array_equal(rows_of(cache, refs[0], view), rows_of(other, refs[0], view))
    assert len(block_files(cache)) == 1
    other.close()


def test_memory_blocks_are_kept_for_two_views_until_release(cache: NodeCache, builds: list[PartitionRef]) -> None:
    array = open_source(make_rows(N, D))
    (ref,) = plan_partitions(array, 1 << 20)
    views = [BlockView(array.columns, D, np.full(D, float(i))) for i in range(3)]
    for i in (0, 1, 0, 1, 2, 1, 0):
        rows_of(cache, ref, views[i])
    assert len(builds) == 4, "view 0 is built again after 2 and 1 were used"
    cache.state(ref, views[0]).put("labels", "1", np.zeros(N))
    assert cache.state(ref, views[0]).get("labels", "1") is not None
    assert cache.state(ref, views[1]).get("labels", "1") is None
    assert not Path(str(cache.config.scratch)).exists(), "arrays leave no trace on disk"
    array.close()


def test_state_lies_beside_the_block(
    cache: NodeCache, refs: tuple[PartitionRef, ...], view: BlockView, source: Source
) -> None:
    cache.state(refs[0], view).put("labels", "000001", np.arange(5))
    other = fresh(cache)
    np.testing.assert_array_equal(other.state(refs[0], view).get("labels", "000001"), np.arange(5))
    assert other.state(refs[1], view).get("labels", "000001") is None
    assert other.state(refs[0], replace(view, center=None)).get("labels", "000001") is None
    assert isinstance(other.state(refs[0], RawView(source.columns, D)), NoState)
    assert isinstance(fresh(cache, cache_bytes=0).state(refs[0], view), NoState)
    other.close()


def test_one_cache_per_process_and_run(tmp_path: Path) -> None:
    config = NodeConfig(scratch=str(tmp_path))
    cache = node_cache(config)
    assert node_cache(pickle.loads(pickle.dumps(config))) is cache
    assert node_cache(NodeConfig(scratch=str(tmp_path))) is not cache
    cache.close()
    assert node_cache(config) is not cache
    node_cache(config).close()


def test_config_is_checked() -> None:
    with pytest.raises(UsageError, match="cache_bytes is -1; it must be 0 or more"):
        NodeConfig(cache_bytes=-1)
    with pytest.raises(UsageError, match=r"token is '../x'; allowed are letters"):
        NodeConfig(token="../x")
    assert NodeConfig().token != NodeConfig().token


READER = """
import sys
import numpy as np
from distclust.data.cache import NodeCache
from distclust.data.node import NodeConfig
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.sources import open_source
source = open_source(sys.argv[1])
cache = NodeCache(NodeConfig(token="shared", scratch=sys.argv[2]))
total = 0.0
for _ in range(3):
    for ref in plan_partitions(source, 300 * 8 * 4):
        with cache.open(ref, BlockView(source.columns, 8)) as block:
            total += float((block.x.sum(axis=1, dtype=np.float64) * block.row_ids).sum())
            cache.state(ref, block.view).put("labels", "1", block.row_ids)
print(total, cache.streaming)
cache.close()
"""


def test_processes_share_a_run(tmp_path: Path, source: Source) -> None:
    command = [sys.executable, "-c", READER, source.files[0].uri, str(tmp_path / "s")]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {reader.communicate()[0] for reader in readers}
    assert [reader.returncode for reader in readers] == [0, 0, 0]
    rows = source_rows(source)
    assert said == {f"{3 * float((rows.sum(axis=1, dtype=np.float64) * np.arange(N)).sum())} False\n"}
    assert list((tmp_path / "s").iterdir()) == []
