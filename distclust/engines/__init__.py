"""Engines: where steps run. `open_engine` opens one; `protocol` says what they promise."""

from distclust.engines.open import open_engine
from distclust.engines.protocol import CancelToken, Engine, EngineOptions

__all__ = ["CancelToken", "Engine", "EngineOptions", "open_engine"]
