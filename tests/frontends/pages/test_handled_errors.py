"""Flask's error handlers answer first: only what they leave alone, or turn into a failure status, is a failure of the view.

Covers ``frontends.pages.error_pages``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, Response, after_this_request, jsonify, make_response, redirect, request, session
from werkzeug.exceptions import Gone, HTTPException, NotFound

from flask_stalecache import Policy, StaleCache
from support.client import settle, visit
from support.threads import PATIENCE, go, results, wait_until

WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}
POLICY = Policy(**WINDOWS)
STALE, EXPIRED = 61, 661


class PageGone(Exception):
    """The page was withdrawn."""


class Withdrawn(PageGone):
    """By its author."""


class NotOnSale(Gone):
    """An answer of HTTP with a class of its own."""


class Site:
    """A page whose view fails as told, and the handlers of its app.

    :ivar error: what the view raises from now on.
    :ivar handled: the errors that reached a handler.
    """

    def __init__(self, folder: Path, kind: str = "view", **config: Any) -> None:
        app = self.app = Flask("shop")
        app.secret_key = "not a secret"
        app.config.update(STALECACHE_DIR=folder, STALECACHE_GATEWAY=[("/*", POLICY)] if kind == "rule" else False)
        app.config.update({f"STALECACHE_{name}": value for name, value in config.items()})
        self.cache = StaleCache(app)
        self.calls = 0
        self.error: Exception | None = None
        self.handled: list[Exception] = []
        view = self.view if kind == "rule" else self.cache.cached(**WINDOWS, gateway=kind == "gateway")(self.view)
        pages = Blueprint("pages", "pages")
        pages.add_url_rule("/", "page", view)
        self.pages = pages

    def start(self) -> Site:
        self.app.register_blueprint(self.pages)
        return self

    def view(self) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return f"page {self.calls}"

    def handle(self, kind: Any, answer: Callable[[Exception], Any], where: str = "app") -> None:
        """Register a handler."""

        def handler(error: Exception) -> Any:
            self.handled.append(error)
            return answer(error)

        (self.pages if where == "blueprint" else self.app).register_error_handler(kind, handler)

    def visit(self, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Return status and text, after the refresh that the visit may have handed over."""
        seen = visit(self.app, "/", headers)
        settle(self.app, self.cache)
        return seen.status, seen.text


def raising(error: Exception) -> Any:
    raise error


#: How apps say that a page is gone: what the handler is registered for, what the view raises, the handler's answer, and its status.
WITHDRAWN: dict[str, tuple[Any, Exception, Callable[[Exception], Any], int]] = {
    "a tuple": (PageGone, PageGone(), lambda error: ("gone", 410), 410),
    "404": (PageGone, PageGone(), lambda error: ("gone", 404), 404),
    "403": (PageGone, PageGone(), lambda error: ("gone", 403), 403),
    "a response": (PageGone, PageGone(), lambda error: Response("gone", 410), 410),
    "json": (PageGone, PageGone(), lambda error: (jsonify("gone"), 404, {"X-Why": "it"}), 404),
    "an HTTPException as answer": (PageGone, PageGone(), lambda error: Gone(), 410),
    "of the base class": (PageGone, Withdrawn(), lambda error: ("gone", 410), 410),
    "of Exception": (Exception, PageGone(), lambda error: ("gone", 410), 410),
    "of LookupError": (LookupError, KeyError("page"), lambda error: ("gone", 404), 404),
    "of a class of HTTP": (NotOnSale, NotOnSale(), lambda error: ("gone", 404), 404),
    "of HTTPException": (HTTPException, NotFound(), lambda error: ("gone", error.code), 404),
    "of a status": (410, NotOnSale(), lambda error: ("gone", 410), 410),
}
KINDS = [*(("view", name) for name in WITHDRAWN), *((kind, name) for kind in ("gateway", "rule") for name in ("a tuple", "403"))]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_page_that_a_handler_withdraws_is_no_longer_served(
    tmp_path: Path, clock: time_machine.Traveller, kind: str, name: str
) -> None:
    registered, error, answer, status = WITHDRAWN[name]
    site = Site(tmp_path, kind)
    site.handle(registered, answer)
    site.start()
    assert [site.visit(), site.visit()] == [(200, "page 1")] * 2
    site.error = error
    clock.shift(STALE)
    assert site.visit() == (200, "page 1"), "its refresh finds out"
    assert [site.visit()[0] for _ in range(3)] == [status] * 3
    if kind == "view":
        assert site.calls == len(site.handled) + 1 == 5
        site.error = None
        assert [site.visit()[1] for _ in range(2)] == ["page 6"] * 2


