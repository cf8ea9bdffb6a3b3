"""Counter-based numbers: golden values, range, uniformity, independence of order."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.random import count_below, hash_rows, uniform
from tests.kernels import oracles

IDS = np.asarray([0, 1, 2, 3, 10**9, 2**62, -1], np.int64)


def test_hash_is_splitmix64() -> None:
    assert [int(h) for h in hash_rows(IDS)] == [oracles.splitmix64(int(i) % 2**64) for i in IDS]
    # First output of the published generator for state 0.
    assert int(hash_rows(np.zeros(1, np.int64))[0]) == 0xE220A8397B1DCDAF


def test_hash_has_no_ties() -> None:
    assert len(np.unique(hash_rows(np.arange(100_000)))) == 100_000


@pytest.mark.parametrize(
    ("seed", "stage", "expected"),
    [
        (0, 0, [0.2732407721080824, 0.44206873514701317, 0.24546109100954705, 0.3824437401425992]),
        (1, 0, [0.9336513771497473, 0.8684876759102478, 0.8586178136988607, 0.9061687641479247]),
        (0, 1, [0.5736339204497786, 0.6062332797610667, 0.21357299218162196, 0.6194279052775957]),
        (2**64 - 1, 2**64 - 1, [0.9203437621993943, 0.890504672496571, 0.27374069541326107, 0.5484052820005976]),
    ],
)
def test_golden_values(seed: int, stage: int, expected: list[float]) -> None:
    assert uniform(seed, stage, IDS[:4]).tolist() == expected


def test_uniform_is_the_mix_of_seed_stage_and_row() -> None:
    for seed, stage in ((0, 0), (7, 3), (2**64 - 1, 12)):
        step = (0x9E3779B97F4A7C15 * stage) & oracles.MASK
        key = oracles.splitmix64((oracles.splitmix64(seed) + step) & oracles.MASK)
        mixed = [mix_keyed(oracles.splitmix64(int(i) % 2**64), key) for i in IDS]
        assert uniform(seed, stage, IDS).tolist() == [(m >> 11) * 2.0**-53 for m in mixed]


def mix_keyed(value: int, key: int) -> int:
    return oracles.splitmix64((value + key - 0x9E3779B97F4A7C15) & oracles.MASK)


def test_range_and_uniformity() -> None:
    numbers = uniform(5, 1, np.arange(200_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.bincount((numbers * 100).astype(int), minlength=100)
    # Chi-square with 99 degrees of freedom: 200 is beyond 7 standard deviations.
    assert ((counts - 2000.0) ** 2 / 2000.0).sum() < 200
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("other", [(6, 1), (5, 2), (1, 5), (5 + 2**32, 1)])
def test_keys_are_independent(other: tuple[int, int]) -> None:
    rows = np.arange(100_000)
    assert abs(np.corrcoef(uniform(5, 1, rows), uniform(*other, rows))[0, 1]) < 0.02


def test_numbers_are_independent_of_hash_order() -> None:
    rows = np.arange(100_000)
    order = np.argsort(hash_rows(rows))
    assert abs(uniform(0, 0, rows)[order[:5000]].mean() - 0.5) < 0.02


def test_a_number_belongs_to_its_row() -> None:
    rows = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(uniform(3, 4, rows), uniform(3, 4, np.arange(1000))[rows])
    assert uniform(3, 4, np.empty(0, np.int64)).shape == (0,)


@pytest.mark.parametrize(("seed", "stage"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_keys_beyond_64_bits_are_refused(seed: int, stage: int) -> None:
    with pytest.raises(ValueError, match=r"0 to 2\*\*64 - 1 is allowed"):
        uniform(seed, stage, IDS)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_counting_rows_below_a_hash(n: int) -> None:
    ids = np.arange(n)
    ids = ids[np.argsort(hash_rows(ids))]
    hashes = [int(value) for value in hash_rows(ids)]
    limits = [0, 1, 1 << 63, (1 << 64) - 1, 1 << 64, *hashes[:3], *(value + 1 for value in hashes[-3:])]
    assert [count_below(ids, limit) for limit in limits] == [sum(h < limit for h in hashes) for limit in limits]
