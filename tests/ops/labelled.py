"""Labels and classes in memory, and scikit-learn's scores of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import sklearn.metrics as peer

from distclust.data.block import Block
from distclust.engines.protocol import StepContext
from distclust.ops.centers import CenterSet


@dataclass(frozen=True)
class HeldLabels:
    """Labels of all rows, by row id."""

    labels: np.ndarray

    def of(self, block: Block, context: StepContext) -> np.ndarray:
        return self.labels[block.row_ids].astype(np.int32)

    def check(self, block: Block, labels: np.ndarray, sqdist: np.ndarray, centers: CenterSet) -> None:
        assert len(labels) == len(sqdist) == block.n


@dataclass(frozen=True)
class HeldClasses:
    """Classes of all rows, by row id."""

    names: tuple[str | None, ...]

    def of(self, block: Block) -> pa.Array:
        return pa.array([self.names[i] for i in block.row_ids], pa.string())


def peer_scores(X: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's geometric scores."""
    X = X.astype(np.float64)
    return {
        "silhouette": peer.silhouette_score(X, labels, metric="sqeuclidean"),
        "davies_bouldin": peer.davies_bouldin_score(X, labels),
        "calinski_harabasz": peer.calinski_harabasz_score(X, labels),
    }
