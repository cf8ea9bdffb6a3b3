"""What goes wrong: one message that says where and what, and an exit code of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from distclust import errors
from distclust.cli import late
from distclust.cli.failures import EXIT_CODES
from tests.jobs.conftest import BLOBS, ROWS, write_rows


def check(result: Result, code: int, *said: str) -> None:
    """Compare the exit code, and look for words in the one message."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    for words in said:
        assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_column_names_the_nearest(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = cli("kmeans", dataset, "--column", "embeding", "-k", 2, "-o", tmp_path / "out")
    check(result, 2, "a.parquet", "'embeding'", "Did you mean 'embedding'?")
    assert not (tmp_path / "out").exists()


def test_missing_file(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    missing = dataset / "c.parquet"
    check(cli("kmeans", missing, "-k", 2, "-o", tmp_path / "out"), 3, str(missing), "no such file")


def test_empty_file_among_good_ones(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    (dataset / "c.parquet").touch()
    check(cli("kmeans", dataset, "--column", "embedding", "-k", 2, "-o", tmp_path / "out"), 3, "c.parquet")


def test_more_clusters_than_rows(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = cli("kmeans", dataset, "--column", "embedding", "-k", ROWS + 1, "-o", tmp_path / "out")
    check_last_line(result, 3, str(ROWS), str(ROWS + 1))


def test_more_clusters_than_distinct_rows(cli: Callable[..., Result], tmp_path: Path) -> None:
    path = write_rows(tmp_path / "few.parquet", np.repeat(np.eye(3, dtype=np.float32), 20, axis=0))
    command = ("kmeans", path, "--column", "embedding", "-k", 5, "-o")
    check_last_line(cli(*command, tmp_path / "no"), 3, "3 distinct rows", "5 clusters", "--allow-fewer")
    fewer = cli(*command, tmp_path / "yes", "--allow-fewer")
    assert fewer.exit_code == 0, fewer.output
    assert "clusters    3, largest 20, smallest 20" in fewer.stdout


def test_bad_rows_are_an_error_or_dropped(cli: Callable[..., Result], tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    rows[17, 2] = np.nan
    path = write_rows(tmp_path / "rows.parquet", rows)
    command = ("kmeans", path, "--column", "embedding", "-k", 2, "-o")
    check_last_line(
        cli(*command, tmp_path / "no"), 3, "rows.parquet", "value 2 of the vector is NaN", "--on-bad-rows drop"
    )
    dropped = cli(*command, tmp_path / "yes", "--on-bad-rows", "drop")
    assert dropped.exit_code == 0, dropped.output
    assert "1 bad row(s) dropped" in dropped.stderr
    assert "dropped     1 bad row\n" in dropped.stdout


def check_last_line(result: Result, code: int, *said: str) -> None:
    """Compare the exit code of a run that began, and look for words in its last line."""
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for words in said:
        assert words in last


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "cosin"], ("metric == 'cosin'", "'cosine'")),
        (["--seed", "-1"], ("seed == '-1'",)),
        (["--max-iter", "many"], ("max_iter == 'many'",)),
        (["--memory", "3 parrots"], ("'3 parrots' is not a size", "256MB")),
        (["--memory", "1KB"], ("64MB",)),
        (["--engine", "locl"], ("'locl'", "Did you mean 'local'?")),
        (["--column", "embedding", "--columns", "x0,x1"], ("column",)),
    ],
)
def test_options_are_checked(
    cli: Callable[..., Result], dataset: Path, tmp_path: Path, arguments: list[str], said: tuple[str, ...]
) -> None:
    command = ["kmeans", dataset, "-k", BLOBS, "-o", tmp_path / "out"]
    if "--columns" not in arguments:
        command += ["--column", "embedding"]
    check(cli(*command, *arguments), 2, *said)


def test_several_faults_are_named_at_once(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = cli("kmeans", dataset, "-k", 0, "--tol", "x", "-o", tmp_path / "out")
    check(result, 2, "k == '0'", "tol == 'x'")


def test_unknown_flag_and_missing_flag_are_usage(cli: Callable[..., Result], dataset: Path) -> None:
    assert cli("kmeans", dataset, "--colum", "a", "-k", 2, "-o", "out").exit_code == 2
    assert cli("kmeans", dataset).exit_code == 2


def test_job_file_faults(cli: Callable[..., Result], tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    check(cli("run", job), 2, str(job), "cannot be read")
    job.write_text("kind = ")
    check(cli("run", job), 2, str(job), "not a TOML file")
    job.write_text('kind = "kmean"\n')
    check(cli("run", job), 2, str(job), "Did you mean 'kmeans'?")
    job.write_text('kind = "kmeans"\ndata = "x"\nk = 3\noutput = "o"\ncolum = "a"\n')
    check(cli("run", job), 2, str(job), "unknown key 'colum'", "Did you mean 'column'?")


@pytest.mark.parametrize("command", ["resume", "inspect", "verify"])
def test_commands_on_a_run_refuse_what_is_none(cli: Callable[..., Result], dataset: Path, command: str) -> None:
    check(cli(command, dataset), 2, str(dataset), "no run of distclust")


def test_a_directory_with_other_files_is_refused(cluster: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    check(cluster(), 2, "thesis.tex")


def test_labels_that_workers_wrote_elsewhere_are_missed(
    cluster: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distclust.workflows.common.read_commits", lambda *_: {})
    check_last_line(cluster(), 7, "labels of", "not here", "s3://")


@pytest.mark.parametrize(
    "kind", [errors.UsageError, errors.DataError, errors.EngineLostError, errors.QualityGateError, errors.StorageError]
)
def test_exit_codes_are_those_of_the_errors(
    cluster: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, kind: type[errors.DistclustError]
) -> None:
    def fail(*_: object) -> None:
        raise kind("the reason.", where="the place", do="The cure.")

    monkeypatch.setattr(late, "run_job", fail)
    result = cluster()
    assert result.exit_code == kind.exit_code
    assert result.stderr == "error: the place: the reason. The cure.\n"
    assert kind.exit_code in EXIT_CODES


def test_an_unexpected_exception_is_short_and_long_with_debug(
    cluster: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(late, "run_job", fail)
    check(cluster(), 1, "ZeroDivisionError: by nothing", "--debug")
    assert "Traceback" in cluster("--debug").stderr
    monkeypatch.setenv("DISTCLUST_DEBUG", "1")
    debugged = cluster()
    assert "Traceback" in debugged.stderr
    assert debugged.exit_code == 1
