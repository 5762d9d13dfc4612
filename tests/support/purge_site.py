"""Helpers of the tests of purging in an app."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, make_response, redirect, request

from flask_stalecache import StaleCache
from flask_stalecache.engine.engine import Engine
from flask_stalecache.stores.base import Copy
from flask_stalecache.stores.file_store import FileStore
from support.client import MakeApp, Seen, settle, visit


@dataclass
class Site:
    """An app whose pages say which version of the content they were made of.

    :ivar version: the content's version now.
    :ivar runs: how often each path was made.
    :ivar loads: the keys that were read from files.
    :ivar found: what each lookup in memory returned.
    """

    app: Flask
    cache: StaleCache
    version: int = 1
    runs: Counter[str] = field(default_factory=Counter)
    loads: list[str] = field(default_factory=list)
    found: list[Copy | None] = field(default_factory=list)

    def page(self) -> str:
        self.runs[request.full_path.rstrip("?")] += 1
        return f"version {self.version}"

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.extensions["stalecache"].engine
        return engine

    @property
    def store(self) -> FileStore:
        assert isinstance(self.engine.store, FileStore)
        return self.engine.store

    def publish(self, *args: Any, **kwargs: Any) -> None:
        """Change the content, and purge."""
        self.version += 1
        with self.app.app_context():
            self.cache.purge(*args, **kwargs)

    def visit(self, path: str, **options: Any) -> Seen:
        return visit(self.app, path, **options)

    def words(self, paths: list[str] | tuple[str, ...]) -> dict[str, str]:
        return {path: self.visit(path).word for path in paths}

    def settle(self) -> None:
        settle(self.app, self.cache)

    def observe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note from now on what is read, and what is found in memory."""
        load, lookup = self.store.load, self.store.lookup

        def noting_load(key: str) -> Copy:
            self.loads.append(key)
            return load(key)

        def noting_lookup(key: str) -> Copy | None:
            copy = lookup(key)
            self.found.append(copy)
            return copy

        monkeypatch.setattr(self.store, "load", noting_load)
        monkeypatch.setattr(self.store, "lookup", noting_lookup)


OUTER, INNER = "/outer", "/inner"


def make_site(directory: Path) -> Site:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, STALECACHE_IGNORED_PARAMETERS=["utm_*"])
    cache = StaleCache(app)
    site = Site(app, cache)

    @app.get("/news/<int:number>")
    @cache.cached(60, 600, 86400, tags=("news", "everything"))
    def article(number: int) -> str:
        return site.page()

    @app.get("/prices/<base>")
    @cache.cached(60, 600, 86400, tags=lambda base: [f"price-{base}", "prices"])
    def prices(base: str) -> str:
        return site.page()

    @app.get("/said")
    @cache.cached(60, 600, 86400, tags=["prices"])
    def said() -> str:
        cache.tag("news", "said by the view")
        return site.page()

    blog = Blueprint("blog", __name__, url_prefix="/blog")

    @blog.get("/<slug>")
    @cache.cached(60, 600, 86400)
    def post(slug: str) -> str:
        return site.page()

    app.register_blueprint(blog)

    @app.get("/café", endpoint="café")
    @cache.cached(60, 600, 86400)
    def cafe() -> str:
        return site.page()

    @app.get("/gone")
    @cache.cached(60, 600, 86400, statuses={404: 60}, tags=["errors"])
    def gone() -> str:
        abort(404, site.page())

    @app.get("/moved")
    @cache.cached(60, 600, 86400, tags=["moves"])
    def moved() -> Any:
        return redirect(f"/to?{site.page()}", 301)

    @app.get("/keyed")
    @cache.cached(60, 600, 86400, key=lambda: request.args.get("lang", "en"), tags=["keyed"])
    def keyed() -> str:
        return site.page()

    @app.get(INNER)
    @cache.cached(60, 600, 86400, tags=["inner"])
    def inner() -> str:
        return site.page()

    @app.get(OUTER)
    @cache.cached(60, 600, 86400, tags=["outer"])
    def outer() -> str:
        return f"outer {site.page()}, inner {make_response(inner()).get_data(as_text=True)}"

    @app.post("/publish/<tag>")
    def publish(tag: str) -> str:
        site.version += 1
        cache.purge(tag=tag, soft="soft" in request.args)
        return site.visit("/news/1").text

    return site


def windowed(make_app: MakeApp, directives: str, *windows: float, **settings: Any) -> tuple[Site, list[Exception]]:
    """Return a site with one page of these directives and windows, and a list: the page raises its first exception, if any."""
    app, cache = make_app(**settings)
    site, raises = Site(app, cache), []

    @app.get("/")
    @cache.cached(*windows, jitter=0, tags=["page"])
    def show() -> Response:
        text = site.page()
        if raises:
            raise raises[0]
        return Response(text, headers={"Cache-Control": directives} if directives else None)

    return site, raises
