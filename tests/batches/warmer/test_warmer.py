"""Warming: which requests are made, which are refused beforehand, and the gateway.

Covers ``batches.warm_request`` and ``core.addressing.base_url``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import Batch, ConfigError, GatewayCache, Policy, StaleCache
from flask_stalecache.core.addressing.base_url import Base, environ_fields
from support.client import MakeApp, visit
from support.threads import PATIENCE
from support.warm_site import HERE, Site, by_path, counts, stored

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
    assert seen == [(True, {}, "192.0.2.1", "flask-stalecache refresh")]


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
    assert told == [
        "warm() needs to know where the app is: set STALECACHE_BASE_URL = 'https://shop.example', or SERVER_NAME, or give full URLs"
    ]
    with pytest.raises(ConfigError, match="needs to know the app"):
        cache.warm("/")


def test_without_a_base_url_each_full_url_tells_its_own(make_app: MakeApp, tmp_path: Path) -> None:
    app, cache = make_app()
    seen: list[str] = []

    @app.get("/news")
    @cache.cached(60)
    def news() -> str:
        seen.append(request.url)
        return "news"

    def sitemap(*urls: str) -> str:
        listed = "".join(f"<url><loc>{url}</loc></url>" for url in urls)
        return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{listed}</urlset>'

    app.add_url_rule("/sitemap.xml", "sitemap", lambda: sitemap("https://a.example/news"))
    app.add_url_rule("/foreign.xml", "foreign", lambda: sitemap("https://b.example/news"))
    file = tmp_path / "sitemap.xml"
    file.write_text(sitemap("http://c.example:8000/news"))
    with app.app_context():
        for urls in ("https://a.example/sitemap.xml", file, ["http://d.example/news", "https://d.example:443/news"]):
            assert cache.warm(urls).wait(PATIENCE)
        assert sorted(seen) == [
            "http://c.example:8000/news", "http://d.example/news", "https://a.example/news", "https://d.example/news",
        ]  # fmt: skip
        with pytest.raises(ConfigError, match="another host"):
            cache.warm("https://a.example/foreign.xml")
        refused: list[Any] = ["/news", "//d.example/news", "http://user@d.example/", "ftp://d.example/", ("news", {}), 5]
        for item in refused:
            with pytest.raises(ConfigError, match="needs to know where the app is"):
                cache.warm([item])


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
    assert environ_fields({"X-Theme": "h\u00fcbsch"}) == {"HTTP_X_THEME": "h\u00fcbsch".encode().decode("latin-1")}


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
    alone = GatewayCache(app, dir=str(directory)).warm("http://shop.example/c")
    assert alone.wait(PATIENCE)
    assert (counts(alone), alone.not_stored) == ((1, 1, 0, 0), 0)
    with pytest.raises(ConfigError, match="BASE_URL"):
        GatewayCache(app, dir=str(directory), base_url="shop.example")
