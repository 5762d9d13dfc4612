"""The chapters of the demo: what is visited, what must hold, and what of it did not. Nothing here asks anybody."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from example_app.partners import LONGEST_WAIT

LAYOUT = "{:>4}  {:>8}  {:<9}  {:>8}  {:>7}  {}"
TITLES = LAYOUT.format("No", "Moment", "Status", "Seconds", "Worker", "Value")
# A visitor who is served from the cache needs a few milliseconds, one who waits for the slow partner all of its sleep.
WAITED = 1.0
BETWEEN = " | "


@dataclass(frozen=True, slots=True)
class Plan:
    """The times of the story, in seconds.

    :param sleep: what a call of the slow partner takes.
    :param query: what the dashboard takes.
    :param max_age: how long a page and the number are fresh.
    :param pause: between a visitor's requests.
    :param backoff: the first and the longest pause after a failure.
    :param in_a_row: visits in each manner in which the partners misbehave.
    :param between: these visits.
    """

    sleep: float
    query: float
    max_age: float
    pause: float
    backoff: tuple[float, float]
    in_a_row: int
    between: float
    visitors: int = 10
    visits: int = 4

    @property
    def patience(self) -> float:
        """How long anything may take before the demo gives up on it."""
        return self.sleep + 30


NORMAL = Plan(sleep=10, query=5, max_age=15, pause=1, backoff=(1, 2), in_a_row=20, between=0.25)
FAST = Plan(sleep=1.2, query=1.2, max_age=2.4, pause=0.1, backoff=(0.2, 0.4), in_a_row=10, between=0.08)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site.

    :param value: pattern of what a row shows of it: its groups.
    :param headers: fields that it is asked for with.
    """

    path: str
    value: re.Pattern[str]
    headers: Mapping[str, str] = field(default_factory=dict)


FRONT = Page("", re.compile(r'id="number">([^<]*)<'))
# What three partners said; in place of one of them there may be words.
BOXES = Page("", re.compile(r'class="comments">([^<]*)<.*id="number">([^<]*)<.*id="degrees">([^<]*)<', re.DOTALL))
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


def _number(*times: int) -> Mapping[str, range]:
    return {"number": range(min(times), max(times) + 1)}


