"""Helpers of the tests of batches."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, make_response, request

from flask_stalecache import Batch, Outcome, StaleCache
from flask_stalecache.engine.engine import Engine
from support.client import visit
from support.threads import PATIENCE


@dataclass
class Site:
    """An app whose pages say which version of the content they were made from.

    :ivar runs: how often each path was made.
    :ivar held: while it is not set, pages that are being made wait.
    :ivar fails: whether pages can't be made.
    """

    app: Flask
    cache: StaleCache
    version: int = 1
    runs: Counter[str] = field(default_factory=Counter)
    held: threading.Event = field(default_factory=threading.Event)
    fails: bool = False
    open: int = 0
    most_open: int = 0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def make(self, what: str) -> str:
        with self._mutex:
            self.runs[what] += 1
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        version = self.version
        assert self.held.wait(PATIENCE)
        with self._mutex:
            self.open -= 1
        if self.fails:
            raise ConnectionError("the third party is down")
        return f"version {version}"

    def do(self, what: str, **given: Any) -> Batch:
        """Begin a batch."""
        with self.app.app_context():
            batch: Batch | None = getattr(self.cache, what)(**given)
        assert batch is not None
        return batch

    def done(self, what: str, **given: Any) -> Batch:
        """Begin a batch, and wait until it is over."""
        batch = self.do(what, **given)
        assert batch.wait(PATIENCE)
        return batch

    @property
    def engine(self) -> Engine:
        engine: Engine = self.app.extensions["stalecache"].engine
        return engine

    def fill(self, *paths: str) -> None:
        for path in paths:
            assert visit(self.app, path).word in ("MISS", "HIT")
        self.runs.clear()

    def pages(self, *paths: str) -> list[tuple[str, str]]:
        return [visit(self.app, path).page for path in paths]


def make_site(app: Flask, cache: StaleCache) -> Site:
    site = Site(app, cache)
    site.held.set()

    @app.get("/news/<int:number>")
    @cache.cached(60, 600, 86400, tags=["news"])
    def article(number: int) -> str:
        return site.make(request.path)

    @app.get("/about")
    @cache.cached(60, 600, 86400)
    def about() -> str:
        return site.make(request.path)

    @cache.memoize(60, 600, 86400, tags=["rates"])
    def rates(base: str) -> str:
        return site.make(f"rates of {base}")

    @app.get("/rates/<base>")
    @cache.cached(60, 600, 86400)
    def rates_page(base: str) -> str:
        return rates(base)

    @app.get("/keyed")
    @cache.cached(60, 600, 86400, key=lambda: request.args.get("lang", "en"), tags=["news"])
    def keyed() -> str:
        return site.make(request.path)

    @app.get("/inner")
    @cache.cached(60, 600, 86400, tags=["inner"])
    def inner() -> str:
        return site.make("inner")

    @app.get("/outer")
    @cache.cached(60, 600, 86400)
    def outer() -> str:
        return f"outer {site.make('outer')} {make_response(inner()).get_data(as_text=True)}"

    return site


def counts(batch: Batch) -> tuple[int, int, int, int]:
    return batch.found, batch.done, batch.failed, batch.skipped


def by_url(batch: Batch) -> dict[str, Outcome]:
    return {outcome.url.removeprefix("http://localhost"): outcome for outcome in batch.outcomes}


NEWS = ("/news/1", "/news/2")
