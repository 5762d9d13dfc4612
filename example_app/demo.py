"""Plays the experiment: ``python -m example_app.demo [--fast] [--serve]``.

It starts the slow third party and the news site, visits the front page while the page is new, fresh, stale, fresh again
and without a third party, prints a row for each visit, stops what it started, and exits 0 if the story held.
"""

import argparse
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

import requests

from example_app.servers import Server, ServerFailed, news_site, tail, third_party

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUMBER = re.compile(r'id="number">(\d+)<')
LAYOUT = "{:>4}  {:>8}  {:<9}  {:>8}  {}"
# A visitor who is served from the cache needs a few milliseconds, one who waits for the third party all of its sleep.
WAITED = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The times of the story, in seconds.

    :param sleep: what a call of the third party takes.
    :param max_age: how long a page is fresh.
    :param pause: between a visitor's requests.
    """

    sleep: float
    max_age: float
    pause: float
    visitors: int = 10
    visits: int = 4

    @property
    def patience(self) -> float:
        """How long anything may take before the demo gives up on it."""
        return self.sleep + 30


NORMAL = Plan(sleep=10, max_age=15, pause=1)
FAST = Plan(sleep=1.2, max_age=1.6, pause=0.1)


@dataclass(frozen=True, slots=True)
class Row:
    """One request: its number, when it began and how long it took, and what came back; no code if nothing did."""

    number: int
    moment: float
    status: str
    seconds: float
    value: str
    code: int | None = 200

    def __str__(self) -> str:
        return LAYOUT.format(self.number, f"{self.moment:.2f}", self.status, f"{self.seconds:.3f}", self.value)


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story, and what must hold in it.

    :param statuses: pattern of the cache statuses, joined by spaces.
    :param calls: how often the third party may be called meanwhile.
    """

    heading: str
    statuses: str
    calls: range
    may_wait: bool = False


# Each worker hands over a refresh of its own and finds the lock taken, so STALE may come more than once.
_STALE = "STALE( STALE| UPDATING)* UPDATING( STALE| UPDATING)*"
COLD = Chapter(
    "Nothing stored, {0.visitors} visitors at once: one call of the third party, its answer for everyone.",
    "MISS( MISS)*",
    range(1, 2),
    may_wait=True,
)
FRESH = Chapter("Fresh for {0.max_age:g} s: served from the cache.", "HIT( HIT)*", range(1))
STALE = Chapter("Stale: the old page at once, while the third party is called for a new one.", _STALE, range(1, 2))
RENEWED = Chapter("Fresh again, with the new value.", "HIT( HIT)*", range(1))
# Down for a few seconds only: the first attempt, and one after the first back-off of two seconds.
DOWN = Chapter("Stale again, and the third party is down: still served, still at once.", _STALE, range(1, 3))


class StoryFailed(Exception):
    """Something in the story was not as it should be."""


class Stopped(BaseException):
    """A signal asks the demo to end; it passes every handler, as KeyboardInterrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


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
    return found


def summary(rows: Sequence[Row], first: int, calls: int) -> str:
    """Say in one line what happened; the first requests are the ones that had to wait."""
    served = sum(row.code == 200 for row in rows)
    slowest = max(row.seconds for row in rows[first:])
    return (
        f"{served} requests were served, the slowest after the first {first} took {slowest:.3f} s, "
        f"and the third party was called {calls} times."
    )


class Story:
    """Visits the site as the plan says, and prints what happens."""

    def __init__(self, plan: Plan, site: Server, partner: Server) -> None:
        self.plan = plan
        self.site = site
        self.partner = partner
        self.rows: list[Row] = []
        self.calls = 0
        self.began = time.monotonic()
        # One visitor on one connection, so that a refresh that holds the connection would be seen.
        self.visitor = _session()

    def close(self) -> None:
        """End the visitor's connection, for which gunicorn would wait when it stops."""
        self.visitor.close()

    def play(self) -> None:
        """Play all chapters.

        :raises StoryFailed: at the end of the first chapter in which something was wrong.
        """
        print(LAYOUT.format("No", "Moment", "Status", "Seconds", "Value"))
        value = self._fill()
        stored = time.monotonic()
        self._judge(FRESH, self._visits(FRESH), value)
        self._wait_until_stale(stored)
        value = self._renew(value)
        stored = time.monotonic()
        self.tell("mode", "down")
        self._wait_until_stale(stored)
        last = self._visits(DOWN)
        self._wait_until_called()
        self._judge(DOWN, last, value)

    def tell(self, what: str, text: str) -> None:
        """Tell the third party its mode or its sleep."""
        self._partner("POST", what, text)

    def _fill(self) -> str:
        """Visit the page many times at once, before there is one, and return its value."""
        self._open(COLD)
        answers: SimpleQueue[Row] = SimpleQueue()
        for number in range(1, self.plan.visitors + 1):
            threading.Thread(target=self._visit_alone, args=(number, answers), daemon=True).start()
        deadline = time.monotonic() + self.plan.patience
        rows = [_next(answers, deadline) for _ in range(self.plan.visitors)]
        rows.sort(key=lambda row: row.number)
        for row in rows:
            self._show(row)
        self._judge(COLD, rows, rows[0].value)
        return rows[0].value

    def _renew(self, old: str) -> str:
        """Visit the stale page until it is new, then a few times more, and return the new value."""
        self._open(STALE)
        deadline = time.monotonic() + self.plan.patience
        stale = []
        while (row := self._visit()).status in ("STALE", "UPDATING") and time.monotonic() < deadline:
            stale.append(self._show(row))
            time.sleep(self.plan.sleep / 5)
        self._judge(STALE, stale, old)
        self._open(RENEWED)
        self._judge(RENEWED, [self._show(row), *self._more(self.plan.visits - 1)], row.value)
        return row.value

    def _visits(self, chapter: Chapter) -> list[Row]:
        self._open(chapter)
        return [self._show(self._visit()), *self._more(self.plan.visits - 1)]

    def _more(self, visits: int) -> Iterator[Row]:
        for _ in range(visits):
            time.sleep(self.plan.pause)
            yield self._show(self._visit())

    def _visit(self) -> Row:
        return self._ask(self.visitor, len(self.rows) + 1)

    def _visit_alone(self, number: int, answers: SimpleQueue[Row]) -> None:
        with _session() as session:
            answers.put(self._ask(session, number))

    def _ask(self, session: requests.Session, number: int) -> Row:
        """Ask for the front page; an error is a row too."""
        start = time.monotonic()
        code, status, value = None, "-", "no answer"
        try:
            response = session.get(self.site.url, timeout=self.plan.patience)
        except requests.RequestException as error:
            value = f"no answer ({type(error).__name__})"
        else:
            code, status = response.status_code, response.headers.get("X-Cache-Status", "-")
            found = NUMBER.search(response.text)
            value = found[1] if found else f"HTTP {code}"
        return Row(number, start - self.began, status, time.monotonic() - start, value, code)

    def _open(self, chapter: Chapter) -> None:
        print(f"\n{chapter.heading.format(self.plan)}", flush=True)

    def _show(self, row: Row) -> Row:
        self.rows.append(row)
        print(row, flush=True)
        return row

    def _judge(self, chapter: Chapter, rows: Sequence[Row], value: str) -> None:
        """Compare a chapter with what must hold in it.

        :raises StoryFailed: with everything that was wrong.
        """
        before, self.calls = self.calls, self._count()
        if found := complaints(chapter, rows, self.calls - before, value):
            raise StoryFailed("\n".join(found))

    def _wait_until_stale(self, stored: float) -> None:
        """Wait until a page that was there at that moment is no longer fresh."""
        time.sleep(max(0.0, stored + self.plan.max_age + 0.1 - time.monotonic()))

    def _wait_until_called(self) -> None:
        """Wait until the third party was called once more, which happens after the response; but not for long."""
        deadline = time.monotonic() + 5
        while self._count() == self.calls and time.monotonic() < deadline:
            time.sleep(0.05)

    def _count(self) -> int:
        return int(self._partner("GET", "calls").text)

    def _partner(self, method: str, path: str, text: str = "") -> requests.Response:
        with _session() as session:
            response = session.request(method, f"{self.partner.url}{path}", data=text, timeout=5)
        response.raise_for_status()
        return response


