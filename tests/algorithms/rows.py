"""Small datasets in memory, cut as a test wants them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from distclust.data.plan import plan_partitions
from distclust.data.refs import PartitionRef
from distclust.data.sources import Source, open_source
from distclust.engines.protocol import Engine
from distclust.ops.profile import PreparedData, prepare


def cut(source: Source, engine: Engine, sizes: list[int]) -> tuple[PartitionRef, ...]:
    """Cut an in-memory source into partitions of the given numbers of rows."""
    (whole,) = plan_partitions(source, 1 << 40, 1)
    assert sum(sizes) == whole.n_rows
    starts = np.cumsum([0, *sizes[:-1]])
    return tuple(
        replace(whole, index=i, start=whole.start + int(start), n_rows=size, offset=whole.offset + int(start))
        for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
    )


def random_sizes(rng: np.random.Generator, n: int, parts: int) -> list[int]:
    """Return sizes of a random cut; some partitions may be tiny."""
    cuts = np.sort(rng.choice(np.arange(1, n), min(parts, n) - 1, replace=False))
    return np.diff([0, *cuts, n]).tolist()


@contextmanager
def prepared(
    engine: Engine, X: np.ndarray, sizes: list[int] | None = None, *, weights: np.ndarray | None = None, **how: Any
) -> Iterator[PreparedData]:
    """Prepare rows in memory; release them at the end."""
    source = open_source(X, weights=weights)
    try:
        yield prepare(engine, source, cut(source, engine, sizes or [len(X)]), **how)
    finally:
        source.close()
