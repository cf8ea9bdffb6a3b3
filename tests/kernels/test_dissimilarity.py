"""Tables of dissimilarities, against scipy, scikit-learn and plain loops."""

from __future__ import annotations

import math
import pickle

import numba
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from distclust.errors import UsageError
from distclust.kernels.dissimilarity import METRICS, Dissimilarity, dissimilarity, nearest_two, table

SCIPY = {
    "sqeuclidean": "sqeuclidean",
    "euclidean": "euclidean",
    "cosine": "cosine",
    "manhattan": "cityblock",
    "chebyshev": "chebyshev",
    "hamming": "hamming",
}
SHAPES = [(1, 1, 1), (7, 15, 3), (8, 16, 4), (9, 17, 5), (145, 33, 64), (13, 300, 7)]


def rows_for(name: str, n: int, d: int, seed: int, dtype: type = np.float64) -> tuple[Dissimilarity, np.ndarray]:
    rng = np.random.default_rng(seed)
    if name == "jaccard":
        return dissimilarity(name), rng.integers(0, 256, (n, d)).astype(np.uint8)
    if name == "haversine":
        return dissimilarity(name), rng.uniform(-1, 1, (n, 2)) * [np.pi / 2, np.pi]
    rows = rng.integers(-2, 3, (n, d)).astype(dtype) if name == "hamming" else rng.normal(size=(n, d)).astype(dtype)
    if name != "gower":
        return dissimilarity(name), rows
    rows[rng.random((n, d)) < 0.2] = np.nan
    rows[:, ::2] = np.rint(rows[:, ::2])
    return dissimilarity(name, ranges=[-1.0 if i % 2 == 0 else 5.0 + i for i in range(d)]), rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SCIPY)
def test_scipy_agrees(name: str, shape: tuple[int, int, int], dtype: type) -> None:
    n, m, d = shape
    measure, a = rows_for(name, n, d, 0, dtype)
    b = rows_for(name, m, d, 1, dtype)[1]
    b[0] = a[0]
    a[a == 0], b[b == 0] = 0.5, 0.5
    got = table(measure, a, b)
    assert got.dtype == dtype
    tolerance = 3e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(got, cdist(a.astype(float), b.astype(float), SCIPY[name]), tolerance, tolerance)
    assert got[0, 0] == 0.0


def test_packed_bits_agree_with_booleans() -> None:
    _, bits = rows_for("jaccard", 40, 13, 0)
    bits[:2] = 0
    got = table(dissimilarity("jaccard"), bits, bits[::-1].copy())
    flags = np.unpackbits(bits, axis=1).astype(bool)
    np.testing.assert_allclose(got, cdist(flags, flags[::-1], "jaccard"), 1e-15, 1e-15)
    assert got[0, -1] == 0.0


def test_arcs_on_the_sphere() -> None:
    places = np.array([[0.0, 0.0], [0.0, math.pi], [math.pi / 2, 1.0], [0.3, -2.0], [0.3, -2.0 + 1e-9], [-0.5, 3.0]])
    got = table(dissimilarity("haversine"), places, places)
    for i, (lat, lon) in enumerate(places):
        for j, (other_lat, other_lon) in enumerate(places):
            half = math.sin((lat - other_lat) / 2) ** 2
            half += math.cos(lat) * math.cos(other_lat) * math.sin((lon - other_lon) / 2) ** 2
            assert got[i, j] == pytest.approx(2 * math.asin(min(1.0, math.sqrt(half))), rel=1e-12, abs=1e-15)


def gower(x: np.ndarray, y: np.ndarray, ranges: np.ndarray, weights: np.ndarray) -> float:
    both = ~(np.isnan(x) | np.isnan(y))
    if not weights[both].sum() > 0:
        return 1.0
    apart = [abs(p - q) / r if r > 0 else float(p != q) for p, q, r in zip(x, y, ranges, strict=True)]
    return float((weights * apart)[both].sum() / weights[both].sum())


@pytest.mark.parametrize("d", [1, 4, 11])
def test_gower_by_definition(d: int) -> None:
    measure, a = rows_for("gower", 23, d, 0)
    b = rows_for("gower", 9, d, 1)[1]
    weights = np.arange(1.0, d + 1)
    measure = dissimilarity("gower", ranges=measure.ranges, weights=weights)
    want = [[gower(x, y, measure.ranges, weights) for y in b] for x in a]
    np.testing.assert_allclose(table(measure, a, b), want, 1e-14, 1e-15)


def test_gower_of_constant_column_and_of_rows_that_share_nothing() -> None:
    measure = dissimilarity("gower", ranges=[0.0, 2.0])
    rows = np.array([[3.0, 0.0], [3.0, 1.0], [np.nan, np.nan], [np.nan, 2.0]])
    assert table(measure, rows[:1], rows).tolist() == [[0.0, 0.25, 1.0, 1.0]]


def test_a_row_of_zeros_has_no_direction() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert table(dissimilarity("cosine"), rows[:2], rows).tolist() == [[0, 1, 1, 1, 0], [1, 0, 0, 2, 1]]


@pytest.mark.parametrize("name", METRICS)
def test_a_pair_has_one_value_wherever_it_lies(name: str) -> None:
    measure, rows = rows_for(name, 61, 19, 2)
    whole = table(measure, rows, rows)
    np.testing.assert_array_equal(whole, whole.T)
    if name != "gower":
        assert not whole.diagonal().any()
    for part in (slice(0, 1), slice(5, 12), slice(40, 61)):
        np.testing.assert_array_equal(table(measure, rows[part], rows[3:]), whole[part, 3:])
        np.testing.assert_array_equal(table(measure, rows, rows[part]), whole[:, part])


