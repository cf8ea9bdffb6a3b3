from __future__ import annotations

import pytest

from distclust.testing.engine_suite import EngineSuite
from distclust.testing.hostile import HostileEngine


@pytest.mark.parametrize("seed", [1, 2])
class TestHostile(EngineSuite):
    @pytest.fixture
    def opened(self, seed):
        return lambda options: HostileEngine(seed, options, harm=0.3)
