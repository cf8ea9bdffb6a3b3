"""The one door from the command line to what takes long to import (numba, pyarrow), opened when a command needs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from distclust.cli.demo.show import Demo
    from distclust.cli.inspection import RunView
    from distclust.cli.plan import PlanView
    from distclust.cli.verification import Verification
    from distclust.config import AnyJob, EvaluateJob, KMeansJob
    from distclust.engines.events import Emit
    from distclust.engines.protocol import CancelToken
    from distclust.workflows.common import JobOutcome
    from distclust.workflows.evaluate import RunScores


def shown_progress(console: Console) -> AbstractContextManager[Emit]:
    """See `distclust.cli.progress.shown_progress`."""
    shown: AbstractContextManager[Emit] = import_module("distclust.cli.progress").shown_progress(console)
    return shown


def cancel_token() -> CancelToken:
    """Return a token that nobody has cancelled."""
    token: CancelToken = import_module("distclust.engines.protocol").CancelToken()
    return token


def run_job(job: AnyJob, emit: Emit, cancel: CancelToken) -> JobOutcome:
    """Run a job by the workflow of its kind."""
    session = import_module("distclust.workflows.common").Session(emit, cancel)
    workflow = import_module(f"distclust.workflows.{job.kind}")
    outcome: JobOutcome = getattr(workflow, f"run_{job.kind}")(job, session)
    return outcome


def evaluate_run(job: EvaluateJob, emit: Emit, cancel: CancelToken) -> RunScores:
    """See `distclust.workflows.evaluate.run_evaluate`."""
    session = import_module("distclust.workflows.common").Session(emit, cancel)
    scores: RunScores = import_module("distclust.workflows.evaluate").run_evaluate(job, session)
    return scores


def plan_job(job: KMeansJob) -> PlanView:
    """See `distclust.cli.plan.plan_job`."""
    view: PlanView = import_module("distclust.cli.plan").plan_job(job)
    return view


def inspect_run(output: str) -> RunView:
    """See `distclust.cli.inspection.inspect_run`."""
    view: RunView = import_module("distclust.cli.inspection").inspect_run(output)
    return view


def ppp_report(output: str) -> dict[str, Any]:
    """See `distclust.workflows.ppp.load_report`."""
    report: dict[str, Any] = import_module("distclust.workflows.ppp").load_report(output)
    return report


def is_run(output: str) -> bool:
    """See `distclust.cli.inspection.is_run`."""
    found: bool = import_module("distclust.cli.inspection").is_run(output)
    return found


def resumed_job(output: str, changes: dict[str, Any]) -> AnyJob:
    """See `distclust.cli.inspection.resumed_job`."""
    job: AnyJob = import_module("distclust.cli.inspection").resumed_job(output, changes)
    return job


def verify_output(output: str) -> Verification:
    """See `distclust.cli.verification.verify_output`."""
    found: Verification = import_module("distclust.cli.verification").verify_output(output)
    return found


def run_demo(
    directory: str | None, *, n_clusters: int, limit: int, overwrite: bool, say: Callable[[str], None]
) -> Demo:
    """See `distclust.cli.demo.show.run_demo`."""
    shown: Demo = import_module("distclust.cli.demo.show").run_demo(
        directory, n_clusters=n_clusters, limit=limit, overwrite=overwrite, say=say
    )
    return shown
