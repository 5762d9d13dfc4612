"""What a visitor is answered: status words and fields, conditional and partial answers, statuses, windows, failures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, g, make_response, redirect, request, send_file
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.http import http_date

from flask_stalecache import StaleCache
from support.client import MakeApp, Seen, settle, visit
from support.clock import NOON

PAGE = "0123456789"
#: Fresh for a minute, then stale for two, and for an hour if the view fails.
WINDOWS: Mapping[str, Any] = {"max_age": 60, "stale_while_revalidate": 120, "stale_if_error": 3600, "jitter": 0}
MODIFIED = "Thu, 15 Jan 2026 08:00:00 GMT"


def always() -> str:
    return PAGE


def site(make_app: MakeApp, view: Callable[..., Any] = always, *, policy: Mapping[str, Any] = WINDOWS, **config: Any) -> Flask:
    """An app with one cached view, whose refreshes run in line."""
    app, cache = make_app(**{"REFRESH_WORKERS": 0, **config})
    app.add_url_rule("/", "page", cache.cached(**policy)(view))
    return app


class Switch:
    """A view that answers what the test says: a value, or an exception that it raises."""

    def __init__(self, answer: Any = PAGE) -> None:
        self.answer = answer
        self.runs = 0

    def view(self) -> Any:
        self.runs += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def told(seen: Seen) -> tuple[str, str, str | None]:
    """Return how a visitor was answered, in both fields, and the age of it."""
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


def test_age_is_never_negative(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = site(make_app)
    visit(app)
    clock.shift(-1000)
    assert told(visit(app)) == ("HIT", "stalecache; hit; ttl=60", "0")


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
    assert [visit(app).status for _ in range(2)] == [int(status[:3])] * 2


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


# -- conditional requests ----------------------------------------------------------------------------------------------

TAG = '"page-1"'


def tagged(weak: bool = False) -> Callable[[], Response]:
    def view() -> Response:
        response = make_response(PAGE)
        response.set_etag("page-1", weak=weak)
        response.headers["Last-Modified"] = MODIFIED
        response.headers["Cache-Control"] = "max-age=60"
        response.headers["Vary"] = "Accept-Language"
        response.headers["Content-Location"] = "/page"
        return response

    return view


VARIED = {**WINDOWS, "vary": ["Accept-Language"]}


def test_a_page_without_etag_is_given_one(make_app: MakeApp) -> None:
    pages = iter(["one", "two", "one"])
    app = site(make_app, lambda: next(pages), policy={"max_age": 0, "stale_while_revalidate": 0, "stale_if_error": 0})
    tags = [visit(app).headers["ETag"] for _ in range(3)]
    assert tags[0] == tags[2] != tags[1]
    assert not tags[0].startswith("W/")


def test_a_page_has_the_etag_of_its_copy(make_app: MakeApp) -> None:
    app = site(make_app)
    first, second = visit(app), visit(app)
    assert (first.word, second.word) == ("MISS", "HIT")
    assert first.headers["ETag"] == second.headers["ETag"]


def test_the_views_own_etag_is_kept(make_app: MakeApp) -> None:
    app = site(make_app, tagged(), policy=VARIED)
    assert [visit(app).headers.getlist("ETag") for _ in range(2)] == [[TAG]] * 2


@pytest.mark.parametrize("status", [301, 404])
def test_only_a_200_is_given_an_etag(make_app: MakeApp, status: int) -> None:
    app = site(make_app, lambda: (PAGE, status, {"Location": "/x"}), policy={**WINDOWS, "statuses": {404: 60}})
    assert ["ETag" in visit(app).headers for _ in range(2)] == [False, False]


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"If-None-Match": TAG}, 304),
        ({"If-None-Match": f"W/{TAG}"}, 304),
        ({"If-None-Match": f'"other", {TAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": ""}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": MODIFIED}, 200),
        ({"If-None-Match": TAG, "If-Modified-Since": "Thu, 01 Jan 2015 08:00:00 GMT"}, 304),
        ({"If-Modified-Since": MODIFIED}, 304),
        ({"If-Modified-Since": "Thu, 15 Jan 2026 08:00:01 GMT"}, 304),
        ({"If-Modified-Since": "Thu, 15 Jan 2026 07:59:59 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
    ],
)
def test_conditional_requests(make_app: MakeApp, fields: dict[str, str], status: int, cold: bool) -> None:
    app = site(make_app, tagged(), policy=VARIED)
    if not cold:
        visit(app)
    seen = visit(app, "/", fields)
    assert (seen.word, seen.status) == ("MISS" if cold else "HIT", status)
    assert seen.body == (b"" if status == 304 else PAGE.encode())
    assert visit(app).page == ("HIT", PAGE)


def test_a_weak_etag_answers_as_well(make_app: MakeApp) -> None:
    app = site(make_app, tagged(weak=True), policy=VARIED)
    visit(app)
    for tag in (TAG, f"W/{TAG}"):
        seen = visit(app, "/", {"If-None-Match": tag})
        assert (seen.status, seen.headers["ETag"]) == (304, f"W/{TAG}")


def test_a_304_has_the_fields_that_a_200_would_have(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """RFC 9110 section 15.4.5; and no fields of content."""
    app = site(make_app, tagged(), policy=VARIED)
    visit(app)
    clock.shift(5)
    headers = visit(app, "/", {"If-None-Match": TAG}).headers
    wanted = ("ETag", "Cache-Control", "Content-Location", "Vary", "Age", "X-Cache-Status")
    assert [headers.get(name) for name in wanted] == [TAG, "max-age=60", "/page", "Accept-Language", "5", "HIT"]
    assert not {"Content-Length", "Content-Type"} & set(headers.keys())


def test_the_etag_that_we_gave_is_answered(make_app: MakeApp) -> None:
    app = site(make_app)
    tag = visit(app).headers["ETag"]
    assert [visit(app, "/", {"If-None-Match": tag}).status for _ in range(2)] == [304, 304]


def test_without_last_modified_the_date_counts(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """RFC 9111 section 4.3.2: the stored Date, or when it was received."""
    app = site(make_app)
    visit(app)
    clock.shift(10)
    later, earlier = (http_date(NOON + shift) for shift in (5, -5))
    assert [visit(app, "/", {"If-Modified-Since": date}).status for date in (later, earlier)] == [304, 200]


@pytest.mark.parametrize("fields", [{"If-Match": '"other"'}, {"If-Unmodified-Since": "Thu, 01 Jan 2015 08:00:00 GMT"}])
def test_preconditions_of_writers_are_none_of_ours(make_app: MakeApp, fields: dict[str, str]) -> None:
    app = site(make_app, tagged(), policy=VARIED)
    assert [visit(app, "/", fields).status for _ in range(2)] == [200, 200]


def test_a_stale_copy_answers_conditions_and_is_renewed(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view)
    tag = visit(app).headers["ETag"]
    clock.shift(61)
    seen = visit(app, "/", {"If-None-Match": tag})
    assert (seen.word, seen.status, switch.runs) == ("STALE", 304, 2)
    assert visit(app).word == "HIT"


def test_conditions_are_not_answered_for_other_statuses(make_app: MakeApp) -> None:
    app = site(make_app, lambda: Response(PAGE, 404, {"ETag": TAG}), policy={**WINDOWS, "statuses": {404: 60}})
    assert [visit(app, "/", {"If-None-Match": TAG}).status for _ in range(2)] == [404, 404]
    assert visit(app, "/", {"Range": "bytes=0-1"}).status == 404


# -- ranges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize(
    ("field", "part", "content_range"),
    [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
        ("bytes=-100", PAGE, "bytes 0-9/10"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "file"])
def test_a_range_of_the_copy(make_app: MakeApp, cold: bool, field: str, part: str, content_range: str, kind: str) -> None:
    def view() -> Any:
        return PAGE if kind == "text" else send_file(io.BytesIO(PAGE.encode()), mimetype="text/plain")

    app = site(make_app, view)
    if not cold:
        visit(app)
    seen = visit(app, "/", {"Range": field})
    assert (seen.word, seen.status, seen.text) == ("MISS" if cold else "HIT", 206, part)
    assert (seen.headers["Content-Range"], seen.headers["Content-Length"]) == (content_range, str(len(part)))
    assert visit(app).page == ("HIT", PAGE)


@pytest.mark.parametrize("field", ["bytes=10-", "bytes=10-20"])
def test_a_range_that_is_not_there(make_app: MakeApp, field: str) -> None:
    app = site(make_app)
    for word in ("MISS", "HIT"):
        seen = visit(app, "/", {"Range": field})
        assert (seen.word, seen.status, seen.headers["Content-Range"]) == (word, 416, "bytes */10")
        assert seen.headers.getlist("Content-Length") in ([], [str(len(seen.body))])
        assert PAGE not in seen.text
    assert visit(app).page == ("HIT", PAGE)


@pytest.mark.parametrize(
    "field",
    ["bytes=0-1,4-5", "bytes=4-2", "bytes=a-b", "bytes=", "bytes", "lines=0-1", "bytes=0-1;2-3", "bytes=--1", ""],
)
def test_other_ranges_are_answered_with_the_whole(make_app: MakeApp, field: str) -> None:
    """RFC 9110 section 14.2: a server may ignore a Range field, and does if it is not valid."""
    app = site(make_app)
    for word in ("MISS", "HIT"):
        seen = visit(app, "/", {"Range": field})
        assert (seen.page, seen.status) == ((word, PAGE), 200)


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (TAG, 206),
        ('"other"', 200),
        (f"W/{TAG}", 200),
        (MODIFIED, 206),
        ("Thu, 15 Jan 2026 07:59:59 GMT", 200),
        ("Thu, 15 Jan 2026 08:00:01 GMT", 200),
        ("Thu, 01 Jan 2037 00:00:00 GMT", 200),
    ],
)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_if_range_compares_strongly_or_by_the_exact_date(make_app: MakeApp, if_range: str, status: int, cold: bool) -> None:
    """RFC 9110 section 13.1.5."""
    app = site(make_app, tagged(), policy=VARIED)
    if not cold:
        visit(app)
    seen = visit(app, "/", {"Range": "bytes=0-1", "If-Range": if_range})
    assert (seen.status, seen.text) == (status, "01" if status == 206 else PAGE)


def test_a_weak_etag_is_no_answer_to_if_range(make_app: MakeApp) -> None:
    app = site(make_app, tagged(weak=True), policy=VARIED)
    visit(app)
    assert [visit(app, "/", {"Range": "bytes=0-1", "If-Range": tag}).status for tag in (TAG, f"W/{TAG}")] == [200, 200]


def test_a_condition_goes_before_a_range(make_app: MakeApp) -> None:
    app = site(make_app, tagged(), policy=VARIED)
    visit(app)
    assert visit(app, "/", {"Range": "bytes=0-1", "If-None-Match": TAG}).status == 304
    assert visit(app, "/", {"Range": "bytes=0-1", "If-None-Match": '"other"'}).status == 206


def test_a_range_has_no_meaning_for_head(make_app: MakeApp) -> None:
    """RFC 9110 section 14.2: a Range field is ignored for other methods than GET."""
    app = site(make_app)
    visit(app)
    seen = visit(app, "/", {"Range": "bytes=0-1"}, method="HEAD")
    assert (seen.status, seen.headers["Content-Length"]) == (200, "10")


@pytest.mark.parametrize("fields", [{}, {"If-None-Match": '"x"'}])
def test_a_head_has_the_fields_of_the_get(make_app: MakeApp, fields: dict[str, str]) -> None:
    app = site(make_app)
    visit(app)
    get, head = visit(app, "/", fields), visit(app, "/", fields, method="HEAD")
    assert (head.word, head.body, head.status) == ("HIT", b"", 200)
    assert sorted(head.headers) == sorted(get.headers)


def test_a_range_of_an_empty_page(make_app: MakeApp) -> None:
    app = site(make_app, lambda: "")
    visit(app)
    seen = visit(app, "/", {"Range": "bytes=0-1"})
    assert (seen.status in (200, 416), seen.word) == (True, "HIT")


# -- hooks and closing -------------------------------------------------------------------------------------------------


def test_hooks_see_and_change_every_answer(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.set_data(response.get_data() + request.headers.get("X-User", "-").encode())
        response.headers["X-Signed"] = "1"
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "for "))
    said = [visit(app, "/", {"X-User": name}) for name in ("ann", "bob", "ann")]
    assert [page.page for page in said] == [("MISS", "for ann"), ("HIT", "for bob"), ("HIT", "for ann")]
    assert [page.headers.getlist("X-Signed") for page in said] == [["1"]] * 3
    assert [page.headers["Content-Length"] for page in said] == ["7"] * 3


def test_a_hook_that_writes_to_the_stream_writes_to_one_answer(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def sign(response: Response) -> Response:
        response.stream.write(b" signed")
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    assert [visit(app).page for _ in range(3)] == [("MISS", "page signed"), ("HIT", "page signed"), ("HIT", "page signed")]


def test_a_hook_that_answers_instead_changes_no_copy(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.after_request
    def refuse(response: Response) -> Response:
        return Response("no", 403) if request.headers.get("X-User") == "eve" else response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: "page"))
    said = [visit(app, "/", {"X-User": name}) for name in ("eve", "ann", "eve")]
    assert [(page.status, page.text) for page in said] == [(403, "no"), (200, "page"), (403, "no")]
    assert said[1].word == "HIT"


@pytest.mark.parametrize("kind", ["text", "file", "stream"])
def test_call_on_close_runs_with_the_first_response(make_app: MakeApp, kind: str) -> None:
    closed: list[str] = []

    def view() -> Response:
        answers: dict[str, Callable[[], Response]] = {
            "text": lambda: make_response(PAGE),
            "file": lambda: send_file(io.BytesIO(PAGE.encode()), mimetype="text/plain"),
            "stream": lambda: Response(iter([PAGE])),
        }
        response = answers[kind]()
        response.call_on_close(lambda: closed.append("closed"))
        return response

    app = site(make_app, view)
    assert visit(app).page == ("MISS", PAGE)
    # Werkzeug itself never calls it for a file that is passed on as it is; a file that was stored is not.
    assert closed == ["closed"]
    again = visit(app)
    assert again.page == ("MISS" if kind == "stream" else "HIT", PAGE)
    assert closed == ["closed"] * (2 if kind == "stream" else 1)


def test_call_on_close_of_a_hook_runs_for_every_hit(make_app: MakeApp) -> None:
    closed: list[str] = []
    app, cache = make_app()

    @app.after_request
    def watch(response: Response) -> Response:
        response.call_on_close(lambda: closed.append(response.headers["X-Cache-Status"]))
        return response

    app.add_url_rule("/", "page", cache.cached(60)(lambda: PAGE))
    for _ in range(3):
        visit(app)
    assert closed == ["MISS", "HIT", "HIT"]


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
    """The handler turns the listed 404 into something that is not."""
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


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [LookupError("down"), ServiceUnavailable(), ("broken", 500), ("", 502), ("broken", 503), ("broken", 504)]
)
def test_a_failure_is_answered_with_the_copy(make_app: MakeApp, clock: time_machine.Traveller, failure: Any) -> None:
    switch = Switch()
    app = site(make_app, switch.view, REFRESH_BACKOFF=(2, 10))
    visit(app)
    switch.answer = failure
    clock.shift(60 + 120)
    assert visit(app).page == ("STALE", PAGE)
    assert visit(app).page == ("STALE", PAGE)
    assert switch.runs == 2, "the second visitor meets the back-off"
    clock.shift(3600 - 120 - 1)
    assert visit(app).page == ("STALE", PAGE)
    assert switch.runs == 3
    clock.shift(1)
    assert visit(app).status >= 500


@pytest.mark.parametrize("answer", [("gone", 404), ("gone", 410), ("no", 403), ("wait", 429), ("not built", 501), ("teapot", 418)])
@pytest.mark.parametrize("raised", [True, False], ids=["raised", "returned"])
def test_another_error_is_an_answer(
    make_app: MakeApp, clock: time_machine.Traveller, answer: tuple[str, int], raised: bool
) -> None:
    def view() -> Any:
        if not answers:
            return PAGE
        return abort(answer[1], answer[0]) if raised else answer

    answers: list[int] = []
    app = site(make_app, view)
    visit(app)
    answers.append(1)
    clock.shift(180)
    seen = visit(app)
    assert (seen.status, answer[0] in seen.text) == (answer[1], True)
    answers.clear()
    assert visit(app).page == ("MISS", PAGE)


def test_a_failure_is_not_stored(make_app: MakeApp) -> None:
    switch = Switch(("broken", 503))
    app = site(make_app, switch.view)
    assert visit(app).page == ("MISS", "broken")
    switch.answer = PAGE
    assert visit(app).page == ("MISS", PAGE)


def test_no_stale_if_error_shows_the_failure(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view, policy={**WINDOWS, "stale_if_error": 0})
    visit(app)
    switch.answer = ("broken", 503)
    clock.shift(180)
    assert visit(app).page == ("EXPIRED", "broken")


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_what_must_not_be_served_stale_is_not(make_app: MakeApp, clock: time_machine.Traveller, directive: str) -> None:
    switch = Switch(Response(PAGE, headers={"Cache-Control": directive}))
    app = site(make_app, switch.view, policy={"jitter": 0}, MAX_AGE=60)
    assert visit(app).word == "MISS"
    clock.shift(59)
    assert visit(app).word == "HIT"
    clock.shift(1)
    switch.answer = LookupError("down")
    assert visit(app).status == 500


# -- windows -----------------------------------------------------------------------------------------------------------

CONFIGURED = {"MAX_AGE": 30, "STALE_WHILE_REVALIDATE": 40, "STALE_IF_ERROR": 50}


def probes(fresh: int, swr: int, sie: int) -> list[tuple[int, bool, str]]:
    """Return at which second a page of these windows is asked for, whether the view fails then, and the word that is due."""
    last_fresh = [(fresh - 1, False, "HIT")] if fresh else []
    in_swr = [(fresh, False, "STALE"), (fresh + swr - 1, False, "STALE")] if swr else []
    in_sie = [(fresh + sie - 1, True, "STALE")] if sie > swr else []
    return [*last_fresh, *in_swr, (fresh + swr, False, "EXPIRED"), *in_sie, (fresh + max(swr, sie), True, "")]


@pytest.mark.parametrize(
    ("headers", "code", "windows"),
    [
        ({}, {}, (30, 40, 50)),
        ({}, {"max_age": 10}, (10, 40, 50)),
        ({}, {"max_age": 10, "stale_while_revalidate": 5, "stale_if_error": 7}, (10, 5, 7)),
        ({}, {"stale_while_revalidate": 0, "stale_if_error": 0}, (30, 0, 0)),
        ({"Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"Cache-Control": "max-age=20"}, {"max_age": 10}, (10, 40, 50)),
        ({"Cache-Control": "max-age=20, stale-while-revalidate=3, stale-if-error=6"}, {}, (20, 3, 6)),
        ({"Cache-Control": "max-age=20, stale-while-revalidate=3, stale-if-error=6"}, {"stale_if_error": 9}, (20, 3, 9)),
        ({"Cache-Control": "stale-if-error=60"}, {"max_age": 10}, (10, 40, 60)),
        ({"Cache-Control": "stale-while-revalidate=4"}, {"max_age": 10}, (10, 4, 50)),
        ({"Cache-Control": "s-maxage=15, max-age=20"}, {}, (15, 0, 0)),
        ({"Cache-Control": "s-maxage=15, stale-if-error=6"}, {}, (15, 0, 6)),
        ({"Cache-Control": "s-maxage=15, stale-while-revalidate=6"}, {}, (15, 6, 0)),
        ({"Cache-Control": "max-age=20, must-revalidate, stale-if-error=6"}, {}, (20, 0, 0)),
        ({"Cache-Control": "max-age=20, must-revalidate"}, {"stale_if_error": 9}, (20, 0, 0)),
        ({"Cache-Control": "max-age=20, proxy-revalidate"}, {"max_age": 10, "stale_while_revalidate": 9}, (10, 0, 0)),
        ({"Cache-Control": "max-age=20", "CDN-Cache-Control": "max-age=12"}, {}, (12, 40, 50)),
        ({"Stalecache-Cache-Control": "max-age=8", "CDN-Cache-Control": "max-age=12"}, {}, (8, 40, 50)),
        ({"Stalecache-Cache-Control": "max-age=8"}, {"max_age": 10}, (10, 40, 50)),
        ({"Stalecache-Cache-Control": "", "Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"CDN-Cache-Control": "max-age=12, must-revalidate"}, {}, (12, 0, 0)),
        ({"CDN-Cache-Control": "max-age=12", "Cache-Control": "must-revalidate"}, {}, (12, 40, 50)),
        ({"CDN-Cache-Control": "stale-if-error=45", "Expires": "0"}, {}, (30, 40, 45)),
        ({"Expires": http_date(NOON + 25)}, {}, (25, 40, 50)),
        ({"Expires": http_date(NOON + 25), "Date": http_date(NOON + 5)}, {}, (20, 40, 50)),
        ({"Expires": http_date(NOON + 25), "Cache-Control": "max-age=20"}, {}, (20, 40, 50)),
        ({"Expires": "0"}, {}, (0, 40, 50)),
        ({"Expires": "0"}, {"max_age": 10}, (10, 40, 50)),
        ({"Cache-Control": "max-age=abc"}, {}, (0, 40, 50)),
        ({"Cache-Control": "max-age=20, max-age=25"}, {}, (0, 40, 50)),
        ({"Cache-Control": "immutable, max-age=20"}, {}, (20, 40, 50)),
    ],
)
def test_whose_rules(
    make_app: MakeApp,
    clock: time_machine.Traveller,
    headers: Mapping[str, str],
    code: Mapping[str, Any],
    windows: tuple[int, int, int],
) -> None:
    """Code, then the response's targeted field, then its Cache-Control or Expires, then the configuration; prohibitions always."""
    app, cache = make_app(**CONFIGURED, REFRESH_WORKERS=0)
    fails: list[bool] = []

    def view(number: int) -> Response:
        if any(fails):
            raise LookupError("down")
        return Response(PAGE, headers=dict(headers))

    app.add_url_rule("/<int:number>", "page", cache.cached(jitter=0, **code)(view))
    asked = probes(*windows)
    assert [visit(app, f"/{number}").word for number in range(len(asked))] == ["MISS"] * len(asked)
    now, said = 0, []
    for number, (second, failing, _) in enumerate(asked):
        clock.shift(second - now)
        now, fails[:] = second, [failing]
        said.append(visit(app, f"/{number}").word)
    assert said == [word for _, _, word in asked]


