"""The chapters of the demo: the pages to visit, the expected results, and their comparison with the actual ones."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from example_app.partners import LONGEST_WAIT

LAYOUT = "{:>4}  {:>8}  {:<9}  {:>8}  {:>7}  {}"
TITLES = LAYOUT.format("No", "Moment", "Status", "Seconds", "Worker", "Value")
# A visit takes a few milliseconds from the cache, and the whole sleep of the slow partner without it.
WAITED = 1.0
BETWEEN = " | "


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in the demo, in seconds.

    :param sleep: duration of a call of the slow partner.
    :param query: processor time that the dashboard takes.
    :param max_age: freshness of a page and of the number.
    :param pause: pause between a visitor's requests.
    :param backoff: the first and the longest pause after a failure.
    :param in_a_row: number of visits for each kind of trouble.
    :param between: pause between these visits.
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
        """The time limit of every step of the demo."""
        return self.sleep + 30


NORMAL = Plan(sleep=10, query=5, max_age=15, pause=1, backoff=(1, 2), in_a_row=20, between=0.25)
# The tests share the machine, so visits that should find a page fresh, or the slow partner still busy, have seconds for that.
FAST = Plan(sleep=1.6, query=1.0, max_age=4, pause=0.1, backoff=(0.2, 0.4), in_a_row=10, between=0.08)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site.

    :param value: pattern whose groups are the value that a row shows.
    :param headers: header fields of the request.
    """

    path: str
    value: re.Pattern[str]
    headers: Mapping[str, str] = field(default_factory=dict)


FRONT = Page("", re.compile(r'id="number">([^<]*)<'))
# The values of the three partners, or placeholders.
BOXES = Page("", re.compile(r'class="comments">([^<]*)<.*id="number">([^<]*)<.*id="degrees">([^<]*)<', re.DOTALL))
DASHBOARD = Page("dashboard", re.compile(r'id="total">([\d,]+)<'))
SCREEN = Page("dashboard", DASHBOARD.value, {"X-Prefer-Stale": "1"})
# With the process that has computed it.
COUNTER = Page("dashboard", re.compile(r'id="total">([\d,]+)<.*id="process">(\d+)<', re.DOTALL), SCREEN.headers)
ARTICLE = Page("articles/the-ten-second-box", re.compile(r"<h1>([^<]*)<"))
HEADLINE = Page("", re.compile(r'/the-ten-second-box">([^<]*)<'))


@dataclass(frozen=True, slots=True)
class Row:
    """One request: its number, its start, its duration, the worker, and the response; ``code`` is ``None`` without a response."""

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
    """A part of the demo, with its expected results.

    :param statuses: pattern of the cache statuses, joined by spaces.
    :param calls: allowed number of calls of each partner, by name; by default, none of the slow partner.
    :param longest: seconds that a visitor may wait.
    :param workers: minimum number of workers that respond.
    """

    heading: str
    statuses: str
    calls: Mapping[str, range] = field(default_factory=lambda: _number(0))
    longest: float = WAITED
    workers: int = 1

    @property
    def may_wait(self) -> bool:
        """Whether its visitors wait for a page to be built."""
        return self.longest > WAITED


# STALE may occur more than once: each worker starts a refresh, of which one gets the lock, and a page that is built before a
# partner has responded is stale immediately and refreshed again.
_STALE = "STALE( STALE| UPDATING)*"
# A refresh of the previous chapter may have failed a moment ago.
_STALE_FROM_BEFORE = "(STALE|UPDATING)( STALE| UPDATING)*"
# On a busy machine, one of the concurrent visitors may arrive when the page is stored, and a value in it is already stale.
_COLD, _MADE = "MISS( MISS| STALE| UPDATING)*", "MISS( MISS| HIT| STALE| UPDATING)*"
COLD = Chapter(
    "Nothing stored, {0.visitors} concurrent visitors: one call of each partner, and visitors do not wait for the slow one.",
    _COLD,
    {"number": range(1, 2), "weather": range(1, 2), "comments": range(3, 4)},
    longest=LONGEST_WAIT + WAITED,
)
FILLED = Chapter("That page is stale immediately, and refreshed in the background until it has the number.", _STALE_FROM_BEFORE)
FRESH = Chapter("Fresh for up to {0.max_age:g} s: served from the cache.", "HIT( HIT)*")
STALE = Chapter("Stale: the old page is served immediately, while the slow partner is called for a new number.", _STALE, _number(1))
RENEWED = Chapter("Fresh again, with the new value.", "HIT( HIT)*")
COUNTED = Chapter("The dashboard, which computes for {0.query:g} s: the first visitor waits for it.", "MISS", longest=math.inf)
PREFERRED = Chapter("The dashboard, expired, with X-Prefer-Stale: the stored page is served immediately.", "STALE( STALE)*")
PLAIN = Chapter("The same at the same time, without that field: the visitor waits for it.", "EXPIRED", longest=math.inf)
_FROM_STORE = "(HIT|STALE|UPDATING)( HIT| STALE| UPDATING)*"
ALONE = Chapter("Many visits of the front page, while nothing is computed.", _FROM_STORE, {})
COMPUTING = Chapter(
    "As many while the dashboard is computed in a worker of the site: visitors of the front page do not notice.", _FROM_STORE, {}
)
APART = Chapter("As many while it is computed in a process of its own, `flask stalecache worker`.", _FROM_STORE, {})
BEFORE = Chapter("An article, from both workers: each keeps it in memory.", "MISS( HIT)*", workers=2)
PUBLISHED = Chapter(
    "An editor publishes a new title, which purges the article's tag: both workers show it at their next request.",
    "MISS( HIT)*",
    workers=2,
)
REMADE = Chapter(
    "The front page has that tag too: no visitor sees the old title, and none waits, because the partners' values are stored.",
    _MADE,
    _number(0, 1),
    workers=2,
)


