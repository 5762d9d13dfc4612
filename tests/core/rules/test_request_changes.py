"""What middleware may change between a gateway and its app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import create_environ

from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.core.rules.request_changes import PARTS, changed_fields, changed_parts, may_explain, repeated_parameters

IGNORED = NamePatterns(["utm_*"])
GIVEN: Mapping[str, Any] = {
    "REQUEST_METHOD": "GET",
    "wsgi.url_scheme": "http",
    "HTTP_HOST": "shop.example",
    "SERVER_NAME": "10.0.0.1",
    "SERVER_PORT": "8000",
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/a/b",
    "QUERY_STRING": "x=1&utm_source=letter",
    "RAW_URI": "/app/a/b?x=1",
}
PROXIED: Mapping[str, Any] = {
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "www.example:444",
    "HTTP_X_FORWARDED_PORT": "445",
    "HTTP_X_FORWARDED_PREFIX": "/pre",
}

#: What middleware changes, and the parts that differ: without forwarded fields, and with those of PROXIED.
CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", ""),
    ({"REQUEST_METHOD": "POST"}, "method", "method"),
    ({"REQUEST_METHOD": "HEAD"}, "method", "method"),
    ({"wsgi.url_scheme": "https"}, "scheme", ""),
    ({"wsgi.url_scheme": "ftp"}, "scheme", "scheme"),
    ({"HTTP_HOST": "evil.example"}, "host", "host"),
    ({"HTTP_HOST": "www.example"}, "host", ""),
    ({"HTTP_HOST": "www.example:444", "SERVER_NAME": "www.example", "SERVER_PORT": "444"}, "host", ""),
    ({"HTTP_HOST": "shop.example:445", "SERVER_PORT": "445"}, "host", ""),
    ({"HTTP_HOST": "shop.example:446"}, "host", "host"),
    ({"SERVER_NAME": "evil.example"}, "host", "host"),
    ({"SERVER_PORT": "1"}, "host", "host"),
    ({"SCRIPT_NAME": "/app/a", "PATH_INFO": "/b"}, "", ""),
    ({"SCRIPT_NAME": "/app/a/b", "PATH_INFO": ""}, "", ""),
    ({"SCRIPT_NAME": "", "PATH_INFO": "/app/a/b"}, "", ""),
    ({"SCRIPT_NAME": "/pre"}, "path", ""),
    ({"SCRIPT_NAME": "/pre/a", "PATH_INFO": "/b"}, "path", ""),
    ({"SCRIPT_NAME": "/pre", "PATH_INFO": "/b"}, "path", ""),
    ({"SCRIPT_NAME": "/pre", "PATH_INFO": "/c"}, "path", "path"),
    ({"SCRIPT_NAME": "//evil.example"}, "path", "path"),
    ({"PATH_INFO": "/a/b/"}, "path", "path"),
    ({"RAW_URI": "/other"}, "path", "path"),
    ({"REQUEST_URI": "/app/a/b"}, "path", "path"),
    ({"QUERY_STRING": "x=1"}, "", ""),
    ({"QUERY_STRING": "x=1&utm_medium=mail"}, "", ""),
    ({"QUERY_STRING": "x=2"}, "query", "query"),
    ({"REMOTE_USER": "alice"}, "REMOTE_USER", "REMOTE_USER"),
    ({"REMOTE_USER": ""}, "", ""),
    ({"REQUEST_METHOD": "PUT", "REMOTE_USER": "alice", "QUERY_STRING": ""}, "method query REMOTE_USER", "method query REMOTE_USER"),
]


@pytest.mark.parametrize(("change", "plain", "proxied"), CHANGES, ids=lambda value: str(value)[:60])
def test_a_part_that_differs_is_named(change: dict[str, Any], plain: str, proxied: str) -> None:
    for given, expected in ((GIVEN, plain), ({**GIVEN, **PROXIED}, proxied)):
        changed = changed_parts(given, {**given, **change}, IGNORED)
        assert " ".join(part for part in changed if part in PARTS) == expected


@pytest.mark.parametrize(
    ("root", "plain", "proxied"),
    [
        ("/app", True, True),
        ("/app/a", True, True),
        ("", True, True),
        ("/app/a/b", True, True),
        ("/pre", False, True),
        ("/pre/a", False, True),
        ("//evil.example", False, False),
        ("/other", False, False),
    ],
)
def test_the_script_root_begins_the_path_or_is_the_prefix(root: str, plain: bool, proxied: bool) -> None:
    """The path after it can't be compared, since frameworks change ``PATH_INFO`` for their own use."""
    for given, expected in ((GIVEN, plain), ({**GIVEN, **PROXIED}, proxied)):
        changed = changed_parts(given, {**given, "SCRIPT_NAME": root, "PATH_INFO": "changed"}, IGNORED)
        assert ("script root" not in changed) is expected


