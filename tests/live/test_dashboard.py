"""The dashboard in a real browser, on a real server with a third party that is slow, down and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.browser import browsing
from support.endurance import IS_SOAK
from support.servers import Gate, Server, serving, wait_for

pytestmark = pytest.mark.server

SOURCE = """
import os
import time
from urllib.request import urlopen

from flask import Flask, request
from flask_stalecache import StaleCache
from flask_stalecache.stats import history

# A sample whenever housekeeping comes round, so that the test need not wait.
history.INTERVAL = 0.1
app = Flask(__name__)
app.secret_key = "not a secret"
app.config.update(STALECACHE_DIR=os.environ["DIR"], STALECACHE_REFRESH_BACKOFF=(0.5, 0.5))
cache = StaleCache(app)


@cache.memoize(max_age=0, stale_while_revalidate=600, stale_if_error=600, tags=["numbers"])
def number_of_the_day_as_a_partner_tells_it_whose_name_is_long():
    with urlopen(os.environ["GATE"]) as answer:
        return answer.read().decode()


@app.get("/prices")
@cache.cached(max_age=0, stale_while_revalidate=600, stale_if_error=600, tags=["prices"])
def prices():
    return "No. " + number_of_the_day_as_a_partner_tells_it_whose_name_is_long()


@app.get("/steady/<int:page>")
@cache.cached(max_age=600)
def steady(page):
    return f"{time.time_ns()} " * page * 100


app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=lambda: request.cookies.get("admin") == "yes")
"""


class Place(NamedTuple):
    """A server, and a browser that may see its dashboard.

    :ivar context: the browser context for pages that need none of their own; creating one takes a second.
    :ivar complaints: messages in the consoles of browsers, and errors of scripts.
    """

    server: Server
    gate: Gate
    browser: Browser
    context: BrowserContext
    complaints: list[str]

    @contextmanager
    def open(self, path: str = "/stalecache/") -> Iterator[Page]:
        """Open a page."""
        with self._shown(self.context, path) as page:
            yield page

    @contextmanager
    def open_apart(self, path: str = "/stalecache/", *, admin: bool = True, **settings: object) -> Iterator[Page]:
        """Open a page in a context of its own."""
        context = context_for(self.browser, self.server.url if admin else "", **settings)
        try:
            with self._shown(context, path) as page:
                yield page
        finally:
            context.close()

    @contextmanager
    def _shown(self, context: BrowserContext, path: str) -> Iterator[Page]:
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.server.url + path)
        try:
            yield page
        finally:
            page.close()

    def visit(self, path: str = "/prices") -> tuple[str, str | None]:
        answer = self.server.get(path)
        return answer.text, answer.cache


def context_for(browser: Browser, url: str, **settings: object) -> BrowserContext:
    """Return a context of a browser.

    :param url: the site whose admin uses the context; empty if it is no admin's.
    """
    context: BrowserContext = browser.new_context(**settings)  # type: ignore[arg-type]
    if url:
        context.add_cookies([{"name": "admin", "value": "yes", "url": url}])
    context.set_default_timeout(10_000)
    return context


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server and one browser for all tests here, which begin where the one before has left off."""
    folder = tmp_path_factory.mktemp("dashboard")
    with (
        Gate() as gate,
        serving("gthread", SOURCE, folder, env={"GATE": gate.url, "DIR": folder / "cache"}) as server,
        browsing() as browser,
    ):
        yield Place(server, gate, browser, context_for(browser, server.url), [])


