"""k-medoids on tables of dissimilarities: swaps, seeding and the medoid silhouette.

Axis letters: k medoids, B columns (the rows of data that count, each with a weight), c candidates. Candidates and
columns may be the same rows, or candidates many and columns a sample of them. Tables are float32 or float64; losses
are summed in float64, column after column.

Sources: Kaufman & Rousseeuw, *Clustering by means of medoids*, 1987 (PAM: BUILD and SWAP); Schubert & Rousseeuw,
*Fast and eager k-medoids clustering*, 2021 (FasterPAM, FastPAM1); Minoux, *Accelerated greedy algorithms for
maximizing submodular set functions*, 1978 (BUILD's gains only fall, so most need not be taken again).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, weights_argument
from distclust.kernels._emit import LANES, address
from distclust.kernels._hits import make_places_below
from distclust.kernels._jit import jit, once
from distclust.kernels.dissimilarity import two_lowest

Array = npt.NDArray[np.floating[Any]]

_FLOATS = ("float32", "float64")

SMALLEST_GAIN = 1e-12
"""Share of the loss that a swap must gain at least: more than rounding, or two equal states could swap for ever."""


class MedoidState(NamedTuple):
    """Medoids, and what every column knows of them. The arrays are changed in place by swaps."""

    medoids: npt.NDArray[np.int64]
    """[k] ids of the medoids."""
    table: Array
    """[k, B] dissimilarities of the medoids to the columns."""
    near: npt.NDArray[np.int32]
    """[B] position of the nearest medoid, the lowest one among equals at the start."""
    near_dist: Array
    """[B]"""
    second: npt.NDArray[np.int32]
    """[B] position of the second nearest; -1 for k = 1."""
    second_dist: Array
    """[B] inf for k = 1."""
    removal: npt.NDArray[np.float64]
    """[k] what the loss would rise by without each medoid; not used for k = 1."""
    weights: npt.NDArray[np.float64]
    """[B] weights of the columns, or of length 0: all 1."""

    @property
    def loss(self) -> float:
        """Weighted sum of dissimilarities to the nearest medoid."""
        return float(_weighted_sum(self.near_dist, self.weights))


def medoid_state(
    medoids: npt.NDArray[np.int64], table: Array, weights: npt.NDArray[np.float64] | None = None
) -> MedoidState:
    """Start from medoids.

    Parameters
    ----------
    medoids : int64 [k]
        Ids of the medoids, k >= 1.
    table : float32 or float64 [k, B]
        Their dissimilarities to the columns. Copied.
    weights : float64 [B], optional
        Weights of the columns.

    Returns
    -------
    MedoidState

    Examples
    --------
    >>> state = medoid_state(np.array([0, 2]), np.array([[0.0, 1.0, 5.0], [5.0, 4.0, 0.0]]))
    >>> state.near.tolist(), state.loss, state.removal.tolist()
    ([0, 0, 1], 1.0, [8.0, 5.0])
    """
    k, b = table.shape
    if not k:
        raise ValueError("medoids has no rows; at least one is needed.")
    kept = read_argument(table, "table", _FLOATS, (k, b)).copy()
    ids = read_argument(medoids, "medoids", "int64", (k,)).copy()
    near, second = np.empty(b, np.int32), np.empty(b, np.int32)
    near_dist, second_dist = np.empty(b, kept.dtype), np.empty(b, kept.dtype)
    two_lowest(np.ascontiguousarray(kept.T), near, near_dist, second, second_dist)
    state = MedoidState(
        ids, kept, near, near_dist, second, second_dist, np.zeros(k), weights_argument(weights, b).copy()
    )
    _removal_losses(*state[2:])
    return state


def swap_changes(block: Array, state: MedoidState) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Find for every candidate the medoid that it would best replace.

    Parameters
    ----------
    block : [c, B], dtype of the state's table
        Dissimilarities of the candidates to the columns.
    state : MedoidState

    Returns
    -------
    change : float64 [c]
        Change of the loss by the candidate's best swap; below 0 is better.
    position : int32 [c]
        Position of the medoid to replace, the lowest one among equals.

    Examples
    --------
    >>> rows = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]])
    >>> state = medoid_state(np.array([0, 1]), rows[:2])
    >>> change, position = swap_changes(rows[2:], state)
    >>> change.tolist(), position.tolist()
    ([-3.0], [0])
    """
    block = _block_argument(block, state)
    change, position = np.empty(len(block)), np.empty(len(block), np.int32)
    _changes_kernel(block.dtype.name)(block, *state[1:], *_room(state), change, position)
    return change, position