def test_a_function_of_the_user() -> None:
    @numba.njit
    def power(x, y):  # type: ignore[no-untyped-def]
        return (np.abs(x - y) ** 3).sum()

    def plain(x, y):  # type: ignore[no-untyped-def]
        return 1 if x[0] < y[0] else 0

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    want = (abs(a[:, None] - b) ** 3).sum(-1)
    np.testing.assert_allclose(table(dissimilarity(power), a, b), want, 1e-13)
    got = table(dissimilarity(power), a.astype(np.float32), b.astype(np.float32))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, 1e-5)
    np.testing.assert_array_equal(table(dissimilarity(plain), a, b), (a[:, :1] < b[:, 0]).astype(float))
    near = nearest_two(dissimilarity(power), a, b)[0]
    np.testing.assert_array_equal(near, want.argmin(1))


@pytest.mark.parametrize("name", ["euclidean", "gower"])
def test_measures_travel(name: str) -> None:
    measure, rows = rows_for(name, 5, 4, 0)
    again = pickle.loads(pickle.dumps(measure))
    np.testing.assert_array_equal(table(measure, rows, rows), table(again, rows, rows))


def test_out_takes_the_values_in_its_dtype() -> None:
    measure, rows = rows_for("euclidean", 20, 3, 0)
    out = np.empty((20, 20), np.float32)
    assert table(measure, rows, rows, out) is not None
    np.testing.assert_array_equal(out, table(measure, rows, rows).astype(np.float32))


@pytest.mark.parametrize("k", [1, 2, 5, 40])
@pytest.mark.parametrize("name", ["manhattan", "gower", "jaccard"])
def test_the_nearest_two(name: str, k: int) -> None:
    measure, rows = rows_for(name, 401, 2, 0)
    medoids = rows[rows_for("hamming", k, 1, 3)[1][:, 0].astype(int) + np.arange(k) * 3 + 2]
    near, near_dist, second, second_dist = nearest_two(measure, rows, medoids)
    values = table(measure, rows, medoids)
    order = np.argsort(values, axis=1, kind="stable")
    everyone = np.arange(401)
    np.testing.assert_array_equal(near, order[:, 0])
    np.testing.assert_array_equal(near_dist, values[everyone, near])
    if k == 1:
        assert set(second) == {-1}
        assert set(second_dist) == {np.inf}
    else:
        np.testing.assert_array_equal(second, order[:, 1])
        np.testing.assert_array_equal(second_dist, values[everyone, second])


def test_nearest_two_takes_blocks_of_rows() -> None:
    rng = np.random.default_rng(0)
    rows, medoids = rng.normal(size=(3001, 2)), rng.normal(size=(300, 2))
    values = table(dissimilarity("euclidean"), rows, medoids)
    near, near_dist, second, _ = nearest_two(dissimilarity("euclidean"), rows, medoids)
    np.testing.assert_array_equal(near, values.argmin(1))
    np.testing.assert_array_equal(near_dist, values.min(1))
    np.testing.assert_array_equal(second, np.argsort(values, axis=1, kind="stable")[:, 1])


def test_nothing_gives_nothing() -> None:
    measure = dissimilarity("euclidean")
    assert table(measure, np.zeros((0, 3)), np.zeros((2, 3))).shape == (0, 2)
    assert table(measure, np.zeros((2, 3)), np.zeros((0, 3))).shape == (2, 0)
    assert nearest_two(measure, np.zeros((0, 3)), np.zeros((2, 3)))[0].shape == (0,)


def test_wrong_measures_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Unknown metric 'euclidian'.*Did you mean 'euclidean'\?"):
        dissimilarity("euclidian")
    with pytest.raises(UsageError, match=r"'gower' needs the range of every column. Give ranges"):
        dissimilarity("gower")
    with pytest.raises(UsageError, match="ranges is for metric 'gower'; metric 'cosine' takes none"):
        dissimilarity("cosine", ranges=[1.0])
    with pytest.raises(UsageError, match="ranges has 1 columns, weights has 2; they must be equal"):
        dissimilarity("gower", ranges=[1.0], weights=[1.0, 2.0])
    with pytest.raises(UsageError, match="ranges must be one finite number a column"):
        dissimilarity("gower", ranges=[np.nan])
    with pytest.raises(UsageError, match="Weights of columns must be 0 or more"):
        dissimilarity("gower", ranges=[1.0], weights=[0.0])
    with pytest.raises(UsageError, match=r"'open_file' cannot be compiled by numba.*It must take two rows"):
        dissimilarity(open_file)
    with pytest.raises(UsageError, match=r"'both' returns UniTuple.*must return a number"):
        dissimilarity(both)


def open_file(x, y):  # type: ignore[no-untyped-def]
    return open(x)


def both(x, y):  # type: ignore[no-untyped-def]
    return x[0], y[0]


def test_wrong_rows_are_refused() -> None:
    measure = dissimilarity("euclidean")
    with pytest.raises(ValueError, match="b is float32"):
        table(measure, np.zeros((2, 2)), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"b is float64 of shape \(2, 3\)"):
        table(measure, np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="out is float64 of shape"):
        table(measure, np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"a is float64.*uint8"):
        table(dissimilarity("jaccard"), np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"shape \(any, 2\)"):
        table(dissimilarity("haversine"), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="medoids has no rows"):
        nearest_two(measure, np.zeros((2, 2)), np.zeros((0, 2)))
