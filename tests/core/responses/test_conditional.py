"""How much of a response answers a request: each row of the table, and which field comes first."""

from __future__ import annotations

import pytest

from flask_stalecache.core.responses.conditional import (
    Extent,
    fields_of_206,
    fields_of_416,
    select,
    select_of_new,
    with_accept_ranges,
    without_content,
)

EARLIER = "Sat, 05 Nov 1994 08:49:37 GMT"
MODIFIED, LATER = "Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 08:49:37 GMT"
HEADERS = [("ETag", '"a"'), ("Last-Modified", MODIFIED), ("Date", LATER)]
SIZE = 10


@pytest.mark.parametrize(
    ("method", "asked", "status", "extent", "content_range"),
    [
        ("GET", {}, 200, Extent.FULL, ""),
        ("GET", {"if-none-match": '"a"'}, 200, Extent.NOT_MODIFIED, ""),
        ("HEAD", {"if-none-match": 'W/"a"'}, 200, Extent.NOT_MODIFIED, ""),
        ("GET", {"if-none-match": '"b"'}, 200, Extent.FULL, ""),
        ("GET", {"if-modified-since": MODIFIED}, 200, Extent.NOT_MODIFIED, ""),
        # If-None-Match comes before If-Modified-Since.
        ("GET", {"if-none-match": '"b"', "if-modified-since": MODIFIED}, 200, Extent.FULL, ""),
        ("GET", {"if-none-match": '"a"'}, 404, Extent.FULL, ""),
        ("GET", {"range": "bytes=0-3"}, 404, Extent.FULL, ""),
        ("GET", {"if-match": '"b"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4"}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"range": "bytes=-3"}, 200, Extent.PARTIAL, "bytes 7-9/10"),
        ("HEAD", {"range": "bytes=2-4"}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4, 6-7"}, 200, Extent.FULL, ""),
        ("GET", {"range": "lines=2-4"}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=10-"}, 200, Extent.UNSATISFIABLE, "bytes */10"),
        ("HEAD", {"range": "bytes=10-"}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4", "if-range": '"a"'}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"range": "bytes=2-4", "if-range": '"b"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=10-", "if-range": '"b"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4", "if-range": MODIFIED}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"if-range": '"a"'}, 200, Extent.FULL, ""),
        # With If-Match: a client appends the range to the part that it has.
        ("GET", {"range": "bytes=2-4", "if-match": '"b", "a"'}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"range": "bytes=2-4", "if-match": "*"}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"range": "bytes=2-4", "if-match": '"b"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4", "if-match": 'W/"a"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4", "if-match": '"b"', "if-range": '"a"'}, 200, Extent.FULL, ""),
        ("GET", {"range": "bytes=2-4", "if-unmodified-since": MODIFIED}, 200, Extent.PARTIAL, "bytes 2-4/10"),
        ("GET", {"range": "bytes=2-4", "if-unmodified-since": EARLIER}, 200, Extent.FULL, ""),
        # A condition comes before a range.
        ("GET", {"range": "bytes=2-4", "if-none-match": '"a"'}, 200, Extent.NOT_MODIFIED, ""),
        ("GET", {"range": "bytes=2-4", "if-none-match": '"b"'}, 200, Extent.PARTIAL, "bytes 2-4/10"),
    ],
)
def test_how_much_is_sent(method: str, asked: dict[str, str], status: int, extent: Extent, content_range: str) -> None:
    selected = select(method, asked.get, status, HEADERS, 0.0, SIZE)
    assert selected.extent is extent
    if extent in (Extent.PARTIAL, Extent.UNSATISFIABLE):
        assert selected.content_range == content_range
    else:
        assert selected.part == slice(0, SIZE)


def test_a_range_needs_the_size_of_the_whole() -> None:
    for field in ("bytes=2-4", "bytes=10-"):
        assert select("GET", {"range": field}.get, 200, HEADERS, 0.0, None).extent is Extent.FULL
    assert select("GET", {"if-none-match": '"a"'}.get, 200, HEADERS, 0.0, None).extent is Extent.NOT_MODIFIED


def test_nothing_is_cut_where_the_app_refuses_ranges() -> None:
    fields = [*HEADERS, ("Accept-Ranges", "none")]
    assert select("GET", {"range": "bytes=2-4"}.get, 200, fields, 0.0, SIZE).extent is Extent.FULL
    assert with_accept_ranges(200, fields) == fields


@pytest.mark.parametrize(("headers", "stored"), [(HEADERS, True), (HEADERS[:1], False), ([("Date", LATER)], False)])
def test_the_date_of_what_has_just_been_made_confirms_nothing(headers: list[tuple[str, str]], stored: bool) -> None:
    """The page may have changed since the client got its copy, within the same second."""
    asked = {"if-modified-since": LATER}
    assert select("GET", asked.get, 200, headers, 784198177.0, SIZE).extent is Extent.NOT_MODIFIED
    extent = select_of_new("GET", asked.get, 200, headers, 784198177.0, SIZE).extent
    assert extent is (Extent.NOT_MODIFIED if stored else Extent.FULL)


def test_the_fields_of_parts() -> None:
    fields = [("content-length", "10"), ("ETag", '"a"')]
    part = select("GET", {"range": "bytes=2-4"}.get, 200, fields, 0.0, SIZE)
    assert fields_of_206(fields, part) == [("ETag", '"a"'), ("Content-Range", "bytes 2-4/10"), ("Content-Length", "3")]
    none = select("GET", {"range": "bytes=10-"}.get, 200, fields, 0.0, SIZE)
    assert ("Content-Range", "bytes */10") in fields_of_416(none)


def test_only_a_whole_response_tells_that_ranges_are_cut() -> None:
    assert with_accept_ranges(200, []) == [("Accept-Ranges", "bytes")]
    assert with_accept_ranges(404, []) == []
    assert with_accept_ranges(200, [("accept-ranges", "bytes")]) == [("accept-ranges", "bytes")]


SENT = [
    ("Content-Type", "text/html"),
    ("content-encoding", "br"),
    ("Set-Cookie", "a=1"),
    ("ETag", '"a"'),
    ("Cache-Control", "max-age=9"),
]


@pytest.mark.parametrize(
    ("with_freshness", "names"), [(True, ["Set-Cookie", "ETag", "Cache-Control", "X-Why"]), (False, ["Set-Cookie", "X-Why"])]
)
def test_a_response_without_its_body_says_nothing_about_that(with_freshness: bool, names: list[str]) -> None:
    headers = [*SENT, ("CDN-Cache-Control", "max-age=9"), ("X-Why", "it"), ("Content-Length", "5")]
    left = [name for name, _ in without_content(headers, with_freshness=with_freshness)]
    assert [name for name in left if name != "CDN-Cache-Control"] == names
    assert ("CDN-Cache-Control" in left) is with_freshness
