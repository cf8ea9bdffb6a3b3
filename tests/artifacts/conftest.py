"""Storages of each kind, and an S3 server of this machine."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from distclust.artifacts import lease
from distclust.data.storage import Storage, open_storage


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """URI of an empty bucket with ``{}`` for a path in it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    query = f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    pafs.FileSystem.from_uri(f"s3://{bucket}/{query}&allow_bucket_creation=true")[0].create_dir(bucket)
    yield f"s3://{bucket}/{{}}{query}"
    patch.undo()
    server.stop()


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that need not outlast a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases on remote storage without the wait for simultaneous takers."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)


@pytest.fixture(params=["local", "memory", "moved", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, quick_lease: None) -> str:
    """A directory that does not exist, on storage of each kind: ``moved`` writes aside through fsspec."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_bucket")).format(f"{uuid.uuid4().hex}/out")
    return {
        "local": str(tmp_path / "out"),
        "memory": f"fsspec+memory://{uuid.uuid4().hex}/out",
        "moved": f"fsspec+file://{tmp_path}/out",
    }[request.param]


@pytest.fixture
def storage(place: str) -> Storage:
    """The same, open."""
    return open_storage(place)
