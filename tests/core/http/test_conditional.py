"""How much of a stored response answers a request: each row of the table, and which field comes first."""

from __future__ import annotations

import pytest

from flask_stalecache.core.http.conditional import Extent, select

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