@pytest.mark.parametrize("age", [0, EXPIRED])
@pytest.mark.parametrize("name", ["a tuple", "403", "of HTTPException"])
def test_a_handler_of_a_blueprint_answers_the_visitor_too(
    tmp_path: Path, clock: time_machine.Traveller, age: int, name: str
) -> None:
    registered, error, answer, status = WITHDRAWN[name]
    site = Site(tmp_path)
    site.handle(registered, lambda error: ("the app's", 500))
    site.handle(registered, answer, "blueprint")
    site.start()
    if age:
        site.visit()
    site.error = error
    clock.shift(age)
    assert [site.visit(), site.visit()] == [(status, "gone")] * 2
    site.error = None
    assert site.visit()[0] == 200


#: Handlers that leave the error what it is: a failure.
FAILING: dict[str, Callable[[Exception], Any]] = {
    "503": lambda error: ("sorry", 503),
    "500": lambda error: Response("sorry", 500),
    "429": lambda error: ("sorry", 429),
    "raises it again": raising,
    "raises another one": lambda error: raising(LookupError("of the handler")),
    "raises an answer of HTTP": lambda error: raising(NotFound()),
    "returns nothing": lambda error: None,
}


@pytest.mark.grid
@pytest.mark.parametrize("age", [STALE, EXPIRED])
@pytest.mark.parametrize("name", [None, *FAILING])
def test_what_handlers_turn_into_a_failure_is_one(
    tmp_path: Path, clock: time_machine.Traveller, age: int, name: str | None
) -> None:
    site = Site(tmp_path)
    if name is not None:
        site.handle(PageGone, FAILING[name])
    # Flask does not ask the handlers about what a handler raises.
    site.handle(LookupError, lambda error: ("a second handler", 404))
    site.start()
    site.visit()
    site.error = PageGone()
    clock.shift(age)
    assert [site.visit() for _ in range(3)] == [(200, "page 1")] * 3
    clock.shift(7000)
    status = int(name) if name is not None and name.isdigit() else 500
    assert site.visit()[0] == status
    assert len(set(map(id, site.handled))) <= 1, "the second handler is not asked"


def test_a_failure_status_that_is_configured_counts_while_there_is_a_page(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path, FAILURE_STATUSES=[404, 500])
    site.handle(PageGone, lambda error: ("gone", 404))
    site.start()
    site.error = PageGone()
    assert site.visit() == (404, "gone")
    site.error = None
    assert site.visit() == (200, "page 2")
    site.error = PageGone()
    clock.shift(EXPIRED)
    assert site.visit() == (200, "page 2")


def test_retry_after_of_a_handler_is_kept(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path)
    site.handle(PageGone, lambda error: ("sorry", 503, {"Retry-After": "500"}))
    site.start()
    site.visit()
    site.error = PageGone()
    clock.shift(STALE)
    site.visit()
    clock.shift(490)
    assert (site.visit(), site.calls) == ((200, "page 1"), 2)
    clock.shift(11)
    assert (site.visit(), site.calls) == ((200, "page 1"), 3)


@pytest.mark.parametrize("config", [{"DEBUG": True}, {"TESTING": True}, {"PROPAGATE_EXCEPTIONS": True}], ids=str)
def test_handlers_answer_whatever_flask_does_with_errors_that_nobody_handles(
    tmp_path: Path, clock: time_machine.Traveller, config: dict[str, bool]
) -> None:
    site = Site(tmp_path)
    site.app.config.update(config)
    site.handle(PageGone, lambda error: ("gone", 410))
    site.start()
    site.visit()
    site.error = PageGone()
    clock.shift(EXPIRED)
    assert [site.visit(), site.visit()] == [(410, "gone")] * 2
    site.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as raised:
        site.visit()
    assert raised.traceback[-1].name == "view"


