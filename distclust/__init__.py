"""Cluster and curate vector collections too large for one machine, with the same bits on every engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distclust.estimators.bisecting import BisectingKMeans as BisectingKMeans
    from distclust.estimators.kmeans import KMeans as KMeans
    from distclust.estimators.kmedoids import KMedoids as KMedoids
    from distclust.estimators.mixture import GaussianMixture as GaussianMixture
    from distclust.estimators.ppp import PPP as PPP

# Looked up on first use: the command line must not pay for scikit-learn, nor need it.
_LAZY = {
    "BisectingKMeans": "distclust.estimators.bisecting",
    "GaussianMixture": "distclust.estimators.mixture",
    "KMeans": "distclust.estimators.kmeans",
    "KMedoids": "distclust.estimators.kmedoids",
    "PPP": "distclust.estimators.ppp",
}

__all__ = ["BisectingKMeans", "GaussianMixture", "KMeans", "KMedoids", "PPP", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'distclust' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
