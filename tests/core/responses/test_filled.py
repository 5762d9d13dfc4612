from __future__ import annotations

import pytest

from flask_stalecache.core.responses.filled import fields_of_filled, is_private, private_fields, without_lengths


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([], "private, no-cache"),
        (["max-age=60, public"], "private, no-cache"),
        (["s-maxage=60", "no-transform"], "private, no-cache, no-transform"),
        (["No-Store, max-age=1"], "private, no-cache, no-store"),
        (["private, no-store, no-transform, immutable"], "private, no-cache, no-store, no-transform"),
    ],
)
def test_a_filled_page_is_one_visitors(said: list[str], sent: str) -> None:
    fields = fields_of_filled([("Content-Type", "text/html"), *(("Cache-Control", value) for value in said)])
    assert fields == [("Content-Type", "text/html"), ("Cache-Control", sent)]


@pytest.mark.parametrize(
    ("fields", "is_said"),
    [
        ([("Cache-Control", "private, no-cache"), ("ETag", "1")], True),
        ([("cache-control", "private, no-cache, no-store")], True),
        ([], False),
        ([("Cache-Control", "public")], False),
        ([("Cache-Control", "private, no-cache"), ("Cache-Control", "max-age=1")], False),
        ([("Cache-Control", "private, no-cache"), ("Expires", "0")], False),
    ],
)
def test_whether_fields_say_so(fields: list[tuple[str, str]], is_said: bool) -> None:
    assert is_private(fields) is is_said
    assert is_private(private_fields(fields))


@pytest.mark.parametrize(
    "name",
    [
        "Accept-Ranges",
        "Content-Digest",
        "Content-Length",
        "Content-MD5",
        "Digest",
        "ETag",
        "Repr-Digest",
    ],
)
def test_fields_that_tell_of_the_stored_bytes(name: str) -> None:
    assert fields_of_filled([(name, "1")]) == [("Cache-Control", "private, no-cache")]
    assert without_lengths([(name.lower(), "1"), ("Expires", "2")]) == [("Expires", "2")]


@pytest.mark.parametrize(
    "name",
    [
        "Expires",
        "Last-Modified",
        "CDN-Cache-Control",
        "Stalecache-Cache-Control",
        "Surrogate-Control",
        "Edge-Control",
        "X-Accel-Expires",
    ],
)
def test_fields_by_which_a_browser_or_an_edge_would_keep_it(name: str) -> None:
    assert fields_of_filled([("Vary", "Cookie"), (name, "1")]) == [("Vary", "Cookie"), ("Cache-Control", "private, no-cache")]
