"""Purging in an app: what is selected, what stays, what wins, a disk that fails, and clocks that step."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, Response, abort, make_response, redirect, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import CacheStatus, ConfigError, StaleCache, StoreError
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.engine.engine import Engine
from flask_stalecache.engine.origin import Answer, Start
from flask_stalecache.filesystem import locks
from flask_stalecache.stores.base import Copy
from flask_stalecache.stores.file_store import FileStore
from support.client import MakeApp, Seen, settle, visit
from support.engine import FakeOrigin, body_of, failed, make_engine, make_entry, storable
from support.threads import PATIENCE, crowd, go, results, wait_until

HOUR = 3600


@dataclass
class Site:
    """An app whose pages say which version of the content they were made of.

    :ivar version: the content's version now.
    :ivar runs: how often each path was made.
    :ivar loads: the keys that were read from files.
    :ivar found: the copies that hits were answered from.
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


ARTICLES, PRICES = ("/news/1", "/news/2"), ("/prices/eur", "/prices/usd")
POST, SECOND_PAGE = "/blog/hello", "/blog/hello?page=2"
OUTER, INNER = "/outer", "/inner"
EVERY_PAGE = (*ARTICLES, *PRICES, "/said", POST, SECOND_PAGE, "/café", "/gone", "/moved", "/keyed?lang=de", OUTER, INNER)


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


@pytest.fixture
def site(directory: Path) -> Site:
    return make_site(directory)


@pytest.fixture(scope="module")
def one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = make_site(tmp_path_factory.mktemp("site") / "cache")
    with pytest.MonkeyPatch.context() as patch:
        site.observe(patch)
        yield site


@pytest.fixture
def full(one_site: Site) -> Site:
    """A site that tests share, with every page stored and in memory."""
    for path in EVERY_PAGE:
        while one_site.visit(path).word != "HIT":
            one_site.settle()
    one_site.loads.clear()
    one_site.runs.clear()
    return one_site