def look(page: Page) -> None:
    """Make an open page request new numbers, as it does when it becomes visible again, and wait for the response."""
    with page.expect_response("**/now?*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def health(page: Page) -> str:
    return str(page.locator(".health").get_attribute("class"))


#: Returns the elements whose content is wider than they are, except those that are meant to be scrolled.
STICKS_OUT = """[...document.querySelectorAll("body *")]
    .filter((each) => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display.match(/^(block|grid|flex)$/)
        && !each.closest(".scroll, .unseen, .skip, .plot, svg, select, input"))
    .map((each) => each.outerHTML.slice(0, 100))"""


#: Rules of axe for colours, and for narrow screens.
COLOURS = ("color-contrast", "link-in-text-block")
LAYOUT = ("target-size", "scrollable-region-focusable", "meta-viewport", "aria-hidden-focus", "landmark-one-main", "button-name")


def problems(page: Page, rules: Sequence[str]) -> list[str]:
    """Return the serious problems that axe finds.

    :param rules: the rules of axe to check; empty: all of them, and always all under ``make soak``.
    """
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules and not IS_SOAK else None
    found = Axe().run(page, options=options).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in serious for node in each["nodes"]]


def count(page: Page, status: str) -> int:
    return int(page.locator(f'[data-status="{status}"]').inner_text().replace(",", ""))


def test_it_shows_a_stale_hit_an_outage_and_a_recovery_as_they_happen(place: Place) -> None:
    with place.open() as page:
        assert place.visit() == ("No. 1", "MISS")
        wait_for(lambda: place.visit()[1] in ("STALE", "UPDATING"))
        wait_for(lambda: look(page) or count(page, "STALE") + count(page, "UPDATING") > 0, what="the stale hit is on the page")
        assert "good" in health(page)
        assert page.locator(".charts canvas").count() == 2

        place.gate.fail()
        wait_for(lambda: place.visit() and (look(page) or "bad" in health(page)), what="the outage is on the page")
        expect(page.locator("#headline")).to_contain_text("number")
        assert place.visit()[0].startswith("No. "), "the visitors have what is stored"
        page.set_viewport_size({"width": 320, "height": 640})
        assert page.evaluate(STICKS_OUT) == []
        waits = page.locator(".list", has_text="Backing off").get_by_role("link")
        # After a pause, nothing backs off until the next refresh has failed.
        wait_for(lambda: place.visit() and page.reload() and waits.count() > 0, what="the page that backs off is listed")
        expect(waits.first).to_be_visible()

        place.gate.answer()
        wait_for(lambda: place.visit() and (look(page) or "good" in health(page)), what="the recovery is on the page")
        expect(page.locator("#headline")).to_contain_text("All is well")
    assert place.complaints == []


def test_purging_on_the_page_is_seen_by_the_next_visitor(place: Place) -> None:
    place.gate.answer("new #")
    with place.open() as page:
        page.get_by_label("By", exact=True).select_option("tag")
        page.get_by_label("Which", exact=True).fill("prices")
        page.keyboard.press("Enter")
        card = page.get_by_role("article")
        expect(card).to_have_count(1)
        expect(card.get_by_role("img")).to_be_visible()
        card.locator("button[value=purge]").click()
        expect(page.get_by_role("status").filter(has_text="Purged")).to_be_visible()
        expect(page.get_by_text("Nothing that is stored matches.")).to_be_visible()
        assert place.visit()[1] == "MISS"
    assert place.complaints == []


def test_refreshing_on_the_page_makes_it_again_before_the_next_visitor(place: Place) -> None:
    before = place.visit("/steady/2")[0]
    with place.open("/stalecache/?by=prefix&find=/steady/2") as page:
        page.locator(".card button[value=refresh]").click()
        expect(page.get_by_role("status").filter(has_text="Refreshed")).to_contain_text("(1 done)")
    after, status = place.visit("/steady/2")
    assert (len(after), status) == (len(before), "HIT")
    assert after != before
    assert place.complaints == []


