"""The dashboard in a real browser, on a real server with a third party that is slow, down and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import browsing
from playwright.sync_api import Browser, BrowserContext, Page, expect
from servers import Gate, Server, serving, wait_for

pytestmark = pytest.mark.server

SOURCE = """
import os
from urllib.request import urlopen

from flask import Flask, request
from flask_stalecache import StaleCache, history

# A sample whenever housekeeping comes round, so that the test need not wait.
history.INTERVAL = 0.1
app = Flask(__name__)
app.secret_key = "not a secret"
app.config.update(STALECACHE_DIR=os.environ["DIR"], STALECACHE_REFRESH_BACKOFF=(0.5, 0.5))
cache = StaleCache(app)


@cache.memoize(max_age=0, stale_while_revalidate=600, stale_if_error=600, tags=["numbers"])
def number():
    with urlopen(os.environ["GATE"]) as answer:
        return answer.read().decode()


@app.get("/prices")
@cache.cached(max_age=0, stale_while_revalidate=600, stale_if_error=600, tags=["prices"])
def prices():
    return "No. " + number()


@app.get("/steady/<int:page>")
@cache.cached(max_age=600)
def steady(page):
    return "x" * page * 1000


app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: request.cookies.get("admin") == "yes")
"""


class Place(NamedTuple):
    """A server, and a browser that may see its dashboard.

    :ivar complaints: what browsers wrote to their consoles.
    """

    server: Server
    gate: Gate
    browser: Browser
    complaints: list[str]

    @contextmanager
    def open(self, path: str = "/stalecache/", *, admin: bool = True, **settings: object) -> Iterator[Page]:
        """Open a page in a context of its own."""
        context: BrowserContext = self.browser.new_context(**settings)  # type: ignore[arg-type]
        if admin:
            context.add_cookies([{"name": "admin", "value": "yes", "url": self.server.url}])
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.server.url + path)
        try:
            yield page
        finally:
            context.close()

    def visit(self, path: str = "/prices") -> tuple[str, str | None]:
        answer = self.server.get(path)
        return answer.text, answer.cache


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server and one browser for all tests here, which begin where the one before has left off."""
    folder = tmp_path_factory.mktemp("dashboard")
    with (
        Gate() as gate,
        serving("gthread", SOURCE, folder, env={"GATE": gate.url, "DIR": folder / "cache"}) as server,
        browsing() as browser,
    ):
        yield Place(server, gate, browser, [])


def look(page: Page) -> None:
    """Let the page that is left open ask for what is new."""
    with page.expect_response("**/now?*"):
        page.clock.fast_forward(5000)


def health(page: Page) -> str:
    return str(page.locator(".health").get_attribute("class"))


def count(page: Page, status: str) -> int:
    return int(page.locator(f'[data-status="{status}"]').inner_text().replace(",", ""))