@pytest.fixture
def filled(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site with every page stored and in memory."""
    for word in ("MISS", "HIT"):
        assert site.words(EVERY_PAGE) == dict.fromkeys(EVERY_PAGE, word)
    site.observe(monkeypatch)
    return site


# -- what is selected ------------------------------------------------------------------------------------------------

SELECTORS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a path": ({"url": "/news/1"}, ("/news/1",)),
    "a full URL": ({"url": "http://localhost/news/2"}, ("/news/2",)),
    "its default port": ({"url": "http://LOCALHOST:80/news/2#top"}, ("/news/2",)),
    "a path without its query": ({"url": "/blog/hello"}, (POST,)),
    "a path with its query": ({"url": "/blog/hello?page=2"}, (SECOND_PAGE,)),
    "an ignored parameter": ({"url": "/blog/hello?utm_source=letter&page=2"}, (SECOND_PAGE,)),
    "a path as it is read": ({"url": "/café"}, ("/café",)),
    "a path as it is sent": ({"url": "/caf%C3%A9"}, ("/café",)),
    "an error page": ({"url": "/gone"}, ("/gone",)),
    "a redirect": ({"url": "/moved"}, ("/moved",)),
    "a page with a key": ({"url": "/keyed?lang=de"}, ("/keyed?lang=de",)),
    "another host": ({"url": "http://other.example/news/1"}, ()),
    "another scheme": ({"url": "https://localhost/news/1"}, ()),
    "another path": ({"url": "/news/1/"}, ()),
    "the start of a path": ({"url": "/news"}, ()),
    "a tag": ({"tag": "everything"}, ARTICLES),
    "a tag of two views": ({"tag": "news"}, (*ARTICLES, "/said")),
    "a tag that a callable gave": ({"tag": "price-eur"}, ("/prices/eur",)),
    "a tag of a callable and of a view": ({"tag": "prices"}, (*PRICES, "/said")),
    "a tag that the view said": ({"tag": "said by the view"}, ("/said",)),
    "a tag of a page with a key": ({"tag": "keyed"}, ("/keyed?lang=de",)),
    "a tag of an error page": ({"tag": "errors"}, ("/gone",)),
    "a tag of a redirect": ({"tag": "moves"}, ("/moved",)),
    "a tag of a part": ({"tag": "inner"}, (INNER, OUTER)),
    "a tag of the whole": ({"tag": "outer"}, (OUTER,)),
    "a tag that nothing has": ({"tag": "new"}, ()),
    "a tag that looks like a path": ({"tag": "/news/1"}, ()),
    "an endpoint": ({"endpoint": "article"}, ARTICLES),
    "an endpoint of a blueprint": ({"endpoint": "blog.post"}, (POST, SECOND_PAGE)),
    "an endpoint that is not ASCII": ({"endpoint": "café"}, ("/café",)),
    "an endpoint that is not cached": ({"endpoint": "publish"}, ()),
    "all": ({"all": True}, EVERY_PAGE),
}


@pytest.mark.parametrize(("selector", "selected"), SELECTORS.values(), ids=SELECTORS)
def test_a_hard_purge_drops_what_is_selected_and_nothing_else(
    full: Site, selector: dict[str, Any], selected: tuple[str, ...]
) -> None:
    before = {path: (full.visit(path), full.found[-1]) for path in EVERY_PAGE}
    full.publish(**selector)
    for path in EVERY_PAGE:
        if path not in selected:
            assert (full.visit(path).word, full.found[-1]) == ("HIT", before[path][1]), path
    assert full.loads == []
    for path in selected:
        seen = full.visit(path)
        assert seen.word == "MISS", path
        assert seen.body != before[path][0].body
    assert full.words(EVERY_PAGE) == dict.fromkeys(EVERY_PAGE, "HIT")
    # The part of a page is a page of its own, and was made within it if at all.
    assert set(full.runs) == set(selected)


@pytest.mark.parametrize(("selector", "selected"), SELECTORS.values(), ids=SELECTORS)
def test_a_soft_purge_renews_what_is_selected_behind_its_visitors(
    full: Site, selector: dict[str, Any], selected: tuple[str, ...]
) -> None:
    before = {path: full.visit(path).body for path in EVERY_PAGE}
    full.publish(**selector, soft=True)
    for path in EVERY_PAGE:
        seen = full.visit(path)
        assert (seen.word, seen.body) == ("STALE" if path in selected else "HIT", before[path]), path
        assert int(seen.headers["Age"]) >= 0
    full.settle()
    for path in EVERY_PAGE:
        seen = full.visit(path)
        assert seen.word == "HIT", path
        assert (seen.body == before[path]) == (path not in selected), path


@pytest.mark.parametrize("soft", [False, True])
def test_a_path_acts_on_all_hosts_and_a_full_url_on_its_own(site: Site, soft: bool) -> None:
    hosts = ("http://shop.example", "https://shop.example", "http://xn--mnchen-3ya.example:8080")

    def words() -> list[str]:
        return [site.visit("/news/1", base_url=host).word for host in hosts]

    assert (words(), words()) == (["MISS"] * 3, ["HIT"] * 3)
    gone = "STALE" if soft else "MISS"
    site.publish("https://Shop.example:443/news/1", soft=soft)
    assert words() == ["HIT", gone, "HIT"]
    site.settle()
    site.publish("http://münchen.example:8080/news/1", soft=soft)
    assert words() == ["HIT", "HIT", gone]
    site.settle()
    site.publish("/news/1", soft=soft)
    assert words() == [gone] * 3
    site.settle()
    assert words() == ["HIT"] * 3


@pytest.mark.parametrize("soft", [False, True])
def test_a_page_behind_a_proxy_is_purged_by_its_url_outside(site: Site, soft: bool) -> None:
    site.app.wsgi_app = ProxyFix(site.app.wsgi_app, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example", "X-Forwarded-Prefix": "/shop"}
    for url in ("https://shop.example/shop/news/1", "/shop/news/1"):
        site.visit("/news/1", headers=headers)
        assert site.visit("/news/1", headers=headers).word == "HIT"
        site.publish("/news/1", soft=soft)
        assert site.visit("/news/1", headers=headers).word == "HIT"
        site.publish(url, soft=soft)
        assert site.visit("/news/1", headers=headers).word == ("STALE" if soft else "MISS")
        site.settle()
        assert site.visit("/news/1", headers=headers).page == ("HIT", f"version {site.version}")


def test_a_page_mounted_below_a_path_is_purged_with_it(site: Site) -> None:
    below = {"base_url": "http://shop.example/shop"}
    site.visit("/news/1", **below)
    site.publish("/news/1")
    assert site.visit("/news/1", **below).word == "HIT"
    site.publish("/shop/news/1")
    assert site.visit("/news/1", **below).page == ("MISS", "version 3")


def test_a_part_from_a_copy_passes_its_tags_on(site: Site) -> None:
    """The outer page is made anew while the inner one is a hit, and goes with it all the same."""
    site.visit(OUTER)
    site.publish(tag="outer")
    assert site.visit(OUTER).page == ("MISS", "outer version 2, inner version 1")
    site.publish(tag="inner")
    assert site.visit(OUTER).page == ("MISS", "outer version 3, inner version 3")


def test_a_part_that_is_not_stored_itself_passes_its_tags_on(make_app: MakeApp) -> None:
    app, cache = make_app()
    site = Site(app, cache)

    @app.get("/part")
    @cache.cached(60, 600, 86400, tags=["part"], response_filter=lambda response: False)
    def part() -> str:
        cache.tag("said")
        return site.page()

    @app.get("/")
    @cache.cached(60, 600, 86400)
    def whole() -> str:
        return make_response(part()).get_data(as_text=True)

    for tag in ("part", "said"):
        while site.visit("/").word != "HIT":
            pass
        site.publish(tag=tag)
        assert site.visit("/").page == ("MISS", f"version {site.version}"), tag


def test_tags_are_those_of_what_is_stored_now(make_app: MakeApp) -> None:
    app, cache = make_app()
    site, tags = Site(app, cache), ["draft"]

    @app.get("/")
    @cache.cached(60, 600, 86400, tags=lambda: tags)
    def show() -> str:
        return site.page()

    site.visit("/")
    site.publish(tag="draft")
    tags[0] = "final"
    assert site.visit("/").word == "MISS"
    site.publish(tag="draft")
    assert site.visit("/").page == ("HIT", "version 2")
    site.publish(tag="final")
    assert site.visit("/").page == ("MISS", "version 4")


# -- a soft purge and the windows ------------------------------------------------------------------------------------


def windowed(make_app: MakeApp, directives: str, *windows: float, **settings: Any) -> tuple[Site, list[Exception]]:
    """Return a site with one page of these directives and windows, and a list of what it raises next."""
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


@pytest.mark.parametrize("directives", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_what_must_be_revalidated_is_fetched_after_a_soft_purge(make_app: MakeApp, directives: str) -> None:
    site, _ = windowed(make_app, directives, 60)
    site.visit("/")
    site.publish(tag="page", soft=True)
    assert site.visit("/").page == ("EXPIRED", "version 2")
    assert site.visit("/").page == ("HIT", "version 2")


def test_without_a_stale_window_it_is_fetched_after_a_soft_purge(make_app: MakeApp) -> None:
    site, _ = windowed(make_app, "", 60, 0, 0)
    site.visit("/")
    site.publish("/", soft=True)
    assert site.visit("/").page == ("EXPIRED", "version 2")


def test_what_was_softly_purged_stands_in_for_a_view_that_fails(make_app: MakeApp) -> None:
    site, raises = windowed(make_app, "", 60, 0, 600)
    site.visit("/")
    raises.append(ConnectionError("the third party is down"))
    site.publish("/", soft=True)
    assert site.visit("/").page == ("STALE", "version 1")
    raises.clear()
    site.publish("/")
    assert site.visit("/").page == ("MISS", "version 3")


def test_what_was_hard_purged_never_stands_in(make_app: MakeApp) -> None:
    site, raises = windowed(make_app, "", 60, 600, 86400)
    site.visit("/")
    raises.append(ConnectionError("the third party is down"))
    site.publish("/")
    for _ in range(3):
        assert site.visit("/").status == 500
    raises.clear()
    assert site.visit("/").page == ("MISS", "version 2")


def test_the_windows_of_what_was_softly_purged_begin_at_the_purge(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site, _ = windowed(make_app, "", 1000, 100, 100, PREFER_STALE_REFRESH=False, PREFER_STALE_HEADER="X-Prefer-Stale")
    site.visit("/")
    clock.shift(500)
    site.publish("/", soft=True)
    clock.shift(99)
    alone = {"X-Prefer-Stale": "1"}
    assert site.visit("/", headers=alone).page == ("STALE", "version 1")
    clock.shift(2)
    assert site.visit("/").page == ("EXPIRED", "version 2")


@pytest.mark.parametrize("soft", [False, True])
def test_prefer_stale_serves_what_was_softly_purged_and_nothing_that_was_hard_purged(
    make_app: MakeApp, clock: time_machine.Traveller, soft: bool
) -> None:
    site, _ = windowed(make_app, "", 60, 60, 60, PREFER_STALE=True)
    site.visit("/")
    site.publish("/", soft=soft)
    clock.shift(86400)
    assert site.visit("/").page == (("STALE", "version 1") if soft else ("MISS", "version 2"))


# -- when and where --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_before_anything_is_stored_hides_nothing_later(site: Site, soft: bool) -> None:
    site.publish(all=True, soft=soft)
    site.publish(tag="news", soft=soft)
    assert [site.visit("/news/1").word for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_may_be_done_twice(filled: Site, soft: bool) -> None:
    filled.publish(tag="news", soft=soft)
    filled.publish(tag="news", soft=soft)
    assert filled.visit("/news/1").word == ("STALE" if soft else "MISS")
    filled.settle()
    assert filled.visit("/news/1").page == ("HIT", "version 3")
    filled.publish(tag="news", soft=soft)
    filled.visit("/news/1")
    filled.settle()
    assert filled.visit("/news/1").page == ("HIT", "version 4")


def test_a_soft_purge_is_renewed_in_line_where_no_thread_runs(make_app: MakeApp) -> None:
    site, _ = windowed(make_app, "", 60, 600, 86400, REFRESH_WORKERS=0)
    site.visit("/")
    site.publish("/", soft=True)
    assert [site.visit("/").page for _ in range(2)] == [("STALE", "version 1"), ("HIT", "version 2")]


@pytest.mark.soak
def test_thousands_of_purges_leave_a_file_a_name_and_the_other_pages_alone(filled: Site, soak: Callable[[int, int], int]) -> None:
    filled.visit("/prices/eur")
    kept, times = filled.found[-1], soak(5000, 200)
    for number in range(times):
        filled.publish(tag="news", soft=bool(number % 2))
        if number % 50 == 0:
            assert filled.visit("/prices/eur").word == "HIT"
    assert (filled.visit("/prices/eur").word, filled.found[-1]) == ("HIT", kept)
    filled.visit("/news/1")
    filled.settle()
    assert filled.visit("/news/1").page == ("HIT", f"version {1 + times}")
    records = [path for path in (filled.store.directory / "names").iterdir() if len(path.name) == 40]
    assert len(records) == 1
    assert filled.app.extensions["stalecache"].counters["purges"] == times


@pytest.mark.parametrize("soft", [False, True])
def test_a_view_may_purge(filled: Site, soft: bool) -> None:
    """It is done when ``purge`` returns, as a request within the request shows."""
    answer = filled.visit("/publish/news" + ("?soft=1" if soft else ""), method="POST")
    assert answer.text == ("version 1" if soft else "version 2")
    filled.settle()
    assert filled.visit("/news/1").page == ("HIT", "version 2")
    assert filled.visit("/prices/eur").page == ("HIT", "version 1")


@pytest.mark.parametrize("soft", [False, True])
def test_a_cached_view_may_purge_others_and_itself(make_app: MakeApp, soft: bool) -> None:
    """What purges itself is from before its own purge: it is not stored, or not as fresh."""
    app, cache = make_app()
    site = Site(app, cache)

    @app.get("/<tag>")
    @cache.cached(60, 600, 86400, tags=lambda tag: [tag])
    def show(tag: str) -> str:
        if tag == "purger":
            cache.purge(tag=request.args["what"], soft=soft)
        return site.page()

    assert [site.visit("/other").word for _ in range(2)] == ["MISS", "HIT"]
    assert [site.visit("/purger?what=other").word for _ in range(2)] == ["MISS", "HIT"]
    assert site.visit("/other").word == ("STALE" if soft else "MISS")
    site.settle()
    words = []
    for _ in range(3):
        words.append(site.visit("/purger?what=purger").word)
        site.settle()
    assert words == (["MISS", "STALE", "STALE"] if soft else ["MISS"] * 3)
    assert site.visit("/other").word == "HIT"


def test_a_purge_is_of_the_store_of_its_app(tmp_path: Path) -> None:
    cache, sites = StaleCache(), []
    for name in ("one", "two"):
        app = Flask(name)
        app.config["STALECACHE_DIR"] = tmp_path / name
        cache.init_app(app)
        sites.append(Site(app, cache))

        @app.get("/")
        @cache.cached(60, 600, 86400)
        def show(site: Site = sites[-1]) -> str:
            return site.page()

    for site in sites:
        site.visit("/")
    with sites[1].app.app_context():
        sites[0].publish("/")
    assert [site.visit("/").word for site in sites] == ["MISS", "HIT"]


# -- what is refused -------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "nothing was given"),
    ({"soft": True}, "nothing was given"),
    ({"url": "/news/1", "tag": "news"}, "url and tag was given"),
    ({"tag": "news", "endpoint": "article"}, "tag and endpoint was given"),
    ({"tag": "news", "all": True}, "tag and all was given"),
    ({"url": "/news/1", "tag": "news", "endpoint": "article", "all": True}, "url and tag and endpoint and all was given"),
    ({"all": False}, "nothing was given"),
    ({"all": 1}, "all=1"),
    ({"all": None}, "all=None"),
    ({"url": ""}, "url=''"),
    ({"url": "news/1"}, "url='news/1': give a path that begins with '/'"),
    ({"url": "ftp://localhost/news/1"}, "ftp"),
    ({"url": "http://localhost:port/news/1"}, "port"),
    ({"url": 1}, "url=1"),
    ({"tag": ""}, "tag=''"),
    ({"tag": ["news"]}, r"tag=\['news'\]"),
    ({"tag": b"news"}, "tag=b'news'"),
    ({"endpoint": ""}, "endpoint=''"),
    ({"endpoint": "artikel"}, "endpoint='artikel' is none of the app's; the nearest is 'article'"),
    ({"endpoint": "post"}, "the nearest is 'blog.post'"),
    ({"endpoint": "ARTICLE"}, "endpoint='ARTICLE' is none of the app's"),
    ({"tag": "news", "soft": 1}, "soft=1: give True or False"),
    ({"tag": "news", "soft": None}, "soft=None: give True or False"),
    ({"tag": "news", "soft": "yes"}, "soft='yes': give True or False"),
]


@pytest.mark.parametrize(("selectors", "said"), REFUSED)
def test_a_purge_without_one_good_selector_is_refused_before_anything_is_purged(
    full: Site, selectors: dict[str, Any], said: str
) -> None:
    counters = full.app.extensions["stalecache"].counters
    before = full.store.seq(), counters["purges"]
    with pytest.raises(ConfigError, match=said):
        full.publish(**selectors)
    assert (full.store.seq(), counters["purges"]) == before
    assert full.words(EVERY_PAGE) == dict.fromkeys(EVERY_PAGE, "HIT")
    assert full.loads == []


def test_a_purge_needs_to_know_the_app(site: Site) -> None:
    with pytest.raises(ConfigError, match="app_context"):
        site.cache.purge(tag="news")
    other = Flask("other")
    with other.app_context(), pytest.raises(ConfigError, match="init_app"):
        site.cache.purge(tag="news")


def test_a_purge_by_an_unknown_parameter_is_an_error(site: Site) -> None:
    with site.app.app_context(), pytest.raises(TypeError, match="tags"):
        site.cache.purge(tags=["news"])  # type: ignore[call-arg]


# -- a disk that fails -----------------------------------------------------------------------------------------------


def failing_from(monkeypatch: pytest.MonkeyPatch, directory: Path, step: int, number: int) -> list[str]:
    """Let everything that changes the directory fail from its ``step``-th call on; return the list of what failed."""
    calls, failures = [0], []

    def is_ours(target: Any) -> bool:
        name = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
        return name.startswith(str(directory))

    def failing(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            reads = name == "open" and not args[0] & (os.O_WRONLY | os.O_RDWR)
            if reads or not is_ours(target):
                return real(target, *args, **kwargs)
            calls[0] += 1
            if calls[0] >= step:
                failures.append(name)
                raise OSError(number, os.strerror(number))
            return real(target, *args, **kwargs)

        return call

    for name in ("open", "write", "utime", "fchmod", "rename", "mkdir"):
        monkeypatch.setattr(os, name, failing(name))
    return failures


@pytest.mark.parametrize(
    ("number", "soft", "first"),
    [(errno.ENOSPC, False, False), (errno.ENOSPC, True, True), (errno.EROFS, False, True), (errno.EIO, True, False)],
)
def test_a_purge_that_cannot_be_written_is_an_error_and_can_be_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, soft: bool, first: bool
) -> None:
    """At whichever step the disk fails: the caller is told, no page becomes an error, and once it is mended all is well."""
    paths, statuses = ("/news/1", "/said", "/prices/eur"), (200,) * 3

    def see() -> tuple[int, ...]:
        return tuple(site.visit(path).status for path in paths)

    if not first:
        site.publish(tag="news")
        site.publish(tag="another")
    step, failed_at = 0, set()
    while True:
        step += 1
        see()
        site.settle()
        assert site.words(paths) == dict.fromkeys(paths, "HIT")
        with monkeypatch.context() as patch:
            failures = failing_from(patch, site.store.directory, step, number)
            try:
                site.publish(tag="news", soft=soft)
            except StoreError:
                failed_at.add(failures[0])
            else:
                assert not failures
                break
            assert see() == statuses
        assert see() == statuses
        site.publish(tag="news", soft=soft)
        word = "STALE" if soft else "MISS"
        assert site.words(paths) == {"/news/1": word, "/said": word, "/prices/eur": "HIT"}
        site.settle()
        assert site.visit("/news/1").page == ("HIT", f"version {site.version}")
    assert failed_at >= {"open", "write", "rename"}
    assert not list((site.store.directory / "names").glob("*.tmp"))


def make_file(path: Path) -> None:
    path.write_bytes(b"")


def make_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("obstacle", [make_file, make_link_to_nothing])
def test_where_no_names_can_be_kept_a_purge_is_an_error_and_the_pages_go_on(site: Site, obstacle: Callable[[Path], None]) -> None:
    for word in ("MISS", "HIT"):
        assert site.visit("/news/1").word == word
    names = site.store.directory / "names"
    if names.exists():
        names.rename(site.store.directory / "set-aside")
    obstacle(names)
    for _ in range(2):
        with pytest.raises(StoreError):
            site.publish(tag="news")
        assert site.visit("/news/1").status == 200
        assert site.visit("/prices/eur").status == 200
    names.unlink()
    site.publish(tag="news")
    assert [site.visit("/news/1").page for _ in range(2)] == [
        ("MISS", f"version {site.version}"),
        ("HIT", f"version {site.version}"),
    ]


def test_a_purge_does_not_wait_for_ever_for_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped in the middle of a purge holds its lock."""
    for word in ("MISS", "HIT"):
        assert site.visit("/news/1").word == word
    monkeypatch.setattr(locks, "PATIENCE", 0.02)
    lock = site.store._cache_directory.lock("purge")
    assert lock.acquire()
    with pytest.raises(StoreError, match="held"):
        site.publish(tag="news")
    assert site.visit("/news/1").word == "HIT"
    lock.release()
    site.publish(tag="news")
    assert site.visit("/news/1").page == ("MISS", "version 3")


# -- a purge wins over what is under way -----------------------------------------------------------------------------

NAMES = ("all", "tag:news")


@dataclass
class Race:
    """An origin of a content that changes, held in its call until a test lets it go.

    :ivar version: the content's version now.
    """

    engine: Engine
    version: int = 1
    go_on: threading.Event = field(default_factory=threading.Event)
    hold: bool = True
    runs: int = 0
    windows: tuple[float, float, float] = (60, 600, 86400)
    origin: FakeOrigin = field(init=False)

    def __post_init__(self) -> None:
        self.origin = FakeOrigin(self.make, renewal=self.make)

    def make(self, start: Start) -> Answer:
        # The content is read first: what comes later is what makes it old.
        version, self.runs = self.version, self.runs + 1
        if self.hold:
            assert self.go_on.wait(PATIENCE)
        return storable(start, f"version {version}".encode(), names=NAMES, windows=self.windows)

    def visit(self) -> tuple[CacheStatus, bytes]:
        served = self.engine.serve(self.origin)
        if served.refresh:
            self.engine.submit(self.origin.refresh())
        return served.status, bytes(body_of(served))  # type: ignore[arg-type]

    def publish(self, soft: bool) -> None:
        self.version += 1
        self.engine.store.purge("tag:news", soft=soft)

    def queue(self, count: int) -> list[Any]:
        """Let some visitors come, and wait until they have looked at what is stored and have to wait."""
        before = len(self.origin.asked)
        waiting = crowd(count, self.visit)
        wait_until(lambda: len(self.origin.asked) == before + count, "that all wait")
        return waiting


@pytest.fixture
def race(directory: Path) -> Iterator[Race]:
    race = Race(make_engine(directory))
    yield race
    race.go_on.set()
    assert race.engine.drain(PATIENCE)


OLD, NEW = b"version 1", b"version 2"


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_a_first_fill_that_began_before_it(race: Race, soft: bool) -> None:
    """Who waited for it gets what one new run makes, or after a soft purge the old content as stale: never as fresh."""
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the first call")
    waiters = race.queue(3)
    race.publish(soft)
    late = race.queue(3)
    race.hold = False
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.MISS, OLD)
    answers = results(waiters) + results(late)
    if soft:
        assert {answer for answer in answers if answer[1] == OLD} <= {(CacheStatus.STALE, OLD), (CacheStatus.UPDATING, OLD)}
    else:
        assert {body for _, body in answers} == {NEW}
    assert race.engine.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_a_refresh_that_began_before_it(race: Race, soft: bool) -> None:
    race.engine.store.write(make_entry(body=OLD, windows=(0, 600, 600), names=NAMES))
    assert race.visit() == (CacheStatus.STALE, OLD)
    wait_until(lambda: race.runs == 1, "the refresh")
    race.publish(soft)
    if soft:
        assert race.visit() == (CacheStatus.UPDATING, OLD)
        late: list[Any] = []
    else:
        late = race.queue(3)
    race.hold = False
    race.go_on.set()
    assert {body for _, body in results(late)} <= {NEW}
    assert race.engine.drain(PATIENCE)
    if soft:
        # The refresh brought content from before the purge: it is kept as stale, and renewed once more.
        assert race.visit() == (CacheStatus.STALE, OLD)
        assert race.engine.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_wins_over_the_renewal_of_an_expired_page(race: Race, soft: bool) -> None:
    race.engine.store.write(make_entry(body=b"version 0", windows=(0, 0, 600), names=NAMES))
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    waiters = race.queue(3)
    race.publish(soft)
    race.hold = False
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.EXPIRED, OLD)
    for status, body in results(waiters):
        assert body == NEW or (soft and status in (CacheStatus.STALE, CacheStatus.UPDATING))
    assert race.engine.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_of_others_does_not_disturb_a_fill(race: Race, soft: bool) -> None:
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    waiters = race.queue(3)
    race.engine.store.purge("tag:sport", soft=soft)
    race.go_on.set()
    assert leader.result(PATIENCE) == (CacheStatus.MISS, OLD)
    assert results(waiters) == [(CacheStatus.MISS, OLD)] * 3
    assert race.visit() == (CacheStatus.HIT, OLD)
    assert race.runs == 1