@pytest.mark.parametrize("change", [change for change, _, _ in CHANGES], ids=lambda value: str(value)[:60])
def test_a_field_that_was_added_to_the_key_explains_all_but_the_method(change: dict[str, Any]) -> None:
    changed = changed_parts(GIVEN, {**GIVEN, **change}, IGNORED, is_explained=True)
    assert changed == (("method",) if "REQUEST_METHOD" in change else ())


def test_a_request_without_host_is_compared_by_the_server() -> None:
    given = {name: value for name, value in GIVEN.items() if name != "HTTP_HOST"}
    assert changed_parts(given, dict(given), IGNORED) == ()
    assert changed_parts(given, {**given, "SERVER_NAME": "evil.example"}, IGNORED) == ("host",)
    assert changed_parts(given, {**given, "HTTP_HOST": "evil.example"}, IGNORED) == ("host",)
    assert changed_parts({}, {}, IGNORED) == ()


def test_a_head_may_become_a_get() -> None:
    assert changed_parts({**GIVEN, "REQUEST_METHOD": "HEAD"}, GIVEN, IGNORED) == ()


@pytest.mark.parametrize("order", ["ProxyFix outside", "ProxyFix inside", "mount alone", "ProxyFix alone"])
@pytest.mark.parametrize("path", ["/shop", "/shop/", "/shop/ü/x"])
@pytest.mark.parametrize("server", ["127.0.0.1", "[::1]:8000"])
def test_mounts_and_proxies_change_nothing_that_the_key_does_not_say(order: str, path: str, server: str) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(dict(environ))
        return []

    def proxied(inner: Any) -> Any:
        return ProxyFix(inner, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)

    def mounted(inner: Any) -> Any:
        return DispatcherMiddleware(inner, {"/shop": inner})

    stack = {
        "ProxyFix outside": lambda: proxied(mounted(app)),
        "ProxyFix inside": lambda: mounted(proxied(app)),
        "mount alone": lambda: mounted(app),
        "ProxyFix alone": lambda: proxied(app),
    }[order]()
    fields = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example, b.example:8443", "X-Forwarded-Prefix": "/pre/"}
    for headers in (None, fields, {**fields, "X-Forwarded-Port": "444", "X-Forwarded-For": "192.0.2.1"}):
        given = create_environ(path, f"http://{server}/", headers=headers)
        stack(dict(given), lambda *args: None)
        assert changed_parts(given, seen[-1], IGNORED) == ()


def test_a_field_that_was_read_must_be_what_the_visitor_sent() -> None:
    given = {"HTTP_X_USER": "bob", "HTTP_COOKIE": "a=1", "CONTENT_TYPE": ""}
    seen = {"HTTP_X_USER": "alice", "HTTP_COOKIE": "a=2", "HTTP_X_GROUP": "staff", "CONTENT_TYPE": ""}
    assert changed_fields(given, seen, RequestInputs(headers=("content-type", "x-user", "x-group", "x-other"))) == (
        "x-user",
        "x-group",
    )
    assert changed_fields(given, seen, RequestInputs(cookies=("a",))) == ("cookie",)
    assert changed_fields(given, seen, RequestInputs()) == ()


@pytest.mark.parametrize(
    ("query", "location", "repeated"),
    [
        ("utm_source=a", "/shop/?utm_source=a", {"utm_source"}),
        ("utm_source=a&utm_medium=b&x=1", "https://shop.example/?x=1&utm_medium=b#utm_source=a", {"utm_medium"}),
        ("utm_source=%C3%BC", "/?utm%5Fsource=%c3%bc", {"utm_source"}),
        ("utm_source=a", "/shop/?utm_source=ours", set()),
        ("x=1", "/shop/?x=1", set()),
        ("utm_source=a", "/utm_source=a", set()),
        ("utm_source=a", "http://[broken?utm_source=a", {"utm_source"}),
        ("", "/?utm_source=a", set()),
    ],
)
def test_a_redirect_may_repeat_ignored_parameters(query: str, location: str, repeated: set[str]) -> None:
    for name in ("Location", "content-location"):
        assert repeated_parameters({"QUERY_STRING": query}, [("Content-Type", "text/html"), (name, location)], IGNORED) == repeated
    assert repeated_parameters({"QUERY_STRING": query}, [], IGNORED) == set()


@pytest.mark.parametrize(
    ("name", "expected"), [("x-scheme", True), ("cookie", True), ("accept-encoding", False), ("sec-ch-ua", False)]
)
def test_content_negotiation_explains_nothing(name: str, expected: bool) -> None:
    assert may_explain(name) is expected
