"""Files as one dataset: their format, columns and width, from footers and headers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from distclust.data import ipc, npy, parquet
from distclust.data.convert import WIDTH_DO, width_message
from distclust.data.decode import first_length, read_batches
from distclust.data.files import FoundFile, open_file, reading
from distclust.data.refs import Columns, Format, PartitionRef
from distclust.data.schema import (
    ColumnChoice,
    check_columns,
    choose_columns,
    fixed_width,
    require_column,
    vector_type,
)
from distclust.data.survey import FileFacts, GroupFacts, SourceFile
from distclust.errors import DataError, DistclustError, UsageError

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".arrows": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
    ".npy": "npy",
}
# An IPC stream has no magic of its own; it begins with the continuation marker of its first message.
_MAGIC: dict[bytes, Format] = {b"PAR1": "parquet", b"ARROW1": "ipc", b"\xff\xff\xff\xff": "ipc", b"\x93NUMPY": "npy"}
_KINDS: dict[Format, str] = {"parquet": parquet.KIND, "ipc": ipc.KIND, "npy": npy.KIND}
_READERS = 16
"""Threads that read footers; they wait for storage more than they compute."""


@dataclass(frozen=True)
class Dataset:
    """Files that agree, and what they agree on."""

    files: tuple[SourceFile, ...]
    columns: Columns
    width: int
    dtype: str


def open_dataset(found: Sequence[FoundFile], choice: ColumnChoice) -> Dataset:
    """Check that files form one dataset.

    Parameters
    ----------
    found : sequence of FoundFile
        In the order of the dataset.
    choice : ColumnChoice
        What the user said about columns.

    Raises
    ------
    DataError
        A file is unreadable, of another format, width or schema, or holds nulls; there are no rows.
    UsageError
        The columns do not fit the first file.
    """
    files, kind = _one_format(found)
    if kind == "npy":
        choice.require_none("npy files have")
        if choice.mixed:
            raise UsageError(
                "npy files have no columns; numbers and categories are read from Parquet or Arrow IPC files.",
                where=files[0].uri,
                do="Choose another metric for vectors.",
            )
        facts = _survey_all(files, npy.survey)
        columns = Columns()
    else:
        survey = parquet.survey if kind == "parquet" else ipc.survey
        schema = _survey_all(files[:1], lambda uri: survey(uri, None))[0].schema
        columns = choose_columns(schema, choice, files[0].uri)
        facts = _survey_all(files, lambda uri: survey(uri, columns))
        for file, one in zip(files, facts, strict=True):
            _check_schema(file.uri, one.schema, columns, files[0].uri)
    sources = tuple(_source_file(file, one, columns, kind) for file, one in zip(files, facts, strict=True))
    n_rows = sum(file.n_rows for file in sources)
    if not n_rows:
        raise DataError(f"no rows in {len(sources)} file(s).", where=found[0].uri, do="Give other files.")
    width = _check_widths(sources, facts, columns)
    return Dataset(sources, columns, width, np.result_type(*{file.dtype for file in sources if file.n_rows}).name)


def file_format(file: FoundFile) -> Format | None:
    """Tell the format by the name, else by the first bytes; None for a file of a directory that is something else."""
    suffix = PurePosixPath(file.uri.partition("?")[0]).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix and not file.asked_for:
        return None
    with reading(file.uri, "data"), open_file(file.uri) as source:
        head = source.read(6)
    for magic, known in _MAGIC.items():
        if head.startswith(magic):
            return known
    if file.asked_for:
        raise DataError(
            "neither its name nor its first bytes say Parquet, Arrow IPC or npy.",
            where=file.uri,
            do="Convert it, or leave it out.",
        )
    return None


def _one_format(found: Sequence[FoundFile]) -> tuple[list[FoundFile], Format]:
    files: list[FoundFile] = []
    kinds: list[Format] = []
    for file in found:
        kind = file_format(file)
        if kind is not None:
            files.append(file)
            kinds.append(kind)
    if not files:
        raise DataError(
            f"no Parquet, Arrow IPC or npy file among {len(found)}.",
            where=found[0].uri,
            do="Known suffixes are " + ", ".join(SUFFIXES) + ".",
        )
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise DataError(
                f"the file is {_KINDS[kind]}, {sibling_name(files[0].uri, file.uri)} is {_KINDS[kinds[0]]}; "
                "a dataset has one format.",
                where=file.uri,
                do="Choose files with a glob.",
            )
    return files, kinds[0]


def _survey_all(files: Sequence[FoundFile], survey: Callable[[str], FileFacts]) -> list[FileFacts]:
    """Survey files in parallel; the first error in file order is raised."""

    def one(file: FoundFile) -> FileFacts:
        try:
            return survey(file.uri)
        except DistclustError:
            raise
        except OSError as exc:
            raise DataError(f"cannot be read: {exc}", where=file.uri) from exc

    if len(files) == 1:
        return [one(files[0])]
    with ThreadPoolExecutor(min(_READERS, len(files)), thread_name_prefix="distclust-survey") as pool:
        return list(pool.map(one, files))


def _check_schema(uri: str, schema: pa.Schema, columns: Columns, first: str) -> None:
    """A column that the first file has and another one lacks is a fault of the data, not of the call."""
    if uri == first:
        return
    try:
        check_columns(schema, columns, uri)
        if columns.id is not None:
            require_column(schema, columns.id, uri, "id_column")
    except UsageError as exc:
        raise DataError(
            f"{exc.message} {sibling_name(first, uri)} has it as it should be.",
            where=uri,
            do="Choose files with a glob.",
        ) from exc


def _source_file(file: FoundFile, facts: FileFacts, columns: Columns, kind: Format) -> SourceFile:
    dtype = facts.dtype if facts.schema is None else np.dtype(vector_type(facts.schema, columns)).name
    return SourceFile(file.uri, kind, file.fingerprint, tuple(group.n_rows for group in facts.groups), dtype)


def _check_widths(files: Sequence[SourceFile], facts: Sequence[FileFacts], columns: Columns) -> int:
    """Return the width of the first file that has rows, which all others must have."""
    width, reference, offset = 0, "", 0
    for file, one in zip(files, facts, strict=True):
        declared = _declared_width(one, columns)
        for number, group in enumerate(one.groups):
            if not group.n_rows:
                continue
            ref = PartitionRef(
                0,
                file.uri,
                file.format,
                () if one.schema is None else (number,),
                0,
                group.n_rows,
                offset,
                file.fingerprint,
            )
            if not reference:
                reference = file.uri
                width = first_length(ref, columns) if declared is None else declared
                if not width:
                    raise DataError("vectors have no values: their width is 0.", where=ref.describe())
            if not columns.kinds:  # columns of numbers and categories may have nulls
                _check_group(ref, group, declared, columns, (width, reference))
            offset += group.n_rows
    return width


def _declared_width(facts: FileFacts, columns: Columns) -> int | None:
    if facts.schema is None:
        return facts.width
    return len(columns.features) if columns.vector is None else fixed_width(facts.schema.field(columns.vector).type)


def _check_group(
    ref: PartitionRef, group: GroupFacts, declared: int | None, columns: Columns, expected: tuple[int, str]
) -> None:
    """Compare a group with the expected (width, file). Rows are read only to name the one that is wrong."""
    width, reference = expected[0], sibling_name(expected[1], ref.uri)
    what = "the array" if columns.vector is None else f"column {columns.vector!r}"
    if declared is not None and declared != width:
        raise DataError(width_message(what, declared, width, reference), where=_name(ref), do=WIDTH_DO)
    total = group.n_values
    if total is not None and total != group.n_rows * width:
        if total % group.n_rows == 0 and _reads_with(ref, columns, total // group.n_rows):
            raise DataError(width_message(what, total // group.n_rows, width, reference), where=_name(ref), do=WIDTH_DO)
        _read(ref, columns, width, reference)
    elif group.has_nulls:
        _read(ref, columns, width, reference)


def _read(ref: PartitionRef, columns: Columns, width: int, reference: str) -> None:
    for _ in read_batches(ref, columns, width, reference=reference):
        pass


def _reads_with(ref: PartitionRef, columns: Columns, width: int) -> bool:
    try:
        _read(ref, columns, width, "")
    except DataError:
        return False
    return True


def _name(ref: PartitionRef) -> str:
    if not ref.groups:
        return ref.uri
    return f"{ref.uri}, {'row group' if ref.format == 'parquet' else 'record batch'} {ref.groups[0]}"


def sibling_name(uri: str, of: str) -> str:
    """Name a file beside another one: its last component if both are in one directory."""
    folder, _, name = uri.rpartition("/")
    return name if of.rpartition("/")[0] == folder else uri
