"""The chapters of the demo: what is visited, what must hold, and what of it did not. Nothing here asks anybody."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LAYOUT = "{:>4}  {:>8}  {:<9}  {:>8}  {:>7}  {}"
TITLES = LAYOUT.format("No", "Moment", "Status", "Seconds", "Worker", "Value")
# A visitor who is served from the cache needs a few milliseconds, one who waits for the third party all of its sleep.
WAITED = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The times of the story, in seconds.

    :param sleep: what a call of the third party takes.
    :param query: what the dashboard takes.
    :param max_age: how long a page is fresh.
    :param pause: between a visitor's requests.
    """

    sleep: float
    query: float
    max_age: float
    pause: float
    visitors: int = 10
    visits: int = 4

    @property
    def patience(self) -> float:
        """How long anything may take before the demo gives up on it."""
        return self.sleep + 30


NORMAL = Plan(sleep=10, query=5, max_age=15, pause=1)
FAST = Plan(sleep=1.2, query=1.2, max_age=1.6, pause=0.1)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site.

    :param value: pattern of what a row shows of it.
    :param headers: fields that it is asked for with.
    """

    path: str
    value: re.Pattern[str]
    headers: Mapping[str, str] = field(default_factory=dict)


FRONT = Page("", re.compile(r'id="number">(\d+)<'))
DASHBOARD = Page("dashboard", re.compile(r'id="total">([\d,]+)<'))
SCREEN = Page("dashboard", DASHBOARD.value, {"X-Prefer-Stale": "1"})
ARTICLE = Page("articles/the-ten-second-box", re.compile(r"<h1>([^<]*)<"))
HEADLINE = Page("", re.compile(r'/the-ten-second-box">([^<]*)<'))


@dataclass(frozen=True, slots=True)
class Row:
    """One request: its number, when it began, how long it took, who answered, and what came back; no code if nobody did."""

    number: int
    moment: float
    status: str
    seconds: float
    value: str
    code: int | None = 200
    worker: str = "-"

    def __str__(self) -> str:
        return LAYOUT.format(self.number, f"{self.moment:.2f}", self.status, f"{self.seconds:.3f}", self.worker, self.value)


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story, and what must hold in it.

    :param statuses: pattern of the cache statuses, joined by spaces.
    :param calls: how often the third party may be called meanwhile.
    :param workers: how many workers must have answered, at least.
    """

    heading: str
    statuses: str
    calls: range = range(1)
    may_wait: bool = False
    workers: int = 1


# Each worker hands over a refresh of its own and finds the lock taken, so STALE may come more than once.
_STALE = "STALE( STALE| UPDATING)* UPDATING( STALE| UPDATING)*"
COLD = Chapter(
    "Nothing stored, {0.visitors} visitors at once: one call of the third party, its answer for everyone.",
    "MISS( MISS)*",
    range(1, 2),
    may_wait=True,
)
FRESH = Chapter("Fresh for {0.max_age:g} s: served from the cache.", "HIT( HIT)*")
STALE = Chapter("Stale: the old page at once, while the third party is called for a new one.", _STALE, range(1, 2))
RENEWED = Chapter("Fresh again, with the new value.", "HIT( HIT)*")
COUNTED = Chapter("The dashboard, a query of {0.query:g} s, is made for the first who asks.", "MISS", may_wait=True)
# Down for a few seconds only: the first attempt, and one after the first back-off of two seconds.
DOWN = Chapter("The front page stale again, and the third party down: still served, still at once.", _STALE, range(1, 3))
PREFERRED = Chapter("The dashboard, too old by now, asked for with X-Prefer-Stale: what is stored, at once.", "STALE( STALE)*")
PLAIN = Chapter("The same without that field, asked for at the same time: it has waited for the query.", "EXPIRED", may_wait=True)
BEFORE = Chapter("An article, asked for from both workers: each has it in memory.", "MISS( HIT)*", workers=2)
PUBLISHED = Chapter(
    "An editor publishes a new title, which purges the article's tag: both workers show it at their next request.",
    "MISS( HIT)*",
    workers=2,
)
REMADE = Chapter(
    "The front page has that tag too: nobody sees the old title, and the third party, up again, is called once.",
    "MISS( MISS)*",
    range(1, 2),
    may_wait=True,
    workers=2,
)


def complaints(chapter: Chapter, rows: Sequence[Row], calls: int, value: str) -> list[str]:
    """Compare what happened in a chapter with what must hold in it.

    :param calls: how often the third party was called meanwhile.
    :param value: what everybody was to be shown.
    """
    statuses = " ".join(row.status for row in rows)
    found = [f"request {row.number} was answered with {row.value}" for row in rows if row.code != 200]
    if not found and not re.fullmatch(chapter.statuses, statuses):
        found.append(f"the cache statuses were {statuses or 'none'}, not as in {chapter.statuses!r}")
    found += [f"request {row.number} shows {row.value}, not {value}" for row in rows if row.code == 200 and row.value != value]
    if not chapter.may_wait:
        found += [f"request {row.number} took {row.seconds:.3f} s" for row in rows if row.seconds > WAITED]
    if calls not in chapter.calls:
        expected = " or ".join(map(str, chapter.calls))
        found.append(f"the third party was called {calls} times, not {expected}")
    answered = {row.worker for row in rows if row.code == 200}
    if not found and len(answered) < chapter.workers:
        found.append(f"{len(answered)} of the workers answered, not {chapter.workers}")
    return found


def summary(told: Sequence[tuple[Chapter, Row]], calls: int) -> str:
    """Say in one line what happened."""
    served = sum(row.code == 200 for _, row in told)
    waited = sum(chapter.may_wait for chapter, _ in told)
    slowest = max(row.seconds for chapter, row in told if not chapter.may_wait)
    return (
        f"{served} requests were served: {waited} waited for a page to be made, the slowest of the others took {slowest:.3f} s. "
        f"The third party was called {calls} times."
    )