# -- the page of a handler is judged as the view's ---------------------------------------------------------------------


@pytest.mark.parametrize("raised", [PageGone(), Gone()], ids=repr)
def test_the_page_of_a_handler_is_stored_if_its_status_is_listed(tmp_path: Path, raised: Exception) -> None:
    site = Site(tmp_path)
    site.app.add_url_rule("/listed", "listed", site.cache.cached(60, statuses={410: 60})(site.view))
    site.handle(type(raised), lambda error: ("gone", 410))
    site.error = raised
    seen = [visit(site.app, "/listed") for _ in range(2)]
    assert [(one.status, *one.page) for one in seen] == [(410, "MISS", "gone"), (410, "HIT", "gone")]
    assert len(site.handled) == 1


def test_a_redirect_of_a_handler_is_the_page(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path)
    site.handle(PageGone, lambda error: redirect("/elsewhere", 301))
    site.start()
    site.visit()
    site.error = PageGone()
    clock.shift(EXPIRED)
    seen = [visit(site.app) for _ in range(2)]
    assert [(one.status, one.word, one.headers["Location"]) for one in seen] == [
        (301, "EXPIRED", "/elsewhere"),
        (301, "HIT", "/elsewhere"),
    ]


READERS: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "cookie": (lambda: request.cookies.get("name"), {"Cookie": "name=ada"}),
    "session": (lambda: dict(session).get("name"), {"Cookie": "session=ada"}),
    "field": (lambda: request.headers.get("X-Name"), {"X-Name": "ada"}),
}


@pytest.mark.parametrize(("read", "fields"), READERS.values(), ids=READERS)
def test_what_a_handler_reads_of_its_visitor_counts(
    tmp_path: Path, clock: time_machine.Traveller, read: Callable[[], Any], fields: dict[str, str]
) -> None:
    site = Site(tmp_path)
    site.app.add_url_rule("/listed", "listed", site.cache.cached(60, statuses={410: 60})(site.view))
    site.handle(PageGone, lambda error: (f"gone for {read()}", 410))
    site.start()
    site.error = PageGone()
    alone = [visit(site.app, "/listed", headers).status for headers in (fields, None, fields)]
    assert (alone, len(site.handled)) == ([410] * 3, 3)
    assert visit(site.app, "/listed").page == ("HIT", "gone for None")
    site.error = None
    site.visit()
    site.error = PageGone()
    clock.shift(EXPIRED)
    assert site.visit(fields)[0] == 410
    site.error = ZeroDivisionError()
    assert site.visit() == (200, f"page {site.calls - 2}"), "an answer for one visitor takes nothing away"


def sets_cookie(error: Exception) -> Any:
    response = make_response("gone", 410)
    response.set_cookie("seen", "1")
    return response


def calls_back(error: Exception) -> Any:
    @after_this_request
    def note(response: Response) -> Response:
        response.set_cookie("seen", "1")
        return response

    return "gone", 410


@pytest.mark.parametrize("answer", [sets_cookie, calls_back])
def test_a_handler_that_keeps_its_page_from_the_store(tmp_path: Path, answer: Callable[[Exception], Any]) -> None:
    site = Site(tmp_path)
    site.app.add_url_rule("/listed", "listed", site.cache.cached(60, statuses={410: 60})(site.view))
    site.handle(PageGone, answer)
    site.error = PageGone()
    seen = [visit(site.app, "/listed") for _ in range(2)]
    assert [(one.status, one.headers["Set-Cookie"]) for one in seen] == [(410, "seen=1; Path=/")] * 2
    assert site.calls == 2


# -- asked once --------------------------------------------------------------------------------------------------------


def test_a_handler_is_asked_once_for_each_call(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path)
    site.handle(Exception, lambda error: (f"sorry {len(site.handled)}", 503))
    site.start()
    site.error = ZeroDivisionError()
    assert [site.visit(), site.visit()] == [(503, "sorry 1"), (503, "sorry 2")]


