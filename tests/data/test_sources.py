"""Every format, type and way of naming files gives the same rows in the same order."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from distclust.data.cache import NodeCache
from distclust.data.decode import read_batches
from distclust.data.memory import lookup
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView, Columns
from distclust.data.sources import Source, open_source
from distclust.errors import DataError
from tests.data.writers import (
    DTYPES,
    LIST_KINDS,
    in_id_order,
    make_rows,
    make_table,
    open_blocks,
    write_ipc,
    write_parquet,
)


def read_all(source: Source, target_bytes: int = 1 << 10) -> npt.NDArray[np.generic]:
    """Decode all rows, in partitions of a few rows and batches of seven."""
    parts = [
        batch.values
        for ref in plan_partitions(source, target_bytes)
        for batch in read_batches(ref, source.columns, source.width, 7)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LIST_KINDS)
def test_parquet_lists(tmp_path: Path, kind: str, dtype: str) -> None:
    x = make_rows(130, 6, dtype)
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x, kind)))
    assert (source.n_rows, source.width, source.dtype) == (130, 6, dtype)
    assert source.columns == Columns(vector="embedding")
    values = read_all(source)
    assert values.dtype == (np.float32 if dtype == "float16" else dtype)
    np.testing.assert_array_equal(values, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_ipc_lists(tmp_path: Path, stream: bool, compression: str | None, dtype: str) -> None:
    x = make_rows(130, 6, dtype)
    for kind in LIST_KINDS:
        path = write_ipc(tmp_path / f"{kind}.arrow", make_table(x, kind), stream=stream, compression=compression)
        np.testing.assert_array_equal(read_all(open_source(path)), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, dtype: str, order: str) -> None:
    x = make_rows(130, 6, dtype)
    np.save(tmp_path / "a.npy", np.asarray(x, order=order))
    source = open_source(tmp_path / "a.npy")
    assert (source.n_rows, source.width, source.dtype) == (130, 6, dtype)
    np.testing.assert_array_equal(read_all(source), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_tables(dtype: str) -> None:
    x = make_rows(130, 6, dtype)
    chunked = pa.concat_tables([make_table(x[:40]), make_table(x[40:])])
    for data in (x, np.asfortranarray(x), make_table(x), make_table(x, "fixed"), chunked):
        source = open_source(data)
        np.testing.assert_array_equal(read_all(source), x)
        source.close()


def test_array_is_not_copied() -> None:
    x = make_rows(10, 3)
    source = open_source(x)
    assert np.shares_memory(lookup(source.files[0].uri).values, x)
    source.close()
    source.close()
    with pytest.raises(DataError, match="not in this process"):
        lookup(source.files[0].uri)


def test_table_of_one_chunk_is_not_copied() -> None:
    x = make_rows(10, 3)
    source = open_source(make_table(x))
    assert np.shares_memory(lookup(source.files[0].uri).values, x)
    source.close()


def test_big_endian_npy(tmp_path: Path) -> None:
    x = make_rows(20, 3)
    np.save(tmp_path / "a.npy", x.astype(">f4"))
    source = open_source(tmp_path / "a.npy")
    assert source.dtype == "float32"
    values = read_all(source)
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, x)


def test_plain_columns(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([1, 2], pa.int16()), "name": ["x", "y"], "b": pa.array([0.5, 1.5], pa.float32())})
    path = write_parquet(tmp_path / "a.parquet", table)
    source = open_source(path, columns=["b", "a"])
    assert (source.width, source.dtype) == (2, "float32")
    np.testing.assert_array_equal(read_all(source), [[0.5, 1], [1.5, 2]])
    one = open_source(path, column="a")
    assert (one.width, one.dtype) == (1, "int16")
    np.testing.assert_array_equal(read_all(one), [[1], [2]])
    np.testing.assert_array_equal(read_all(open_source(table, columns=["a", "b"])), [[1, 0.5], [2, 1.5]])
    ipc = write_ipc(tmp_path / "a.ipc", table)
    np.testing.assert_array_equal(read_all(open_source(ipc, column="b")), [[0.5], [1.5]])


def test_columns_beside_nested_ones(tmp_path: Path) -> None:
    """Parquet numbers leaves, not columns: lengths must be looked up in the right one."""
    x = make_rows(5, 3)
    nested = pa.array([{"p": [1], "q": {"r": 1, "s": "t"}}] * 5)
    table = pa.table(
        {
            "meta": nested,
            "m": pa.array([[("k", 1)]] * 5, pa.map_(pa.string(), pa.int64())),
            "embedding": make_table(x).column(0),
            "embedding.x": nested,
        }
    )
    path = write_parquet(tmp_path / "a.parquet", table)
    np.testing.assert_array_equal(read_all(open_source(path, column="embedding")), x)


def test_types_may_differ_between_files(tmp_path: Path, cache: NodeCache) -> None:
    x = make_rows(20, 3)
    write_parquet(tmp_path / "a.parquet", make_table(x[:10].astype("float16"), "fixed"))
    write_parquet(tmp_path / "b.parquet", make_table(x[10:].astype("float64"), "list"))
    source = open_source(tmp_path)
    assert source.dtype == "float64"
    _, rows = in_id_order(open_blocks(cache, source, BlockView(source.columns, source.width)))
    np.testing.assert_array_equal(rows, x)


def test_files_are_sorted_by_path(tmp_path: Path) -> None:
    x = make_rows(60, 2)
    for name, rows in (("b/1.parquet", x[20:40]), ("c.parquet", x[40:]), ("a.parquet", x[:20])):
        write_parquet(tmp_path / name, make_table(rows), 7)
    for hidden in ("_temporary/x.parquet", ".hidden.parquet", "b/_SUCCESS", "b/.x.parquet"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"")
    (tmp_path / "readme.txt").write_text("not data")
    a, b, c = (str(tmp_path / name) for name in ("a.parquet", "b", "c.parquet"))
    for data in (
        tmp_path,
        str(tmp_path),
        f"{tmp_path}/",
        f"file://{tmp_path}",
        f"{tmp_path}/**/*.parquet",
        f"{tmp_path}/[a-c]*",
        [c, b, a],
        [Path(b), a, f"{tmp_path}/c*"],
        [a, tmp_path, b],
    ):
        source = open_source(data)
        found = [os.path.relpath(file.uri, tmp_path) for file in source.files]
        assert found == ["a.parquet", "b/1.parquet", "c.parquet"]
        np.testing.assert_array_equal(read_all(source), x)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a b.parquet", make_table(make_rows(3, 2)))
    monkeypatch.chdir(tmp_path)
    assert open_source("a b.parquet").files[0].uri == str(tmp_path / "a b.parquet")
    assert open_source((tmp_path / "a b.parquet").as_uri()).files[0].uri == str(tmp_path / "a b.parquet")


def test_names_with_glob_characters_are_taken_literally_if_they_exist(tmp_path: Path) -> None:
    x = make_rows(3, 2)
    write_parquet(tmp_path / "a[1].parquet", make_table(x))
    np.testing.assert_array_equal(read_all(open_source(tmp_path / "a[1].parquet")), x)


def test_links_that_lead_back_up_are_followed_once(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in/a.parquet", make_table(make_rows(3, 2)))
    (tmp_path / "in/loop").symlink_to(tmp_path / "in", target_is_directory=True)
    assert open_source(tmp_path / "in").n_rows == 3


def test_format_by_first_bytes(tmp_path: Path) -> None:
    x = make_rows(5, 2)
    write_parquet(tmp_path / "p" / "part-0", make_table(x))
    (tmp_path / "p" / "notes").write_text("something else")
    write_ipc(tmp_path / "i", make_table(x))
    write_ipc(tmp_path / "s", make_table(x), stream=True)
    with open(tmp_path / "n.data", "wb") as file:
        np.save(file, x)
    for name in ("p", "p/part-0", "i", "s", "n.data"):
        np.testing.assert_array_equal(read_all(open_source(tmp_path / name)), x)


def test_empty_files_and_groups_are_passed_over(tmp_path: Path) -> None:
    x = make_rows(30, 2)
    write_parquet(tmp_path / "a.parquet", make_table(x[:0]))
    write_parquet(tmp_path / "b.parquet", make_table(x), 10)
    write_parquet(tmp_path / "c.parquet", make_table(x[:0], "large_list"))
    source = open_source(tmp_path)
    np.testing.assert_array_equal(read_all(source), x)
    assert source.dtype == "float32"
    write_ipc(tmp_path / "x.arrow", pa.concat_tables([make_table(x[:0]), make_table(x)]))
    np.testing.assert_array_equal(read_all(open_source(tmp_path / "x.arrow")), x)


def test_fingerprint_follows_the_input(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(30, 2)))
    before = open_source(path).fingerprint()
    assert open_source(path).fingerprint() == before
    os.utime(path, ns=(1, 1))
    assert open_source(path).fingerprint() != before


def test_fingerprint_of_an_array_is_its_content() -> None:
    x = make_rows(30, 2)
    first, second, third = open_source(x), open_source(np.asfortranarray(x)), open_source(x, weights=np.ones(30))
    changed = x.copy()
    changed[29, 1] += 1
    fourth = open_source(changed)
    assert first.fingerprint() == second.fingerprint()
    assert len({first.fingerprint(), third.fingerprint(), fourth.fingerprint()}) == 3
    for source in (first, second, third, fourth):
        source.close()


def test_describe(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(30, 2), key=list(range(30))))
    described = open_source(path, id_column="key").describe()
    assert described == {
        "rows": 30,
        "width": 2,
        "dtype": "float32",
        "columns": {"vector": "embedding", "features": (), "id": "key", "weight": None},
        "files": [
            {
                "uri": str(path),
                "format": "parquet",
                "rows": 30,
                "size": path.stat().st_size,
                "mtime_ns": path.stat().st_mtime_ns,
                "etag": "",
            }
        ],
    }
    assert open_source(path).describe_place() == str(path)


def test_real_input(shared_data: Path) -> None:
    source = open_source(shared_data / "minipile")
    assert (source.n_rows, source.width, source.dtype, len(source.files)) == (64900, 384, "float16", 6)
    labelled = open_source(shared_data / "labelled" / "s1.parquet", columns=["x0", "x1"], id_column="id")
    assert (labelled.n_rows, labelled.width) == (5000, 2)
