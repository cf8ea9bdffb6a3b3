"""Batches, ids and the errors of reading, which name the row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distclust.data import parquet
from distclust.data.decode import bad_row_error, place, read_batches, read_ids
from distclust.data.plan import plan_partitions
from distclust.data.refs import Columns, Fingerprint, PartitionRef
from distclust.data.sources import Source, open_source
from distclust.errors import DataError
from tests.data.writers import make_rows, make_table, vectors, write_ipc, write_parquet


@pytest.fixture(autouse=True)
def no_parked_readers() -> Iterator[None]:
    yield
    parquet.release_parked()


def values_of(ref: PartitionRef, source: Source, batch_rows: int | None = None) -> npt.NDArray[Any]:
    return np.concatenate([batch.values for batch in read_batches(ref, source.columns, source.width, batch_rows)])


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
@pytest.mark.parametrize("batch_rows", [1, 3, 1000])
def test_row_slices_of_groups(tmp_path: Path, write: Callable[..., Path], batch_rows: int) -> None:
    x = make_rows(100, 4)
    source = open_source(write(tmp_path / "a.data", make_table(x), 40))
    ref = plan_partitions(source, 1 << 20)[0]
    assert ref.groups == (0, 1, 2)
    for start, n_rows in ((0, 100), (0, 1), (39, 2), (45, 30), (99, 1)):
        part = replace(ref, start=start, n_rows=n_rows)
        batches = list(read_batches(part, source.columns, 4, batch_rows))
        assert [batch.start for batch in batches] == np.cumsum([0, *(batch.n for batch in batches[:-1])]).tolist()
        assert max(batch.n for batch in batches) <= batch_rows
        np.testing.assert_array_equal(np.concatenate([batch.values for batch in batches]), x[start : start + n_rows])
    second = replace(ref, groups=(1, 2), start=10, n_rows=40)
    np.testing.assert_array_equal(values_of(second, source, batch_rows), x[50:90])


def test_offsets_of_sliced_arrays_are_respected(tmp_path: Path) -> None:
    x = make_rows(50, 4)
    for kind in ("list", "large_list", "fixed"):
        sliced = pa.table({"embedding": vectors(x, kind).slice(13, 20), "w": pa.array(np.arange(50.0)).slice(13, 20)})
        for data in (sliced, write_ipc(tmp_path / f"{kind}.arrow", sliced), make_table(x, kind).slice(13, 20)):
            source = open_source(data)
            np.testing.assert_array_equal(values_of(plan_partitions(source, 1 << 20)[0], source), x[13:33])
        weighted = open_source(sliced, weight_column="w")
        (batch,) = read_batches(plan_partitions(weighted, 1 << 20)[0], weighted.columns, 4)
        assert batch.weights is not None
        np.testing.assert_array_equal(batch.weights, np.arange(13.0, 33.0))


def test_nulls_with_values_underneath_do_not_shift_rows(tmp_path: Path) -> None:
    """A null list may span values; the row is an error and must be the one that is named."""
    array = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 6], pa.int32()), pa.array(np.arange(6.0)), mask=pa.array([False, True, False])
    )
    with pytest.raises(DataError, match="table row 1: the vector in column 'embedding' is null"):
        open_source(pa.table({"embedding": array}))


def test_a_row_group_larger_than_a_partition_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_file = parquet._open
    monkeypatch.setattr(parquet, "_open", lambda uri, groups=None: opened.append(uri) or open_file(uri, groups))
    x = make_rows(1000, 4)
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(x), 1000))
    refs = plan_partitions(source, 4 * 4 * 100)
    assert [(ref.start, ref.n_rows) for ref in refs] == [(i * 100, 100) for i in range(10)]
    opened.clear()
    for ref in refs:
        np.testing.assert_array_equal(values_of(ref, source, 30), x[ref.start : ref.start + 100])
    assert len(opened) == 1
    assert not parquet._parked
    for ref in (refs[3], refs[1], refs[7], refs[4]):
        np.testing.assert_array_equal(values_of(ref, source, 30), x[ref.start : ref.start + 100])
    assert len(opened) == 3


def test_parked_readers_are_bounded_and_released(tmp_path: Path) -> None:
    for i in range(parquet.MAX_PARKED + 3):
        write_parquet(tmp_path / f"{i:02d}.parquet", make_table(make_rows(20, 2)), 20)
    source = open_source(tmp_path)
    for ref in plan_partitions(source, 2 * 4 * 10):
        if ref.start == 0:
            values_of(ref, source)
    assert len(parquet._parked) == parquet.MAX_PARKED
    parquet.release_parked()
    assert not parquet._parked


def test_an_abandoned_read_is_not_parked(tmp_path: Path) -> None:
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(make_rows(100, 2)), 100))
    ref = plan_partitions(source, 2 * 4 * 50)[0]
    batches = read_batches(ref, source.columns, 2, 10)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not parquet._parked


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_weights(tmp_path: Path, write: Callable[..., Path]) -> None:
    w = np.arange(100, dtype=np.int32)
    source = open_source(write(tmp_path / "a.data", make_table(make_rows(100, 3), w=w), 30), weight_column="w")
    ref = plan_partitions(source, 1 << 20)[0]
    weights = [batch.weights for batch in read_batches(ref, source.columns, 3, 7)]
    assert all(part is not None and part.dtype == np.float64 for part in weights)
    np.testing.assert_array_equal(np.concatenate(weights), w)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "column 'w' is null."),
        (-0.5, "the weight in column 'w' is -0.5; it must be finite and not negative."),
        (float("nan"), "the weight in column 'w' is nan; it must be finite and not negative."),
        (float("inf"), "the weight in column 'w' is inf; it must be finite and not negative."),
    ],
)
def test_bad_weights(tmp_path: Path, value: float | None, found: str) -> None:
    def read() -> None:
        source = open_source(tmp_path, weight_column="w")
        for ref in plan_partitions(source, 1 << 20):
            values_of(ref, source, 7)

    write_parquet(tmp_path / "a.parquet", make_table(make_rows(100, 3), w=[1.0] * 100), 30)
    write_parquet(tmp_path / "b.parquet", make_table(make_rows(100, 3), w=[1.0] * 70 + [value] + [1.0] * 29), 30)
    with pytest.raises(DataError) as caught:
        read()
    where = f"{tmp_path}/b.parquet, row group 2, row 70 of the file (row 170 of the dataset): "
    assert str(caught.value).startswith(where + found)


def test_nulls_without_statistics_are_found_when_read(tmp_path: Path) -> None:
    table = pa.table({"embedding": pa.array([[1.0, 2.0]] * 7 + [[1.0, None]])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5, write_statistics=False)
    source = open_source(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row group 1, row 7 of the file \(row 7 of the dataset\): value 1 of the"):
        values_of(plan_partitions(source, 1 << 20)[0], source)


def test_ids(tmp_path: Path) -> None:
    x = make_rows(100, 3)
    names = [f"n{i}" for i in range(100)]
    table = make_table(x, key=pa.array(names).dictionary_encode())
    for path in (write_parquet(tmp_path / "a.parquet", table, 30), write_ipc(tmp_path / "a.arrow", table, 30), table):
        source = open_source(path, id_column="key")
        refs = plan_partitions(source, 3 * 4 * 20)
        assert len(refs) > 1
        got = [value for ref in refs for value in read_ids(ref, source.columns).to_pylist()]
        assert got == names
    source = open_source(x)
    refs = plan_partitions(source, 3 * 4 * 20)
    got = pa.concat_arrays([read_ids(ref, source.columns) for ref in refs])
    assert got.type == pa.int64()
    assert got.to_pylist() == list(range(100))
    np.save(tmp_path / "a.npy", x)
    source = open_source(tmp_path / "a.npy")
    assert read_ids(replace(plan_partitions(source, 1 << 20)[0], offset=7), source.columns).to_pylist()[:2] == [7, 8]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.npy"])
def test_a_file_that_changed_since_planning(tmp_path: Path, name: str) -> None:
    def write(n: int) -> None:
        if name == "a.npy":
            np.save(tmp_path / name, make_rows(n, 3))
        else:
            table = make_table(make_rows(n, 3), key=range(n))
            (write_parquet if name == "a.parquet" else write_ipc)(tmp_path / name, table)

    write(20)
    source = open_source(tmp_path / name)
    ref = plan_partitions(source, 1 << 20)[0]
    os.utime(tmp_path / name, ns=(5, 5))
    with pytest.raises(DataError, match=r"since the run was planned: it was written again\. Start the run again"):
        values_of(ref, source)
    write(21)
    with pytest.raises(DataError, match=r"changed since the run was planned: \d+ bytes then, \d+ now"):
        values_of(ref, source)
    assert len(values_of(replace(ref, fingerprint=Fingerprint(0)), source)) == 20
    if name != "a.npy":
        with pytest.raises(DataError, match="changed since"):
            read_ids(ref, Columns("embedding", id="key"))
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="the file does not exist"):
        values_of(ref, source)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.npy"])
def test_fewer_rows_than_planned(tmp_path: Path, name: str) -> None:
    if name == "a.npy":
        np.save(tmp_path / name, make_rows(20, 3))
    else:
        (write_parquet if name == "a.parquet" else write_ipc)(tmp_path / name, make_table(make_rows(20, 3)))
    source = open_source(tmp_path / name)
    ref = replace(plan_partitions(source, 1 << 20)[0], n_rows=25)
    with pytest.raises(DataError, match="20 rows instead of the 25 that were planned"):
        values_of(ref, source)


@pytest.mark.parametrize(
    "options", [{"compression": "zstd"}, {"compression": "none", "use_dictionary": False, "write_page_checksum": True}]
)
def test_damaged_pages(tmp_path: Path, options: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2000, 8)).astype("f4")
    path = tmp_path / "a.parquet"
    pq.write_table(make_table(x, "fixed"), path, **options)
    data = bytearray(path.read_bytes())
    data[10_000:40_000] = bytes(30_000)
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(DataError, match=r"a.parquet: not a readable Parquet file: ") as caught:
        values_of(plan_partitions(source, 1 << 20)[0], source)
    assert str(path) in str(caught.value)


def test_failing_storage_is_not_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error may be cured by another attempt, so it must not become a DataError."""
    source = open_source(write_parquet(tmp_path / "a.parquet", make_table(make_rows(20, 3))))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(parquet.pq, "ParquetFile", fail)
    with pytest.raises(OSError, match="Input/output error") as caught:
        values_of(plan_partitions(source, 1 << 20)[0], source)
    assert not isinstance(caught.value, DataError)


