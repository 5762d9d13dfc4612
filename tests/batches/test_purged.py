"""The result of a purge by name. Whether anything was purged is looked up only when the result is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_stalecache import Batch, FileStore, GatewayCache, Purged, StaleCache, Stored, StoreError
from flask_stalecache.stores.file_store import FileStore as Files
from support.client import MakeApp, visit

BOTH = {"http://localhost/news/1", "http://localhost/news/2"}


class Site:
    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app, self.cache = app, cache
        app.add_url_rule("/about", "about", lambda: "about")

        @app.get("/news/<int:number>")
        @cache.cached(60, stale_while_revalidate=600, vary=["Accept-Language"], tags=["news"])
        def article(number: int) -> str:
            return f"article {number}"

        @cache.memoize(60, tags=["rates"])
        def rates(currency: str) -> str:
            return currency

        self.rates = rates

    def fill(self, *paths: str, **headers: str) -> None:
        for path in paths or ("/news/1", "/news/2"):
            visit(self.app, path, headers)

    def purge(self, *args: Any, **options: Any) -> Any:
        with self.app.app_context():
            return self.cache.purge(*args, **options)


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    return Site(*make_app())


@pytest.mark.grid
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("selector", "urls"),
    [
        ({"url": "/news/1"}, {"http://localhost/news/1"}),
        ({"url": "http://localhost/news/2"}, {"http://localhost/news/2"}),
        ({"tag": "news"}, BOTH),
        ({"endpoint": "article"}, BOTH),
        ({"all": True}, BOTH),
        ({"url": "/news/3"}, set()),
        ({"url": "https://localhost/news/1"}, set()),
        ({"tag": "new"}, set()),
        ({"endpoint": "about"}, set()),
    ],
)
def test_a_purge_tells_what_it_has_met(site: Site, selector: dict[str, Any], urls: set[str], soft: bool) -> None:
    site.fill()
    purged = site.purge(**selector, soft=soft)
    assert type(purged) is Purged
    assert (bool(purged), set(purged.urls)) == (bool(urls), urls)


def test_what_is_gone_already_is_not_met_again(site: Site) -> None:
    site.fill()
    assert [bool(site.purge("/news/1")) for _ in range(2)] == [True, False]
    assert site.purge(tag="news").urls == ["http://localhost/news/2"]
    assert not site.purge(all=True)
    site.fill("/news/1")
    assert site.purge("/news/1")


def test_what_was_softly_purged_is_met_again(site: Site) -> None:
    site.fill("/news/1")
    assert [bool(site.purge("/news/1", soft=soft)) for soft in (True, True, False, True)] == [True, True, True, False]


def test_it_may_be_asked_later(site: Site) -> None:
    site.fill("/news/1")
    purged, mistaken = site.purge("/news/1"), site.purge("/news/9")
    site.fill("/news/1")
    assert (bool(purged), bool(mistaken)) == (True, False)


def test_variants_and_calls_are_entries(site: Site) -> None:
    site.fill("/news/1", **{"Accept-Language": "de"})
    site.fill("/news/1", **{"Accept-Language": "en"})
    assert site.purge("/news/1").urls == ["http://localhost/news/1"] * 2
    with site.app.app_context():
        site.rates("EUR")
    assert [url.rpartition(".")[2] for url in site.purge(tag="rates").urls] == ["rates('EUR')"]


def test_the_purge_itself_does_not_search(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.fill()

    def walk(self: object, *args: object) -> Iterator[Stored]:
        raise AssertionError("it walks")

    monkeypatch.setattr("flask_stalecache.stores.upkeep.walk.Contents.walk", walk)
    purged = site.purge(tag="news")
    assert repr(purged) == "<Purged tag:news>"
    assert visit(site.app, "/news/1").word == "MISS"


def test_a_prefix_has_a_batch(site: Site) -> None:
    batch = site.purge(prefix="/old")
    assert isinstance(batch, Batch)
    assert batch.wait(10)
    assert batch.found == 0


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ({"url": "/news/9"}, "path:/news/9"),
        ({"tag": "a\nb"}, "tag:a\\nb"),
        ({"prefix": "/old/"}, "all that begins with path:/old/"),
    ],
)
def test_the_log_says_that_nothing_matched(
    site: Site, caplog: pytest.LogCaptureFixture, selector: dict[str, str], line: str
) -> None:
    site.fill()
    caplog.set_level(logging.DEBUG, "flask_stalecache")
    with site.app.app_context():
        site.cache.purge(**selector)  # type: ignore[arg-type]
        site.cache.purge(tag="news")
        assert site.cache.drain(10)
    said = [record.getMessage() for record in caplog.records if "purge" in record.getMessage()]
    assert said == [f"a purge of {line} has matched nothing that is stored"]


class Forgetful:
    """A store of one's own, without ``recall``."""

    def __init__(self, directory: Path) -> None:
        self._store = FileStore(directory)

    def __getattr__(self, name: str) -> Any:
        if name == "recall":
            raise AttributeError(name)
        return getattr(self._store, name)


def test_a_store_that_can_not_tell(directory: Path) -> None:
    application = GatewayCache(lambda environ, start: [], store=Forgetful(directory))  # type: ignore[arg-type]
    purged = application.purge("/news")
    assert bool(purged) is True
    with pytest.raises(StoreError, match=r"the store can't tell what a purge has met: it has no recall\(\)"):
        purged.urls  # noqa: B018


def test_a_purge_is_done_although_the_log_can_not_be_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.fill()
    caplog.set_level(logging.DEBUG, "flask_stalecache")

    def recall(self: object, *names: str) -> Any:
        def walk() -> Iterator[Stored]:
            raise StoreError("the disk is broken")
            yield

        return walk

    monkeypatch.setattr(Files, "recall", recall)
    purged = site.purge(tag="news")
    assert visit(site.app, "/news/1").word == "MISS"
    with pytest.raises(StoreError):
        bool(purged)
