"""A Lloyd iteration beside scikit-learn's: same rows, same first centres, same cores, in turn.

Seconds of one iteration: (25 iterations less one) / 24, so that set-up, first pass and final assignment cancel. Twice
for us: as users run it, where bounds skip distances once few rows move, and with ``algorithm="lloyd"``, which computes
every distance in every pass. The centres are equal bits. The goals: 3x at 200k x 128 and 100k x 384, k = 1000; 2x at
1M x 16, k = 100.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from _common import median_seconds, mixture, parse_arguments, print_machine, print_table
from sklearn.cluster import KMeans as Peer
from sklearn.exceptions import ConvergenceWarning

from distclust import KMeans

SHAPES = ((200_000, 128, 1000, 3.0), (100_000, 384, 1000, 3.0), (1_000_000, 16, 100, 2.0))
SMOKE = ((3_000, 32, 70, 0.0),)
ITERATIONS = 25

Fit = Callable[[np.ndarray, np.ndarray, int], float]


def ours(X: np.ndarray, init: np.ndarray, iterations: int) -> float:
    """Run ``iterations`` passes; return the inertia."""
    return KMeans(len(init), init=init, max_iter=iterations, tol=0, rtol=0).fit(X).inertia_


def plain(X: np.ndarray, init: np.ndarray, iterations: int) -> float:
    """Run ``iterations`` passes that compute every distance; return the inertia."""
    return KMeans(len(init), init=init, max_iter=iterations, tol=0, rtol=0, algorithm="lloyd").fit(X).inertia_


def peer(X: np.ndarray, init: np.ndarray, iterations: int) -> float:
    """Run scikit-learn's Lloyd for ``iterations`` passes; return the inertia."""
    model = Peer(len(init), init=init, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    return model.fit(X).inertia_


def iteration_seconds(fit: Fit, X: np.ndarray, init: np.ndarray, repeat: int) -> float:
    """Return the seconds of one later iteration."""
    long = median_seconds(lambda: fit(X, init, ITERATIONS), repeat)
    short = median_seconds(lambda: fit(X, init, 1), repeat)
    return max(long - short, 1e-9) / (ITERATIONS - 1)


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print_machine("scikit-learn")
    table = []
    for n, d, k, goal in SMOKE if arguments.smoke else SHAPES:
        X = mixture(n, d, 2 * k, seed=1)
        init = X[np.random.default_rng(0).choice(n, k, replace=False)].copy()
        inertia = [fit(X, init, ITERATIONS) for fit in (ours, plain, peer)]
        if inertia[0] != inertia[1]:
            raise SystemExit("bounds changed the result")
        ms = [iteration_seconds(fit, X, init, arguments.repeat) * 1e3 for fit in (ours, plain, peer)]
        quality = f"{inertia[0] / inertia[2]:.6f}"
        table.append((f"{n} x {d}", k, *ms, ms[2] / ms[0], ms[2] / ms[1], goal, quality))
    print_table(
        (
            "rows", "k", "distclust ms", "every distance ms", "scikit-learn ms", "ratio", "ratio, every distance",
            "goal", "inertia ours / peer",
        ),
        table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
