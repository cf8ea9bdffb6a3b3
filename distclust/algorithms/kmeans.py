"""k-means over an engine: seeding, Lloyd, restarts, checkpoints, the centres as a model stores them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from distclust.algorithms.candidates import mean_sqdist
from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.lloyd import (
    Iteration,
    LloydState,
    history_from_json,
    history_to_json,
    run_lloyd,
)
from distclust.algorithms.progressive import (
    Rung,
    Samples,
    ladder,
    list_plan,
    seeding_rung,
    stride,
    takes_lists,
)
from distclust.algorithms.seeding import initial_centers
from distclust.algorithms.vectors import block_centers, stored_vectors
from distclust.artifacts.checkpoint import Checkpoint, Checkpoints
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import CancelledError, DataError
from distclust.ops.assign import assign
from distclust.ops.centers import CenterSet
from distclust.ops.heads import find_head
from distclust.ops.profile import PreparedData

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]

SURE_SHARE = 1e-2
"""Least inertia, as a share of the sum of w * ||x||^2, that has 12 digits when it is taken from sums."""

JUDGED_ROWS = 2048
"""Rows that tell whether lists of near centres are of use: 0.3 % of the inertia of ordinary data either way."""

_STEPS_PER_INIT = 1_000_000
"""Checkpoint numbers must grow: initialisation times this, plus the pass."""


class Checkpointed(Protocol):
    """What `fit_kmeans` needs of a run directory."""

    def checkpoints(self, name: str) -> Checkpoints:
        """Return the checkpoints of one algorithm."""
        ...


@dataclass(frozen=True)
class KMeansResult:
    """Centres that were found, and how.

    Attributes
    ----------
    vectors : (m, d) float32 or float64
        Centres in the coordinates of the source, as the model stores them; m = k unless fewer rows are distinct.
    centers : CenterSet
        The same centres in the coordinates of the blocks, derived from ``vectors``: labels found with these are
        the labels that the stored model gives.
    n_iter : int
        Full passes of the kept initialisation.
    history : tuple of Iteration
        Of the kept initialisation.
    converged : bool
        A stopping rule held before ``max_iter``.
    inertia : float or None
        Of the nearest centres, to 12 digits, where the last pass has found it; else it takes a pass of its own.
    """

    vectors: Rows
    centers: CenterSet
    n_iter: int
    history: tuple[Iteration, ...]
    converged: bool
    inertia: float | None


@dataclass(frozen=True)
class _Best:
    """The best finished initialisation so far."""

    state: LloydState
    inertia: float


def fit_kmeans(
    engine: Engine,
    data: PreparedData,
    config: KMeansConfig,
    run: Checkpointed | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> KMeansResult:
    """Cluster the rows of a prepared dataset.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        See `distclust.ops.profile.prepare`, with the metric of ``config``.
    config : KMeansConfig
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints; 0 saves after every pass.

    Raises
    ------
    DataError
        Fewer rows than clusters; or fewer distinct rows, unless ``config.allow_fewer``.
    """
    n, k = data.moments.n_rows, config.n_clusters
    if n < k and not config.allow_fewer:
        raise DataError(
            f"n_samples={n} should be >= n_clusters={k}.",
            where=data.source.describe_place(),
            do=f"Ask for at most {n} clusters, or allow fewer.",
        )
    if n < k:
        config = _fewer(config, n)
    # Lists of near centres and first centres depend on the axes: there these belong to the fit, elsewhere to its speed.
    if config.algorithm == "auto" or (config.fit_mode != "full" and isinstance(config.init, str)):
        data = replace(data, head=find_head(engine, data, config.n_clusters))
    samples = Samples(engine, data, config)
    saver = _Saver(None if run is None else run.checkpoints("kmeans"), checkpoint_seconds)
    state = saver.restore()
    while saver.number < config.n_init:
        if state is None:
            state = _seed(engine, data, config, samples, saver.number)
            saver.save(state)
        state = _climb(data, config, samples, state, saver)
        inertia = 0.0 if config.n_init == 1 else _exact_inertia(engine, data, state.centers)
        saver.finished(_Best(state, inertia))
        state = None
    assert saver.best is not None
    return _result(data, config, saver.best.state, engine.info.slots)


def _climb(data: PreparedData, config: KMeansConfig, samples: Samples, state: LloydState, saver: _Saver) -> LloydState:
    """Run Lloyd on every sample from the state's on; each begins where the one before ended."""
    n, found = data.moments.n_rows, len(state.centers)  # there may be fewer seeds than clusters wanted
    rungs, far = ladder(n, config), stride(n, config)
    listed = takes_lists(n, data.width, data.view.dtype, config, found)
    while True:
        rung = rungs[state.rung]
        part, sampled, settings = samples.on(rung)
        stage = "lloyd" if rung.is_full else "sample"
        if rung.is_full and state.history and not state.iteration:  # then the first pass is not measured
            state = replace(state, squares=data.moments.sum_squares)
        plan = None
        if listed:
            seeds = float("inf") if state.history else _seeds_inertia(samples, data, state.centers)
            plan = list_plan(data, config, first=state.rung == 0, full=rung.is_full, seeds=seeds)
        try:
            state = run_lloyd(
                part,
                sampled,
                settings,
                state,
                stride=far,
                lists=plan,
                bounds=rung.is_full,  # few passes over a sample do not repay making them
                checkpoint=saver.after_pass,
                stage=stage,
            )
        except CancelledError:
            saver.save_last()
            raise
        if state.rung == len(rungs) - 1:
            return state
        state = LloydState(state.centers, history=state.history, rung=state.rung + 1)


