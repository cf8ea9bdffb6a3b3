"""Which distclust runs here: equal bits are promised only where driver and workers run the same code."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import distclust


@cache
def code_version() -> str:
    """Return the version of distclust in this process, with a digest of the package's Python files."""
    root = Path(distclust.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{distclust.__version__}+{digest.hexdigest()[:12]}"