def test_a_failed_renewal_serves_nothing_that_was_purged_meanwhile(race: Race) -> None:
    """Neither to who called, nor to who waited: the copy that they met may not stand in any more."""
    race.engine.store.write(make_entry(body=OLD, windows=(0, 0, 600), names=NAMES))

    def fail(start: Start) -> Answer:
        race.runs += 1
        assert race.go_on.wait(PATIENCE)
        return failed()

    race.origin.script = fail
    visitors = [go(lambda: race.engine.serve(race.origin))]
    wait_until(lambda: race.runs == 1, "the call")
    visitors += crowd(2, lambda: race.engine.serve(race.origin))
    wait_until(lambda: len(race.origin.asked) == 3, "that all wait")
    race.publish(soft=False)
    race.go_on.set()
    for served in results(visitors):
        assert served.copy is None
        assert served.answer is not None
        assert served.answer.error is not None


def test_a_wait_that_is_over_serves_nothing_that_was_purged_meanwhile(race: Race) -> None:
    race.engine.store.write(make_entry(body=OLD, windows=(0, 0, 600), names=NAMES))
    race.origin.patience = 0.05
    leader = go(race.visit)
    wait_until(lambda: race.runs == 1, "the call")
    race.publish(soft=False)
    race.hold = False
    assert race.visit() == (CacheStatus.MISS, NEW)
    race.go_on.set()
    leader.result(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, NEW)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("written", [True, False])
