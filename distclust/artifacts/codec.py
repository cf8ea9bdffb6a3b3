"""JSON as the artifacts use it: one spelling per value, floats bit for bit, infinity and NaN written out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from distclust.errors import StorageError

_RESTORE = "Restore the file, or start the run again elsewhere."
_FLOAT = "$float"
"""Key of the object that stands for a float that JSON has no word for."""


def encode(value: object, *, pretty: bool = True) -> bytes:
    """Write plain values (dict with text keys, list, tuple, str, int, float, bool, None, numpy scalars) as JSON.

    Parameters
    ----------
    value : object
        Tuples come back as lists.
    pretty : bool, default=True
        Indented, keys as given, newline at the end; else one line with sorted keys, the form that is hashed.

    Raises
    ------
    TypeError
        Something else is inside, or a key that is no text.
    """
    plain = _to_json(value)
    if pretty:
        return (json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(data: bytes, where: str) -> Any:
    """Read what `encode` wrote.

    Raises
    ------
    StorageError
        The bytes at ``where`` are no such JSON.
    """
    try:
        return json.loads(data, object_hook=_from_json)
    except ValueError as error:
        raise StorageError(f"not readable as JSON ({error}).", where=where, do=_RESTORE) from error


def decode_object(data: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object; anything else is a `StorageError`."""
    value = decode(data, where)
    if not isinstance(value, dict):
        raise StorageError("holds no JSON object.", where=where, do=_RESTORE)
    return value


def digest_of(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of a value."""
    return sha256(encode(value, pretty=False))


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def differences(before: object, now: object, name: str = "") -> list[str]:
    """List the leaves in which two plain values differ, one line each: key, value before, value now."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        lines = []
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else str(key)
            lines += differences(before.get(key, _MISSING), now.get(key, _MISSING), inner)
        return lines
    if before is _MISSING or now is _MISSING or digest_of(before) != digest_of(now):
        return [f"{name}: {_short(before)} there, {_short(now)} now"]
    return []


class _Missing:
    pass


_MISSING = _Missing()


def _short(value: object) -> str:
    if value is _MISSING:
        return "nothing"
    text = encode(value, pretty=False).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _to_json(value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{key!r} cannot be a key here: text that does not begin with '$' can")
        return {key: _to_json(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def _from_json(found: dict[str, Any]) -> Any:
    return float(found[_FLOAT]) if found.keys() == {_FLOAT} else found
