"""Gaussian mixtures on the command line: files, soft labels, projections, resume, labels of new rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.mixture
from scipy.stats import multivariate_normal
from typer.testing import Result

from distclust.artifacts.mixture import load_mixture
from distclust.artifacts.model import load_model
from distclust.config import GMMJob
from distclust.engines.events import Event, LikelihoodEnded
from distclust.engines.protocol import CancelToken
from distclust.errors import CancelledError, StorageError
from distclust.stats.gaussian import GaussianStats
from distclust.workflows.common import Session
from distclust.workflows.gmm import run_gmm
from tests.jobs.conftest import BLOBS, ROWS, WIDTH, digests, subprocess_environment, write_rows

COVARIANCES = ["full", "tied", "diag", "spherical"]


@pytest.fixture
def gmm(cli: Callable[..., Result], dataset: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run ``gmm`` into ``tmp_path / "out"``, with further arguments."""

    def call(*more: object) -> Result:
        return cli("gmm", dataset, "--column", "embedding", "-k", BLOBS, "-o", tmp_path / "out", *more)

    return call


def rows_of(dataset: Path) -> np.ndarray:
    lists = pq.read_table(dataset, columns=["embedding"]).column("embedding").combine_chunks()
    return lists.flatten().to_numpy().reshape(-1, WIDTH).astype(float)


def test_a_run_leaves_components_and_soft_labels(gmm: Callable[..., Result], dataset: Path, tmp_path: Path) -> None:
    result = gmm("--covariance-type", "full", "--top", "3", "--id-column", "key", "--engine", "local[2]")
    assert result.exit_code == 0, result.output
    out, X = tmp_path / "out", rows_of(dataset)
    for said in (f"{out} is complete", "mixture     full, 139 parameters", "BIC", f"{out}/model/mixture.parquet"):
        assert said in result.stdout
    stages = [line.split()[0] for line in result.stderr.splitlines()]
    assert stages == ["profile", "cache", "seed", "lloyd", "start", "mixture", "label", "write"]
    stored = pq.read_table(out / "model" / "mixture.parquet").to_pydict()
    labels = pq.read_table(out / "labels").to_pydict()
    joint = np.stack(
        [
            np.log(weight) + multivariate_normal(mean, np.reshape(spread, (WIDTH, WIDTH))).logpdf(X)
            for weight, mean, spread in zip(stored["weight"], stored["mean"], stored["covariance"], strict=True)
        ],
        axis=1,
    )
    density = np.logaddexp.reduce(joint, axis=1)
    assert labels["log_density"] == pytest.approx(density, rel=1e-9, abs=1e-7)
    assert labels["cluster"] == joint.argmax(axis=1).tolist()
    assert labels["probability"] == pytest.approx(np.exp(joint.max(axis=1) - density), abs=1e-6)
    assert np.array(labels["components"]).shape == (ROWS, 3)
    assert [row[0] for row in labels["components"]] == labels["cluster"]
    shares = np.exp(np.take_along_axis(joint, np.array(labels["components"]), axis=1) - density[:, None])
    assert np.array(labels["responsibilities"]) == pytest.approx(shares, abs=1e-6)
    assert (np.diff(labels["responsibilities"], axis=1) <= 0).all()
    distance = np.linalg.norm(X - np.array(stored["mean"])[labels["cluster"]], axis=1)
    assert labels["distance"] == pytest.approx(distance, rel=1e-5)
    assert labels["key"][:2] == ["row-0", "row-1"]


@pytest.mark.parametrize("kind", COVARIANCES)
def test_likelihood_and_criteria_are_those_of_the_model(
    gmm: Callable[..., Result], dataset: Path, tmp_path: Path, kind: str
) -> None:
    summary = json.loads(gmm("--covariance-type", kind, "--json").stdout)["summary"]
    model = load_model(tmp_path / "out")
    stored = load_mixture(tmp_path / "out", model.parameters["mixture"])
    theirs = sklearn.mixture.GaussianMixture(BLOBS, covariance_type=kind, random_state=0).fit(rows_of(dataset))
    assert stored.covariances.shape == theirs.covariances_.shape
    assert summary["log_likelihood"] == pytest.approx(theirs.score(rows_of(dataset)), rel=1e-2)
    assert summary["bic"] == pytest.approx(theirs.bic(rows_of(dataset)), rel=1e-2)
    assert summary["icl"] >= summary["bic"]
    assert summary["history"][-1]["iteration"] == summary["iterations"]
    stats = GaussianStats.from_bytes((tmp_path / "out" / "stats" / "mixture.npz").read_bytes())
    assert stats.n_rows == ROWS


@pytest.mark.parametrize("more", [(), ("--pca", "3", "--zscore"), ("--pca", "0.9"), ("--zscore",)])
def test_new_rows_are_labelled_as_the_model_says(
    gmm: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    trained = digests(gmm("--json", "--top", "2", *more))
    again = digests(cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "again", "--json"))
    assert again == {name: trained[name] for name in ("centers", "labels")}
    first, second = (pq.read_table(tmp_path / name / "labels") for name in ("out", "again"))
    assert first.equals(second)
    assert cli("verify", tmp_path / "out").exit_code == 0
    assert cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "four", "--top", "4").exit_code == 0
    lists = pq.read_table(tmp_path / "four" / "labels").column("components").to_pylist()
    assert [row[:2] for row in lists] == first.column("components").to_pylist()
    assert f"{ROWS} × {WIDTH}\n" in cli("inspect", tmp_path / "again").stdout


def test_engines_and_partitions_agree(gmm: Callable[..., Result]) -> None:
    how = ("--json", "--pca", "4", "--top", "1")
    one = digests(gmm(*how, "--engine", "local[1]"))
    assert digests(gmm(*how, "--overwrite", "--engine", "local[3]", "--target-bytes", "2KB")) == one


