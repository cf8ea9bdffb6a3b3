"""Compiled code on disk: found by later processes, safe with many of them, harmless when damaged."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distclust.kernels import _jit
from tests.kernels.digest import digest

# What every processor, LLVM and numba version gives; also seen with numba 0.61 (LLVM 15) and without hardware FMA.
GOLDEN = {
    "float32": "fbe9f139c50f8d001fc44310244bab0f98c2144fe13df748083bceaac70d3bbd",
    "float64": "432eb17e8cadb637f0174e6530df7ede82ab8f006023bee2df01b5013080991d",
}
ROOT = Path(__file__).resolve().parents[2]


def start(cache: Path, *dtypes: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kernels.digest", *dtypes],
        cwd=ROOT,
        env=os.environ | {"DISTCLUST_KERNEL_CACHE": str(cache)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def test_processes_that_start_at_once_share_a_directory(tmp_path: Path) -> None:
    first = [start(tmp_path, dtype) for dtype in ("float32", "float64") * 2]
    for process in first:
        assert answer(process).items() & GOLDEN.items()

    later = answer(start(tmp_path, "float32", "float64"))
    assert later["misses"] == 0
    assert later["hits"] >= 8
    assert later.items() >= GOLDEN.items()

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for at, path in enumerate(files):
        path.write_bytes(path.read_bytes()[: [-1, 40, 0][at % 3]])
    mended = answer(start(tmp_path, "float32"))
    assert mended["float32"] == GOLDEN["float32"]
    assert mended["hits"] == 0
    assert answer(start(tmp_path, "float32"))["misses"] == 0


def processors() -> list[dict[str, str]]:
    """Other processors that code for this one's family can stand for: fewer registers, and no fused multiply-add."""
    plain = {"NUMBA_CPU_NAME": "generic"}
    if os.uname().machine == "x86_64":
        return [{"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, plain]
    return [plain]


@pytest.mark.parametrize("processor", processors(), ids=lambda processor: processor["NUMBA_CPU_NAME"])
def test_other_processors_give_the_same_bits(processor: dict[str, str], tmp_path: Path) -> None:
    found = answer(start(tmp_path, "float32", "float64", **processor))
    assert found["misses"] > 0
    assert found.items() >= GOLDEN.items()


@pytest.mark.parametrize("dtype", sorted(GOLDEN))
def test_this_processor_gives_the_same_bits(dtype: str) -> None:
    assert digest(dtype) == GOLDEN[dtype]


class TestDirectory:
    def test_is_the_one_asked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISTCLUST_KERNEL_CACHE", str(tmp_path / "new" / "cache"))
        directory = _jit.cache_directory.__wrapped__()
        assert directory.is_dir()
        assert directory.parent == tmp_path / "new" / "cache"

    def test_is_the_users_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DISTCLUST_KERNEL_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "platform", "linux")
        assert _jit.cache_directory.__wrapped__().parent == tmp_path / "distclust" / "kernels"

    def test_is_a_private_temporary_one_where_none_can_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "temporary").mkdir()
        monkeypatch.setenv("DISTCLUST_KERNEL_CACHE", str(tmp_path / "file"))
        monkeypatch.setattr(_jit.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
        directory = _jit.cache_directory.__wrapped__()
        assert directory.parent.parent == tmp_path / "temporary"
        assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700

    def test_is_never_one_that_others_can_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        planted = tmp_path / f"distclust-kernels-{os.getuid()}"
        planted.mkdir()
        planted.chmod(0o777)
        monkeypatch.setenv("DISTCLUST_KERNEL_CACHE", str(tmp_path / "file"))
        monkeypatch.setattr(_jit.tempfile, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr(_jit.tempfile, "tempdir", str(tmp_path))
        directory = _jit.cache_directory.__wrapped__()
        assert planted not in directory.parents
        assert directory != planted
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700

    def test_depends_on_the_source_of_the_kernels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = _jit._code_digest()
        (tmp_path / "_jit.py").write_text("changed")
        monkeypatch.setattr(_jit, "__file__", str(tmp_path / "_jit.py"))
        assert _jit._code_digest() != before


def test_threads_that_ask_at_once_get_one_kernel() -> None:
    made: list[str] = []
    barrier = threading.Barrier(8)

    @_jit.once
    def factory(name: str) -> object:
        time.sleep(0.01)
        made.append(name)
        return object()

    def ask(_: int) -> object:
        barrier.wait()
        return factory("kernel")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert made == ["kernel"]


def test_a_directory_that_fills_up_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jit, "cache_directory", lambda: tmp_path)

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_jit.os, "replace", full)

    @_jit.jit(name="one_more")
    def one_more(value):
        return value + 1

    assert one_more(1) == 2
    assert list(tmp_path.iterdir()) == []
