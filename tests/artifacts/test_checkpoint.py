"""Checkpoints: bits survive, two are kept, a torn one gives way to the one before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distclust.artifacts.checkpoint import Checkpoints
from distclust.data.storage import Storage, open_storage
from distclust.errors import UsageError

pytestmark = pytest.mark.usefixtures("quick_disk")


def saved(storage: Storage, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(storage, "kmeans")
    for step in steps:
        checkpoints.save(step, {"step": step, "loss": 0.1 * step}, {"centers": np.full((2, 3), step, np.float32)})
    return checkpoints


def test_nothing_saved(storage: Storage) -> None:
    assert Checkpoints(storage, "kmeans").load() is None


def test_newest_is_loaded_and_two_are_kept(storage: Storage) -> None:
    found = saved(storage, 1, 2, 3, 12).load()
    assert found is not None
    assert (found.step, found.state) == (12, {"step": 12, "loss": 0.1 * 12})
    np.testing.assert_array_equal(found.arrays["centers"], np.full((2, 3), 12, np.float32))
    assert storage.entries("checkpoints/kmeans") == ["000003/", "000012/", "LATEST"]
    assert storage.entries("checkpoints/kmeans/000012") == ["centers.npy", "state.json"]


def test_names_do_not_mix(storage: Storage) -> None:
    saved(storage, 1)
    assert Checkpoints(storage, "seed").load() is None


@given(hnp.arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]), hnp.array_shapes(min_dims=0, max_dims=3)))
def test_arrays_keep_their_bits(array: np.ndarray) -> None:
    storage = open_storage("fsspec+memory://checkpoint-bits/run")
    Checkpoints(storage, "x").save(1, {}, {"a": array})
    found = Checkpoints(storage, "x").load()
    assert found is not None
    assert found.arrays["a"].dtype == array.dtype
    assert found.arrays["a"].shape == array.shape
    assert found.arrays["a"].tobytes() == array.tobytes()


def test_state_keeps_infinity(tmp_path: Path) -> None:
    checkpoints = Checkpoints(open_storage(tmp_path), "x")
    checkpoints.save(0, {"best": float("-inf"), "list": (1, 2.5)}, {})
    found = checkpoints.load()
    assert found is not None
    assert found.state == {"best": float("-inf"), "list": [1, 2.5]}


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        Checkpoints(open_storage(tmp_path), "x").save(0, {}, {"a": np.array([{}])})


@pytest.mark.parametrize("victim", ["000012/state.json", "000012/centers.npy"])
@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_damaged_newest_gives_way_to_the_one_before(tmp_path: Path, victim: str, damage: str) -> None:
    storage = open_storage(tmp_path)
    checkpoints = saved(storage, 1, 11, 12)
    path = f"checkpoints/kmeans/{victim}"
    data = storage.read(path)
    if damage == "gone":
        storage.remove(path)
    else:
        storage.put(path, data[:-3] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    found = checkpoints.load()
    assert found is not None
    assert found.step == 11
    assert len(checkpoints.damaged) == 1
    assert victim in checkpoints.damaged[0]
    saved(storage, 12)
    assert checkpoints.load() is not None
    assert checkpoints.damaged == ()


def test_all_damaged_is_none_and_says_so(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    checkpoints = saved(storage, 1, 2)
    for stat in storage.list("checkpoints"):
        storage.put(stat.path, b"{")
    assert checkpoints.load() is None
    assert len(checkpoints.damaged) == 1


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    found = saved(storage, 1, 2, 2).load()
    assert found is not None
    assert found.step == 2
    assert storage.entries("checkpoints/kmeans") == ["000001/", "000002/", "LATEST"]


def test_newer_format_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    checkpoints = saved(storage, 1)
    storage.put("checkpoints/kmeans/LATEST", b'{"format": 2, "steps": []}')
    with pytest.raises(UsageError, match="format 2; this distclust reads 1"):
        checkpoints.load()
