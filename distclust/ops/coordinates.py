"""Rows by their coordinates on the axes of a head, kept beside the block from pass to pass: they do not change."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.heads import HeadAxes, HeadRows, head_rows


def block_heads(block: Block, head: HeadAxes, tag: str, context: StepContext) -> HeadRows:
    """Return coordinates and tails of the rows of a block, from its state where they are known.

    Parameters
    ----------
    block : Block
    head : HeadAxes
    tag : str
        Digest of the axes.
    context : StepContext
    """
    heads, tails = (context.state.get(kind, tag) for kind in ("heads", "tails"))
    if _is(heads, np.float32, (block.n, head.axes.shape[1])) and _is(tails, np.float64, (block.n,)):
        return HeadRows(heads, tails)
    found = head_rows(block.x, head)
    context.state.give("heads", tag, found.heads)
    context.state.give("tails", tag, found.tails)
    return found


def _is(
    array: npt.NDArray[Any] | None, dtype: type[np.floating], shape: tuple[int, ...]
) -> TypeGuard[npt.NDArray[Any]]:
    return array is not None and array.dtype == dtype and array.shape == shape
