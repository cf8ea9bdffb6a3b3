"""Docstrings of the standard library and of installed packages, read from source files without importing them."""

from __future__ import annotations

import ast
import gc
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MOST_FROM_PACKAGE = 600
"""So that no single package makes most of the clusters."""
MOST_FILE_BYTES = 512 << 10
"""Larger sources are tables of data, or generated."""
LEAST_WORDS = 8
MOST_CHARACTERS = 2_000

_SKIPPED_DIRECTORIES = {
    "test",
    "tests",
    "testing",
    "__pycache__",
    "_vendor",
    "_vendored",
    "site-packages",
    "dist-packages",
    "idlelib",
}
_SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|_?version)\.py")
_WORD = re.compile(r"[A-Za-z]{3,}")
_BLOCKS = ("body", "orelse", "finalbody")


@dataclass(frozen=True)
class Document:
    """A docstring.

    Attributes
    ----------
    name : str
        Where it stands, as ``json.decoder:JSONDecoder.decode``.
    text : str
        Without indentation, at most 2000 characters.
    """

    name: str
    text: str

    @property
    def title(self) -> str:
        """The first line."""
        return self.text.split("\n", 1)[0].strip()


def python_directories() -> tuple[Path, ...]:
    """Return the standard library's directory and those of installed packages, without repetitions."""
    paths = sysconfig.get_paths()
    return tuple(dict.fromkeys(Path(paths[name]) for name in ("stdlib", "purelib", "platlib")))


def gather_documents(directories: Sequence[Path], limit: int) -> list[Document]:
    """Collect docstrings in a fixed order: directories as given, packages and files by name.

    Parameters
    ----------
    directories : sequence of Path
        Each holds packages and modules; see `python_directories`.
    limit : int
        Most documents.

    Returns
    -------
    list of Document
        No text twice.
    """
    seen: set[str] = set()
    found: list[Document] = []
    with _no_collector():
        for directory in directories:
            for top in sorted(directory.iterdir()):
                if len(found) >= limit:
                    return found
                new = _unseen(_package_documents(directory, top), seen)
                found += islice(new, min(MOST_FROM_PACKAGE, limit - len(found)))
    return found


@contextmanager
def _no_collector() -> Iterator[None]:
    """Switch the collector of cycles off: syntax trees have none, and looking for them takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _unseen(documents: Iterator[Document], seen: set[str]) -> Iterator[Document]:
    for document in documents:
        key = " ".join(document.text.lower().split())
        if key not in seen:
            seen.add(key)
            yield document


def _package_documents(directory: Path, top: Path) -> Iterator[Document]:
    for path in _sources(top):
        module = ".".join(path.relative_to(directory).with_suffix("").parts).removesuffix(".__init__")
        tree = _parse(path)
        if tree is not None:
            yield from _docstrings(tree, module)


def _sources(top: Path) -> Iterator[Path]:
    if top.is_file():
        if top.suffix == ".py" and not _SKIPPED_FILES.fullmatch(top.name):
            yield top
        return
    if _skipped(top.name):
        return
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if not _skipped(name))
        for name in sorted(names):
            if name.endswith(".py") and not _SKIPPED_FILES.fullmatch(name):
                yield Path(folder, name)


def _skipped(name: str) -> bool:
    return name in _SKIPPED_DIRECTORIES or not name.isidentifier()


def _parse(path: Path) -> ast.Module | None:
    """Return a source file's tree; None for what this Python cannot read (templates, other versions)."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _docstrings(node: ast.AST, name: str) -> Iterator[Document]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        document = None if text is None else _document(name, text)
        if document is not None:
            yield document
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _docstrings(child, f"{name}{'.' if ':' in name else ':'}{child.name}")
            elif isinstance(child, ast.If | ast.Try):
                yield from _docstrings(child, name)


def _document(name: str, text: str) -> Document | None:
    text = inspect.cleandoc(text)[:MOST_CHARACTERS].strip()
    # A lone surrogate is legal in a Python string, not in Parquet.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Document(name, text) if len(_WORD.findall(text)) >= LEAST_WORDS else None
