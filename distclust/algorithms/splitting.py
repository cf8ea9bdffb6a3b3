"""Splitting the leaves of a tree in two: one pass over the rows serves all leaves that are open, each at its own stage.

A split first looks for the principal axis of its leaf by power iteration, then runs two-means from the points one mean
absolute deviation to either side of the mean (Steinbach, Karypis and Kumar, *A comparison of document clustering
techniques*, 2000, for bisecting; Su and Dy, *In search of deterministic methods for initializing k-means*, 2007, for
the axis). In a large leaf both look at the rows of lowest hash first, and at all rows at the end. Nothing is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.kernels.lloyd import row_sqnorm
from distclust.kernels.random import hash_rows, uniform
from distclust.kernels.tree import split_rows
from distclust.ops.tree import CenterTree
from distclust.stats.fixed import FixedPair, SumScales
from distclust.stats.lloyd import ClusterSums

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.floating]
Ints32 = npt.NDArray[np.int32]

AXIS_PASSES = 10
STEADY = 0.99
"""The axis is taken when a pass turns it by less than this cosine, 8 degrees; see DESIGN.md."""

SAMPLE_ROWS = 2048
"""Rows of a leaf that are looked at before all of them are, on average."""

CLIPPED = 32.0
"""Rows further out along the axis, in standard deviations, count as this far: keeps sums in their bounds."""

WIDER = 64.0
WIDENINGS = 3
"""Starts this much further apart are tried where two-means leaves a side empty: points that round to one another."""

_STAGE_DIRECTION = 0x415849
_MEAN_DEVIATION = float(np.sqrt(2 / np.pi))
"""Mean absolute deviation of a Gaussian, in standard deviations."""


@dataclass(frozen=True)
class Part:
    """The rows of one node.

    Attributes
    ----------
    mean : (d,) float64
        In the coordinates of the blocks.
    center : (d,) float64
        The mean, of unit length under cosine.
    mass : float
        Sum of the weights.
    count : int
        Rows.
    inertia : float
        Sum of w * squared distance to ``center``.
    """

    mean: Floats
    center: Floats
    mass: float
    count: int
    inertia: float

    @classmethod
    def of_sums(cls, sums: Floats, mass: float, count: int, about: Floats, inertia: float, unit: bool) -> Part:
        """Build from sums, and the inertia about some point."""
        mean = sums / mass
        length = float(np.sqrt(row_sqnorm(mean[None])[0])) if unit else 0.0
        center = mean / length if length > 0 else mean
        # I(c) = I(a) - W |a - m|^2 + W |c - m|^2
        off = row_sqnorm(np.stack([about - mean, center - mean]))
        return cls(mean, center, mass, count, max(inertia + mass * float(off[1] - off[0]), 0.0))

    @property
    def deviation(self) -> float:
        """Root mean square distance to the mean."""
        off = float(row_sqnorm((self.center - self.mean)[None])[0])
        return float(np.sqrt(max(self.inertia / self.mass - off, 0.0)))


@dataclass(frozen=True)
class Split:
    """A split in progress.

    Attributes
    ----------
    node : int
        The leaf that is split.
    direction : (d,) float64
        Unit vector: the principal axis as known.
    pair : (2, d) float64 or None
        Centres of the two sides; None while the axis is looked for.
    share : float
        Of the leaf's rows that are looked at: those of lowest hash.
    passes : int
        Done in this stage.
    attempt : int
        How often the start was widened.
    """

    node: int
    direction: Floats
    pair: Floats | None = None
    share: float = 1.0
    passes: int = 0
    attempt: int = 0

    @classmethod
    def begin(cls, node: int, part: Part, unit: bool) -> Split:
        """Open a leaf: any fixed vector that is no exact multiple of anything serves as a first direction."""
        d = len(part.mean)
        direction = 2.0 * uniform(0, _STAGE_DIRECTION, np.arange(d, dtype=np.int64)) - 1.0
        split = cls(node, _unit(direction), share=min(1.0, SAMPLE_ROWS / part.count))
        return split if d > 1 else split.started(part, unit)

    def points(self, part: Part) -> Floats:
        """Return the two points that the next pass compares rows with."""
        if self.pair is not None:
            return self.pair
        step = part.deviation * self.direction
        return np.stack([part.mean - step, part.mean + step])

    def started(self, part: Part, unit: bool) -> Split:
        """Return the split at the start of two-means."""
        step = part.deviation * _MEAN_DEVIATION * WIDER**self.attempt * self.direction
        pair = np.stack([part.mean - step, part.mean + step])
        if unit:
            pair = np.stack([_unit(point) for point in pair])
        return replace(self, pair=pair, passes=0)


@dataclass(frozen=True)
class Sides:
    """A split that is done: the points that told the sides apart, and what is on either side."""

    points: Floats
    parts: tuple[Part, Part]


@dataclass(frozen=True)
class SideSums:
    """What a pass summed on the two sides of a split, as real numbers.

    Attributes
    ----------
    points : (2, d) float64
        That rows were compared with, as the blocks' type holds them.
    sums : (2, d) float64
        Of w * x.
    mass : (2,) float64
    counts : (2,) int64
    inertias : (2,) float64
        About ``points``.
    """

    points: Floats
    sums: Floats
    mass: Floats
    counts: npt.NDArray[np.int64]
    inertias: Floats


@dataclass(frozen=True)
class SplitRules:
    """When two-means stops, and whether centres are of unit length."""

    max_iter: int
    rtol: float
    unit: bool


@dataclass(frozen=True)
class SplitValue:
    """What a pass shares.

    Attributes
    ----------
    tree : CenterTree
        All splits that are done.
    grown_from : str
        Tag of the tree of the pass before.
    open_nodes : (p,) int32
        Leaves that are being split.
    points : (2p, d) array of the blocks' type
        Two points each.
    widths : (p,) float64
        For a search of an axis: the difference of the squared distances that counts as 1. 0 for two-means.
    last_hashes : (p,) uint64
        Rows of higher hash are not looked at.
    scales : SumScales
    mass_scale, inertia_scale : float
    """

    tree: CenterTree
    grown_from: str
    open_nodes: Ints32
    points: Rows
    widths: Floats
    last_hashes: npt.NDArray[np.uint64]
    scales: SumScales
    mass_scale: float
    inertia_scale: float


@dataclass(frozen=True)
class SplitStats:
    """Sums of both sides of every open leaf; for a search of an axis, the first side's are those of q * x.

    Attributes
    ----------
    sums : ClusterSums of 2p entries
    inertia : FixedPair of 2p totals
        About the points that were shared.
    """

    exact: ClassVar[bool] = True

    sums: ClusterSums
    inertia: FixedPair

    def merge(self, other: SplitStats) -> SplitStats:
        """Combine the statistics of two disjoint sets of rows."""
        return SplitStats(self.sums.merge(other.sums), self.inertia.merge(other.inertia))


@dataclass(frozen=True)
class SplitStep:
    """Send the rows of open leaves to one of two sides, and sum."""

    def __call__(self, block: Block, value: SplitValue, context: StepContext) -> SplitStats:
        """Sum the rows of a block."""
        slots = np.full(len(value.tree), -1, np.int32)
        slots[value.open_nodes] = np.arange(len(value.open_nodes), dtype=np.int32)
        slot = slots[value.tree.leaves(block, context, value.grown_from)]
        slot[hash_rows(block.row_ids) > value.last_hashes[slot]] = -1
        out = ClusterSums.zeros(len(value.points), block.d)
        inertia = FixedPair.zeros(len(value.points), value.inertia_scale)
        split_rows(
            block.x,
            block.weights,
            slot,
            value.points,
            value.widths,
            value.scales.columns,
            value.mass_scale,
            inertia.scale,
            out.sums,
            out.mass,
            out.counts,
            inertia.high,
            inertia.low,
        )
        return SplitStats(out, inertia)


def axis_width(split: Split, part: Part) -> float:
    """Return what `SplitValue.widths` holds for a split."""
    return 0.0 if split.pair is not None else 4.0 * CLIPPED * part.deviation**2


def last_hash(split: Split) -> int:
    """Return what `SplitValue.last_hashes` holds for a split."""
    return int(split.share * (2**64 - 1)) if split.share < 1 else 2**64 - 1


def advance(split: Split, part: Part, sides: SideSums, rules: SplitRules) -> Split | Sides | None:
    """Return the split after a pass: further on, done, or None where the rows cannot be told apart.

    Parameters
    ----------
    split : Split
    part : Part
        What is split.
    sides : SideSums
    rules : SplitRules
    """
    if split.pair is None:
        return _turned(split, part, sides.sums[0] - part.mean * sides.mass[0], rules)
    if not (sides.mass > 0).all():
        if split.share == 1 and split.attempt == WIDENINGS:
            return None
        # What a sample cannot tell apart, all rows may; that costs no attempt.
        return replace(split, share=1.0, attempt=split.attempt + (split.share == 1)).started(part, rules.unit)
    parts = [
        Part.of_sums(
            sides.sums[i],
            float(sides.mass[i]),
            int(sides.counts[i]),
            sides.points[i],
            float(sides.inertias[i]),
            rules.unit,
        )
        for i in range(2)
    ]
    inertia = float(sides.inertias[0] + sides.inertias[1])
    gain = inertia - parts[0].inertia - parts[1].inertia
    pair = np.stack([side.center for side in parts])
    if split.passes + 1 < rules.max_iter and gain > rules.rtol * inertia:
        return replace(split, pair=pair, passes=split.passes + 1)
    if split.share < 1:
        return replace(split, pair=pair, share=1.0, passes=0)
    return Sides(sides.points, (parts[0], parts[1]))


def _turned(split: Split, part: Part, sums: Floats, rules: SplitRules) -> Split:
    """Return the split after a pass of power iteration."""
    direction = _unit(sums)
    turn = abs(float(np.cumsum(direction * split.direction)[-1]))
    if not direction.any():  # every row is where its mean is, as far as sums can tell
        direction, turn = split.direction, 1.0
    turned = replace(split, direction=direction, passes=split.passes + 1)
    return turned.started(part, rules.unit) if turn >= STEADY or turned.passes == AXIS_PASSES else turned


def _unit(vector: Floats) -> Floats:
    length = float(np.sqrt(row_sqnorm(vector[None])[0]))
    return vector / length if length > 0 else vector
