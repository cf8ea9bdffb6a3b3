"""Print a digest of what the kernels give on fixed input, and how often compiled code was found or made.

Run in a process of its own, so that processor, cache and start order are free to choose.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

from distclust.kernels import lloyd, nearest


def digest(dtype: str) -> str:
    rng = np.random.default_rng(0)
    found = hashlib.sha256()
    for n, d, k in ((61, 19, 61), (130, 3, 100), (40, 130, 31)):
        # Not normal variates: those pass through a machine's own logarithm.
        x, centers = (rng.random((rows, d), dtype) * 2 - 1 for rows in (n, k))
        packed = nearest.pack_centers(centers)
        labels, scores = nearest.assign_nearest(x, packed)
        sums, mass, counts = np.zeros((k, d), np.int64), np.zeros(k, np.int64), np.zeros(k, np.int64)
        weights = rng.random(n)
        lloyd.accumulate(x, weights, labels, np.full(d, 2.0**54), 2.0**40, sums, mass, counts)
        for array in (labels, scores, nearest.distance_table(x, packed), lloyd.row_sqdist(x, centers, labels)):
            found.update(array.tobytes())
        for array in (sums, mass, counts):
            found.update(array.tobytes())
    return found.hexdigest()


def compiled() -> dict[str, int]:
    kernels = [nearest._assign_kernel, nearest._table_kernel, lloyd._accumulate_kernel, lloyd._row_sqdist_kernel]
    total = {"hits": 0, "misses": 0}
    for dtype in ("float32", "float64"):
        for factory in kernels:
            tiles = nearest._WIDE_TILES | nearest._NARROW_TILES
            for arguments in [(dtype, tile) for tile in tiles] if factory in kernels[:2] else [(dtype,)]:
                stats = factory(*arguments).stats
                total["hits"] += sum(stats.cache_hits.values())
                total["misses"] += sum(stats.cache_misses.values())
    return total


if __name__ == "__main__":
    print(json.dumps({dtype: digest(dtype) for dtype in sys.argv[1:]} | compiled()))
