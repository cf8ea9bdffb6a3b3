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
from distclust.ops.centers import CenterSet, remembered_labels

Labels = npt.NDArray[np.int32]
Lists = npt.NDArray[np.uint16]


class NearCenters:
    """Centres of which a row gets the nearest on its list; a `LabelRule`.

    With a head, rows and centres are compared by their coordinates on its axes.

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
            lists = near_lists(block, self.anchor, context)
            coordinates = self.centers.coordinates(block, context)
            x = block.x if coordinates is None else coordinates.heads
            return assign_listed(x, self.centers.on_axes, self.centers.norms, lists)

        return remembered_labels(block, f"{self.centers.tag}-{self.anchor.tag}", context, find)


def near_lists(block: Block, centers: CenterSet, context: StepContext) -> Lists:
    """Return the lists of the rows under some centres; remembered as advisory state."""
    state = context.state
    lists = state.get("lists", centers.tag)
    if lists is None or lists.shape != (block.n, LISTED) or lists.dtype != np.uint16:
        lists = list_near(block.x, centers.packed, centers.listing, centers.coordinates(block, context))
        state.give("lists", centers.tag, lists)
    return lists
