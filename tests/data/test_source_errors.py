"""What cannot be used is named: where, what was found, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distclust.data.sources import open_source
from distclust.errors import DataError, DistclustError, UsageError
from tests.data.writers import make_rows, make_table, vectors, write_ipc, write_parquet


def message(kind: type[DistclustError], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def ragged(lengths: list[int]) -> pa.Table:
    return pa.table({"embedding": pa.array([[1.0] * length for length in lengths], pa.list_(pa.float32()))})


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_wrong_width_in_one_file(tmp_path: Path, kind: str) -> None:
    for i in range(4):
        write_parquet(tmp_path / f"part-{i:04d}.parquet", make_table(make_rows(20, 8), kind), 5)
    tables = [make_table(make_rows(15, 8), kind), make_table(make_rows(5, 6), kind)]
    if kind == "list":
        write_parquet(tmp_path / "part-0017.parquet", pa.concat_tables(tables), 5)
        group = 3
    else:
        write_parquet(tmp_path / "part-0017.parquet", tables[1], 5)
        group = 0
    assert message(DataError, lambda: open_source(tmp_path)) == (
        f"{tmp_path}/part-0017.parquet, row group {group}: column 'embedding' has 6 values, 8 in part-0000.parquet. "
        "Re-embed it, or choose files with a glob."
    )


def test_wrong_width_in_another_directory_names_the_whole_path(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a/x.parquet", make_table(make_rows(5, 8)))
    write_parquet(tmp_path / "b/x.parquet", make_table(make_rows(5, 6)))
    assert f"has 6 values, 8 in {tmp_path}/a/x.parquet." in message(DataError, lambda: open_source(tmp_path))


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_one_ragged_row(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "a.data", ragged([3] * 12 + [2] + [3] * 7), 5)
    group = "row group" if write is write_parquet else "record batch"
    assert message(DataError, lambda: open_source(path)).startswith(
        f"{path}, {group} 2, row 12 of the file (row 12 of the dataset): column 'embedding' has 2 values, 3 in a.data."
    )


def test_ragged_rows_that_look_even(tmp_path: Path) -> None:
    """A group of lengths 2 and 4 has as many values as one of 3 and 3, and one of 1 and 3 as one of 2 and 2."""
    path = write_parquet(tmp_path / "a.parquet", ragged([3, 3, 1, 3]), 2)
    assert "row group 1, row 2 of the file" in message(DataError, lambda: open_source(path))


def test_ipc_of_another_width(tmp_path: Path) -> None:
    write_ipc(tmp_path / "a.arrow", make_table(make_rows(5, 3)))
    write_ipc(tmp_path / "b.arrow", make_table(make_rows(5, 2)))
    assert "b.arrow, record batch 0: column 'embedding' has 2 values, 3 in a.arrow." in message(
        DataError, lambda: open_source(tmp_path)
    )


def test_npy_of_another_width(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", make_rows(5, 3))
    np.save(tmp_path / "b.npy", make_rows(5, 2))
    assert "b.npy: the array has 2 values, 3 in a.npy." in message(DataError, lambda: open_source(tmp_path))


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_null_vectors_and_values(tmp_path: Path, write: Callable[..., Path]) -> None:
    group = "row group" if write is write_parquet else "record batch"
    null_vector = pa.table({"embedding": pa.array([[1.0, 2.0]] * 7 + [None] + [[1.0, 2.0]])})
    path = write(tmp_path / "a.data", null_vector, 3)
    assert message(DataError, lambda: open_source(path)).startswith(
        f"{path}, {group} 2, row 7 of the file (row 7 of the dataset): the vector in column 'embedding' is null."
    )
    null_value = pa.table({"embedding": pa.array([[1.0, 2.0]] * 4 + [[1.0, None]])})
    path = write(tmp_path / "b.data", null_value, 3)
    where = f"{group} 1, row 4 of the file (row 4 of the dataset): "
    text = message(DataError, lambda: open_source(path))
    assert f"{where}value 1 of the vector in column 'embedding' is null" in text
    plain = pa.table({"x": [1.0, 2.0], "y": [1.0, None]})
    path = write(tmp_path / "c.data", plain, 1)
    assert f"{group} 1, row 1 of the file (row 1 of the dataset): column 'y' is null" in (
        message(DataError, lambda: open_source(path, columns=["x", "y"]))
    )


def test_null_in_the_first_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.table({"embedding": pa.array([None, [1.0]])}))
    assert "row 0 of the file (row 0 of the dataset): the vector in column 'embedding' is null." in (
        message(DataError, lambda: open_source(path))
    )
    path = write_parquet(tmp_path / "a.parquet", ragged([0, 1]))
    assert "the vector in column 'embedding' is empty." in message(DataError, lambda: open_source(path))


@pytest.mark.parametrize(
    ("weights", "found"), [([1.0, None], "is null"), ([1.0, -2.0], "is -2.0; it must be finite and not negative")]
)
def test_table_with_bad_weights(weights: list[float | None], found: str) -> None:
    table = make_table(make_rows(2, 2), w=weights)
    text = message(DataError, lambda: open_source(table, weight_column="w"))
    assert text.startswith("table row 1: ")
    assert found in text


def test_unreadable_files(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "whole.parquet", make_table(make_rows(200, 8)))
    for name, data in (("empty", b""), ("cut", whole.read_bytes()[:-300]), ("text", b"hello, this is text")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(data)
        text = message(DataError, lambda path=path: open_source([whole, path]))
        assert text.startswith(f"{path}: not a readable Parquet file: ")
    ipc = write_ipc(tmp_path / "a.arrow", make_table(make_rows(200, 8)))
    for data in (b"", ipc.read_bytes()[:-30], ipc.read_bytes()[:100]):
        ipc.write_bytes(data)
        assert message(DataError, lambda: open_source(ipc)).startswith(f"{ipc}: not a readable Arrow IPC file: ")
    npy = tmp_path / "a.npy"
    np.save(npy, make_rows(200, 8))
    for data in (npy.read_bytes()[:-8], npy.read_bytes()[:20], b""):
        npy.write_bytes(data)
        assert message(DataError, lambda: open_source(npy)).startswith(f"{npy}: not a readable npy file: ")


def test_damaged_footer(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(200, 8)))
    data = bytearray(path.read_bytes())
    data[-600:-10] = bytes(590)
    path.write_bytes(data)
    assert message(DataError, lambda: open_source(path)).startswith(f"{path}: not a readable Parquet file: ")


def test_nothing_there(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train.parquet", make_table(make_rows(3, 2)))
    assert message(DataError, lambda: open_source(tmp_path / "data/trian.parquet")) == (
        f"{tmp_path}/data/trian.parquet: no such file or directory. Did you mean 'train.parquet'?"
    )
    assert "no file matches" in message(DataError, lambda: open_source(f"{tmp_path}/data/*.arrow"))
    (tmp_path / "void").mkdir()
    assert "a directory without files" in message(DataError, lambda: open_source(tmp_path / "void"))
    (tmp_path / "void/readme.md").write_text("x")
    assert "no Parquet, Arrow IPC or npy file among 1" in message(DataError, lambda: open_source(tmp_path / "void"))
    text = message(DataError, lambda: open_source(tmp_path / "void/readme.md"))
    assert "neither its name nor its first bytes" in text
    assert "the list of files is empty" in message(DataError, lambda: open_source([]))


def test_no_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2))[:0])
    assert "no rows in 1 file(s)" in message(DataError, lambda: open_source(tmp_path))
    assert "the array has 0 rows and 3 columns" in message(DataError, lambda: open_source(np.empty((0, 3))))
    assert "the table has no rows" in message(DataError, lambda: open_source(make_table(make_rows(3, 2))[:0]))


def test_mixed_formats(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2)))
    np.save(tmp_path / "b.npy", make_rows(3, 2))
    assert message(DataError, lambda: open_source(tmp_path)) == (
        f"{tmp_path}/b.npy: the file is npy, a.parquet is Parquet; a dataset has one format. Choose files with a glob."
    )


def test_unknown_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2), name=["a", "b", "c"], size=[1, 2, 3]))
    assert message(UsageError, lambda: open_source(path, column="embeding")) == (
        f"{path}: no column 'embeding', columns are 'embedding', 'name', 'size'. Did you mean 'embedding'?"
    )
    for argument in ({"columns": ["siz"]}, {"id_column": "siz"}, {"weight_column": "siz"}):
        text = message(UsageError, lambda argument=argument: open_source(path, **argument))
        assert "no column 'siz'" in text
        assert "Did you mean 'size'?" in text
    assert "which is neither a list of numbers nor a number" in message(
        UsageError, lambda: open_source(path, column="name")
    )
    assert "column 'name' has type string; weight_column takes plain numbers" in message(
        UsageError, lambda: open_source(path, weight_column="name")
    )
    assert "column 'embedding' has type" in message(UsageError, lambda: open_source(path, columns=["embedding"]))


def test_a_later_file_lacks_a_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2), key=[1, 2, 3]))
    write_parquet(tmp_path / "b.parquet", make_table(make_rows(3, 2)))
    assert message(DataError, lambda: open_source(tmp_path, id_column="key")) == (
        f"{tmp_path}/b.parquet: no column 'key', columns are 'embedding'. a.parquet has it as it should be. "
        "Choose files with a glob."
    )


def test_the_vector_column_must_be_clear(tmp_path: Path) -> None:
    x = make_rows(3, 2)
    two = pa.table({"first": vectors(x), "second": vectors(x), "n": [1, 2, 3]})
    assert "several columns hold lists of numbers: 'first', 'second'. Choose one with column" in (
        message(UsageError, lambda: open_source(two))
    )
    plain = pa.table({"x": [1.0], "y": [2.0], "name": ["a"]})
    assert "no column holds lists of numbers; plain numeric columns are 'x', 'y'. Choose with column" in (
        message(UsageError, lambda: open_source(plain))
    )
    text = message(DataError, lambda: open_source(pa.table({"name": ["a"], "tags": [["b"]]})))
    assert "no column is numeric; found are" in text
    assert "name (string)" in text
    unsigned = pa.table({"v": pa.array([[1]], pa.list_(pa.uint64()))})
    assert "allowed are float16" in message(UsageError, lambda: open_source(unsigned, column="v"))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"column": "a", "columns": ["b"]}, "column and columns are both given"),
        ({"columns": ["size", "size"]}, "columns names a column twice"),
        ({"columns": "size"}, "columns is 'size'; it takes a list of names"),
        ({"weights": [1.0, 1.0, 1.0]}, "weights is for arrays"),
    ],
)
def test_arguments_that_exclude_each_other(tmp_path: Path, arguments: dict[str, Any], found: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2), size=[1, 2, 3]))
    assert found in message(UsageError, lambda: open_source(path, **arguments))


def test_an_id_column_named_like_a_label_column(tmp_path: Path) -> None:
    table = make_table(make_rows(3, 2), cluster=[1, 2, 3])
    text = message(UsageError, lambda: open_source(table, id_column="cluster"))
    assert "which is a column of the label files" in text


def test_columns_for_data_without_columns(tmp_path: Path) -> None:
    x = make_rows(3, 2)
    np.save(tmp_path / "a.npy", x)
    assert "column given, but npy files have no named columns" in (
        message(UsageError, lambda: open_source(tmp_path / "a.npy", column="x"))
    )
    assert "id_column given, but an array has no named columns" in (
        message(UsageError, lambda: open_source(x, id_column="x"))
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (np.ones(3), "the array has 1 dimension(s), 2 are needed"),
        (np.ones((3, 2), complex), "the array has type complex128; allowed are float16"),
        (np.ones((3, 2), bool), "the array has type bool"),
        (5, "data is a int; allowed are"),
        ([1, 2], "data is a list; allowed are"),
        ("memory://abc", "addresses are for arrays of this process"),
    ],
)
def test_unusable_data(data: Any, found: str) -> None:
    assert found in message(UsageError, lambda: open_source(data))


@pytest.mark.parametrize(
    ("array", "found"), [(np.ones(3), "the array has 1 dimensions"), (np.ones((2, 2), "U1"), "type <U1")]
)
def test_unusable_npy(tmp_path: Path, array: Any, found: str) -> None:
    np.save(tmp_path / "a.npy", array)
    text = message(DataError, lambda: open_source(tmp_path / "a.npy"))
    assert text.startswith(f"{tmp_path}/a.npy: ")
    assert found in text


@pytest.mark.parametrize(
    ("weights", "kind", "found"),
    [
        ([1.0], UsageError, "weights has shape (1,), (2,) is needed"),
        ([1.0, -1.0], DataError, "array row 1: the weight in weights is -1.0; it must be finite and not negative"),
        ([np.nan, 1.0], DataError, "array row 0: the weight in weights is nan"),
        ([1.0, np.inf], DataError, "array row 1: the weight in weights is inf"),
    ],
)
def test_weights_of_an_array(weights: list[float], kind: type[DistclustError], found: str) -> None:
    assert found in message(kind, lambda: open_source(make_rows(2, 2), weights=weights))


def test_object_arrays_in_npy_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[None]], object), allow_pickle=True)
    assert "type object" in message(DataError, lambda: open_source(tmp_path / "a.npy"))


def test_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(3, 2)))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("distclust.data.parquet.pq.ParquetFile", refuse)
    assert message(DataError, lambda: open_source(path)) == f"{path}: the file may not be read: permission denied."
