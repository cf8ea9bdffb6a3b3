"""Statistics as bytes: an uncompressed ``.npz`` without pickle, so that numpy alone can read what was stored."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def arrays_to_bytes(kind: str, arrays: Mapping[str, npt.ArrayLike]) -> bytes:
    """Encode named arrays under a kind such as ``lloyd/1``."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, kind=np.array(kind), **{name: np.asarray(a) for name, a in arrays.items()})
    return out.getvalue()


def arrays_from_bytes(kind: str, data: bytes) -> dict[str, Array]:
    """Decode what `arrays_to_bytes` wrote.

    Raises
    ------
    ValueError
        If the bytes hold another kind.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    found = str(arrays.pop("kind"))
    if found != kind:
        raise ValueError(f"these are statistics of kind {found!r}, not {kind!r}")
    return arrays
