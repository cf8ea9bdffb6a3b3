"""k-medoids beside the Rust package `kmedoids`, and against the original PAM.

One thread each, processor time, the same float32 matrix and the same random medoids to begin with: both then take the
same swaps. `kmedoids` is no dependency: install it beside distclust to see its lines. PAM's SWAP is one measured pass
times the number of passes, which FastPAM1, that takes the same swaps, tells.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _common import mixture, parse_arguments, print_machine, print_table

from distclust.algorithms.medoid_seeds import INITS, first_medoids
from distclust.algorithms.medoids import MedoidSolution, solve_matrix
from distclust.kernels.dissimilarity import dissimilarity, table
from distclust.kernels.medoids import medoid_state, original_pam_swap

PUBLISHED = {100: 458, 200: 1191}
"""SWAP of FasterPAM against PAM by k: Schubert and Rousseeuw, 2021."""


def cpu_seconds(run: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Return the least processor time of some calls, and what the last one returned."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        result = run()
        times.append(time.process_time() - started)
    return min(times), result


def matrix_of(n: int) -> np.ndarray:
    """Return Euclidean distances of a mixture in 32 dimensions."""
    rows = mixture(n, 32, 64, 0)
    return table(dissimilarity("euclidean"), rows, rows)


def rust_fasterpam(matrix: np.ndarray, start: np.ndarray) -> Any:
    """Run the peer on one thread."""
    import kmedoids

    return kmedoids.fasterpam(matrix, start.astype(np.uint64), max_iter=100, n_cpu=1)


def beside_rust(n: int, ks: list[int], repeat: int) -> list[tuple[object, ...]]:
    """Return the lines of one matrix."""
    matrix = matrix_of(n)
    lines: list[tuple[object, ...]] = []
    for k in ks:
        start = first_medoids(matrix, k, "random", seed=k)
        seconds, found = cpu_seconds(partial(solve_matrix, matrix, k, init=start), repeat)
        peer: tuple[object, ...] = ("-", "-", "-")
        if importlib.util.find_spec("kmedoids") is not None:
            theirs, other = cpu_seconds(partial(rust_fasterpam, matrix, start), repeat)
            peer = (theirs, theirs / seconds, f"{found.loss / other.loss:.6f}, {found.n_swaps} / {other.n_swap}")
        lines.append((n, k, seconds, *peer))
    return lines


def against_pam(n: int, ks: list[int], repeat: int) -> list[tuple[object, ...]]:
    """Return times of SWAP from random medoids."""
    matrix = matrix_of(n)
    lines: list[tuple[object, ...]] = []
    for k in ks:
        start = first_medoids(matrix, k, "random", seed=k)
        one_pass, _ = cpu_seconds(partial(original_pam_swap, matrix, medoid_state(start, matrix[start])), 1)
        fast, elder = cpu_seconds(partial(solve_matrix, matrix, k, method="fastpam1", init=start, max_iter=10**6), 1)
        ours, found = cpu_seconds(partial(solve_matrix, matrix, k, init=start), repeat)
        whole = one_pass * elder.n_iter
        lines.append((n, k, whole, fast, ours, whole / ours, PUBLISHED.get(k, "-"), found.loss / elder.loss))
    return lines


def by_start(n: int, ks: list[int], repeat: int) -> list[tuple[object, ...]]:
    """Return what the choice of the first medoids costs and brings."""
    matrix = matrix_of(n)
    lines: list[tuple[object, ...]] = []
    for k in ks:
        found: dict[str, tuple[float, float, MedoidSolution]] = {}
        for init in INITS:
            seeding, start = cpu_seconds(partial(first_medoids, matrix, k, init, seed=1), repeat)
            swapping, solution = cpu_seconds(partial(solve_matrix, matrix, k, init=start), repeat)
            found[init] = (seeding, swapping, solution)
        best = min(solution.loss for _, _, solution in found.values())
        for init, (seeding, swapping, solution) in found.items():
            lines.append((n, k, init, seeding, swapping, solution.n_swaps, f"{solution.loss / best:.5f}"))
    return lines


def main() -> None:
    """Print the tables."""
    arguments = parse_arguments(__doc__ or "")
    peer = importlib.util.find_spec("kmedoids")
    print_machine(*(["kmedoids"] if peer else []))
    if not peer:
        print("package 'kmedoids' is not installed, left out")
    smoke, repeat = arguments.smoke, 1 if arguments.smoke else arguments.repeat
    sizes, ks = ([300], [5, 20]) if smoke else ([5_000, 10_000], [10, 100, 200])
    for measure in (beside_rust, against_pam):
        measure(50, [2], 1)  # compiles
    header = ("rows", "k", "distclust, s", "kmedoids, s", "times ours", "loss / theirs, swaps / theirs")
    print_table(header, [line for size in sizes for line in beside_rust(size, ks, repeat)])
    header = ("rows", "k", "PAM, s", "FastPAM1, s", "FasterPAM, s", "PAM / FasterPAM", "published", "loss / PAM's")
    print_table(header, against_pam(300 if smoke else 2_500, ks if smoke else [100, 200], repeat))
    header = ("rows", "k", "first medoids", "choosing, s", "swapping, s", "swaps", "loss / best")
    print_table(header, by_start(300 if smoke else 10_000, ks, repeat))


if __name__ == "__main__":
    main()
