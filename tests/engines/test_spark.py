from __future__ import annotations

import pytest

from distclust.engines.protocol import EngineOptions
from distclust.engines.spark import SparkEngine
from distclust.testing.engine_suite import EngineSuite


@pytest.fixture(scope="module")
def embedded():
    with SparkEngine.open("spark", EngineOptions(retries=EngineSuite.retries)) as engine:
        yield engine


class TestSpark(EngineSuite):
    @pytest.fixture
    def opened(self, embedded):
        return lambda options: SparkEngine.open(embedded.context, options)
