"""What every job does: open the source, the run directory and the engine; keep time; close in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from distclust.artifacts.commit import forget, read_commits
from distclust.artifacts.model import Model
from distclust.artifacts.run import RunDirectory
from distclust.config import DataJob
from distclust.data.node import NodeConfig
from distclust.data.refs import Metric, PartitionRef
from distclust.data.sources import Source, open_source
from distclust.data.storage import Storage
from distclust.engines.events import Emit, Event, Note, StageEnded, StageStarted, ignore
from distclust.engines.open import open_engine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions
from distclust.errors import DataError, StorageError
from distclust.ops.assign import LABEL_STATS, assign, committed_stats
from distclust.ops.centers import CenterSet, LabelRule
from distclust.ops.measured import MeasuredData
from distclust.ops.profile import PreparedData, partition_bytes, plan, prepare
from distclust.stats.lloyd import AssignStats

PLAN_FILE = "plan.json"
"""How the run's partitions were cut, first writer wins."""

MAPPED_SHARE = 4
"""A process keeps at most a quarter of its memory in open blocks; the rest is for the block at work."""


@dataclass
class Session:
    """Handles that outlive one job: where events go, how it is cancelled.

    Attributes
    ----------
    emit : callable
        Takes every event besides events.jsonl.
    cancel : CancelToken
    """

    emit: Emit = ignore
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True)
class JobOutcome:
    """What a job leaves for its caller.

    Attributes
    ----------
    output : str
        Run directory.
    already_complete : bool
        Nothing was done: the same run was finished before.
    summary : dict
        As in manifest.json.
    digests : dict
        As in manifest.json.
    """

    output: str
    already_complete: bool
    summary: dict[str, Any]
    digests: dict[str, str]


class StageClock:
    """Collects the seconds of each stage from the events."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, StageEnded):
            self.seconds[event.stage] = round(self.seconds.get(event.stage, 0.0) + event.seconds, 3)

    @contextmanager
    def stage(self, name: str, emit: Emit, rows: int = 0) -> Iterator[None]:
        """Time a stage that touches so many rows; emit its begin and its end."""
        started = time.perf_counter()
        emit(StageStarted(stage=name, total_rows=rows))
        yield
        emit(StageEnded(stage=name, seconds=time.perf_counter() - started))


def source_of(
    job: DataJob, weight_column: str | None = None, *, mixed: bool = False, categorical: Sequence[str] = ()
) -> Source:
    """Open the dataset of a job; ``mixed`` and ``categorical`` are for columns of numbers and categories."""
    return open_source(
        list(job.data),
        column=job.column,
        columns=job.columns,
        id_column=job.id_column,
        weight_column=weight_column,
        mixed=mixed,
        categorical=categorical,
    )


J = TypeVar("J", bound=DataJob)


def with_model_columns(job: J, model: Model) -> J:
    """Return a job that reads the columns the model was fitted on, where it names none."""
    if job.column or job.columns:
        return job
    update = {"column": model.parameters.get("column"), "columns": tuple(model.parameters.get("columns", ()))}
    return job.model_copy(update=update)


def check_width(source: Source, model: Model) -> None:
    """Raise `DataError` unless rows have as many values as the model's centres."""
    width = model.centers.shape[1]
    if source.width != width:
        raise DataError(
            f"the rows have {source.width} values, the model's centres have {width}.",
            where=source.describe_place(),
            do="Embed the rows as those that the model was fitted on, or name another column.",
        )