def test_who_comes_after_a_purge_is_not_given_what_a_flight_brought_before_it(
    race: Race, monkeypatch: pytest.MonkeyPatch, written: bool, soft: bool
) -> None:
    """It has landed, or could not be written, and has not ended: the purge comes, and then visitors who find the flight."""
    race.hold, race.windows = False, (60, 0, 0)
    land, write, late = race.engine.answer_writer.write_flight, race.engine.store.write, []

    def come() -> None:
        if not late:
            race.publish(soft)
            late.extend(race.queue(3))

    def land_and_wait(*args: Any) -> bool:
        stored = land(*args)
        come()
        return stored

    def fail_to_write(entry: Entry) -> bool:
        if late:
            return write(entry)
        come()
        raise StoreError("no room")

    if written:
        monkeypatch.setattr(race.engine.answer_writer, "write_flight", land_and_wait)
    else:
        monkeypatch.setattr(race.engine.store, "write", fail_to_write)
    assert race.visit() == (CacheStatus.MISS, OLD)
    assert {body for _, body in results(late)} == {NEW}
    assert race.visit() == (CacheStatus.HIT, NEW)
    assert race.runs == 2


@pytest.mark.soak
@pytest.mark.parametrize("soft", [False, True])
def test_threads_never_see_what_was_purged_before_they_came(directory: Path, soft: bool, soak: Callable[[int, int], int]) -> None:
    """Visitors and a publisher at full speed on one page; every answer is at least as new as the last purge that was done."""
    race, rounds, over = Race(make_engine(directory), hold=False), soak(500, 8), threading.Event()
    done = [0]

    def publish() -> None:
        try:
            for _ in range(rounds):
                race.version += 1
                version = race.version
                race.engine.store.purge("tag:news", soft=soft)
                done[0] = version
        finally:
            over.set()

    def look() -> int:
        visits = 0
        while not over.is_set():
            least = done[0]
            status, body = race.visit()
            visits += 1
            assert int(body.split()[1]) >= least or (soft and status in (CacheStatus.STALE, CacheStatus.UPDATING))
        return visits

    visitors = crowd(2, look)
    go(publish).result(10 * PATIENCE)
    assert all(visits > 0 for visits in results(visitors))
    assert race.engine.drain(PATIENCE)
    for _ in range(2):
        race.visit()
        assert race.engine.drain(PATIENCE)
    assert race.visit() == (CacheStatus.HIT, f"version {race.version}".encode())


