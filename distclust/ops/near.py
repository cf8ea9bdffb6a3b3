"""Assignment by lists: a row is compared with the 16 centres that were near it at an earlier pass, the anchor.

Which centres are on a row's list depends on the row and the anchor alone, and its label on these and the present
centres: so labels found by lists are a pure function of rows and shared value too, whatever a node has forgotten.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.near import LISTED, assign_listed, list_near
from distclust.kernels.nearest import distance_table
from distclust.kernels.rounded import round_rows
from distclust.ops.centers import CenterSet, remembered_labels

Labels = npt.NDArray[np.int32]
Lists = npt.NDArray[np.uint16]

_CHUNK_ROWS = 4096


class NearCenters:
    """Centres of which a row gets the nearest on its list; a `LabelRule`.

    Rows and centres are compared by what of them is rounded to bytes; with a head, by their coordinates on its axes.

    Parameters
    ----------
    centers, anchor : CenterSet
        Of this pass, and of the one that lists are made under (it may be the same); both with the same head.
    """

    def __init__(self, centers: CenterSet, anchor: CenterSet) -> None:
        self.centers = centers
        self.anchor = anchor

    def __reduce__(self) -> tuple[type[NearCenters], tuple[CenterSet, CenterSet]]:
        return NearCenters, (self.centers, self.anchor)

    def labels(self, block: Block, context: StepContext) -> Labels:
        """Return the label of every row; remembered as advisory state."""

        def find() -> Labels:
            lists = _known_lists(block, self.anchor, context)
            if lists is None:
                lists, labels = _make_lists(block, self.anchor, context)
                if self.anchor.tag == self.centers.tag:
                    return labels
            rounded, listed = self.centers.rounded(block, context), self.centers.listed
            if listed is None:
                return _assign_by_scores(block, self.centers, lists)
            return assign_listed(rounded or round_rows(block.x, self.centers.head), listed, lists)

        name = f"{self.centers.tag}-{self.anchor.tag}-{self.anchor.axes_tag}"
        return remembered_labels(block, name, context, find)


def _assign_by_scores(block: Block, centers: CenterSet, lists: Lists) -> Labels:
    """Do the work of `assign_listed` for centres too short or long to be rounded; it need not be fast."""
    labels = np.empty(block.n, np.int32)
    for at in range(0, block.n, _CHUNK_ROWS):
        some = slice(at, at + _CHUNK_ROWS)
        listed = lists[some].astype(np.int32)
        scores = np.take_along_axis(distance_table(block.x[some], centers.packed), listed, axis=1)
        # As where lists are made: scores that have overflowed to no number come last.
        first = np.argsort(scores, axis=1, kind="stable")[:, :1]
        labels[some] = np.take_along_axis(listed, first, axis=1)[:, 0]
    return labels


def _known_lists(block: Block, centers: CenterSet, context: StepContext) -> Lists | None:
    lists = context.state.get("lists", _name(centers))
    return lists if lists is not None and lists.shape == (block.n, LISTED) and lists.dtype == np.uint16 else None


def _make_lists(block: Block, centers: CenterSet, context: StepContext) -> tuple[Lists, Labels]:
    """Make lists and keep them as advisory state; return the labels, too, that they lead to under their own centres."""
    labels = np.empty(block.n, np.int32)
    lists = list_near(block.x, centers.packed, centers.listing, centers.rounded(block, context), labels=labels)
    context.state.give("lists", _name(centers), lists)
    return lists, labels


def _name(centers: CenterSet) -> str:
    return f"{centers.tag}-{centers.axes_tag}"
