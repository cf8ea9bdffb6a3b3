"""What planning knows about a file without decoding its rows; the same records for all formats."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from distclust.data.refs import Fingerprint, Format


@dataclass(frozen=True)
class GroupFacts:
    """A Parquet row group, an IPC record batch, or a whole npy file.

    Attributes
    ----------
    n_rows : int
        Number of rows.
    n_values : int or None
        Numbers in all lists of the vector column; None where that is not known or follows from the type.
    has_nulls : bool
        Whether a vector or weight column of the group holds a null; False also where that is not known.
    """

    n_rows: int
    n_values: int | None = None
    has_nulls: bool = False


@dataclass(frozen=True)
class FileFacts:
    """Schema and groups of a file.

    Attributes
    ----------
    schema : pyarrow.Schema or None
        None for npy.
    groups : tuple of GroupFacts
        In file order.
    dtype : str
        Type of the values; set for npy.
    width : int or None
        Dimensions; set for npy.
    """

    schema: pa.Schema | None
    groups: tuple[GroupFacts, ...]
    dtype: str = ""
    width: int | None = None


@dataclass(frozen=True)
class SourceFile:
    """A file of a dataset, or an array in memory.

    Attributes
    ----------
    uri : str
        Absolute local path, URI, or ``memory://<token>``.
    format : {"parquet", "ipc", "npy", "memory"}
        How it is read.
    fingerprint : Fingerprint
        As it was when the source was opened.
    group_rows : tuple of int
        Rows of each row group or record batch; one number for npy and memory.
    dtype : str
        Type of the vectors' values, by numpy's name.
    """

    uri: str
    format: Format
    fingerprint: Fingerprint
    group_rows: tuple[int, ...]
    dtype: str

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(self.group_rows)
