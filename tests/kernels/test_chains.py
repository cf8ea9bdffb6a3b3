"""Chains of moves against the optimum of the same flow problem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from distclust.kernels.chains import ChainEnds, move_along_chains


def problem(rng: np.random.Generator, k: int, n: int) -> tuple[np.ndarray, ...]:
    """Rows at places, each with proposals for some of the others; supply and room."""
    own = rng.integers(0, k, n)
    proposals = [
        (own[row], target, int(rng.integers(0, 50)), row)
        for row in range(n)
        for target in rng.permutation(k)[: int(rng.integers(0, k))]
        if target != own[row]
    ]
    proposals.sort()
    sources, targets, regrets, rows = (np.array(column) for column in zip(*proposals, strict=True))
    sizes = np.bincount(own, minlength=k)
    supply, room = np.zeros(k, np.int64), np.zeros(k, np.int64)
    for place in range(k):
        if place % 2:
            supply[place] = rng.integers(0, sizes[place] + 1)
        else:
            room[place] = rng.integers(0, 6)
    return sources.astype(np.int32), targets.astype(np.int32), regrets.astype(float), rows, supply, room


def optimum(problem: tuple[np.ndarray, ...], need: int) -> float:
    """Least regret of moving ``need`` rows, each row by one of its proposals at most."""
    sources, targets, regrets, rows, supply, room = problem
    q, k = len(sources), len(supply)
    out, into = np.zeros((k, q)), np.zeros((k, q))
    out[sources, np.arange(q)] = 1
    into[targets, np.arange(q)] = 1
    one = np.zeros((rows.max() + 1, q))
    one[rows, np.arange(q)] = 1
    at_most = np.concatenate([out - into, into - out, one])
    limits = np.concatenate([supply, room, np.ones(len(one))])
    ends = supply > 0
    found = linprog(
        regrets, A_ub=at_most, b_ub=limits, A_eq=(out - into)[ends].sum(axis=0)[None], b_eq=[need], bounds=(0, 1)
    )
    return float(found.fun)


def open_ends(supply: np.ndarray, room: np.ndarray, need: int) -> ChainEnds:
    """Ends that cost nothing."""
    return ChainEnds(supply, room, np.zeros(len(supply)), np.zeros(len(supply)), need, np.inf)


@given(seed=st.integers(0, 10**6))
def test_chains_are_cheap_and_lawful(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = problem(rng, int(rng.integers(3, 7)), int(rng.integers(10, 40)))
    sources, targets, regrets, rows, supply, room = case
    need = int(min(supply.sum(), room.sum()))
    left, free, moved_to = supply.copy(), room.copy(), np.full(rows.max() + 1, -1, np.int32)
    used, cost = move_along_chains(sources, targets, regrets, rows, open_ends(left, free, need), 0.0, moved_to)
    assert supply.sum() - left.sum() == room.sum() - free.sum() == used <= need
    assert (left >= 0).all()
    assert (free >= 0).all()
    chosen = np.flatnonzero(moved_to[rows] == targets)
    assert len(chosen) == np.count_nonzero(moved_to >= 0), "rows go where they proposed"
    change = np.bincount(targets[chosen], minlength=len(room)) - np.bincount(sources[chosen], minlength=len(room))
    assert np.array_equal(change, (room - free) - (supply - left)), "only the ends of chains change"
    assert regrets[chosen].sum() == cost
    if used:
        # Without arcs back, a chain cannot undo an earlier one: the sum may lie a little above the optimum.
        assert cost <= 1.5 * optimum(case, used) + 25


def test_a_full_place_passes_rows_on() -> None:
    # Directly it would cost 100; by way of place 1, which gives up a row of its own, 3.
    sources, targets = np.array([0, 0, 1], np.int32), np.array([1, 2, 2], np.int32)
    supply, room, moved_to = np.array([1, 0, 0]), np.array([0, 0, 1]), np.full(2, -1, np.int32)
    regrets, ends = np.array([1.0, 100.0, 2.0]), open_ends(supply, room, 1)
    assert move_along_chains(sources, targets, regrets, np.array([0, 0, 1]), ends, 0.0, moved_to) == (1, 3.0)
    assert moved_to.tolist() == [1, 2]


def test_a_chain_is_used_again_while_it_stays_cheap() -> None:
    sources, targets = np.zeros(6, np.int32), np.array([1, 1, 1, 2, 2, 2], np.int32)
    regrets, rows = np.array([1.0, 1.5, 4.0, 1.2, 1.3, 1.4]), np.arange(6)

    def moved(step: float) -> list[int]:
        moved_to = np.full(6, -1, np.int32)
        ends = open_ends(np.array([3, 0, 0]), np.array([0, 3, 3]), 3)
        move_along_chains(sources, targets, regrets, rows, ends, step, moved_to)
        return np.flatnonzero(moved_to >= 0).tolist()

    assert moved(0.0) == [0, 3, 4]
    assert moved(1.0) == [0, 1, 3]


def test_nothing_to_do_and_nowhere_to_go() -> None:
    empty = np.empty(0, np.int32)
    ends, no_rows = open_ends(np.array([2, 0]), np.array([0, 2]), 2), np.empty(0, np.int64)
    assert move_along_chains(empty, empty, np.empty(0), no_rows, ends, 0.0, empty.copy()) == (0, 0.0)
    with pytest.raises(ValueError, match="regrets"):
        move_along_chains(empty, empty, np.empty(1), no_rows, ends, 0.0, empty.copy())


def test_the_ends_cost_and_dear_chains_are_left() -> None:
    sources, targets = np.array([0, 0, 1, 1], np.int32), np.array([2, 3, 2, 3], np.int32)
    regrets, rows = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 2, 3])

    def moved(most: float) -> tuple[list[int], float]:
        moved_to = np.full(4, -1, np.int32)
        ends = ChainEnds(
            np.array([2, 2, 0, 0]), np.array([0, 0, 2, 2]), np.array([9.0, 0, 0, 0]), np.array([0, 0, 5.0, 0]), 4, most
        )
        _, cost = move_along_chains(sources, targets, regrets, rows, ends, 0.0, moved_to)
        return moved_to.tolist(), cost

    assert moved(np.inf) == ([2, 3, 2, 3], 4 + 8 + 11 + 15)
    assert moved(11.0) == ([-1, -1, 2, 3], 4 + 8)
