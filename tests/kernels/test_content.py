"""Digests of arrays: of parts they add up to that of the whole, and no two arrays share one."""

from __future__ import annotations

import numpy as np
import pytest

from distclust.kernels.content import digest_values


def oracle(values: np.ndarray, first: int) -> int:
    """Add up the splitmix64 hashes, in whole numbers of Python."""
    mask, total = 2**64 - 1, 0
    bits = values.reshape(-1).view(np.uint32 if values.dtype == np.float32 else np.uint64)
    for place, word in enumerate(bits.tolist(), first + 1):
        z = (word + place * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        total += z ^ (z >> 31)
    return total & mask


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5), (40, 33)])
def test_is_the_sum_of_hashes(dtype: str, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for first in (0, 1, 2**40):
        assert digest_values(values, first) == oracle(values, first)


@pytest.mark.parametrize("cut", [0, 1, 13, 20])
def test_parts_add_up(cut: int) -> None:
    values = np.random.default_rng(1).normal(size=(20, 7)).astype(np.float32)
    parts = digest_values(values[:cut]) + digest_values(values[cut:], first=cut * 7)
    assert parts % 2**64 == digest_values(values)


def test_tells_every_bit_and_place() -> None:
    values = np.zeros((6, 4), np.float32)
    seen = {digest_values(values)}
    for place in range(values.size):
        for bit in range(32):
            changed = values.copy()
            changed.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
            seen.add(digest_values(changed))
    assert len(seen) == 1 + values.size * 32


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^values is int64 of shape \(2, 2\).*float32 or float64"):
        digest_values(np.ones((2, 2), np.int64))
