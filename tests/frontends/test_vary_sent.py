"""Every answer names in ``Vary`` what it depended on, so that caches further out tell visitors apart too.

Covers ``frontends.pages.dependence`` and ``frontends.gateway.judging.dependence``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache as cache_results
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, abort, g, make_response, request, session, stream_with_context

from flask_stalecache import GatewayCache, Policy, StaleCache
from flask_stalecache.core.http.vary import vary_with, with_vary
from support.cdn import Cdn
from support.client import MakeApp, Seen, settle, visit
from support.flask_gateway import ANN, NOBODY, signed

BOB = {"Cookie": f"user=bob; {signed({'user': 'bob'})}", "X-User": "bob"}
FRONTS = ["view", "gateway", "coded"]


def by_cookie() -> str:
    return request.cookies.get("user", "stranger")


def by_field() -> str:
    return request.headers.get("X-User", "stranger")


def by_session() -> str:
    return str(session.get("user", "stranger"))


def by_all_fields() -> str:
    return dict(request.headers.items()).get("X-User", "stranger")


def by_all_cookies() -> str:
    return dict(request.cookies).get("user", "stranger")


def by_environ() -> str:
    return str(request.environ.get("HTTP_X_USER", "stranger"))


def by_c_code() -> str:
    """Read with ``dict.get``, past the methods of the observed environ."""
    return str(dict.get(request.environ, "HTTP_X_USER", "stranger"))


def by_choice() -> str:
    """What is read depends on what was read."""
    return by_cookie() if by_field() != "stranger" else f"{by_session()}!"


WAYS = [by_cookie, by_field, by_session, by_all_fields, by_all_cookies, by_environ, by_c_code, by_choice]


def answers(way: Callable[[], str]) -> dict[str, Callable[[], Any]]:
    """Return views that greet a visitor, by the kind of their answers."""

    def public() -> Any:
        return f"hello {way()}"

    def failing() -> Any:
        return f"sorry {way()}", 503

    def aborted() -> Any:
        abort(404, f"no page for {way()}")

    def hooked() -> Any:
        return f"hello {g.user}"

    def merged() -> Any:
        response = make_response(f"hello {way()}")
        response.headers["Vary"] = "Accept-Encoding, X-User"
        return response

    def raising() -> Any:
        raise LookupError(way())

    def streamed() -> Any:
        def chunks() -> Iterator[str]:
            yield "hello "
            yield "and welcome "
            yield way()

        return Response(stream_with_context(chunks()))

    return {kind.__name__: kind for kind in (public, failing, aborted, hooked, merged, raising, streamed)}


def add(app: Flask, cache: StaleCache | None, front: str, way: Callable[[], str], kind: str, **options: Any) -> None:
    """Add the page ``/``."""
    finish(app)
    add_page(app, cache, front, way, kind, "/", **options)


def finish(app: Flask) -> None:
    @app.errorhandler(LookupError)
    def sorry(error: LookupError) -> Any:
        return f"sorry {error}", 500

    @app.after_request
    def for_outer_caches(response: Response) -> Response:
        response.headers["Cache-Control"] = "max-age=60"
        return response


def add_page(
    app: Flask, cache: StaleCache | None, front: str, way: Callable[[], str], kind: str, path: str, **options: Any
) -> None:
    if kind == "hooked":

        @app.before_request
        def look_up() -> None:
            if request.endpoint == kind:
                g.user = way()

    view = answers(way)[kind]
    if cache is not None and front != "gateway":
        view = cache.cached(60, gateway=front == "coded", **options)(view)
    app.add_url_rule(path, kind, view)


def add_all(app: Flask, cache: StaleCache | None, front: str, way: Callable[[], str]) -> None:
    """Add a page of each kind, at ``/`` and its name."""
    finish(app)
    for kind in answers(way):
        add_page(app, cache, front, way, kind, f"/{kind}")


@cache_results
def uncached(way: Callable[[], str]) -> Flask:
    app = Flask("shop")
    app.secret_key = "not a secret"
    add_all(app, None, "", way)
    return app


@cache_results
def text_without_cache(way: Callable[[], str], kind: str, place: int) -> str:
    """Return what a visitor sees without a cache.

    :param place: place of the visitor in the first of ``ORDERS``.
    """
    return visit(uncached(way), f"/{kind}", ORDERS[0][place]).text


def outer(app: Flask) -> Cdn:
    return Cdn(lambda path, fields, method: visit(app, path, fields, method=method))


ORDERS = [(ANN, NOBODY, BOB, ANN, NOBODY), (NOBODY, ANN, BOB, NOBODY, ANN)]


@pytest.mark.grid
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_cache_further_out_gives_everybody_their_own(make_app: MakeApp, front: str, way: Callable[[], str]) -> None:
    for order in ORDERS:
        app, cache = make_app(GATEWAY=front == "gateway")
        with app.app_context():
            cache.purge(all=True)
        add_all(app, cache, front, way)
        cdn = outer(app)
        for kind, visitor in itertools.product(answers(way), order):
            seen = cdn.visit(f"/{kind}", visitor)
            assert seen.text == text_without_cache(way, kind, ORDERS[0].index(visitor)), (kind, visitor, seen.headers)


def names(seen: Seen) -> list[str]:
    """Return what Vary names, in all of its lines."""
    return sorted(name.strip() for line in seen.headers.getlist("Vary") for name in line.split(","))


@pytest.mark.grid
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("fields", "method", "status"),
    [
        ({}, "GET", 200),
        ({}, "HEAD", 200),
        ({"Range": "bytes=0-1"}, "GET", 206),
        ({"If-None-Match": "*"}, "GET", 304),
        (ANN, "GET", 200),
    ],
)
def test_each_kind_of_answer_says_the_same(
    make_app: MakeApp, clock: time_machine.Traveller, front: str, fields: Mapping[str, str], method: str, status: int
) -> None:
    """Live, from the store, in part, confirmed, stale and expired."""
    app, cache = make_app(GATEWAY=front == "gateway", STALE_WHILE_REVALIDATE=300)
    # A view's response that names fields in Vary is stored if they are in the key.
    options = {"vary": ["Accept-Encoding", "X-User"]} if front == "view" else {}
    add(app, cache, front, by_choice, "merged", **options)
    seen = []
    for seconds in (0, 0, 30, 60, 1000):
        clock.shift(seconds)
        seen.append(visit(app, headers=fields, method=method))
        visit(app)
        settle(app, cache)
    assert [names(each) for each in seen] == [["Accept-Encoding", "Cookie", "X-User"]] * 5
    assert [each.status for each in seen] == [status] * 5
    kinds = [each.word if each.word in ("HIT", "STALE") else "live" for each in seen]
    assert kinds == (["live"] * 5 if fields is ANN else ["live", "HIT", "HIT", "STALE", "live"])


@pytest.mark.parametrize("front", FRONTS)
def test_an_address_is_no_field(make_app: MakeApp, front: str) -> None:
    app, cache = make_app(GATEWAY=front == "gateway")
    add(app, cache, front, lambda: str(request.remote_addr), "public")
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        seen = visit(app, environ={"REMOTE_ADDR": address})
        assert (seen.text, names(seen)) == (f"hello {address}", ["*"])


@pytest.mark.parametrize("front", FRONTS)
def test_what_nobody_reads_is_not_named(make_app: MakeApp, front: str) -> None:
    app, cache = make_app(GATEWAY=front == "gateway")
    add(app, cache, front, lambda: "all", "public")
    for visitor in (ANN, NOBODY, ANN):
        assert "Vary" not in visit(app, headers=visitor).headers


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (lambda: ("page", request.cookies.get("lang", "en")), ["Cookie"]),
        (lambda: ("page", session.get("user", "")), ["Cookie"]),
        (lambda: ("page", request.headers.get("X-User", "")), ["X-User"]),
        (lambda: ("page", request.headers.get("Accept-Language"), request.cookies.get("a")), ["Accept-Language", "Cookie"]),
        (lambda: ("page", str(sorted(request.headers.items()))), ["*"]),
        (lambda: "page", []),
    ],
)
def test_what_a_key_reads_is_named(make_app: MakeApp, key: Callable[[], Any], expected: list[str]) -> None:
    app, cache = make_app()
    add(app, cache, "view", lambda: "all", "public", key=key)
    for visitor in ({}, {}, ANN, ANN, {"Cookie": "lang=de"}):
        # Flask adds Cookie to a star.
        assert set(names(visit(app, headers=visitor))) - ({"Cookie"} if expected == ["*"] else set()) == set(expected)


def test_a_key_may_read_other_fields_of_each_visitor(make_app: MakeApp) -> None:
    app, cache = make_app()
    key = lambda: "app" if request.headers.get("X-App") else request.cookies.get("lang", "en")  # noqa: E731
    add(app, cache, "view", lambda: "all", "public", key=key)
    assert names(visit(app, headers={"X-App": "1"})) == ["X-App"]
    assert [names(visit(app)) for _ in range(2)] == [["Cookie", "X-App"]] * 2
    assert names(visit(app, headers={"X-App": "1"})) == ["X-App"]


def test_a_key_that_raises_is_named_too(make_app: MakeApp) -> None:
    app, cache = make_app()
    add(app, cache, "view", lambda: "all", "public", key=lambda: ("page", int(request.cookies["number"])))
    assert [names(visit(app, headers=fields)) for fields in ({"Cookie": "number=one"}, {"Cookie": "number=1"})] == [["Cookie"]] * 2


@pytest.mark.parametrize("front", FRONTS)
def test_past_the_store_too(make_app: MakeApp, front: str) -> None:
    """A login that only the server knows, and a body, are no fields: no cache may keep the answer."""
    app, cache = make_app(GATEWAY=[("/", Policy(unless=lambda environ: "HTTP_X_LIVE" in environ))] if front == "gateway" else False)
    options = {"unless": lambda: "X-Live" in request.headers} if front == "view" else {}
    add(app, cache, front, by_field, "public", **options)
    assert names(visit(app, environ={"REMOTE_USER": "ann"})) == ["*"]
    assert names(visit(app, data=b"who=ann", method="GET")) == ["*"]
    assert names(visit(app, headers={"X-Live": "1"})) == (["X-Live", "X-User"] if front == "view" else ["X-User"])


@pytest.mark.parametrize("front", ["gateway", "coded"])
def test_what_middleware_reads_is_named(make_app: MakeApp, front: str, directory: Path) -> None:
    """It was put on the app before init_app, so that hits do not reach it."""
    app = Flask("shop")
    app.secret_key = "not a secret"
    inner = app.wsgi_app

    def sso(environ: Any, start_response: Any) -> Any:
        if "user=" in environ.get("HTTP_COOKIE", ""):
            environ["REMOTE_USER"] = environ["HTTP_COOKIE"].partition("user=")[2].partition(";")[0]
        return inner(environ, start_response)

    app.wsgi_app = sso  # type: ignore[method-assign]
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY=front == "gateway")
    cache = StaleCache(app)
    add(app, cache, front, lambda: request.remote_user or "stranger", "public")
    cdn = outer(app)
    assert [cdn.visit(headers=visitor).text for visitor in (ANN, NOBODY, BOB, NOBODY)] == [
        "hello ann",
        "hello stranger",
        "hello bob",
        "hello stranger",
    ]


def test_views_that_are_not_cached_are_left_alone(make_app: MakeApp) -> None:
    app, cache = make_app()
    app.add_url_rule("/cached", "cached", cache.cached(60, gateway=True)(lambda: "page"))
    app.add_url_rule("/", "page", by_field)
    assert "Vary" not in visit(app, headers=ANN).headers


# -- in front of an app that can't be observed -----------------------------------------------------------------------------


def greeter(*fields: tuple[str, str]) -> Callable[..., Any]:
    def app(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60"), *fields])
        return [f"hello {environ.get('HTTP_COOKIE') or environ.get('HTTP_X_FORWARDED_USER') or 'stranger'}".encode()]

    return app


def wsgi_visit(app: Any, fields: Mapping[str, str]) -> Seen:
    shell = Flask("shell")
    shell.wsgi_app = app  # type: ignore[method-assign]
    return visit(shell, headers=fields)


@pytest.mark.parametrize("member", [{"Cookie": "user=ann"}, {"X-Forwarded-User": "ann"}])
def test_credentials_are_named_where_they_keep_an_answer_from_the_store(directory: Path, member: Mapping[str, str]) -> None:
    gateway = GatewayCache(greeter(), dir=directory)
    cdn = Cdn(lambda path, fields, method: wsgi_visit(gateway, fields))
    assert [cdn.visit(headers=fields).text.partition("ann")[1] for fields in (member, {}, member, {})] == ["ann", "", "ann", ""]


def test_the_vary_of_a_rule_is_on_every_answer(directory: Path) -> None:
    rules = {"/*": Policy(vary=["X-App"], unless=lambda environ: "HTTP_X_LIVE" in environ)}
    gateway = GatewayCache(greeter(("Vary", "accept-encoding")), dir=directory, rules=rules)
    for fields in ({}, {}, {"X-App": "1"}, {"X-Live": "1"}, {"Authorization": "Basic a"}):
        assert names(wsgi_visit(gateway, fields)) == ["X-App", "accept-encoding"]


# -- the rule --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        ([], [], None),
        ([], ["cookie"], "Cookie"),
        ([], ["x-b", "x-a"], "X-A, X-B"),
        ([("Vary", "Cookie")], ["cookie"], None),
        ([("vary", "COOKIE"), ("Vary", "x-a")], ["cookie", "x-b"], "COOKIE, x-a, X-B"),
        ([("Vary", "Cookie")], ["*", "x-a"], "*"),
        ([("Vary", "*")], ["cookie"], None),
        ([("Vary", "Cookie, *")], ["*"], None),
    ],
)
def test_vary_with(headers: list[tuple[str, str]], fields: list[str], expected: str | None) -> None:
    assert vary_with(headers, fields) == expected
    sent = with_vary([*headers, ("X-Other", "1")], fields)
    assert ("X-Other", "1") in sent
    assert [value for name, value in sent if name.lower() == "vary"] == (
        [expected] if expected else [value for _, value in headers]
    )
