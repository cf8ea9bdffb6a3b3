"""The one place that owns numba's flags and the cache of compiled kernels.

Kernels are serial and release the GIL (engines own parallelism), never use ``fastmath`` (the same bits
everywhere) and are compiled on first call. The compiled code is kept in a directory of our own:

``DISTCLUST_KERNEL_CACHE``, else the user's cache directory, else a private temporary directory.

numba's own cache keeps an index file per function that processes read, change and write back; two processes
that compile different signatures at once can leave an index that names the other one's code. Here a file is
named by the hash of all that determines its content, is checked by its digest and appears in one rename, so any
number of processes can share the directory, and a damaged file is merely compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

_DIGEST_BYTES = 32


def jit(function: Callable[..., Any] | None = None, *, name: str = "") -> Any:
    """Compile a function by numba with the flags of the house and the cache of the house.

    Parameters
    ----------
    function : callable, optional
        The function, when used as ``@jit`` without parentheses.
    name : str, optional
        The name that tells functions of one factory apart. It must determine everything that the function takes
        from its closure, because compiled code is found again by it.
    """
    if function is None:
        return functools.partial(jit, name=name)
    if name:
        function.__name__ = function.__qualname__ = name
    compiled = numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)
    if isinstance(compiled, Dispatcher):
        compiled._cache = KernelCache(f"{function.__module__}.{function.__qualname__}")
    return compiled


def jit_here(function: Callable[..., Any]) -> Any:
    """Compile with the flags of the house for this process alone.

    For a user's functions and what is compiled around them: their names do not tell two of them apart.
    """
    return numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)


def once(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a factory of kernels returns per arguments, also when threads ask at the same moment.

    Two kernels of one name in one process would share symbols of compiled code, so `functools.cache`, which may call
    twice then, is not enough.
    """
    lock = threading.Lock()
    kept = functools.cache(factory)

    @functools.wraps(factory)
    def make(*arguments: Any) -> Any:
        with lock:
            return kept(*arguments)

    return make


class KernelCache:
    """Compiled code of one function, a file per signature and machine.

    Stands in for `numba.core.caching.FunctionCache` (same methods).
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def cache_path(self) -> str:
        """The directory of the files."""
        return str(cache_directory())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled code for a signature, or None when there is none that can be used."""
        # numba refreshes its tables of typing rules here (0.4 s); code that is compiled already needs its runtime only.
        rtsys.initialize(target_context)
        try:
            data = self._path(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        digest, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled code for a signature; a directory that cannot be written is no error."""
        if data.library.has_dynamic_globals:
            raise RuntimeError(f"{self._name} holds an address of this process and cannot be cached.")
        payload = dumps(data._reduce())
        path = self._path(sig, data.codegen)
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, path)
            except OSError:
                os.unlink(temporary)
        except OSError:
            return

    def flush(self) -> None:
        """Do nothing: files never grow stale, because their names hold what determines them."""

    def _path(self, sig: Any, codegen: Any) -> Path:
        identity = repr((self._name, str(sig), codegen.magic_tuple()))
        return cache_directory() / f"{self._name}-{hashlib.sha256(identity.encode()).hexdigest()[:20]}"


@functools.cache
def cache_directory() -> Path:
    """Return the directory of compiled kernels for these versions, created and writable."""
    leaf = f"numba{numba.__version__}-{llvmlite.binding.get_host_cpu_name()}-{_code_digest()}"
    wanted = os.environ.get("DISTCLUST_KERNEL_CACHE")
    base = Path(wanted) if wanted else _user_cache() / "distclust" / "kernels"
    directory = base / leaf
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK | os.X_OK):
            return directory
    except OSError:
        pass
    return _temporary_directory(leaf)


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _temporary_directory(leaf: str) -> Path:
    """Return a directory that only this user can write, since what lies in it is run."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    shared = Path(tempfile.gettempdir()) / f"distclust-kernels-{user}"
    try:
        shared.mkdir(mode=0o700, exist_ok=True)
        found = shared.lstat()
        if not shared.is_symlink() and found.st_uid == user and not found.st_mode & 0o022:
            directory = shared / leaf
            directory.mkdir(exist_ok=True)
            return directory
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="distclust-kernels-"))


def _code_digest() -> str:
    """Return a digest of the versions and of the source of this package: what a signature does not tell."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__} {llvmlite.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
