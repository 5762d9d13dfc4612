"""The short way of a gateway's hit: its checks, which are written out by hand, agree with the list of reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from flask_stalecache.core.model.environ import REPLAY
from flask_stalecache.core.rules.variants import VARIANTS
from flask_stalecache.frontends.gateway import handler
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.frontends.gateway.handler import LONG_WAY


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")])
    return [b"page"]


@pytest.fixture
def gateway(directory: Path) -> GatewayCache:
    return GatewayCache(app, dir=directory)


def ask(gateway: GatewayCache, **more: Any) -> bytes:
    environ: dict[str, Any] = {"QUERY_STRING": ""}
    setup_testing_defaults(environ)
    environ.update(more)
    return b"".join(gateway(environ, lambda status, headers, exc_info=None: lambda data: None))


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


#: A range that can be cut from the page.
CUT = "bytes=1-2"


@pytest.mark.parametrize("more", [{}, {"HTTP_RANGE": CUT}], ids=["whole", "part"])
@pytest.mark.parametrize("name", [name for name in LONG_WAY if name != "HTTP_RANGE"])
def test_each_listed_name_leads_to_the_long_way(
    gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, name: str, more: dict[str, str]
) -> None:
    assert long_ways(gateway, monkeypatch, **{name: "1"}, **more) == 2


@pytest.mark.parametrize(
    ("asked", "part"), [(CUT, b"ag"), ("bytes=2-", b"ge"), ("bytes=-1", b"e"), ("bytes=0-9", b"page"), ("Bytes=, 0-0", b"p")]
)
def test_a_range_that_can_be_cut_takes_the_short_way(
    gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, asked: str, part: bytes
) -> None:
    assert long_ways(gateway, monkeypatch, HTTP_RANGE=asked) == 0
    assert ask(gateway, HTTP_RANGE=asked) == part


@pytest.mark.parametrize(
    "more",
    [
        {"HTTP_RANGE": "1"},
        {"HTTP_RANGE": "lines=1-2"},
        {"HTTP_RANGE": "bytes=2-1"},
        {"HTTP_RANGE": "bytes=0-0,2-2"},
        {"HTTP_RANGE": "bytes=4-"},
        {"HTTP_RANGE": "bytes=-0"},
        {"HTTP_RANGE": CUT, "HTTP_IF_RANGE": '"another"'},
        {"HTTP_RANGE": CUT, "HTTP_IF_NONE_MATCH": '"another"'},
    ],
    ids=["malformed", "another unit", "backwards", "several", "past the end", "nothing", "of another page", "with a condition"],
)
def test_any_other_range_leads_to_the_long_way(
    gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    assert "HTTP_RANGE" in LONG_WAY
    assert long_ways(gateway, monkeypatch, **more) == 2


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_only_get_takes_the_short_way(gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    assert long_ways(gateway, monkeypatch, REQUEST_METHOD=method) == 2


def test_whatever_bypasses_the_cache_is_listed() -> None:
    # A replay is a request for a cached view, whose responses a gateway never stores: it has no short way.
    names = [*LONG_WAY, REPLAY, "HTTP_COOKIE", "HTTP_X_ANY", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE", "HTTP_EXPECT", "CONTENT_TYPE"]
    found = {name for name in names if handler._why_bypassed({"REQUEST_METHOD": "GET", name: "1"}) is not None}
    assert found - {REPLAY} <= set(LONG_WAY)
    assert found == {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", "REMOTE_USER", REPLAY}


LONG, FLOOD = "x" * 8000, 1_000_000


@pytest.mark.soak
def test_long_urls_are_not_remembered_and_crowd_out_no_others(
    gateway: GatewayCache, monkeypatch: pytest.MonkeyPatch, soak: Callable[[int, int], int]
) -> None:
    for _ in range(2):
        ask(gateway)
    for number in range(soak(6_000, 100)):
        for more in ({"PATH_INFO": f"/{number}{LONG}"}, {"QUERY_STRING": f"{number}{LONG}"}, {"HTTP_HOST": f"{number}{LONG}"}):
            for _ in range(2):
                ask(gateway, **more)
    assert len(gateway._known) == 1
    assert gateway._known.size < 2000
    assert long_ways(gateway, monkeypatch) == 0


@pytest.mark.soak
def test_what_is_remembered_of_short_urls_is_limited(gateway: GatewayCache, soak: Callable[[int, int], int]) -> None:
    for number in range(soak(FLOOD, 5000)):
        gateway._known.note(("GET", "http", "", f"/{number}", LONG[:700]), f"{number}")
        assert len(gateway._known) <= gateway._known.most
        assert gateway._known.size <= gateway._known.limit


def varying(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60"), ("Vary", "User-Agent")])
    return [environ.get("HTTP_USER_AGENT", "none")[:10].encode()]


@pytest.mark.soak
def test_long_values_of_variants_are_not_remembered_and_find_their_own(
    directory: Path, monkeypatch: pytest.MonkeyPatch, soak: Callable[[int, int], int]
) -> None:
    gateway = GatewayCache(varying, dir=directory)
    VARIANTS.clear()
    for _ in range(2):
        ask(gateway)
    before = VARIANTS.size
    for number in range(soak(6_000, 100)):
        for _ in range(2):
            assert ask(gateway, HTTP_USER_AGENT=f"{number:09} {LONG}") == f"{number:09} ".encode()
    assert VARIANTS.size == before
    assert long_ways(gateway, monkeypatch) == 0


def test_a_variant_of_another_url_or_of_another_index_is_not_found(directory: Path) -> None:
    """One table has the variants of all URLs, and of gateways in one process that answer for the same host."""

    def by(name: str) -> GatewayCache:
        def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Cache-Control", "max-age=60"), ("Vary", name)])
            return [f"{name} {environ['PATH_INFO']}".encode()]

        return GatewayCache(answer, dir=directory / name)

    gateways = {name: by(name) for name in ("X-A", "X-B")}
    for _ in range(3):
        for name, gateway in gateways.items():
            for path in ("/a", "/b"):
                assert ask(gateway, PATH_INFO=path, HTTP_X_A="1", HTTP_X_B="1") == f"{name} {path}".encode()
