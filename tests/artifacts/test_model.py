"""Model directories: exact, deterministic, readable by others, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distclust.artifacts.model import load_model, save_model
from distclust.data.storage import Storage, open_storage
from distclust.errors import StorageError, UsageError
from tests.artifacts.small_job import do_job, open_job

pytestmark = pytest.mark.usefixtures("quick_disk")

RNG = np.random.default_rng(5)


def save(storage: Storage, **changes: Any) -> Any:
    k, d = 4, 3
    values: dict[str, Any] = {
        "kind": "kmeans/1",
        "centers": RNG.normal(size=(k, d)).astype(np.float32),
        "sizes": np.array([10, 0, 2**40, 3]),
        "inertias": np.array([0.1, 0.0, 1e300, np.pi]),
        "metric": "euclidean",
        "parameters": {"seed": 3, "tol": 1e-4},
    }
    return save_model(storage, **{**values, **changes})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parent", [None, np.array([0, 0, 1, 1], np.int32)])
def test_round_trip(storage: Storage, dtype: type, parent: np.ndarray | None) -> None:
    centers = RNG.normal(size=(4, 3)).astype(dtype)
    offset = np.array([0.1, -0.0, 1e-310])
    model = save(storage, centers=centers, parent=parent, center_offset=offset)
    for found in (load_model(storage), load_model(storage.child("model")), load_model(storage.uri)):
        assert found.centers.dtype == dtype
        assert found.centers.tobytes() == centers.tobytes()
        assert found.center_offset is not None
        assert found.center_offset.tobytes() == offset.tobytes()
        assert found.sizes.tolist() == [10, 0, 2**40, 3]
        assert found.inertias.tobytes() == model.inertias.tobytes()
        assert (found.parent is None) if parent is None else (found.parent.tolist() == [0, 0, 1, 1])
        assert (found.kind, found.metric) == ("kmeans/1", "euclidean")
        assert found.parameters == {"seed": 3, "tol": 1e-4}
        assert found.vectors_digest == model.vectors_digest


@given(hnp.arrays(st.sampled_from([np.float32, np.float64]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_any_bits_survive(centers: np.ndarray) -> None:
    storage = open_storage("fsspec+memory://model-bits/run")
    k = len(centers)
    save(storage, centers=centers, sizes=np.zeros(k, np.int64), inertias=np.zeros(k))
    assert load_model(storage).centers.tobytes() == centers.tobytes()


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    centers = RNG.normal(size=(4, 3)).astype(np.float32)
    for name, rows in (("a", centers), ("b", np.asfortranarray(centers))):
        save(open_storage(tmp_path / name), centers=rows)
    for file in ("centers.parquet", "model.json"):
        assert (tmp_path / "a/model" / file).read_bytes() == (tmp_path / "b/model" / file).read_bytes()


def test_many_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distclust.artifacts.model._ROW_GROUP_BYTES", 24)
    centers = RNG.normal(size=(11, 3)).astype(np.float32)
    save(open_storage(tmp_path), centers=centers, sizes=np.arange(11), inertias=np.zeros(11))
    assert load_model(tmp_path).centers.tobytes() == centers.tobytes()


def test_other_tools_read_the_centers(tmp_path: Path) -> None:
    model = save(open_storage(tmp_path), parent=np.array([0, 0, 1, 1], np.int32))
    path = tmp_path / "model" / "centers.parquet"
    frame = pd.read_parquet(path)
    assert list(frame.columns) == ["cluster", "size", "inertia", "parent", "vector"]
    np.testing.assert_array_equal(np.stack(frame["vector"]), model.centers)
    polars = pl.read_parquet(path)
    np.testing.assert_array_equal(np.array(polars["vector"].to_list(), np.float32), model.centers)
    assert polars["cluster"].to_list() == [0, 1, 2, 3]


def test_shapes_must_fit(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(ValueError, match=r"sizes: shape \(3,\); \(4,\) is needed"):
        save(storage, sizes=np.ones(3, np.int64))
    with pytest.raises(ValueError, match=r"center_offset: shape \(4,\); \(3,\) is needed"):
        save(storage, center_offset=np.ones(4))
    with pytest.raises(ValueError, match="float16 of 2 dimensions"):
        save(storage, centers=np.ones((4, 3), np.float16))
    assert storage.list() == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "kmean/1",
            "Unknown kind of model 'kmean'; allowed are 'bisect', 'gmm', 'kmeans', 'kmedoids', 'ppp'. "
            "Did you mean 'kmeans'?",
        ),
        ("kmeans/2", "the model is of kind 'kmeans/2'; this distclust reads kmeans up to version 1"),
        ("kmeans", "the kind of model 'kmeans' is not written as a name and a version (kmeans/1)"),
    ],
)
def test_unknown_kind(tmp_path: Path, kind: str, words: str) -> None:
    storage = open_storage(tmp_path)
    with pytest.raises(UsageError, match="kind"):
        save(storage, kind=kind)
    save(storage)
    storage.put("model/model.json", storage.read("model/model.json").replace(b"kmeans/1", kind.encode()))
    with pytest.raises(UsageError) as caught:
        load_model(tmp_path)
    assert words in str(caught.value)
    assert "model.json" in str(caught.value)


def test_newer_format(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    save(storage)
    data = storage.read("model/model.json").replace(b'"format_version": 1', b'"format_version": 9')
    storage.put("model/model.json", data)
    with pytest.raises(UsageError, match="format version 9; this distclust reads 1"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "is not the file that model.json describes"),
        (lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "is not the file that model.json describes"),
        (None, "is missing"),
    ],
)
def test_damaged_centers(tmp_path: Path, damage: Any, words: str) -> None:
    storage = open_storage(tmp_path)
    save(storage)
    path = "model/centers.parquet"
    if damage is None:
        storage.remove(path)
    else:
        storage.put(path, damage(storage.read(path)))
    with pytest.raises(StorageError, match=words):
        load_model(tmp_path)


def test_exchanged_vectors(tmp_path: Path) -> None:
    """A consistent file of other vectors, with model.json patched to its digest."""
    one, two = open_storage(tmp_path / "1"), open_storage(tmp_path / "2")
    save(one)
    save(two)
    digests = [storage.digest("model/centers.parquet").encode() for storage in (one, two)]
    one.put("model/centers.parquet", two.read("model/centers.parquet"))
    one.put("model/model.json", one.read("model/model.json").replace(*digests))
    with pytest.raises(StorageError, match="other vectors"):
        load_model(one)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model"):
        load_model(tmp_path / "nothing")
    with open_job(tmp_path / "run"), pytest.raises(UsageError, match="no model yet"):
        load_model(tmp_path / "run")


def test_model_of_a_run(tmp_path: Path) -> None:
    do_job(tmp_path / "run")
    assert load_model(tmp_path / "run").centers.shape == (3, 2)
