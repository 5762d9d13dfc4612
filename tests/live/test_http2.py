"""GET requests with a body over HTTP/2, which granian hands over without Content-Length and Transfer-Encoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.http2 import get
from support.servers import serving

pytestmark = pytest.mark.server

SOURCE = """
import os
from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from flask_stalecache import GatewayCache, StaleCache


def make(kind):
    app = Flask(kind)
    app.config.update(STALECACHE_DIR=os.environ["FOLDER"] + kind, STALECACHE_GATEWAY=kind == "gateway")

    def page():
        return f"<{request.get_data(as_text=True)}>", {"Cache-Control": "public, max-age=600"}

    if kind == "any":
        app.wsgi_app = GatewayCache(app.wsgi_app, dir=os.environ["FOLDER"] + kind)
    else:
        cache = StaleCache(app)
        if kind == "view":
            page = cache.cached(600)(page)
    app.add_url_rule("/", "page", page)
    return app


app = DispatcherMiddleware(make("root"), {f"/{kind}": make(kind) for kind in ("view", "gateway", "any")})
"""


def test_a_body_over_http2_fills_no_page(tmp_path: Path) -> None:
    with serving("granian", SOURCE, tmp_path, env={"FOLDER": tmp_path / "cache-"}, workers=1) as server:
        for kind in ("view", "gateway", "any"):
            path = f"/{kind}/"
            assert [get(server.port, path, b"EVIL" * 1000) for _ in range(2)] == [b"<%s>" % (b"EVIL" * 1000)] * 2
            assert get(server.port, path) == b"<>"
            assert [server.get(path).text, get(server.port, path, b"EVIL")] == ["<>", b"<>"]
