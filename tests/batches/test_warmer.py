"""Warming: what is asked, what is refused before anything is, and what comes of each URL."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, Response, abort, redirect, request, session
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import Batch, ConfigError, GatewayCache, Outcome, Policy, StaleCache
from flask_stalecache.batches.sitemap import MAX_BYTES, read_sitemap
from flask_stalecache.core.model.base_url import Base, request_fields
from support.client import MakeApp, visit
from support.threads import PATIENCE, go, wait_until

HERE = "http://shop.example"
XMLNS = "http://www.sitemaps.org/schemas/sitemap/0.9"


class Site:
    """An app at a URL, with pages of many kinds.

    :ivar asked: the paths that were asked for, with their queries.
    :ivar made: the paths that a cached view has made.
    """

    def __init__(self, app: Flask, cache: StaleCache) -> None:
        self.app = app
        self.cache = cache
        self.asked: list[str] = []
        self.made: list[str] = []
        self.environs: list[dict[str, Any]] = []
        self.fails = False
        self.held = threading.Event()
        self.held.set()
        self.open = 0
        app.before_request(self._note)

    def _note(self) -> None:
        self.asked.append(request.full_path.rstrip("?"))
        self.environs.append(request.environ)

    def make(self) -> str:
        self.made.append(request.path)
        self.open += 1
        assert self.held.wait(PATIENCE)
        self.open -= 1
        if self.fails:
            raise ConnectionError("the third party is down")
        return f"{request.path} {len(self.made)}"

    def warm(self, urls: Any, **options: Any) -> Batch:
        with self.app.app_context():
            batch = self.cache.warm(urls, **options)
        assert batch.wait(PATIENCE)
        return batch

    def refused(self, urls: Any, **options: Any) -> str:
        """Return why it is refused, in one line; and check that nothing was asked for."""
        self.asked.clear()
        with self.app.app_context(), pytest.raises(ConfigError) as raised:
            self.cache.warm(urls, **options)
        assert [path for path in self.asked if ".xml" not in path] == []
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def see(self, path: str, headers: dict[str, str] | None = None, **environ: Any) -> tuple[str, str]:
        return visit(self.app, path, headers, base_url=HERE, environ=environ).page


@pytest.fixture
def site(make_app: MakeApp) -> Site:
    app, cache = make_app(BASE_URL=HERE)
    site = Site(app, cache)

    @app.get("/news/<int:number>")
    @cache.cached(60, 600, 86400, tags=["news"])
    def article(number: int) -> str:
        return site.make()

    @app.get("/caf\u00e9/<name>")
    @cache.cached(60)
    def cafe(name: str) -> str:
        return site.make()

    @app.get("/live")
    def live() -> str:
        return "live"

    return site


def by_path(batch: Batch) -> dict[str, Outcome]:
    return {outcome.url.removeprefix(HERE): outcome for outcome in batch.outcomes}


def stored(batch: Batch) -> set[str]:
    return {outcome.url.removeprefix(HERE) for outcome in batch.outcomes if outcome.stored}


def counts(batch: Batch) -> tuple[int, int, int, int]:
    return batch.found, batch.done, batch.failed, batch.skipped


# -- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "asked"),
    [
        ("/news/1", ["/news/1"]),
        ("http://shop.example/news/1", ["/news/1"]),
        ("https://SHOP.example:443/news/1#top", ["/news/1"]),
        (["/news/1", "http://shop.example/news/2"], ["/news/1", "/news/2"]),
        ({"/news/1": 1}.keys(), ["/news/1"]),
        ((f"/news/{number}" for number in (1, 2)), ["/news/1", "/news/2"]),
        (["/news/1", "/news/1", f"{HERE}/news/1"], ["/news/1"]),
        (("article", {"number": 3}), ["/news/3"]),
        ([("article", {"number": 3}), ("article", {"number": 4, "page": 2})], ["/news/3", "/news/4?page=2"]),
        (["/news/1?b=2&a=1"], ["/news/1?b=2&a=1"]),
        ("/news/1?q=a b\u00e9", ["/news/1?q=a%20b%C3%A9"]),
        ([], []),
    ],
)
def test_urls_paths_and_endpoints_are_asked_for_once(site: Site, urls: Any, asked: list[str]) -> None:
    batch = site.warm(urls, concurrency=1)
    assert site.asked == asked
    assert (batch.kind, counts(batch)) == ("warm", (len(asked), len(asked), 0, 0))
    assert [outcome[:2] + outcome[3:] for outcome in batch.outcomes] == [
        (f"{HERE}{url}", 200, True, "", False, False) for url in asked
    ]
    assert [site.see(url)[0] for url in asked] == ["HIT"] * len(asked)


@pytest.mark.parametrize("url", ["/caf\u00e9/\u00fc", "/caf%C3%A9/%C3%BC", "http://shop.example/caf\u00e9/%c3%bc"])
@pytest.mark.parametrize("raw", ["RAW_URI", "REQUEST_URI"])
def test_a_warmed_page_is_that_of_visitors_whatever_their_server_tells(site: Site, url: str, raw: str) -> None:
    site.warm(url)
    wire = "/caf%c3%a9/%c3%bc" if "%c3" in url and "\u00e9" not in url else "/caf%C3%A9/" + ("%c3%bc" if "%c3" in url else "%C3%BC")
    assert site.see("/caf\u00e9/\u00fc", **{"RAW_URI": "", raw: wire})[0] == "HIT"


@pytest.mark.parametrize("environ", [{}, {"RAW_URI": "/news/1?a=1"}, {"REQUEST_URI": "/news/1?a=1"}])
def test_a_plain_path_is_the_same_under_a_server_that_does_not_tell_it(site: Site, environ: dict[str, str]) -> None:
    site.warm("/news/1?a=1")
    assert site.see("/news/1?a=1", **{"RAW_URI": "", "REQUEST_URI": "", **environ})[0] == "HIT"


def test_it_is_a_visit_without_cookies_that_hooks_can_tell(site: Site) -> None:
    seen: list[Any] = []
    site.app.after_request_funcs.setdefault(None, []).append(
        lambda response: (
            seen.append((site.cache.refreshing, dict(request.cookies), request.remote_addr, str(request.user_agent))) or response
        )
    )
    site.warm("/news/1")
    assert seen == [(True, {}, "127.0.0.1", "flask-stalecache refresh")]


def test_a_site_below_a_path_is_asked_below_it(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL="https://shop.example:8443/eu")
    seen: list[tuple[str, str, str]] = []

    @app.get("/news/<int:number>")
    @cache.cached(60)
    def article(number: int) -> str:
        seen.append((request.script_root, request.path, request.host_url))
        return "news"

    with app.app_context():
        batch = cache.warm(["/eu/news/1", "https://shop.example:8443/eu/news/2", ("article", {"number": 3})], concurrency=1)
        assert batch.wait(PATIENCE)
        with pytest.raises(ConfigError, match=r"'/news/1' is not below https://shop\.example:8443/eu, where the app is"):
            cache.warm("/news/1")
        with pytest.raises(ConfigError, match="'/europe' is not below"):
            cache.warm("/europe")
    assert seen == [("/eu", f"/news/{number}", "https://shop.example:8443/") for number in (1, 2, 3)]
    assert batch.outcomes[0].url == "https://shop.example:8443/eu/news/1"


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({"SERVER_NAME": "shop.example"}, "http://shop.example/"),
        ({"SERVER_NAME": "shop.example", "PREFERRED_URL_SCHEME": "https"}, "https://shop.example/"),
        ({"SERVER_NAME": "shop.example:8000", "APPLICATION_ROOT": "/eu"}, "http://shop.example:8000/eu/"),
        ({"SERVER_NAME": "other.example", "STALECACHE_BASE_URL": HERE}, "http://shop.example/"),
    ],
)
def test_server_name_says_where_the_app_is_unless_a_base_does(directory: Path, config: dict[str, str], url: str) -> None:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, **config)
    cache = StaleCache(app)
    app.add_url_rule("/", "index", cache.cached(60)(lambda: request.url))
    with app.app_context():
        batch = cache.warm(("index", {}))
        assert batch.wait(PATIENCE)
    assert [outcome.url for outcome in batch.outcomes] == [url]


def test_no_host_is_ever_guessed(make_app: MakeApp) -> None:
    app, cache = make_app()
    told: list[str] = []

    @app.get("/")
    def index() -> str:
        with pytest.raises(ConfigError) as raised:
            cache.warm("/")
        told.append(str(raised.value))
        return ""

    visit(app, "/", base_url="http://evil.example")
    assert told == ["warm() needs to know where the app is: set STALECACHE_BASE_URL = 'https://shop.example', or SERVER_NAME"]
    with pytest.raises(ConfigError, match="needs to know the app"):
        cache.warm("/")


def test_endpoints_have_the_urls_that_the_app_gives_them(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)
    hooks: list[str] = []
    shop = Blueprint("shop", __name__, url_prefix="/<lang>")
    shop.add_url_rule("/", "index", cache.cached(60)(lambda lang: lang))
    shop.url_defaults(lambda endpoint, values: values.setdefault("lang", "de"))
    app.register_blueprint(shop)
    app.teardown_request(lambda error: hooks.append("torn down"))
    app.url_build_error_handlers.append(lambda error, endpoint, values: "/built-by-a-handler")
    with app.app_context():
        batch = cache.warm([("shop.index", {}), ("shop.index", {"lang": "en"})], concurrency=1)
        assert batch.wait(PATIENCE)
        assert [outcome.url for outcome in batch.outcomes] == [f"{HERE}/de/", f"{HERE}/en/"]
        assert len(hooks) == 2
        batch = cache.warm(("shop.none", {}))
        assert batch.wait(PATIENCE)
        assert [outcome.url for outcome in batch.outcomes] == [f"{HERE}/built-by-a-handler"]


def test_pages_behind_a_proxy_are_asked_for_with_what_it_adds(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    app.add_url_rule("/", "index", cache.cached(60, vary=["Accept-Language"])(lambda: request.url))
    proxied = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "www.shop.example",
        "X-Forwarded-Prefix": "/eu",
        "Accept-Language": "de",
    }
    with app.app_context():
        assert cache.warm("/", headers=proxied).wait(PATIENCE)
    assert visit(app, "/", proxied, base_url=HERE).page == ("HIT", "https://www.shop.example/eu/")
    assert visit(app, "/", {**proxied, "Accept-Language": "en"}, base_url=HERE).word == "MISS"


# -- what is refused before anything is asked ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (
            ["/news/1", "http://other.example/news/1"],
            "'http://other.example/news/1' is of another host than the app, which is at http",
        ),
        (["/news/1", "http://shop.example:8000/news/1"], "is of another host"),
        (["/news/1", "http://shop.example.evil/"], "is of another host"),
        (["/news/1", "http://shop.example@evil/"], "is of another host"),
        (["/news/1", "//shop.example/"], "is no URL: give a path that begins with '/'"),
        (["/news/1", "news/1"], "'news/1' is no URL"),
        (["/news/1", ""], "'' is no URL"),
        (["/news/1", "ftp://shop.example/"], "is no URL"),
        (["/news/1", "http://[shop/"], "is no URL: Invalid IPv6 URL"),
        (["/news/1", 5], "5 is no URL"),
        (["/news/1", None], "None is no URL"),
        (["/news/1", b"/news/2"], "b'/news/2' is no URL"),
        (["/news/1", ("article",)], "('article',) is no URL"),
        (["/news/1", ("article", {})], "no URL can be made of ('article', {})"),
        (["/news/1", ("articel", {"number": 1})], "no URL can be made of ('articel', {'number': 1})"),
        ("", "'' is no URL"),
        (5, "urls=5: give a URL, a sitemap, or a list"),
        (None, "urls=None: give"),
        (b"/news/1", "urls=b'/news/1': give"),
        ({"/news/1": 1}, "urls={'/news/1': 1}: give"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(site: Site, urls: Any, said: str) -> None:
    assert said in site.refused(urls)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency=0: give a whole number from 1 to 64"),
        ({"force": 1}, "force=1: give True or False"),
        ({"headers": "Accept-Language: de"}, "give a mapping"),
        ({"headers": {"Accept Language": "de"}}, "headers contain 'Accept Language': give names of request fields"),
        ({"headers": {5: "de"}}, "headers contain 5: give names"),
        ({"headers": {"Accept-Language": "de\r\nCookie: a=b"}}, "give a string in one line"),
        ({"headers": {"Accept-Language": 5}}, "headers['Accept-Language']=5: give a string in one line"),
        ({"headers": {"Cookie": "a=b"}}, "leave it out, since it is made for visitors without cookies"),
        ({"headers": {"authorization": "b"}}, "leave it out, since it is made for visitors whom nobody knows"),
        ({"headers": {"Host": "shop.example"}}, "leave it out, since that is what STALECACHE_BASE_URL says"),
        ({"headers": {"Range": "bytes=0-1"}}, "leave it out, since the whole is stored"),
        ({"headers": {"If-None-Match": "*"}}, "leave it out, since the whole is stored"),
        ({"headers": {"Connection": "close"}}, "leave it out, since it is between two hops"),
        ({"headers": {"Content-Length": "1"}}, "leave it out, since it has no body"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(site: Site, options: dict[str, Any], said: str) -> None:
    assert said in site.refused("/news/1", **options)


def test_fields_are_as_they_come_over_the_wire() -> None:
    assert request_fields({"X-Theme": "h\u00fcbsch"}) == {"HTTP_X_THEME": "h\u00fcbsch".encode().decode("latin-1")}


@pytest.mark.parametrize(
    ("base", "url", "environ"),
    [
        ("http://a", "/", ("http", "a", "80", "", "/", "", "/")),
        ("https://a/b/", "/b", ("https", "a", "443", "/b", "", "", "/b")),
        ("http://a:81/b", "http://a:81/b/c%2Fd?e", ("http", "a", "81", "/b", "/c/d", "e", "/b/c%2Fd?e")),
        ("http://[::1]", "/", ("http", "[::1]", "80", "", "/", "", "/")),
        ("http://[::1]:81", "/", ("http", "[::1]", "81", "", "/", "", "/")),
        ("http://m\u00fcller.example", "http://xn--mller-kva.example/", ("http", "xn--mller-kva.example", "80", "", "/", "", "/")),
    ],
)
def test_a_request_is_what_a_server_makes_of_a_url(base: str, url: str, environ: tuple[str, ...]) -> None:
    place = Base.of("BASE", base)
    made = place.recipe(place.address(url)).to_environ()
    names = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI")
    assert tuple(made[name] for name in names) == environ
    assert made["HTTP_HOST"] == place.host


# -- what comes of each ----------------------------------------------------------------------------------------------


def test_what_is_fresh_is_left_as_it_is_unless_forced(site: Site) -> None:
    assert site.see("/news/1") == ("MISS", "/news/1 1")
    batch = site.warm(["/news/1", "/news/2"], concurrency=1)
    assert counts(batch) == (2, 1, 0, 1)
    outcome = by_path(batch)["/news/1"]
    assert (outcome.skipped, outcome.stored, outcome.reason, outcome.status) == (True, True, "it is fresh already", 200)
    batch = site.warm(["/news/1", "/news/2"], concurrency=1, force=True)
    assert (counts(batch), stored(batch)) == ((2, 2, 0, 0), {"/news/1", "/news/2"})
    assert [site.see(f"/news/{number}") for number in (1, 2)] == [("HIT", "/news/1 3"), ("HIT", "/news/2 4")]


def test_what_is_stale_is_made_again_while_it_waits(site: Site, clock: time_machine.Traveller) -> None:
    site.see("/news/1")
    clock.shift(100)
    batch = site.warm("/news/1")
    assert (counts(batch), stored(batch)) == ((1, 1, 0, 0), {"/news/1"})
    assert site.see("/news/1") == ("HIT", "/news/1 2")


@pytest.mark.parametrize("force", [False, True])
def test_a_page_with_a_wait_is_waited_for_to_its_end(make_app: MakeApp, clock: time_machine.Traveller, force: bool) -> None:
    app, cache = make_app(BASE_URL=HERE)
    runs: list[int] = []

    @app.get("/")
    @cache.cached(60, 0, 86400, wait=0.001)
    def index() -> str:
        runs.append(1)
        threading.Event().wait(0.05)
        return f"{len(runs)}"

    visit(app, "/", base_url=HERE)
    clock.shift(100)
    with app.app_context():
        batch = cache.warm("/", force=force)
        assert batch.wait(PATIENCE)
    assert (batch.done, batch.outcomes[0].stored) == (1, True)
    assert visit(app, "/", base_url=HERE).page == ("HIT", "2")


def test_one_that_fails_keeps_what_is_stored_and_is_left_alone_for_a_while(site: Site, clock: time_machine.Traveller) -> None:
    site.see("/news/1")
    clock.shift(100)
    site.fails = True
    batch = site.warm(["/news/1", "/news/2"])
    assert {path: outcome[1:2] + outcome[3:] for path, outcome in by_path(batch).items()} == {
        "/news/1": (200, False, "ConnectionError('the third party is down')", False, True),
        "/news/2": (500, False, "ConnectionError('the third party is down')", False, True),
    }
    made = len(site.made)
    batch = site.warm("/news/1")
    assert [outcome.reason for outcome in batch.outcomes] == [
        "it has failed a short while ago, and is left alone until it may be tried again"
    ]
    assert (counts(batch), len(site.made)) == ((1, 0, 0, 1), made)
    batch = site.warm("/news/1", force=True)
    assert (counts(batch), len(site.made)) == ((1, 0, 1, 0), made + 1)
    site.fails = False
    clock.shift(100)
    assert stored(site.warm("/news/1")) == {"/news/1"}


def test_an_app_that_raises_is_a_failure_of_that_url_alone(site: Site) -> None:
    site.app.config["PROPAGATE_EXCEPTIONS"] = True

    @site.app.errorhandler(404)
    def fail(error: Exception) -> str:
        raise SystemExit(3)

    batch = site.warm(["/none", "/news/1"], concurrency=1)
    assert by_path(batch)["/none"][3:] == (False, "SystemExit(3)", False, True)
    assert stored(batch) == {"/news/1"}
    site.fails = True
    batch = site.warm("/news/2")
    assert (batch.failed, batch.outcomes[0].reason) == (1, "ConnectionError('the third party is down')")


def test_each_tells_why_it_is_not_stored(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)

    def cached(path: str, view: Callable[[], Any], **options: Any) -> None:
        app.add_url_rule(path, path, cache.cached(60, **options)(view))

    app.add_url_rule("/live", "live", lambda: "live")
    cached("/private", lambda: Response("", headers={"Cache-Control": "private"}))
    cached("/moved", lambda: redirect("/private"))
    cached("/forever", lambda: redirect("/private", 301))
    cached("/gone", lambda: abort(404))
    cached("/listed", lambda: abort(404), statuses={404: 60})
    cached("/agent", lambda: str(request.user_agent))
    cached("/session", lambda: session.setdefault("name", "x"))
    cached("/unless", lambda: "", unless=lambda: True)
    cached("/keyed", lambda: "keyed", key=lambda: request.path)
    cached("/said", lambda: cache.no_store() or "said")
    cached("/language", lambda: request.headers.get("Accept-Language", ""))
    cached("/filtered", lambda: "", response_filter=lambda response: False)
    paths = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"]
    with app.app_context():
        batch = cache.warm([*paths, "/none"], headers={"Accept-Language": "de"})
        assert batch.wait(PATIENCE)
    assert (batch.found, batch.failed, batch.not_stored) == (len(paths) + 1, 0, len(paths) + 1 - 3)
    assert stored(batch) == {"/forever", "/listed", "/keyed"}
    told = {path: (outcome.status, outcome.reason) for path, outcome in by_path(batch).items() if not outcome.stored}
    assert told == {
        "/live": (200, "nothing caches it"),
        "/none": (404, "nothing caches it"),
        "/private": (200, "Cache-Control: private"),
        "/moved": (302, "status 302 is not listed in statuses"),
        "/gone": (404, told["/gone"][1]),
        "/agent": (200, f"it was made for this visitor: the field user-agent was read by {__name__}"),
        "/session": (200, told["/session"][1]),
        "/unless": (200, "unless said so"),
        "/said": (200, "the view said no_store()"),
        "/language": (200, f"it was made for this visitor: the field accept-language was read by {__name__}"),
        "/filtered": (200, "response_filter said so"),
    }
    assert all(told.values())


def test_a_page_within_a_page_has_no_part_in_what_is_told(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE)
    inner = cache.cached(60)(lambda: "inner")
    app.add_url_rule("/inner", "inner", inner)
    app.add_url_rule(
        "/outer", "outer", cache.cached(60)(lambda: Response(inner().get_data(), headers={"Cache-Control": "private"}))
    )
    with app.app_context():
        batch = cache.warm("/outer")
        assert batch.wait(PATIENCE)
    assert [(outcome.stored, outcome.reason) for outcome in batch.outcomes] == [(False, "Cache-Control: private")]


def test_values_that_are_stale_are_renewed_for_the_page(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(BASE_URL=HERE)
    runs: list[str] = []

    @cache.memoize(60, 600)
    def rates(base: str) -> str:
        runs.append(base)
        return f"{len(runs)}"

    app.add_url_rule("/", "index", cache.cached(60)(lambda: rates("EUR")))
    with app.app_context():
        rates("EUR")
        clock.shift(100)
        assert cache.warm("/").wait(PATIENCE)
    assert visit(app, "/", base_url=HERE).page == ("HIT", "2")


def test_visitors_who_come_meanwhile_wait_for_the_same_call(site: Site) -> None:
    site.held.clear()
    with site.app.app_context():
        batch = site.cache.warm("/news/1")
    wait_until(lambda: site.open == 1, "it is made")
    visitor = go(site.see, "/news/1")
    again = go(site.warm, "/news/1")
    wait_until(lambda: len(site.asked) == 3, "they come")
    site.held.set()
    assert visitor.result(PATIENCE) == ("MISS", "/news/1 1")
    assert again.result(PATIENCE).outcomes[0].stored
    assert batch.wait(PATIENCE)
    assert site.made == ["/news/1"]


def test_a_page_that_hangs_is_given_up_and_the_others_are_made(make_app: MakeApp, monotonic: Callable[[float], None]) -> None:
    app, cache = make_app(BASE_URL=HERE, REFRESH_DEADLINE=100)
    held = threading.Event()
    app.add_url_rule("/hangs", "hangs", cache.cached(60)(lambda: f"{held.wait(PATIENCE)}"))
    app.add_url_rule("/", "index", cache.cached(60)(lambda: "index"))
    with app.app_context():
        batch = cache.warm(["/hangs", "/"], concurrency=1)
    assert not batch.wait(0.05)
    monotonic(101)
    app.extensions["stalecache"].engine.tick()
    assert batch.wait(PATIENCE)
    assert counts(batch) == (2, 1, 1, 0)
    assert by_path(batch)["/hangs"].reason == "it took longer than STALECACHE_REFRESH_DEADLINE"
    held.set()


def test_once_cancelled_nothing_more_is_asked(site: Site) -> None:
    site.held.clear()
    with site.app.app_context():
        batch = site.cache.warm([f"/news/{number}" for number in range(5)], concurrency=2)
    wait_until(lambda: site.open == 2, "two are made")
    batch.cancel()
    site.held.set()
    assert batch.wait(PATIENCE)
    assert (batch.found, batch.done, len(site.asked)) == (5, 2, 2)


def test_a_stream_is_not_read_for_ever(site: Site) -> None:
    closed: list[str] = []

    def endless(text: str) -> Iterator[str]:
        try:
            while True:
                yield text
        finally:
            closed.append(text[:1])

    site.app.add_url_rule("/events", "events", lambda: Response(endless("x"), content_type="text/event-stream"))
    site.app.add_url_rule("/large", "large", lambda: Response(endless("y" * 100_000)))
    batch = site.warm(["/events", "/large"])
    assert (batch.done, batch.not_stored, sorted(closed)) == (2, 2, ["x", "y"])


def test_with_caching_off_nothing_is_asked(directory: Path) -> None:
    app = Flask("shop")
    app.config.update(STALECACHE_DIR=directory, STALECACHE_ENABLED=False, STALECACHE_BASE_URL=HERE)
    cache, asked = StaleCache(app), []
    app.add_url_rule("/", "index", lambda: asked.append(1) or "")
    with app.app_context():
        batch = cache.warm("/")
        assert batch.wait(PATIENCE)
    assert (counts(batch), asked) == ((0, 0, 0, 0), [])


def test_in_a_request_without_threads_it_is_no_part_of_what_is_made_there(make_app: MakeApp) -> None:
    app, cache = make_app(BASE_URL=HERE, REFRESH_WORKERS=0)
    app.add_url_rule("/tagged", "tagged", cache.cached(60, tags=["inner"])(lambda: cache.max_age(1) or "tagged"))

    @app.get("/")
    @cache.cached(60)
    def index() -> str:
        return f"{cache.warm('/tagged').done} {request.path}"

    assert visit(app, "/", base_url=HERE).page == ("MISS", "1 /")
    entry = next(each.entry for each in app.extensions["stalecache"].engine.store.walk() if "path:/" in each.entry.names)
    assert "tag:inner" not in entry.names
    assert entry.windows.max_age > 50


# -- at the gateway --------------------------------------------------------------------------------------------------


def test_what_the_gateway_stores_is_warmed_and_hits_of_the_short_way_count_as_fresh(make_app: MakeApp) -> None:
    app, cache = make_app(
        BASE_URL=HERE, GATEWAY={"/plain/*": Policy(max_age=60), "/live/*": Policy(max_age=60, unless=lambda e: True)}
    )
    runs: list[str] = []

    @app.get("/<kind>/<int:number>")
    def page(kind: str, number: int) -> Any:
        runs.append(request.path)
        if kind == "stream":
            return Response((f"{piece}" for piece in range(3)), headers={"Cache-Control": "max-age=60"})
        return f"{len(runs)}"

    app.add_url_rule("/cached", "cached", cache.cached(60)(lambda: "cached"))

    def warm(*paths: str, **options: Any) -> Batch:
        with app.app_context():
            batch = cache.warm(paths, **options)
            assert batch.wait(PATIENCE)
        return batch

    batch = warm("/plain/1", "/stream/1", "/unruled/1", "/live/1", "/cached")
    assert stored(batch) == {"/plain/1", "/stream/1", "/cached"}
    told = by_path(batch)
    assert told["/live/1"].reason == "unless said so"
    assert told["/unruled/1"].reason
    assert batch.failed == 0
    for _ in range(2):
        assert visit(app, "/plain/1", base_url=HERE).word == "HIT"
    assert visit(app, "/cached", base_url=HERE).word == "HIT"
    runs.clear()
    assert (warm("/plain/1", "/stream/1", "/cached").skipped, runs) == (3, [])
    batch = warm("/plain/1", "/stream/1", force=True)
    assert (stored(batch), sorted(runs)) == ({"/plain/1", "/stream/1"}, ["/plain/1", "/stream/1"])


def test_what_the_gateway_stores_is_made_of_values_renewed_for_it(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = make_app(BASE_URL=HERE, GATEWAY={"/": Policy(max_age=60)})
    runs: list[str] = []

    @cache.memoize(60, 600)
    def rates(base: str) -> str:
        runs.append(base)
        return f"{len(runs)}"

    app.add_url_rule("/", "index", lambda: rates("EUR"))
    with app.app_context():
        rates("EUR")
        clock.shift(100)
        assert cache.warm("/").wait(PATIENCE)
    assert visit(app, "/", base_url=HERE).page == ("HIT", "2")


def test_a_gateway_alone_is_warmed_too(directory: Path) -> None:
    asked: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["SCRIPT_NAME"] + environ["PATH_INFO"])
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")])
        return [environ.get("HTTP_ACCEPT_LANGUAGE", "").encode()]

    gateway = GatewayCache(app, dir=str(directory), base_url="http://shop.example/eu")
    batch = gateway.warm(["/eu/a", "http://shop.example/eu/b"], headers={"Accept-Language": "de"})
    assert batch.wait(PATIENCE)
    assert (counts(batch), sorted(asked)) == ((2, 2, 0, 0), ["/eu/a", "/eu/b"])
    assert all(outcome.stored for outcome in batch.outcomes)
    with pytest.raises(ConfigError, match="the app has no endpoints"):
        gateway.warm(("index", {}))
    with pytest.raises(ConfigError, match="another host"):
        gateway.warm("http://other.example/")
    with pytest.raises(ConfigError, match="give GatewayCache base_url="):
        GatewayCache(app, dir=str(directory)).warm("/")
    with pytest.raises(ConfigError, match="BASE_URL"):
        GatewayCache(app, dir=str(directory), base_url="shop.example")


# -- sitemaps --------------------------------------------------------------------------------------------------------


def sitemap(*urls: str, root: str = "urlset", item: str = "url") -> bytes:
    listed = "".join(f"<{item}><loc> {url} </loc><lastmod>2026-11-24</lastmod></{item}>" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{XMLNS}">{listed}</{root}>'.encode()


def index(*urls: str) -> bytes:
    return sitemap(*urls, root="sitemapindex", item="sitemap")


@pytest.fixture
def serve(site: Site) -> dict[str, bytes]:
    """What the app has as sitemaps, by their paths."""
    files: dict[str, bytes] = {}

    @site.app.get("/sitemaps/<name>")
    def give(name: str) -> Response:
        return Response(files[name], content_type="application/xml") if name in files else abort(404)

    return files


NEWS = {"/news/1", "/news/2"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", [str, Path], ids=["text", "path"])
def test_a_sitemap_file_is_followed(site: Site, tmp_path: Path, pack: Callable[[bytes], bytes], kind: type) -> None:
    path = tmp_path / ("sitemap.xml.gz" if pack is gzip.compress else "sitemap.xml")
    path.write_bytes(pack(sitemap(f"{HERE}/news/1", "https://shop.example/news/2")))
    assert stored(site.warm(kind(path))) == NEWS


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("start", ["", HERE])
def test_a_sitemap_of_the_app_is_followed(site: Site, serve: dict[str, bytes], pack: Callable[[bytes], bytes], start: str) -> None:
    serve["all.xml"] = index(f"{HERE}/sitemaps/news.xml.gz", f"{HERE}/sitemaps/all.xml", f"{HERE}/sitemaps/empty.xml")
    serve["news.xml.gz"] = pack(sitemap(f"{HERE}/news/1", f"{HERE}/news/2", f"{HERE}/news/1"))
    serve["empty.xml"] = sitemap()
    batch = site.warm(f"{start}/sitemaps/all.xml")
    assert (stored(batch), batch.found) == (NEWS, 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no element found"),
        (b"<html><body>404</body></html>", "its root is html, and not urlset or sitemapindex"),
        (b"/news/1\n/news/2\n", "not well-formed"),
        (b'{"urls": []}', "not well-formed"),
        (sitemap(f"{HERE}/news/1")[:-5], "unclosed token"),
        (b'<!DOCTYPE urlset [<!ENTITY a "aaaa">]>' + sitemap(f"{HERE}/&a;").partition(b"?>")[2], "it has a DOCTYPE"),
        (b'<!DOCTYPE urlset SYSTEM "http://evil.example/x"><urlset/>', "it has a DOCTYPE"),
        (b"<urlset><url><loc>&b;</loc></url></urlset>", "undefined entity"),
        (gzip.compress(sitemap(f"{HERE}/news/1"))[:-12], "it is cut"),
        (gzip.compress(b"", mtime=0)[:12] + b"\xff\xff", ""),
        (b"\x1f\x8b but not packed", "compression method"),
    ],
)
def test_what_is_no_sitemap_is_said_in_one_line(
    site: Site, tmp_path: Path, serve: dict[str, bytes], data: bytes, said: str
) -> None:
    path = tmp_path / "sitemap.xml"
    path.write_bytes(data)
    told = site.refused(str(path))
    assert told.startswith(f"{path} is no sitemap: ")
    assert said in told
    serve["bad.xml"] = data
    serve["all.xml"] = index(f"{HERE}/sitemaps/bad.xml")
    assert f"{HERE}/sitemaps/bad.xml is no sitemap: " in site.refused("/sitemaps/all.xml")


def test_what_a_sitemap_lists_is_checked_before_anything_is_asked(site: Site, tmp_path: Path, serve: dict[str, bytes]) -> None:
    path = tmp_path / "sitemap.xml"
    for url, said in [("http://other.example/", "of another host"), ("mailto:me@shop.example", "is no URL")]:
        path.write_bytes(sitemap(f"{HERE}/news/1", url))
        assert said in site.refused(path)
        path.write_bytes(index(url))
        assert said in site.refused(path)
    assert "there is no such file" in site.refused("missing.xml")
    assert site.refused(Path("/missing/sitemap.xml")).endswith("can't be had: '404 NOT FOUND'")
    assert f"the sitemap {HERE}/sitemaps/none.xml can't be had: '404 NOT FOUND'" in site.refused("/sitemaps/none.xml")


def test_sitemaps_are_followed_so_deep_and_no_deeper(site: Site, serve: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        serve[f"{number}.xml"] = index(f"{HERE}/sitemaps/{number + 1}.xml")
    assert "lists more sitemaps than are followed: 1000, 3 deep" in site.refused("/sitemaps/0.xml")
    assert len([path for path in site.asked if path.endswith(".xml")]) == 3
    serve["3.xml"] = sitemap(f"{HERE}/news/1")
    assert stored(site.warm("/sitemaps/1.xml")) == {"/news/1"}
    monkeypatch.setattr("flask_stalecache.batches.warmer.MAX_SITEMAPS", 2)
    assert "lists more sitemaps than are followed" in site.refused("/sitemaps/1.xml")
    monkeypatch.setattr("flask_stalecache.batches.warmer.MAX_URLS", 1)
    serve["2.xml"] = sitemap(f"{HERE}/news/1", f"{HERE}/news/2")
    assert "lists more than 1 URLs: warm its parts" in site.refused("/sitemaps/2.xml")


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(ConfigError, match=r"^bomb is no sitemap: it has more than 52428800 bytes$"):
        read_sitemap(gzip.compress(bytes(MAX_BYTES + 1)), "bomb")


def test_only_the_pages_of_a_sitemap_are_read_from_it() -> None:
    data = f"""
    <urlset xmlns="{XMLNS}" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
      <url><loc>/a&amp;b</loc><image:image><image:loc>/image.png</image:loc></image:image></url>
      <url><loc><![CDATA[/c]]></loc></url><url><loc/></url><url/>
    </urlset>"""
    assert read_sitemap(data.strip().encode(), "it").urls == ["/a&b", "/c"]
    assert read_sitemap(data.strip().encode("utf-16"), "it").urls == ["/a&b", "/c"]
