"""Label tables: input order, nulls for dropped rows, the same bytes for the same labels."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distclust.data.refs import Fingerprint, PartitionRef
from distclust.data.sinks import encode_parquet, labels_table

REF = PartitionRef(0, "a.parquet", "parquet", (0,), 0, 5, 100, Fingerprint(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_input_order(dtype: type[np.floating]) -> None:
    positions = np.array([3, 0, 4, 1, 2])
    table = labels_table(
        REF, pa.array(list("abcde")), "key", positions, positions.astype(np.int32) * 10, positions.astype(dtype) / 2
    )
    assert table.schema.types == [pa.string(), pa.int32(), pa.from_numpy_dtype(dtype)]
    assert table.to_pydict() == {"key": list("abcde"), "cluster": [0, 10, 20, 30, 40], "distance": [0, 0.5, 1, 1.5, 2]}


def test_dropped_rows_are_null() -> None:
    labels, distances = np.array([7, 8], np.int32), np.array([1.5, 2.5], np.float32)
    table = labels_table(REF, pa.array(np.arange(100, 105)), "row_id", np.array([3, 0]), labels, distances)
    assert table.to_pydict() == {
        "row_id": [100, 101, 102, 103, 104],
        "cluster": [8, None, None, 7, None],
        "distance": [2.5, None, None, 1.5, None],
    }


def test_bytes_do_not_depend_on_the_order_of_labelling() -> None:
    rng = np.random.default_rng(0)
    ref = PartitionRef(0, "a.parquet", "parquet", (0,), 0, 5000, 0, Fingerprint(1))
    labels, distances = rng.integers(0, 9, 5000, np.int32), rng.random(5000, np.float32)
    files = set()
    for _ in range(3):
        order = rng.permutation(5000)
        ids = pa.array(np.arange(5000))
        files.add(encode_parquet(labels_table(ref, ids, "row_id", order, labels[order], distances[order])))
    (data,) = files
    table = pq.read_table(io.BytesIO(data))
    np.testing.assert_array_equal(table["cluster"].to_numpy(), labels)
    np.testing.assert_array_equal(table["distance"].to_numpy(), distances)


def test_ids_of_any_type() -> None:
    for ids in (pa.array(["x"] * 5).dictionary_encode(), pa.array([None] * 5, pa.string()), pa.array([b"1"] * 5)):
        table = labels_table(REF, ids, "key", np.arange(5), np.zeros(5, np.int32), np.zeros(5, np.float32))
        assert pq.read_table(io.BytesIO(encode_parquet(table)))["key"].to_pylist() == ids.to_pylist()
