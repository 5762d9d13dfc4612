"""Plays the experiment: ``python -m example_app.demo [--fast] [--serve]``.

It starts the slow third party and the news site, visits the front page while the page is new, fresh, stale, fresh again
and without a third party, asks for the dashboard with and without prefer stale, publishes an article, prints a row for each
visit, stops what it started, and exits 0 if the story held.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

import requests

from example_app.articles import FIRST
from example_app.chapters import (
    ARTICLE,
    BEFORE,
    COLD,
    COUNTED,
    DASHBOARD,
    DOWN,
    FAST,
    FRESH,
    FRONT,
    HEADLINE,
    NORMAL,
    PLAIN,
    PREFERRED,
    PUBLISHED,
    REMADE,
    RENEWED,
    SCREEN,
    STALE,
    TITLES,
    Chapter,
    Page,
    Plan,
    Row,
    complaints,
    summary,
)
from example_app.gunicorn_conf import workers
from example_app.servers import Server, ServerFailed, news_site, tail, third_party

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OLD = FIRST["the-ten-second-box"]
NEW = replace(OLD, title="The ten second box, mended")
EDITOR = {"username": "ada", "password": "analytical-engine"}


class StoryFailed(Exception):
    """Something in the story was not as it should be."""


class Stopped(BaseException):
    """A signal asks the demo to end; it passes every handler, as KeyboardInterrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Story:
    """Visits the site as the plan says, and prints what happens."""

    def __init__(self, plan: Plan, site: Server, partner: Server) -> None:
        self.plan = plan
        self.site = site
        self.partner = partner
        self.chapter = COLD
        self.told: list[tuple[Chapter, Row]] = []
        self.calls = 0
        self.began = time.monotonic()
        # One visitor on one connection, so that a refresh that holds the connection would be seen.
        self.visitor = _session()
        self.opened = ExitStack()
        self.opened.callback(self.visitor.close)

    def close(self) -> None:
        """End the visitors' connections, for which gunicorn would wait when it stops."""
        self.opened.close()

    def play(self) -> None:
        """Play all chapters.

        :raises StoryFailed: at the end of the first chapter in which something was wrong.
        """
        print(TITLES)
        value = self._fill()
        stored = time.monotonic()
        self._judge(self._visits(FRESH, FRONT), value)
        self._wait_until_stale(stored)
        value = self._renew(value)
        stored = time.monotonic()
        total = self._count_readers()
        counted = time.monotonic()
        self.tell("mode", "down")
        self._wait_until_stale(stored)
        last = self._visits(DOWN, FRONT)
        self._wait_until_called(sum(row.status == "STALE" for row in last))
        self._judge(last, value)
        self._wait_until_stale(counted)
        self._prefer_stale(total)
        self.tell("mode", "ok")
        self._publish()

    def tell(self, what: str, text: str) -> None:
        """Tell the third party its mode or its sleep."""
        self._partner("POST", what, text)

    # -- chapters ------------------------------------------------------------------------------------------------

    def _fill(self) -> str:
        """Visit the page many times at once, before there is one, and return its value."""
        self._open(COLD)
        with ExitStack() as stack:
            rows = self._at_once([stack.enter_context(_session()) for _ in range(self.plan.visitors)], FRONT)
        self._judge(rows, rows[0].value)
        return rows[0].value

    def _renew(self, old: str) -> str:
        """Visit the stale page until it is new, then a few times more, and return the new value."""
        self._open(STALE)
        deadline = time.monotonic() + self.plan.patience
        stale = []
        while (row := self._visit(FRONT)).status in ("STALE", "UPDATING") and time.monotonic() < deadline:
            stale.append(self._show(row))
            time.sleep(self.plan.sleep / 5)
        self._judge(stale, old)
        self._open(RENEWED)
        self._judge([self._show(row), *self._more(FRONT)], row.value)
        return row.value

    def _count_readers(self) -> str:
        """Visit the dashboard, and return its value."""
        self._open(COUNTED)
        row = self._show(self._visit(DASHBOARD))
        self._judge([row], row.value)
        return row.value

    def _prefer_stale(self, old: str) -> None:
        """Visit the dashboard with the field while somebody who did not send it waits."""
        waiting: SimpleQueue[Row] = SimpleQueue()
        deadline = time.monotonic() + self.plan.patience
        with _session() as session:
            self._send(session, 0, DASHBOARD, waiting)
            self._judge(self._visits(PREFERRED, SCREEN), old)
            self._open(PLAIN)
            row = self._show(replace(_next(waiting, deadline), number=len(self.told) + 1))
        self._judge([row], row.value)

    def _publish(self) -> None:
        """Visit an article and the front page from each worker, before and after it is changed."""
        visitors = self._one_for_each_worker()
        self._open(BEFORE)
        self._judge(self._in_turn(visitors), OLD.title)
        self._open(PUBLISHED)
        self._send_new_title()
        self._judge(self._in_turn(visitors), NEW.title)
        self._open(REMADE)
        self._judge(self._at_once(visitors, HEADLINE), NEW.title)

    # -- visits --------------------------------------------------------------------------------------------------

    def _visits(self, chapter: Chapter, page: Page) -> list[Row]:
        self._open(chapter)
        return [self._show(self._visit(page)), *self._more(page)]

    def _more(self, page: Page) -> Iterator[Row]:
        for _ in range(self.plan.visits - 1):
            time.sleep(self.plan.pause)
            yield self._show(self._visit(page))

    def _in_turn(self, visitors: Sequence[requests.Session]) -> list[Row]:
        return [self._show(self._ask(visitor, len(self.told) + 1, ARTICLE)) for _ in range(2) for visitor in visitors]

    def _at_once(self, visitors: Sequence[requests.Session], page: Page) -> list[Row]:
        answers: SimpleQueue[Row] = SimpleQueue()
        for number, visitor in enumerate(visitors, len(self.told) + 1):
            self._send(visitor, number, page, answers)
        deadline = time.monotonic() + self.plan.patience
        rows = [_next(answers, deadline) for _ in visitors]
        return [self._show(row) for row in sorted(rows, key=lambda row: row.number)]

    def _visit(self, page: Page) -> Row:
        return self._ask(self.visitor, len(self.told) + 1, page)

    def _send(self, session: requests.Session, number: int, page: Page, answers: SimpleQueue[Row]) -> None:
        """Ask for a page in a thread of its own."""
        threading.Thread(target=lambda: answers.put(self._ask(session, number, page)), daemon=True).start()

    def _ask(self, session: requests.Session, number: int, page: Page) -> Row:
        """Ask for a page; an error is a row too."""
        start = time.monotonic()
        row = Row(number, start - self.began, "-", 0.0, "no answer", None)
        try:
            response = session.get(f"{self.site.url}{page.path}", headers=page.headers, timeout=self.plan.patience)
        except requests.RequestException as error:
            return replace(row, seconds=time.monotonic() - start, value=f"no answer ({type(error).__name__})")
        code, told = response.status_code, response.headers
        found = page.value.search(response.text) if code == 200 else None
        return replace(
            row,
            status=told.get("X-Cache-Status", "-"),
            seconds=time.monotonic() - start,
            value=found[1] if found else f"HTTP {code}",
            code=code,
            worker=told.get("X-Worker", "-"),
        )

    def _one_for_each_worker(self) -> list[requests.Session]:
        """Return a visitor for each worker; a connection stays with the worker that has accepted it.

        :raises StoryFailed: if the kernel gives all connections to one of them.
        """
        found: dict[str, requests.Session] = {}
        for _ in range(500):
            session = self.opened.enter_context(_session())
            worker = session.head(f"{self.site.url}login", timeout=self.plan.patience).headers["X-Worker"]
            if found.setdefault(worker, session) is not session:
                session.close()
            if len(found) == workers:
                return list(found.values())
        raise StoryFailed(f"{len(found)} of {workers} workers answered")

    def _send_new_title(self) -> None:
        """Log in as an editor, change the article, and press the button."""
        form = {"title": NEW.title, "summary": NEW.summary, "text": "\n\n".join(NEW.paragraphs)}
        with _session() as session:
            session.post(f"{self.site.url}login", data=EDITOR, timeout=self.plan.patience, allow_redirects=False).raise_for_status()
            url = f"{self.site.url}{ARTICLE.path}/edit"
            code = session.post(url, data=form, timeout=self.plan.patience, allow_redirects=False).status_code
        if code != 302:
            raise StoryFailed(f"publishing was answered with HTTP {code}")

    # -- telling -------------------------------------------------------------------------------------------------

    def _open(self, chapter: Chapter) -> None:
        self.chapter = chapter
        print(f"\n{chapter.heading.format(self.plan)}", flush=True)

    def _show(self, row: Row) -> Row:
        self.told.append((self.chapter, row))
        print(row, flush=True)
        return row

    def _judge(self, rows: Sequence[Row], value: str) -> None:
        """Compare the chapter with what must hold in it.

        :raises StoryFailed: with everything that was wrong.
        """
        before, self.calls = self.calls, self._count()
        if found := complaints(self.chapter, rows, self.calls - before, value):
            raise StoryFailed("\n".join(found))

    def _wait_until_stale(self, stored: float) -> None:
        """Wait until a page that was there at that moment is no longer fresh."""
        time.sleep(max(0.0, stored + self.plan.max_age + 0.1 - time.monotonic()))

    def _wait_until_called(self, times: int) -> None:
        """Wait until the third party was called so often in this chapter, which happens after the responses; but not for long."""
        deadline = time.monotonic() + 5
        while self._count() - self.calls < times and time.monotonic() < deadline:
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
    print("Watch the cache, and prefer what is stored:")
    print(f"    curl --silent --head {site.url}")
    print(f"    curl --silent --head --header 'X-Prefer-Stale: 1' {site.url}{DASHBOARD.path}")
    print(f"Log in as {EDITOR['username']} with {EDITOR['password']}, edit an article and publish it:")
    print(f"    {site.url}{ARTICLE.path}", flush=True)
    while True:
        site.check()
        partner.check()
        time.sleep(0.5)


def _run(plan: Plan, serve: bool) -> int:
    """Start the servers, play the story, and stop them whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-demo-")))
        partner = stack.enter_context(third_party(plan.sleep, folder))
        settings = {"THIRD_PARTY_URL": partner.url, "STALECACHE_MAX_AGE": plan.max_age, "DASHBOARD_SECONDS": plan.query}
        site = stack.enter_context(news_site(settings, folder))
        print(f"Third party: {partner.url} (needs {plan.sleep:g} s), news site: {site.url}\n", flush=True)
        story = stack.enter_context(closing(Story(plan, site, partner)))
        try:
            story.play()
        except StoryFailed as failure:
            print(f"\nThe story did not hold:\n{failure}\n\nThe site's log:\n{tail(site.log)}", file=sys.stderr)
            return 1
        print(f"\n{summary(story.told, story.calls)}", flush=True)
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
    parser.add_argument("--fast", action="store_true", help="the same with shorter times, in about 15 s")
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
