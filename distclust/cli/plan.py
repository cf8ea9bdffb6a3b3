"""What a k-means job would do, counted from footers and settings: nothing is run, nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distclust.algorithms.lloyd import FAR_ROWS
from distclust.algorithms.progressive import ladder, seeding_rung, takes_lists
from distclust.algorithms.seeding import seeding_passes
from distclust.algorithms.two_level import CELL_PASSES, REFINEMENTS, is_two_level, n_cells
from distclust.config import KMeansJob
from distclust.data.node import NodeConfig
from distclust.data.refs import PartitionRef
from distclust.data.sources import Source
from distclust.engines.open import open_engine
from distclust.engines.protocol import Engine, EngineOptions
from distclust.kernels.bounded import bounds_bytes, quick_bytes
from distclust.kernels.near import LISTED
from distclust.kernels.rounded import rounded_bytes
from distclust.kernels.screened import screens
from distclust.ops.bounds import bounds_pay
from distclust.ops.exchange import RANGE_BYTES
from distclust.ops.profile import plan
from distclust.workflows.common import fresh_cut, source_of

_ROW_ID, _WEIGHT, _LABEL = 8, 8, 4

_LABELLINGS = 2
"""Labels are kept under the centres of this pass and of the one before."""
_LISTED = 2
"""A near centre on a row's list."""
_SUM = 8
"""Sums are 64-bit integers whatever the rows are."""


@dataclass(frozen=True)
class PlanView:
    """What a job would do.

    Attributes
    ----------
    rows, dimensions, files, input_bytes : int
        Of the dataset; bytes as stored.
    dtype : str
        Of the stored values.
    engine : str
        Name.
    slots, tasks : int
        Tasks at the same time, and at most so many in one pass.
    partitions, partition_rows : int
        How many, and the rows of the largest.
    block_bytes : int
        Of the largest partition, decoded.
    scratch_bytes : int
        About: decoded rows, row ids, weights, labels, rounded rows, bounds or lists of near centres of all partitions,
        over all nodes.
    model_bytes : int
        Centres as the tasks compare them.
    task_bytes : int
        Memory of one task in an iteration: its block, the centres, its sums.
    sent_bytes : int
        From driver to tasks in one iteration: centres of this pass, of the last one, and of that which lists were made
        in, for every task; 0 where tasks are threads.
    returned_bytes : int
        From tasks to driver in a first iteration, in all; later ones return changed clusters only. 0 as above.
    seeding_passes, iterations, other_passes : int
        Passes over the rows, at most: first centres, iterations (both of all initialisations), and profile, cache,
        scores and labels.
    notes : tuple of str
        What would go wrong.
    """

    rows: int
    dimensions: int
    files: int
    input_bytes: int
    dtype: str
    engine: str
    slots: int
    tasks: int
    partitions: int
    partition_rows: int
    block_bytes: int
    scratch_bytes: int
    model_bytes: int
    task_bytes: int
    sent_bytes: int
    returned_bytes: int
    seeding_passes: int
    iterations: int
    other_passes: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plan_job(job: KMeansJob) -> PlanView:
    """Count what a job would do.

    Parameters
    ----------
    job : KMeansJob
        Its output is not looked at.

    Raises
    ------
    DistclustError
        As the job itself: files, columns, engine.
    """
    source = source_of(job, job.weight_column)
    engine = open_engine(job.engine, EngineOptions(node=NodeConfig(scratch=job.scratch)))
    try:
        cut = fresh_cut(job, engine)
        return _view(job, engine, source, plan(engine, source, cut["bytes"], cut["least"]))
    finally:
        engine.close()


