from __future__ import annotations

import pytest

from distclust.engines.local import LocalEngine
from distclust.testing.engine_suite import EngineSuite


class TestLocal(EngineSuite):
    @pytest.fixture
    def opened(self):
        return lambda options: LocalEngine(2, options)
