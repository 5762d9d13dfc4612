"""``url_for`` in fetch functions and fragments: no caller gets the URLs of another host, mount or blueprint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import time_machine
from flask import Blueprint, Flask, render_template_string, request, url_for
from markupsafe import Markup
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import StaleCache, StaleCacheError
from flask_stalecache.frontends.memoize.places import CallerPlace
from support.servers import PATIENCE

MakeApp = Callable[..., tuple[Flask, StaleCache]]
WINDOWS: dict[str, Any] = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}
HOSTS = ("http://a.example", "https://a.example", "http://b.example", "http://a.example/shop", "http://a.example:8080")


class Site:
    """An app with a function that makes links: memoized as ``link``, undecorated as ``plain``."""

    def __init__(self, made: tuple[Flask, StaleCache], link: Callable[[], str], **more: Any) -> None:
        self.app, self.cache = made
        self.calls: list[str] = []
        self.app.add_url_rule("/here", "here", lambda: "")
        self.app.add_url_rule("/sub", "sub", lambda: "", subdomain="api")

        def counted() -> Any:
            made = link()
            self.calls.append(made)
            return made

        self.plain = link
        self.link: Any = self.cache.memoize(**{**WINDOWS, **more})(counted)

    def at(self, base_url: str, path: str = "/here") -> AbstractContextManager[Any]:
        return self.app.test_request_context(path, base_url=base_url)

    def made(self, base_url: str) -> tuple[str, str]:
        """Return the memoized link and that of the undecorated function."""
        with self.at(base_url):
            return self.link(), self.plain()

    def stored(self) -> int:
        """Return how many entries there are, the index of the hosts included."""
        usage = self.app.extensions["stalecache"].engine.store.usage()
        return int(usage.entries)


def relative() -> str:
    return Markup(url_for("here"))


def full() -> str:
    return url_for("here", _external=True)


@pytest.mark.parametrize(
    ("link", "calls"),
    [
        (relative, 2),  # One for each mount.
        (full, 5),
        (lambda: url_for("here", _scheme="https"), 5),
        (lambda: url_for("sub"), 5),
        (lambda: render_template_string("{{ url_for('here', _anchor='x') }}"), 2),
        (lambda: render_template_string("{{ url_for('here', _external=True) }}"), 5),
        (lambda: "nothing", 1),
    ],
    ids=["relative", "full", "scheme", "subdomain", "template", "full in a template", "none"],
)
def test_links_are_those_of_the_caller(make_app: MakeApp, link: Callable[[], str], calls: int) -> None:
    site = Site(make_app(), link)
    for _ in range(2):
        for base_url in HOSTS:
            memoized, plain = site.made(base_url)
            assert memoized == plain
    assert len(site.calls) == calls


def test_links_behind_a_proxy(make_app: MakeApp) -> None:
    app, _ = made = make_app()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    site = Site(made, full)
    app.add_url_rule("/page", "page", lambda: site.link())
    fields = [{"X-Forwarded-Proto": "https"}, {}, {"X-Forwarded-Host": "b.example"}, {"X-Forwarded-Prefix": "/in"}]
    expected = ["https://localhost/here", "http://localhost/here", "http://b.example/here", "http://localhost/in/here"]
    for _ in range(2):
        assert [app.test_client().get("/page", headers=each).text for each in fields] == expected
    assert len(site.calls) == 4


@pytest.mark.parametrize("matching", ["subdomain_matching", "host_matching"])
def test_relative_links_where_rules_depend_on_the_host(make_app: MakeApp, matching: str) -> None:
    app, _ = made = make_app()
    if matching == "subdomain_matching":
        app.subdomain_matching = True
        app.config["SERVER_NAME"] = "example.test"
        app.add_url_rule("/s", "there", lambda: "", subdomain="api")
    else:
        app.url_map.host_matching = True
        app.add_url_rule("/s", "there", lambda: "", host="api.example.test")
    site = Site(made, lambda: url_for("there"))
    for _ in range(2):
        for host in ("http://api.example.test", "http://example.test", "https://example.test"):
            with app.test_request_context("/s", base_url=host):
                assert site.link() == site.plain()
    assert {"/s", "http://api.example.test/s", "https://api.example.test/s"} == set(site.calls)


def test_each_host_is_renewed_behind(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    site = Site(make_app(), full)
    hosts = ("http://a.example", "https://b.example/shop")
    for base_url in hosts:
        site.made(base_url)
    clock.shift(61)
    for base_url in (*hosts, *hosts):
        memoized, plain = site.made(base_url)
        assert memoized == plain
    assert site.cache.drain(PATIENCE)
    assert sorted(site.calls) == sorted(2 * [f"{host}/here" for host in hosts])
    clock.shift(61)
    # From the stored data alone, as another process would refresh the values.
    with site.app.app_context():
        assert site.link.refresh()
        assert site.cache.drain(PATIENCE)
    assert (len(site.calls), len(set(site.calls))) == (6, 2)


def test_values_of_all_hosts_are_purged(make_app: MakeApp) -> None:
    site = Site(make_app(), full)
    for base_url in HOSTS[:3]:
        site.made(base_url)
    with site.at(HOSTS[2]):
        assert site.link.peek() == "http://b.example/here"
        site.link.purge()
        assert site.link.peek() is None
    for base_url in HOSTS[:3]:
        assert site.made(base_url)[0] == f"{base_url}/here"
    assert len(site.calls) == 6


# -- without a request -------------------------------------------------------------------------------------------------


def test_without_a_request_the_host_is_asked_for(make_app: MakeApp) -> None:
    site = Site(make_app(), relative)
    with site.app.app_context():
        with pytest.raises(StaleCacheError, match=r"counted\(\) uses url_for.*STALECACHE_BASE_URL"):
            site.link()
        # The context stays as it was.
        with pytest.raises(RuntimeError, match="SERVER_NAME"):
            url_for("here")
    assert [site.made(base_url) for base_url in HOSTS[2:4]] == [("/here", "/here"), ("/shop/here", "/shop/here")]


@pytest.mark.parametrize(
    ("setting", "value", "outside"),
    [
        ("STALECACHE_BASE_URL", "https://shop.example/in", "https://shop.example/in/here"),
        ("SERVER_NAME", "shop.example", "http://shop.example/here"),
    ],
)
@pytest.mark.parametrize("first", ["command", "visitor"])
def test_a_command_and_a_visitor(make_app: MakeApp, setting: str, value: str, outside: str, first: str) -> None:
    app, cache = make_app(**({"BASE_URL": value} if setting.startswith("STALECACHE") else {}))
    app.config["SERVER_NAME"] = value if setting == "SERVER_NAME" else None
    site = Site((app, cache), relative)

    def command() -> None:
        with app.app_context():
            assert site.link() == outside

    def visitor() -> None:
        with site.at("http://evil.example"):
            assert site.link() == ("/in/here" if setting.startswith("STALECACHE") else "/here")

    steps = [command, visitor] if first == "command" else [visitor, command]
    for step in [*steps, *steps]:
        step()
    assert len(site.calls) == 2


def test_the_base_url_stands_for_all_hosts(make_app: MakeApp) -> None:
    site = Site(make_app(BASE_URL="https://shop.example"), full)
    for base_url in HOSTS:
        assert site.made(base_url)[0] == "https://shop.example/here"
    with site.app.app_context():
        assert site.link() == "https://shop.example/here"
    assert len(site.calls) == 1


# -- within others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [None, 5], ids=["", "wait"])
@pytest.mark.parametrize("is_known", [False, True], ids=["cold", "inner known"])
def test_a_function_that_uses_a_function(make_app: MakeApp, wait: float | None, is_known: bool) -> None:
    site = Site(make_app(), full, wait=wait)

    @site.cache.memoize(wait=wait, **WINDOWS)
    def outer() -> str:
        return f"<{site.link()}>"

    for _ in range(2):
        for base_url in HOSTS:
            with site.at(base_url):
                if is_known:
                    site.link()
                assert outer() == f"<{site.plain()}>"


def test_a_function_without_storable_value_within_another(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/here", "here", lambda: "")

    @cache.memoize(**WINDOWS)
    def inner() -> str:
        cache.no_store()
        return full()

    @cache.memoize(**WINDOWS)
    def outer() -> str:
        return inner()

    for base_url in HOSTS:
        with app.test_request_context(base_url=base_url):
            assert outer() == full()


@pytest.mark.parametrize("wait", [None, PATIENCE], ids=["", "wait"])
def test_two_hosts_at_the_same_time(make_app: MakeApp, wait: float | None) -> None:
    begun, gate = threading.Semaphore(0), threading.Event()

    def link() -> str:
        begun.release()
        assert gate.wait(PATIENCE)
        return full()

    site = Site(make_app(REFRESH_DEADLINE=PATIENCE, LOCK_TIMEOUT=PATIENCE), link, wait=wait, max_concurrency=8)

    def visit(base_url: str) -> str:
        with site.at(base_url):
            return str(site.link())

    hosts = [f"http://{name}.example" for name in "aabbcc"]
    with ThreadPoolExecutor(len(hosts)) as threads:
        visits = [threads.submit(visit, base_url) for base_url in hosts]
        assert begun.acquire(timeout=PATIENCE)
        gate.set()
        assert [visit.result(PATIENCE) for visit in visits] == [f"{base_url}/here" for base_url in hosts]


def test_endpoints_of_the_callers_blueprint(make_app: MakeApp) -> None:
    app, cache = make_app()

    @cache.memoize(**WINDOWS)
    def link() -> str:
        return url_for(".index")

    app.add_url_rule("/", "index", lambda: link())
    for name in ("one", "two"):
        blueprint = Blueprint(name, name, url_prefix=f"/{name}")
        blueprint.add_url_rule("/", "index", lambda: link())
        app.register_blueprint(blueprint)
    paths = ["/", "/one/", "/two/"]
    for _ in range(2):
        assert [app.test_client().get(path).text for path in paths] == paths


# -- visitors who choose the host --------------------------------------------------------------------------------------


def test_forged_hosts_are_bounded_and_give_way(
    make_app: MakeApp, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(make_app(), full)
    assert site.made("http://shop.example")[0] == "http://shop.example/here"
    with caplog.at_level(logging.WARNING, "flask_stalecache"):
        for number in range(40):
            assert site.made(f"http://evil{number}.example")[0] == f"http://evil{number}.example/here"
    assert caplog.text.count("TRUSTED_HOSTS") == 1
    calls = len(site.calls)
    for base_url in ("http://shop.example", "http://evil0.example"):
        assert site.made(base_url)[0] == f"{base_url}/here"
    assert (calls, len(site.calls)) == (41, 41)
    assert site.stored() == 17
    # A host that comes late takes the place of a value that is no longer fresh.
    clock.shift(61)
    for _ in range(3):
        assert site.made("http://late.example")[0] == "http://late.example/here"
    assert len(site.calls) == 42


def test_relative_links_do_not_depend_on_forged_hosts(make_app: MakeApp) -> None:
    site = Site(make_app(), relative)
    assert {site.made(f"http://evil{number}.example")[0] for number in range(40)} == {"/here"}
    assert len(site.calls) == 1


@pytest.mark.parametrize(
    "place",
    [
        CallerPlace(),
        CallerPlace(("https", "shop.example:8080", "api"), "/in/", "admin.users", True),
    ],
)
def test_places_are_data(place: CallerPlace) -> None:
    assert CallerPlace.from_json(place.to_json()) == place


@pytest.mark.parametrize(
    "data", [None, [], [None, 1, "", False], [["http", "a"], "/", "", True], [["http", "a", 1], "/", "", True]]
)
def test_other_data_are_no_places(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        CallerPlace.from_json(data)


@pytest.mark.parametrize(
    "other",
    [CallerPlace(("http", "a, b", ""), "/"), CallerPlace(("http", "a", "b"), "/"), CallerPlace(("http", "a", ""), "/x, y/")],
)
def test_other_places_have_other_keys(other: CallerPlace) -> None:
    alike = [CallerPlace(("http", "a,b", ""), "/"), CallerPlace(("http", "a b", ""), "/"), CallerPlace(("http", "a", ""), "/x,y/")]
    assert dict(other.environ) not in [dict(place.environ) for place in alike]


def test_a_request_of_the_functions_own(make_app: MakeApp) -> None:
    app, _ = made = make_app()

    def link() -> str:
        with app.test_request_context(base_url="http://own.example"):
            return f"{url_for('here')} {url_for('here', _external=True)} {request.host}"

    site = Site(made, link)
    assert [site.made(base_url)[0] for base_url in HOSTS] == ["/here http://own.example/here own.example"] * len(HOSTS)
    assert len(site.calls) == 1
