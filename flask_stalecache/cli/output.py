"""Output of the commands: columns, JSON, and text without terminal escapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..core.formatting import printable

#: Exit codes: nothing matched or something failed; wrong use; and nothing failed, but some answers were not stored.
NOTHING, WRONG_USE, NOT_STORED = 1, 2, 3


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: int = 2) -> Iterable[str]:
    """Yield rows as lines with aligned columns.

    :param right: indexes of the columns that are aligned to the right.
    """
    if not rows:
        return
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (" " * gap).join(cells).rstrip()


def echo(line: str, *, err: bool = False) -> None:
    """Print one line. Text of visitors in it can't forge another line, nor control the terminal.

    :param err: whether to print to standard error.
    """
    click.echo(printable(line), err=err)


def echo_json(data: Any) -> None:
    """Print data as JSON."""
    click.echo(_json(data, 2))


def echo_json_array(items: Iterable[Any]) -> int:
    """Print items as one JSON array, each as soon as it is known, and return their number."""
    count = 0
    for count, item in enumerate(items, 1):
        click.echo(("[" if count == 1 else ",") + "\n" + _json(item), nl=False)
    click.echo("\n]" if count else "[]")
    return count


def _json(data: Any, indent: int | None = None) -> str:
    """Return data as JSON, with unprintable characters escaped: terminals interpret some that JSON leaves unescaped."""
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    # Outside of strings there are only ASCII characters and line feeds.
    return "".join([sign if sign == "\n" or sign.isprintable() else json.dumps(sign)[1:-1] for sign in text])
