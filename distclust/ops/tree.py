"""A binary tree of centres as a shared value: rows go down it, at every node to the nearer child."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.tree import descend

Rows = npt.NDArray[np.floating]
Nodes = npt.NDArray[np.int32]


class CenterTree:
    """A tree in the coordinates and the type of the blocks.

    Parameters
    ----------
    rows : (m, d) float32 or float64
        Centres of the nodes.
    children : (m, 2) int32
        Nodes below each node; -1 and -1 for a leaf.
    root : int, default=0

    Attributes
    ----------
    tag : str
        Digest of the bits: the name under which rows keep the leaf that they belong to.
    """

    def __init__(self, rows: Rows, children: Nodes, root: int = 0) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.children = np.ascontiguousarray(children, np.int32)
        self.root = root
        head = repr((self.rows.shape, root)).encode()
        self.tag = hashlib.sha256(head + self.children.tobytes() + self.rows.tobytes()).hexdigest()[:24]

    def __reduce__(self) -> tuple[type[CenterTree], tuple[Rows, Nodes, int]]:
        return CenterTree, (self.rows, self.children, self.root)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, block: Block, context: StepContext) -> Nodes:
        """Return the leaf of every row, as its number among the nodes."""
        return self.leaves(block, context)

    def leaves(self, block: Block, context: StepContext, grown_from: str = "") -> Nodes:
        """Return the leaf of every row; remembered as advisory state.

        Parameters
        ----------
        block : Block
        context : StepContext
        grown_from : str, optional
            Tag of an earlier tree that this one was grown from by giving leaves children, nodes keeping their
            numbers: rows that remember their leaf there go on from it.
        """
        known = self._remembered(block, context, self.tag)
        if known is not None:
            return known
        before = self._remembered(block, context, grown_from) if grown_from else None
        nodes = np.full(block.n, self.root, np.int32) if before is None else before.copy()
        descend(block.x, self.rows, self.children, nodes)
        context.state.put("leaf", self.tag, nodes)
        return nodes

    @staticmethod
    def _remembered(block: Block, context: StepContext, tag: str) -> Nodes | None:
        nodes = context.state.get("leaf", tag)
        return nodes if nodes is not None and nodes.shape == (block.n,) and nodes.dtype == np.int32 else None
