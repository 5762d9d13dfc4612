"""Responses to visitors: conditional requests and ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Response, make_response, send_file
from werkzeug.http import http_date

from support.client import MakeApp, visit
from support.clock import NOON
from support.responses import MODIFIED, PAGE, WINDOWS, Switch, site

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


@pytest.mark.grid
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


@pytest.mark.grid
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
