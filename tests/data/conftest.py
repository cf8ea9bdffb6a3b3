"""A node cache in a directory of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distclust.data.cache import NodeCache
from distclust.data.node import NodeConfig


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[NodeCache]:
    """An empty cache with room."""
    cache = NodeCache(NodeConfig(scratch=str(tmp_path / "scratch")))
    yield cache
    cache.close()
