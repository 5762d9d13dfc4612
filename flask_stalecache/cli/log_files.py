"""Reads access logs for ``advise``: files, compressed ones, and standard input."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import click

from ..core.http.access_log import FORMATS, LogLine, read_line
from ..errors import ConfigError

#: Lines between two updates of the progress bar.
_STEP = 5000


class LogFiles:
    """The requests of several logs, one file after the other.

    :ivar unread: lines in no known format.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._sources = sources
        self._first_unread = ""
        self.read = self.unread = 0

    def __iter__(self) -> Iterator[LogLine]:
        """Yield the requests. On a terminal, a progress bar is drawn on standard error.

        :raises ConfigError: if a file can't be read, or most lines are in no known format.
        """
        for source in self._sources:
            try:
                yield from self._lines_of(source)
            except (OSError, EOFError) as error:
                raise ConfigError(f"{source} can't be read: {error}") from error
        if self.unread > self.read:
            raise ConfigError(
                f"{self.unread} of {self.unread + self.read} lines are in no known format: give {FORMATS}; "
                f"the first is {self._first_unread!r}"
            )

    def _lines_of(self, source: str) -> Iterator[LogLine]:
        with _opened(source) as raw, _Progress(source, raw) as progress:
            for number, each in enumerate(_unpacked(source, raw)):
                if number % _STEP == 0:
                    progress.show()
                line = each.decode("utf-8", "replace")
                found = read_line(line)
                if found is not None:
                    self.read += 1
                    yield found
                elif line.strip():
                    self.unread += 1
                    self._first_unread = self._first_unread or line.strip()[:200]


def _opened(source: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb")


def _unpacked(source: str, raw: BinaryIO) -> BinaryIO:
    return gzip.open(raw) if source.endswith(".gz") else raw  # type: ignore[return-value]


class _Bar(Protocol):
    pos: int

    def update(self, n_steps: int) -> None:
        """Redraw the bar."""


class _Progress:
    """A bar that shows how much of a file has been read; nothing if standard error is not a terminal."""

    def __init__(self, source: str, raw: BinaryIO) -> None:
        self._raw = raw
        self._bar: AbstractContextManager[_Bar | None] = nullcontext()
        self._shown: _Bar | None = None
        if source != "-" and sys.stderr.isatty():
            self._bar = click.progressbar(length=Path(source).stat().st_size, label=Path(source).name, file=sys.stderr)

    def __enter__(self) -> _Progress:
        self._shown = self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.show()
        self._bar.__exit__(kind, error, trace)

    def show(self) -> None:
        """Draw how far the file has been read."""
        if self._shown is not None:
            self._shown.update(self._raw.tell() - self._shown.pos)
