"""Time and inertia beside the peers that are installed: scikit-learn, faiss, SuperKMeans, Spark MLlib, dask-ml.

Same float32 rows, same cores, one run in which all take turns, medians. Seeding counts for everyone; inertia is
computed by us for everyone. The yardstick is the inertia of scikit-learn's 25 Lloyd iterations from random rows. What
is timed is the way to 1.005 of it: who can stop earlier or later takes the first of a few settings that reaches it, or
else the last. Fits that label their rows, as scikit-learn's do, stand beside ours that label them; those that leave
centres alone, as faiss's, SuperKMeans's and Spark's do, beside ours with ``compute_labels=False``. Before every fit the
bench itself touches memory: a virtual machine gives idle pages back to its host, and the first fit to touch them again
would pay for all (up to 2 ms a MB; a fit of 0.14 s took 0.14 or 0.30, by what had run before it). Who takes minutes for
some k is left out for more clusters of the same rows, and who by the best speed of its fits would take longer than
``--budget``, but for the yardstick.
faiss-cpu, superkmeans and dask-ml are no dependencies: install them beside distclust to see their lines; what is
missing is named. Beside Spark MLlib and dask-ml stands distclust on that engine, which reads the rows from files.

``--write README.md`` puts the table between the marks of that file, after each dataset. Lines of datasets that are not
measured stay there if they are of this kind of machine and these versions; each dataset is measured in one run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _common import make_parser, mixture, print_machine, print_table, write_dataset
from _peers import PEERS as SYSTEMS
from sklearn.cluster import KMeans as ScikitLearn
from sklearn.exceptions import ConvergenceWarning

from distclust import KMeans
from distclust.engines.open import open_engine
from distclust.engines.protocol import Engine
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.nearest import assign_nearest, pack_centers

MINIPILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "minipile"

Fit = Callable[[np.ndarray, int], np.ndarray]
Settings = tuple[tuple[str, Fit], ...]
"""What a contestant may try, the cheapest first: how it is called, and the fit."""

YARDSTICK = "scikit-learn"
REACH = 1.005
SLOW, VERY_SLOW = 20, 100
"""Seconds from which a contestant's first fit counts like its others, and from which it is the only one."""
MARKS = ("<!-- performance: written by tests/bench/kmeans_peers.py -->", "<!-- end of performance -->")


@dataclass(frozen=True)
class Line:
    """One dataset and the numbers of clusters that it is clustered into."""

    name: str
    rows: Callable[[], np.ndarray]
    k: tuple[int, ...]


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


def ours(rtol: float, *, labels: bool) -> Fit:
    """Return a fit on threads, with the defaults but for the gain that ends it, and with labels or without."""
    return lambda X, k: KMeans(k, rtol=rtol, random_state=0, compute_labels=labels).fit(X).cluster_centers_


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


def superkmeans(iterations: int) -> Fit:
    """Return a fit of SuperKMeans with at most so many iterations and its early end."""

    def fit(X: np.ndarray, k: int) -> np.ndarray:
        from superkmeans import SuperKMeans

        options = {"n_threads": 2, "sampling_fraction": 1.0, "early_termination": True, "hierarchical": False}
        return np.asarray(SuperKMeans(k, X.shape[1], iters=iterations, **options).train(X))

    return fit


LABELLED, CENTRES = "distclust", "distclust, centres only"
OURS: dict[str, Settings] = {
    name: tuple((f"rtol={rtol:g}", ours(rtol, labels=name == LABELLED)) for rtol in (5e-2, 2e-2, 1e-2, 1e-3, 4e-4))
    for name in (LABELLED, CENTRES)
}
BESIDE_CENTRES = {"faiss", "SuperKMeans", "Spark MLlib", CENTRES}
"""Whose fits leave no labels."""

PEERS: dict[str, tuple[str, Settings]] = {
    YARDSTICK: ("sklearn", (("25 iterations", scikit_learn),)),
    "faiss": ("faiss", (("25 iterations", faiss_25),)),
    "SuperKMeans": ("superkmeans", tuple((f"{count} iterations", superkmeans(count)) for count in (5, 7, 9, 12, 25))),
}

