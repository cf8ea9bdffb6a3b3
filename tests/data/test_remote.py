"""Files on an object store and behind fsspec."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer

from distclust.data import files, parquet
from distclust.data.cache import NodeCache
from distclust.data.decode import read_batches
from distclust.data.files import reading
from distclust.data.plan import plan_partitions
from distclust.data.refs import BlockView
from distclust.data.sources import open_source
from distclust.errors import DataError, MissingExtraError
from tests.data.writers import in_id_order, make_rows, make_table, open_blocks, write_ipc, write_parquet


@pytest.fixture(scope="module")
def s3() -> Iterator[pafs.FileSystem]:
    """A bucket ``vectors`` with the same rows as Parquet, Arrow and npy."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):
            patch.setenv(name, value)
        files._filesystem.cache_clear()
        filesystem, _ = pafs.FileSystem.from_uri("s3://vectors/")
        pafs.S3FileSystem(
            endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True, region="us-east-1"
        ).create_dir("vectors")
        yield filesystem
    server.stop()
    files._filesystem.cache_clear()


def upload(filesystem: pafs.FileSystem, path: Path, key: str) -> None:
    with filesystem.open_output_stream(f"vectors/{key}") as sink:
        sink.write(path.read_bytes())


def test_object_store(s3: pafs.FileSystem, tmp_path: Path, cache: NodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    x = make_rows(300, 4)
    write_parquet(tmp_path / "a.parquet", make_table(x[:200]), 60)
    write_parquet(tmp_path / "b c.parquet", make_table(x[200:], "fixed"), 60)
    write_ipc(tmp_path / "a.arrow", make_table(x), 70)
    write_ipc(tmp_path / "s.arrow", make_table(x), 70, stream=True)
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    for key, name in (
        ("train/x/a.parquet", "a.parquet"),
        ("train/x/b c.parquet", "b c.parquet"),
        ("train/_old/a.parquet", "a.parquet"),
        ("ipc/a.arrow", "a.arrow"),
        ("stream/a.arrow", "s.arrow"),
        ("npy/a.npy", "a.npy"),
        ("npyf/a.npy", "f.npy"),
    ):
        upload(s3, tmp_path / name, key)
    for uri in (
        "s3://vectors/train",
        "s3://vectors/train/**/*.parquet",
        "s3://vectors/tr*/x",
        "s3://vectors/ipc/a.arrow",
        "s3://vectors/stream/a.arrow",
        "s3://vectors/npy",
        "s3://vectors/npyf/a.npy",
    ):
        source = open_source(uri)
        assert all(file.uri.startswith("s3://vectors/") for file in source.files)
        _, rows = in_id_order(open_blocks(cache, source, BlockView(source.columns, 4), 4 * 4 * 50))
        np.testing.assert_array_equal(rows, x)
    monkeypatch.setattr(parquet, "PREBUFFER_BYTES", 0)
    source = open_source("s3://vectors/train/x/a.parquet")
    got = [batch.values for ref in plan_partitions(source, 1 << 20) for batch in read_batches(ref, source.columns, 4)]
    np.testing.assert_array_equal(np.concatenate(got), x[:200])


def test_errors_name_the_object(s3: pafs.FileSystem, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", make_table(make_rows(200, 4)), 60)
    upload(s3, path, "changing/a.parquet")
    source = open_source("s3://vectors/changing/a.parquet")
    ref = plan_partitions(source, 1 << 20)[0]
    assert ref.fingerprint.size == path.stat().st_size
    upload(s3, write_parquet(tmp_path / "b.parquet", make_table(make_rows(201, 4)), 60), "changing/a.parquet")
    with pytest.raises(DataError, match=r"s3://vectors/changing/a.parquet: the file changed since the run was planned"):
        list(read_batches(ref, source.columns, 4))
    path.write_bytes(path.read_bytes()[:-100])
    upload(s3, path, "cut/a.parquet")
    with pytest.raises(DataError, match=r"s3://vectors/cut/a.parquet: not a readable Parquet file: Parquet magic"):
        open_source("s3://vectors/cut")
    with pytest.raises(DataError, match=r"s3://vectors/nothing: no such file, or a directory without files"):
        open_source("s3://vectors/nothing")
    with pytest.raises(DataError, match="no file matches"):
        open_source("s3://vectors/cut/*.arrow")
    with pytest.raises(DataError, match=r"s3://vectors/gone.parquet: the file does not exist"):
        list(read_batches(replace(ref, uri="s3://vectors/gone.parquet"), source.columns, 4))


class Shelf(MemoryFileSystem):
    """A filesystem that fsspec knows and pyarrow does not."""

    protocol = "shelf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("shelf://", "memory://")))

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found = super().info(path, **kwargs)
        return {**found, "ETag": str(hash(bytes(self.store[path].getbuffer())))} if path in self.store else dict(found)


@pytest.fixture
def shelf() -> Shelf:
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    return Shelf()


def test_fsspec(shelf: Shelf, tmp_path: Path, cache: NodeCache) -> None:
    x = make_rows(100, 3)
    shelf.pipe("/in/a.parquet", write_parquet(tmp_path / "a.parquet", make_table(x), 30).read_bytes())
    for uri in ("shelf://in", "shelf://in/*.parquet", "shelf://in/a.parquet"):
        source = open_source(uri)
        assert source.files[0].uri == "shelf://in/a.parquet"
        _, rows = in_id_order(open_blocks(cache, source, BlockView(source.columns, 3)))
        np.testing.assert_array_equal(rows, x)


def test_an_etag_is_part_of_the_fingerprint(shelf: Shelf) -> None:
    shelf.pipe("/in/b.npy", npy_bytes(make_rows(5, 3)))
    source = open_source("shelf://in/b.npy")
    assert source.files[0].fingerprint.etag
    shelf.pipe("/in/b.npy", npy_bytes(make_rows(5, 3) + 1))
    with pytest.raises(DataError, match="changed since the run was planned: it was written again"):
        list(read_batches(plan_partitions(source, 1 << 20)[0], source.columns, 3))


def npy_bytes(x: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def test_unknown_schemes() -> None:
    with pytest.raises(MissingExtraError, match=r"nosuch://x: nothing here opens this kind of address"):
        open_source("nosuch://x/y.parquet")


@pytest.mark.parametrize(
    ("uri", "text", "damaged"),
    [
        ("s3://b/a", "Couldn't deserialize thrift: no more data", True),
        ("s3://b/a", "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 56", False),
        ("/b/a", "Unknown error: anything that pyarrow says of a local file", True),
    ],
)
def test_damage_and_trouble_are_told_apart(uri: str, text: str, damaged: bool) -> None:
    with pytest.raises(DataError if damaged else OSError) as caught, reading(uri, "Parquet"):
        raise OSError(text)
    assert isinstance(caught.value, DataError) == damaged
    assert os.fspath(uri) in str(caught.value) or not damaged