@dataclass(frozen=True)
class Bench:
    """What a job works with while its run directory and its engine are open."""

    run: RunDirectory
    engine: Engine
    source: Source
    refs: tuple[PartitionRef, ...]
    clock: StageClock
    emit: Emit

    def prepare(
        self, metric: Metric, precision: Literal["float32", "float64"], on_bad_rows: Literal["error", "drop"]
    ) -> PreparedData:
        """Profile and cache the rows that a model is to be fitted on."""
        return prepare(self.engine, self.source, self.refs, metric=metric, precision=precision, on_bad_rows=on_bad_rows)

    def label(self, data: PreparedData, centers: CenterSet, rule: LabelRule | None = None, top: int = 0) -> AssignStats:
        """Label the partitions that are not committed yet, by a rule or the nearest; return the statistics of all."""
        return self.labelled(
            lambda sink, done: assign(self.engine, data, centers, rule=rule, top=top, sink=sink, skip=done)
        )

    def labelled(self, label_rows: Callable[[Storage, dict[int, AssignStats]], AssignStats]) -> AssignStats:
        """Run a labelling pass over what is not committed yet; return the statistics of all.

        Parameters
        ----------
        label_rows : callable
            Takes where label files go, and the statistics of the partitions that are committed, by index.
        """
        done = committed_stats(self.run.storage)
        rows = sum(ref.n_rows for ref in self.refs if ref.index not in done)
        with self.clock.stage("label", self.emit, rows):
            stats = label_rows(self.run.storage, done)
            self._check_labels()
        self.run.storage.put("stats/labels.npz", stats.to_bytes())
        return stats

    def _check_labels(self) -> None:
        """Raise unless every partition's labels are where this process sees them."""
        seen = read_commits(self.run.storage, "labels")
        unseen = sum(ref.index not in seen for ref in self.refs)
        if unseen:
            raise StorageError(
                f"labels of {unseen} of {len(self.refs)} partitions were written but are not here: workers and driver "
                "see different directories under this path.",
                where=self.run.storage.where("labels"),
                do="Choose an output that all machines see (a shared directory, s3://...).",
            )


Work = Callable[[Bench], tuple[dict[str, Any], dict[str, str]]]
"""Does a job; returns summary and digests for the manifest."""


def run_job(
    job: DataJob, session: Session, source: Source, work: Work, *, kind: str, config: dict[str, Any], seed: int = 0
) -> JobOutcome:
    """Open the run directory and the engine, do the work, write the manifest.

    Parameters
    ----------
    job : DataJob
    session : Session
    source : Source
    work : callable
    kind : str
        As in run.json, such as ``kmeans/1``.
    config : dict
        What decides the result.
    seed : int, default=0
    """
    with RunDirectory.open(
        job.output,
        kind=kind,
        config=config,
        inputs=source.describe(),
        seed=seed,
        engine=job.engine,
        how={**job.how_keys(), "data": list(job.data)},
        overwrite=job.overwrite,
    ) as run:
        if run.state == "complete":
            manifest = run.manifest()
            return JobOutcome(job.output, True, manifest["summary"], manifest["digests"])
        clock = StageClock()

        def emit(event: Event) -> None:
            clock(event)
            run.append_event(event.as_dict())
            session.emit(event)

        if run.state == "resumed":
            emit(Note(message="An unfinished run was found; it goes on from its last checkpoint."))
        started = time.perf_counter()
        node = NodeConfig(scratch=job.scratch, memory_bytes=None if job.memory is None else job.memory // MAPPED_SHARE)
        engine = open_engine(job.engine, EngineOptions(emit=emit, cancel=session.cancel, node=node))
        try:
            refs = planned(job, engine, source, run.storage)
            summary, digests = work(Bench(run, engine, source, refs, clock, emit))
        finally:
            engine.close()
        seconds = {**clock.seconds, "total": round(time.perf_counter() - started, 3)}
        summary = {**summary, "seconds": seconds}
        forget(run.storage, LABEL_STATS)
        run.finish(summary, digests)
        return JobOutcome(job.output, False, summary, digests)


def fresh_cut(job: DataJob, engine: Engine) -> dict[str, int]:
    """Return how a new run would be cut: most bytes of a partition, and how many there are at least."""
    return {"bytes": job.target_bytes or partition_bytes(engine, job.memory), "least": 8 * engine.info.slots}


def planned(job: DataJob, engine: Engine, source: Source, storage: Storage) -> tuple[PartitionRef, ...]:
    """Cut the source; a resumed run as it was cut when it began, so that committed label files stay valid."""
    cut = fresh_cut(job, engine)
    if not storage.put_if_absent(PLAN_FILE, json.dumps(cut).encode()):
        cut = json.loads(storage.read(PLAN_FILE))
    return plan(engine, source, cut["bytes"], cut["least"])


def label_summary(data: PreparedData | MeasuredData, stats: AssignStats) -> dict[str, Any]:
    """Return the part of a summary that every labelling job has; of k-medoids the sum is called loss."""
    total = "loss" if isinstance(data, MeasuredData) else "inertia"
    return {
        "rows": int(stats.counts.sum()),
        "bad_rows": data.n_bad,
        "dimensions": data.width,
        "clusters": len(stats.counts),
        "empty_clusters": int(np.count_nonzero(stats.counts == 0)),
        total: stats.inertia.total(),
        "largest_cluster": int(stats.counts.max()),
        "smallest_cluster": int(stats.counts.min()),
    }
