"""JSON of the artifacts: bits survive, one spelling per value, differences are named."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.artifacts.codec import decode, decode_object, differences, digest_of, encode
from distclust.errors import StorageError

KEYS = st.text(max_size=5).filter(lambda key: not key.startswith("$"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    for pretty in (True, False):
        assert decode(encode(value, pretty=pretty), "x") == value


@given(st.floats())
def test_floats_keep_their_bits(value: float) -> None:
    found = decode(encode([value]), "x")[0]
    if math.isnan(value):
        assert math.isnan(found)
    else:
        assert struct.pack("<d", found) == struct.pack("<d", value)


def test_numpy_scalars_become_plain() -> None:
    value = {"a": np.int64(3), "b": np.float32(0.1), "c": np.float64("inf"), "d": np.bool_(True), "e": (1, 2)}
    assert decode(encode(value), "x") == {"a": 3, "b": float(np.float32(0.1)), "c": math.inf, "d": True, "e": [1, 2]}


@pytest.mark.parametrize("value", [{1: 2}, {"$float": "1"}, [np.zeros(2)], {"a": object()}, b"1"])
def test_what_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode(value)


def test_digest_ignores_the_order_of_keys_only() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": (1, 2), "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})
    assert digest_of({"a": 1}) != digest_of({"a": 1.0})


def test_torn_file_names_its_place() -> None:
    with pytest.raises(StorageError, match=r"^run\.json: not readable as JSON"):
        decode(b'{"a": ', "run.json")
    with pytest.raises(StorageError, match="no JSON object"):
        decode_object(b"[1]", "run.json")


def test_differences_name_key_and_both_values() -> None:
    before = {"k": 3, "init": {"method": "random", "n": 1}, "gone": None, "same": [1]}
    now = {"k": 4, "init": {"method": "k-means||", "n": 1}, "new": "x" * 200, "same": (1,)}
    assert differences(before, now) == [
        "gone: null there, nothing now",
        'init.method: "random" there, "k-means||" now',
        "k: 3 there, 4 now",
        f'new: nothing there, "{"x" * 76}... now',
    ]
