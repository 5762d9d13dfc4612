"""Output of the commands: columns, JSON, and text without terminal escapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: int = 2) -> Iterable[str]:
    """Yield rows as lines with aligned columns.

    :param right: indexes of the columns that are aligned to the right.
    """
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (" " * gap).join(cells).rstrip()


def echo_json(data: Any) -> None:
    """Print data as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def echo_json_array(items: Iterable[Any]) -> int:
    """Print items as one JSON array, each as soon as it is known, and return their number."""
    count = 0
    for count, item in enumerate(items, 1):
        click.echo(("[" if count == 1 else ",") + "\n" + json.dumps(item, ensure_ascii=False), nl=False)
    click.echo("\n]" if count else "[]")
    return count


def plain(text: str) -> str:
    """Return a text that is safe on a terminal: control characters are escaped."""
    return text if text.isprintable() else ascii(text)
