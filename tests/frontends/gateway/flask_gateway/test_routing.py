"""What Flask's own routing answers: it reads the query past the observed request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, redirect, request
from werkzeug.routing import Rule

from flask_stalecache import Policy, StaleCache
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from support.client import MakeApp, visit
from support.flask_gateway import fresh
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters


def page(**values: object) -> str:
    return "page"


def slashes(app: Flask) -> None:
    app.add_url_rule("/shop/", "page", page)


def merged(app: Flask) -> None:
    app.add_url_rule("/a/shop", "page", page)


def aliased(app: Flask) -> None:
    app.add_url_rule("/shelf", "page", page)
    app.add_url_rule("/shop", "page", page, alias=True)


def defaults(app: Flask) -> None:
    app.add_url_rule("/shop/", "page", page, defaults={"number": 1})
    app.add_url_rule("/shop/<int:number>", "page", page)


def redirected(app: Flask) -> None:
    app.view_functions["page"] = page
    app.url_map.add(Rule("/shelf", endpoint="page"))
    app.url_map.add(Rule("/shop", endpoint="page", redirect_to=lambda adapter, **values: f"/shelf?{adapter.query_args}"))


ROUTES: dict[str, tuple[Callable[[Flask], None], str]] = {
    "trailing slash": (slashes, "/shop"),
    "merged slashes": (merged, "/a//shop"),
    "alias": (aliased, "/shop"),
    "defaults": (defaults, "/shop/1"),
    "redirect_to": (redirected, "/shop"),
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_redirect_of_routing_is_not_stored_with_ignored_parameters(make_app: MakeApp, name: str) -> None:
    build, path = ROUTES[name]
    app, _ = make_app(GATEWAY=[("/*", Policy(max_age=60, statuses={308: 60, 302: 60}, ignored_parameters=["utm_*"]))])
    plain, _ = make_app(ENABLED=False)
    for each in (app, plain):
        build(each)
    for query in ("?utm_source=EVIL", "?x=1&utm_source=EVIL", "?utm%5Fsource=EVIL", "?utm_source="):
        seen, expected = visit(app, path + query), visit(plain, path + query)
        assert (seen.status, seen.headers["Location"]) == (expected.status, expected.headers["Location"])
        assert seen.word == "MISS"
    assert "EVIL" not in visit(app, path).headers["Location"]
    assert visit(app, path).word == "HIT"
    assert "EVIL" not in visit(app, path + "?utm_source=EVIL").headers["Location"]
    # A redirect is stored with the parameters that are in the key.
    assert [visit(app, path + "?x=2").word for _ in range(2)] == ["MISS", "HIT"]
    assert visit(app, path + "?x=2").headers["Location"] == visit(plain, path + "?x=2").headers["Location"]


@pytest.mark.parametrize(("hosts", "path"), [(True, "/shop"), (False, "/shop")])
def test_host_and_subdomain_matching_redirect_too(directory: Path, hosts: bool, path: str) -> None:
    app = Flask("shop", host_matching=hosts, static_host="shop.example" if hosts else None, subdomain_matching=not hosts)
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=True, STALECACHE_IGNORED_PARAMETERS=["utm_*"])
    app.config["SERVER_NAME"] = "shop.example"
    StaleCache(app)
    app.add_url_rule("/shop/", "page", page, **({"host": "www.shop.example"} if hosts else {"subdomain": "www"}))
    app.after_request(fresh)
    headers = {"Host": "www.shop.example"}
    assert visit(app, f"{path}?utm_source=EVIL", headers).headers["Location"] == "http://www.shop.example/shop/?utm_source=EVIL"
    assert visit(app, path, headers).headers["Location"] == "http://www.shop.example/shop/"
    assert visit(app, path, headers).word == "HIT"


def test_who_waits_is_not_redirected_with_anothers_parameters(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True, IGNORED_PARAMETERS=["utm_*"])
    slashes(app)
    app.after_request(fresh)
    started, more = threading.Event(), threading.Event()

    @app.before_request
    def hold() -> None:
        if not started.is_set():
            started.set()
            assert more.wait(PATIENCE)

    evil = go(visit, app, "/shop?utm_source=EVIL")
    assert started.wait(PATIENCE)
    others = [go(visit, app, "/shop") for _ in range(3)]
    wait_for_waiters(app, 3)
    more.set()
    assert ["EVIL" in seen.headers["Location"] for seen in results([evil, *others])] == [True, False, False, False]


@pytest.mark.parametrize("status", [404, 405])
def test_an_error_of_routing_is_stored_unless_it_shows_the_url(make_app: MakeApp, status: int) -> None:
    app, _ = make_app(GATEWAY=[("/*", Policy(max_age=60, statuses={404: 60, 405: 60}))], IGNORED_PARAMETERS=["utm_*"])
    app.add_url_rule("/form", "form", page, methods=["POST"])
    path = "/form" if status == 405 else "/nowhere"
    assert [visit(app, f"{path}?utm_source={name}").word for name in "ab"] == ["MISS", "HIT"]
    shown, _ = make_app(
        GATEWAY=[("/*", Policy(max_age=60, statuses={404: 60, 405: 60}))], IGNORED_PARAMETERS=["utm_*"], VERSION="2"
    )
    shown.add_url_rule("/form", "form", page, methods=["POST"])
    shown.register_error_handler(status, lambda error: (f"not here: {request.url}", status))
    assert [visit(shown, f"{path}?x=1&utm_source={name}").text[-1] for name in "ab"] == ["a", "b"]
    assert "utm" not in visit(shown, f"{path}?x=1").text


def test_a_redirect_of_a_view_to_a_constant_parameter_is_stored(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY=True, IGNORED_PARAMETERS=["utm_*"])
    app.add_url_rule("/go", "go", lambda: redirect("https://partner.example/?utm_source=ours"))
    app.after_request(fresh)
    assert [visit(app, f"/go?utm_source={name}").word for name in ("theirs", "else")] == ["MISS", "HIT"]


def test_an_app_that_is_not_observed_is_judged_by_its_location(directory: Path) -> None:
    """The routing of any framework."""
    inner = Flask("inner")
    slashes(inner)
    inner.after_request(fresh)
    outer = Flask("outer")
    gateway = GatewayCache(inner.wsgi_app, dir=directory, ignored_parameters=["utm_*"])
    outer.wsgi_app = gateway  # type: ignore[method-assign]

    def location(query: str) -> tuple[str, Any]:
        seen = visit(outer, f"/shop{query}")
        return seen.word, seen.headers["Location"]

    assert location("?utm_source=EVIL") == ("MISS", "http://localhost/shop/?utm_source=EVIL")
    assert location("") == ("MISS", "http://localhost/shop/")
    assert location("?utm_source=EVIL") == ("HIT", "http://localhost/shop/")


def test_what_an_unobserved_app_changes_in_the_environ_is_compared(directory: Path) -> None:
    """In front of any WSGI app, REMOTE_USER, method, scheme and host are compared: what the app changes in the environ itself."""

    def sso(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ.update(environ.pop("test.change", {}))
        who = environ.get("REMOTE_USER", "stranger")
        body = f"{environ['REQUEST_METHOD']} {environ['wsgi.url_scheme']} {environ['HTTP_HOST']} {who}"
        headers = {"Cache-Control": "public, max-age=60", "Vary": "Accept-Encoding, X-Tenant"}
        return Response(body, headers=headers)(environ, start_response)

    outer = Flask("outer")
    outer.wsgi_app = GatewayCache(sso, dir=directory)  # type: ignore[method-assign]
    changes = [
        {"SCRIPT_NAME": "//evil.example"},
        {"REMOTE_USER": "alice"},
        {"REQUEST_METHOD": "POST"},
        {"wsgi.url_scheme": "https"},
        {"HTTP_HOST": "evil.example"},
    ]
    for change in changes:
        for _ in range(2):
            assert visit(outer, "/", {"Accept-Encoding": "gzip"}, environ={"test.change": change}).word == "MISS"
        if "REQUEST_METHOD" not in change:
            # The response says what it depends on.
            tenant = {"X-Tenant": str(change)}
            assert [visit(outer, "/", tenant, environ={"test.change": change}).word for _ in range(2)] == ["MISS", "HIT"]
    assert visit(outer).page == ("MISS", "GET http localhost stranger")
    assert visit(outer).word == "HIT"
    assert visit(outer, "/a", environ={"test.change": {"SCRIPT_NAME": "/a", "PATH_INFO": ""}}).word == "MISS"
    assert visit(outer, "/a").word == "HIT"
