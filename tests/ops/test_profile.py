"""The profile: the same centring and scales in any partitioning; bad rows named or counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distclust.data.sources import open_source
from distclust.engines.events import Event, Note
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine, EngineOptions
from distclust.errors import DataError, UsageError
from distclust.kernels.moments import column_sums
from distclust.kernels.random import hash_rows
from distclust.ops import profile
from distclust.ops.profile import SAMPLE_ROWS, partition_bytes, plan, prepare
from distclust.ops.sample import draw_rows, hash_sample
from tests.algorithms.rows import prepared, random_sizes


@pytest.fixture
def engine() -> Iterator[Engine]:
    with LocalEngine(2) as opened:
        yield opened


@pytest.mark.parametrize("n", [3, 300, 5000])
def test_moments_are_those_of_numpy(n: int, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, w = rng.normal(3, 2, (n, 4)).astype(np.float32), rng.uniform(0, 3, n)
    short: list[bool] = []

    def noted(*arguments: Any, **more: Any) -> None:
        short.append(more["short"])
        column_sums(*arguments, **more)

    monkeypatch.setattr(profile, "column_sums", noted)
    with prepared(engine, X, weights=w) as data:
        assert set(short) == {n > 1000}
        mean = np.average(X.astype(float), axis=0, weights=w)
        assert data.moments.mean + data.offset == pytest.approx(mean, rel=1e-6)
        variance = np.average((X - mean) ** 2, axis=0, weights=w)
        assert data.moments.variance == pytest.approx(variance, rel=1e-6)
        assert data.moments.mass == pytest.approx(w.sum())


def test_centring_and_scales_do_not_depend_on_the_cut(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(9000, 3))
    with prepared(engine, X) as whole, prepared(engine, X, random_sizes(rng, 9000, 11)) as cut:
        assert whole.view.digest == cut.view.digest
        assert np.array_equal(whole.scales.columns, cut.scales.columns)
        assert np.array_equal(whole.moments.variance, cut.moments.variance)


def test_a_column_of_huge_values_does_not_coarsen_the_others(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1000, 2))
    X[:, 0] *= 1e9
    with prepared(engine, X) as data:
        assert data.scales.columns[1] / data.scales.columns[0] >= 2.0**25


def test_one_outlier_does_not_coarsen_the_sums(engine: Engine) -> None:
    X = np.random.default_rng(1).normal(size=(4000, 1))
    X[7] = 1e6
    with prepared(engine, X) as data:
        assert data.scales.columns[0] >= 2.0**30, "rows times extent would leave 2^27"


def _files(directory: Path, bad: float) -> Path:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[230, 1] = bad
    for i in range(3):
        table = pa.table({"v": list(rows[100 * i : 100 * (i + 1)])})
        pq.write_table(table, directory / f"part-{i}.parquet", row_group_size=25)
    return directory


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "NaN"), (np.inf, "inf")])
def test_a_bad_row_is_named_by_file_row_group_and_row(engine: Engine, tmp_path: Path, bad: float, name: str) -> None:
    source = open_source(_files(tmp_path, bad))
    with pytest.raises(
        DataError,
        match=rf"part-2.parquet, row group 1, row 30 of the file \(row 230 of the dataset\): value 1 .* {name}",
    ) as caught:
        prepare(engine, source, plan(engine, source))
    assert "--on-bad-rows drop" in str(caught.value)


@pytest.mark.parametrize("good", [5000, 700, 300])
def test_the_centre_is_the_mean_of_the_first_good_rows_by_hash(good: int) -> None:
    # Of 5000 rows about 1000 are looked at for a sample of 512: with most of them bad, these do not suffice.
    rows = np.random.default_rng(3).normal(size=(5000, 2)).astype(np.float32)
    rows[np.random.default_rng(4).permutation(5000)[good:], 1] = np.nan
    ids = np.flatnonzero(np.isfinite(rows[:, 1]))
    first = np.sort(ids[np.argsort(hash_rows(ids))[:SAMPLE_ROWS]])
    with LocalEngine(2) as engine:
        source = open_source(rows)
        data = prepare(engine, source, plan(engine, source), on_bad_rows="drop")
        source.close()
    assert data.moments.n_rows == good
    assert data.offset == pytest.approx(rows[first].astype(np.float64).mean(axis=0), rel=1e-12)


@pytest.mark.parametrize(
    ("slots", "target_bytes", "expected"),
    [(1, None, 1), (2, None, 2), (2, 5000 * 8, 4), (2, 4000 * 8, 6), (3, 9000 * 8, 3)],
)
def test_threads_have_equal_shares_of_rows_in_memory(slots: int, target_bytes: int | None, expected: int) -> None:
    with LocalEngine(slots) as engine:
        source = open_source(np.zeros((20_000, 2), np.float32))
        sizes = [ref.n_rows for ref in plan(engine, source, target_bytes)]
        source.close()
    assert len(sizes) == expected
    assert max(sizes) - min(sizes) <= 1


def test_dropped_rows_are_counted_and_said(tmp_path: Path) -> None:
    notes: list[Event] = []
    with LocalEngine(2, EngineOptions(emit=notes.append)) as engine:
        source = open_source(_files(tmp_path, np.nan))
        data = prepare(engine, source, plan(engine, source), on_bad_rows="drop")
    assert (data.n_bad, data.moments.n_rows) == (1, 299)
    assert any(isinstance(e, Note) and "1 bad row(s) dropped" in e.message for e in notes)


def test_nothing_usable_and_no_weight_are_errors(engine: Engine) -> None:
    with pytest.raises(DataError, match="no usable row"), prepared(engine, np.full((9, 2), np.nan), on_bad_rows="drop"):
        pass
    with pytest.raises(DataError, match="All weights are zero"), prepared(engine, np.ones((9, 2)), weights=np.zeros(9)):
        pass


def test_coordinates_beyond_float32_are_refused(engine: Engine) -> None:
    with (
        pytest.raises(UsageError, match="squared distances would overflow float32"),
        prepared(engine, np.array([[1e30], [-1e30]])),
    ):
        pass


def test_samples_do_not_depend_on_the_cut(engine: Engine) -> None:
    rng = np.random.default_rng(2)
    X = np.arange(4000.0)[:, None]
    w = rng.choice([0.0, 1.0, 50.0], 4000)
    with prepared(engine, X, weights=w) as whole, prepared(engine, X, random_sizes(rng, 4000, 13), weights=w) as cut:
        a, b = (hash_sample(engine, data.pinned, 100) for data in (whole, cut))
        assert np.array_equal(a.row_ids, b.row_ids)
        assert np.array_equal(a.rows, b.rows)
        a, b = (draw_rows(engine, data.pinned, 500, seed=1, stage=2) for data in (whole, cut))
        assert np.array_equal(a.row_ids, b.row_ids)
        assert w[a.row_ids].min() > 0, "rows of no weight are never drawn"
        assert (w[a.row_ids] == 50).mean() > 0.8


def test_partitions_keep_to_the_memory(engine: Engine) -> None:
    assert partition_bytes(engine, 64 << 20) == 4 << 20, "two threads share the process"
    assert partition_bytes(engine, 1 << 40) == 128 << 20, "larger blocks where tasks see the driver's memory"