@dataclass(frozen=True, slots=True)
class Manner:
    """A kind of trouble with all partners, while a visitor requests the front page repeatedly.

    :param mode: the mode that the third parties are set to.
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
HANGING = Manner("hanging", Chapter("Hanging: they accept calls, but do not respond.", _STALE_FROM_BEFORE, _each(2, 2, 6)), "hang")
DEAD = Manner(
    "dead",
    Chapter(
        "Dead: they close each connection. The comments fail for every article, so their calls are suspended for a while.",
        _STALE_FROM_BEFORE,
        _each(5, 5, 9),
    ),
    "down",
)
BACK = Manner(
    "back",
    Chapter(
        "Back: they respond, and as soon as each has been called again, everything on the page is new.",
        f"{_STALE_FROM_BEFORE}( STALE| UPDATING| HIT)* HIT",
        _each(20, 20, 60, least=1),
    ),
    "ok",
)
MISBEHAVING = (SLOW, FLAKY, HANGING, DEAD)


def complaints(chapter: Chapter, rows: Sequence[Row], calls: Mapping[str, int], value: str | None) -> list[str]:
    """Compare the results of a chapter with the expected ones.

    :param calls: number of calls of each partner in this chapter.
    :param value: the value that all visitors should see; ``None``: any values of the partners, but no placeholders.
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
    """Return whether a row shows values of all partners, which contain digits, unlike placeholders."""
    return all(re.search(r"\d", part) for part in row.value.split(BETWEEN))


def _to_words(expected: range) -> str:
    return str(expected[0]) if len(expected) == 1 else f"{expected[0]} to {expected[-1]}"


def latencies(manner: Manner, rows: Sequence[Row], calls: Mapping[str, int]) -> str:
    """Describe the visits during one kind of trouble in three lines."""
    statuses = {status: sum(row.status == status for row in rows) for status in dict.fromkeys(row.status for row in rows)}
    counts = ", ".join(f"{count} {status}" for status, count in statuses.items())
    called = ", ".join(f"{name} {count}" for name, count in calls.items())
    return (
        f"    milliseconds: {' '.join(f'{row.seconds * 1000:.0f}' for row in rows)}\n"
        f"    statuses: {counts}; calls: {called}; at the end: {rows[-1].value}\n"
        f"    {manner.name}: {len(rows)} requests, half of them within {median(row.seconds for row in rows):.3f} s, "
        f"slowest {max(row.seconds for row in rows):.3f} s"
    )


def share_of(name: str, rows: Sequence[Row]) -> str:
    """Describe many visits in one line, with the time within which 99 of 100 were answered."""
    seconds = sorted(row.seconds for row in rows)
    p99 = seconds[max(0, math.ceil(len(seconds) * 0.99) - 1)]
    return (
        f"    {name}: {len(rows)} requests, half of them within {median(seconds):.3f} s, 99 % within {p99:.3f} s, "
        f"slowest {seconds[-1]:.3f} s"
    )


def summary(told: Sequence[tuple[Chapter, Row]], calls: int) -> str:
    """Describe all visits in one line."""
    served = sum(row.code == 200 for _, row in told)
    waited = sum(chapter.may_wait for chapter, _ in told)
    slowest = max(row.seconds for chapter, row in told if not chapter.may_wait)
    return (
        f"{served} requests were served: {waited} waited for a page to be made, the slowest of the others took {slowest:.3f} s. "
        f"The slow partner was called {calls} times."
    )
