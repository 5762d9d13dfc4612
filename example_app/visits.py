"""The visitors of the demo: they request pages of the running site. The results are printed and compared with the expected ones."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from queue import Empty, SimpleQueue

import requests

from example_app.chapters import BETWEEN, COLD, Chapter, Page, Plan, Row, complaints
from example_app.gunicorn_conf import workers
from example_app.servers import Server
from example_app.third_party import PARTNERS

EDITOR = {"username": "ada", "password": "analytical-engine"}


class StoryFailed(Exception):
    """The demo had an unexpected result."""


class Stage:
    """The site, its partners, and the results so far.

    :ivar told: all rows, with their chapters.
    :ivar calls: number of calls of each partner up to the end of the last chapter.
    """

    def __init__(self, plan: Plan, site: Server, partners: Server) -> None:
        self.plan = plan
        self.site = site
        self.partners = partners
        self.chapter = COLD
        self.told: list[tuple[Chapter, Row]] = []
        self.calls = dict.fromkeys(PARTNERS, 0)
        self.began = time.monotonic()
        self._opened = ExitStack()
        # One visitor on one connection, so that a refresh that holds the connection would be noticed.
        self.visitor = self._opened.enter_context(session())

    def close(self) -> None:
        """End the visitors' connections, for which gunicorn would wait when it stops."""
        self._opened.close()

    # -- visits --------------------------------------------------------------------------------------------------

    def visit(self, page: Page) -> Row:
        """Request a page as the same visitor, on the same connection."""
        return self.ask(self.visitor, len(self.told) + 1, page)

    def visits(self, chapter: Chapter, page: Page) -> list[Row]:
        """Visit a page a few times in a chapter, and print the results."""
        self.open(chapter)
        return [self.show(self.visit(page)), *self.more(page)]

    def more(self, page: Page) -> Iterator[Row]:
        """Repeat the visit of a chapter, after a pause each, and print the results."""
        for _ in range(self.plan.visits - 1):
            time.sleep(self.plan.pause)
            yield self.show(self.visit(page))

    def in_turn(self, visitors: Sequence[requests.Session], page: Page) -> list[Row]:
        """Let each visitor request a page twice, one after the other, and print the results."""
        return [self.show(self.ask(visitor, len(self.told) + 1, page)) for _ in range(2) for visitor in visitors]

    def at_once(self, visitors: Sequence[requests.Session], page: Page) -> list[Row]:
        """Let visitors request a page concurrently, and print the results.

        :raises StoryFailed: if one gets no answer.
        """
        answers: SimpleQueue[Row] = SimpleQueue()
        for number, visitor in enumerate(visitors, len(self.told) + 1):
            self.send(visitor, number, page, answers)
        deadline = time.monotonic() + self.plan.patience
        rows = [next_of(answers, deadline) for _ in visitors]
        return [self.show(row) for row in sorted(rows, key=lambda row: row.number)]

    def send(self, visitor: requests.Session, number: int, page: Page, answers: SimpleQueue[Row]) -> None:
        """Request a page in a separate thread."""
        threading.Thread(target=lambda: answers.put(self.ask(visitor, number, page)), daemon=True).start()

    def ask(self, visitor: requests.Session, number: int, page: Page) -> Row:
        """Request a page; an error is a row too."""
        start = time.monotonic()
        row = Row(number, start - self.began, "-", 0.0, "no answer", None)
        try:
            response = visitor.get(f"{self.site.url}{page.path}", headers=page.headers, timeout=self.plan.patience)
        except requests.RequestException as error:
            return replace(row, seconds=time.monotonic() - start, value=f"no answer ({type(error).__name__})")
        code, told = response.status_code, response.headers
        seconds = time.monotonic() - start
        found = page.value.search(response.text) if code == 200 else None
        nothing = "nothing of it" if code == 200 else f"HTTP {code}"
        return replace(
            row,
            status=told.get("X-Cache-Status", "-"),
            seconds=seconds,
            value=BETWEEN.join(found.groups()) if found else nothing,
            code=code,
            worker=told.get("X-Worker", "-"),
        )

    def one_for_each_worker(self) -> list[requests.Session]:
        """Return a visitor for each worker; a connection stays with the worker that accepted it.

        :raises StoryFailed: if the kernel gives all connections to one of them.
        """
        found: dict[str, requests.Session] = {}
        for _ in range(500):
            visitor = self._opened.enter_context(session())
            worker = visitor.head(f"{self.site.url}login", timeout=self.plan.patience).headers["X-Worker"]
            if found.setdefault(worker, visitor) is not visitor:
                visitor.close()
            if len(found) == workers:
                return list(found.values())
        raise StoryFailed(f"{len(found)} of {workers} workers answered")

    @contextmanager
    def editor(self) -> Iterator[requests.Session]:
        """Log in as an editor."""
        with session() as editor:
            editor.post(f"{self.site.url}login", data=EDITOR, timeout=self.plan.patience, allow_redirects=False).raise_for_status()
            yield editor

    def press(self, editor: requests.Session, path: str, form: dict[str, str] | None = None) -> None:
        """Press a button on an editor's page.

        :raises StoryFailed: if the response is not a redirect.
        """
        url = f"{self.site.url}{path}"
        code = editor.post(url, data=form, timeout=self.plan.patience, allow_redirects=False).status_code
        if code != 302:
            raise StoryFailed(f"the button of /{path} was answered with HTTP {code}")

    # -- telling -------------------------------------------------------------------------------------------------

    def open(self, chapter: Chapter) -> None:
        """Start a chapter."""
        self.chapter = chapter
        print(f"\n{chapter.heading.format(self.plan)}", flush=True)

    def show(self, row: Row) -> Row:
        """Print a row."""
        print(self.keep(row), flush=True)
        return row

    def keep(self, row: Row) -> Row:
        """Record a row without printing it."""
        self.told.append((self.chapter, row))
        return row

    def judge(self, rows: Sequence[Row], value: str | None) -> dict[str, int]:
        """Compare a chapter with the expected results, and return the number of calls of each partner.

        :param value: the value that all visitors should see; ``None``: any value of each partner.
        :raises StoryFailed: with all differences.
        """
        before, self.calls = self.calls, {name: self.count(name) for name in PARTNERS}
        calls = {name: self.calls[name] - before[name] for name in PARTNERS}
        if found := complaints(self.chapter, rows, calls, value):
            raise StoryFailed("\n".join(found))
        return calls

    # -- the partners --------------------------------------------------------------------------------------------

    def tell(self, partner: str, what: str, text: str) -> None:
        """Set the mode or the sleep of a partner."""
        self._partner("POST", f"{partner}/{what}", text)

    def count(self, partner: str) -> int:
        """Return the number of calls of a partner."""
        return int(self._partner("GET", f"{partner}/calls").text)

    def _partner(self, method: str, path: str, text: str = "") -> requests.Response:
        with session() as talking:
            response = talking.request(method, f"{self.partners.url}{path}", data=text, timeout=5)
        response.raise_for_status()
        return response


def session() -> requests.Session:
    """Return a session without the environment's proxies."""
    new = requests.Session()
    new.trust_env = False
    return new


def next_of(answers: SimpleQueue[Row], deadline: float) -> Row:
    """Wait for a row, and return it.

    :raises StoryFailed: if it does not arrive in time.
    """
    try:
        return answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise StoryFailed("not all of the visitors got an answer") from None
