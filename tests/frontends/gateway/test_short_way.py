"""The short way of a gateway's hit: its checks, which are written out by hand, agree with the list of reasons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from flask_stalecache.core.model.environ import REPLAY
from flask_stalecache.frontends.gateway import handler
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.frontends.gateway.handler import LONG_WAY


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")])
    return [b"page"]


@pytest.fixture
def gateway(directory: Path) -> GatewayCache:
    return GatewayCache(app, dir=directory)


def ask(gateway: GatewayCache, **more: Any) -> None:
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    environ.update(more)
    list(gateway(environ, lambda status, headers, exc_info=None: lambda data: None))


def long_ways(gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, **more: Any) -> int:
    """Return how many of two requests take the long way, once the short way is known."""
    for _ in range(3):
        ask(gateway)
    taken: list[object] = []
    monkeypatch.setattr(gateway, "_answer", lambda *_, **__: taken.append(1) or [b""])
    for _ in range(2):
        ask(gateway, **more)
    return len(taken)


def test_a_plain_hit_takes_the_short_way(gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert long_ways(gateway, monkeypatch) == 0


@pytest.mark.parametrize("name", LONG_WAY)
def test_each_listed_name_leads_to_the_long_way(gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert long_ways(gateway, monkeypatch, **{name: "1"}) == 2


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_only_get_takes_the_short_way(gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    assert long_ways(gateway, monkeypatch, REQUEST_METHOD=method) == 2


def test_whatever_bypasses_the_cache_is_listed() -> None:
    # A replay is a request for a cached view, whose responses a gateway never stores: it has no short way.
    names = [*LONG_WAY, REPLAY, "HTTP_COOKIE", "HTTP_X_ANY", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE", "HTTP_EXPECT", "CONTENT_TYPE"]
    found = {name for name in names if handler._why_bypassed({"REQUEST_METHOD": "GET", name: "1"}) is not None}
    assert found - {REPLAY} <= set(LONG_WAY)
    assert found == {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", "REMOTE_USER", REPLAY}
