"""How evenly rows, or their weight, spread over clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Balance:
    """Shape of the populations of clusters.

    Attributes
    ----------
    max_share : float
        Share of the largest cluster.
    gini : float
        Gini coefficient over all clusters, empty ones too: 0 for equal sizes, (k - 1) / k for everything in one.
    largest_over_smallest : float
        Over the clusters that are not empty.
    empty : int
        Clusters without anything.
    """

    max_share: float
    gini: float
    largest_over_smallest: float
    empty: int

    @classmethod
    def of(cls, sizes: npt.NDArray[np.int64]) -> Balance:
        """Measure sizes: rows, or fixed-point weights, whose scale makes no difference.

        Parameters
        ----------
        sizes : (k,) int64
            Not negative, not all zero.

        Examples
        --------
        >>> Balance.of(np.array([6, 0, 2]))
        Balance(max_share=0.75, gini=0.5, largest_over_smallest=3.0, empty=1)
        """
        # Python's integers: ranks times fixed-point weights leave 64 bits behind.
        ascending = sorted(int(size) for size in sizes)
        k, total = len(ascending), sum(ascending)
        ranked = sum(rank * size for rank, size in enumerate(ascending, 1))
        full = [size for size in ascending if size > 0]
        return cls(
            max_share=ascending[-1] / total,
            gini=(2 * ranked - (k + 1) * total) / (k * total),
            largest_over_smallest=full[-1] / full[0],
            empty=k - len(full),
        )
