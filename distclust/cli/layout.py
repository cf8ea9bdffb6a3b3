"""Pairs and tables as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

INDENT = "  "


def pair_lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return pairs of name and value, the values aligned; pairs without a value are left out."""
    found = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in found), default=0)
    return [f"{INDENT}{name:<{width}}  {value}" for name, value in found]


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table with the first column to the left, the others to the right."""
    cells = [tuple(header), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return [
        INDENT
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
