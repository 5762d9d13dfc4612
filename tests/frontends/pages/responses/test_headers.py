"""Responses to visitors: status words, header fields, and status codes. Covers ``frontends.pages.handler``."""

from __future__ import annotations

from typing import Any

import pytest
import time_machine
from flask import Response, abort, redirect, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ServiceUnavailable

from support.client import MakeApp, Seen, visit
from support.responses import MODIFIED, PAGE, WINDOWS, Switch, site


def told(seen: Seen) -> tuple[str, str, str | None]:
    """Return the values of both status fields, and of Age."""
    return seen.word, seen.headers["Cache-Status"], seen.headers.get("Age")


# -- words and fields --------------------------------------------------------------------------------------------------


def test_the_life_of_a_page_in_words(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view, REFRESH_BACKOFF=(10, 1000))
    assert told(visit(app)) == ("MISS", "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored", None)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=60", "0")
    clock.shift(59)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=1", "59")
    clock.shift(1)
    switch.answer = LookupError("down")
    assert told(visit(app)) == ("STALE", "stalecache; hit; ttl=0", "60")
    assert told(visit(app)) == ("UPDATING", "stalecache; hit; ttl=0", "60")
    clock.shift(20)
    switch.answer = PAGE
    assert told(visit(app)) == ("STALE", "stalecache; hit; ttl=-20", "80")
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=60", "0")
    clock.shift(180)
    assert told(visit(app)) == ("EXPIRED", "stalecache; fwd=stale; fwd-status=200; ttl=60; stored", None)
    clock.shift(180)
    switch.answer = LookupError("down")
    assert told(visit(app)) == ("STALE", "stalecache; hit; ttl=-120", "180")
    assert told(visit(app)) == ("STALE", "stalecache; hit; ttl=-120", "180")
    clock.shift(3600)
    assert visit(app).status == 500


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"method": "POST"}, "stalecache; fwd=method; fwd-status=200"),
        ({"method": "HEAD"}, "stalecache; fwd=bypass; fwd-status=200"),
        ({"headers": {"Authorization": "Bearer ann"}}, "stalecache; fwd=bypass; fwd-status=200"),
        ({"data": b"x"}, "stalecache; fwd=bypass; fwd-status=200"),
        ({"environ": {"REMOTE_USER": "ann"}}, "stalecache; fwd=bypass; fwd-status=200"),
    ],
)
def test_a_live_answer_says_why(make_app: MakeApp, options: dict[str, Any], field: str) -> None:
    app, cache = make_app()
    app.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE), methods=["GET", "POST"])
    seen = visit(app, "/", **options)
    assert told(seen) == ("BYPASS", field, None)


def test_an_answer_for_who_carries_an_absent_name_says_so(make_app: MakeApp) -> None:
    app = site(make_app, lambda: f"for {request.cookies.get('user')}")
    visit(app)
    assert told(visit(app, "/", {"Cookie": "user=ann"})) == ("BYPASS", "stalecache; fwd=bypass; fwd-status=200", None)


def test_an_answer_that_is_not_stored_says_no_stored(make_app: MakeApp) -> None:
    app = site(make_app, lambda: (PAGE, 404))
    assert told(visit(app)) == ("MISS", "stalecache; fwd=uri-miss; fwd-status=404", None)


def test_a_failure_that_is_an_answer_has_its_status(make_app: MakeApp) -> None:
    app = site(make_app, lambda: ("busy", 503))
    assert told(visit(app)) == ("MISS", "stalecache; fwd=uri-miss; fwd-status=503", None)


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        ((), []),
        (("Cache-Status",), ["Cache-Status"]),
        (("x-cache-status",), ["X-Cache-Status"]),
        (("X-Cache-Status", "Cache-Status"), ["Cache-Status", "X-Cache-Status"]),
    ],
)
def test_status_headers_can_be_turned_off(make_app: MakeApp, chosen: tuple[str, ...], sent: list[str]) -> None:
    app, cache = make_app(STATUS_HEADERS=chosen)
    app.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE), methods=["GET", "POST"])
    for method in ("GET", "GET", "POST"):
        headers = visit(app, method=method).headers
        assert [name for name in ("Cache-Status", "X-Cache-Status") if name in headers] == sent
    assert visit(app).headers["Age"] == "0"


