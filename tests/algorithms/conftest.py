"""What tests of several algorithms share."""

from __future__ import annotations

from typing import Any

import pytest

from distclust.ops import bounds


@pytest.fixture
def bounds_always(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep bounds whatever the shape; return the pairs compared by each assignment with bounds."""
    monkeypatch.setattr(bounds, "LEAST_CLUSTERS_BY_WIDTH", ((1, 1),))
    monkeypatch.setattr(bounds, "MOST_BYTES_PER_VALUE", 10**9)
    monkeypatch.setattr(bounds, "MOST_MOVED", 1.0)
    pairs: list[int] = []
    assign_bounded = bounds.assign_bounded

    def counted(*arguments: Any) -> Any:
        labels, compared = assign_bounded(*arguments)
        pairs.append(compared)
        return labels, compared

    monkeypatch.setattr(bounds, "assign_bounded", counted)
    return pairs
