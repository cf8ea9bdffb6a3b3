"""The inner nodes of a model that is a tree, beside its centres: ``model/tree.parquet``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distclust.artifacts.codec import sha256
from distclust.artifacts.model import MODEL, Vectors, read_model_table, table_vectors
from distclust.artifacts.record import as_storage
from distclust.data.storage import Storage

TREE = "tree.parquet"


@dataclass(frozen=True, eq=False)
class StoredTree:
    """Inner nodes of a binary tree over m clusters.

    Attributes
    ----------
    vectors : (m - 1, d) float32 or float64
        Centres. Node m + i is row i, the root is the last; nodes below m are the clusters.
    children : (m - 1, 2) int32
        Nodes below.
    sizes : (m - 1,) int64
        Rows of the clusters below.
    inertias : (m - 1,) float64
        Of the node's rows about its centre, when it was split.
    """

    vectors: Vectors
    children: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    inertias: npt.NDArray[np.float64]


def save_tree(storage: Storage, tree: StoredTree, parents: npt.NDArray[np.int32]) -> str:
    """Write the inner nodes into a run directory; return the digest under which `load_tree` finds them again.

    Parameters
    ----------
    storage : Storage
        Run directory; its model.json is written after this.
    tree : StoredTree
    parents : (m - 1,) int32
        Node above each, -1 for the root; for readers of the file.
    """
    n, d = tree.vectors.shape
    element = pa.field("element", pa.from_numpy_dtype(tree.vectors.dtype), nullable=False)
    node = np.arange(n + 1, 2 * n + 1, dtype=np.int32)
    table = pa.table(
        {
            "node": node,
            "parent": pa.array(parents, mask=parents < 0),
            "first": np.ascontiguousarray(tree.children[:, 0]),
            "second": np.ascontiguousarray(tree.children[:, 1]),
            "size": tree.sizes,
            "inertia": tree.inertias,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(tree.vectors.reshape(-1)), type=pa.list_(element, d)),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    data = buffer.getvalue()
    storage.put(f"{MODEL}/{TREE}", data)
    return sha256(data)


def load_tree(place: Storage | str | Path, digest: str) -> StoredTree:
    """Read what `save_tree` wrote.

    Parameters
    ----------
    place : Storage, str or Path
        Run directory or model directory.
    digest : str
        As model.json says.

    Raises
    ------
    StorageError
        The file is missing, or another one.
    """
    table = read_model_table(as_storage(place), TREE, digest)
    return StoredTree(
        table_vectors(table),
        np.stack([table.column(name).to_numpy() for name in ("first", "second")], axis=1),
        table.column("size").to_numpy(),
        table.column("inertia").to_numpy(),
    )