LINES = {
    "minipile": Line("embeddings 64 900 x 384", embeddings, (200, 1000)),
    "low-rank": Line("low rank 500 000 x 384", lambda: low_rank(500_000, 384, 40, 0), (1000, 4096)),
    "mixture": Line("mixture 1 000 000 x 32", lambda: mixture(1_000_000, 32, 512, 1), (256,)),
    "wide": Line("low rank 200 000 x 768", lambda: low_rank(200_000, 768, 60, 1), (4096,)),
    "smoke": Line("low rank 2 000 x 32", lambda: low_rank(2000, 32, 8, 0), (20,)),
}


@contextlib.contextmanager
def on_engine(name: str, X: np.ndarray) -> Iterator[Fit]:
    """Give a fit on an engine, to rows in files."""
    with tempfile.TemporaryDirectory(prefix="distclust-bench-") as directory:
        data = write_dataset(X, Path(directory), 8)
        engine: Engine = open_engine(name)
        try:

            def fit(X: np.ndarray, k: int) -> np.ndarray:
                model = KMeans(k, rtol=1e-3, random_state=0, engine=engine)
                return model.fit(str(data), column="embedding").cluster_centers_

            yield fit
        finally:
            engine.close()


def exact_inertia(X: np.ndarray, centers: np.ndarray) -> float:
    """Return the sum of squared distances to the nearest centres, distances in float64."""
    centers = np.ascontiguousarray(centers, dtype=np.float32)
    labels, _ = assign_nearest(X, pack_centers(centers))
    return float(row_sqdist(X, centers, labels).sum())


def contestants(X: np.ndarray, wanted: set[str], stack: ExitStack) -> dict[str, Settings]:
    """Return who takes part, the yardstick first; name those that are wanted and not installed."""
    fits: dict[str, Settings] = {YARDSTICK: PEERS[YARDSTICK][1], LABELLED: OURS[LABELLED]}
    systems = {peer: (package, (("25 iterations", fit),)) for peer, (package, fit) in SYSTEMS.items()}
    for peer, (package, settings) in {**PEERS, **systems}.items():
        if peer in SYSTEMS:  # ours follow others: none finds the memory that an equal fit has just given back
            fits.setdefault(CENTRES, OURS[CENTRES])
        if wanted and package not in wanted:
            continue
        if importlib.util.find_spec(package) is None:
            print(f"{peer}: package {package!r} is not installed, left out")
            continue
        if peer in SYSTEMS:
            engine = "spark" if package == "pyspark" else "dask"
            fits[f"distclust on {engine}"] = (("rtol=0.001", stack.enter_context(on_engine(engine, X))),)
        fits[peer] = settings
    return fits


def timed(name: str, fit: Fit, X: np.ndarray, k: int) -> tuple[float, np.ndarray]:
    """Return the seconds of a fit, and its centres."""
    np.ones(4 * X.nbytes, np.uint8)  # pages that the host has to find again before anyone is timed
    started = time.perf_counter()
    centers = fit(X, k)
    seconds = time.perf_counter() - started
    print(f"  {name}: {seconds:.2f} s", flush=True)
    return seconds, centers


