"""Time and inertia beside the peers that are installed: scikit-learn, faiss, SuperKMeans, Spark MLlib.

Same float32 rows, same cores, one run, medians. Seeding counts for everyone; inertia is computed by us for everyone.
The yardstick is the inertia of scikit-learn's 25 Lloyd iterations from random rows. faiss-cpu and superkmeans are no
dependencies: install them beside distclust to see their lines; what is missing is named.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _common import median_seconds, mixture, parse_arguments, print_machine, print_table
from sklearn.cluster import KMeans as ScikitLearn
from sklearn.exceptions import ConvergenceWarning

from distclust import KMeans
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers

MINIPILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "minipile"

Fit = Callable[[np.ndarray, int], np.ndarray]


def low_rank(n: int, d: int, rank: int, seed: int) -> np.ndarray:
    """Return rows near a subspace, as embeddings are: a mixture in ``rank`` dimensions, turned, with noise."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, rank)))[0].T.astype(np.float32)
    rows = mixture(n, rank, 3000, seed) @ turn
    rows += np.float32(0.05) * rng.standard_normal((n, d), dtype=np.float32)
    return rows


def embeddings() -> np.ndarray:
    """Return the real embeddings beside the project: 64 900 x 384."""
    column = pq.read_table(MINIPILE, columns=["embedding"]).column("embedding").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def ours(X: np.ndarray, k: int) -> np.ndarray:
    """Fit with the defaults but for a looser gain, the one that the yardstick's 0.5 % asks for."""
    return KMeans(k, rtol=1e-3, random_state=0).fit(X).cluster_centers_


def scikit_learn(X: np.ndarray, k: int) -> np.ndarray:
    """Run 25 Lloyd iterations from random rows."""
    model = ScikitLearn(k, init="random", n_init=1, max_iter=25, tol=0, random_state=0)
    return model.fit(X).cluster_centers_


def faiss_25(X: np.ndarray, k: int) -> np.ndarray:
    """Run faiss's 25 iterations on all rows."""
    import faiss

    model = faiss.Kmeans(X.shape[1], k, niter=25, seed=1, max_points_per_centroid=len(X))
    model.train(X)
    return model.centroids


def superkmeans_25(X: np.ndarray, k: int) -> np.ndarray:
    """Run SuperKMeans with at most 25 iterations and its early end."""
    from superkmeans import SuperKMeans

    model = SuperKMeans(
        k, X.shape[1], hierarchical=False, iters=25, n_threads=2, sampling_fraction=1.0, early_termination=True
    )
    return np.asarray(model.train(X))


PEERS: dict[str, tuple[str, Fit]] = {
    "scikit-learn, 25 iterations": ("sklearn", scikit_learn),
    "faiss, 25 iterations": ("faiss", faiss_25),
    "SuperKMeans": ("superkmeans", superkmeans_25),
}


def exact_inertia(X: np.ndarray, centers: np.ndarray) -> float:
    """Return the sum of squared distances to the nearest centres, distances in float64."""
    centers = np.ascontiguousarray(centers, dtype=np.float32)
    labels, _ = assign_nearest(X, pack_centers(centers))
    return float(row_sqdist(X, centers, labels).sum())


def compare(name: str, X: np.ndarray, k: int, repeat: int) -> list[tuple[object, ...]]:
    """Return the lines of one dataset and k."""
    fits: dict[str, Fit] = {"distclust": ours}
    for peer, (package, fit) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{peer}: package {package!r} is not installed, left out")
        else:
            fits[peer] = fit
    seconds, inertia = {}, {}
    for who, fit in fits.items():
        started = time.perf_counter()
        inertia[who] = exact_inertia(X, fit(X, k))
        print(f"  {name}, k = {k}: {who}: {time.perf_counter() - started:.1f} s", flush=True)
        seconds[who] = median_seconds(partial(fit, X, k), repeat)
    yardstick = inertia["scikit-learn, 25 iterations"]
    return [(name, k, who, seconds[who], inertia[who] / yardstick, seconds[who] / seconds["distclust"]) for who in fits]


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print_machine("scikit-learn")
    if arguments.smoke:
        lines = compare("low rank 2000 x 32", low_rank(2000, 32, 8, 0), 20, 1)
    else:
        lines = []
        for k in (200, 1000):
            lines += compare("minipile 64900 x 384", embeddings(), k, arguments.repeat)
        lines += compare("low rank 200000 x 384", low_rank(200_000, 384, 40, 0), 1000, arguments.repeat)
        lines += compare("mixture 1000000 x 32", mixture(1_000_000, 32, 512, 1), 256, arguments.repeat)
    print_table(("rows", "k", "who", "seconds", "inertia / yardstick", "times ours"), lines)


if __name__ == "__main__":
    main()
