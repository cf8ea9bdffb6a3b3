"""Assignment by lists: a row is compared with the 16 centres that were near it at an earlier pass, the anchor.

Which centres are on a row's list depends on the row and the anchor alone, and its label on these and the present
centres: so labels found by lists are a pure function of rows and shared value too, whatever a node has forgotten.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.listed import assign_listed
from distclust.kernels.screened import LISTED, list_near
from distclust.ops.centers import CenterSet

Labels = npt.NDArray[np.int32]
Lists = npt.NDArray[np.uint16]


class NearCenters:
    """Centres among which a row has the nearest of those on its list; a `LabelRule`.

    With a head, rows and centres are compared by their coordinates on its axes.

    Parameters
    ----------
    centers, anchor : CenterSet
        Of this pass, and of the one that lists are made under; both with the same head.
    """

    def __init__(self, centers: CenterSet, anchor: CenterSet) -> None:
        self.centers = centers
        self.anchor = anchor

    def __reduce__(self) -> tuple[type[NearCenters], tuple[CenterSet, CenterSet]]:
        return NearCenters, (self.centers, self.anchor)

    def labels(self, block: Block, context: StepContext) -> Labels:
        """Return the label of every row; remembered as advisory state."""
        tag = f"{self.centers.tag}-{self.anchor.tag}"
        known = context.state.get("labels", tag)
        if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
            return known
        _, lists = list_labels(block, self.anchor, context)
        coordinates = self.centers.coordinates(block, context)
        x = block.x if coordinates is None else coordinates.heads
        labels = assign_listed(x, self.centers.on_axes, self.centers.norms, lists)
        context.state.put("labels", tag, labels)
        return labels


def list_labels(block: Block, centers: CenterSet, context: StepContext) -> tuple[Labels, Lists]:
    """Return the nearest of all centres of every row, and the row's list; both remembered as advisory state."""
    state = context.state
    lists = state.get("lists", centers.tag)
    if lists is not None and lists.shape == (block.n, LISTED) and lists.dtype == np.uint16:
        return lists[:, 0].astype(np.int32), lists
    labels, lists = list_near(block.x, centers.packed, centers.listing, centers.coordinates(block, context))
    state.put("labels", centers.tag, labels)
    state.give("lists", centers.tag, lists)
    return labels, lists
