"""Settings of the node cache: where its files lie and how much it may use."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from distclust.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class NodeConfig:
    """What every process of a run is told about its node's scratch; small and picklable.

    Attributes
    ----------
    token : str
        Name of the run's directory below the scratch directory; random by default. Processes with the same
        token on the same node share cached blocks.
    scratch : str or None
        Directory on a local disk; None for ``distclust-<user>`` in the node's temporary directory.
    cache_bytes : int or None
        Most bytes that the run's blocks and row state may take on one node; None for what leaves 10 % of the
        disk free, 0 to cache nothing.
    memory_bytes : int or None
        Bytes of blocks that one process may keep mapped between uses; None for a quarter of the machine's memory.
    keep : bool
        Leave the files when the run ends, and do not let later runs remove them.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    scratch: str | None = None
    cache_bytes: int | None = None
    memory_bytes: int | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.token):
            raise UsageError(f"token is {self.token!r}; allowed are letters, digits, '-' and '_'.")
        for name, value in (("cache_bytes", self.cache_bytes), ("memory_bytes", self.memory_bytes)):
            if value is not None and value < 0:
                raise UsageError(f"{name} is {value}; it must be 0 or more.")
