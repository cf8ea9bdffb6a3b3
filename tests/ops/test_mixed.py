"""Columns of numbers and categories: profile, encoding, missing values, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from distclust.data.cache import node_cache
from distclust.data.categories import Encoding
from distclust.data.encoding import decode_columns, encode_columns
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.sources import Source, open_source
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine
from distclust.errors import DataError, UsageError
from distclust.ops import mixed
from distclust.ops.mixed import profile_mixed
from distclust.testing.hostile import HostileEngine

COLUMNS = ("size", "count", "cut", "sold", "grade")


def table(n: int = 400, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    hole = rng.random((4, n)) < 0.1
    grade = pa.array(rng.choice(["a", "b", "ß"], n)).dictionary_encode()
    return pa.table(
        {
            "size": pa.array(rng.normal(size=n).astype(np.float32), mask=hole[0]),
            "count": pa.array(rng.integers(-5, 9, n), mask=hole[1]),
            "cut": pa.array(rng.choice(["Ideal", "Fair", "Good"], n), mask=hole[2]),
            "sold": pa.array(rng.random(n) < 0.5, mask=hole[3]),
            "grade": grade,
            "key": np.arange(n),
            "weight": rng.integers(0, 4, n).astype(float),
        }
    )


def write(path: Path, rows: pa.Table) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=70)
    else:
        with pa.ipc.new_file(path, rows.schema) as sink:
            sink.write_table(rows, max_chunksize=90)
    return path


def profiled(engine: Engine, source: Source, rows: int, **how: Any) -> tuple[Any, ...]:
    refs = plan_partitions(source, 4 * source.width * rows)
    stats, encoding = profile_mixed(engine, source, refs, how.get("on_bad_rows", "error"))
    return refs, stats, encoding


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_rows_are_numbers_and_places_of_sorted_categories(tmp_path: Path, suffix: str) -> None:
    rows = table()
    source = open_source(write(tmp_path / f"a{suffix}", rows), columns=COLUMNS, weight_column="weight", mixed=True)
    assert (source.width, source.dtype, source.n_rows) == (5, "float64", 400)
    with LocalEngine(2) as engine:
        refs, stats, encoding = profiled(engine, source, 33)
        view = BlockView(source.columns, 5, dtype="float64", encoding=encoding)
        assert encoding.categories == (None, None, ("Fair", "Good", "Ideal"), ("false", "true"), ("a", "b", "ß"))
        assert stats.missing.tolist() == [rows.column(name).null_count for name in COLUMNS]
        assert stats.minimum[1] == -5
        assert stats.maximum[1] == 8
        assert np.isinf(stats.minimum[2:]).all()
        blocks = []
        for ref in refs:
            with node_cache(engine.options.node).open(ref, view) as block:
                order = np.argsort(block.row_ids)
                assert np.array_equal(block.weights[order], rows["weight"].to_numpy()[block.row_ids[order]])
                blocks.append(block.x[order])
        found = decode_columns(encoding, np.concatenate(blocks))
    for name in COLUMNS:
        wanted = rows.column(name).combine_chunks()
        wanted = wanted.dictionary_decode() if pa.types.is_dictionary(wanted.type) else wanted
        assert found.column(name).to_pylist() == wanted.cast(found.column(name).type).to_pylist()


def test_partitions_and_engines_agree(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "a.parquet", table()), columns=COLUMNS, mixed=True)
    with LocalEngine(2) as local, HostileEngine(3) as hostile:
        _, whole, encoding = profiled(local, source, 400)
        for engine, rows in ((local, 11), (hostile, 37)):
            _, stats, again = profiled(engine, source, rows)
            assert again == encoding
            assert stats.minimum.tobytes() == whole.minimum.tobytes()
            assert stats.missing.tolist() == whole.missing.tolist()


def test_unknown_categories_get_a_code_of_their_own() -> None:
    encoding = Encoding(("cut", "size"), (("Fair", "Good"), None))
    batch = pa.record_batch({"cut": pa.array(["Good", "new", None, "newer"]), "size": pa.array([1, 2, 3, None])})
    rows = encode_columns(encoding, batch)
    assert np.array_equal(rows, [[1, 1], [2, 2], [np.nan, 3], [2, np.nan]], equal_nan=True)
    assert decode_columns(encoding, rows).to_pydict() == {"cut": ["Good", None, None, None], "size": [1, 2, 3, None]}
    assert Encoding.from_dict(encoding.as_dict()) == encoding


def test_dictionaries_may_differ_from_batch_to_batch() -> None:
    encoding = Encoding(("c",), (("a", "b", "c"),))
    for values in (["c", None, "a"], ["b", "b", "c"]):
        batch = pa.record_batch({"c": pa.array(values).dictionary_encode()})
        plain = pa.record_batch({"c": pa.array(values, pa.large_string())})
        assert np.array_equal(encode_columns(encoding, batch), encode_columns(encoding, plain), equal_nan=True)


def test_integers_are_categories_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table())
    source = open_source(path, columns=("count", "grade"), mixed=True, categorical=("count",))
    with LocalEngine(1) as engine:
        _, _, encoding = profiled(engine, source, 400)
    assert encoding.categories[0] == tuple(sorted(str(i) for i in range(-5, 9)))
    assert encoding.categories[1] == ("a", "b", "ß")


def test_bad_rows_are_named_or_dropped(tmp_path: Path) -> None:
    rows = pa.table({"x": [1.0, np.inf, None, 2.0], "c": ["a", "b", None, None]})
    source = open_source(write(tmp_path / "a.parquet", rows), columns=("x", "c"), mixed=True)
    with LocalEngine(1) as engine:
        with pytest.raises(DataError, match=r"row 1 of the file.*value 0 of the vector is inf.*has 2 row\(s\)"):
            profiled(engine, source, 400)
        refs, stats, encoding = profiled(engine, source, 400, on_bad_rows="drop")
        assert (stats.n_rows, stats.n_bad, stats.first_bad.row_id) == (2, 2, 1)
        view = BlockView(source.columns, 2, dtype="float64", encoding=encoding, on_bad_rows="drop")
        with node_cache(engine.options.node).open(refs[0], view) as block:
            assert sorted(block.row_ids.tolist()) == [0, 3]


def test_columns_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data" / "a.parquet", table().append_column("when", pa.array([0] * 400, pa.date32())))
    with pytest.raises(UsageError, match=r"column 'cut' has type string; columns takes plain numbers.*--metric gower"):
        open_source(path, columns=("size", "cut"))
    with pytest.raises(UsageError, match=r"have to be named.*'size', 'count', 'cut'"):
        open_source(path, mixed=True)
    with pytest.raises(UsageError, match=r"column 'when' has type date32\[day\]; allowed are integers"):
        open_source(path, columns=("when",), mixed=True)
    with pytest.raises(UsageError, match=r"'size' has type float, whose values cannot be categories"):
        open_source(path, columns=("size",), mixed=True, categorical=("size",))
    with pytest.raises(UsageError, match=r"categorical names 'cuts'.*Did you mean 'cut'"):
        open_source(path, columns=("cut",), mixed=True, categorical=("cuts",))
    with pytest.raises(UsageError, match="categorical is for rows of numbers and categories"):
        open_source(path, columns=("size",), categorical=("size",))
    with pytest.raises(UsageError, match="numbers and categories are read from Parquet"):
        open_source(table(), columns=("cut",), mixed=True)
    write(tmp_path / "data" / "b.parquet", pa.table({"cut": [1.5]}))
    with pytest.raises(DataError, match=r"b\.parquet: column 'cut' has type double, a category is needed"):
        open_source(tmp_path / "data", columns=("cut",), mixed=True)
    monkeypatch.setattr(mixed, "MAX_CATEGORIES", 2)
    with LocalEngine(1) as engine, pytest.raises(DataError, match="column 'cut' has more than 2 categories"):
        profiled(engine, open_source(path, columns=("cut",), mixed=True), 400)


def test_npy_has_no_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    with pytest.raises(UsageError, match="npy files have no columns"):
        open_source(tmp_path / "a.npy", mixed=True)
