"""The commands: each turns what was typed into a job or a question, asks the workflows, and prints the answer."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import typer

from distclust.cli import late
from distclust.cli.explanation import explanation_lines
from distclust.cli.options import (
    JSON,
    Given,
    data_argument,
    job_values,
    options_of,
    switch,
    takes,
    text_argument,
    text_option,
)
from distclust.cli.report import demo_lines, inspect_lines, outcome_dict, outcome_lines, plan_lines, verify_lines
from distclust.cli.scores import evaluation_lines
from distclust.cli.session import run_shown, shown
from distclust.config import (
    AnyJob,
    AssignJob,
    BisectJob,
    DataJob,
    EvaluateJob,
    GMMJob,
    KMeansJob,
    KMedoidsJob,
    PPPJob,
    SweepJob,
    checked,
    job_schema,
    load_job,
    parse_job,
)
from distclust.errors import DataError, UsageError

DEMO_CLUSTERS = 40
DEMO_DOCUMENTS = 20_000

_HOW = ("engine", "memory", "scratch", "overwrite", "output", "checkpoint_seconds")
_HOW_OF_RESUME = ("engine", "memory", "scratch", "checkpoint_seconds")
_NOT_PLANNED = ("output", "overwrite", "checkpoint_seconds", "warm_start")
_OUT = text_argument("out", "OUT", "Run directory, or URI.")


@takes(data_argument(KMeansJob), *options_of(KMeansJob), JSON)
def kmeans(given: Given) -> None:
    """Cluster a dataset by k-means: model, labels, manifest.

    A run that was stopped goes on from its last checkpoint; a complete one is left as it is.
    """
    _run(_job("kmeans", given), given)


@takes(data_argument(BisectJob), *options_of(BisectJob), JSON)
def bisect(given: Given) -> None:
    """Cluster a dataset by bisecting k-means: a tree of clusters, labels, manifest.

    Clusters are split in two until there are -k. Cheaper than kmeans where -k is large, at a higher inertia; nothing is
    drawn. Stops and goes on as kmeans does.
    """
    _run(_job("bisect", given), given)


@takes(data_argument(GMMJob), *options_of(GMMJob), JSON)
def gmm(given: Given) -> None:
    """Fit a Gaussian mixture: components, soft labels, manifest.

    Labels are the most probable components, with probability and log density; --top lists more. Wide rows (embeddings)
    want --pca. Stops and goes on as kmeans does.
    """
    _run(_job("gmm", given), given)


@takes(data_argument(PPPJob), *options_of(PPPJob), JSON)
def ppp(given: Given) -> None:
    """Find clusters that validate themselves: no -k, no seed; verdicts and reasons.

    Mixtures propose clusters, the rows have to show a valley between any two. `distclust explain OUT` prints why each
    was accepted or refused. Stops and goes on as kmeans does.
    """
    _run(_job("ppp", given), given)


@takes(data_argument(KMedoidsJob), *options_of(KMedoidsJob), JSON)
def kmedoids(given: Given) -> None:
    """Cluster a dataset by k-medoids, under any dissimilarity: model, labels, manifest.

    Clusters are stood for by rows of the dataset. Columns of numbers and categories, with missing values, are compared
    by --metric gower. Stops and goes on as kmeans does.
    """
    _run(_job("kmedoids", given), given)


@takes(
    text_argument("model", "MODEL", "Run directory or model directory."),
    data_argument(AssignJob),
    *options_of(AssignJob, without=["model"]),
    JSON,
)
def assign(given: Given) -> None:
    """Label a dataset with the model of a run."""
    _run(_job("assign", given), given)


@takes(data_argument(SweepJob), *options_of(SweepJob, without=["id_column"]), JSON)
def sweep(given: Given) -> None:
    """Run k-means with several k at once, and score them: a table and a plot to choose k by.

    All k share their passes over the rows; each gets the bits of `kmeans` with that k.
    """
    _run(_job("sweep", given), given)


@takes(
    text_argument("run", "RUN", "Run directory of a finished kmeans or assign."),
    text_option("data", ("--data",), "DATA", EvaluateJob.model_fields["data"].description or ""),
    *options_of(EvaluateJob, without=["run"]),
    JSON,
)
def evaluate(given: Given) -> None:
    """Score the labels of a finished run: silhouettes, Davies-Bouldin, Calinski-Harabasz, balance, a truth column.

    Writes nothing, unless an output is given.
    """
    job = checked(EvaluateJob, _absolute(job_values(given)))
    scores = shown(lambda emit, token: late.evaluate_run(job, emit, token))
    _print(given, scores.as_dict(), evaluation_lines(scores))


@takes(
    text_argument("job", "JOB.toml", "Job file; keys as in `distclust schema`."),
    *options_of(DataJob, only=_HOW, optional=True),
    JSON,
)
def run(given: Given) -> None:
    """Run a job file.

    Options replace what it says about how it runs. Relative paths in it are of the current directory.
    """
    job = load_job(given["job"])
    changes = {name: value for name, value in given.items() if name in _HOW}
    _run(parse_job(_absolute({**job.model_dump(mode="json", by_alias=True), **changes}), where=given["job"]), given)


@takes(_OUT, *options_of(KMeansJob, only=_HOW_OF_RESUME, optional=True), JSON)
def resume(given: Given) -> None:
    """Go on with a run that was stopped or killed.

    The result has the bits of a run that never was. Options replace what the run said about how it runs.
    """
    changes = {name: value for name, value in given.items() if name in _HOW_OF_RESUME}
    _run(late.resumed_job(given["out"], _absolute(changes)), given)


@takes(data_argument(KMeansJob), *options_of(KMeansJob, without=_NOT_PLANNED), JSON)
def plan(given: Given) -> None:
    """Say what `kmeans` would do, without doing it: partitions, bytes, memory, passes, what travels.

    The engine is opened, since partitions depend on its slots and memory; of files, footers are read. Nothing is
    run or written.
    """
    # A plan has no output; the job that it is made for does.
    view = late.plan_job(KMeansJob.model_validate(_job("kmeans", {**given, "output": os.devnull})))
    _print(given, view.as_dict(), plan_lines(view))


@takes(_OUT, JSON)
def inspect(given: Given) -> None:
    """Print a run: state, settings, history, largest clusters, files."""
    view = late.inspect_run(given["out"])
    _print(given, view.as_dict(), inspect_lines(view))


@takes(_OUT, JSON)
def explain(given: Given) -> None:
    """Print why the clusters of a finished ppp are what they are: verdicts, splits, columns, clusterability."""
    report = late.ppp_report(given["out"])
    _print(given, report, explanation_lines(report))


@takes(_OUT, JSON)
def verify(given: Given) -> None:
    """Hash every file of a run again and compare; exit code 3 if one differs."""
    found = late.verify_output(given["out"])
    _print(given, found.as_dict(), verify_lines(found))
    if found.failed:
        raise typer.Exit(DataError.exit_code)


@takes()
def schema(given: Given) -> None:
    """Print the JSON schema of job files."""
    print(json.dumps(job_schema(), indent=2))


@takes(
    text_option("k", ("-k",), "INTEGER", f"Number of clusters. Default: {DEMO_CLUSTERS}."),
    text_option("output", ("--output", "-o"), "DIR", "Where documents and run go; default: a new temporary one."),
    text_option("docs", ("--docs",), "INTEGER", f"Most documents. Default: {DEMO_DOCUMENTS}."),
    switch("overwrite", "Replace a demonstration of other settings."),
    JSON,
)
def demo(given: Given) -> None:
    """Cluster real text: the docstrings of this machine's Python.

    Needs no network and no server. Docstrings become hashed TF-IDF, a random projection to 256 dimensions and
    Parquet; then the main job runs on the local engine.
    """
    shown = late.run_demo(
        given.get("output"),
        n_clusters=_at_least_one("-k", given.get("k", DEMO_CLUSTERS)),
        limit=_at_least_one("--docs", given.get("docs", DEMO_DOCUMENTS)),
        overwrite="overwrite" in given,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    _print(given, {**outcome_dict(shown.outcome), **shown.as_dict()}, demo_lines(shown))


def _job(kind: str, given: Given) -> AnyJob:
    return parse_job(_absolute({"kind": kind, **job_values(given)}))


def _run(job: AnyJob, given: Given) -> None:
    outcome = run_shown(job)
    _print(given, outcome_dict(outcome), outcome_lines(outcome))


def _absolute(values: dict[str, Any]) -> dict[str, Any]:
    """Make local paths absolute, so that a run can be resumed from anywhere; the output stays as it was typed."""
    changed = dict(values)
    if "data" in values:
        typed = values["data"]
        changed["data"] = [_absolute_path(path) for path in ([typed] if isinstance(typed, str) else typed)]
    for name in ("model", "warm_start", "scratch"):
        if values.get(name):
            changed[name] = _absolute_path(values[name])
    return changed


def _absolute_path(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _at_least_one(name: str, value: object) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"{name} is {text!r}; an integer of at least 1 is needed.")
    return int(text)


def _print(given: Given, values: dict[str, Any], lines: list[str]) -> None:
    print(json.dumps(values, indent=2) if "json" in given else "\n".join(lines))
