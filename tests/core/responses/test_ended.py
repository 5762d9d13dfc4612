"""What is told to other caches once freshness has ended early."""

from __future__ import annotations

import pytest

from flask_stalecache.core.http.cache_control import response_directives
from flask_stalecache.core.http.freshness import lifetime
from flask_stalecache.core.responses.ended import without_freshness

PAST = "Thu, 01 Jan 1970 00:00:00 GMT"
LATER = "Fri, 15 Jan 2027 09:00:00 GMT"
NOW = 1800000000.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("max-age=3600", "max-age=0"),
        ("public, max-age=3600, stale-while-revalidate=60", "public, max-age=0, stale-while-revalidate=60"),
        ("S-MaxAge=60,Max-Age=3600,stale-if-error=9", "S-MaxAge=0,Max-Age=0,stale-if-error=9"),
        ('max-age="3600", immutable', "max-age=0, immutable"),
        ("max-age = 3600", "max-age = 0"),
        ("max-age=3600, max-age=10", "max-age=0, max-age=0"),
        ('foo="a, max-age=5", max-age=60', 'foo="a, max-age=0", max-age=0'),
        ('foo="a, max-age=5', 'foo="a, max-age=0'),
        ("x-max-age=60, max-age-x=60", "x-max-age=60, max-age-x=60"),
        ("no-cache", "no-cache"),
        ("private, max-age=", "private, max-age=0"),
    ],
)
@pytest.mark.parametrize("name", ["Cache-Control", "CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "surrogate-control"])
def test_directives(name: str, before: str, after: str) -> None:
    assert without_freshness([(name, before)]) == [(name, after)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([("ETag", '"1"')], [("ETag", '"1"')]),
        ([("Expires", LATER)], [("Expires", PAST)]),
        ([("expires", LATER), ("Last-Modified", PAST)], [("expires", PAST), ("Last-Modified", PAST)]),
        ([("Last-Modified", PAST)], [("Last-Modified", PAST), ("Cache-Control", "max-age=0")]),
        (
            [("Cache-Control", "public"), ("Last-Modified", PAST)],
            [("Cache-Control", "public"), ("Last-Modified", PAST), ("Cache-Control", "max-age=0")],
        ),
        ([("X-Accel-Expires", "3600")], [("X-Accel-Expires", "0")]),
        ([("Surrogate-Control", "max-age=60+10;x")], [("Surrogate-Control", "max-age=0;x")]),
        ([("X-Page", "max-age=60")], [("X-Page", "max-age=60")]),
    ],
)
def test_fields(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    assert without_freshness(before) == after


@pytest.mark.parametrize(
    "headers",
    [
        [("Cache-Control", "max-age=3600")],
        [("Cache-Control", "s-maxage=3600, max-age=9")],
        [("Cache-Control", "public"), ("Cache-Control", "max-age=3600")],
        [("Expires", LATER)],
        [("Expires", LATER), ("Cache-Control", "public")],
        [("Last-Modified", "Fri, 15 Jan 2010 09:00:00 GMT")],
        [("Last-Modified", "Fri, 15 Jan 2010 09:00:00 GMT"), ("Cache-Control", "public")],
        [("CDN-Cache-Control", "max-age=3600"), ("Cache-Control", "max-age=9")],
        [("CDN-Cache-Control", "s-maxage=3600;x, public")],
    ],
)
def test_a_cache_in_front_finds_it_stale(headers: list[tuple[str, str]]) -> None:
    def fresh_for(fields: list[tuple[str, str]]) -> float:
        return lifetime(None, response_directives(fields), fields, NOW, None, status=200)

    assert fresh_for(headers) > 0
    assert fresh_for(without_freshness(headers)) == 0