@pytest.mark.parametrize("more", [{}, {"zscore": True, "pca": 0.99}])
def test_a_stopped_run_goes_on_with_the_same_bits(
    gmm: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    settings = {"tol": 0.0, "max_iter": 6, **more}
    flags = [
        part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", value) if part is not True
    ]
    whole = json.loads(gmm("--json", *flags).stdout)
    cancel = CancelToken()

    def emit(event: Event) -> None:
        if isinstance(event, LikelihoodEnded) and event.iteration == 3:
            cancel.cancel()

    job = GMMJob(data=str(dataset), column="embedding", k=BLOBS, output=str(tmp_path / "stopped"), **settings)
    with pytest.raises(CancelledError):
        run_gmm(job, Session(emit, cancel))
    shown = cli("inspect", tmp_path / "stopped").stdout
    assert "gmm/1, unfinished" in shown
    assert "log-likelihood" in shown
    resumed = json.loads(cli("resume", tmp_path / "stopped", "--json").stdout)
    assert resumed["digests"] == whole["digests"]
    for key in ("log_likelihood", "bic", "iterations", "projection"):
        assert resumed["summary"][key] == whole["summary"][key]


def test_principal_axes_are_stated_and_means_lie_among_the_rows(
    gmm: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    result = gmm("--pca", "0.99")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if "projection" in line]
    axes, of, share = line.split()[1], line.split()[3], float(line.split("axes, ")[1].split("%")[0])
    assert (int(axes) < WIDTH, of, share >= 99) == (True, str(WIDTH), True)
    centers = pq.read_table(tmp_path / "out" / "model" / "centers.parquet").to_pydict()
    X, labels = rows_of(dataset), np.array(pq.read_table(tmp_path / "out" / "labels").column("cluster"))
    for cluster, vector in zip(centers["cluster"], centers["vector"], strict=True):
        assert vector == pytest.approx(X[labels == cluster].mean(axis=0), abs=1.0)
    refused = cli("evaluate", tmp_path / "out")
    assert refused.exit_code == 2
    assert "labels of projected rows cannot be scored" in refused.stderr


def test_a_run_without_projection_can_be_scored(
    gmm: Callable[..., Result], cli: Callable[..., Result], tmp_path: Path
) -> None:
    inertia = json.loads(gmm("--json").stdout)["summary"]["inertia"]
    found = cli("evaluate", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert f"{inertia:.6g}" in found.stdout


def test_wide_rows_get_covariances_that_they_can_pay_for(cli: Callable[..., Result], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(size=(600, 5)) + 8 * rng.integers(0, 3, (600, 1))
    wide = (low @ rng.normal(size=(5, 384)) + 0.05 * rng.normal(size=(600, 384))).astype(np.float32)
    np.save(tmp_path / "wide.npy", wide)

    def kind(*more: object) -> dict[str, object]:
        command = ("gmm", tmp_path / "wide.npy", "-k", "3", "-o", tmp_path / "wide", "--overwrite", "--json", *more)
        found: dict[str, object] = json.loads(cli(*command).stdout)["summary"]
        return found

    assert kind()["covariance_type"] == "spherical"
    projected = kind("--pca", "0.95")
    assert projected["covariance_type"] == "full"
    assert projected["projection"]["components"] <= 5  # type: ignore[index]
    assert projected["projection"]["of"] == 384  # type: ignore[index]


def test_a_singular_covariance_is_reported(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_rows(tmp_path / "equal.parquet", np.full((50, 3), 2.0, np.float32))
    command = ("gmm", tmp_path / "equal.parquet", "--column", "embedding", "-k", "2", "-o", tmp_path / "out")
    result = cli(*command, "--reg-covar", "0", "--covariance-type", "full")
    assert result.exit_code == 0, result.output
    assert "A covariance is singular: reg_covar was raised to" in result.stderr
    assert "a covariance was singular" in result.stdout


def test_the_job_file_of_a_scheduler(dataset: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "jobs/gmm.py",
        dataset,
        "--column",
        "embedding",
        "-k",
        "2",
        "-o",
        tmp_path / "out",
        "--json",
    ]
    done = subprocess.run(
        [str(part) for part in command], env=subprocess_environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["summary"]["clusters"] == 2


def test_damaged_files_and_bad_settings_are_refused(
    gmm: Callable[..., Result], cli: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    gmm()
    balanced = cli("assign", tmp_path / "out", dataset, "--balanced", "-o", tmp_path / "even")
    assert balanced.exit_code == 2
    assert "a mixture labels rows by probability" in balanced.stderr
    path = tmp_path / "out" / "model" / "mixture.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    result = cli("assign", tmp_path / "out", dataset, "-o", tmp_path / "labels")
    assert result.exit_code == StorageError.exit_code
    assert "mixture.parquet: is not the file that model.json describes" in result.stderr
    path.unlink()
    with pytest.raises(StorageError, match=r"mixture\.parquet: is missing"):
        load_mixture(tmp_path / "out", {"digest": "", "covariance_type": "full"})
    for flags, said in (
        (("--pca", "1.5"), "a number of components, at least 1, or a share of the variance between 0 and 1"),
        (("--pca", "7", "--overwrite"), "pca == 7, must be a number of components, 1 to 6"),
        (("--covariance-type", "round"), "covariance_type"),
        (("--top", "9", "--overwrite"), "top == 9, the mixture has 5 components"),
        (("--reg-covar", "-1"), "reg_covar"),
    ):
        result = gmm(*flags)
        assert result.exit_code == 2, flags
        assert said in result.stderr
