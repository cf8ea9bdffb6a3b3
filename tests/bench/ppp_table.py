"""PPP on labelled sets beside scikit-learn's Gaussian mixture with k chosen by BIC; and one large run on every engine.

The peer tries k from 1 to twice the true number of classes, five restarts each, full covariances, on the rows as they
are. Seconds are of processor time, since other work on the machine would count in wall time; ours were compiled before.
``--large N`` runs PPP on N x 16 rows on local threads, Dask and Spark instead, and compares the results.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _common import mixture, print_machine, print_table, write_dataset
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from distclust import PPP
from distclust.config import PPPJob
from distclust.workflows.ppp import run_ppp

LABELLED = Path(__file__).resolve().parents[3] / "shared" / "data" / "labelled"
SETS = ("s1", "s2", "s3", "s4", "a1", "a2", "a3", "unbalance", "iris", "wine", "ecoli", "yeast")
GAUSSIAN_LIKE = SETS[:10]
RESTARTS = 5


def labelled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and classes of a set; made-up ones where the sets are not there."""
    path = LABELLED / f"{name}.parquet"
    if not path.exists():
        y = np.arange(900) % 3
        return np.random.default_rng(0).normal(size=(900, 2)) + y[:, None] * 6.0, y
    table = pq.read_table(path)
    columns = [table[c].to_numpy() for c in table.column_names if c.startswith("x")]
    return np.stack(columns, axis=1).astype(float), table["label"].to_numpy()


def peer(X: np.ndarray, most: int) -> np.ndarray:
    """Return the labels of the mixture of lowest BIC."""
    fits = [GaussianMixture(k, n_init=RESTARTS, random_state=0).fit(X) for k in range(1, most + 1)]
    return min(fits, key=lambda fit: fit.bic(X)).predict(X)


def timed(labels_of: object, *arguments: object) -> tuple[np.ndarray, float]:
    """Return labels and seconds of processor time."""
    started = time.process_time()
    labels = labels_of(*arguments)  # type: ignore[operator]
    return labels, time.process_time() - started


def table(names: tuple[str, ...]) -> None:
    """Print k, adjusted Rand index and time for each set, and the means."""
    PPP(engine="local[1]").fit(np.random.default_rng(0).normal(size=(500, 3)))  # compiles
    rows, scores = [], []
    for name in names:
        X, y = labelled(name)
        true = len(np.unique(y))
        ours, seconds = timed(lambda X: PPP().fit(X).labels_, X)
        theirs, peer_seconds = timed(peer, X, 2 * true)
        found = [adjusted_rand_score(y, labels) for labels in (ours, theirs)]
        scores.append((*found, seconds, peer_seconds))
        ks = [len(np.unique(labels)) for labels in (ours, theirs)]
        rows.append((name, len(X), X.shape[1], true, *ks, *found, seconds, peer_seconds, peer_seconds / seconds))
        print(f"{name}: k {ks[0]} of {true}, ARI {found[0]:.3f} against {found[1]:.3f}", flush=True)
    means = np.mean(scores, axis=0)
    rows.append(("mean", "", "", "", "", "", *means[:2], *means[2:], float(means[3] / means[2])))
    header = ("set", "rows", "d", "true k", "PPP k", "GMM k", "PPP ARI", "GMM ARI", "PPP s", "GMM s", "ratio")
    print_table(header, rows)
    near = sum(abs(row[4] - row[3]) <= 1 for row in rows[:-1] if row[0] in GAUSSIAN_LIKE)
    print(f"k within 1 of the truth on {near} of {sum(name in GAUSSIAN_LIKE for name in names)} Gaussian-like sets")


def large(n_rows: int, engines: tuple[str, ...]) -> None:
    """Print time, passes and digests of one run on every engine; fails where they differ."""
    rows, seen = [], set()
    with tempfile.TemporaryDirectory() as directory:
        data = write_dataset(mixture(n_rows, 16, 12, 3, spread=0.35), Path(directory) / "data", 8, row_group=100_000)
        for engine in engines:
            output = Path(directory) / engine.replace("[", "-").strip("]")
            outcome = run_ppp(PPPJob(data=str(data), column="embedding", output=str(output), engine=engine))
            found, seconds = outcome.summary["ppp"], outcome.summary["seconds"]
            seen.add(tuple(outcome.digests.values()))
            passes = 4 + found["levels"] + 1 + found["passes"] + found["rounds"] + 1
            rows.append(
                (engine, n_rows, outcome.summary["clusters"], passes, seconds["total"], outcome.digests["labels"])
            )
            print(f"{engine}: {seconds}", flush=True)
    print_table(("engine", "rows", "clusters", "passes", "seconds", "labels"), rows)
    assert len(seen) == 1, "engines gave other results"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two small sets, and 4000 rows on local threads")
    parser.add_argument("--sets", nargs="+", default=SETS, help="names of labelled sets")
    parser.add_argument("--large", type=int, default=0, help="rows of the run on every engine")
    parser.add_argument("--engines", nargs="+", default=("local", "dask", "spark"))
    given = parser.parse_args()
    print_machine("scikit-learn")
    if given.large:
        large(given.large, tuple(given.engines))
    else:
        table(("iris", "wine") if given.smoke else tuple(given.sets))
    if given.smoke:
        large(4000, ("local[1]", "local[2]"))
