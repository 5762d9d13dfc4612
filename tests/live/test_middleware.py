"""Middleware between the gateway and a Flask app, over the wire: each visitor sees what the app without a cache shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from support.servers import serving

pytestmark = pytest.mark.server

SOURCE = """
import os
from http.cookies import SimpleCookie

from flask import Flask, request, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from flask_stalecache import StaleCache


def login(app):
    def middleware(environ, start_response):
        cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        if "sso" in cookies:
            environ["REMOTE_USER"] = cookies["sso"].value
        return app(environ, start_response)
    return middleware


def reverse_proxied(app):
    def middleware(environ, start_response):
        if "HTTP_X_SCRIPT_NAME" in environ:
            environ["SCRIPT_NAME"] = environ["HTTP_X_SCRIPT_NAME"]
        if "HTTP_X_SCHEME" in environ:
            environ["wsgi.url_scheme"] = environ["HTTP_X_SCHEME"]
        if "HTTP_X_HTTP_METHOD_OVERRIDE" in environ:
            environ["REQUEST_METHOD"] = environ["HTTP_X_HTTP_METHOD_OVERRIDE"]
        return app(environ, start_response)
    return middleware


def make(enabled):
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=os.environ["FOLDER"], STALECACHE_GATEWAY=True, STALECACHE_ENABLED=enabled)
    app.wsgi_app = login(reverse_proxied(ProxyFix(app.wsgi_app, x_proto=1, x_prefix=1)))
    StaleCache(app)

    @app.route("/", methods=["GET", "POST"])
    def page():
        link = url_for("page", _external=True)
        return f"{request.method} {request.environ.get('REMOTE_USER') or 'stranger'} {link}", {"Cache-Control": "max-age=600"}

    return app


cached, plain = make(True), make(False)


def app(environ, start_response):
    return (plain if environ.pop("HTTP_X_PLAIN", "") else cached)(environ, start_response)
"""
NOBODY: Mapping[str, str] = {}
ALICE, BOB = {"Cookie": "sso=alice"}, {"Cookie": "sso=bob"}
EVIL = {"X-Script-Name": "//evil.example"}
SECURE = {"X-Scheme": "https"}
POST = {"X-HTTP-Method-Override": "POST"}
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/pre"}
WALKS = [
    [NOBODY, ALICE, BOB, EVIL, SECURE, POST, NOBODY],
    [POST, EVIL, BOB, SECURE, ALICE, NOBODY, {**PROXIED, **ALICE}, PROXIED, PROXIED, {**PROXIED, **EVIL}],
]


@pytest.mark.parametrize("kind", ["gthread", "granian"])
def test_nobody_sees_anothers_page(tmp_path: Path, kind: str) -> None:
    with serving(kind, SOURCE, tmp_path, env={"FOLDER": tmp_path / "cache"}, workers=1) as server:
        for number, walk in enumerate(WALKS):
            path = f"/?walk={number}"
            for headers in walk:
                seen, expected = server.get(path, headers), server.get(path, {**headers, "X-Plain": "1"})
                assert (seen.status, seen.text) == (expected.status, expected.text), dict(headers)
            assert server.get(path).headers["X-Cache-Status"] == "HIT"
        assert server.get("/?walk=1", PROXIED).headers["X-Cache-Status"] == "HIT"
