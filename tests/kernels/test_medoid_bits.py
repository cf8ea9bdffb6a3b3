"""k-medoids' kernels give the same bits on this and on other processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.digest import medoid_digest
from tests.kernels.test_cache import answer, processors, start

GOLDEN = "f40e7ca25b399972c7d82ecbbd632be8e1638c62fd3216c209ab3e402311367e"


def test_this_processor() -> None:
    assert medoid_digest() == GOLDEN


@pytest.mark.parametrize("processor", processors(), ids=lambda processor: processor["NUMBA_CPU_NAME"])
def test_other_processors(processor: dict[str, str], tmp_path: Path) -> None:
    assert answer(start(tmp_path, "medoids", **processor))["medoids"] == GOLDEN