def _view(job: KMeansJob, engine: Engine, source: Source, refs: Sequence[PartitionRef]) -> PlanView:
    item = 8 if job.precision == "float64" else 4
    weight = _WEIGHT if job.weight_column else 0
    k, d = job.settings().n_clusters, source.width
    levels = is_two_level(job.settings())
    kept = 0 if levels else _kept(job, k, d, lists=_lists(job, k, source))
    largest = max(ref.n_rows for ref in refs)
    block = largest * (d * item + _ROW_ID + weight)
    traffic = _two_levels(job, k, source, block, item) if levels else _flat(job, k, source, block, item)
    tasks = min(len(refs), engine.info.slots * getattr(engine, "tasks_per_slot", 1))
    travels = 0 if engine.info.sees_driver_memory else tasks
    return PlanView(
        rows=source.n_rows,
        dimensions=d,
        files=len(source.files),
        input_bytes=sum(file.fingerprint.size for file in source.files),
        dtype=source.dtype,
        engine=engine.info.name,
        slots=engine.info.slots,
        tasks=tasks,
        partitions=len(refs),
        partition_rows=largest,
        block_bytes=block,
        scratch_bytes=source.n_rows * (d * item + _ROW_ID + weight + _LABELLINGS * _LABEL + kept),
        model_bytes=k * d * item,
        task_bytes=traffic.task,
        sent_bytes=traffic.sent * travels,
        returned_bytes=traffic.returned * travels,
        seeding_passes=traffic.seeding,
        iterations=traffic.iterations,
        other_passes=traffic.others,
        notes=_notes(job, k, source),
    )


def _kept(job: KMeansJob, k: int, d: int, *, lists: bool) -> int:
    """Return the bytes that a row keeps from pass to pass beside its labels."""
    kept = rounded_bytes(1, d) if screens(k, d, job.precision, anywhere=lists) else 0
    if lists:
        return kept + LISTED * _LISTED
    bounded = job.algorithm == "auto" and bounds_pay(k, d, 0.0)
    return kept + (bounds_bytes(1, k) + quick_bytes(1, d) if bounded else 0)


@dataclass(frozen=True)
class _Traffic:
    """What the way of fitting decides: bytes to a task, from it and in it; passes."""

    sent: int
    returned: int
    task: int
    seeding: int
    iterations: int
    others: int


def _flat(job: KMeansJob, k: int, source: Source, block: int, item: int) -> _Traffic:
    """All centres go to every task, and sums of all clusters come back."""
    d = source.width
    sent = (3 if _lists(job, k, source) else 2) * k * d * item
    returned = k * (d + 3) * _SUM + min(k, FAR_ROWS) * (d * item + 3 * _SUM)
    seeding = _seeding_passes(job, source) * job.n_init
    others = 3 + (job.n_init if job.n_init > 1 else 0)
    return _Traffic(sent, returned, block + sent + returned, seeding, job.max_iter * job.n_init, others)


def _two_levels(job: KMeansJob, k: int, source: Source, block: int, item: int) -> _Traffic:
    """That is so of cells only, which are found on a sample; rows and sums of clusters pass through files."""
    m, d = n_cells(k), source.width
    sent, returned = 2 * m * d * item, m * (d + 3) * _SUM
    iterations = min(CELL_PASSES, job.max_iter) + min(REFINEMENTS, job.max_iter)
    return _Traffic(sent, returned, 3 * max(block, RANGE_BYTES) + sent + returned, 1, iterations, 6)


def _lists(job: KMeansJob, k: int, source: Source) -> bool:
    return takes_lists(source.n_rows, source.width, job.precision, job.settings(), k)


def _seeding_passes(job: KMeansJob, source: Source) -> int:
    settings = job.settings()
    return seeding_passes(settings, seeding_rung(source.n_rows, settings).rows, source.width)


def _notes(job: KMeansJob, k: int, source: Source) -> tuple[str, ...]:
    notes = []
    config = job.settings()
    if is_two_level(config):
        cells = n_cells(config.n_clusters)
        notes.append(
            f"Two levels: {cells} cells; rows, sums and centres pass through files in the output, "
            "about three times the decoded rows at most, which go at the end. No task holds or returns all sums."
        )
    if source.n_rows < k and not job.allow_fewer:
        notes.append(f"{source.n_rows} rows are fewer than {k} clusters: the run would fail.")
    rungs = ladder(source.n_rows, config)
    if len(rungs) > 1 and not is_two_level(config):
        sizes = ", ".join(str(rung.rows) for rung in rungs[:-1])
        notes.append(f"First centres and first passes come from samples of {sizes} rows.")
    return tuple(notes)
