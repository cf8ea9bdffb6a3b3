"""The number of clusters by medoid silhouette: medoids of every k on a sample, all judged on all rows in one pass."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from distclust.algorithms.kmedoids_config import KMedoidsConfig
from distclust.algorithms.medoids import choose_k
from distclust.algorithms.onebatch import Medoids, both
from distclust.engines.events import StageEnded, StageStarted
from distclust.engines.protocol import Engine
from distclust.errors import DataError
from distclust.kernels.dissimilarity import table
from distclust.ops.measured import MeasuredData
from distclust.ops.medoids import MedoidSet, score_sets
from distclust.ops.sample import draw_uniform

CHOICE_ROWS = 4096
"""Rows of the sample: a matrix of 64 MB in float32, and 80 rows a cluster with 50 of them."""

_STAGE_CHOICE = 2


@dataclass(frozen=True)
class KChoice:
    """One number of clusters, judged on all rows.

    Attributes
    ----------
    k : int
    loss, silhouette : float
        See `distclust.ops.medoids.SetScore`.
    """

    k: int
    loss: float
    silhouette: float


def choose_n_clusters(
    engine: Engine, data: MeasuredData, config: KMedoidsConfig
) -> tuple[tuple[KChoice, ...], Medoids]:
    """Judge every number of clusters from 2 to ``config.k_max``, at most a tenth of the sampled rows.

    Parameters
    ----------
    engine : Engine
    data : MeasuredData
    config : KMedoidsConfig

    Returns
    -------
    choices : tuple of KChoice
        The best first: of highest silhouette, the fewest clusters among equals; the others by k.
    medoids : Medoids
        Of the best.

    Raises
    ------
    DataError
        There is one row only.
    """
    if data.n_rows < 2:
        raise DataError(
            "n_clusters='auto' needs two rows or more, there is one.",
            where=data.source.describe_place(),
            do="Give the number of clusters.",
        )
    started = time.perf_counter()
    engine.options.emit(StageStarted(stage="choose k", total_rows=data.pinned.n_rows, max_passes=2))
    sample = draw_uniform(engine, data.pinned, CHOICE_ROWS, seed=config.seed, stage=_STAGE_CHOICE).in_id_order()
    matrix = table(data.measure, *both(data.measure, sample.rows, sample.rows))
    _, found = choose_k(matrix, config.k_max, weights=sample.weights, seed=config.seed)
    sets = [MedoidSet(sample.rows[list(one.medoids)], data.measure) for one in found]
    scores = score_sets(engine, data, sets, label="choose k")
    choices = [KChoice(one.k, score.loss, score.silhouette) for one, score in zip(found, scores, strict=True)]
    best = min(range(len(choices)), key=lambda i: (-choices[i].silhouette, choices[i].k))
    medoids = list(found[best].medoids)
    engine.options.emit(StageEnded(stage="choose k", seconds=time.perf_counter() - started))
    others = sorted((one for one in choices if one is not choices[best]), key=lambda one: one.k)
    return (choices[best], *others), Medoids(np.ascontiguousarray(sample.rows[medoids]), sample.row_ids[medoids])
