"""k-medoids in memory: published examples, PAM, seeds, the choice of k, refusals."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distclust.algorithms.medoid_seeds import INITS, first_medoids
from distclust.algorithms.medoids import (
    MATRIX_METHODS,
    check_matrix,
    choose_k,
    dissimilarity_matrix,
    solve_clarans,
    solve_matrix,
)
from distclust.errors import DataError, UsageError
from distclust.kernels.dissimilarity import dissimilarity

# tests/test_kmedoids.py of python-kmedoids
FIVE = np.array([[0, 2, 3, 4, 5], [2, 0, 6, 7, 8], [3, 6, 0, 9, 10], [4, 7, 9, 0, 11], [5, 8, 10, 11, 0]], float)


def blobs(n: int, k: int, seed: int = 0, d: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(k, d))[rng.integers(0, k, n)] * 8 + rng.normal(size=(n, d))


def loss_of(matrix: np.ndarray, medoids: Any, weights: np.ndarray | None = None) -> float:
    near = matrix[np.asarray(medoids)].min(axis=0)
    return float((near if weights is None else near * weights).sum())


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_the_five_by_five_example(method: Any) -> None:
    found = solve_matrix(FIVE, 2, method=method)
    assert found.loss == 9
    assert found.converged


@pytest.mark.parametrize("method", MATRIX_METHODS)
def test_the_lower_triangle_example(method: Any) -> None:
    # src/fasterpam.rs of rust-kmedoids: from rows 0 and 1, two swaps
    matrix = np.zeros((5, 5))
    matrix[np.tril_indices(5, -1)] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    found = solve_matrix(matrix + matrix.T, 2, method=method, init=np.array([0, 1]))
    assert found.loss == 4
    assert found.medoids.tolist() == [0, 3]
    assert found.n_swaps == (2 if method == "fasterpam" else 1)


@pytest.mark.parametrize("method", MATRIX_METHODS)
@pytest.mark.parametrize("init", INITS)
def test_one_medoid_is_the_most_central_row(method: Any, init: Any) -> None:
    matrix = cdist(blobs(40, 3), blobs(40, 3))
    found = solve_matrix(matrix, 1, method=method, init=init)
    assert found.medoids.tolist() == [matrix.sum(axis=1).argmin()]
    assert found.loss == pytest.approx(matrix.sum(axis=1).min())
    assert found.silhouette == 0


def test_fasterpam_is_at_most_one_percent_above_pam_on_200_instances() -> None:
    ratios = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(10, 60)), int(rng.integers(2, 8))
        points = rng.normal(size=(n, 2)) + 4 * rng.integers(0, 4, (n, 1))
        matrix = cdist(points, points)
        ratios.append(solve_matrix(matrix, k).loss / solve_matrix(matrix, k, method="pam").loss)
    assert max(ratios) <= 1.01
    assert np.mean(ratios) <= 1
    assert np.mean(np.array(ratios) <= 1 + 1e-12) >= 0.95


@pytest.mark.parametrize("init", INITS)
def test_pam_and_fastpam1_take_the_same_swaps(init: Any) -> None:
    for seed in range(5):
        rows = blobs(60, 5, seed)
        matrix = cdist(rows, rows)
        a, b = (solve_matrix(matrix, 6, method=method, init=init, seed=seed) for method in ("pam", "fastpam1"))
        assert a.medoids.tolist() == b.medoids.tolist()
        assert (a.n_swaps, a.n_iter, a.loss) == (b.n_swaps, b.n_iter, b.loss)


@pytest.mark.parametrize("weighted", [False, True])
def test_groups_that_lie_apart_are_found_next_to_the_optimum(weighted: bool) -> None:
    rows = blobs(24, 3)
    matrix = cdist(rows, rows)
    weights = np.random.default_rng(1).integers(1, 5, 24).astype(float) if weighted else None
    best = min(loss_of(matrix, chosen, weights) for chosen in combinations(range(24), 3))
    for found in (
        solve_matrix(matrix, 3, weights=weights),
        solve_clarans(dissimilarity("euclidean"), rows, 3, weights=weights),
    ):
        assert found.loss <= best * 1.001
        assert found.loss == pytest.approx(loss_of(matrix, found.medoids, weights))


def test_weights_are_repetitions() -> None:
    rows = blobs(50, 4, d=3)
    times = np.random.default_rng(2).integers(1, 4, 50)
    weighted = solve_matrix(cdist(rows, rows), 5, weights=times.astype(float))
    again = np.repeat(rows, times, axis=0)
    repeated = solve_matrix(cdist(again, again), 5)
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-2)
    assert weighted.silhouette == pytest.approx(repeated.silhouette, abs=1e-2)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("k", [1, 7, 30])
def test_first_medoids_are_different_rows(init: Any, k: int) -> None:
    rows = np.repeat(blobs(10, 3), 3, axis=0)
    matrix = cdist(rows, rows)
    chosen = first_medoids(matrix, k, init, seed=3)
    assert len(set(chosen.tolist())) == k
    assert chosen.min() >= 0
    assert chosen.max() < 30
    assert chosen.tolist() == first_medoids(matrix, k, init, seed=3).tolist()


def test_better_first_medoids_than_random_ones() -> None:
    losses = dict.fromkeys(INITS, 0.0)
    for seed in range(10):
        rows = blobs(300, 12, seed)
        matrix = cdist(rows, rows)
        for init in INITS:
            losses[init] += loss_of(matrix, first_medoids(matrix, 12, init, seed=seed))
    assert losses["build"] < losses["lab"] < losses["random"]
    assert losses["k-means++"] < losses["random"]


def test_lab_takes_the_best_row_of_its_sample() -> None:
    matrix = cdist(blobs(20, 2), blobs(20, 2))  # 10 + sqrt(20) > 15: the sample leaves few rows out
    assert loss_of(matrix, first_medoids(matrix, 3, "lab")) <= 1.2 * loss_of(matrix, first_medoids(matrix, 3, "build"))


def test_the_number_of_groups_that_lie_apart_is_found() -> None:
    for groups in (2, 3, 5, 8):
        angle = np.arange(groups) * (2 * np.pi / groups)
        centers = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        rows = np.repeat(centers, 30, axis=0) + np.random.default_rng(groups).normal(size=(30 * groups, 2))
        best, scores = choose_k(cdist(rows, rows), 20)
        assert len(best.medoids) == groups
        assert [score.k for score in scores] == list(range(min(20, 3 * groups), 1, -1))
        assert best.silhouette == max(score.silhouette for score in scores)
        assert next(score.loss for score in scores if score.k == groups) == best.loss


def test_clarans_is_near_fasterpam_without_a_matrix() -> None:
    rows = blobs(900, 10, d=4)
    matrix = cdist(rows, rows)
    found = solve_clarans(dissimilarity("euclidean"), rows, 10, seed=1)
    assert found.converged
    assert found.loss == pytest.approx(loss_of(matrix, found.medoids))
    assert found.loss <= 1.03 * solve_matrix(matrix, 10).loss
    again = solve_clarans(dissimilarity("euclidean"), rows, 10, seed=1)
    assert again.medoids.tolist() == found.medoids.tolist()


def test_an_end_before_the_end_is_told() -> None:
    rows = blobs(200, 8)
    matrix = cdist(rows, rows)
    for method in MATRIX_METHODS:
        assert not solve_matrix(matrix, 8, method=method, init="random", max_iter=1).converged
    assert not solve_clarans(dissimilarity("euclidean"), rows, 8, max_iter=1, restarts=1).converged


def test_float32_matrices() -> None:
    rows = blobs(300, 5).astype(np.float32)
    single = solve_matrix(dissimilarity_matrix(dissimilarity("euclidean"), rows), 5)
    double = solve_matrix(cdist(rows.astype(float), rows.astype(float)), 5)
    assert single.medoids.tolist() == double.medoids.tolist()
    assert single.loss == pytest.approx(double.loss, rel=1e-6)


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_made() -> None:
    rows = np.zeros((50_000, 2))
    with pytest.raises(
        UsageError,
        match=r"X: the matrix of 50000 x 50000 dissimilarities takes 18.6 GB, 1.0 GB are allowed. Use method",
    ):
        dissimilarity_matrix(dissimilarity("euclidean"), rows, memory=1 << 30)
    assert dissimilarity_matrix(dissimilarity("euclidean"), rows[:128], memory=1 << 17).shape == (128, 128)
    with pytest.raises(UsageError, match=r"0.1 MB, 0.1 MB are allowed"):
        dissimilarity_matrix(dissimilarity("euclidean"), rows[:129], memory=1 << 17)


def test_dissimilarities_that_cannot_be_used_are_refused() -> None:
    rows = np.array([[1e20, 0.0], [0.0, 0.0]], np.float32)
    with pytest.raises(DataError, match=r"X: dissimilarities overflow float32. Scale the columns first"):
        dissimilarity_matrix(dissimilarity("sqeuclidean"), rows)
    assert np.isfinite(dissimilarity_matrix(dissimilarity("sqeuclidean"), rows.astype(float))).all()
    with pytest.raises(DataError, match=r"metric 'difference', row 0, column 1: dissimilarities must not be negative"):
        dissimilarity_matrix(dissimilarity(difference), np.array([[0.0], [1.0]]))
    with pytest.raises(DataError, match=r"metric 'rise', row 0, column 1: 0 is not 1, its mirror"):
        dissimilarity_matrix(dissimilarity(rise), np.array([[0.0], [1.0]]))


def difference(x, y):  # type: ignore[no-untyped-def]
    return x[0] - y[0]


def rise(x, y):  # type: ignore[no-untyped-def]
    return max(x[0] - y[0], 0.0)


def test_matrices_that_are_none_of_dissimilarities_are_refused() -> None:
    check_matrix(FIVE)
    check_matrix(np.zeros((0, 0)))
    with pytest.raises(DataError, match=r"must be square, not of shape \(2, 3\)"):
        check_matrix(np.zeros((2, 3)))
    for value, why in ((-1.0, "must not be negative, not -1"), (np.nan, "must be finite, not nan"), (np.inf, "finite")):
        wrong = FIVE.copy()
        wrong[3, 1] = wrong[1, 3] = value
        with pytest.raises(DataError, match=f"precomputed matrix, row 1, column 3: dissimilarities {why}|{why}"):
            check_matrix(wrong)
    wrong = FIVE.copy()
    wrong[4, 2] = 10.5
    with pytest.raises(DataError, match=r"row 2, column 4: 10 is not 10.5, its mirror; the matrix must be symmetric"):
        check_matrix(wrong)
    with pytest.raises(DataError, match=r"row 0: a row must be at 0 from itself, not at 1. Turn similarities into"):
        check_matrix(np.ones((3, 3)))
    rounded = FIVE * (1 + 1e-7 * np.random.default_rng(0).normal(size=FIVE.shape))
    check_matrix(rounded)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown method 'fastpam'.*Did you mean 'fastpam1'"):
        solve_matrix(FIVE, 2, method="fastpam")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"Unknown init 'builds'.*Did you mean 'build'"):
        solve_matrix(FIVE, 2, init="builds")
    with pytest.raises(UsageError, match=r"init is an array of float64 of shape \(2,\).*n_clusters = 2 rows"):
        solve_matrix(FIVE, 2, init=np.array([0.5, 1.0]))
    with pytest.raises(UsageError, match="init must name 2 different rows from 0 to 4"):
        solve_matrix(FIVE, 2, init=np.array([1, 1]))
    with pytest.raises(UsageError, match="init must name 2 different rows from 0 to 4"):
        solve_matrix(FIVE, 2, init=np.array([1, 5]))