# -- clocks that step ------------------------------------------------------------------------------------------------

STEPS = [shifts for shifts in product((0, -HOUR, HOUR), repeat=3) if any(shifts)]
#: Seconds after which whatever was stored at any of the clock's times has passed all its windows.
ALL_OVER = 60 + 600 + 86400 + 6 * HOUR


def batch(site: Site, count: int = 6) -> tuple[list[Seen], int]:
    """Let visitors come one after the other; return what they saw, and how often the page was made for them."""
    before, seen = site.runs["/"], []
    for _ in range(count):
        seen.append(site.visit("/"))
        assert int(seen[-1].headers.get("Age", "0")) >= 0
        site.settle()
    return seen, site.runs["/"] - before


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("first", "second", "third"), STEPS)
def test_a_purge_does_not_depend_on_the_clock(
    make_app: MakeApp, clock: time_machine.Traveller, first: float, second: float, third: float, soft: bool
) -> None:
    """Stepped between fill, purge and visits in every way: nothing old as fresh, no storm, and everything ends."""
    site, _ = windowed(make_app, "", 60, 600, 86400)
    site.visit("/")
    clock.shift(first)
    site.publish(tag="page", soft=soft)
    clock.shift(second)
    seen, runs = batch(site)
    old = [page.word for page in seen if page.text == "version 1"]
    assert set(old) <= ({"STALE", "UPDATING"} if soft else set())
    assert runs == 1
    assert seen[-1].page == ("HIT", "version 2")
    clock.shift(third)
    seen, runs = batch(site)
    assert {page.text for page in seen} == {"version 2"}
    assert runs <= 1
    clock.shift(ALL_OVER)
    site.version = 3
    seen, runs = batch(site)
    assert {page.text for page in seen} == {"version 3"}
    assert runs == 1


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("before", [0, -HOUR, HOUR])
@pytest.mark.parametrize("within", [-HOUR, HOUR])
def test_a_purge_during_a_fill_does_not_depend_on_the_clock(
    make_app: MakeApp, clock: time_machine.Traveller, before: float, within: float, soft: bool
) -> None:
    """The clock steps while the page is made, with the purge before or after it."""
    app, cache = make_app()
    site, deeds = Site(app, cache), []

    @app.get("/")
    @cache.cached(60, 600, 86400, jitter=0)
    def show() -> str:
        text = site.page()
        for deed in deeds:
            deed()
        deeds.clear()
        return text

    site.visit("/")
    clock.shift(before)
    for order in (1, -1):
        site.publish("/")
        old = f"version {site.version}"
        deeds += [lambda: clock.shift(within), lambda: site.publish("/", soft=soft)][::order]
        assert site.visit("/").page == ("MISS", old)
        seen, runs = batch(site)
        assert {page.word for page in seen if page.text == old} <= ({"STALE", "UPDATING"} if soft else set())
        assert runs == 1
        assert seen[-1].page == ("HIT", f"version {site.version}")
        clock.shift(-within)