def _seeds_inertia(samples: Samples, data: PreparedData, centers: Floats) -> float:
    """Return about the inertia a row of first centres, from a few rows."""
    n = data.moments.n_rows
    engine, sampled, _ = samples.on(Rung.about(min(JUDGED_ROWS, n), n))
    return mean_sqdist(engine, sampled, centers.astype(data.view.dtype)) * data.moments.mass / n


def _fewer(config: KMeansConfig, n: int) -> KMeansConfig:
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__}
    init = config.init if isinstance(config.init, str) else config.init[:n]
    return KMeansConfig(**{**settings, "n_clusters": n, "init": init})


def _seed(engine: Engine, data: PreparedData, config: KMeansConfig, samples: Samples, number: int) -> LloydState:
    """Find first centres on the smallest sample; on all rows where that has too few distinct ones."""
    started = time.perf_counter()
    n, rung = data.moments.n_rows, 0
    engine.options.emit(StageStarted(stage="seed", total_rows=data.pinned.n_rows))
    at = seeding_rung(n, config)
    centers = initial_centers(*samples.on(at), number)
    if len(centers) < config.n_clusters and not at.is_full:
        rung = len(ladder(n, config)) - 1
        centers = initial_centers(engine, data, replace(config, fit_mode="full"), number)
    engine.options.emit(StageEnded(stage="seed", seconds=time.perf_counter() - started))
    if len(centers) < config.n_clusters and not config.allow_fewer:
        raise too_few_distinct(data, config.n_clusters, len(centers))
    seeds: Floats = centers.astype(np.float64)
    return LloydState(seeds, rung=rung)


def too_few_distinct(data: PreparedData, k: int, found: int) -> DataError:
    """Return the error for a dataset with fewer distinct rows than clusters."""
    return DataError(
        f"only {found} distinct rows were found for {k} clusters.",
        where=data.source.describe_place(),
        do=f"Ask for at most {found} clusters, or accept fewer with allow_fewer=True (--allow-fewer).",
    )


def _exact_inertia(engine: Engine, data: PreparedData, centers: Floats) -> float:
    stats = assign(engine, data, CenterSet(centers.astype(data.view.dtype), data.head), label="score")
    return stats.inertia.total()


