"""Tags that the app names in response fields, as it would for a CDN."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Response

from flask_stalecache import GatewayCache, Policy
from support.client import MakeApp, visit
from support.wsgi_apps import App, ask

FRESH = ("Cache-Control", "max-age=60")


def paged(fields: Callable[[str], list[tuple[str, str]]]) -> App:
    """Return an app whose pages say which call they are from."""

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [FRESH, *fields(environ["PATH_INFO"])])
        return [b"%d" % len(app.environs)]

    app = App(answer)
    return app


PRODUCTS = {
    "/1": [("Surrogate-Key", "product-1 shop")],
    "/2": [("Cache-Tag", "product-2, shop")],
    "/3": [("xkey", "product-3"), ("xkey", "shop")],
    "/4": [("X-Cache-Tags", "shop")],
}


def words(gateway: GatewayCache, **more: Any) -> list[str]:
    return [ask(gateway, path, **more).word for path in PRODUCTS]


def test_a_page_is_purged_by_the_tags_in_its_fields(tmp_path: Path) -> None:
    app = paged(PRODUCTS.__getitem__)
    gateway = GatewayCache(app, dir=tmp_path)
    assert [words(gateway), words(gateway)] == [["MISS"] * 4, ["HIT"] * 4]
    gateway.purge(tag="product-2")
    assert words(gateway) == ["HIT", "MISS", "HIT", "HIT"]
    gateway.purge(tag="shop")
    assert words(gateway) == ["MISS", "MISS", "MISS", "HIT"]
    gateway.purge(tag="product-1 shop")
    assert words(gateway) == ["HIT"] * 4


def test_the_fields_are_sent_on_to_a_cdn(tmp_path: Path) -> None:
    gateway = GatewayCache(paged(PRODUCTS.__getitem__), dir=tmp_path)
    for _ in range(2):
        assert ("Surrogate-Key", "product-1 shop") in ask(gateway, "/1").fields


def test_other_fields_can_be_named(tmp_path: Path) -> None:
    gateway = GatewayCache(paged(PRODUCTS.__getitem__), dir=tmp_path, tag_fields=["x-cache-tags"])
    words(gateway)
    gateway.purge(tag="shop")
    assert words(gateway) == ["HIT", "HIT", "HIT", "MISS"]


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("POST", {}),
        ("GET", {"HTTP_IF_NONE_MATCH": '"1"'}),
        ("GET", {"HTTP_RANGE": "bytes=0-0"}),
        ("GET", {"HTTP_AUTHORIZATION": "Basic YTpi"}),
        ("GET", {"REMOTE_USER": "ann"}),
        ("GET", {"HTTP_COOKIE": "a=b"}),
    ],
)
def test_the_fields_are_removed_from_every_answer(tmp_path: Path, method: str, more: dict[str, str]) -> None:
    tagged = [("ETag", '"1"'), ("Surrogate-Key", "shop"), ("XKey", "a")]
    gateway = GatewayCache(paged(lambda path: tagged), dir=tmp_path, send_tag_fields=False)
    answers = [
        ask(gateway, "/", method, **more),
        ask(gateway),
        ask(gateway, "/", method, **more),
        ask(gateway, "/", method, **more),
    ]
    for got in answers:
        names = {name.lower() for name, _ in got.fields}
        assert names.isdisjoint({"surrogate-key", "xkey"})
        assert "etag" in names
    gateway.purge(tag="shop")
    assert ask(gateway).word == "MISS"


def test_a_confirmation_with_other_tags_replaces_those_of_the_field(tmp_path: Path, clock: time_machine.Traveller) -> None:
    said = ["old both"]

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        is_same = "HTTP_IF_NONE_MATCH" in environ
        status = "304 Not Modified" if is_same else "200 OK"
        start_response(status, [FRESH, ("ETag", '"1"'), ("xkey", said[0])])
        return [] if is_same else [b"page"]

    gateway = GatewayCache(App(answer), dir=tmp_path, rules={"/*": Policy(tags=("rule",))})
    ask(gateway)
    clock.shift(61)
    said[0] = "both new"
    assert ask(gateway).word == "REVALIDATED"
    gateway.purge(tag="old")
    assert ask(gateway).word == "HIT"
    for tag in ("new", "rule", "both"):
        gateway.purge(tag=tag)
        assert [ask(gateway).word, ask(gateway).word] == ["MISS", "HIT"]
        clock.shift(61)
        assert ask(gateway).word == "REVALIDATED"


def test_a_variant_has_its_own_tags(tmp_path: Path) -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        language = environ["HTTP_ACCEPT_LANGUAGE"]
        start_response("200 OK", [FRESH, ("Vary", "Accept-Language"), ("Surrogate-Key", f"in-{language}")])
        return [language.encode()]

    gateway = GatewayCache(App(answer), dir=tmp_path)
    both = [{"HTTP_ACCEPT_LANGUAGE": "de"}, {"HTTP_ACCEPT_LANGUAGE": "en"}]
    assert [ask(gateway, **more).word for more in both * 2] == ["MISS", "MISS", "HIT", "HIT"]
    gateway.purge(tag="in-de")
    assert [ask(gateway, **more).page for more in both] == [("MISS", b"de"), ("HIT", b"en")]


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_flask_app_behind_its_gateway(make_app: MakeApp, is_sent: bool) -> None:
    app, cache = make_app(GATEWAY=True, SEND_TAG_FIELDS=is_sent)

    @app.route("/")
    def page() -> Response:
        return Response("page", headers={"Cache-Control": "max-age=60", "Cache-Tag": "größe".encode().decode("latin-1")})

    pages = [visit(app), visit(app)]
    assert [("Cache-Tag" in seen.headers) for seen in pages] == [is_sent] * 2
    assert pages[1].headers["X-Cache-Status"] == "HIT"
    with app.app_context():
        cache.purge(tag="größe")
    assert visit(app).headers["X-Cache-Status"] == "MISS"


def test_a_single_view_of_the_gateway(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, cache = make_app(SEND_TAG_FIELDS=False)

    @app.route("/")
    @cache.cached(60, gateway=True)
    def page() -> Response:
        return Response("page", headers={"Surrogate-Key": "news front"})

    with caplog.at_level(logging.WARNING):
        pages = [visit(app), visit(app)]
    assert [seen.headers["X-Cache-Status"] for seen in pages] == ["MISS", "HIT"]
    assert not any("Surrogate-Key" in seen.headers for seen in pages)
    with app.app_context():
        cache.purge(tag="front")
    assert visit(app).headers["X-Cache-Status"] == "MISS"
    assert caplog.records == []
