"""Live apps whose pages repeat the answer of a third party on each line, and checks of what visitors read."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from support.servers import Answer, Gate, Server

_numbers = itertools.count()


@dataclass(frozen=True)
class Shop:
    """The app on a server, and the third party that it asks.

    :ivar folder: where it notes who comes.
    """

    kind: str
    server: Server
    gate: Gate
    folder: Path

    def arrivals(self, path: str) -> int:
        """How many visits of a page have come in."""
        arrivals = self.folder / "arrivals"
        return arrivals.read_text().split().count(path) if arrivals.exists() else 0

    def questions(self, path: str) -> list[dict[str, str]]:
        """What the third party was asked for a page."""
        return [question for question in self.gate.questions if question["path"] == path]

    def open_calls(self, path: str) -> int:
        """How many calls of the third party for a page wait now. Calls for the pages of other tests may still come in meanwhile."""
        return sum(question["path"] == path for question in self.gate.open_questions)


def new_path() -> str:
    """Return a page that no other test visits."""
    return f"/text/{next(_numbers)}"


def line_of(answer: Answer, lines: int) -> str:
    """Return the line that a page repeats.

    :param lines: how many lines a whole page has.
    :raises AssertionError: if the page is an error, cut, or mixed from two.
    """
    assert answer.status == 200, answer
    (line, count), *others = Counter(answer.text.splitlines()).items()
    assert (count, others) == (lines, [])
    return line
