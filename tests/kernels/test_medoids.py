"""Swaps, seeding and silhouette of k-medoids against brute force and the published examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distclust.kernels.medoids import (
    MedoidState,
    build,
    eager_swaps,
    medoid_state,
    original_pam_swap,
    silhouette_sum,
    swap,
    swap_changes,
)

# tests/test_kmedoids.py of python-kmedoids
FIVE = np.array([[0, 2, 3, 4, 5], [2, 0, 6, 7, 8], [3, 6, 0, 9, 10], [4, 7, 9, 0, 11], [5, 8, 10, 11, 0]], float)


def lower_triangle() -> np.ndarray:
    """src/fasterpam.rs of rust-kmedoids, test of the lower triangle 1, 2, ..., 9, 1."""
    matrix = np.zeros((5, 5))
    matrix[np.tril_indices(5, -1)] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    return matrix + matrix.T


def matrix_of(n: int, seed: int, dtype: type = np.float64, columns: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if columns is None:
        points = rng.integers(0, 12, (n, 2)).astype(dtype)  # many ties
        return np.ascontiguousarray(abs(points[:, None] - points).sum(-1), dtype=dtype)
    return rng.integers(0, 50, (n, columns)).astype(dtype)


def loss_of(matrix: np.ndarray, medoids: object, weights: np.ndarray | None = None) -> float:
    near = matrix[np.asarray(medoids)].min(axis=0).astype(float)
    return float((near if weights is None else near * weights).sum())


def run_fasterpam(matrix: np.ndarray, medoids: object, weights: np.ndarray | None = None) -> tuple[MedoidState, int]:
    start = np.array(medoids, np.int64)
    state = medoid_state(start, matrix[start], weights)
    swaps = idle = 0
    while idle < len(matrix):
        more, idle = eager_swaps(matrix, np.arange(len(matrix)), state, idle, len(matrix), 10**6)
        swaps += more
    return state, swaps


def run_pam(matrix: np.ndarray, medoids: object) -> MedoidState:
    start = np.array(medoids, np.int64)
    state = medoid_state(start, matrix[start])
    while True:
        change, position, candidate = original_pam_swap(matrix, state)
        if change >= -1e-9:
            return state
        swap(state, position, candidate, matrix[candidate])


def assert_consistent(state: MedoidState, matrix: np.ndarray) -> None:
    """What the columns know is what a fresh start from the same medoids would tell."""
    np.testing.assert_array_equal(state.table, matrix[state.medoids])
    again = medoid_state(state.medoids, matrix[state.medoids], state.weights if len(state.weights) else None)
    np.testing.assert_array_equal(state.near_dist, again.near_dist)
    np.testing.assert_array_equal(state.second_dist, again.second_dist)
    everyone = np.arange(matrix.shape[1])
    np.testing.assert_array_equal(state.table[state.near, everyone], state.near_dist)
    if len(state.medoids) > 1:
        assert (state.near != state.second).all()
        np.testing.assert_array_equal(state.table[state.second, everyone], state.second_dist)


def test_the_five_by_five_example() -> None:
    start = build(FIVE, 2)
    assert loss_of(FIVE, start) == 9
    state, _ = run_fasterpam(FIVE, start)
    assert state.loss == 9
    assert run_pam(FIVE, start).loss == 9
    assert run_fasterpam(FIVE, [1, 4])[0].loss == 9


def test_the_lower_triangle_example() -> None:
    state, swaps = run_fasterpam(lower_triangle(), [0, 1])
    assert state.loss == 4
    assert swaps == 2
    assert set(state.medoids.tolist()) == {0, 3}
    labels = state.near.tolist()
    assert labels[0] == labels[1] == labels[2] != labels[3] == labels[4]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_changes_are_what_swaps_do(k: int, weighted: bool, dtype: type) -> None:
    matrix = matrix_of(23, k, dtype, columns=37)
    rng = np.random.default_rng(k)
    weights = rng.integers(0, 5, 37).astype(float) if weighted else None
    medoids = rng.permutation(23)[:k].astype(np.int64)
    state = medoid_state(medoids, matrix[medoids], weights)
    before = loss_of(matrix, medoids, weights)
    assert state.loss == before
    change, position = swap_changes(matrix, state)
    for j in range(23):
        each = [loss_of(matrix, [*np.delete(medoids, i), j], weights) - before for i in range(k)]
        if j not in medoids:
            assert change[j] == min(each)
            assert each[position[j]] == min(each)
    candidate = next(j for j in range(23) if j not in medoids)
    swap(state, int(position[candidate]), candidate, matrix[candidate])
    assert state.loss == before + change[candidate]
    assert_consistent(state, matrix)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_random_swaps_leave_the_state_right(k: int) -> None:
    matrix = matrix_of(40, k)
    rng = np.random.default_rng(k)
    state = medoid_state(np.arange(k, dtype=np.int64), matrix[:k])
    for _ in range(30):
        candidate = int(rng.choice(np.setdiff1d(np.arange(40), state.medoids)))
        swap(state, int(rng.integers(k)), candidate, matrix[candidate])
        assert_consistent(state, matrix)


def test_the_original_swap_is_the_best_of_all_pairs() -> None:
    matrix = matrix_of(15, 3)
    medoids = np.array([2, 9, 11], np.int64)
    pairs = itertools.product(np.setdiff1d(np.arange(15), medoids), range(3))
    losses = [(loss_of(matrix, [*np.delete(medoids, i), j]), j, i) for j, i in pairs]
    change, position, candidate = original_pam_swap(matrix, medoid_state(medoids, matrix[medoids]))
    low, want_candidate, want_position = min(losses)
    assert (candidate, position) == (want_candidate, want_position)
    assert change == low - loss_of(matrix, medoids)


def test_fasterpam_ends_where_no_swap_pays_and_on_average_below_pam() -> None:
    ratios = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, k = int(rng.integers(10, 60)), int(rng.integers(2, 8))
        points = rng.normal(size=(n, 2)) + 4 * rng.integers(0, 4, (n, 1))
        matrix = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
        start = build(matrix, k)
        state, _ = run_fasterpam(matrix, start)
        assert_consistent(state, matrix)
        assert swap_changes(matrix, state)[0].min() > -1e-9
        ratios.append(state.loss / run_pam(matrix, start).loss)
    assert np.mean(ratios) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_build_is_greedy(dtype: type, weighted: bool) -> None:
    for seed in range(10):
        matrix = matrix_of(31, seed, dtype, columns=None if seed % 2 else 45)
        rng = np.random.default_rng(seed)
        weights = rng.integers(1, 4, matrix.shape[1]).astype(float) if weighted else None
        chosen: list[int] = []
        for _ in range(12):
            left = [j for j in range(31) if j not in chosen]
            chosen.append(min(left, key=lambda j: (loss_of(matrix, [*chosen, j], weights), j)))
        assert build(matrix, 12, weights).tolist() == chosen


def test_equal_bits_whatever_the_blocks() -> None:
    matrix = matrix_of(50, 8)
    whole, swaps = run_fasterpam(matrix, range(6))
    state = medoid_state(np.arange(6), matrix[:6])
    ids = np.arange(50)
    total = idle = 0
    while idle < 50:
        for part in np.array_split(ids, 7):
            more, idle = eager_swaps(matrix[part], part, state, idle, 50, 10**6)
            total += more
    assert total == swaps
    for a, b in zip(whole, state, strict=True):
        np.testing.assert_array_equal(a, b)


def test_swaps_end_where_they_should() -> None:
    matrix = matrix_of(50, 8)
    state = medoid_state(np.arange(6), matrix[:6])
    assert eager_swaps(matrix, np.arange(50), state, 0, 50, 2)[0] == 2
    assert eager_swaps(matrix, np.arange(50), state, 49, 50, 9)[0] <= 1
    assert eager_swaps(matrix, np.arange(50), state, 50, 50, 9) == (0, 50)


def test_silhouette_of_medoids() -> None:
    near, second = np.array([0.0, 1.0, 0.0, 3.0]), np.array([2.0, 4.0, 0.0, np.inf])
    assert silhouette_sum(near, second) == 1 + 0.75 + 0 + 1
    assert silhouette_sum(near, second, np.array([1.0, 2.0, 3.0, 4.0])) == 1 + 1.5 + 0 + 4


def test_wrong_arguments_are_refused() -> None:
    matrix = matrix_of(5, 0)
    state = medoid_state(np.arange(2), matrix[:2])
    with pytest.raises(ValueError, match="k is 6; 1 to 5 is allowed"):
        build(matrix, 6)
    with pytest.raises(ValueError, match="medoids has no rows"):
        medoid_state(np.arange(0), matrix[:0])
    with pytest.raises(ValueError, match="block is float32"):
        swap_changes(matrix.astype(np.float32), state)
    with pytest.raises(ValueError, match=r"block is float64 of shape \(5, 4\)"):
        eager_swaps(matrix[:, :4].copy(), np.arange(5), state, 0, 5, 9)
    with pytest.raises(ValueError, match="ids is int64 of shape"):
        eager_swaps(matrix, np.arange(4), state, 0, 5, 9)
