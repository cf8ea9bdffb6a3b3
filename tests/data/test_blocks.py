"""Blocks: hash order, transform, bad rows; the same bits from every source and under every partitioning."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distclust.data.block import RawRows
from distclust.data.cache import NodeCache
from distclust.data.node import NodeConfig
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView, RawView
from distclust.data.sources import Source, open_source
from distclust.errors import DataError
from distclust.kernels.random import hash_rows
from tests.data.writers import in_id_order, make_rows, make_table, open_blocks, write_ipc, write_parquet


def normal_rows(n: int, d: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_rows_are_in_hash_order(tmp_path: Path, cache: NodeCache) -> None:
    x = normal_rows(300, 5)
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x, w=np.arange(300.0))), weight_column="w")
    blocks = open_blocks(cache, source, BlockView(source.columns, 5), 5 * 4 * 100)
    assert len(blocks) > 2
    for block in blocks:
        hashes = hash_rows(block.row_ids)
        assert (hashes[1:] > hashes[:-1]).all()
        np.testing.assert_array_equal(block.x, x[block.row_ids])
        assert block.weights is not None
        np.testing.assert_array_equal(block.weights, block.row_ids)
        np.testing.assert_array_equal(block.positions, block.row_ids - block.ref.offset)
        assert (block.n, block.d) == (block.ref.n_rows, 5)
        assert block.x.flags.c_contiguous
    assert sorted(np.concatenate([block.row_ids for block in blocks])) == list(range(300))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("unit_rows", [False, True])
def test_transform(tmp_path: Path, cache: NodeCache, dtype: Any, unit_rows: bool) -> None:
    x = normal_rows(200, 7) + 1e4
    center = x.astype(np.float64).mean(axis=0) if not unit_rows else np.full(7, 0.125)
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x)))
    view = BlockView(source.columns, 7, center, unit_rows, dtype)
    _, got = in_id_order(open_blocks(cache, source, view))
    expected = x.astype(np.float64)
    if unit_rows:
        expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
    expected -= center
    assert got.dtype == dtype
    if unit_rows:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7 if dtype == "float32" else 1e-15)
    else:
        np.testing.assert_array_equal(got, expected.astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "float64", "float16", "uint8"])
def test_source_types_are_centred_before_the_cast(cache: NodeCache, tmp_path: Path, dtype: str) -> None:
    x = make_rows(100, 3, dtype)
    if dtype in ("int64", "float64"):
        x = (x + 1_700_000_000_000).astype(dtype)  # a timestamp: float32 alone would lose the rows
    center = x.astype(np.float64).mean(axis=0)
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x)))
    _, got = in_id_order(open_blocks(cache, source, BlockView(source.columns, 3, center)))
    np.testing.assert_array_equal(got, (x.astype(np.float64) - center).astype(np.float32))


def everything(source: Source, scratch: Path, view: BlockView, target_bytes: int, min_partitions: int = 1) -> Any:
    cache = NodeCache(NodeConfig(scratch=str(scratch)))
    try:
        blocks = open_blocks(cache, source, view, target_bytes, min_partitions)
    finally:
        cache.close()
    ids, rows = in_id_order(blocks)
    return ids.tobytes(), rows.tobytes()


def test_the_same_bits_from_every_format(tmp_path: Path) -> None:
    x = normal_rows(500, 6)
    table = make_table(x, "fixed")
    np.save(tmp_path / "a.npy", x)
    center = x.astype(np.float64).mean(axis=0)
    bits = set()
    for data in (
        x,
        np.asfortranarray(x),
        table,
        make_table(x, "large_list"),
        write_parquet(tmp_path / "a.parquet", table, 77),
        write_parquet(tmp_path / "b.parquet", make_table(x), 500),
        write_ipc(tmp_path / "a.arrow", table, 123),
        write_ipc(tmp_path / "b.arrow", make_table(x), stream=True),
        tmp_path / "a.npy",
    ):
        source = open_source(data)
        bits.add(everything(source, tmp_path / "scratch", BlockView(source.columns, 6, center, True), 6 * 4 * 100))
        source.close()
    assert len(bits) == 1


@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(1, 199), max_size=4, unique=True),
    group=st.integers(5, 200),
    target_rows=st.integers(3, 300),
    bad=st.lists(st.integers(0, 199), max_size=3, unique=True),
)
def test_the_same_bits_under_every_partitioning(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], group: int, target_rows: int, bad: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    x = normal_rows(200, 3)
    x[bad, 1] = np.nan
    bounds = [0, *sorted(cuts), 200]
    for i, (first, last) in enumerate(pairwise(bounds)):
        write_parquet(folder / "in" / f"{i}.parquet", make_table(x[first:last]), group)
    source, array = open_source(folder / "in"), open_source(x)
    center = np.array([0.1, 0.2, 0.3])
    view = BlockView(source.columns, 3, center, on_bad_rows="drop")
    got = everything(source, folder / "scratch", view, 12 * target_rows)
    view = BlockView(array.columns, 3, center, on_bad_rows="drop")
    expected = everything(array, folder / "scratch", view, 1 << 20)
    array.close()
    assert got == expected


def test_bad_rows_are_errors_that_name_the_row(tmp_path: Path, cache: NodeCache) -> None:
    x = normal_rows(100, 3)
    write_parquet(tmp_path / "a.parquet", make_table(x), 30)
    x[65, 2] = np.nan
    write_parquet(tmp_path / "b.parquet", make_table(x), 30)
    source = open_source(tmp_path / "*.parquet")
    with pytest.raises(DataError) as caught:
        open_blocks(cache, source, BlockView(source.columns, 3))
    assert str(caught.value) == (
        f"{tmp_path}/b.parquet, row group 2, row 65 of the file (row 165 of the dataset): "
        "value 2 of the vector is NaN. "
        "Repair or remove the row, or drop such rows with on_bad_rows='drop' (--on-bad-rows drop)."
    )
    array = open_source(x)
    with pytest.raises(DataError, match="array row 65: value 2 of the vector is NaN"):
        open_blocks(cache, array, BlockView(array.columns, 3))
    array.close()


def test_zero_rows_are_bad_only_for_unit_rows(cache: NodeCache) -> None:
    x = normal_rows(50, 3)
    x[20] = 0
    source = open_source(x)
    assert sum(block.n for block in open_blocks(cache, source, BlockView(source.columns, 3))) == 50
    with pytest.raises(DataError, match="array row 20: the vector is zero, which has no direction"):
        open_blocks(cache, source, BlockView(source.columns, 3, unit_rows=True))
    source.close()


@pytest.mark.parametrize("in_memory", [False, True])
def test_bad_rows_are_dropped(tmp_path: Path, cache: NodeCache, in_memory: bool) -> None:
    n = 10_000
    x = normal_rows(n, 2)
    bad = np.random.default_rng(1).choice(n, 700, replace=False)
    x[bad[:300], 0] = np.inf
    x[bad[300:600], 1] = np.nan
    x[bad[600:]] = 0
    table = make_table(x, w=np.arange(float(n)))
    source = open_source(table if in_memory else write_parquet(tmp_path / "a.parquet", table, n), weight_column="w")
    view = BlockView(source.columns, 2, unit_rows=True, on_bad_rows="drop")
    blocks = open_blocks(cache, source, view)
    again = open_blocks(cache, source, view)
    (block,) = blocks
    assert block.n == n - 700
    assert (np.diff(hash_rows(block.row_ids).astype(object)) > 0).all()
    assert set(block.row_ids.tolist()) == set(range(n)) - set(bad.tolist())
    assert block.weights is not None
    np.testing.assert_array_equal(block.weights, block.row_ids)
    np.testing.assert_allclose(np.linalg.norm(block.x, axis=1), 1, rtol=1e-6)
    assert again[0].x.tobytes() == block.x.tobytes()
    source.close()


def test_a_partition_of_bad_rows_only(tmp_path: Path, cache: NodeCache) -> None:
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(np.full((10, 2), np.nan, np.float32))))
    for _ in range(2):
        (block,) = open_blocks(cache, source, BlockView(source.columns, 2, on_bad_rows="drop"))
        assert block.x.shape == (0, 2)


def test_values_beyond_float32(cache: NodeCache) -> None:
    source = open_source(np.array([[1.0, 2.0], [1e300, 3.0]]))
    with pytest.raises(DataError, match=r"a value lies 1e\+300 from the centre; float32 ends at 3.4e\+38. Scale"):
        open_blocks(cache, source, BlockView(source.columns, 2))
    (block,) = open_blocks(cache, source, BlockView(source.columns, 2, dtype="float64"))
    assert block.x.max() == 1e300
    source.close()


def test_raw_rows(tmp_path: Path, cache: NodeCache) -> None:
    x = make_rows(100, 3, "int8")
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x)))
    view = RawView(source.columns, 3)
    (ref,) = plan_partitions(source, 1 << 20)
    with cache.open(ref, view) as rows:
        assert isinstance(rows, RawRows)
        assert (rows.ref, rows.view) == (ref, view)
        for _ in range(2):
            values = np.concatenate([batch.values for batch in rows.batches()])
            assert values.dtype == np.int8
            np.testing.assert_array_equal(values, x)
    assert not (tmp_path / "scratch").exists()
