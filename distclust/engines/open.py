"""One word, or a live client or session, to an engine."""

from __future__ import annotations

import importlib
import re
from typing import Any, cast

from distclust.engines.base import BaseEngine
from distclust.engines.local import LocalEngine
from distclust.engines.protocol import Engine, EngineOptions
from distclust.errors import MissingExtraError, UsageError, nearest_name

_WORDS = ("local", "local[4]", "dask", "dask://host:8786", "spark", "spark://host:7077")
_DASK = re.compile(r"dask|(dask|tcp|tls|ucx|ws|wss)://.+")
_SPARK = re.compile(r"spark|(spark|sc)://.+|spark:.+|local-cluster\[.+\]|yarn|k8s://.+")
_LOCAL = re.compile(r"local(\[(\d+|\*)\])?")


def open_engine(spec: object = "local", options: EngineOptions | None = None) -> Engine:
    """Open an engine.

    Parameters
    ----------
    spec : str or object
        ``"local"`` (threads, all cores that this process may use), ``"local[4]"``; ``"dask"`` (an embedded cluster of
        processes), ``"dask://host:8786"`` or ``"tcp://host:8786"`` (a running scheduler); ``"spark"`` (an embedded
        session), ``"spark://host:7077"``, ``"sc://host:15002"``, ``"local-cluster[2,1,1024]"``; a live
        ``distributed.Client`` or ``SparkSession``, which stays open at the end; or an engine, returned as it is.
    options : EngineOptions, optional
        Events, cancel token, retries, node configuration. Not allowed with an engine.

    Returns
    -------
    Engine

    Raises
    ------
    UsageError
        Unknown engine.
    MissingExtraError
        The engine's package is not installed.
    EngineLostError
        No scheduler or master answers at the address.

    Examples
    --------
    >>> from distclust.engines.open import open_engine
    >>> engine = open_engine("local[2]")
    >>> engine.info.name, engine.info.slots
    ('local', 2)
    >>> engine.close()
    """
    if isinstance(spec, BaseEngine):
        if options is not None:
            raise UsageError("An open engine has its options already.", do="Give them where the engine is opened.")
        return cast(Engine, spec)
    options = options or EngineOptions()
    if isinstance(spec, str):
        return _open_word(spec, options)
    package = type(spec).__module__.partition(".")[0]
    if package == "distributed":
        return _late("dask", "distributed").DaskEngine.open(spec, options)
    if package == "pyspark":
        return _late("spark", "pyspark").SparkEngine.open(spec, options)
    raise UsageError(
        f"Cannot open an engine from a {type(spec).__module__}.{type(spec).__qualname__}; allowed are "
        f"{', '.join(map(repr, _WORDS))}, a distributed.Client, a SparkSession or an engine."
    )


def _open_word(spec: str, options: EngineOptions) -> Engine:
    local = _LOCAL.fullmatch(spec)
    if local:
        count = local.group(2)
        return LocalEngine(None if count in (None, "*") else int(count), options)
    if _DASK.fullmatch(spec):
        return _late("dask", "distributed").DaskEngine.open(spec, options)
    if _SPARK.fullmatch(spec):
        return _late("spark", "pyspark").SparkEngine.open(spec, options)
    raise UsageError(
        f"Unknown engine {spec!r}; allowed are {', '.join(map(repr, _WORDS))}.", do=nearest_name(spec, _WORDS)
    )


def _late(engine: str, package: str) -> Any:
    """Import an engine's module only when it is asked for: its package is optional and slow to import."""
    try:
        return importlib.import_module(f"distclust.engines.{engine}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"The {engine} engine needs the package {package!r}, which is not installed.",
            do=f'pip install "distclust[{engine}]"',
        ) from error