def _each(number: int, weather: int, comments: int, *, least: int = 0) -> Mapping[str, range]:
    return {name: range(least, most + 1) for name, most in (("number", number), ("weather", weather), ("comments", comments))}


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story, and what must hold in it.

    :param statuses: pattern of the cache statuses, joined by spaces.
    :param calls: how often a partner may be called meanwhile, by its name; by default the slow one is not.
    :param longest: seconds that a visitor may wait.
    :param workers: how many workers must have answered, at least.
    """

    heading: str
    statuses: str
    calls: Mapping[str, range] = field(default_factory=lambda: _number(0))
    longest: float = WAITED
    workers: int = 1

    @property
    def may_wait(self) -> bool:
        """Whether its visitors wait for a page to be made."""
        return self.longest > WAITED


# Each worker hands over a refresh of its own and finds the lock taken, and what is made while a partner is waited for is stale at
# once and tried again a little later: so STALE may come more than once.
_STALE = "STALE( STALE| UPDATING)*"
# The page before may have been renewed in vain a moment ago.
_STALE_FROM_BEFORE = "(STALE|UPDATING)( STALE| UPDATING)*"
# On a busy machine one of those who come at once comes when the page is there already.
_COLD, _MADE = "MISS( MISS| STALE| UPDATING)*", "MISS( MISS| HIT)*"
COLD = Chapter(
    "Nothing stored, {0.visitors} visitors at once: one call of each partner, and of the slow one nobody waits for the answer.",
    _COLD,
    {"number": range(1, 2), "weather": range(1, 2), "comments": range(3, 4)},
    longest=LONGEST_WAIT + WAITED,
)
FILLED = Chapter("That page is stale at once, and renewed behind until the number is there.", _STALE_FROM_BEFORE)
FRESH = Chapter("Fresh for {0.max_age:g} s at most: served from the cache.", "HIT( HIT)*")
STALE = Chapter("Stale: the old page at once, while the slow partner is called for a new number.", _STALE, _number(1))
RENEWED = Chapter("Fresh again, with the new value.", "HIT( HIT)*")
COUNTED = Chapter("The dashboard, a query of {0.query:g} s, is made for the first who asks.", "MISS", longest=math.inf)
PREFERRED = Chapter("The dashboard, too old by now, asked for with X-Prefer-Stale: what is stored, at once.", "STALE( STALE)*")
PLAIN = Chapter(
    "The same without that field, asked for at the same time: it has waited for the query.", "EXPIRED", longest=math.inf
)
BEFORE = Chapter("An article, asked for from both workers: each has it in memory.", "MISS( HIT)*", workers=2)
PUBLISHED = Chapter(
    "An editor publishes a new title, which purges the article's tag: both workers show it at their next request.",
    "MISS( HIT)*",
    workers=2,
)
REMADE = Chapter(
    "The front page has that tag too: nobody sees the old title, and what the partners said is stored, so nobody waits for them.",
    _MADE,
    _number(0, 1),
    workers=2,
)


@dataclass(frozen=True, slots=True)
class Manner:
    """A manner in which all partners behave while visitors ask for the front page in a row.

    :param mode: what the third parties are told.
    :param is_slow: each call takes as long as one of the slow partner.
    """

    name: str
    chapter: Chapter
    mode: str
    is_slow: bool = False


SLOW = Manner(
    "slow", Chapter("Slow: all three partners take {0.sleep:g} s.", _STALE_FROM_BEFORE, _each(1, 1, 3)), "ok", is_slow=True
)
FLAKY = Manner(
    "flaky",
    Chapter(
        "Flaky: every second call of a partner fails, with a 500 or a reset.",
        f"{_STALE_FROM_BEFORE}( STALE| UPDATING| HIT)*",
        _each(4, 4, 12),
    ),
    "flaky",
)
HANGING = Manner("hanging", Chapter("Hanging: they take each call, and say nothing.", _STALE_FROM_BEFORE, _each(2, 2, 6)), "hang")
DEAD = Manner(
    "dead",
    Chapter(
        "Dead: they close each connection. The comments fail for every article, and are left alone for a while.",
        _STALE_FROM_BEFORE,
        _each(5, 5, 9),
    ),
    "down",
)
BACK = Manner(
    "back",
    Chapter(
        "Back: they answer, and as soon as each of them is asked again, all on the page is new.",
        f"{_STALE_FROM_BEFORE}( STALE| UPDATING| HIT)* HIT",
        _each(20, 20, 60, least=1),
    ),
    "ok",
)
MISBEHAVING = (SLOW, FLAKY, HANGING, DEAD)


def complaints(chapter: Chapter, rows: Sequence[Row], calls: Mapping[str, int], value: str | None) -> list[str]:
    """Compare what happened in a chapter with what must hold in it.

    :param calls: how often each partner was called meanwhile.
    :param value: what everybody was to be shown; ``None``: whatever the partners had said, and nothing in its place.
    """
    statuses = " ".join(row.status for row in rows)
    found = [f"request {row.number} was answered with {row.value}" for row in rows if row.code != 200]
    if not found and not re.fullmatch(chapter.statuses, statuses):
        found.append(f"the cache statuses were {statuses or 'none'}, not as in {chapter.statuses!r}")
    found += _shown(rows, value)
    found += [f"request {row.number} took {row.seconds:.3f} s" for row in rows if row.seconds > chapter.longest]
    found += [
        f"{name} was called {calls[name]} times, not {_to_words(expected)}"
        for name, expected in chapter.calls.items()
        if calls[name] not in expected
    ]
    answered = {row.worker for row in rows if row.code == 200}
    if not found and len(answered) < chapter.workers:
        found.append(f"{len(answered)} of the workers answered, not {chapter.workers}")
    return found


def _shown(rows: Sequence[Row], value: str | None) -> list[str]:
    served = [row for row in rows if row.code == 200]
    if value is None:
        return [f"request {row.number} shows {row.value}, where something is missing" for row in served if not is_whole(row)]
    return [f"request {row.number} shows {row.value}, not {value}" for row in served if row.value != value]


def is_whole(row: Row) -> bool:
    """Whether each partner has said something of what a row shows: then there is a figure in it."""
    return all(re.search(r"\d", part) for part in row.value.split(BETWEEN))


def _to_words(expected: range) -> str:
    return str(expected[0]) if len(expected) == 1 else f"{expected[0]} to {expected[-1]}"


def latencies(manner: Manner, rows: Sequence[Row], calls: Mapping[str, int]) -> str:
    """Say in three lines what visitors saw of a manner in which the partners behave."""
    statuses = {status: sum(row.status == status for row in rows) for status in dict.fromkeys(row.status for row in rows)}
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    called = ", ".join(f"{name} {count}" for name, count in calls.items())
    return (
        f"    milliseconds: {' '.join(f'{row.seconds * 1000:.0f}' for row in rows)}\n"
        f"    statuses: {counts}; calls: {called}; at the end: {rows[-1].value}\n"
        f"    {manner.name}: {len(rows)} requests, half of them within {median(row.seconds for row in rows):.3f} s, "
        f"slowest {max(row.seconds for row in rows):.3f} s"
    )


def summary(told: Sequence[tuple[Chapter, Row]], calls: int) -> str:
    """Say in one line what happened."""
    served = sum(row.code == 200 for _, row in told)
    waited = sum(chapter.may_wait for chapter, _ in told)
    slowest = max(row.seconds for chapter, row in told if not chapter.may_wait)
    return (
        f"{served} requests were served: {waited} waited for a page to be made, the slowest of the others took {slowest:.3f} s. "
        f"The slow partner was called {calls} times."
    )
