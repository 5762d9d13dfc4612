"""Flask-Talisman with the cache: nonces of its content security policy, its redirects to https, and the fields that it adds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, render_template_string
from flask_talisman import Talisman

from flask_stalecache import StaleCache
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.client import Seen, visit
from support.privacy import lines

KINDS = ["cached", "STALECACHE_GATEWAY", "gateway=True", "GatewayCache"]
HTTPS, HTTP = "https://shop.example", "http://shop.example"
WITH_SCRIPT = "<script nonce='{{ csp_nonce() }}'>f()</script>"
PLAIN = "<p>no script</p>"


def app_with(folder: Path, kind: str, **options: Any) -> Flask:
    """Return an app with two pages under Flask-Talisman, cached in one of the four ways, or not at all."""
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=folder, STALECACHE_GATEWAY=kind == "STALECACHE_GATEWAY")
    policy = {"content_security_policy": {"script-src": "'self'"}, "content_security_policy_nonce_in": ["script-src"]}
    talisman = Talisman(app, **{**policy, **options})
    if kind == "GatewayCache":
        app.wsgi_app = GatewayCache(app.wsgi_app, dir=folder)  # type: ignore[method-assign]
    decorate: Callable[[Any], Any] = lambda view: view  # noqa: E731
    if kind in ("cached", "STALECACHE_GATEWAY", "gateway=True"):
        cache = StaleCache(app)
        if kind != "STALECACHE_GATEWAY":
            decorate = cache.cached(60, gateway=kind == "gateway=True")
    app.after_request(_fresh)
    app.add_url_rule("/script", "script", decorate(lambda: render_template_string(WITH_SCRIPT)))
    app.add_url_rule("/plain", "plain", decorate(lambda: render_template_string(PLAIN)))
    app.add_url_rule("/embedded", "embedded", decorate(talisman(force_https=False, frame_options=None)(lambda: "widget")))
    return app


def _fresh(response: Response) -> Response:
    # The redirects too: nothing but the cache's own rules keeps them apart.
    response.headers["Cache-Control"] = "public, max-age=60"
    return response


def nonce_sent(seen: Seen) -> str:
    found = re.search(r"'nonce-([^']+)'", seen.headers["Content-Security-Policy"])
    assert found is not None
    return found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_visitors_get_one_nonce(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    app = app_with(tmp_path, kind)
    seen = [visit(app, "/script", base_url=HTTPS) for _ in range(4)]
    nonces = [nonce_sent(each) for each in seen]
    assert [each.text for each in seen] == [f"<script nonce='{nonce}'>f()</script>" for nonce in nonces]
    assert len(set(nonces)) == 4
    said = [line for line in lines(caplog) if "not stored" in line]
    if kind in ("cached", "gateway=True"):
        # The nonce is a hole of its pages. With gateway=True, the second page is the first that the app stores itself.
        assert [each.word for each in seen] == ["MISS", "HIT" if kind == "cached" else "MISS", "HIT", "HIT"]
        assert said == []
        return
    assert "HIT" not in [each.word for each in seen]
    assert len(said) == 1
    assert "nonce" in said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_without_a_script_of_its_own_is_a_hit(tmp_path: Path, kind: str) -> None:
    app = app_with(tmp_path, kind)
    seen = [visit(app, "/plain", base_url=HTTPS) for _ in range(3)]
    assert [each.page for each in seen] == [("MISS", PLAIN), ("HIT", PLAIN), ("HIT", PLAIN)]
    # At a view the hook of Flask-Talisman sends a new policy with each hit. A gateway repeats the one that no script uses.
    assert len({nonce_sent(each) for each in seen}) == (3 if kind == "cached" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_nonces_all_pages_are_hits(tmp_path: Path, kind: str) -> None:
    app = app_with(tmp_path, kind, content_security_policy_nonce_in=[])
    for path in ("/script", "/plain"):
        seen = [visit(app, path, base_url=HTTPS) for _ in range(2)]
        assert [each.word for each in seen] == ["MISS", "HIT"]
        assert {each.headers["Content-Security-Policy"] for each in seen} == {"script-src 'self'"}


#: Base URL, path and fields of visitors, in this order.
WALK: list[tuple[str, str, dict[str, str]]] = [
    (HTTP, "/plain", {}),
    (HTTPS, "/plain", {}),
    (HTTP, "/plain", {"X-Forwarded-Proto": "https"}),
    (HTTP, "/plain", {}),
    (HTTPS, "/plain", {"X-Forwarded-Proto": "http"}),
    (HTTP, "/plain", {"X-Forwarded-Proto": "http"}),
    (HTTP, "/plain?page=2&utm_source=EVIL", {}),
    (HTTP, "/plain?page=2&utm_source=letter", {}),
    (HTTP, "/plain?page=2", {}),
    (HTTP, "/plain", {"Host": "evil.example"}),
    (HTTP, "/plain", {}),
    (HTTP, "/embedded", {}),
    (HTTPS, "/embedded", {}),
    (HTTP, "/missing", {}),
    (HTTPS, "/missing", {}),
]
FIELDS = ("Location", "Strict-Transport-Security", "X-Frame-Options", "Referrer-Policy", "X-Content-Type-Options")


def shown(app: Flask, visitor: tuple[str, str, dict[str, str]]) -> tuple[Any, ...]:
    base, path, headers = visitor
    seen = visit(app, path, headers, base_url=base)
    return seen.status, seen.text, *(seen.headers.get(name) for name in FIELDS)


@pytest.mark.grid
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"force_https_permanent": True}, {"force_https": False}], ids=str)
def test_redirects_to_https_are_those_of_the_app_itself(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    app, plain = app_with(tmp_path, kind, **options), app_with(tmp_path, "none", **options)
    for visitor in [*WALK, *reversed(WALK), *WALK]:
        assert shown(app, visitor) == shown(plain, visitor), visitor
