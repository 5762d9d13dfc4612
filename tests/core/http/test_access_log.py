"""Lines of access logs, as servers write them."""

from __future__ import annotations

from typing import Any

import pytest

from flask_stalecache.core.http.access_log import LogLine, read_line

AT = 1700000000.0  # 2023-11-14 22:13:20 UTC
#: The beginning of most lines.
HEAD = "h - - [14/Nov/2023:22:13:20 +0000]"
PAGE = LogLine(AT, "", "GET", "/news", "page=2", 200, 512, None, False)

LINES: dict[str, tuple[str, LogLine]] = {
    "common": ('::1 - - [14/Nov/2023:22:13:20 +0000] "GET /news?page=2 HTTP/1.1" 200 512', PAGE),
    "combined": (f'{HEAD} "GET /news?page=2 HTTP/2.0" 200 512 "https://a.example/" "Mozilla"', PAGE),
    "a further field": (f'{HEAD} "GET /news?page=2 HTTP/1.1" 200 512 "-" "M" 0.004', PAGE),
    "another time zone": ('h - - [15/Nov/2023:00:43:20 +0230] "GET /news?page=2 HTTP/1.1" 200 512', PAGE),
    "west of Greenwich": ('h - - [14/Nov/2023:15:13:20 -0700] "GET /news?page=2 HTTP/1.1" 200 512', PAGE),
    "no size": (f'{HEAD} "GET /news?page=2 HTTP/1.1" 304 -', PAGE._replace(status=304, size=0)),
    "a user": ('h - ann [14/Nov/2023:22:13:20 +0000] "GET /news?page=2 HTTP/1.1" 200 512', PAGE._replace(has_user=True)),
    "a user with spaces": (
        'h - a b [14/Nov/2023:22:13:20 +0000] "GET /news?page=2 HTTP/1.1" 200 512', PAGE._replace(has_user=True),
    ),
    "virtual host first": ('a.example:443 h - - [14/Nov/2023:22:13:20 +0000] "GET /news?page=2 HTTP/1.1" 200 512 "-" "-"', PAGE),
    "HTTP/0.9": (f'{HEAD} "GET /news?page=2" 200 512', PAGE),
    "a full URL": (
        'h - - [14/Nov/2023:22:13:20 +0000] "GET http://A.example/news?page=2 HTTP/1.1" 200 512',
        PAGE._replace(host="a.example"),
    ),
    "nginx, JSON": (
        '{"time_iso8601": "2023-11-14T22:13:20+00:00", "host": "a.example", "request": "GET /news?page=2 HTTP/1.1", '
        '"status": "200", "body_bytes_sent": "512", "request_time": "0.250", "remote_user": ""}',
        PAGE._replace(host="a.example", seconds=0.25),
    ),
    "nginx, JSON by parts": (
        '{"msec": "1700000000.000", "request_method": "GET", "uri": "/news", "args": "page=2", "status": 200, "bytes_sent": 512}',
        PAGE,
    ),
    "Caddy": (
        '{"ts": 1700000000.0, "request": {"method": "GET", "host": "a.example", "uri": "/news?page=2"}, "user_id": "", '
        '"duration": 0.25, "size": 512, "status": 200}',
        PAGE._replace(host="a.example", seconds=0.25),
    ),
    "Traefik": (
        '{"StartUTC": "2023-11-14T22:13:20.000000000Z", "time": "2023-11-14T22:13:29Z", "RequestMethod": "GET", '
        '"RequestPath": "/news?page=2", "DownstreamStatus": 200, "DownstreamContentSize": 512, "Duration": 250000000, '
        '"ClientUsername": "-", "RequestHost": "a.example"}',
        PAGE._replace(host="a.example", seconds=0.25),
    ),
    "milliseconds": (
        '{"timestamp": 1700000000000, "method": "GET", "path": "/news", "query": "?page=2", "status": 200, "size": 512}',
        PAGE,
    ),
    "time without a zone": (
        '{"time": "2023-11-14 22:13:20", "method": "GET", "url": "/news?page=2", "status": 200, "bytes": 512}',
        PAGE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_read(name: str) -> None:
    line, expected = LINES[name]
    assert read_line(line) == expected
    assert read_line(line + "\n") == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        "worker started",
        'h - - [14/Nov/2023:22:13:20 +0000] "-" 400 0',
        'h - - [31/Feb/2023:22:13:20 +0000] "GET / HTTP/1.1" 200 1',
        'h - - [14/Foo/2023:22:13:20 +0000] "GET / HTTP/1.1" 200 1',
        'h - - [yesterday] "GET / HTTP/1.1" 200 1',
        'h - - [14/Nov/2023:22:13:20 +0000] "GET * HTTP/1.1" 200 1',
        '{"time": "never", "method": "GET", "path": "/", "status": 200}',
        '{"time": 1e999, "method": "GET", "path": "/", "status": 200}',
        '{"time": "2023-11-14T22:13:20Z", "method": "GET", "status": 200}',
        '{"time": "2023-11-14T22:13:20Z", "method": "GET", "path": "/", "status": "ok"}',
        '{"time": null}',
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=range(16),
)
def test_what_is_no_request_is_no_line(line: str) -> None:
    assert read_line(line) is None


def test_a_pathological_line_is_given_up_at_once() -> None:
    """A visitor chooses path and fields: no line may take long."""
    lines: list[Any] = ["a" * 100_000, 'h - - [14/Nov/2023:22:13:20 +0000] "GET /' + "a" * 100_000, "h " * 50_000, '"' * 100_000]
    assert [read_line(line) for line in lines] == [None] * len(lines)