def test_an_outer_view_catches_what_an_inner_one_raises(tmp_path: Path) -> None:
    site = Site(tmp_path)
    inner = site.cache.cached(60)(site.view)
    site.handle(PageGone, lambda error: ("gone", 410))

    @site.app.get("/plain")
    def plain() -> str:
        try:
            return str(inner())
        except PageGone:
            return "without it"

    @site.app.get("/outer")
    @site.cache.cached(60)
    def outer() -> str:
        return str(inner())

    site.error = PageGone()
    assert visit(site.app, "/plain").text == "without it"
    assert [(seen.status, seen.text) for seen in (visit(site.app, "/outer") for _ in range(2))] == [(410, "gone")] * 2
    assert len(site.handled) == 3


def test_a_decorator_above_sees_the_exception(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.handle(ValueError, lambda error: ("of the handler", 500))
    inner = site.cache.cached(60)(site.view)

    @site.app.get("/json")
    def in_json() -> Any:
        try:
            return inner()
        except ValueError:
            return {"error": "value"}, 422

    site.error = ValueError()
    assert visit(site.app, "/json").status == 422


@pytest.mark.parametrize("status", [503, 410])
def test_those_who_wait_ask_for_themselves(tmp_path: Path, status: int) -> None:
    """A failure is shared as the exception: each visitor's page is made for that visitor."""
    site, opened = Site(tmp_path), threading.Event()
    site.handle(PageGone, lambda error: (f"sorry {request.headers['X-Name']}", status))

    @site.app.get("/slow")
    @site.cache.cached(**WINDOWS)
    def slow() -> str:
        site.calls += 1
        assert opened.wait(PATIENCE)
        raise PageGone("away")

    flights = site.app.extensions["stalecache"].engine.runtime.process.flights
    names = ["ada", "bob", "eve"]
    visits = [go(lambda name=name: visit(site.app, "/slow", {"X-Name": name})) for name in names]  # type: ignore[misc]
    wait_until(lambda: site.calls == 1 and sum(len(each.done.waiters) for each in list(flights._flights.values())) == 2)
    opened.set()
    seen = results(visits)
    assert [(one.status, one.text) for one in seen] == [(status, f"sorry {name}") for name in names]
    assert site.calls == (1 if status == 503 else 3)


@pytest.mark.parametrize("age", [STALE, EXPIRED])
def test_a_page_with_a_wait_is_withdrawn_too(tmp_path: Path, clock: time_machine.Traveller, age: int) -> None:
    site = Site(tmp_path)
    site.app.add_url_rule("/wait", "wait", site.cache.cached(**WINDOWS, wait=20)(site.view))
    site.handle(PageGone, lambda error: ("gone", 410))
    assert visit(site.app, "/wait").text == "page 1"
    site.error = PageGone()
    clock.shift(age)
    visit(site.app, "/wait")
    settle(site.app, site.cache)
    assert [visit(site.app, "/wait").status for _ in range(2)] == [410, 410]


def test_the_exceptions_of_fetch_functions_stay_failures(tmp_path: Path, clock: time_machine.Traveller) -> None:
    site = Site(tmp_path)
    site.handle(PageGone, lambda error: ("gone", 410))
    value = site.cache.memoize(**WINDOWS)(site.view)
    with site.app.app_context():
        assert value() == "page 1"
        site.error = PageGone()
        clock.shift(EXPIRED)
        assert [value(), value()] == ["page 1"] * 2


def test_a_handled_error_is_no_failure_of_the_view_in_the_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path)
    site.handle(PageGone, lambda error: ("gone", 410))
    site.start()
    site.error = PageGone()
    with caplog.at_level(logging.INFO, "flask_stalecache"):
        assert [site.visit()[0], site.visit({"Authorization": "Bearer ada"})[0]] == [410, 410]
    assert [record.getMessage() for record in caplog.records] == []
    with site.app.app_context():
        assert site.cache.stats()["origin_failures"] == 0
