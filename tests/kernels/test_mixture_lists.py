"""Components without a share of a row: left out by definition, found by bounds that change no bit."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels import _mixture, mixture
from distclust.kernels.mixture import MixtureSums, PackedMixture, grid_for, mixture_rows, mixture_sums, pack_mixture
from tests.kernels.test_mixture import added, assert_same, case, real

SPREADS = (0.0, 1.0, 3.0, 12.0)
"""Of the means, in standard deviations or so: from one heap to far apart."""


def data(seed: int, n: int, d: int, k: int, spread: float) -> tuple[np.ndarray, PackedMixture, tuple[np.ndarray, ...]]:
    """Return rows of a mixture with covariances of its own for every component, packed and bare."""
    rng = np.random.default_rng(seed)
    base = case(rng, "full", d, k)
    means, factors = base.means * spread, base.factors * np.exp(rng.normal(size=(k, 1, 1)))
    log_norms = np.log(np.abs(np.diagonal(factors, axis1=1, axis2=2))).sum(axis=1) + np.log(base.weights)
    labels = rng.integers(0, k, n)
    roots = np.linalg.inv(factors)
    x = means[labels] + np.einsum("nj,nji->ni", rng.normal(size=(n, d)), roots[labels])
    return x, pack_mixture("full", log_norms, means, factors), (log_norms, means, factors)


def without_bounds(packed: PackedMixture) -> PackedMixture:
    return packed._replace(guesses=np.zeros((0, 0)), pairs=np.zeros((0, 0)))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 3, 4), (5, 1, 4), (700, 6, 5), (3000, 9, 12), (5000, 16, 7)])
def test_bounds_change_no_bit(n: int, d: int, k: int, spread: float) -> None:
    x, packed, _ = data(n + d, n, d, k, spread)
    x[: n // 50] *= 1e4
    grid, weights = grid_for(n, 1.0, d), np.random.default_rng(1).random(n)
    assert len(packed.pairs) == k
    plain = without_bounds(packed)
    assert_same(mixture_sums(x, weights, packed, grid), mixture_sums(x, weights, plain, grid))
    found, wanted = mixture_rows(x, packed), mixture_rows(x, plain)
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert np.array_equal(mixture.responsibilities(x, packed), mixture.responsibilities(x, plain))


@pytest.mark.parametrize("spread", SPREADS)
def test_sums_are_those_of_numpy(spread: float) -> None:
    n, d, k = 4000, 7, 6
    x, packed, (log_norms, means, factors) = data(0, n, d, k, spread)
    grid = grid_for(n, 1.0, d)
    y = np.einsum("nki,kij->nkj", x[:, None] - means, factors)
    logs = log_norms - 0.5 * np.square(y).sum(axis=2)
    best = logs.max(axis=1, keepdims=True)
    r = np.exp(logs - best)
    r[r < grid.unit / grid.limit] = 0.0
    total = r.sum(axis=1, keepdims=True)
    r /= total
    sums = mixture_sums(x, None, packed, grid)
    assert sums.mass * grid.mass_unit == pytest.approx(r.sum(axis=0), rel=1e-11)
    assert float(real(sums.log_density, grid.unit)) == pytest.approx(float((best + np.log(total)).sum()), rel=1e-10)
    products = np.einsum("nk,nki,nkj->kij", r, y, y)[:, *np.triu_indices(d)]
    assert real(sums.first, grid.unit) == pytest.approx(np.einsum("nk,nki->ki", r, y), abs=1e-8)
    assert real(sums.second, grid.unit) == pytest.approx(products, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("spread", SPREADS)
def test_any_order_and_cut_gives_the_same_sums(spread: float) -> None:
    n, d, k = 6000, 5, 8
    x, packed, _ = data(2, n, d, k, spread)
    grid, order = grid_for(n, 1.0, d), np.random.default_rng(3).permutation(n)
    whole = mixture_sums(x, None, packed, grid)
    total: MixtureSums | None = None
    for rows in np.split(order, [1, 40, 2100, 5999]):
        part = mixture_sums(np.ascontiguousarray(x[rows]), None, packed, grid)
        total = part if total is None else added(total, part)
    assert total is not None
    assert_same(total, whole)


def test_a_share_below_the_units_is_none() -> None:
    means = np.array([[0.0], [8.0], [9.0], [50.0]])
    packed = pack_mixture("full", np.zeros(4), means, np.ones((4, 1, 1)))
    r = mixture.responsibilities(np.zeros((1, 1)), packed)[0]
    assert r[1] == pytest.approx(np.exp(-32.0))
    assert r[2:].tolist() == [0.0, 0.0], "exp(-40.5) is less than 2^-50"


def test_lists_give_way_where_they_do_not_pay_and_return() -> None:
    # A heap on which every component has a share, longer than the rows without lists; then rows far apart.
    d, k = 3, 5
    means = np.arange(k)[:, None] * np.full((1, d), 40.0)
    packed = pack_mixture("full", np.zeros(k), means, np.tile(np.eye(d) * 0.05, (k, 1, 1)))
    rng = np.random.default_rng(5)
    heap = rng.normal(size=(_mixture.DENSE + 3000, d)) + means.mean(axis=0)
    x = np.concatenate([heap, rng.normal(size=(4000, d)) * 300, heap[:100]])
    grid = grid_for(len(x), 1.0, d)
    assert_same(mixture_sums(x, None, packed, grid), mixture_sums(x, None, without_bounds(packed), grid))


def test_bounds_are_left_out_where_they_do_not_pay() -> None:
    def pairs(k: int, d: int) -> int:
        return len(pack_mixture("full", np.zeros(k), np.zeros((k, d)), np.tile(np.eye(d), (k, 1, 1))).pairs)

    assert pairs(4, 2) == 4
    assert pairs(3, 2) == 0
    assert pairs(4, 129) == 0
    assert pairs(400, 2) == 0
