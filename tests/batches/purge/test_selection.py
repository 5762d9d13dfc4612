"""Purging in an app: which entries are selected, soft purges, and when and where a purge counts.

Covers ``frontends.flask_app.flask_urls`` and ``batches.operations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, make_response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import ConfigError, StaleCache
from support.client import MakeApp
from support.purge_site import INNER, OUTER, Site, make_site, windowed

ARTICLES, PRICES = ("/news/1", "/news/2"), ("/prices/eur", "/prices/usd")

POST, SECOND_PAGE = "/blog/hello", "/blog/hello?page=2"

EVERY_PAGE = (*ARTICLES, *PRICES, "/said", POST, SECOND_PAGE, "/café", "/gone", "/moved", "/keyed?lang=de", OUTER, INNER)


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
    # Runs are counted by the path of the request, so the inner page within the outer one has no run of its own.
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
    """The outer page is made again while the inner one is a hit. A purge of the inner page's tag still drops the outer page."""
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
    """The purge is done when ``purge`` returns, as a request within the request shows."""
    answer = filled.visit("/publish/news" + ("?soft=1" if soft else ""), method="POST")
    assert answer.text == ("version 1" if soft else "version 2")
    filled.settle()
    assert filled.visit("/news/1").page == ("HIT", "version 2")
    assert filled.visit("/prices/eur").page == ("HIT", "version 1")


@pytest.mark.parametrize("soft", [False, True])
def test_a_cached_view_may_purge_others_and_itself(make_app: MakeApp, soft: bool) -> None:
    """A page that purges itself was begun before its own purge: it is not stored, or after a soft purge not as fresh."""
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
    ({"endpoint": "artikel"}, "endpoint='artikel' is not an endpoint of the app; the nearest is 'article'"),
    ({"endpoint": "post"}, "the nearest is 'blog.post'"),
    ({"endpoint": "ARTICLE"}, "endpoint='ARTICLE' is not an endpoint of the app"),
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
