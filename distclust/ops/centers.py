"""Centres as a shared value: identified by their bits, packed for the kernels once per process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.data.storage import Storage
from distclust.engines.protocol import StepContext
from distclust.kernels.content import digest_values
from distclust.kernels.heads import HeadAxes
from distclust.kernels.lloyd import row_sqdist
from distclust.kernels.near import ListedCenters, listed_centers, nearest_roughly
from distclust.kernels.nearest import PackedCenters, pack_centers
from distclust.kernels.rounded import LENGTH, MOST_LENGTH, RoundedRows, round_rows
from distclust.kernels.screened import ScreenedCenters, assign_labels, screen_centers
from distclust.kernels.slices import in_slices
from distclust.ops.rounded import keep_rounded, known_rounded
from distclust.ops.stored import StoredArray, store_array

Rows = npt.NDArray[np.floating]

CLOSE = 2.0**-10
"""Share of a row's squared length below which its squared distance is not taken from rounded values: rounding alone
makes about a tenth of so much."""


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
    again : bool, default=False
        Whether more passes over the same rows follow, so that these had better stay rounded.
    threads : int, default=1
        That may take part in the digest.

    Attributes
    ----------
    tag : str
        Digest of the bits: the name under which rows keep what they know about these centres.
    """

    head: HeadAxes | None = None
    again = False

    def __init__(self, rows: Rows, head: HeadAxes | None = None, again: bool = False, *, threads: int = 1) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.head = head
        self.again = again
        parts: list[int] = []
        (k, d), array = self.rows.shape, self.rows
        in_slices(lambda some: parts.append(digest_values(array[some], some.start * d)), k, d, threads)
        self.tag = _tag(self.rows.shape, sum(parts))

    def __reduce__(self) -> tuple[type[CenterSet], tuple[Any, ...]]:
        return CenterSet, (self.rows, self.head, self.again)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row."""
        return nearest_labels(block, self, context)

    @cached_property
    def packed(self) -> PackedCenters:
        """The centres as the kernels want them; never travels. Where a screen is enough, only their lengths."""
        return pack_centers(self.rows, later=True)

    @cached_property
    def screened(self) -> ScreenedCenters | None:
        """The centres rounded to bytes, where that saves work; never travels."""
        return screen_centers(self.rows, self.packed, self.head)

    @cached_property
    def listing(self) -> ScreenedCenters | None:
        """The same, also where it saves nothing: lists of near centres come from it on every machine."""
        return self.screened or screen_centers(self.rows, self.packed, self.head, anywhere=True)

    @cached_property
    def listed(self) -> ListedCenters | None:
        """The same, for rows that are compared with lists; never travels."""
        return None if self.listing is None else listed_centers(self.listing)

    def rounded(self, block: Block, context: StepContext) -> RoundedRows | None:
        """Return the rows as they are compared with rounded centres; None where that is left to the kernels."""
        if self.listing is None:
            return None
        if self.again:
            return keep_rounded(block, self.head, self.axes_tag, context)
        known = known_rounded(block, self.head, self.axes_tag, context)
        return None if known is None or len(known.values) < block.n else known

    def nearest(self, block: Block, context: StepContext) -> npt.NDArray[np.int32]:
        """Return the nearest centre of every row, the lowest one among equals."""
        rounded = None if self.screened is None else self.rounded(block, context)
        return assign_labels(block.x, self.packed, self.screened, rounded)

    def roughly(self, block: Block, context: StepContext) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Return for every row a centre that is the nearest or hardly farther, and about its squared distance.

        The same on every machine.
        """
        if self.listing is None or self.listed is None:
            labels = self.nearest(block, context)
            return labels, row_sqdist(block.x, self.rows, labels)
        rounded = self.rounded(block, context) or round_rows(block.x, self.head)
        labels, rough = nearest_roughly(block.x, self.listing, self.listed, rounded)
        sqdist, lengths = rough.astype(np.float64), rounded.floats[:, LENGTH].astype(np.float64)
        near = np.flatnonzero((sqdist < CLOSE * lengths**2) | ~(lengths < MOST_LENGTH))
        sqdist[near] = row_sqdist(block.x[near], self.rows, labels[near])
        return labels, sqdist

    @cached_property
    def axes_tag(self) -> str:
        """Digest of the axes: the name under which rows keep what they know about these."""
        if self.head is None:
            return "columns"
        return hashlib.sha256(repr(self.head.axes.shape).encode() + self.head.axes.tobytes()).hexdigest()[:24]


def _tag(shape: tuple[int, ...], digest: int) -> str:
    return f"{'x'.join(str(length) for length in shape)}-{digest % 2**64:016x}"


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
    digest = done = 0

    def passed() -> Iterator[Rows]:
        nonlocal digest, done
        for part in parts:
            rows = np.ascontiguousarray(part, dtype)
            digest, done = digest + digest_values(rows, done), done + rows.size
            yield rows

    return StoredCenters(store_array(storage, path, shape, dtype, passed()), _tag(shape, digest))


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
