"""Work on large arrays of the driver in slices, on a few threads: kernels release the GIL.

Only where no sum crosses the border of a slice, so that the number of threads changes no bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

LEAST_VALUES = 1 << 18
"""Values of a slice at least: two megabytes take longer than a thread to start."""


def in_slices(run: Callable[[slice], object], n: int, width: int, threads: int) -> None:
    """Call ``run`` with slices that together are the n rows of an array of so many values each.

    Parameters
    ----------
    run : callable
        Takes a slice of ``range(n)``.
    n, width : int
    threads : int
        Most threads; no more than there are cores are used.

    Examples
    --------
    >>> import numpy as np
    >>> out = np.zeros(5)
    >>> in_slices(lambda some: out[some].fill(1), 5, 1 << 20, threads=2)
    >>> out.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    count = max(1, min(threads, usable_cores(), n * width // LEAST_VALUES, n))
    slices = [slice(n * at // count, n * (at + 1) // count) for at in range(count)]
    if count == 1:
        run(slices[0])
        return
    with ThreadPoolExecutor(count - 1, thread_name_prefix="distclust-driver") as pool:
        others = [pool.submit(run, some) for some in slices[1:]]
        run(slices[0])
        for other in others:
            other.result()


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity mask, not the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