def test_cached_without_arguments_has_the_configured_windows(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """With the usual jitter of a tenth."""
    app, cache = make_app(**CONFIGURED, REFRESH_WORKERS=0)
    app.add_url_rule("/<int:number>", "page", cache.cached()(lambda number: PAGE))
    for number in range(3):
        visit(app, f"/{number}")
    clock.shift(26.9)
    assert visit(app, "/0").word == "HIT"
    clock.shift(3.1)
    assert visit(app, "/1").word == "STALE"
    clock.shift(40)
    assert visit(app, "/2").word == "EXPIRED"


@pytest.mark.parametrize("jitter", [0, 0.1, 0.5, 1, None])
def test_jitter_shortens_freshness_by_its_share_at_most(make_app: MakeApp, jitter: float | None) -> None:
    app, cache = make_app()
    app.add_url_rule("/<int:number>", "page", cache.cached(1000, jitter=jitter)(lambda number: PAGE))
    lives = [int(visit(app, f"/{number}").headers["Cache-Status"].partition("ttl=")[2].partition(";")[0]) for number in range(50)]
    share = 0.1 if jitter is None else jitter
    assert all(1000 * (1 - share) - 1 <= life <= 1000 for life in lives)
    assert (len(set(lives)) > 1) == (share > 0)
    # 50 draws that all fall into one half have a chance of 1 in 10**15.
    assert share == 0 or min(lives) < 1000 * (1 - share / 2) < max(lives) + 1


# -- switches ----------------------------------------------------------------------------------------------------------


def test_not_enabled_is_as_if_it_were_not_there(make_app: MakeApp) -> None:
    switch = Switch()
    app, cache = make_app(ENABLED=False)
    plain = app.request_class, app.wsgi_app
    app.add_url_rule("/", "page", cache.cached(60)(switch.view))
    seen = [visit(app) for _ in range(2)]
    assert switch.runs == 2
    assert [page.text for page in seen] == [PAGE] * 2
    assert not {"Age", "ETag", "Cache-Status", "X-Cache-Status"} & set(seen[1].headers.keys())
    assert plain[0] is Flask.request_class
    with app.app_context():
        assert cache.drain(1) is True
    assert not app.config["STALECACHE_DIR"].exists()


def test_a_filter_keeps_responses_from_being_stored(make_app: MakeApp) -> None:
    switch = Switch("loading")
    asked: list[bytes] = []

    def complete(response: Response) -> object:
        asked.append(response.get_data())
        return "" if b"loading" in response.get_data() else "yes"

    app = site(make_app, switch.view, policy={**WINDOWS, "response_filter": complete})
    assert visit(app).page == ("MISS", "loading")
    assert visit(app).page == ("MISS", "loading")
    switch.answer = PAGE
    assert visit(app).page == ("MISS", PAGE)
    assert visit(app).page == ("HIT", PAGE)
    assert asked == [b"loading", b"loading", PAGE.encode()]


def test_a_filter_is_asked_of_a_refresh_too(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    switch = Switch()
    app = site(make_app, switch.view, policy={**WINDOWS, "response_filter": lambda response: b"loading" not in response.get_data()})
    visit(app)
    switch.answer = "loading"
    clock.shift(61)
    assert visit(app).page == ("STALE", PAGE)
    switch.answer = "later"
    assert "loading" not in visit(app).text


def test_a_filter_does_not_change_what_is_sent(make_app: MakeApp) -> None:
    app = site(make_app, policy={**WINDOWS, "response_filter": lambda response: response.direct_passthrough is False})
    assert [visit(app).page for _ in range(2)] == [("MISS", PAGE), ("HIT", PAGE)]


def test_a_filter_that_raises_is_no_error_to_visitors(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The cache never turns a working page into an error."""

    def broken(response: Response) -> bool:
        raise LookupError("the filter is broken")

    app = site(make_app, policy={**WINDOWS, "response_filter": broken})
    assert [visit(app).page for _ in range(2)] == [("MISS", PAGE)] * 2
    assert "the filter is broken" in caplog.text


def test_the_views_own_values_reach_hooks_of_its_own_request_only(make_app: MakeApp) -> None:
    """On a hit the view does not run, so that ``g`` is what the hooks made of it."""
    app, cache = make_app()

    @app.before_request
    def begin() -> None:
        g.ran = False

    @app.after_request
    def tell(response: Response) -> Response:
        response.headers["X-Ran"] = str(g.ran)
        return response

    @app.get("/")
    @cache.cached(60)
    def page() -> str:
        g.ran = True
        return PAGE

    assert [visit(app).headers["X-Ran"] for _ in range(3)] == ["True", "False", "False"]


def test_dates_are_dates(clock: time_machine.Traveller) -> None:
    """The clock of these tests stands at noon, so that http dates can be counted with."""
    assert datetime.now(timezone.utc).timestamp() == NOON


def test_a_store_of_pages_outlives_the_app(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    """Another process on the same directory serves what the first one stored."""

    def create(cache: StaleCache) -> Callable[[], Any]:
        return cache.cached(**WINDOWS)(page_of_its_own)

    first, cache = make_app()
    first.add_url_rule("/", "page", create(cache))
    visited = visit(first)
    second, other = make_app()
    second.add_url_rule("/", "page", create(other))
    clock.shift(5)
    seen = visit(second)
    assert (seen.page, seen.headers["Age"], seen.headers["ETag"]) == (("HIT", PAGE), "5", visited.headers["ETag"])
    settle(second, other)


def page_of_its_own() -> str:
    return PAGE
