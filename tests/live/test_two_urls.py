"""One page, two URLs, over the wire: behind a proxy, below the server's SCRIPT_NAME, and behind middleware that sets the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.servers import serving, visits, wait_for

pytestmark = pytest.mark.server

SOURCE = """
import os

from flask import Flask, redirect, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix
from flask_stalecache import StaleCache


def reverse_proxied(app):
    def middleware(environ, start_response):
        root = environ.get("HTTP_X_SCRIPT_NAME", "")
        if root:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = root, environ["PATH_INFO"].removeprefix(root)
        return app(environ, start_response)
    return middleware


app = Flask("shop")
app.config.update(STALECACHE_DIR=os.environ["FOLDER"], STALECACHE_GATEWAY=True)
app.wsgi_app = ProxyFix(reverse_proxied(app.wsgi_app), x_proto=1, x_host=1, x_prefix=1)
cache = StaleCache(app)
runs, made = [], []


@app.get("/page/<path:name>")
def page(name):
    made.append(name)
    return f"{len(made)} {url_for('page', name=name, _external=True)}", {"Cache-Control": "max-age=600"}


@app.get("/view")
@cache.cached(max_age=0, stale_while_revalidate=600)
def view():
    runs.append(1)
    return f"{len(runs)} {url_for('view')}"


@app.post("/order")
def order():
    return redirect(url_for("page", name="caf\\u00e9", _external=True), 303)


@app.post("/purge")
def purge():
    return str(bool(cache.purge(request.args["url"])))


@app.get("/runs")
def count():
    return str(len(runs)), {"Cache-Control": "no-store"}
"""
PROXIED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Forwarded-Prefix": "/shop", "Host": "app:8000"}
#: A proxy's fields, the prefix of the path, the public root, and the root that arrives: gunicorn takes over the scheme.
WAYS = {
    "ProxyFix": (PROXIED, "", "https://shop.example/shop", "https://app:8000"),
    "SCRIPT_NAME": ({"SCRIPT_NAME": "/eu", "Host": "app:8000"}, "/eu", "http://app:8000/eu", "/eu"),
}


def test_a_page_has_both_of_its_urls(tmp_path: Path) -> None:
    with (
        serving("gthread", SOURCE, tmp_path, env={"FOLDER": tmp_path / "cache"}, workers=1) as server,
        visits(server) as visit,
    ):
        for headers, before, public, arrived in WAYS.values():
            path = f"{before}/page/caf%C3%A9"
            for url in (f"{public}/page/caf%C3%A9", f"{arrived}/page/caf%C3%A9"):
                assert [visit(path, headers).cache for _ in range(2)] == ["MISS", "HIT"]
                assert visit(f"{before}/purge?url={url}", headers, "POST").text == "True"
                assert visit(f"{before}/purge?url={url}", headers, "POST").text == "False"
            old = visit(path, headers)
            assert old.cache == "MISS"
            assert visit(f"{before}/order", headers, "POST").status == 303
            # The page is rebuilt after the redirect, so this visit may find it in the store.
            assert visit(path, headers).text != old.text
        rooted = {"X-Script-Name": "/in"}
        assert visit("/in/view", rooted).text == "1 /in/view"
        assert visit("/in/view", rooted).text == "1 /in/view"
        wait_for(lambda: visit("/runs").text == "2", what="the refresh reaches the view")
        wait_for(lambda: visit("/in/view", rooted).text.endswith("2 /in/view"), what="the page is renewed")