def _result(data: PreparedData, config: KMeansConfig, state: LloydState, threads: int) -> KMeansResult:
    kept = np.delete(state.centers, state.empty, axis=0) if state.empty else state.centers
    # Empty clusters at a fixed point mean that every row sits on its centre: there are no more distinct rows.
    if state.finished and state.empty and not config.allow_fewer:
        raise too_few_distinct(data, config.n_clusters, len(kept))
    vectors = stored_vectors(data, kept, threads=threads)
    centers = block_centers(vectors, data.offset, data.view.dtype, data.head, threads=threads)
    inertia = state.history[-1].inertia if state.history else 0.0
    # A last pass by all centres has left them as they were. From sums, an inertia has the digits of theirs.
    left = state.finished and state.next_pass == "anchor" and not state.empty
    known = inertia if left and inertia >= SURE_SHARE * data.moments.sum_squares else None
    return KMeansResult(vectors, centers, state.iteration, state.history, state.finished, known)


class _Saver:
    """Where the fit is; writes and reads checkpoints, and does without where there is no place for them.

    Attributes
    ----------
    number : int
        Initialisation in progress.
    best : _Best or None
        The best finished one.
    """

    def __init__(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        self.number = 0
        self.best: _Best | None = None
        self._checkpoints = checkpoints
        self._seconds = seconds
        self._saved = 0.0
        self._last: LloydState | None = None

    def after_pass(self, state: LloydState) -> None:
        """Save unless the last save is recent."""
        self._last = state
        if time.monotonic() - self._saved >= self._seconds:
            self.save(state)

    def save_last(self) -> None:
        """Save the last pass, if there was one."""
        if self._last is not None:
            self.save(self._last)

    def finished(self, candidate: _Best) -> None:
        """Take a finished initialisation and go on to the next."""
        if self.best is None or candidate.inertia < self.best.inertia:
            self.best = candidate
        self.number += 1
        self._last = None
        self.save(None)

    def save(self, state: LloydState | None) -> None:
        """Save the state of the initialisation in progress."""
        if self._checkpoints is None:
            return
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        record: dict[str, object] = {"run": self.number}
        for name, part in (("state", state), ("best", self.best.state if self.best else None)):
            if part is not None:
                record[name] = _describe(part)
                arrays[f"{name}-centers"] = part.centers
                if part.previous is not None:
                    arrays[f"{name}-previous"] = part.previous
                if part.by_lists and part.anchor is not None:  # else it is `previous`, or there is none
                    arrays[f"{name}-anchor"] = part.anchor
        if self.best is not None:
            record["best_inertia"] = self.best.inertia
        self._checkpoints.save(self.number * _STEPS_PER_INIT + (len(state.history) if state else 0), record, arrays)
        self._saved = time.monotonic()

    def restore(self) -> LloydState | None:
        """Go back to the last save; return the state of the initialisation in progress."""
        found = None if self._checkpoints is None else self._checkpoints.load()
        if found is None:
            return None
        self.number = int(found.state["run"])
        best = _rebuild("best", found)
        self.best = None if best is None else _Best(best, float(found.state["best_inertia"]))
        return _rebuild("state", found)


def _describe(state: LloydState) -> dict[str, object]:
    return {
        "iteration": state.iteration,
        "history": history_to_json(state.history),
        "finished": state.finished,
        "empty": list(state.empty),
        "rung": state.rung,
        "listed": state.anchor is not None,
        "anchors": state.anchors,
        "by_lists": state.by_lists,
        "next_pass": state.next_pass,
        "squares": state.squares,
    }


def _rebuild(name: str, found: Checkpoint) -> LloydState | None:
    record = found.state.get(name)
    if record is None:
        return None
    previous = found.arrays.get(f"{name}-previous")
    return LloydState(
        found.arrays[f"{name}-centers"],
        record["iteration"],
        history_from_json(record["history"]),
        record["finished"],
        previous,
        tuple(record["empty"]),
        record["rung"],
        found.arrays.get(f"{name}-anchor", previous) if record["listed"] else None,
        record["anchors"],
        record["by_lists"],
        record["next_pass"],
        record["squares"],
    )