def _session() -> requests.Session:
    """Return a session without the environment's proxies."""
    session = requests.Session()
    session.trust_env = False
    return session


def _next(answers: SimpleQueue[Row], deadline: float) -> Row:
    try:
        return answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise StoryFailed("not all of the first visitors got an answer") from None


def _stay_up(site: Server, partner: Server) -> None:
    """Say where the servers are, and wait for a signal.

    :raises ServerFailed: when one of them ends.
    """
    print(f"\nThe news site is at {site.url} and stays up until Ctrl-C.")
    print("The third party answers again. Make it fail, hang, be down, or answer faster:")
    for path, text in (("mode", "fail"), ("mode", "hang"), ("mode", "down"), ("mode", "ok"), ("sleep", "1")):
        print(f"    curl --data {text:<4} {partner.url}{path}")
    print("Watch the cache:")
    print(f"    curl --silent --head {site.url}", flush=True)
    while True:
        site.check()
        partner.check()
        time.sleep(0.5)


def _run(plan: Plan, serve: bool) -> int:
    """Start the servers, play the story, and stop them whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-demo-")))
        partner = stack.enter_context(third_party(plan.sleep, folder))
        settings = {"THIRD_PARTY_URL": partner.url, "STALECACHE_MAX_AGE": plan.max_age}
        site = stack.enter_context(news_site(settings, folder))
        print(f"Third party: {partner.url} (needs {plan.sleep:g} s), news site: {site.url}\n", flush=True)
        story = stack.enter_context(closing(Story(plan, site, partner)))
        try:
            story.play()
        except StoryFailed as failure:
            print(f"\nThe story did not hold:\n{failure}\n\nThe site's log:\n{tail(site.log)}", file=sys.stderr)
            return 1
        print(f"\n{summary(story.rows, plan.visitors, story.calls)}", flush=True)
        if serve:
            story.tell("mode", "ok")
            return _serve(site, partner)
    return 0


def _serve(site: Server, partner: Server) -> int:
    try:
        _stay_up(site, partner)
    except Stopped:
        # The end of serving that was asked for, not a story cut short.
        print("Stopping.")
    return 0


def _stop_on(number: int, frame: FrameType | None) -> NoReturn:
    # From here on nothing may cut the stopping of the servers short; it has a limit of its own.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m example_app.demo", description="Play the experiment and print it.")
    parser.add_argument("--fast", action="store_true", help="the same with shorter times, in less than 10 s")
    parser.add_argument("--serve", action="store_true", help="stay up afterwards, until Ctrl-C")
    options = parser.parse_args(arguments)
    for number in SIGNALS:
        signal.signal(number, _stop_on)
    try:
        return _run(FAST if options.fast else NORMAL, options.serve)
    except ServerFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except Stopped as stopped:
        return 128 + stopped.number


if __name__ == "__main__":
    raise SystemExit(main())
