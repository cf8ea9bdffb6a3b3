"""Arrays in files that driver and workers see: only the name travels, and local files are mapped, not read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from distclust.data.storage import Storage
from distclust.stats.codec import HEADER_LOCK, read_array


class StoredArray:
    """An npy file of a storage; made by `store_array`.

    Parameters
    ----------
    storage : Storage
    path : str
        Of the file.

    Attributes
    ----------
    array : ndarray
        Read-only where the file is mapped.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self.storage = storage
        self.path = path
        self.array = read_stored(storage, path, mapped=True)

    def __reduce__(self) -> tuple[type[StoredArray], tuple[Storage, str]]:
        return StoredArray, (self.storage, self.path)


def store_array(
    storage: Storage, path: str, shape: tuple[int, int], dtype: str, parts: Iterable[npt.NDArray[Any]]
) -> StoredArray:
    """Write an array part by part.

    Parameters
    ----------
    storage : Storage
        Seen by driver and workers.
    path : str
        Of the file.
    shape : (n, m)
    dtype : str
    parts : iterable of (i, m) arrays
        In order; together all n rows.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with storage.open_output(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, kind).tobytes())
    return StoredArray(storage, path)


def read_stored(storage: Storage, path: str, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Read an npy file; map it, if that is wanted and the storage is local."""
    if mapped and storage.is_local:
        with HEADER_LOCK:
            found: npt.NDArray[Any] = np.load(os.path.join(storage.uri, path), mmap_mode="r", allow_pickle=False)
        return found.view(np.ndarray)
    with storage.open_input(path) as file:
        return read_array(cast(BinaryIO, file))
