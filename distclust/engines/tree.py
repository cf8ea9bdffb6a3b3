"""Merging partials that arrive in any order and any grouping.

Two rules, chosen by the class of the partial:

* ``exact`` partials (integers): neighbours merge as soon as they meet. Any grouping gives the same bits.
* partials with ``exact = False`` (floating point): only the two children of a node of one binary tree merge. A
  node of height h covers partitions ``[i * 2**h, (i + 1) * 2**h)``, cut off at the number of partitions; so the
  tree depends on that number alone, and every grouping of partitions into tasks computes the same nodes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from distclust.engines.protocol import Merge


class Part(NamedTuple):
    """A value that stands for the partitions ``start <= i < stop`` of a map or fold."""

    start: int
    stop: int
    value: Any


def is_exact(value: Any) -> bool:
    """Tell whether partials of this class merge to the same bits in any grouping."""
    return bool(getattr(type(value), "exact", True))


def are_siblings(start: int, middle: int, stop: int, n_leaves: int) -> bool:
    """Tell whether ``[start, middle)`` and ``[middle, stop)`` are the two children of a node of the tree.

    Both must be nodes of the tree themselves.
    """
    size = middle - start
    return size & (size - 1) == 0 and start % (2 * size) == 0 and stop == min(start + 2 * size, n_leaves)


class Partials:
    """Partials of a fold, merged as far as they can be at any time.

    Used inside a task for the partitions that it covers, and on the driver for what the tasks return.

    Parameters
    ----------
    n_leaves : int
        Number of partitions of the whole fold.
    merge : callable
        See `distclust.engines.protocol.Merge`.
    """

    def __init__(self, n_leaves: int, merge: Merge) -> None:
        self._n_leaves = n_leaves
        self._merge = merge
        self._by_start: dict[int, Part] = {}
        self._by_stop: dict[int, Part] = {}

    def add(self, start: int, stop: int, value: Any) -> None:
        """Take the partial of ``[start, stop)`` and merge it with what it meets, left operand first."""
        part = Part(start, stop, value)
        while True:
            left = self._by_stop.get(part.start)
            right = self._by_start.get(part.stop)
            if left is not None and self._may_join(left, part):
                part = self._join(left, part, known=left)
            elif right is not None and self._may_join(part, right):
                part = self._join(part, right, known=right)
            else:
                break
        self._by_start[part.start] = part
        self._by_stop[part.stop] = part

    def parts(self) -> list[Part]:
        """Return what is left, in partition order: one part, or one per maximal subtree."""
        return [self._by_start[start] for start in sorted(self._by_start)]

    def _may_join(self, left: Part, right: Part) -> bool:
        exact = is_exact(left.value) and is_exact(right.value)
        return exact or are_siblings(left.start, right.start, right.stop, self._n_leaves)

    def _join(self, left: Part, right: Part, *, known: Part) -> Part:
        del self._by_start[known.start], self._by_stop[known.stop]
        return Part(left.start, right.stop, self._merge(left.value, right.value))
