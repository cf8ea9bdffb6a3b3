"""k-means with very many clusters, in two levels: no pass compares every row with every centre.

About sqrt(k) cells are found on a sample; rows are grouped by cell (`distclust.ops.exchange`); each group is clustered
on one worker, with a share of k in proportion to its mass; passes over all rows then let rows cross the borders of
their cells. Centres, sums and rows lie in files that are committed, so each stage is its own checkpoint, and no task
sends an array of all centres.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from distclust.algorithms.apportion import apportion
from distclust.algorithms.groups import GROUP_PASSES, GroupStep, GroupValue, RowsByCell, group_rows, row_records
from distclust.algorithms.kmeans import (
    Checkpointed,
    KMeansResult,
    fit_kmeans,
    too_few_distinct,
)
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.lloyd import Iteration
from distclust.algorithms.refining import NEIGHBORS, MeanStep, NeighborStep, RefineValue, SumStep, sum_records
from distclust.algorithms.vectors import block_centers, block_parts, stored_vectors
from distclust.artifacts.codec import decode_object, encode
from distclust.artifacts.commit import Commit, forget, read_commits
from distclust.data.storage import Storage
from distclust.engines.events import IterationEnded, StageEnded, StageStarted
from distclust.engines.protocol import Engine, Step
from distclust.engines.sampled import ALL_ROWS, SampledEngine
from distclust.errors import DataError, UsageError
from distclust.kernels.lloyd import row_sqnorm
from distclust.ops.centers import CenterSet, store_centers
from distclust.ops.exchange import BUCKETS, Exchange, GatherStep, gather, require_seen, scatter, workspace
from distclust.ops.profile import PreparedData
from distclust.ops.routing import RoutedCenters, exact_labels
from distclust.ops.sample import hash_sample
from distclust.ops.stored import StoredArray, read_stored, store_array
from distclust.stats.fixed import FixedPair

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

TWO_LEVEL_CLUSTERS = 20_000
"""``strategy="auto"`` takes two levels from so many clusters on: from there on they take less time (``DESIGN.md``)."""

EXACT_CLUSTERS = 50_000
"""Up to so many clusters final labels are those of the nearest of all centres: one pass of n * k distances."""

ROWS_PER_CELL = 256
LEAST_CELL_ROWS = 20_000
CELL_PASSES = 25
CELL_RTOL = 1e-3
"""Cells come from a sample, and need not be better than that: rows cross their borders later."""

REFINEMENTS = 6
REFINE_RTOL = 2e-3
"""Passes over all rows end when one gains less."""
FIRST_PROBES = 16
LIST_PROBES = 16
"""Cells that neighbours of a centre are looked for in."""
LABEL_PROBES = 16
JUDGED_ROWS = 1024
"""Rows whose labels are compared with the exact ones, to say how many agree."""

WORK = "two-level"
"""Directory of the stages' files, and group of their commits; see `clear_work`."""

_ROUNDS = 8


class Stored(Checkpointed, Protocol):
    """What `fit_two_level` needs of a run directory."""

    storage: Storage


@dataclass(frozen=True)
class TwoLevelResult(KMeansResult):
    """Centres that were found, in cells.

    Attributes
    ----------
    cells : (m, d) float32 or float64
        Centres of the cells, in the coordinates of the source.
    parents : (k,) int32
        Cell of each centre, ascending.
    rule : RoutedCenters or None
        How rows are labelled; None for the nearest of all centres.
    exact_share : float
        Share of a sample of rows whose label is that of the nearest centre; 1.0 without a rule.
    """

    cells: Rows
    parents: npt.NDArray[np.int32]
    rule: RoutedCenters | None
    exact_share: float


def is_two_level(config: KMeansConfig) -> bool:
    """Tell which way a fit goes."""
    if config.strategy == "auto":
        return config.n_clusters >= TWO_LEVEL_CLUSTERS and isinstance(config.init, str) and config.n_init == 1
    return config.strategy == "two-level"


def n_cells(n_clusters: int) -> int:
    """Return how many cells there are for so many clusters."""
    return max(1, math.isqrt(n_clusters))


