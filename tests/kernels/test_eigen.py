"""Eigenvalues beside numpy's, at the edges, and with bits that no number of threads changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from distclust.kernels.eigen import product, symmetric_eigen


@given(
    st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1e-160, 1e-8, 1.0, 1e9, 1e150]), st.integers(0, 40)
)
def test_values_and_vectors_are_numpys(d: int, seed: int, size: float, missing: int) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((d, max(1, d - missing)))
    matrix = size * (factor @ factor.T)
    values, vectors = symmetric_eigen(matrix)
    top = np.abs(matrix).max()
    assert np.allclose(values, np.linalg.eigvalsh(matrix), rtol=0, atol=1e-13 * d * top)
    assert np.allclose(vectors.T @ vectors, np.eye(d), rtol=0, atol=1e-12)
    assert np.allclose((vectors * values) @ vectors.T, matrix, rtol=0, atol=1e-13 * d * top)
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((5, 5)), np.eye(4), np.diag([3.0, 1.0, 2.0, 1.0]), np.ones((6, 6)), np.outer(*[np.arange(9.0)] * 2)],
)
def test_repeated_and_zero_values(matrix: np.ndarray) -> None:
    values, vectors = symmetric_eigen(matrix)
    assert values == pytest.approx(np.linalg.eigvalsh(matrix), abs=1e-12)
    assert (vectors * values) @ vectors.T == pytest.approx(matrix, abs=1e-12)
    assert vectors.T @ vectors == pytest.approx(np.eye(len(matrix)), abs=1e-12)


def test_largest_entries_are_positive_and_stacks_are_taken() -> None:
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((7, 5, 5))
    stack += np.swapaxes(stack, 1, 2).copy()
    values, vectors = symmetric_eigen(stack)
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    for matrix, value, vector in zip(stack, values, vectors, strict=True):
        alone = symmetric_eigen(matrix)
        assert np.array_equal(alone[0], value)
        assert np.array_equal(alone[1], vector)


def test_only_the_lower_triangle_is_read() -> None:
    matrix = np.array([[2.0, 7.0], [1.0, 3.0]])
    assert np.array_equal(symmetric_eigen(matrix)[0], symmetric_eigen(np.array([[2.0, 1.0], [1.0, 3.0]]))[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="matrices must be finite"):
        symmetric_eigen(np.array([[1.0, bad], [bad, 1.0]]))


def test_no_number_of_threads_changes_a_bit() -> None:
    """What numpy's own does: at this size its last bits are others with one thread."""
    factor = np.random.default_rng(3).standard_normal((300, 300))
    matrix = product(factor, factor.T)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(symmetric_eigen(matrix))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


def test_products() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((3, 5))
    assert product(a, b) == pytest.approx(a @ b)
    assert product(np.empty((0, 3)), b).shape == (0, 5)
    with pytest.raises(ValueError, match=r"b is .*\(3, any\) is needed"):
        product(a, a)
