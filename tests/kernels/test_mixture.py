"""Densities, responsibilities and sums against scipy; sums that do not depend on order, units that do not overflow."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from distclust.kernels.linear import cholesky_upper, congruence, inverse_upper
from distclust.kernels.mixture import (
    LEVEL_BITS,
    Form,
    Grid,
    MixtureSums,
    PackedMixture,
    grid_for,
    mixture_rows,
    mixture_sums,
    pack_mixture,
    responsibilities,
)
from tests.kernels.mixture_digest import digest

FORMS: tuple[Form, ...] = ("full", "axis", "tied")
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Case:
    """A mixture, and what scipy says of rows under it."""

    packed: PackedMixture
    means: np.ndarray
    factors: np.ndarray
    weights: np.ndarray
    covariances: np.ndarray

    def log_joint(self, x: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                np.log(w) + np.reshape(multivariate_normal(m, s).logpdf(x.astype(float)), len(x))
                for w, m, s in zip(self.weights, self.means, self.covariances, strict=True)
            ],
            axis=1,
        )


def case(rng: np.random.Generator, form: Form, d: int, k: int) -> Case:
    means, half = rng.normal(size=(k, d)), rng.normal(size=(k, d, d))
    covariances = half @ half.transpose(0, 2, 1) / d + np.eye(d) * 0.3
    if form == "tied":
        covariances[:] = covariances[0]
    if form == "axis":
        covariances *= np.eye(d)
    weights = rng.dirichlet(np.ones(k))
    factors = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    diagonal = np.diagonal(factors, axis1=1, axis2=2)
    log_norms = np.log(weights) + np.log(diagonal).sum(axis=1) - d / 2 * np.log(2 * np.pi)
    chosen = {"full": factors, "tied": factors[0], "axis": diagonal}[form]
    return Case(pack_mixture(form, log_norms, means, chosen), means, factors, weights, covariances)


def real(levels: np.ndarray, unit: float) -> np.ndarray:
    return np.tensordot(2.0 ** (LEVEL_BITS * np.arange(len(levels))), levels.astype(float), 1) * unit


def added(a: MixtureSums, b: MixtureSums) -> MixtureSums:
    def total(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        out = np.zeros((max(len(u), len(v)), *u.shape[1:]), np.int64)
        out[: len(u)] += u
        out[: len(v)] += v
        return out

    return MixtureSums(*(total(u, v) for u, v in zip(a[:-1], b[:-1], strict=True)), a.doubt + b.doubt)


def assert_same(a: MixtureSums, b: MixtureSums) -> None:
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (777, 1, 2), (1000, 5, 3), (333, 33, 4), (31, 16, 7), (33, 4, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_densities_and_sums_are_those_of_scipy(form: Form, n: int, d: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(n + d)
    mixture, x = case(rng, form, d, k), (rng.normal(size=(n, d)) * 2).astype(dtype)
    weights = rng.random(n)
    grid = grid_for(n, 1.0, d)
    joint = mixture.log_joint(x)
    density = logsumexp(joint, axis=1)
    r = np.exp(joint - density[:, None])
    rows = mixture_rows(x, mixture.packed)
    assert responsibilities(x, mixture.packed) == pytest.approx(r, abs=1e-11)
    assert rows.log_density == pytest.approx(density, rel=1e-11, abs=1e-9)
    assert np.array_equal(rows.labels, r.argmax(axis=1))
    assert rows.probability == pytest.approx(r.max(axis=1), abs=1e-11)
    sums = mixture_sums(x, weights, mixture.packed, grid)
    wr = weights[:, None] * r
    assert sums.mass * grid.mass_unit == pytest.approx(wr.sum(axis=0), rel=1e-11)
    assert float(real(sums.log_density, grid.unit)) == pytest.approx((weights * density).sum(), rel=1e-9)
    assert sums.doubt * grid.mass_unit == pytest.approx(-(weights * np.log(r.max(axis=1))).sum(), abs=1e-9)
    for c in range(k):
        y = (x - mixture.means[c]) @ mixture.factors[c]
        products = (y * wr[:, c : c + 1]).T @ y
        wanted = products[np.triu_indices(d)] if form == "full" else np.diagonal(products)
        assert real(sums.first, grid.unit)[c] == pytest.approx(wr[:, c] @ y, abs=1e-8)
        assert real(sums.second, grid.unit)[c] == pytest.approx(wanted, rel=1e-9, abs=1e-8)


@settings(max_examples=15)
@given(
    form=st.sampled_from(FORMS),
    d=st.integers(1, 9),
    k=st.integers(1, 5),
    n=st.integers(0, 700),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.0, 1.0, 1e4, 1e9]),
)
def test_any_order_and_cut_gives_the_same_sums(form: Form, d: int, k: int, n: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    mixture = case(rng, form, d, k)
    x = np.round(rng.normal(size=(n, d)) * 4) / 4  # many ties in rounding, were there any
    x[: n // 10] *= spread
    weights = rng.integers(0, 3, n) / 2.0
    grid = grid_for(max(n, 1), 1.0, d)
    whole = mixture_sums(x, weights, mixture.packed, grid)
    order = rng.permutation(n)
    cut = int(rng.integers(0, n + 1))
    parts = [
        mixture_sums(np.ascontiguousarray(x[rows]), weights[rows], mixture.packed, grid)
        for rows in (order[:cut], order[cut:])
    ]
    assert_same(added(*parts), whole)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("distance", [1e3, 1e6, 1e12])
def test_far_rows_keep_their_digits_and_those_of_the_others(form: Form, distance: float) -> None:
    rng = np.random.default_rng(3)
    d, k, n = 4, 2, 900
    mixture, x = case(rng, form, d, k), rng.normal(size=(n, d))
    grid = grid_for(n + 1, 1.0, d)
    near = mixture_sums(x, None, mixture.packed, grid)
    far_row = np.full((1, d), distance)
    far = mixture_sums(far_row, None, mixture.packed, grid)
    both = mixture_sums(np.concatenate([x, far_row]), None, mixture.packed, grid)
    assert len(near.first) == 1
    assert len(both.first) > 1
    assert_same(added(near, far), both)
    c = int(mixture_rows(far_row, mixture.packed).labels[0])
    y = (far_row[0] - mixture.means[c]) @ mixture.factors[c]
    wanted = np.outer(y, y)[np.triu_indices(d)] if form == "full" else y**2
    assert real(far.second, grid.unit)[c] == pytest.approx(wanted, rel=1e-6)
    assert real(far.first, grid.unit)[c] == pytest.approx(y, rel=1e-6), "in units of its own size"


def test_rows_farther_than_any_level_are_refused() -> None:
    packed = pack_mixture("axis", np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))
    with pytest.raises(OverflowError, match=r"10\^25 standard deviations"):
        mixture_sums(np.full((1, 1), 1e40), None, packed, grid_for(1, 1.0, 1))


def test_given_responsibilities_replace_those_of_the_mixture() -> None:
    rng = np.random.default_rng(4)
    mixture, x = case(rng, "full", 3, 2), rng.normal(size=(500, 3))
    grid, labels = grid_for(500, 1.0, 3), rng.integers(0, 3, 500)
    shares = (labels[:, None] == np.arange(2)).astype(float)
    sums = mixture_sums(x, None, mixture.packed, grid, shares)
    assert (sums.mass * grid.mass_unit).tolist() == shares.sum(axis=0).tolist()
    assert not sums.log_density.any()
    for c in range(2):
        y = (x[labels == c] - mixture.means[c]) @ mixture.factors[c]
        assert real(sums.first, grid.unit)[c] == pytest.approx(y.sum(axis=0))


def test_rows_and_weights_fill_the_units_at_most() -> None:
    # The most that can come together: 2^20 rows of weight 1, all of them at the limit of level 0.
    grid = grid_for(1 << 20, 1.0, 1)
    assert (1 << 20) * grid.limit / grid.unit < 2.0**62
    assert grid.limit / grid.unit <= 2.0**50
    assert grid_for(10, 3.0, 2).weight == 4.0
    assert grid_for(10, 4.0, 2).weight == 4.0


@pytest.mark.parametrize("d", [1, 2, 7, 40])
def test_factors_are_those_of_numpy(d: int) -> None:
    rng = np.random.default_rng(d)
    half = rng.normal(size=(3, d, d + 2))
    matrices = half @ half.transpose(0, 2, 1)
    roots, positive = cholesky_upper(matrices)
    assert positive.all()
    assert roots == pytest.approx(np.linalg.cholesky(matrices).transpose(0, 2, 1), rel=1e-9, abs=1e-12)
    assert inverse_upper(roots) @ roots == pytest.approx(np.tile(np.eye(d), (3, 1, 1)), abs=1e-8)
    inner = rng.normal(size=(3, d, d))
    inner = inner + inner.transpose(0, 2, 1)
    product = congruence(roots, inner)
    assert product == pytest.approx(roots.transpose(0, 2, 1) @ inner @ roots, rel=1e-9, abs=1e-9)
    assert np.array_equal(product, product.transpose(0, 2, 1))


def test_what_has_no_root_is_told_apart() -> None:
    matrices = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[np.nan, 0.0], [0.0, 1.0]]])
    assert cholesky_upper(matrices)[1].tolist() == [True, False, False]


def test_arrays_of_another_shape_are_refused() -> None:
    packed = pack_mixture("axis", np.zeros(2), np.zeros((2, 3)), np.ones((2, 3)))
    grid = Grid(1.0, 64.0, 2.0**-40, 2.0**-40)
    with pytest.raises(ValueError, match=r"x is float64 of shape \(5, 2\).*\(any, 3\) is needed"):
        mixture_sums(np.zeros((5, 2)), None, packed, grid)
    with pytest.raises(ValueError, match=r"responsibilities is .*\(5, 2\) is needed"):
        mixture_sums(np.zeros((5, 3)), None, packed, grid, np.zeros((5, 1)))


@pytest.mark.parametrize("processor", ["haswell", "generic"])
def test_other_processors_give_the_same_bits(processor: str, tmp_path: Path) -> None:
    environment = {"NUMBA_CPU_NAME": processor, "DISTCLUST_KERNEL_CACHE": str(tmp_path)}
    if processor == "haswell":
        environment["NUMBA_CPU_FEATURES"] = ""
    command = [sys.executable, "-m", "tests.kernels.mixture_digest"]
    found = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digest()