def fit_two_level(
    engine: Engine,
    data: PreparedData,
    config: KMeansConfig,
    run: Stored | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> TwoLevelResult:
    """Cluster the rows of a prepared dataset into very many clusters.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        See `distclust.ops.profile.prepare`, with the metric of ``config``.
    config : KMeansConfig
        ``max_iter``, ``tol`` and ``rtol`` bound the search for cells; inside groups ``max_iter`` does.
    run : RunDirectory, optional
        Where the files of the stages go, and come from if there are some; scratch, without one.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints while cells are searched.

    Raises
    ------
    DataError
        Fewer distinct rows than clusters, unless ``config.allow_fewer``.
    UsageError
        Centres given as ``init``, or several initialisations; no directory that driver and workers see.
    """
    n, k = data.moments.n_rows, config.n_clusters
    if not isinstance(config.init, str) or config.n_init > 1:
        raise UsageError(
            "two-level k-means takes neither centres as init nor n_init above 1.",
            do="Use strategy='flat' (--strategy flat), or leave them out.",
        )
    if n < k and not config.allow_fewer:
        raise DataError(
            f"n_samples={n} should be >= n_clusters={k}.",
            where=data.source.describe_place(),
            do=f"Ask for at most {n} clusters, or allow fewer.",
        )
    with workspace(engine, None if run is None else run.storage) as storage:
        cells = _find_cells(engine, data, config, run, checkpoint_seconds)
        return _Fit(engine, data, config, storage, cells).result(keep=run is not None)


def label_rule(cells: CenterSet, starts: Ints, centers: CenterSet) -> RoutedCenters | None:
    """Return how rows are labelled with centres in cells; None for the nearest of all.

    Parameters
    ----------
    cells : CenterSet
    starts : (m + 1,) int64
        First centre of each cell, and k.
    centers : CenterSet
    """
    return None if len(centers) <= EXACT_CLUSTERS else RoutedCenters(cells, starts, centers, LABEL_PROBES)


def clear_work(storage: Storage) -> None:
    """Remove the files of the stages from a run directory: once labels and model are there, nobody needs them."""
    forget(storage, WORK)


def _find_cells(
    engine: Engine, data: PreparedData, config: KMeansConfig, run: Stored | None, checkpoint_seconds: float
) -> KMeansResult:
    """Cluster a sample of the rows into cells."""
    n, m = data.moments.n_rows, n_cells(config.n_clusters)
    wanted = max(LEAST_CELL_ROWS, ROWS_PER_CELL * m)
    settings = replace(
        config,
        n_clusters=m,
        max_iter=min(config.max_iter, CELL_PASSES),
        rtol=max(config.rtol, CELL_RTOL),
        allow_fewer=True,
        fit_mode="full",
        strategy="flat",
    )
    if wanted >= n:
        return fit_kmeans(engine, data, settings, run, checkpoint_seconds=checkpoint_seconds)
    part = replace(data, moments=replace(data.moments, n_rows=wanted, mass=data.moments.mass * (wanted / n)))
    sampled = SampledEngine(engine, ALL_ROWS * wanted // n)
    return fit_kmeans(sampled, part, settings, run, checkpoint_seconds=checkpoint_seconds)


@dataclass(frozen=True)
class _Stage:
    """Centres that a stage left in files, ordered by group; the record of a stage is written when it is complete.

    Attributes
    ----------
    files : tuple of str
        npy files.
    starts : (m + 1,) int64
        First centre of each group.
    entry : Iteration or None
        Of a pass over the rows.
    labels : dict of int to str
        Files of the rows' labels, by gather partition of the rows.
    """

    files: tuple[str, ...]
    starts: Ints
    entry: Iteration | None = None
    labels: dict[int, str] = field(default_factory=dict)

    def parts(self, storage: Storage) -> Iterator[Floats]:
        """Yield the centres, some groups at a time."""
        for path in self.files:
            yield read_stored(storage, path)

    def save(self, storage: Storage, path: str) -> None:
        """Write the record."""
        record = {
            "files": list(self.files),
            "starts": self.starts.tolist(),
            "entry": None if self.entry is None else vars(self.entry),
            "labels": {str(index): path for index, path in self.labels.items()},
        }
        storage.put(path, encode(record))

    @classmethod
    def load(cls, storage: Storage, path: str) -> _Stage | None:
        """Read the record; None if the stage is not complete."""
        try:
            found = decode_object(storage.read(path), storage.where(path))
        except FileNotFoundError:
            return None
        entry = None if found["entry"] is None else Iteration(**found["entry"])
        labels = {int(index): name for index, name in found["labels"].items()}
        return cls(tuple(found["files"]), np.array(found["starts"], np.int64), entry, labels)


def _settled(history: Sequence[Iteration]) -> bool:
    """Tell whether the last pass gained too little to go on."""
    if len(history) < 2 or history[-1].reassigned:
        return False
    return history[-2].inertia - history[-1].inertia < REFINE_RTOL * history[-2].inertia


def _label(name: str) -> str:
    """Return the human name of a stage from that of its files."""
    return name.rpartition("/")[2].partition("-")[0]


def _masses(rows: Exchange) -> Ints:
    """Return the mass of every cell, as scaled integers; the number of rows, where these have no weights."""
    if "weight" not in (rows.dtype.names or ()):
        return rows.counts
    return np.sum([extra["mass"] for extra in rows.extras], axis=0, dtype=np.int64)


class _Fit:
    """One fit: its engine, rows, files, and the stages one after the other."""

    def __init__(
        self, engine: Engine, data: PreparedData, config: KMeansConfig, storage: Storage, cells: KMeansResult
    ) -> None:
        self._engine = engine
        self._data = data
        self._config = config
        self._storage = storage
        self._cells = cells

    def result(self, *, keep: bool) -> TwoLevelResult:
        """Run the stages; with ``keep`` the final centres stay in a file, else they are in memory."""
        with self._timed("group"):
            rows = self._group()
        with self._timed("cluster"):
            stage = self._recorded("cluster", lambda: self._cluster(rows))
        with self._timed("neighbors"):
            neighbors = self._neighbors(rows, stage)
        history: list[Iteration] = []
        with self._timed("refine"):
            for number in range(1, min(REFINEMENTS, self._config.max_iter) + 1):
                stage = self._recorded(f"refine-{number}", partial(self._refine, rows, stage, neighbors, number))
                self._forget_before(number)
                assert stage.entry is not None
                history.append(stage.entry)
                self._engine.options.emit(IterationEnded(stage="refine", **vars(stage.entry)))
                if _settled(history):
                    break
        return self._finish(stage, tuple(history), keep)

    def _recorded(self, name: str, work: Callable[[], _Stage]) -> _Stage:
        """Do the work of a stage, unless its record is there."""
        path = f"{WORK}/{name}.json"
        stage = _Stage.load(self._storage, path)
        if stage is None:
            stage = work()
            stage.save(self._storage, path)
        return stage

    def _forget_before(self, number: int) -> None:
        """Remove what a complete pass does not need any more: it is as large as the rows."""
        forget(self._storage, f"{WORK}/sums-{number}")
        forget(self._storage, f"{WORK}/labels-{number - 1}")
        self._storage.remove(f"{WORK}/centers-{number}.npy")

    def _group(self) -> Exchange:
        """Write all rows by their cell."""
        data = self._data
        dtype = row_records(data.width, data.view.dtype, data.view.columns.weight is not None)
        cells = self._cells.centers
        produce = RowsByCell(dtype, data.scales.mass)
        with self._engine.share(cells) as shared:
            return scatter(
                self._engine, data.pinned, produce, shared,
                storage=self._storage, name=f"{WORK}/rows", n_buckets=len(cells), dtype=dtype, label="group",
            )  # fmt: skip

    def _cluster(self, rows: Exchange) -> _Stage:
        """Cluster every group; what a group with few distinct rows cannot use goes to the others."""
        k, mass = self._config.n_clusters, _masses(rows)
        room = np.minimum(rows.counts, group_rows(rows.dtype["x"]))
        shares = apportion(k, mass, room)
        before, found = np.full(len(shares), -1), np.zeros(len(shares), np.int64)
        files: dict[int, str] = {}
        for number in range(_ROUNDS):
            changed = before != shares
            wanted = [i for i, (a, b) in enumerate(pairwise(rows.cuts)) if changed[a:b].any()]
            passes = min(self._config.max_iter, GROUP_PASSES)
            value = GroupValue(shares, self._data.scales, self._data.view.unit_rows, self._config.seed, passes)
            name = f"{WORK}/groups-{number}"
            done = self._gather(rows, GroupStep(self._storage, name), value, name, wanted)
            for i, commit in done.items():
                files[i] = commit.file
                found[rows.cuts[i] : rows.cuts[i + 1]] = commit.extra["found"]
            if found.sum() == k:
                break
            room = np.where(found < shares, found, room)
            before, shares = found.copy(), apportion(k, mass, room)
            if np.array_equal(shares, found):
                break
        if found.sum() < k and not self._config.allow_fewer:
            raise too_few_distinct(self._data, k, int(found.sum()))
        return _Stage(tuple(files[i] for i in sorted(files)), np.concatenate([[0], np.cumsum(found)]))

    def _gather(
        self, exchange: Exchange, step: Step, value: object, name: str, wanted: Sequence[int]
    ) -> dict[int, Commit]:
        """Run a step that commits a file for each gather partition, where it is not committed yet."""
        done = read_commits(self._storage, name)
        missing = [i for i in wanted if i not in done]
        if missing:
            gather(self._engine, exchange, step, value, label=_label(name), only=missing)
            done = read_commits(self._storage, name)
        require_seen(self._storage, name, list(wanted), set(done))
        return {i: done[i] for i in wanted}

    def _neighbors(self, rows: Exchange, stage: _Stage) -> StoredArray:
        """List the centres near each centre, once: they move little afterwards."""
        path = f"{WORK}/neighbors.npy"
        if self._storage.exists(path):
            return StoredArray(self._storage, path)
        centers, _ = self._publish(stage, f"{WORK}/centers-0.npy")
        rule = RoutedCenters(self._cells.centers, stage.starts, centers, LIST_PROBES)
        name = f"{WORK}/neighbors"
        done = self._gather(rows, NeighborStep(self._storage, name), rule, name, range(len(rows.refs)))
        parts = (read_stored(self._storage, done[i].file) for i in sorted(done))
        stored = store_array(self._storage, path, (len(centers), NEIGHBORS), "int32", parts)
        forget(self._storage, name)
        return stored

    def _refine(self, rows: Exchange, stage: _Stage, neighbors: StoredArray, number: int) -> _Stage:
        """Do one pass over all rows: each goes to the nearest of the centres around its own."""
        began, data = time.perf_counter(), self._data
        centers, reach = self._publish(stage, f"{WORK}/centers-{number}.npy")
        rule = RoutedCenters(self._cells.centers, stage.starts, centers, probes=FIRST_PROBES)
        scale = data.inertia_scale(reach)
        value = RefineValue(rule, neighbors, stage.labels, data.scales, scale, data.view.unit_rows)
        dtype = sum_records(data.width, data.view.dtype)
        labels, means = f"{WORK}/labels-{number}", f"{WORK}/means-{number}"
        produce = GatherStep(SumStep(dtype, self._storage, labels))
        pinned = self._engine.pin(rows.refs, BUCKETS, label="refine")
        with self._engine.share((rows, value)) as shared:
            sums = scatter(
                self._engine, pinned, produce, shared,
                storage=self._storage, name=f"{WORK}/sums-{number}", n_buckets=len(stage.starts) - 1, dtype=dtype,
                label="refine",
            )  # fmt: skip
        done = self._gather(sums, MeanStep(self._storage, means), value, means, range(len(sums.refs)))
        extras = [done[i].extra for i in sorted(done)]
        high, low = (np.array([sum(extra["inertia"][i] for extra in extras)], np.int64) for i in (0, 1))
        entry = Iteration(
            number,
            FixedPair(high, low, scale).total(),
            float(np.cumsum([extra["shift"] for extra in extras])[-1]),
            sum(extra["moved"] for extra in sums.extras),
            sum(extra["reassigned"] for extra in extras),
            time.perf_counter() - began,
            data.moments.n_rows,
        )
        files = tuple(done[i].file for i in sorted(done))
        written = {index: commit.file for index, commit in read_commits(self._storage, labels).items()}
        return _Stage(files, stage.starts, entry, written)

    def _publish(self, stage: _Stage, path: str) -> tuple[CenterSet, float]:
        """Write the centres of a stage where workers map them; return them, and the largest squared length."""
        reach, dtype = 0.0, self._data.view.dtype

        def parts() -> Iterator[Rows]:
            nonlocal reach
            for part in stage.parts(self._storage):
                compared = part.astype(dtype)
                reach = max(reach, float(row_sqnorm(compared).max(initial=0.0)))
                yield compared

        shape = (int(stage.starts[-1]), self._data.width)
        return store_centers(self._storage, path, shape, dtype, parts()), reach

    def _finish(self, stage: _Stage, history: tuple[Iteration, ...], keep: bool) -> TwoLevelResult:
        data, starts, cells = self._data, stage.starts, self._cells
        k = int(starts[-1])
        vectors = np.empty((k, data.width), stored_vectors(data, np.zeros((1, data.width))).dtype)
        at = 0
        for part in stage.parts(self._storage):
            vectors[at : at + len(part)] = stored_vectors(data, part)
            at += len(part)
        dtype = data.view.dtype
        if keep:
            parts = block_parts(vectors, data.offset, dtype)
            centers: CenterSet = store_centers(self._storage, f"{WORK}/centers.npy", vectors.shape, dtype, parts)
        else:
            centers = block_centers(vectors, data.offset, dtype)
        rule = label_rule(cells.centers, starts, centers)
        share = 1.0 if rule is None else self._exact_share(rule)
        parents = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
        return TwoLevelResult(
            vectors, centers, len(history), history, _settled(history), None, cells.vectors, parents, rule, share
        )

    def _exact_share(self, rule: RoutedCenters) -> float:
        """Compare the labels of some rows with the exact ones."""
        rows = hash_sample(self._engine, self._data.pinned, JUDGED_ROWS).rows
        return float(np.mean(rule.route(rows) == exact_labels(rows, rule.centers)))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began, emit = time.perf_counter(), self._engine.options.emit
        emit(StageStarted(stage=name, total_rows=self._data.pinned.n_rows))
        yield
        emit(StageEnded(stage=name, seconds=time.perf_counter() - began))