@pytest.mark.soak
@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ({"viewport": {"width": 1280, "height": 900}}, {"light": (), "dark": COLOURS}),
        ({"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}, {"light": LAYOUT}),
    ],
    ids=["desk", "phone"],
)
def test_it_can_be_read_by_everybody(
    place: Place, settings: dict[str, object], rules: dict[Literal["light", "dark"], Sequence[str]]
) -> None:
    """Dark colours and the phone are checked by the rules that they can break, or by all rules under ``make soak``."""
    place.visit("/steady/50")
    with place.open_apart("/stalecache/?by=prefix&find=/", **settings) as page:
        expect(page.locator(".charts canvas").first).to_be_visible()
        page.locator("#numbers summary").click()
        page.locator(".card summary").first.click()
        for scheme, checked in rules.items():
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(STICKS_OUT) == []
            assert problems(page, checked) == []
    assert place.complaints == []


def test_it_is_used_by_keyboard(place: Place) -> None:
    with place.open() as page:
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        pause = page.get_by_role("button", name="Pause")
        pause.focus()
        page.keyboard.press("Space")
        expect(pause).to_have_attribute("aria-pressed", "true")


def test_a_page_that_is_paused_or_hidden_asks_for_nothing(place: Place) -> None:
    # In a context of its own, since the clock is replaced for all pages of the context.
    with place.open_apart() as page:
        asked: list[str] = []
        # Otherwise the first answer may be that to the page before the reload.
        expect(page.locator("#seen")).to_contain_text("UTC")
        page.clock.install()
        with page.expect_response("**/now?*"):
            page.reload()
        page.on("request", lambda request: asked.append(request.url) if "/now?" in request.url else None)
        expect(page.locator("#seen")).to_contain_text("UTC")
        with page.expect_response("**/now?*"):
            page.clock.fast_forward(5_000)
        assert len(asked) == 1
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.clock.fast_forward(60_000)
        assert len(asked) == 1
        with page.expect_response("**/now?*"):
            page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_role("button", name="Pause").click()
        page.clock.fast_forward(60_000)
        assert len(asked) == 2


def test_a_page_that_can_not_ask_says_so_and_asks_again(place: Place) -> None:
    with place.open() as page:
        look(page)
        page.route("**/now?*", lambda route: route.abort())
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#headline")).to_have_text("The page could not be brought up to date.")
        page.unroute("**/now?*")
        look(page)
        expect(page.locator("#headline")).to_contain_text("All is well")
    place.complaints.clear()


def test_without_a_script_it_is_read_and_acts(place: Place) -> None:
    place.visit("/steady/1")
    with place.open_apart("/stalecache/?by=url&find=/steady/1", java_script_enabled=False) as page:
        assert count(page, "HIT") + count(page, "MISS") > 0
        expect(page.locator("#numbers table")).to_be_visible()
        expect(page.locator(".charts")).to_be_hidden()
        page.locator(".card button[value=purge]").click()
        expect(page.get_by_role("status").filter(has_text="Purged")).to_be_visible()
        assert place.visit("/steady/1")[1] == "MISS"


def test_who_may_not_see_it_gets_nothing(place: Place) -> None:
    with place.open_apart(admin=False) as page:
        assert page.title() == "403 Forbidden"
        assert "Cache of" not in page.content()
    refused = [message for message in place.complaints if "403" in message]
    assert refused
    place.complaints.clear()


FORGED = """<!doctype html><html lang="en"><title>Prizes</title>
<form method="post" action="{url}/stalecache/act"><input name="token" value="{token}"><input name="action" value="purge">
<input name="by" value="url"><input name="value" value="/steady/7"><button>Win a prize</button></form>"""


def test_a_forged_form_of_another_site_does_nothing(place: Place) -> None:
    place.visit("/steady/7")
    with place.open("/stalecache/?by=url&find=/steady/7") as page:
        # The forger even knows the token.
        token = page.locator("[name=token]").first.input_value()
        place.gate.answer(FORGED.format(url=place.server.url, token=token))
        page.goto(place.gate.url)
        with page.expect_navigation() as leaving:
            page.get_by_role("button").click()
        assert leaving.value.status == 403
        assert place.visit("/steady/7")[1] == "HIT"
    place.complaints.clear()