def swap(state: MedoidState, position: int, medoid: int, distances: Array) -> None:
    """Put a candidate in the place of a medoid.

    Parameters
    ----------
    state : MedoidState
        Changed.
    position : int
        Position of the medoid that goes.
    medoid : int
        Id of the candidate.
    distances : [B], dtype of the state's table
        Its dissimilarities to the columns.
    """
    row = _block_argument(distances.reshape(1, -1), state)[0]
    _replace(*state, position, medoid, row)


def eager_swaps(
    block: Array, ids: npt.NDArray[np.int64], state: MedoidState, idle: int, enough: int, most: int
) -> tuple[int, int]:
    """Take candidate after candidate, and swap as soon as one lowers the loss (FasterPAM).

    Parameters
    ----------
    block : [c, B], dtype of the state's table
        Dissimilarities of the candidates to the columns.
    ids : int64 [c]
        Ids of the candidates; those that are medoids are passed over.
    state : MedoidState
        Changed.
    idle : int
        Candidates since the last swap.
    enough : int
        Stop when `idle` comes to this: the number of all candidates.
    most : int
        Swaps allowed.

    Returns
    -------
    swaps, idle : int

    Examples
    --------
    >>> rows = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]])
    >>> state = medoid_state(np.array([0, 1]), rows[:2])
    >>> eager_swaps(rows, np.arange(3), state, 0, 3, 100), state.medoids.tolist(), state.loss
    ((1, 0), [2, 1], 1.0)
    """
    block = _block_argument(block, state)
    ids = read_argument(ids, "ids", "int64", (len(block),))
    swaps, idle = _eager_kernel(block.dtype.name)(block, ids, *state, *_room(state), idle, enough, most)
    return int(swaps), int(idle)


def original_pam_swap(matrix: Array, state: MedoidState) -> tuple[float, int, int]:
    """Find the best swap as PAM of 1987 does: every pair of medoid and candidate for itself, O(k n^2).

    Parameters
    ----------
    matrix : [n, n], dtype of the state's table
    state : MedoidState
        Ids are rows of the matrix.

    Returns
    -------
    change, position, candidate : float, int, int
        The lowest change, the lowest candidate and then the lowest position among equals.
    """
    matrix = _block_argument(matrix, state)
    change, position, candidate = _original_swap(matrix, *state)
    return float(change), int(position), int(candidate)