@pytest.mark.parametrize("windows", [(60, 600, 86400), (60, 0, 0)])
@pytest.mark.parametrize(("before", "within"), [(-HOUR, HOUR), (-HOUR, HOUR - 1), (-10, 20), (-10, 5), (HOUR, -2 * HOUR)])
def test_what_is_begun_after_a_soft_purge_replaces_what_is_from_before(
    make_app: MakeApp, clock: time_machine.Traveller, windows: tuple[float, ...], before: float, within: float
) -> None:
    """Its number says so, whatever the clock says of which was begun first."""
    app, cache = make_app()
    site, steps = Site(app, cache), []

    @app.get("/")
    @cache.cached(*windows, jitter=0)
    def show() -> str:
        while steps:
            clock.shift(steps.pop())
        return site.page()

    site.visit("/")
    clock.shift(before)
    site.publish("/", soft=True)
    steps.append(within)
    seen, runs = batch(site)
    assert runs == 1
    assert seen[-1].page == ("HIT", "version 2")


def test_numbers_grow_although_the_clock_steps_back(directory: Path, clock: time_machine.Traveller) -> None:
    store, numbers = FileStore(directory), [0]
    for shift in (0, -HOUR, 0, 3 * HOUR, -6 * HOUR, -86400 * 365, 1):
        clock.shift(shift)
        store.purge("tag:news", soft=False)
        numbers.append(store.seq())
        store = FileStore(directory)
        assert store.load("page").entry is None
        assert store.seq() == numbers[-1]
    assert sorted(set(numbers)) == numbers
