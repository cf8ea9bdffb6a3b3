"""The command line itself: help, version, start-up, progress, schema, numbers as text."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel
from rich.console import Console
from typer.testing import Result

from distclust import __version__
from distclust.cli import text
from distclust.cli.failures import EXIT_CODES
from distclust.cli.progress import BarProgress, LineProgress, Stage, shown_progress
from distclust.config import AssignJob, EvaluateJob, KMeansJob, SweepJob
from distclust.engines.events import (
    IterationEnded,
    LikelihoodEnded,
    Note,
    StageEnded,
    StageStarted,
    TaskEnded,
    TaskRetried,
)
from tests.jobs.conftest import subprocess_environment

SLOW_TO_IMPORT = ("numba", "pyarrow", "scipy", "sklearn", "dask", "distributed", "pyspark", "pandas")
SHARED_FLAGS = ("--column", "--columns", "--id-column", "--engine", "--memory", "--scratch", "--json")
README = Path(__file__).resolve().parents[2] / "README.md"


def pass_ended(iteration: int, inertia: float = 10.0) -> IterationEnded:
    return IterationEnded(
        stage="lloyd", iteration=iteration, inertia=inertia, shift=0.1, moved=3, reassigned=0, seconds=0.1, rows=9
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["kmeans", "--help"], ["schema"]])
def test_front_commands_import_nothing_slow(arguments: list[str]) -> None:
    program = f"""
import sys
from distclust.cli.main import main
sys.argv = ["distclust", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {SLOW_TO_IMPORT!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=subprocess_environment()
    )
    assert done.stderr.strip() == "[]"


def test_version(cli: Callable[..., Result]) -> None:
    assert cli("--version").stdout == f"distclust {__version__}\n"


def test_help_names_every_command_and_exit_code(cli: Callable[..., Result]) -> None:
    shown = cli("--help").output
    others = ("evaluate", "sweep", "inspect", "plan", "resume", "verify", "run", "schema", "demo")
    for command in ("kmeans", "assign", *others):
        assert command in shown
    words = " ".join(shown.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in words


def test_readme_has_the_exit_codes() -> None:
    lines = README.read_text().splitlines()
    for code, meaning in EXIT_CODES.items():
        assert any(line.startswith(f"| {code} | {meaning}") for line in lines), code


@pytest.mark.parametrize(
    ("command", "model", "hidden"),
    [
        ("kmeans", KMeansJob, {"data", "kind"}),
        ("assign", AssignJob, {"data", "kind", "model"}),
        ("sweep", SweepJob, {"data", "kind", "id_column"}),
        ("evaluate", EvaluateJob, {"run"}),
    ],
)
def test_every_key_of_a_job_is_a_flag_with_its_description(
    cli: Callable[..., Result], command: str, model: type[BaseModel], hidden: set[str]
) -> None:
    shown = " ".join(cli(command, "--help").output.replace("│", " ").split())
    for name, field in model.model_fields.items():
        if name not in hidden:
            assert field.description, name
            flag = f"-{field.alias}" if field.alias else f"--{name.replace('_', '-')}"
            assert f" {flag} " in shown


@pytest.mark.parametrize("command", ["kmeans", "assign", "plan"])
def test_flags_are_the_same_in_every_command(cli: Callable[..., Result], command: str) -> None:
    shown = cli(command, "--help").output
    for flag in SHARED_FLAGS:
        assert f"{flag} " in shown


def test_schema_describes_all_jobs(cli: Callable[..., Result]) -> None:
    schema = json.loads(cli("schema").stdout)
    assert set(schema["$defs"]) == {
        "KMeansJob",
        "SweepJob",
        "BisectJob",
        "KMedoidsJob",
        "GMMJob",
        "PPPJob",
        "AssignJob",
    }
    assert schema["$defs"]["KMeansJob"]["additionalProperties"] is False
    assert schema["$defs"]["KMeansJob"]["anyOf"] == [{"required": ["k"]}, {"required": ["warm_start"]}]
    assert "k" in schema["$defs"]["BisectJob"]["required"]
    for model in schema["$defs"].values():
        assert "output" in model["required"]


def test_a_mixture_shows_its_likelihood() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append)
    progress(StageStarted(stage="mixture", total_rows=1000, max_passes=20))
    progress(LikelihoodEnded(stage="mixture", iteration=2, log_likelihood=-3.5, change=0.1, reg_covar=0.0, seconds=1.0))
    progress(StageEnded(stage="mixture", seconds=2.0))
    assert lines == ["mixture   2 passes  log-likelihood -3.5  2.0 s"]


def test_a_line_for_each_stage_and_remark() -> None:
    lines: list[str] = []
    progress = LineProgress(lines.append)
    progress(StageStarted(stage="lloyd", total_rows=1000, max_passes=20))
    progress(TaskEnded(label="lloyd", rows=1000, seconds=0.1))
    progress(pass_ended(1, 12.5))
    progress(TaskRetried(label="lloyd", reason="worker lost", attempt=1))
    progress(Note(message="2 bad row(s) dropped"))
    progress(StageEnded(stage="lloyd", seconds=2.0))
    progress(StageEnded(stage="write", seconds=0.5))
    assert lines == [
        "lloyd: a task is tried again (attempt 2): worker lost",
        "2 bad row(s) dropped",
        "lloyd     1 pass  inertia 12.5  2.0 s  500 rows/s",
        "write     0.5 s",
    ]


def test_share_and_time_left_of_a_stage() -> None:
    stage = Stage("lloyd", pass_rows=100, max_passes=10, began=0.0)
    assert stage.seconds_left(5.0) is None
    stage.take(TaskEnded(label="lloyd", rows=50, seconds=1.0))
    assert stage.share == pytest.approx(0.05)
    stage.take(TaskEnded(label="lloyd", rows=50, seconds=1.0))
    stage.take(pass_ended(7))  # six passes before a resume
    assert stage.share == pytest.approx(0.7)
    assert stage.seconds_left(2.0) == pytest.approx(6.0)
    assert stage.describe(2.0) == "pass 7 of at most 10  inertia 10  50 rows/s  ETA ≤ 6.0 s"
    stage.take(TaskEnded(label="lloyd", rows=1000, seconds=1.0))
    assert stage.share is None, "more passes than announced: how many is unknown"


def test_a_live_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with shown_progress(console) as emit:
        assert isinstance(emit, BarProgress)
        emit(StageStarted(stage="lloyd", total_rows=100, max_passes=10))
        emit(TaskEnded(label="lloyd", rows=100, seconds=0.1))
        emit(pass_ended(3))
        time.sleep(0.2)  # the bar is drawn ten times a second
        emit(StageEnded(stage="lloyd", seconds=1.0))
    assert "pass 3 of at most 10" in screen.getvalue()
    assert "lloyd     3 passes" in screen.getvalue()


def test_numbers_as_text() -> None:
    assert text.count_text(64900) == "64 900"
    assert [text.amount_text(n, "pass") for n in (1, 2000)] == ["1 pass", "2 000 passes"]
    assert [text.amount_text(n, "row") for n in (0, 1)] == ["0 rows", "1 row"]
    assert [text.bytes_text(size) for size in (999, 2048, 26004685)] == ["999 bytes", "2.0 KB", "24.8 MB"]
    assert [text.seconds_text(s) for s in (0.04, 200, 7500)] == ["0.0 s", "3 min 20 s", "2 h 05 min"]
    assert [text.rate_text(rows, 2.0) for rows in (0, 100, 3_000)] == ["", "50 rows/s", "1.5k rows/s"]
    assert text.rate_text(5e6, 2.0) == "2.5M rows/s"