def test_places(tmp_path: Path) -> None:
    x = make_rows(20, 2)
    refs = {}
    for name in ("a.parquet", "a.arrow"):
        (write_parquet if name == "a.parquet" else write_ipc)(tmp_path / name, make_table(x), 6)
        refs[name] = replace(plan_partitions(open_source(tmp_path / name), 1 << 20)[0], offset=100)
    np.save(tmp_path / "a.npy", x)
    refs["a.npy"] = replace(plan_partitions(open_source(tmp_path / "a.npy"), 1 << 20)[0], start=5, n_rows=9, offset=100)
    parquet_ref = replace(refs["a.parquet"], groups=(1, 2), start=3, n_rows=9)
    assert place(parquet_ref, 0) == f"{tmp_path}/a.parquet, row group 1, row 9 of the file (row 100 of the dataset)"
    assert place(parquet_ref, 3) == f"{tmp_path}/a.parquet, row group 2, row 12 of the file (row 103 of the dataset)"
    assert place(refs["a.arrow"], 19) == (
        f"{tmp_path}/a.arrow, record batch 3, row 19 of the file (row 119 of the dataset)"
    )
    assert place(refs["a.npy"], 2) == f"{tmp_path}/a.npy, row 7 (row 102 of the dataset)"
    error = bad_row_error(refs["a.npy"], 2, 1, np.array([1.0, -np.inf]))
    assert "row 7 (row 102 of the dataset): value 1 of the vector is -inf." in str(error)
    assert "the vector has a value that is not finite." in str(bad_row_error(refs["a.npy"], 2, 1))
    assert "the vector is zero, which has no direction." in str(bad_row_error(refs["a.npy"], 2, 2))
