"""Centres as a shared value: identified by their bits, packed for the kernels once per process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.storage import Storage
from distclust.engines.protocol import StepContext
from distclust.kernels.heads import HeadAxes, HeadRows, head_rows
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.near import nearest_roughly
from distclust.kernels.nearest import PackedCenters, assign_nearest, pack_centers
from distclust.kernels.screened import ScreenedCenters, assign_labels, screen_centers
from distclust.ops.coordinates import block_heads
from distclust.ops.stored import StoredArray, store_array

Rows = npt.NDArray[np.floating]


class LabelRule(Protocol):
    """How rows are given to clusters: a function of (rows, rule), picklable; row state is advisory as ever."""

    def labels(self, block: Block, context: StepContext, /) -> npt.NDArray[np.int32]:
        """Return the cluster of every row; -1 for none."""
        ...


class CenterSet:
    """Centres in the coordinates and the type of the blocks.

    Parameters
    ----------
    rows : (k, d) float32 or float64
        Centred (and, under cosine, unit) coordinates.
    head : HeadAxes, optional
        Axes that make it cheaper to find nearest centres; they change no label found among all centres.

    Attributes
    ----------
    tag : str
        Digest of the bits: the name under which rows keep what they know about these centres.
    """

    head: HeadAxes | None = None

    def __init__(self, rows: Rows, head: HeadAxes | None = None) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.head = head
        digest = hashlib.sha256(repr(self.rows.shape).encode())
        digest.update(self.rows.data.cast("B") if self.rows.size else b"")
        self.tag = digest.hexdigest()[:24]

    def __reduce__(self) -> tuple[type[CenterSet], tuple[Any, ...]]:
        return CenterSet, (self.rows, self.head)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row."""
        return nearest_labels(block, self, context)

    @cached_property
    def packed(self) -> PackedCenters:
        """The centres as the kernels want them; never travels."""
        return pack_centers(self.rows)

    @cached_property
    def screened(self) -> ScreenedCenters | None:
        """The centres rounded to bytes, where that saves work; never travels."""
        return screen_centers(self.rows, self.packed, self.head)

    @cached_property
    def listing(self) -> ScreenedCenters | None:
        """The same, also where it saves nothing: lists of near centres come from it on every machine."""
        return self.screened or screen_centers(self.rows, self.packed, self.head, anywhere=True)

    @cached_property
    def norms(self) -> npt.NDArray[np.float32]:
        """(k,) squared lengths."""
        return row_sqnorm(self.rows).astype(np.float32)

    @cached_property
    def on_axes(self) -> Rows:
        """(k, h) coordinates on the axes of the head, or all coordinates where there is none."""
        return self.rows if self.head is None else head_rows(self.rows, self.head).heads

    def heads(self, block: Block, context: StepContext) -> HeadRows | None:
        """Return the rows as a screen compares them with these centres; None where it takes them as they are."""
        if self.head is None or self.screened is None:
            return None
        return self.coordinates(block, context)

    def coordinates(self, block: Block, context: StepContext) -> HeadRows | None:
        """Return the rows by their coordinates on the axes of the head; None where there is none."""
        return None if self.head is None else block_heads(block, self.head, self._head_tag, context)

    def nearest(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row, the lowest one among equals."""
        return assign_labels(block.x, self.packed, self.screened, self.heads(block, context))

    def roughly(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return for every row a centre that is the nearest or hardly farther: the same one on every machine."""
        if len(self) == 1:
            return np.zeros(block.n, np.int32)
        coordinates = self.coordinates(block, context)
        if self.listing is not None:
            return nearest_roughly(block.x, self.packed, self.listing, coordinates)
        if coordinates is None:
            return assign_nearest(block.x, self.packed)[0]
        on_axes = pack_centers(self.on_axes)
        on_axes.norms[: len(self)] = self.norms
        return assign_nearest(coordinates.heads, on_axes)[0]

    @cached_property
    def _head_tag(self) -> str:
        assert self.head is not None
        return hashlib.sha256(repr(self.head.axes.shape).encode() + self.head.axes.tobytes()).hexdigest()[:24]


class StoredCenters(CenterSet):
    """Centres in a file that all workers see: only its name travels. Made by `store_centers`.

    Parameters
    ----------
    stored : StoredArray
    tag : str
        As `CenterSet.tag` of the same rows.
    """

    def __init__(self, stored: StoredArray, tag: str) -> None:
        self.rows = stored.array
        self.tag = tag
        self._stored = stored

    def __reduce__(self) -> tuple[type[CenterSet], tuple[Any, ...]]:
        return StoredCenters, (self._stored, self.tag)


def store_centers(
    storage: Storage, path: str, shape: tuple[int, int], dtype: str, parts: Iterable[Rows]
) -> StoredCenters:
    """Write centres to a file, part by part; see `store_array`."""
    stored, digest = store_array(storage, path, shape, dtype, parts)
    return StoredCenters(stored, digest[:24])


def nearest_labels(block: Block, centers: CenterSet, context: StepContext) -> npt.NDArray[np.int32]:
    """Return the nearest centre of every row; remembered as advisory state, so that asking again is free."""
    return remembered_labels(block, centers.tag, context, lambda: centers.nearest(block, context))


def remembered_labels(
    block: Block, tag: str, context: StepContext, find: Callable[[], npt.NDArray[np.int32]]
) -> npt.NDArray[np.int32]:
    """Return the labels that the rows keep under a tag, or find and keep them."""
    known = context.state.get("labels", tag)
    if known is not None and known.shape == (block.n,) and known.dtype == np.int32:
        return known
    labels = find()
    context.state.put("labels", tag, labels)
    return labels
