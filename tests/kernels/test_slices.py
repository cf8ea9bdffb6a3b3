"""Work in slices: all of it, once, also where a slice fails."""

from __future__ import annotations

import threading

import pytest

from distclust.kernels import slices
from distclust.kernels.slices import LEAST_VALUES, in_slices


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_slices_are_the_whole(n: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "usable_cores", lambda: 8)
    found: list[slice] = []
    in_slices(found.append, n, LEAST_VALUES, threads)
    assert len(found) == max(1, min(n, threads))
    found.sort(key=lambda some: some.start)
    assert [at for some in found for at in range(n)[some]] == list(range(n))


def test_little_work_stays_in_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "usable_cores", lambda: 8)
    seen = []
    in_slices(lambda some: seen.append((some, threading.current_thread())), 100, LEAST_VALUES // 100, 8)
    assert seen == [(slice(0, 100), threading.current_thread())]


def test_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "usable_cores", lambda: 2)
    found: list[slice] = []
    in_slices(found.append, 100, LEAST_VALUES, 50)
    assert len(found) == 2


@pytest.mark.parametrize("bad", [0, 50])
def test_an_error_of_a_slice_is_raised(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "usable_cores", lambda: 8)

    def run(some: slice) -> None:
        if some.start == bad:
            raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        in_slices(run, 100, LEAST_VALUES, 2)
