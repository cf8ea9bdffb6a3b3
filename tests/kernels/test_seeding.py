"""Greedy k-means++ in one call, against a plain numpy version; packing, against the sums that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.algorithms import seeding
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.nearest import distance_table, pack_centers
from distclust.kernels.seeding import choose_by_table, choose_seeds


def plain(rows: np.ndarray, weights: np.ndarray, draws: np.ndarray) -> list[int]:
    wide = rows.astype(np.float64)
    current, chosen = np.full(len(rows), np.inf), []
    for number, trials in enumerate(draws):
        mass = np.cumsum(weights if number == 0 else weights * current)
        if mass[-1] <= 0:
            break
        picks = np.minimum(
            np.searchsorted(mass, trials[: 1 if number == 0 else None] * mass[-1], side="right"), len(rows) - 1
        )
        tried = np.minimum(((wide[None] - wide[picks][:, None]) ** 2).sum(axis=2), current)
        best = int(np.argmin([np.cumsum(weights * one)[-1] for one in tried]))
        current = tried[best]
        chosen.append(int(picks[best]))
    return chosen


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_seeds_are_those_of_the_plain_version(dtype: type, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 6, (80, 3)).astype(dtype)  # integers: sums are exact, and there are duplicates
    weights = rng.integers(0, 3, 80).astype(np.float64) if weighted else np.ones(80)
    draws = rng.random((20, 4))
    assert choose_seeds(rows, weights, draws).tolist() == plain(rows, weights, draws)


def test_no_row_is_chosen_twice_and_rows_of_no_weight_never() -> None:
    rows = np.repeat(np.arange(5.0)[:, None], 4, axis=0)
    weights = (np.arange(20) < 16).astype(np.float64)
    found = choose_seeds(rows, weights, np.random.default_rng(0).random((20, 3)))
    assert sorted(rows[found, 0].tolist()) == [0.0, 1.0, 2.0, 3.0]


def by_table(rows: np.ndarray, weights: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Choose by the table of all products, as `choose_by_table` asks for it."""
    packed = pack_centers(rows)
    products = distance_table(rows, packed.with_norms(np.zeros_like(packed.norms)))
    return choose_by_table(rows, products, packed.norms[: len(rows)], row_sqnorm(rows), weights, draws)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d", "k", "trials"), [(1, 2, 1, 1), (80, 3, 20, 4), (80, 1, 20, 2), (150, 20, 150, 7)])
@pytest.mark.parametrize("offset", [0, 50])
def test_seeds_by_table_are_those_of_the_plain_version(
    dtype: type, weighted: bool, n: int, d: int, k: int, trials: int, offset: int
) -> None:
    rng = np.random.default_rng([n, d, weighted])
    rows = (rng.integers(0, 6, (n, d)) + offset).astype(dtype)  # with an offset, products cancel
    rows[n // 2 :] = rows[rng.integers(0, n // 2 + 1, n - n // 2)]
    weights = rng.integers(0, 3, n).astype(np.float64) if weighted else np.ones(n)
    weights[0] = 1.0
    draws = rng.random((k, trials))
    expected = plain(rows, weights, draws)
    found = by_table(rows, weights, draws)
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert (weights[found] > 0).all()
    if (n, d, k) == (80, 1, 20):
        assert len(found) == 6, "there are no more distinct rows"


@pytest.mark.parametrize("name", ["rows", "products", "norms", "sqnorms", "weights", "draws"])
def test_tables_of_other_shapes_and_types_are_refused(name: str) -> None:
    arrays = {
        "rows": np.ones((4, 2), np.float32),
        "products": np.full((4, 4), -4, np.float32),
        "norms": np.full(4, 2, np.float32),
        "sqnorms": np.full(4, 2.0),
        "weights": np.ones(4),
        "draws": np.full((3, 2), 0.5),
    }
    assert choose_by_table(**arrays).tolist() == [2]
    with pytest.raises(ValueError, match=rf"^{name} is int16 "):
        choose_by_table(**arrays | {name: arrays[name].astype(np.int16)})
    if name not in ("rows", "draws"):
        with pytest.raises(ValueError, match=rf"^{name} is float.*shape \(3,.*\(4(, 4)?\) is needed"):
            choose_by_table(**arrays | {name: arrays[name][1:]})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_seeds_are_the_same_with_the_table_and_without(
    dtype: type, offset: float, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(300, 20)) + offset).astype(dtype)
    rows[250:] = rows[:50]
    weights = rng.integers(0, 4, 300) * rng.random(300) if weighted else np.ones(300)
    calls = []

    def counted(*arguments: np.ndarray) -> np.ndarray:
        calls.append(len(arguments[0]))
        return choose_by_table(*arguments)

    monkeypatch.setattr(seeding, "choose_by_table", counted)
    for seed in range(5):
        with_table = seeding.greedy_kmeans_plus_plus(rows, weights, 60, seed=seed, stage=0)
        assert calls == [300] * (seed + 1)
        with monkeypatch.context() as without:
            without.setattr(seeding, "TABLE_ROWS", 0)
            expected = seeding.greedy_kmeans_plus_plus(rows, weights, 60, seed=seed, stage=0)
        assert calls == [300] * (seed + 1)
        assert with_table.shape == (60, 20)
        assert len(np.unique(with_table, axis=0)) == 60
        assert with_table.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "d"), [(1, 1), (16, 3), (17, 65), (100, 33)])
def test_norms_are_summed_in_float64_dimension_by_dimension(dtype: type, k: int, d: int) -> None:
    centers = (np.random.default_rng(k).normal(size=(k, d)) * 1e3).astype(dtype)
    packed = pack_centers(centers)
    squares = centers.T.astype(np.float64) ** 2
    assert packed.norms[:k].tobytes() == np.add.accumulate(squares, axis=0)[-1].astype(dtype).tobytes()
    assert np.isinf(packed.norms[k:]).all()
    side_by_side = packed.panels.transpose(1, 0, 2).reshape(d, -1)
    assert np.array_equal(side_by_side[:, :k], centers.T)
    assert not side_by_side[:, k:].any()