def test_cache_status_is_appended_to_those_of_caches_before(make_app: MakeApp) -> None:
    app = site(make_app, lambda: Response(PAGE, headers={"Cache-Status": "upstream; hit", "X-Cache-Status": "upstream"}))
    for ours in ("stalecache; fwd=uri-miss", "stalecache; hit", "stalecache; hit"):
        fields = visit(app).headers.getlist("Cache-Status")
        assert fields[0] == "upstream; hit"
        assert fields[1].startswith(ours)
        assert len(fields) == 2


def test_x_cache_status_is_ours_alone(make_app: MakeApp) -> None:
    app = site(make_app, lambda: Response(PAGE, headers={"X-Cache-Status": "upstream"}))
    assert [visit(app).headers.getlist("X-Cache-Status")[-1:] for _ in range(2)] == [["MISS"], ["HIT"]]


def test_there_is_one_age(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """The view hands on what it got from a cache of its own."""
    app = site(make_app, lambda: Response(PAGE, headers={"Age": "1000"}))
    visit(app)
    clock.shift(7)
    assert len(visit(app).headers.getlist("Age")) == 1


@pytest.mark.parametrize(
    ("step", "status"), [(5, ("HIT", "stalecache; hit; ttl=60", "0")), (1000, ("STALE", "stalecache; hit; ttl=0", "60"))]
)
def test_age_is_never_negative(make_app: MakeApp, clock: time_machine.Traveller, step: float, status: tuple[str, str, str]) -> None:
    """The clock steps back: by little, as clocks of hosts differ, or by so much that the page comes from the future."""
    app = site(make_app)
    visit(app)
    clock.shift(-step)
    assert told(visit(app)) == status


def test_a_live_page_has_no_age(make_app: MakeApp) -> None:
    assert "Age" not in visit(site(make_app)).headers


def test_no_lifetime_is_invented_for_clients(make_app: MakeApp) -> None:
    app = site(make_app)
    for _ in range(2):
        headers = visit(app).headers
        assert not {"Cache-Control", "Expires"} & set(headers.keys())


def test_a_copy_has_the_fields_of_the_view(make_app: MakeApp) -> None:
    def view() -> Response:
        fields = [("X-One", "1"), ("Link", "</a>"), ("Link", "</b>"), ("Content-Language", "de"), ("Date", MODIFIED)]
        return Response("ü", headers=Headers(fields), content_type="text/plain; charset=utf-8")

    app = site(make_app, view)
    first, second = visit(app), visit(app)
    assert second.word == "HIT"
    for name in ("X-One", "Link", "Content-Language", "Date", "Content-Type", "Content-Length", "ETag"):
        assert second.headers.getlist(name) == first.headers.getlist(name)
    assert second.body == "ü".encode()
    assert second.headers["Content-Length"] == "2"


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Proxy-Authenticate", "X-Hop"])
def test_a_copy_has_no_hop_by_hop_fields(make_app: MakeApp, name: str) -> None:
    app = site(make_app, lambda: Response(PAGE, headers={"Connection": "close, x-hop", name: "close, x-hop"}))
    visit(app)
    assert name not in visit(app).headers


def test_a_copy_invents_no_content_type(make_app: MakeApp) -> None:
    def view() -> Response:
        response = Response(PAGE)
        del response.headers["Content-Type"]
        return response

    app = site(make_app, view)
    assert [visit(app).headers.get("Content-Type") for _ in range(2)] == [None, None]


@pytest.mark.parametrize("status", ["200 Alright", "301 Moved Over There"])
def test_a_copy_has_the_status_of_the_view(make_app: MakeApp, status: str) -> None:
    app = site(make_app, lambda: Response(PAGE, status=status, headers={"Location": "/x"}))
    seen = [visit(app) for _ in range(2)]
    assert [(page.word, page.status) for page in seen] == [("MISS", int(status[:3])), ("HIT", int(status[:3]))]


def test_a_redirect_is_stored_as_the_view_made_it(make_app: MakeApp) -> None:
    app = site(make_app, lambda: redirect("/elsewhere", 301))
    seen = [visit(app) for _ in range(2)]
    assert [(page.word, page.status, page.headers["Location"]) for page in seen] == [
        ("MISS", 301, "/elsewhere"), ("HIT", 301, "/elsewhere"),
    ]  # fmt: skip


class NonceResponse(Response):
    """A response class of the app's own, with something to do for every response."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes: list[str] = []

    def get_wsgi_headers(self, environ: Any) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["X-Notes"] = ",".join(self.notes)
        return headers


def test_a_response_class_of_the_apps_own_does_its_work_on_every_hit(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.response_class = NonceResponse
    app.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE))

    @app.after_request
    def note(response: Any) -> Any:
        response.notes.append(request.headers.get("X-User", "-"))
        return response

    seen = [visit(app, "/", {"X-User": name}) for name in ("ann", "bob", "eve")]
    assert [(page.word, page.headers.get("X-Notes")) for page in seen] == [("MISS", "ann"), ("HIT", "bob"), ("HIT", "eve")]


# -- statuses ----------------------------------------------------------------------------------------------------------


def test_a_status_has_a_lifetime_of_its_own(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch(("gone", 404))
    app = site(make_app, switch.view, policy={**WINDOWS, "stale_while_revalidate": 0, "statuses": {404: 10}})
    assert visit(app).word == "MISS"
    clock.shift(9)
    seen = visit(app)
    assert (seen.page, seen.status) == (("HIT", "gone"), 404)
    clock.shift(1)
    switch.answer = PAGE
    assert visit(app).page == ("EXPIRED", PAGE)
    clock.shift(59)
    assert visit(app).word == "HIT"


def test_a_status_without_a_lifetime_has_that_of_the_page(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = site(make_app, lambda: ("gone", 410), policy={**WINDOWS, "statuses": {410: None}})
    visit(app)
    clock.shift(59)
    assert visit(app).page == ("HIT", "gone")


def test_a_status_with_the_lifetime_0_is_stale_at_once(make_app: MakeApp) -> None:
    app = site(make_app, lambda: ("gone", 404), policy={**WINDOWS, "statuses": {404: 0}})
    assert [visit(app).word for _ in range(2)] == ["MISS", "STALE"]


@pytest.mark.parametrize("own_page", [True, False])
def test_an_abort_with_a_listed_status_stores_the_apps_page(make_app: MakeApp, own_page: bool) -> None:
    app, cache = make_app()
    runs: list[int] = []

    if own_page:
        app.register_error_handler(404, lambda error: (f"our page: {error.description}", 404, {"X-Own": "1"}))

    @app.get("/")
    @cache.cached(**{**WINDOWS, "statuses": {404: 60}})
    def page() -> str:
        runs.append(1)
        abort(404, "no such article")

    first, second = visit(app), visit(app)
    assert (first.word, second.word, len(runs)) == ("MISS", "HIT", 1)
    assert (first.status, second.status) == (404, 404)
    assert first.text == second.text
    assert ("our page: no such article" if own_page else "no such article") in second.text
    assert second.headers.get("X-Own") == ("1" if own_page else None)


def test_an_error_handler_of_an_exception_makes_the_page_of_a_listed_status(make_app: MakeApp) -> None:
    from werkzeug.exceptions import NotFound

    class NoArticle(NotFound):
        pass

    app, cache = make_app()
    app.register_error_handler(NoArticle, lambda error: ("no article", 404))

    @app.get("/")
    @cache.cached(**{**WINDOWS, "statuses": {404: 60}})
    def page() -> str:
        raise NoArticle

    assert [visit(app).page for _ in range(2)] == [("MISS", "no article"), ("HIT", "no article")]


def test_an_error_page_with_a_status_of_its_own_is_judged_by_that(make_app: MakeApp) -> None:
    """The handler turns the listed 404 into a status that is not listed."""
    app, cache = make_app()
    app.register_error_handler(404, lambda error: ("please pay", 402))

    @app.get("/")
    @cache.cached(**{**WINDOWS, "statuses": {404: 60}})
    def page() -> str:
        abort(404)

    assert [(seen.status, seen.word) for seen in (visit(app), visit(app))] == [(402, "MISS")] * 2


@pytest.mark.parametrize("error", [LookupError("down"), ServiceUnavailable("down")])
def test_error_handlers_apply_when_nothing_is_stored(make_app: MakeApp, error: Exception) -> None:
    app = site(make_app, Switch(error).view)
    app.register_error_handler(type(error), lambda error: (f"sorry: {type(error).__name__}", 503))
    for _ in range(2):
        seen = visit(app)
        assert (seen.status, seen.text) == (503, f"sorry: {type(error).__name__}")


def test_teardown_sees_the_error_as_without_a_cache(make_app: MakeApp) -> None:
    seen: list[str] = []

    def play(**config: Any) -> None:
        app = site(make_app, Switch(LookupError("down")).view, **config)

        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            seen.append(repr(error))

        assert visit(app).status == 500

    play()
    play(ENABLED=False)
    assert seen[0] == seen[1]
