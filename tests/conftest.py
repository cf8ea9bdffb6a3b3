"""What all tests share: hypothesis without deadlines (a first call compiles), and the real input."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("distclust", deadline=None, derandomize=True)
settings.load_profile("distclust")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of the real input; tests on it fail where it is missing."""
    assert SHARED_DATA.is_dir(), f"{SHARED_DATA} is missing: the tests need the real input beside the project"
    return SHARED_DATA