def build(matrix: Array, k: int, weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
    """Choose medoids one after the other, each lowering the loss most (PAM's BUILD).

    A gain can only fall when medoids are added, also as computed, because rounded additions are monotone. So a
    candidate is scored again only while its last gain is the highest: the same medoids after a few passes, not k.

    Parameters
    ----------
    matrix : float32 or float64 [n, B]
        Dissimilarities of candidates to columns.
    k : int
        1 ... n.
    weights : float64 [B], optional
        Weights of the columns.

    Returns
    -------
    int64 [k]
        Rows of the matrix in the order of their choice; the lowest one among equals.

    Examples
    --------
    >>> build(np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]]), 2).tolist()
    [1, 2]
    """
    matrix = read_argument(matrix, "matrix", _FLOATS, (None, None))
    if not 1 <= k <= len(matrix):
        raise ValueError(f"k is {k}; 1 to {len(matrix)} is allowed.")
    medoids = np.empty(k, np.int64)
    limits, chosen = np.empty(matrix.shape[1], matrix.dtype), np.empty(matrix.shape[1] + LANES["float32"], np.int32)
    gains, scored = np.full(len(matrix), np.inf), np.zeros(len(matrix), np.int64)
    weights = weights_argument(weights, matrix.shape[1])
    _build_kernel(matrix.dtype.name)(matrix, weights, limits, chosen, gains, scored, medoids)
    return medoids


def silhouette_sum(near_dist: Array, second_dist: Array, weights: npt.NDArray[np.float64] | None = None) -> float:
    """Return the weighted sum of ``1 - near / second``: the medoid silhouette, before it is divided by the weight.

    Parameters
    ----------
    near_dist, second_dist : [B]
        Dissimilarities to the nearest and second nearest medoid. A column at 0 from both counts 0: nothing tells its
        cluster. With one medoid (second at inf) every column counts 1.
    weights : float64 [B], optional

    Returns
    -------
    float

    References
    ----------
    Lenssen & Schubert, *Medoid silhouette clustering with automatic cluster number selection*, 2024.

    Examples
    --------
    >>> silhouette_sum(np.array([0.0, 1.0]), np.array([2.0, 4.0]))
    1.75
    """
    near_dist = read_argument(near_dist, "near_dist", _FLOATS, (None,))
    second_dist = read_argument(second_dist, "second_dist", _FLOATS, (len(near_dist),))
    return float(_silhouette(near_dist, second_dist, weights_argument(weights, len(near_dist))))


def _block_argument(block: Array, state: MedoidState) -> Array:
    return read_argument(block, "block", state.table.dtype.name, (None, state.table.shape[1]))


def _room(state: MedoidState) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return room for the places of a row that count, and for the losses of a candidate."""
    return np.empty(state.table.shape[1] + LANES["float32"], np.int32), np.empty(len(state.table))


@jit
def _weighted_sum(values, weights):
    total = 0.0
    for i in range(values.shape[0]):
        total += np.float64(values[i]) * (weights[i] if weights.shape[0] else 1.0)
    return total


@jit
def _silhouette(near_dist, second_dist, weights):
    total = 0.0
    for i in range(near_dist.shape[0]):
        if second_dist[i] > 0:
            value = 1.0 - np.float64(near_dist[i]) / np.float64(second_dist[i])
            total += value * (weights[i] if weights.shape[0] else 1.0)
    return total


@jit
def _removal_losses(near, near_dist, second, second_dist, removal, weights):
    # Loops, not slices: they compile in a fraction of the time.
    for i in range(removal.shape[0]):
        removal[i] = 0.0
    if removal.shape[0] == 1:
        return
    for o in range(near.shape[0]):
        rise = np.float64(second_dist[o]) - np.float64(near_dist[o])
        removal[near[o]] += rise * weights[o] if weights.shape[0] else rise


@jit
def _replace(medoids, table, near, near_dist, second, second_dist, removal, weights, position, medoid, row):
    """Put a row in the place of a medoid and repair what the columns know."""
    k = table.shape[0]
    medoids[position] = medoid
    for o in range(near.shape[0]):
        apart = row[o]
        table[position, o] = apart
        if k == 1:
            near_dist[o] = apart
        elif near[o] == position:
            if apart <= second_dist[o]:
                near_dist[o] = apart
            else:
                near[o], near_dist[o] = second[o], second_dist[o]
                _find_second(table, near, second, second_dist, o)
        elif apart < near_dist[o]:
            second[o], second_dist[o] = near[o], near_dist[o]
            near[o], near_dist[o] = position, apart
        elif second[o] == position:
            if apart <= second_dist[o]:
                second_dist[o] = apart
            else:
                _find_second(table, near, second, second_dist, o)
        elif apart < second_dist[o]:
            second[o], second_dist[o] = position, apart
    _removal_losses(near, near_dist, second, second_dist, removal, weights)


@jit
def _find_second(table, near, second, second_dist, o):
    low, low_at = table.dtype.type(np.inf), -1
    for i in range(table.shape[0]):
        if i != near[o] and (table[i, o] < low or low_at < 0):
            low, low_at = table[i, o], i
    second[o], second_dist[o] = low_at, low


@once
def _change_of(dtype: str) -> Any:
    """Return the function that scores a candidate against all medoids at once."""
    places_below = make_places_below(dtype)
    lanes = LANES[dtype]

    @jit(name=f"medoid_change_{dtype}")
    def change_of(row, near, near_dist, second_dist, removal, weights, chosen, losses):
        n, k = row.shape[0], removal.shape[0]
        if k == 1:
            total = 0.0
            for o in range(n):
                rise = np.float64(row[o]) - np.float64(near_dist[o])
                total += rise * weights[o] if weights.shape[0] else rise
            return total, 0
        whole = n // lanes * lanes
        count = places_below(address(row), address(second_dist), whole, address(chosen))
        for o in range(whole, n):
            chosen[count] = o
            count += row[o] < second_dist[o]
        for i in range(k):
            losses[i] = removal[i]
        gain = 0.0
        for at in range(count):
            o = chosen[at]
            apart, first, other = np.float64(row[o]), np.float64(near_dist[o]), np.float64(second_dist[o])
            closer, kept = min(apart - first, 0.0), max(apart, first) - other
            if weights.shape[0]:
                closer *= weights[o]
                kept *= weights[o]
            gain += closer
            losses[near[o]] += kept
        best = 0
        for i in range(1, k):
            if losses[i] < losses[best]:
                best = i
        return losses[best] + gain, best

    return change_of


@once
def _changes_kernel(dtype: str) -> Any:
    change_of = _change_of(dtype)

    @jit(name=f"medoid_changes_{dtype}")
    def changes(block, table, near, near_dist, second, second_dist, removal, weights, chosen, losses, change, position):
        for j in range(block.shape[0]):
            change[j], position[j] = change_of(block[j], near, near_dist, second_dist, removal, weights, chosen, losses)

    return changes


@once
def _eager_kernel(dtype: str) -> Any:
    change_of = _change_of(dtype)

    @jit(name=f"medoid_eager_{dtype}")
    def eager(
        block,
        ids,
        medoids,
        table,
        near,
        near_dist,
        second,
        second_dist,
        removal,
        weights,
        chosen,
        losses,
        idle,
        enough,
        most,
    ):
        swaps = 0
        least = SMALLEST_GAIN * _weighted_sum(near_dist, weights)
        for j in range(block.shape[0]):
            if idle >= enough or swaps >= most:
                break
            idle += 1
            taken = False
            for i in range(medoids.shape[0]):
                taken |= medoids[i] == ids[j]
            if taken:
                continue
            change, position = change_of(block[j], near, near_dist, second_dist, removal, weights, chosen, losses)
            if change < -least:
                _replace(
                    medoids, table, near, near_dist, second, second_dist, removal, weights, position, ids[j], block[j]
                )
                least = SMALLEST_GAIN * _weighted_sum(near_dist, weights)
                swaps += 1
                idle = 0
        return swaps, idle

    return eager


@jit
def _original_swap(matrix, medoids, table, near, near_dist, second, second_dist, removal, weights):
    best, best_position, best_candidate = np.inf, -1, -1
    for j in range(matrix.shape[0]):
        taken = False
        for i in range(medoids.shape[0]):
            taken |= medoids[i] == j
        if taken:
            continue
        for i in range(medoids.shape[0]):
            change = 0.0
            for o in range(matrix.shape[1]):
                apart, rise = np.float64(matrix[j, o]), np.float64(0.0)
                if near[o] == i:
                    rise = min(apart, np.float64(second_dist[o])) - np.float64(near_dist[o])
                elif apart < near_dist[o]:
                    rise = apart - np.float64(near_dist[o])
                change += rise * weights[o] if weights.shape[0] else rise
            if change < best:
                best, best_position, best_candidate = change, i, j
    return best, best_position, best_candidate


@once
def _build_kernel(dtype: str) -> Any:
    places_below = make_places_below(dtype)
    lanes = LANES[dtype]

    @jit(name=f"medoid_gain_{dtype}")
    def gain_of(row, limits, weights, chosen):
        n = row.shape[0]
        whole = n // lanes * lanes
        count = places_below(address(row), address(limits), whole, address(chosen))
        for o in range(whole, n):
            chosen[count] = o
            count += row[o] < limits[o]
        gain = 0.0
        for at in range(count):
            o = chosen[at]
            fall = np.float64(limits[o]) - np.float64(row[o])
            gain += fall * weights[o] if weights.shape[0] else fall
        return gain

    @jit(name=f"medoid_build_{dtype}")
    def build(matrix, weights, limits, chosen, gains, scored, medoids):
        n = matrix.shape[0]
        best, lowest = 0, np.inf
        for j in range(n):
            total = _weighted_sum(matrix[j], weights)
            if total < lowest:
                best, lowest = j, total
        medoids[0] = best
        gains[best] = -1.0
        for o in range(limits.shape[0]):
            limits[o] = matrix[best, o]
        for step in range(1, medoids.shape[0]):
            while True:
                best = 0
                for j in range(1, n):
                    if gains[j] > gains[best]:
                        best = j
                if scored[best] == step:
                    break
                gains[best] = gain_of(matrix[best], limits, weights, chosen)
                scored[best] = step
            medoids[step] = best
            gains[best] = -1.0
            for o in range(limits.shape[0]):
                limits[o] = min(limits[o], matrix[best, o])

    return build
