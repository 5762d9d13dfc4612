"""``min_uses=``: a page is stored from the nth request on, at the view and at each gateway."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask, request

from flask_stalecache import ConfigError, GatewayCache, Policy, StaleCache
from support.client import MakeApp, visit
from support.wsgi_apps import App, ask

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "min_uses.py"


class Site(NamedTuple):
    """Pages behind one of the front ends.

    :ivar get: asks for a URL, and returns status word, body and ``Cache-Status``.
    :ivar purge: purges a URL.
    :ivar warm: warms a URL, and returns whether it was stored.
    """

    get: Callable[[str], tuple[str, str, str]]
    purge: Callable[[str], object]
    warm: Callable[[str], bool]


def flask_site(directory: Path, gateway: bool, **how: Any) -> Site:
    app = Flask("shop")
    rules = {"/*": Policy(max_age=60, jitter=0, **how)} if gateway else False
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=rules, STALECACHE_BASE_URL="http://localhost")
    cache = StaleCache(app)
    calls: list[str] = []

    def page(name: str) -> str:
        calls.append(name)
        return f"{name} {calls.count(name)}"

    app.add_url_rule("/<name>", "page", page if gateway else cache.cached(60, jitter=0, **how)(page))

    def get(url: str) -> tuple[str, str, str]:
        seen = visit(app, url)
        return seen.word, seen.text, seen.headers["Cache-Status"]

    def purge(url: str) -> None:
        with app.app_context():
            cache.purge(url)

    def warm(url: str) -> bool:
        with app.app_context():
            [outcome] = cache.warm(url)
        return outcome.stored

    return Site(get, purge, warm)


def wsgi_site(directory: Path, **how: Any) -> Site:
    calls: list[str] = []

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(name := environ["PATH_INFO"].strip("/"))
        start_response("200 OK", [])
        return [f"{name} {calls.count(name)}".encode()]

    rules = {"/*": Policy(max_age=60, jitter=0, **how)}
    gateway = GatewayCache(App(page), dir=directory, rules=rules, base_url="http://shop.example")

    def get(url: str) -> tuple[str, str, str]:
        path, _, query = url.partition("?")
        got = ask(gateway, path, QUERY_STRING=query)
        return got.word, got.body.decode(), dict(got.fields)["Cache-Status"]

    def warm(url: str) -> bool:
        [outcome] = gateway.warm(url)
        return outcome.stored

    return Site(get, gateway.purge, warm)


@pytest.fixture(params=["view", "Flask's gateway", "gateway"])
def make_site(request: pytest.FixtureRequest, directory: Path) -> Callable[..., Site]:
    if request.param == "gateway":
        return lambda **how: wsgi_site(directory, **how)
    return lambda **how: flask_site(directory, request.param != "view", **how)


def stored(directory: Path) -> int:
    return len([path for path in directory.glob("??/*") if not path.suffix])


def test_a_page_is_stored_at_its_third_request(make_site: Callable[..., Site]) -> None:
    site = make_site(min_uses=3)
    assert [site.get("/a")[:2] for _ in range(5)] == [
        ("MISS", "a 1"), ("MISS", "a 2"), ("MISS", "a 3"), ("HIT", "a 3"), ("HIT", "a 3"),
    ]  # fmt: skip
    assert site.get("/b")[2] == "stalecache; fwd=uri-miss; fwd-status=200"
    assert site.get("/a?x=1")[:2] == ("MISS", "a 4"), "another key"
    assert [site.get("/b")[2].endswith("; ttl=60; stored") for _ in range(2)] == [False, True]


def test_a_purged_page_is_stored_again_at_once_while_its_uses_count(
    make_site: Callable[..., Site], monotonic: Callable[[float], None]
) -> None:
    site = make_site(min_uses=2)
    assert [site.get("/a")[0] for _ in range(3)] == ["MISS", "MISS", "HIT"]
    site.purge("/a")
    assert [site.get("/a")[0] for _ in range(2)] == ["MISS", "HIT"]
    site.purge("/a")
    monotonic(1300)
    assert [site.get("/a")[0] for _ in range(3)] == ["MISS", "MISS", "HIT"]


def test_who_warms_does_not_ask_twice(make_site: Callable[..., Site]) -> None:
    site = make_site(min_uses=9)
    assert site.warm("/a")


def test_a_flood_of_made_up_urls_stores_nothing(make_site: Callable[..., Site], directory: Path) -> None:
    site = make_site(min_uses=2)
    for number in range(200):
        assert site.get(f"/a?{number}")[0] == "MISS"
    assert stored(directory) == 0
    assert list(directory.glob("??/*")) == [], "nor are there locks"
    assert [site.get("/a?7")[0] for _ in range(2)] == ["MISS", "HIT"]


def test_readers_keep_their_pages_beside_a_flood() -> None:
    hit_ratio = runpy.run_path(str(BENCHMARK))["hit_ratio"]
    without, least = (hit_ratio(reads=400, flood=3, min_uses=min_uses) for min_uses in (1, 2))
    assert least > without + 0.05


def test_a_failure_before_it_is_stored_is_the_visitors_own(make_app: MakeApp) -> None:
    app, cache = make_app()

    @app.get("/")
    @cache.cached(60, min_uses=2)
    def index() -> str:
        if "fail" in request.args:
            raise LookupError("no")
        return "page"

    assert [visit(app, "/?fail=1").status for _ in range(2)] == [500, 500]
    assert [visit(app).word for _ in range(3)] == ["MISS", "MISS", "HIT"]


def test_a_page_within_a_page_counts_too(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.cached(60, min_uses=2)
    def inner() -> str:
        return "inner"

    app.add_url_rule("/inner", "inner", inner)
    assert [visit(app, "/inner").word for _ in range(3)] == ["MISS", "MISS", "HIT"]


def test_the_detail_says_why(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.debug = True
    app.add_url_rule("/", "index", cache.cached(60, min_uses=2)(lambda: "page"))
    assert "not stored: it was asked for 1 of 2 times that min_uses wants" in visit(app).headers["Cache-Status"]


@pytest.mark.parametrize("value", [0, -1, 256, 1.0, "2", None, True])
def test_a_bad_value_is_refused_when_it_is_written(make_app: MakeApp, value: Any) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match=r"min_uses=.*from 1 to 255"):
        cache.cached(60, min_uses=value)
    with pytest.raises(ConfigError, match=r"min_uses=.*from 1 to 255"):
        Policy(max_age=60, min_uses=value)


def test_a_view_of_the_gateway_says_where_to_write_it(make_app: MakeApp) -> None:
    _, cache = make_app()
    cache.cached(60, gateway=True, min_uses=1)
    with pytest.raises(ConfigError, match=r"min_uses has no effect beside gateway=True.*STALECACHE_GATEWAY"):
        cache.cached(60, gateway=True, min_uses=2)


@pytest.mark.parametrize("value", [0, -1, "600", None])
def test_the_while_is_a_duration(make_app: MakeApp, value: Any) -> None:
    with pytest.raises(ConfigError, match="STALECACHE_MIN_USES_WITHIN"):
        make_app(MIN_USES_WITHIN=value)
