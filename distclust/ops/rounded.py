"""Rows rounded to bytes, kept beside the block from pass to pass: they do not change."""

from __future__ import annotations

import numpy as np

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.heads import HeadAxes
from distclust.kernels.rounded import FLOATS, RoundedRows, padded_width, round_rows

KINDS, ROWS = ("rounded", "rounded-floats"), "rows"
"""Names in the state. Axes are part of the kind: algorithms that run side by side may have several."""


def known_rounded(block: Block, head: HeadAxes | None, tag: str, context: StepContext) -> RoundedRows | None:
    """Return the rows of a block, or the first of them, rounded, from its state; None where none are known.

    Parameters
    ----------
    block : Block
        Maybe a sample of a partition: the first rows of a larger one serve as well.
    head : HeadAxes or None
        Axes whose coordinates are rounded.
    tag : str
        Digest of the axes.
    context : StepContext
    """
    state = context.state.whole
    values, floats = (state.get(f"{kind}-{tag}", ROWS) for kind in KINDS)
    if values is None or floats is None or values.dtype != np.int8 or floats.dtype != np.float32:
        return None
    width = padded_width(block.d if head is None else head.axes.shape[1])
    n = len(values) if values.ndim else 0
    if values.shape != (n, width) or floats.shape != (n, len(FLOATS)):
        return None
    return RoundedRows(values, floats).first(block.n)


def keep_rounded(block: Block, head: HeadAxes | None, tag: str, context: StepContext) -> RoundedRows:
    """Do the same; round the rows that are not known, and keep all."""
    known = known_rounded(block, head, tag, context)
    if known is not None and len(known.values) == block.n:
        return known
    rounded = round_rows(block.x, head, known)
    state = context.state.whole
    state.give(f"{KINDS[0]}-{tag}", ROWS, rounded.values)
    state.give(f"{KINDS[1]}-{tag}", ROWS, rounded.floats)
    return rounded
