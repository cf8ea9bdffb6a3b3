"""Partitions cover every row once, in order, within their bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distclust.data.plan import MIN_ROWS, plan_partitions
from distclust.data.refs import Columns, Fingerprint, Format
from distclust.data.sources import Source, open_source
from distclust.data.survey import SourceFile
from distclust.errors import UsageError
from tests.data.writers import make_rows, make_table, write_parquet

files = st.lists(
    st.tuples(st.sampled_from(["parquet", "ipc", "npy"]), st.lists(st.integers(0, 5000), min_size=1, max_size=6)),
    min_size=1,
    max_size=5,
)


def a_source(layout: list[tuple[Format, list[int]]], width: int) -> Source:
    return Source(
        tuple(
            SourceFile(f"f{i}", kind, Fingerprint(1), (sum(groups),) if kind == "npy" else tuple(groups), "float32")
            for i, (kind, groups) in enumerate(layout)
        ),
        Columns("v"),
        width,
        "float32",
    )


@given(files, st.integers(1, 64), st.integers(1, 1 << 18), st.integers(1, 40))
def test_every_row_once(layout: Any, width: int, target_bytes: int, min_partitions: int) -> None:
    source = a_source(layout, width)
    refs = plan_partitions(source, target_bytes, min_partitions)
    assert [ref.index for ref in refs] == list(range(len(refs)))
    offset = 0
    for ref in refs:
        assert ref.offset == offset
        assert ref.n_rows >= 1
        assert ref.n_rows == 1 or ref.n_rows * width * 4 <= target_bytes
        offset += ref.n_rows
    assert offset == source.n_rows
    for file in source.files:
        row = 0
        for ref in refs:
            if ref.uri == file.uri:
                # Groups without rows are in no partition, and before the first group counts none of them.
                assert sum(file.group_rows[: ref.groups[0]] if ref.groups else ()) + ref.start == row
                assert ref.start + ref.n_rows <= sum(file.group_rows[group] for group in ref.groups) or not ref.groups
                row += ref.n_rows
        assert row == file.n_rows
    if source.n_rows >= min_partitions * MIN_ROWS:
        assert len(refs) >= min_partitions


def test_joins_and_cuts(tmp_path: Path) -> None:
    x = make_rows(100, 2)
    write_parquet(tmp_path / "a.parquet", make_table(x), 20)
    write_parquet(tmp_path / "b.parquet", make_table(x[:50]), 50)
    refs = plan_partitions(open_source(tmp_path), 2 * 4 * 45)
    assert [(Path(ref.uri).name, ref.groups, ref.start, ref.n_rows, ref.offset) for ref in refs] == [
        ("a.parquet", (0, 1), 0, 40, 0),
        ("a.parquet", (2, 3), 0, 40, 40),
        ("a.parquet", (4,), 0, 20, 80),
        ("b.parquet", (0,), 0, 25, 100),
        ("b.parquet", (0,), 25, 25, 125),
    ]


def test_more_partitions_on_request() -> None:
    source = open_source(np.zeros((10_000, 2), np.float32))
    assert [ref.n_rows for ref in plan_partitions(source, 1 << 30)] == [10_000]
    assert len(plan_partitions(source, 1 << 30, 4)) == 4
    assert [ref.n_rows for ref in plan_partitions(source, 1 << 30, 1000)] == [1000] * 10
    assert [ref.n_rows for ref in plan_partitions(source, 1 << 30, 6)] == [1666, 1667, 1667, 1666, 1667, 1667]
    source.close()


def test_parameters_are_checked() -> None:
    source = open_source(np.zeros((10, 2), np.float32))
    with pytest.raises(UsageError, match="target_bytes is 0, min_partitions 1; both must be 1 or more"):
        plan_partitions(source, 0)
    with pytest.raises(UsageError, match="min_partitions 0"):
        plan_partitions(source, 1, 0)
    source.close()
