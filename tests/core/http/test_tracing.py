"""Whether an answer shows the value of a tracing field."""

from __future__ import annotations

import gzip

import pytest

from flask_stalecache.core.http.tracing import TRACING, shown_fields

LONG = "8f2c6a1e-77aa-4d10-9c55-1c2b3a4d5e6f"


@pytest.mark.parametrize(
    ("value", "body", "is_shown"),
    [
        (LONG, f"<p>request {LONG}</p>", True),
        (LONG, f"<p>request {LONG.upper()}</p>", True),
        (LONG, "<p>request 8f2c6a1e</p>", True),
        (LONG, "<p>request 1c2b3a4d5e6f, 77aa</p>", True),
        (LONG, "<p>nothing, 77aa</p>", False),
        ("<script>alert(1)</script>", "<p><script>alert(1)</script></p>", True),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>", True),
        ("<script>alert(1)</script>", "<script>other()</script>", False),
        ('a"b', '{"id": "a\\"b"}', True),
        ("a b/c", "/?id=a%20b/c", True),
        ("x1", "the box1", True),
        ("x1", "the box", False),
        ("", "anything", False),
    ],
)
def test_a_value_is_found_as_pages_show_it(value: str, body: str, is_shown: bool) -> None:
    found = shown_fields({"HTTP_X_REQUEST_ID": value}, TRACING, [], body.encode())
    assert found == (("x-request-id",) if is_shown else ())


def test_a_value_is_found_in_the_fields() -> None:
    environ = {"HTTP_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert shown_fields(environ, TRACING, [("X-Trace", "0af7651916cd43dd8448eb211c80319c")], b"") == ("traceparent",)
    assert shown_fields(environ, TRACING, [("X-Trace", "another")], b"") == ()


def test_a_value_is_found_in_a_compressed_body() -> None:
    fields = [("Content-Encoding", "gzip")]
    assert shown_fields({"HTTP_X_REQUEST_ID": LONG}, TRACING, fields, gzip.compress(LONG.encode())) == ("x-request-id",)


def test_only_tracing_fields_are_looked_for() -> None:
    environ = {"HTTP_X_USER": LONG, "HTTP_TRACESTATE": LONG}
    assert shown_fields(environ, {"x-user"}, [], LONG.encode()) == ()
    assert shown_fields(environ, TRACING, [], LONG.encode()) == ("tracestate",)
