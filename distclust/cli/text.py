"""Numbers as people read them."""

from __future__ import annotations

_BYTES = ("bytes", "KB", "MB", "GB", "TB")
_MINUTE, _HOUR = 60, 3600


def count_text(number: float) -> str:
    """Return ``64 900`` for 64900."""
    return f"{number:,.0f}".replace(",", " ")


def amount_text(number: int, noun: str) -> str:
    """Return ``1 file`` or ``64 900 files`` for the noun ``file``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{count_text(number)} {noun}{ending}"


def bytes_text(size: float) -> str:
    """Return ``24.8 MB`` for 26004685; units are powers of 1024, as in ``--memory``."""
    for unit in _BYTES:
        if size < 1024 or unit == _BYTES[-1]:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def rate_text(rows: float, seconds: float) -> str:
    """Return ``1.2M rows/s``, or nothing where nothing was measured."""
    if rows <= 0 or seconds <= 0:
        return ""
    rate = rows / seconds
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if rate >= limit:
            return f"{rate / limit:.3g}{unit} rows/s"
    return f"{rate:.3g} rows/s"


def seconds_text(seconds: float) -> str:
    """Return ``0.4 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
