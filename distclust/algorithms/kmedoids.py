"""k-medoids over an engine: FasterPAM, CLARA, OneBatchPAM; all candidate sets are scored on all rows in one pass."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans import Checkpointed
from distclust.algorithms.kmedoids_config import KMedoidsConfig
from distclust.algorithms.lloyd import Iteration, history_from_json, history_to_json
from distclust.algorithms.medoid_choice import KChoice, choose_n_clusters
from distclust.algorithms.medoid_samples import Solution, clara_sets, part_of, sample_loss, solve, solve_all
from distclust.algorithms.onebatch import BatchState, Medoids, batch_weights, central_pass, swap_pass
from distclust.artifacts.checkpoint import Checkpoints
from distclust.engines.events import IterationEnded, StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.engines.sampled import ALL_ROWS, SampledEngine
from distclust.errors import CancelledError, DataError, UsageError
from distclust.ops.measured import MeasuredData, as_measured
from distclust.ops.medoids import MedoidSet, SetScore, score_sets
from distclust.ops.sample import draw_uniform
from distclust.stats.extremes import KeyedRows

Rows = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

SAMPLE_ROWS = 1 << 15
SAMPLE_VALUES = 1 << 22
"""The driver holds, and sends to every task, a sample of so many rows and values at most, more where the batch or the
samples of CLARA need more."""

FIRST_CANDIDATES = 1 << 14
"""Rows of the sample among which the first medoids of the batch are sought."""

CANDIDATES = 1 << 17
GROWTH = 4
"""The first swap pass looks at so many rows as candidates, every further one at four times as many, up to all: as long
as a pass gains enough, more candidates do."""

LOSS_MARGIN = 0.02
"""Sets that are worse than the best by more than this on the drawn rows are not scored on all: they cannot win."""

CENTRAL_PASSES = 4

_STAGE_SAMPLE = 1


@dataclass(frozen=True)
class CandidateScore:
    """A set of medoids that was scored on all rows.

    Attributes
    ----------
    method : str
        How it was found.
    loss, silhouette : float
        See `distclust.ops.medoids.SetScore`.
    """

    method: str
    loss: float
    silhouette: float


@dataclass(frozen=True)
class KMedoidsResult:
    """Medoids that were found, and how.

    Attributes
    ----------
    rows : (k, d) float32 or float64
        Medoids as the source has them (``gower``: numbers and codes of categories), ordered by row id.
    row_ids : (k,) int64
        Global row ids.
    medoids : MedoidSet
        The same as a shared value.
    loss : float
        Weighted sum over all rows of the dissimilarity to the nearest medoid.
    silhouette : float
        Medoid silhouette, the weighted mean of 1 - nearest / second nearest; 0 for one medoid.
    method : str
        What found the best set: ``fasterpam``, ``clara``, ``onebatch``, ``onebatch, central`` after its last step, or
        ``choice of k`` where the sample that chose k did.
    n_swaps : int
        Swaps that led to it.
    n_iter : int
        Passes of swaps and of central rows.
    history : tuple of Iteration
        One entry a pass: loss as the batch or the sample estimates it, medoids changed as moved.
    candidates : tuple of CandidateScore
        All sets.
    choices : tuple of KChoice
        With ``n_clusters="auto"``, all numbers of clusters, the chosen one first; else empty.
    """

    rows: Rows
    row_ids: npt.NDArray[np.int64]
    medoids: MedoidSet
    loss: float
    silhouette: float
    method: str
    n_swaps: int
    n_iter: int
    history: tuple[Iteration, ...]
    candidates: tuple[CandidateScore, ...]
    choices: tuple[KChoice, ...] = ()


def fit_kmedoids(
    engine: Engine,
    data: MeasuredData,
    config: KMedoidsConfig,
    run: Checkpointed | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> KMedoidsResult:
    """Find k rows of a dataset such that the sum of all rows' dissimilarities to the nearest one is low.

    Parameters
    ----------
    engine : Engine
    data : MeasuredData
        See `distclust.ops.measured.measure_rows`, with the metric of ``config``.
    config : KMedoidsConfig
    run : RunDirectory, optional
        Where checkpoints go, and come from if there are some.
    checkpoint_seconds : float, default=0.0
        Least time between checkpoints; 0 saves after every pass.

    Raises
    ------
    DataError
        Fewer rows than clusters.
    UsageError
        ``fasterpam`` was asked for and the matrix is larger than ``config.matrix_bytes``.
    """
    n = data.n_rows
    choices: tuple[KChoice, ...] = ()
    found: list[tuple[str, Solution]] = []
    if config.n_clusters == "auto":
        choices, chosen = _choose(engine, data, config, run)
        found.append(("choice of k", Solution(chosen, 0)))
    k = choices[0].k if choices else int(config.n_clusters)
    if n < k:
        raise DataError(
            f"n_samples={n} should be >= n_clusters={k}.",
            where=data.source.describe_place(),
            do=f"Ask for at most {n} clusters.",
        )
    method = _method(data, config)
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="medoids", total_rows=data.pinned.n_rows, max_passes=0))
    sample = _draw(engine, data, config, n if method == "fasterpam" else _sample_rows(data, config, k))
    progress = _Progress()
    if method == "fasterpam":
        found.append((method, solve_all(data, sample.in_id_order(), config, k)))
    if method in ("clara", "auto"):
        found += [("clara", solution) for solution in clara_sets(data.measure, sample, config, k)]
    if method in ("onebatch", "auto"):
        saver = _Saver(None if run is None else run.checkpoints("kmedoids"), checkpoint_seconds)
        progress = _one_batch(engine, data, config, sample, k, saver)
        assert progress.swapped is not None
        found.append(("onebatch", Solution(progress.swapped, progress.n_swaps)))
        if progress.central is not None:
            found.append(("onebatch, central", Solution(progress.central, progress.n_swaps)))
    engine.options.emit(StageEnded(stage="medoids", seconds=time.perf_counter() - started))
    if method != "fasterpam":
        found = _promising(data, sample, found)
    return replace(_best(engine, data, found, progress.history), choices=choices)


def _choose(
    engine: Engine, data: MeasuredData, config: KMedoidsConfig, run: Checkpointed | None
) -> tuple[tuple[KChoice, ...], Medoids]:
    """Choose k, or remember what was chosen before the run was stopped."""
    checkpoints = None if run is None else run.checkpoints("choose-k")
    known = None if checkpoints is None else checkpoints.load()
    if known is not None:
        medoids = Medoids(known.arrays["rows"], known.arrays["ids"])
        return tuple(KChoice(**one) for one in known.state["choices"]), medoids
    choices, medoids = choose_n_clusters(engine, data, config)
    if checkpoints is not None:
        record = {"choices": [vars(one) for one in choices]}
        checkpoints.save(0, record, {"rows": medoids.rows, "ids": medoids.row_ids})
    return choices, medoids


def _method(data: MeasuredData, config: KMedoidsConfig) -> str:
    item = as_measured(data.measure, np.empty((0, data.width), data.view.dtype), precise=False).dtype.itemsize
    needed = data.n_rows**2 * (4 if item == 4 else 8)
    fits = needed <= config.matrix_bytes
    if config.method == "fasterpam" and not fits:
        raise UsageError(
            f"method 'fasterpam' compares {data.n_rows} rows with each other: {needed} bytes, {config.matrix_bytes} "
            "are allowed.",
            do="Use method 'auto' or 'onebatch' (--method), or allow more with matrix_bytes (--matrix-bytes).",
        )
    return "fasterpam" if config.method == "auto" and fits else config.method


def _sample_rows(data: MeasuredData, config: KMedoidsConfig, k: int) -> int:
    least = max(config.batch_columns(data.n_rows, k), config.n_samples * config.sample_rows(k))
    return min(data.n_rows, max(least, min(SAMPLE_ROWS, SAMPLE_VALUES // data.width)))


def _draw(engine: Engine, data: MeasuredData, config: KMedoidsConfig, rows: int) -> KeyedRows:
    return draw_uniform(engine, data.pinned, rows, seed=config.seed, stage=_STAGE_SAMPLE)


def _promising(data: MeasuredData, sample: KeyedRows, found: list[tuple[str, Solution]]) -> list[tuple[str, Solution]]:
    """Leave out sets that the drawn rows show to be far from the best."""
    losses = [sample_loss(data.measure, sample.rows, sample.weights, solution.medoids) for _, solution in found]
    most = (1 + LOSS_MARGIN) * min(losses)
    return [one for one, loss in zip(found, losses, strict=True) if loss <= most]


def _best(
    engine: Engine, data: MeasuredData, found: list[tuple[str, Solution]], history: tuple[Iteration, ...]
) -> KMedoidsResult:
    """Score all sets in one pass and keep the one of lowest loss, the first among equals."""
    ordered = [solution.medoids.in_id_order() for _, solution in found]
    sets = [MedoidSet(medoids.rows, data.measure) for medoids in ordered]
    scores: list[SetScore] = score_sets(engine, data, sets)
    best = int(np.argmin([score.loss for score in scores]))
    name, solution = found[best]
    return KMedoidsResult(
        sets[best].rows,
        ordered[best].row_ids,
        sets[best],
        scores[best].loss,
        scores[best].silhouette,
        name,
        solution.n_swaps,
        len(history),
        history,
        tuple(
            CandidateScore(name, score.loss, score.silhouette) for (name, _), score in zip(found, scores, strict=True)
        ),
    )


@dataclass(frozen=True)
class _Progress:
    """Where OneBatchPAM is; all that the next pass depends on besides the sample, which is drawn again."""

    weights: Floats = field(default_factory=lambda: np.empty(0))
    swapped: Medoids | None = None
    central: Medoids | None = None
    n_swaps: int = 0
    history: tuple[Iteration, ...] = ()
    candidates: int = CANDIDATES
    swapping: bool = True
    finished: bool = False


def _one_batch(
    engine: Engine, data: MeasuredData, config: KMedoidsConfig, sample: KeyedRows, k: int, saver: _Saver
) -> _Progress:
    """Swap on the batch until no pass gains enough, then move medoids to central rows."""
    columns = config.batch_columns(data.n_rows, k)
    batch = sample.rows[:columns]
    progress = saver.restore() or _first_medoids(data, sample, columns, k)
    saver.save(progress)
    try:
        while progress.swapping and k > 1:
            progress = _swap(engine, data, config, batch, progress)
            saver.save_sometimes(progress)
        while not progress.finished:
            progress = _centre(engine, data, config, sample, progress)
            saver.save_sometimes(progress)
    except CancelledError:
        saver.save(progress)
        raise
    return progress


def _first_medoids(data: MeasuredData, sample: KeyedRows, columns: int, k: int) -> _Progress:
    batch = sample.rows[:columns]
    weights = batch_weights(data.measure, batch, sample.rows, sample.weights, _mass(data, sample))
    first = solve(data.measure, part_of(sample, 0, FIRST_CANDIDATES), batch, weights, part_of(sample, 0, k))
    return _Progress(weights, first.medoids, None, first.n_swaps)


def _swap(engine: Engine, data: MeasuredData, config: KMedoidsConfig, batch: Rows, progress: _Progress) -> _Progress:
    started = time.perf_counter()
    assert progress.swapped is not None
    state = BatchState(data.measure, batch, progress.weights, progress.swapped)
    before = state.loss
    whole = progress.candidates >= data.n_rows
    limit = ALL_ROWS if whole else ALL_ROWS * progress.candidates // data.n_rows
    swaps = swap_pass(engine if whole else SampledEngine(engine, limit), data, state)
    passes = len(progress.history) + 1
    little = swaps == 0 or before - state.loss <= config.rtol * before
    done = (little and (whole or config.rtol > 0)) or passes >= config.max_iter
    rows = min(progress.candidates, data.n_rows)
    entry = _entry(engine, "swap", Iteration(passes, state.loss, 0.0, swaps, 0, time.perf_counter() - started, rows))
    return replace(
        progress,
        swapped=state.medoids,
        n_swaps=progress.n_swaps + swaps,
        history=(*progress.history, entry),
        candidates=data.n_rows if little else GROWTH * progress.candidates,
        swapping=not done,
    )


def _centre(
    engine: Engine, data: MeasuredData, config: KMedoidsConfig, sample: KeyedRows, progress: _Progress
) -> _Progress:
    started = time.perf_counter()
    present = progress.central or progress.swapped
    assert present is not None
    scale = data.n_rows / len(sample.row_ids)
    before = scale * sample_loss(data.measure, sample.rows, sample.weights, present)
    moved, count = central_pass(engine, data, present, sample.rows, sample.weights)
    loss = scale * sample_loss(data.measure, sample.rows, sample.weights, moved)
    passes = sum(entry.reassigned for entry in progress.history) + 1
    number, seconds = len(progress.history) + 1, time.perf_counter() - started
    # A pass for central rows counts as one that reassigned.
    entry = _entry(engine, "centre", Iteration(number, loss, 0.0, count, 1, seconds, data.n_rows))
    return replace(
        progress,
        central=moved if loss < before else progress.central,
        history=(*progress.history, entry),
        swapping=False,
        finished=not loss < before * (1 - config.rtol) or passes >= CENTRAL_PASSES,
    )


def _mass(data: MeasuredData, sample: KeyedRows) -> float:
    """Return about the sum of all weights."""
    return float(np.cumsum(sample.weights)[-1]) * (data.n_rows / len(sample.row_ids))


def _entry(engine: Engine, stage: str, entry: Iteration) -> Iteration:
    engine.options.emit(IterationEnded(stage=stage, **vars(entry)))
    return entry


class _Saver:
    """Writes and reads checkpoints; does nothing without a place for them."""

    def __init__(self, checkpoints: Checkpoints | None, seconds: float) -> None:
        self._checkpoints = checkpoints
        self._seconds = seconds
        self._saved = 0.0

    def save_sometimes(self, progress: _Progress) -> None:
        """Save unless the last save is recent."""
        if time.monotonic() - self._saved >= self._seconds:
            self.save(progress)

    def save(self, progress: _Progress) -> None:
        """Save what the next pass depends on."""
        if self._checkpoints is None:
            return
        arrays: dict[str, npt.NDArray[Any]] = {"weights": progress.weights}
        for name in ("swapped", "central"):
            medoids: Medoids | None = getattr(progress, name)
            if medoids is not None:
                arrays |= {f"{name}-rows": medoids.rows, f"{name}-ids": medoids.row_ids}
        record = {
            "n_swaps": progress.n_swaps,
            "history": history_to_json(progress.history),
            "candidates": progress.candidates,
            "swapping": progress.swapping,
            "finished": progress.finished,
        }
        self._checkpoints.save(len(progress.history), record, arrays)
        self._saved = time.monotonic()

    def restore(self) -> _Progress | None:
        """Return where the last save was."""
        found = None if self._checkpoints is None else self._checkpoints.load()
        if found is None:
            return None

        def medoids(name: str) -> Medoids | None:
            rows = found.arrays.get(f"{name}-rows")
            return None if rows is None else Medoids(rows, found.arrays[f"{name}-ids"])

        return _Progress(
            found.arrays["weights"],
            medoids("swapped"),
            medoids("central"),
            found.state["n_swaps"],
            history_from_json(found.state["history"]),
            found.state["candidates"],
            found.state["swapping"],
            found.state["finished"],
        )
