"""A Lloyd iteration beside scikit-learn's, same rows, same first centres, same cores, in turn.

Seconds of one iteration: (six iterations less one iteration) / 5, so that set-up, first pass and final
assignment cancel. The goals: 3x at 200k x 128 and 100k x 384, k = 1000; 2x at 1M x 16, k = 100.
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
SMOKE = ((3_000, 32, 20, 0.0),)
MORE = 5

Fit = Callable[[np.ndarray, np.ndarray, int], float]


def ours(X: np.ndarray, init: np.ndarray, iterations: int) -> float:
    """Run ``iterations`` passes; return the inertia."""
    return KMeans(len(init), init=init, max_iter=iterations, tol=0, rtol=0, random_state=0).fit(X).inertia_


def peer(X: np.ndarray, init: np.ndarray, iterations: int) -> float:
    """Run scikit-learn's Lloyd for ``iterations`` passes; return the inertia."""
    model = Peer(len(init), init=init, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd", random_state=0)
    return model.fit(X).inertia_


def iteration_seconds(fit: Fit, X: np.ndarray, init: np.ndarray, repeat: int) -> float:
    """Return the seconds of one later iteration."""
    long = median_seconds(lambda: fit(X, init, 1 + MORE), repeat)
    short = median_seconds(lambda: fit(X, init, 1), repeat)
    return max(long - short, 1e-9) / MORE


def main() -> None:
    """Print the table."""
    arguments = parse_arguments(__doc__ or "")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print_machine("scikit-learn")
    rows, fits = [], {"ours": ours, "peer": peer}
    for n, d, k, goal in SMOKE if arguments.smoke else SHAPES:
        X = mixture(n, d, 2 * k, seed=1)
        init = X[np.random.default_rng(0).choice(n, k, replace=False)].copy()
        quality = ours(X, init, 1 + MORE) / peer(X, init, 1 + MORE)
        seconds = {name: iteration_seconds(fit, X, init, arguments.repeat) for name, fit in fits.items()}
        ratio = seconds["peer"] / seconds["ours"]
        rows.append((f"{n} x {d}", k, seconds["ours"] * 1e3, seconds["peer"] * 1e3, ratio, goal, f"{quality:.6f}"))
    header = ("rows", "k", "distclust ms", "scikit-learn ms", "ratio", "goal", "inertia ours / peer")
    print_table(header, rows)


if __name__ == "__main__":
    main()
