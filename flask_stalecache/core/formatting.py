"""Formats numbers, durations and texts for people. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

#: Shown instead of a number that does not exist.
NONE = "\N{EN DASH}"
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Return bytes in the unit that leaves few digits: ``3.2 MiB``."""
    unit = 0
    while count >= 1024 and unit < len(_SIZES) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {_SIZES[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_SIZES[unit]}"


def number(count: float) -> str:
    """Return a count with thousands separators."""
    return f"{count:,.0f}"


def rate(count: float, seconds: float) -> str:
    """Return a count per second."""
    value = count / seconds if seconds > 0 else 0.0
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 or value == 0 else f"{value:.2f}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent; a dash if the whole is 0. A share of less than the whole is never shown as 100 %."""
    if whole <= 0:
        return NONE
    share = 100 * part / whole
    if part < whole and share > 99.9:
        return "> 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.1f} %"


def latency(seconds: float | None) -> str:
    """Return a latency; a dash if nothing was measured. Below a millisecond, histograms have no finer bounds."""
    if seconds is None:
        return NONE
    if seconds <= 0.001:
        return "≤ 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def shortened(text: str, longest: int) -> str:
    """Return a text, cut if it is longer than so many characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def printable(text: str) -> str:
    """Return a text in one line that is safe in a log and on a terminal.

    Visitors choose paths and names. They could forge lines with line breaks, change colours with escape sequences, and reorder the
    characters with direction marks. Characters that can't be printed are escaped as in a Python literal.
    """
    if text.isprintable():
        return text
    return "".join([sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text])


def clock(at: float, form: str = "%H:%M:%S") -> str:
    """Return a time of day in UTC.

    :param at: seconds since the epoch.
    :param form: a format for ``strftime``.
    """
    return datetime.fromtimestamp(at, timezone.utc).strftime(form)


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def spell(seconds: float) -> str:
    """Return a duration: ``41 s``, ``12 min``, ``3.5 h``, ``2 d``."""
    for size, unit in _UNITS:
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"
