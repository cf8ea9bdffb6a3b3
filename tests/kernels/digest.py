"""Print a digest of what the kernels give on fixed input, and how often compiled code was found or made.

Run in a process of its own, so that processor, cache and start order are free to choose.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

from distclust.kernels import dissimilarity, lloyd, medoids, nearest


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


MEASURES = {
    "euclidean": "float32",
    "manhattan": "float32",
    "gower": "float64",
    "jaccard": "uint8",
    "haversine": "float64",
}


def medoid_digest() -> str:
    """Digest tables under some measures, and what swaps, seeds and silhouettes make of them."""
    rng = np.random.default_rng(1)
    found = hashlib.sha256()
    for name, dtype in MEASURES.items():
        rows = rng.random((70, 2 if name == "haversine" else 19))
        if name == "gower":
            rows[rng.random(rows.shape) < 0.1] = np.nan
        measure = dissimilarity.dissimilarity(name, ranges=rng.random(19) - 0.3 if name == "gower" else None)
        x = (rows * 200 if dtype == "uint8" else rows).astype(dtype)
        table = dissimilarity.table(measure, x, x)
        chosen = medoids.build(table, 6)
        state = medoids.medoid_state(chosen, table[chosen])
        change, position = medoids.swap_changes(table, state)
        medoids.eager_swaps(table, np.arange(70), state, 0, 70, 70)
        silhouette = np.array([medoids.silhouette_sum(state.near_dist, state.second_dist)])
        for array in (table, chosen, change, position, *state, silhouette):
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
    digests = {what: medoid_digest() if what == "medoids" else digest(what) for what in sys.argv[1:]}
    print(json.dumps(digests | compiled()))
