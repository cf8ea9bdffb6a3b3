"""Rows moved one at a time along the cheapest chains of places: successive shortest paths.

Axis letters: k places, a arcs, q proposals, n rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distclust.kernels._arguments import read_argument, write_argument
from distclust.kernels._jit import jit

_UNSEEN, _START = -2, -1


class ChainEnds(NamedTuple):
    """Where chains may begin and end, and what that costs."""

    supply: npt.NDArray[np.int64]
    """int64 [k]: rows that a place can still give up."""
    room: npt.NDArray[np.int64]
    """int64 [k]: rows that a place can still take."""
    leaving: npt.NDArray[np.float64]
    """float64 [k]: cost of a chain that begins in a place, at least 0."""
    entry: npt.NDArray[np.float64]
    """float64 [k]: cost of a chain that ends in a place, at least 0."""
    need: int
    """Most chains to use."""
    most: float
    """Chains that cost this or more are left unused."""


def move_along_chains(
    sources: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
    regrets: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    ends: ChainEnds,
    step: float,
    moved_to: npt.NDArray[np.int32],
) -> tuple[int, float]:
    """Move rows from places with supply to places with room, each time by the cheapest chain of proposals.

    A chain moves one row along each of its arcs, so that only its ends change their sizes. It is used again as long as
    that costs no more than `step` above its first use.

    Parameters
    ----------
    sources, targets : int32 [q]
        From where to where a proposal would move its row, 0 ... k-1; all of one source and target stand together, by
        ascending regret, and those of one source as well.
    regrets : float64 [q]
        What a proposal adds to the cost, at least 0.
    rows : int64 [q]
        The row of a proposal, 0 ... n-1; the proposals of a row have one source.
    ends : ChainEnds
        Supply and room are changed in place.
    step : float
    moved_to : int32 [n]
        -1 for rows that have not moved; changed in place.

    Returns
    -------
    used : int
        Chains used: fewer than wanted where the proposals lead no further, or only to chains that cost too much.
    cost : float
        Their sum.

    Examples
    --------
    >>> ends = ChainEnds(np.array([1, 0, 0]), np.array([0, 0, 1]), np.zeros(3), np.zeros(3), 1, np.inf)
    >>> sources, targets = np.array([0, 0, 1], np.int32), np.array([1, 2, 2], np.int32)
    >>> regrets, rows, moved_to = np.array([1.0, 9.0, 2.0]), np.array([0, 1, 2]), np.full(3, -1, np.int32)
    >>> move_along_chains(sources, targets, regrets, rows, ends, 0.0, moved_to), moved_to.tolist()
    ((1, 3.0), [1, -1, 2])
    """
    q, k = len(sources), len(ends.supply)
    sources = read_argument(sources, "sources", "int32", (q,))
    targets = read_argument(targets, "targets", "int32", (q,))
    new_arc = np.ones(q, bool)
    new_arc[1:] = (np.diff(sources) != 0) | (np.diff(targets) != 0)
    begins = np.append(np.flatnonzero(new_arc), q)
    arcs = np.searchsorted(sources[begins[:-1]], np.arange(k + 1))
    used, cost = _move_along_chains(
        arcs.astype(np.int64),
        np.ascontiguousarray(targets[begins[:-1]]),
        begins[:-1].astype(np.int64),
        begins[1:].astype(np.int64),
        read_argument(regrets, "regrets", "float64", (q,)),
        read_argument(rows, "rows", "int64", (q,)),
        write_argument(ends.supply, "supply", "int64", (k,)),
        write_argument(ends.room, "room", "int64", (k,)),
        read_argument(ends.leaving, "leaving", "float64", (k,)),
        read_argument(ends.entry, "entry", "float64", (k,)),
        int(ends.need),
        float(ends.most),
        float(step),
        write_argument(moved_to, "moved_to", "int32", (None,)),
    )
    return int(used), float(cost)


@jit
def _head(arc, heads, ends, regrets, rows, moved_to):
    """Return the regret of the next row of an arc, infinite where there is none."""
    while heads[arc] < ends[arc] and moved_to[rows[heads[arc]]] >= 0:
        heads[arc] += 1
    return regrets[heads[arc]] if heads[arc] < ends[arc] else np.inf


@jit
def _push(heap_costs, heap_places, size, cost, place):
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if heap_costs[parent] <= cost:
            break
        heap_costs[at], heap_places[at] = heap_costs[parent], heap_places[parent]
        at = parent
    heap_costs[at], heap_places[at] = cost, place


@jit
def _drop_first(heap_costs, heap_places, size):
    cost, place = heap_costs[size - 1], heap_places[size - 1]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size - 1:
            break
        if child + 1 < size - 1 and heap_costs[child + 1] < heap_costs[child]:
            child += 1
        if cost <= heap_costs[child]:
            break
        heap_costs[at], heap_places[at] = heap_costs[child], heap_places[child]
        at = child
    heap_costs[at], heap_places[at] = cost, place


@jit
def _move_along_chains(
    arcs, arc_targets, heads, ends, regrets, rows, supply, room, leaving, entry, need, most, step, moved_to
):
    k = supply.shape[0]
    capacity = arc_targets.shape[0] + 2 * k
    heap_costs, heap_places = np.empty(capacity), np.empty(capacity, np.int64)
    costs, arc_to, arc_from = np.empty(k), np.empty(k, np.int64), np.empty(k, np.int64)
    used, spent = 0, 0.0
    while used < need:
        size = 0
        for place in range(k):
            costs[place] = np.inf
            arc_to[place] = _UNSEEN
            if supply[place] > 0:
                costs[place] = leaving[place]
                arc_to[place] = _START
                _push(heap_costs, heap_places, size, leaving[place], place)
                size += 1
        end, total = -1, np.inf
        while size > 0:
            cost, place = heap_costs[0], heap_places[0]
            if cost >= total:
                break
            _drop_first(heap_costs, heap_places, size)
            size -= 1
            if cost > costs[place]:
                continue
            if room[place] > 0 and arc_to[place] != _START and cost + entry[place] < total:
                end, total = place, cost + entry[place]
            for arc in range(arcs[place], arcs[place + 1]):
                target = arc_targets[arc]
                further = cost + _head(arc, heads, ends, regrets, rows, moved_to)
                if further < costs[target]:
                    costs[target] = further
                    arc_to[target], arc_from[target] = arc, place
                    _push(heap_costs, heap_places, size, further, target)
                    size += 1
        if end < 0 or total >= most:
            break
        limit = total + step
        while total <= limit and total < most:
            place = end
            while arc_to[place] != _START:
                arc = arc_to[place]
                moved_to[rows[heads[arc]]] = place
                place = arc_from[place]
            supply[place] -= 1
            room[end] -= 1
            used += 1
            spent += total
            if used == need or supply[place] == 0 or room[end] == 0:
                break
            total = leaving[place] + entry[end]
            place = end
            while arc_to[place] != _START:
                total += _head(arc_to[place], heads, ends, regrets, rows, moved_to)
                place = arc_from[place]
            if total == np.inf:
                break
    return used, spent
