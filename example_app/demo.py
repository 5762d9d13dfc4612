"""The demo: ``python -m example_app.demo [--fast] [--serve]``.

It starts the third parties and the news site. It visits the front page while the page is new, fresh, stale and fresh again, and
while its partners are slow, flaky, hanging, dead and back. It requests the dashboard with and without prefer stale, visits the
front page while the dashboard is computed, in the site and in a process of its own, and publishes an article. It prints what
visitors see, stops its servers, and exits with 0 if all results were as expected.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from secrets import token_urlsafe

from example_app import computing, trouble
from example_app.articles import FIRST
from example_app.chapters import (
    ARTICLE,
    BEFORE,
    COLD,
    COUNTED,
    DASHBOARD,
    FAST,
    FILLED,
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
    Plan,
    Row,
    summary,
)
from example_app.servers import Server, news_site, tail, third_party, worker
from example_app.stopping import Stopped, until_stopped
from example_app.third_party import PARTNERS
from example_app.visits import EDITOR, Stage, StoryFailed, next_of, session

OLD = FIRST["the-ten-second-box"]
NEW = replace(OLD, title="The ten second box, mended")
#: The placeholder for the number on the front page.
NO_NUMBER = "Still thinking"


class Story:
    """Visits the site according to the plan, and prints the results.

    :param worker: runs a worker of the cache for the site.
    """

    def __init__(self, stage: Stage, worker: Callable[[], AbstractContextManager[object]]) -> None:
        self.stage = stage
        self.plan = stage.plan
        self.worker = worker

    def play(self) -> None:
        """Play all chapters.

        :raises StoryFailed: at the end of the first chapter with an unexpected result.
        """
        print(TITLES)
        value = self._fill()
        stored = time.monotonic()
        self._judge(self.stage.visits(FRESH, FRONT), value)
        self._wait_until_stale(stored)
        self._renew(value)
        total = self._count_readers()
        counted = time.monotonic()
        trouble.play(self.stage)
        self._wait_until_stale(counted)
        self._prefer_stale(total)
        computing.play(self.stage, self.worker)
        self._publish()

    # -- chapters ------------------------------------------------------------------------------------------------

    def _fill(self) -> str:
        """Send concurrent requests for the page before it is stored, then visit it until it shows a number, which is returned."""
        self.stage.open(COLD)
        with ExitStack() as stack:
            rows = self.stage.at_once([stack.enter_context(session()) for _ in range(self.plan.visitors)], FRONT)
        self._judge(rows, NO_NUMBER)
        row = self._until_fresh(FILLED, NO_NUMBER)
        return row.value

    def _renew(self, old: str) -> None:
        """Visit the stale page until it is fresh, then a few times more."""
        row = self._until_fresh(STALE, old)
        self.stage.open(RENEWED)
        self._judge([self.stage.show(row), *self.stage.more(FRONT)], row.value)

    def _until_fresh(self, chapter: Chapter, old: str) -> Row:
        """Visit the stale page until it is fresh, and return the row of the first fresh visit."""
        self.stage.open(chapter)
        deadline = time.monotonic() + self.plan.patience
        stale = []
        while (row := self.stage.visit(FRONT)).status in ("STALE", "UPDATING") and time.monotonic() < deadline:
            stale.append(self.stage.show(row))
            time.sleep(self.plan.sleep / 5)
        self._judge(stale, old)
        return row

    def _count_readers(self) -> str:
        """Visit the dashboard, and return its value."""
        self.stage.open(COUNTED)
        row = self.stage.show(self.stage.visit(DASHBOARD))
        self._judge([row], row.value)
        return row.value

    def _prefer_stale(self, old: str) -> None:
        """Visit the dashboard with the field while a visitor without it waits."""
        waiting: SimpleQueue[Row] = SimpleQueue()
        deadline = time.monotonic() + self.plan.patience
        with session() as waits:
            self.stage.send(waits, 0, DASHBOARD, waiting)
            self._judge(self.stage.visits(PREFERRED, SCREEN), old)
            self.stage.open(PLAIN)
            row = self.stage.show(replace(next_of(waiting, deadline), number=len(self.stage.told) + 1))
        self._judge([row], row.value)

    def _publish(self) -> None:
        """Visit an article and the front page on each worker, before and after a change."""
        visitors = self.stage.one_for_each_worker()
        self.stage.open(BEFORE)
        self._judge(self.stage.in_turn(visitors, ARTICLE), OLD.title)
        self.stage.open(PUBLISHED)
        with self.stage.editor() as editor:
            form = {"title": NEW.title, "summary": NEW.summary, "text": "\n\n".join(NEW.paragraphs)}
            self.stage.press(editor, f"{ARTICLE.path}/edit", form)
        self._judge(self.stage.in_turn(visitors, ARTICLE), NEW.title)
        self.stage.open(REMADE)
        self._judge(self.stage.at_once(visitors, HEADLINE), NEW.title)

    def _judge(self, rows: Sequence[Row], value: str) -> None:
        self.stage.judge(rows, value)

    def _wait_until_stale(self, stored: float) -> None:
        """Wait until a page that was stored at that time is no longer fresh."""
        time.sleep(max(0.0, stored + self.plan.max_age + 0.1 - time.monotonic()))


def _stay_up(site: Server, partner: Server) -> None:
    """Print the URLs of the servers, and wait for a signal.

    :raises ServerFailed: when one of them ends.
    """
    print(f"\nThe news site is at {site.url} and stays up until Ctrl-C.")
    print(f"Its partners are {', '.join(PARTNERS)}. Make them flaky, failing, hanging, down or gone, and back:")
    for path, text in (
        ("weather/mode", "flaky"),
        ("weather/mode", "fail"),
        ("number/mode", "hang"),
        ("number/mode", "down"),
        ("comments/mode", "gone"),
        ("comments/mode", "ok"),
        ("number/sleep", "1"),
    ):
        print(f"    curl --data {text:<5} {partner.url}{path}")
    print("Look at the cache status, and prefer stale pages:")
    print(f"    curl --silent --head {site.url}")
    print(f"    curl --silent --head --header 'X-Prefer-Stale: 1' {site.url}{DASHBOARD.path}")
    print(f"Log in as {EDITOR['username']} with {EDITOR['password']}, refresh the partners' values, or publish a changed article:")
    print(f"    {site.url}{ARTICLE.path}", flush=True)
    while True:
        site.check()
        partner.check()
        time.sleep(0.5)


def _run(plan: Plan, serve: bool) -> int:
    """Start the servers, run the demo, and always stop the servers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stalecache-demo-")))
        partner = stack.enter_context(third_party(plan.sleep, folder))
        settings = {
            "THIRD_PARTY_URL": partner.url,
            "STALECACHE_MAX_AGE": plan.max_age,
            "STALECACHE_REFRESH_BACKOFF": json.dumps(plan.backoff),
            "DASHBOARD_SECONDS": plan.query,
            "STALECACHE_DIR": folder / "cache",
            "ARTICLES_DIR": folder / "articles",
            "SECRET_KEY": f"demo-{token_urlsafe()}",
        }
        site = stack.enter_context(news_site(settings, folder))
        print(f"Third parties: {partner.url} (the slow one needs {plan.sleep:g} s), news site: {site.url}\n", flush=True)
        stage = stack.enter_context(closing(Stage(plan, site, partner)))
        try:
            Story(stage, partial(worker, settings, folder)).play()
        except StoryFailed as failure:
            print(f"\nThe story did not hold:\n{failure}\n\nThe site's log:\n{tail(site.log)}", file=sys.stderr)
            return 1
        print(f"\n{summary(stage.told, stage.calls['number'])}", flush=True)
        if serve:
            return _serve(site, partner)
    return 0


def _serve(site: Server, partner: Server) -> int:
    try:
        _stay_up(site, partner)
    except Stopped:
        # The requested end of serving, not an interrupted demo.
        print("Stopping.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m example_app.demo", description="Run the demo and print the results.")
    parser.add_argument("--fast", action="store_true", help="use shorter times, in about 20 s")
    parser.add_argument("--serve", action="store_true", help="stay up afterwards, until Ctrl-C")
    options = parser.parse_args(arguments)
    return until_stopped(lambda: _run(FAST if options.fast else NORMAL, options.serve))


if __name__ == "__main__":
    raise SystemExit(main())
