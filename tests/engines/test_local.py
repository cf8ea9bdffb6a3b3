from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import distclust
from distclust.data.memory import register, release
from distclust.data.refs import Fingerprint, PartitionRef
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import EngineOptions
from distclust.errors import CancelledError, DataError
from distclust.testing.engine_suite import NPY_VIEW, EngineSuite, npy_refs
from distclust.testing.steps import ColumnTotals, Sleeping, Trouble, add, count


class TestLocal(EngineSuite):
    @pytest.fixture
    def opened(self):
        return lambda options: LocalEngine(2, options)

    def test_reads_arrays_of_this_process(self, engine):
        rows = np.arange(40.0).reshape(10, 4)
        token = register(rows)
        refs = [PartitionRef(i, f"memory://{token}", "memory", (), 5 * i, 5, 5 * i, Fingerprint(0)) for i in range(2)]
        pinned = engine.pin(refs, NPY_VIEW, label="rows")
        assert engine.fold(pinned, ColumnTotals(), add, label="sum").tolist() == rows.sum(axis=0).tolist()
        release(token)

    def test_cancel_stops_inside_a_task(self, opened, tmp_path, diary):
        options = EngineOptions()
        with opened(options) as engine:
            pinned = engine.pin(npy_refs(tmp_path, [1] * 80), NPY_VIEW, label="suite")
            threading.Timer(0.1, options.cancel.cancel).start()
            with pytest.raises(CancelledError):
                engine.map(pinned, Sleeping(0.02, diary), label="slow")
        assert count(diary, "slept") < 40

    def test_nothing_runs_after_an_error(self, engine, tmp_path, diary):
        pinned = engine.pin(npy_refs(tmp_path, [1] * 80), NPY_VIEW, label="suite")
        with pytest.raises(DataError):
            engine.map(pinned, Trouble("data", 0, diary, inner=Sleeping(0.02, diary)), label="slow")
        left = count(diary, "slept")
        time.sleep(0.1)
        assert count(diary, "slept") == left < 40


INTERRUPTED = """
import sys
from pathlib import Path
from distclust.engines.local import LocalEngine
from distclust.testing.engine_suite import NPY_VIEW, npy_refs
from distclust.testing.steps import Sleeping, Indices, count, note
directory = Path(sys.argv[1])
with LocalEngine(2) as engine:
    pinned = engine.pin(npy_refs(directory, [1] * 200), NPY_VIEW, label="rows")
    note(directory, "ready")
    try:
        engine.map(pinned, Sleeping(0.05, directory), label="slow")
    except KeyboardInterrupt:
        note(directory, "interrupted")
    assert len(engine.map(pinned, Indices(), label="after")) == 200
    note(directory, "usable")
"""


def test_interrupt_leaves_a_usable_engine(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(distclust.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path)], env=environment)
    while not count(tmp_path, "slept"):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert count(tmp_path, "interrupted") == count(tmp_path, "usable") == 1
    assert count(tmp_path, "slept") < 100
