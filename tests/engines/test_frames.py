from __future__ import annotations

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster

from distclust.engines.frames import stage_frame
from distclust.engines.open import open_engine
from distclust.errors import UsageError


@pytest.fixture(scope="module")
def client():
    cluster = LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster) as client:
        yield client


@pytest.fixture(params=["engine", "client", "local"])
def engine(request, client):
    if request.param == "engine":
        with open_engine(client) as engine:
            yield engine
    else:
        yield client if request.param == "client" else "local"


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_array_becomes_files_in_row_order(tmp_path, engine, dtype):
    rows = np.arange(70 * 6).reshape(70, 6).astype(dtype)
    files = stage_frame(da.from_array(rows, chunks=((30, 0, 7, 33), (4, 2))), str(tmp_path / "out"), engine)
    assert len(files) == 3
    columns = [pq.read_table(file)["vector"].combine_chunks() for file in files]
    assert {column.type.list_size for column in columns} == {6}
    got = np.concatenate([column.flatten().to_numpy() for column in columns])
    assert got.dtype == rows.dtype
    np.testing.assert_array_equal(got.reshape(-1, 6), rows)


def test_array_of_unknown_chunks(tmp_path, engine):
    rows = da.from_array(np.arange(40.0).reshape(20, 2), chunks=(5, 2))
    files = stage_frame(rows[rows[:, 0] >= 12], str(tmp_path), engine)
    got = np.concatenate([pq.read_table(file)["vector"].combine_chunks().flatten().to_numpy() for file in files])
    np.testing.assert_array_equal(got, np.arange(12.0, 40.0))


@pytest.mark.parametrize("made", ["from_pandas", "read_parquet"])
def test_data_frame_keeps_columns_and_order(tmp_path, engine, made):
    rows = pd.DataFrame(
        {
            "id": np.arange(50),
            "embedding": [np.full(3, i, np.float32) for i in range(50)],
            "label": [f"row {i}" for i in range(50)],
        }
    )
    if made == "from_pandas":
        with dask.config.set({"dataframe.convert-string": False}):  # else Dask makes text of the vectors
            frame = dd.from_pandas(rows, npartitions=4, sort=False)
    else:
        pq.write_table(pa.Table.from_pandas(rows), tmp_path / "rows.parquet", row_group_size=13)
        frame = dd.read_parquet(tmp_path / "rows.parquet", split_row_groups=1)
    files = stage_frame(frame, str(tmp_path / "out"), engine)
    assert len(files) == 4
    tables = [pq.read_table(file) for file in files]
    assert {tuple(table.column_names) for table in tables} == {("id", "embedding", "label")}
    assert [i for table in tables for i in table["id"].to_pylist()] == list(range(50))
    np.testing.assert_array_equal(
        [v for table in tables for v in table["embedding"].to_pylist()], np.stack(rows["embedding"].to_list())
    )


@pytest.mark.parametrize("collection", [db.from_sequence([1, 2]), da.zeros(5), da.zeros((2, 3, 4))])
def test_other_collections_are_refused(tmp_path, collection):
    with pytest.raises(UsageError, match="no rows of vectors"):
        stage_frame(collection, str(tmp_path), "local")
