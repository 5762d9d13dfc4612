"""What was seen in a soak test: wrong answers, counts and figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from support.soak.figures import Samples
from support.soak.ledger import Page
from support.soak.storm_site import is_frail, text_of


@dataclass
class Outcome:
    """What a process has seen, or visitors.

    :ivar wrong: the first wrong answers.
    :ivar done: how often each thing was done; of visits, how they were answered.
    :ivar slowest: the seconds that the slowest took of each.
    :ivar said: how often each line was logged.
    """

    wrong: list[str] = field(default_factory=list)
    wrongs: int = 0
    done: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    said: Counter[str] = field(default_factory=Counter)
    samples: Samples = field(default_factory=Samples)

    def fail(self, what: str) -> None:
        self.wrongs += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    def judge(
        self, page: Page, allowed: tuple[int, int], status: int, body: bytes, user: str = "nobody", word: str = ""
    ) -> int | None:
        """Look at an answer, and return the version that it shows; ``None`` if it is none.

        :param allowed: the first version and the last one that it may show.
        :param word: how the cache has answered.
        """
        kind, thing = page
        if status == 503 and body == b"down" and is_frail(thing):
            return None
        shown = body.decode().partition("\n")[0].split()
        if status != 200 or len(shown) != 4 or not shown[2].isdecimal():
            self.fail(f"{page}: {status} {body[:200]!r}")
            return None
        version, (first, last) = int(shown[2]), allowed
        if body.decode() != text_of("page" if kind == "flood" else kind, thing, version, user):
            self.fail(f"{page} for {user}: shows {body[:80]!r}, {len(body)} bytes")
        if not first <= version <= last:
            self.fail(f"{page}: shows version {version}, allowed are {first} to {last} {word}".rstrip())
        return version