def compare(
    line: Line, repeat: int, wanted: set[str], budget: float, speeds: dict[str, float]
) -> Iterator[tuple[object, ...]]:
    """Yield the lines of one dataset: all take turns, so that what else runs on the machine hits all of them.

    ``speeds`` has the fewest seconds for each product of n, k and d of the contestants so far.
    """
    X = line.rows()
    with ExitStack() as stack:
        fits = contestants(X, wanted, stack)
        left_out: set[str] = set()
        for k in line.k:
            chosen: dict[str, tuple[str, Fit]] = {}
            seconds: dict[str, list[float]] = {}
            inertia: dict[str, float] = {}
            # The first turn looks for settings. It also compiles, starts engines, hands rows over: the slow alone are
            # timed by it.
            for who, settings in fits.items():
                if who in left_out:
                    print(f"{who} is left out: fewer clusters took it over {VERY_SLOW} s")
                    continue
                expected = speeds.get(who, 0.0) * X.size * k
                if expected > budget and who != YARDSTICK:
                    print(f"{who} is left out: it would take about {expected:.0f} s")
                    continue
                for setting, fit in settings:
                    took, centers = timed(f"{line.name}, k = {k}: {who}, {setting}", fit, X, k)
                    chosen[who], seconds[who] = (setting, fit), [took]
                    inertia[who] = exact_inertia(X, centers)
                    speeds[who] = min(speeds.get(who, float("inf")), took / (X.size * k))
                    if inertia[who] <= REACH * inertia[YARDSTICK]:
                        break
            left_out |= {who for who, times in seconds.items() if times[0] > VERY_SLOW and who != YARDSTICK}
            for turn in range(1, repeat + 1):
                for who, (setting, fit) in chosen.items():
                    first = seconds[who][0]
                    if first <= SLOW or (first <= VERY_SLOW and turn < repeat):
                        seconds[who].append(timed(f"{line.name}, k = {k}: {who}, {setting}", fit, X, k)[0])
            medians = {
                who: statistics.median(times[1:] if len(times) > repeat else times) for who, times in seconds.items()
            }
            for who, median in medians.items():
                share = inertia[who] / inertia[YARDSTICK]
                own = medians.get(CENTRES if who in BESIDE_CENTRES else LABELLED, medians[LABELLED])
                more = f"{median:.2f}", f"{share:.4f}", f"{median / own:.1f}"
                yield line.name, k, who, chosen[who][0], *more


def stays(path: Path, machine: str, names: set[object]) -> list[tuple[object, ...]]:
    """Return the lines of a file's table that are of this machine, but of other datasets than the named ones."""
    old = path.read_text().partition(MARKS[0])[2].partition(MARKS[1])[0].strip().splitlines()
    if not old or _lasting(old[0]) != _lasting(machine):
        return []
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in old if line.startswith("|")]
    return [row for row in rows[2:] if row[0] not in names]


def _lasting(machine: str) -> str:
    """Return what `print_machine` prints without date and load."""
    return re.sub(r"^[\d-]+, |, load [\d.]+", "", machine)


def write_between_marks(path: Path, text: str) -> None:
    """Put a text between the marks of a file."""
    old = path.read_text()
    new = re.sub(
        f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", lambda _: f"{MARKS[0]}\n{text}\n{MARKS[1]}", old, flags=re.S
    )
    if new == old and text not in old:
        raise SystemExit(f"{path} has no marks {MARKS[0]} and {MARKS[1]}")
    path.write_text(new)


def printed(table: list[tuple[object, ...]], packages: list[str], beside: Path | None) -> str:
    """Return the machine's line and the table, with what stays of the one in a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print_machine(*packages)
        machine = text.getvalue().strip()
        others = [] if beside is None else stays(beside, machine, {row[0] for row in table})
        order = [line.name for line in LINES.values()]
        print()
        print_table(
            ("rows", "k", "who", "setting", "seconds", "inertia / yardstick", "times ours"),
            sorted([*table, *others], key=lambda row: order.index(str(row[0]))),
        )
    return text.getvalue().strip()


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--line", action="append", choices=sorted(LINES), help="dataset; default: all but smoke")
    parser.add_argument("--peer", action="append", default=[], help="package of a peer; default: all installed ones")
    parser.add_argument("--write", type=Path, help="file whose performance table is replaced")
    parser.add_argument("--budget", type=float, default=float("inf"), help="most seconds of a peer's fit")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    names = ["smoke"] if arguments.smoke else arguments.line or [name for name in LINES if name != "smoke"]
    wanted = {"sklearn"} if arguments.smoke else {"sklearn", *arguments.peer} if arguments.peer else set()
    repeat = 1 if arguments.smoke else arguments.repeat
    packages = [
        name
        for name, package in (("scikit-learn", "sklearn"), ("faiss-cpu", "faiss"), ("superkmeans", "superkmeans"))
        if importlib.util.find_spec(package) is not None
    ]
    table: list[tuple[object, ...]] = []
    speeds: dict[str, float] = {}
    for name in names:
        table += compare(LINES[name], repeat, wanted, arguments.budget, speeds)
        text = printed(table, packages, arguments.write)
        if arguments.write:
            write_between_marks(arguments.write, text)
    print(text)


if __name__ == "__main__":
    main()
