"""What a fit costs as rows and clusters grow: seconds of `KMeans(k).fit(X)` with its defaults, and fitted exponents.

Two series, one over n with k fixed and one over k with n fixed, float32 rows of a mixture of Gaussians. Nothing but k
is given, so the defaults choose samples, bounds and whatever else serves a size: the series shows what users get. An
exponent is the slope of a least-squares line through the logarithms; one series is no law outside its range. A series
ends before the size that would, by the last two, take longer than ``--budget``; from 20 000 clusters on the defaults
work in two levels, of which sizes before that say nothing.

Passes are rows looked at in all iterations over n: a pass over a sample counts as its share.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from _common import make_parser, mixture, print_machine, print_table
from matplotlib.figure import Figure

from distclust import KMeans
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.two_level import is_two_level

WIDTH = 32
COMPONENTS = 4096

N_SERIES = (250_000, 500_000, 1_000_000, 2_000_000, 4_000_000)
N_SERIES_K = 256
K_SERIES = (1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000)
K_SERIES_N = 2_000_000

SMOKE_N, SMOKE_N_K = (2_000, 4_000, 8_000), 8
SMOKE_K, SMOKE_K_N = (8, 16, 32), 4_000

BUDGET_SECONDS = 300.0
"""Most seconds of one fit: the whole benchmark ends within a quarter of an hour or so."""

# As in the plots of runs: text as text, and the same bytes for the same figures.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "distclust"}


@dataclass(frozen=True)
class Cost:
    """One size.

    Attributes
    ----------
    n, k : int
    seconds : float
        Wall time, median of the repeats.
    cpu : float
        CPU time of the process, all threads; what counts on a machine that does something else, too.
    passes : float
    inertia : float
    """

    n: int
    k: int
    seconds: float
    cpu: float
    passes: float
    inertia: float


def measure(X: np.ndarray, k: int, repeat: int) -> Cost:
    """Fit and time."""
    seconds, cpu = [], []
    for _ in range(repeat):
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        model = KMeans(k, random_state=0).fit(X)
        seconds.append(time.perf_counter() - wall_before)
        cpu.append(time.process_time() - cpu_before)
    passes = sum(entry["rows"] for entry in model.history_) / len(X)
    return Cost(len(X), k, statistics.median(seconds), statistics.median(cpu), passes, model.inertia_)


def two_levels(k: int) -> bool:
    """Tell whether the defaults work in two levels."""
    return is_two_level(KMeansConfig(n_clusters=k))


def series(
    sizes: Sequence[int], measured: Callable[[int], Cost], law: Callable[[int], object], budget: float
) -> Iterator[Cost]:
    """Measure size after size until the next would exceed the budget, as far as sizes of its law tell."""
    done: list[Cost] = []
    for size in sizes:
        if len(done) > 1 and law(sizes[len(done) - 2]) == law(size):
            before, last = done[-2:]
            growth = np.log(last.seconds / before.seconds) / np.log(sizes[len(done) - 1] / sizes[len(done) - 2])
            expected = last.seconds * (size / sizes[len(done) - 1]) ** max(growth, 0.0)
            if expected > budget:
                print(f"  {size} would take about {expected:.0f} s, more than {budget:.0f} s: the series ends here")
                return
        done.append(measured(size))
        print(f"  n = {done[-1].n}, k = {done[-1].k}: {done[-1].seconds:.1f} s", flush=True)
        yield done[-1]


def power_law(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return exponent and factor of ``value = factor * size ** exponent``, by least squares of the logarithms."""
    exponent, intercept = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(exponent), float(np.exp(intercept))


def draw(panels: dict[str, tuple[list[int], list[Cost]]]) -> bytes:
    """Draw each series with its fitted line, both axes logarithmic; return SVG."""
    figure = Figure(figsize=(5.0 * len(panels), 3.8), layout="constrained")
    for axes, (name, (sizes, costs)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for label, values in (("wall", [c.seconds for c in costs]), ("CPU", [c.cpu for c in costs])):
            exponent, factor = power_law(sizes, values)
            (points,) = axes.loglog(sizes, values, "o", markersize=5)
            line = factor * np.asarray(sizes, float) ** exponent
            axes.loglog(sizes, line, color=points.get_color(), label=f"{label} ~ {name[0]}^{exponent:.2f}")
        axes.set(xlabel=name[0], ylabel="seconds of a fit", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    out = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def main() -> None:
    """Print the tables and exponents, write the plot."""
    parser = make_parser(__doc__ or "")
    parser.set_defaults(repeat=1)
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="most seconds of one fit")
    parser.add_argument("--plot", default="kmeans_cost.svg", help="where the plot goes; --smoke draws it aside")
    arguments = parser.parse_args()
    print_machine("scikit-learn", "matplotlib")
    smoke = arguments.smoke
    ns, n_k = (SMOKE_N, SMOKE_N_K) if smoke else (N_SERIES, N_SERIES_K)
    ks, k_n = (SMOKE_K, SMOKE_K_N) if smoke else (K_SERIES, K_SERIES_N)
    X = mixture(max(*ns, k_n), WIDTH, COMPONENTS, 0)
    KMeans(n_k, random_state=0).fit(X[: ns[0]])  # compiles, or loads what was compiled
    plans: dict[str, tuple[Sequence[int], Callable[[int], Cost], Callable[[int], object]]] = {
        f"n, with k = {n_k}": (ns, lambda n: measure(X[:n], n_k, arguments.repeat), lambda _: None),
        f"k, with n = {k_n}": (ks, lambda k: measure(X[:k_n], k, arguments.repeat), two_levels),
    }
    panels = {}
    for name, (sizes, measured, law) in plans.items():
        print(f"seconds against {name}")
        costs = list(series(sizes, measured, law, arguments.budget))
        panels[name] = (list(sizes[: len(costs)]), costs)
    for name, (sizes, costs) in panels.items():
        print(f"\nAgainst {name} (d = {WIDTH})")
        print_table(
            ("n", "k", "seconds", "CPU seconds", "passes", "inertia a row", "seconds / (n k), ns"),
            [(c.n, c.k, c.seconds, c.cpu, c.passes, c.inertia / c.n, c.seconds / (c.n * c.k) * 1e9) for c in costs],
        )
        for label, values in (("seconds", [c.seconds for c in costs]), ("CPU seconds", [c.cpu for c in costs])):
            exponent, factor = power_law(sizes, values)
            print(f"{label} ~ {factor:.3g} * {name[0]}^{exponent:.2f}")
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    path = Path(tempfile.gettempdir()) / f"kmeans_cost-{os.getpid()}.svg" if smoke else Path(arguments.plot)
    path.write_bytes(draw(panels))
    print(f"plot: {path}, {path.stat().st_size} bytes")
    if smoke:
        path.unlink()


if __name__ == "__main__":
    main()
