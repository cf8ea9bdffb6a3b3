from __future__ import annotations

import os
import sys

import pytest

from distclust.engines.local import LocalEngine, usable_memory
from distclust.engines.open import open_engine
from distclust.engines.protocol import EngineOptions
from distclust.errors import MissingExtraError, UsageError
from distclust.kernels.slices import usable_cores
from distclust.testing.hostile import HostileEngine


@pytest.mark.parametrize(("spec", "slots"), [
    ("local", len(os.sched_getaffinity(0))), ("local[*]", len(os.sched_getaffinity(0))), ("local[3]", 3),
])  # fmt: skip
def test_local(spec, slots):
    options = EngineOptions(retries=7)
    with open_engine(spec, options) as engine:
        assert isinstance(engine, LocalEngine)
        assert engine.info.slots == slots
        assert engine.options.retries == 7
        assert 0 < engine.info.memory_per_slot <= usable_memory()


def test_cores_are_those_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_no_threads():
    with pytest.raises(UsageError, match="n_threads is 0"):
        open_engine("local[0]")


@pytest.mark.parametrize("make", [lambda: LocalEngine(1), HostileEngine])
def test_engine_is_returned_as_it_is(make):
    with make() as engine:
        assert open_engine(engine) is engine
        with pytest.raises(UsageError, match="options already"):
            open_engine(engine, EngineOptions())


@pytest.mark.parametrize(("spec", "nearest"), [
    ("locl", "Did you mean 'local'?"), ("local[two]", "Did you mean 'local"), ("dsk", "Did you mean 'dask'?"),
    ("Spark", "Did you mean 'spark'?"), ("ray", ""), ("", ""),
])  # fmt: skip
def test_unknown_word(spec, nearest):
    with pytest.raises(UsageError, match="Unknown engine") as caught:
        open_engine(spec)
    assert nearest in caught.value.do
    assert "dask://host:8786" in str(caught.value)


def test_unknown_object():
    with pytest.raises(UsageError, match=r"builtins\.dict"):
        open_engine({})


@pytest.mark.parametrize(("spec", "package", "extra"), [
    ("dask", "distributed", "dask"), ("tcp://h:1", "distributed", "dask"), ("spark", "pyspark", "spark"),
])  # fmt: skip
def test_missing_package(monkeypatch, spec, package, extra):
    for name in [name for name in sys.modules if name.startswith((package, f"distclust.engines.{extra}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match="not installed") as caught:
        open_engine(spec)
    assert caught.value.do == f'pip install "distclust[{extra}]"'
