"""k-means over a stream of batches: every centre is the mean of all rows that it has been given so far.

Sources: MacQueen, *Some methods for classification and analysis of multivariate observations* (1967); Sculley,
*Web-scale k-means clustering* (2010), whose rate per centre is 1 / rows seen. A batch is given to the centres as they
were before it, and its sums are exact: the bits depend on the rows and on the order of the batches alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distclust.algorithms.kmeans_config import KMeansConfig
from distclust.algorithms.seeding import initial_centers
from distclust.algorithms.vectors import block_centers
from distclust.engines.protocol import Engine
from distclust.errors import DataError
from distclust.kernels.lloyd import row_sqnorm
from distclust.ops.centers import CenterSet
from distclust.ops.clusters import measure_clusters
from distclust.ops.labels import NearestLabels
from distclust.ops.profile import PreparedData

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunningCenters:
    """Centres after some batches.

    Attributes
    ----------
    centers : (k, d) float64
        In the coordinates of the source: a centre of many rows moves by less than float32 holds.
    mass : (k,) float64
        Weight of the rows that each has been given.
    """

    centers: Floats
    mass: Floats

    def middle(self) -> Floats:
        """Return the mean of all rows so far: what to subtract from the next ones."""
        total = np.cumsum(self.mass)[-1]
        shares = self.mass / total if total > 0 else np.full(len(self.mass), 1 / len(self.mass))
        middle: Floats = np.cumsum(self.centers * shares[:, None], axis=0)[-1]
        return middle


def first_centers(engine: Engine, data: PreparedData, config: KMeansConfig) -> RunningCenters:
    """Choose centres among the rows of a first batch, as `fit_kmeans` begins; they weigh nothing yet.

    Raises
    ------
    DataError
        Fewer distinct rows than clusters: later batches could not add any.
    """
    rows = initial_centers(engine, data, config, 0)
    if len(rows) < config.n_clusters:
        raise DataError(
            f"only {len(rows)} distinct rows were found in the first batch for {config.n_clusters} clusters.",
            where=data.source.describe_place(),
            do="Begin with a larger batch, or ask for fewer clusters.",
        )
    return RunningCenters(rows.astype(np.float64) + data.offset, np.zeros(len(rows)))


def add_batch(engine: Engine, data: PreparedData, state: RunningCenters) -> RunningCenters:
    """Give the rows of a batch to their nearest centres, and move these to the means of all rows so far.

    Parameters
    ----------
    engine : Engine
    data : PreparedData
        The batch, centred by ``state.middle()`` or any point near its rows.
    state : RunningCenters

    Returns
    -------
    RunningCenters
        Under cosine the centres are unit vectors; a centre that was given no row stays where it is.
    """
    centers: CenterSet = block_centers(state.centers, data.offset, data.view.dtype)
    clusters, _ = measure_clusters(engine, data, NearestLabels(centers), centers)
    given = clusters.weights
    mass = state.mass + given
    share = np.divide(given, mass, out=np.zeros_like(mass), where=mass > 0)[:, None]
    means = clusters.means + data.offset
    moved = np.where(share == 1, means, state.centers + (means - state.centers) * share)
    moved = np.where(clusters.full[:, None], moved, state.centers)
    if data.view.unit_rows:
        lengths = np.sqrt(row_sqnorm(moved))[:, None]
        moved = np.where(lengths > 0, moved / np.where(lengths > 0, lengths, 1.0), state.centers)
    return RunningCenters(moved, mass)
