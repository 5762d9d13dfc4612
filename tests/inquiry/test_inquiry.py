"""Why a page is cached or not: the first sentence and the line to write are right for each situation, and nothing is left behind.

Covers ``core.rules.why``, ``frontends.setup.probe``, ``frontends.pages.probed`` and ``inquiry.sandbox``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from flask import Flask, Response, abort, after_this_request, redirect, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_stalecache import ConfigError, Policy, StaleCache, entry_stored
from flask_stalecache.core.rules.status import CacheStatus
from flask_stalecache.core.rules.why import tell_visitors
from flask_stalecache.inquiry.inquiry import Inquiry, inquire
from support.client import MakeApp, visit

HERE = __name__
NUMBERS = itertools.count()


def greeting() -> str:
    return f"hello {request.cookies.get('name', 'nobody')}"


def beta() -> str:
    return request.headers.get("X-Beta", "no")


def all_headers() -> str:
    return str(len(list(request.headers)))


def sets_session() -> str:
    session["seen"] = True
    return "page"


def sets_cookie() -> Response:
    response = Response("page")
    response.set_cookie("seen", "1")
    return response


def broken() -> str:
    raise RuntimeError("no")


def later() -> str:
    after_this_request(lambda response: response)
    return "page"


def says(**fields: str) -> Callable[[], Response]:
    return lambda: Response("page", headers={name.replace("_", "-"): value for name, value in fields.items()})


def stream() -> Response:
    return Response(iter([b"a", b"b"]), mimetype="text/plain")


def needs_login() -> Response | None:
    return redirect("/login") if request.path == "/x" else None  # type: ignore[return-value]


class Situation(NamedTuple):
    """One app, one request, and the expected explanation.

    :ivar first: the first sentence.
    :ivar write: how the advice what to write begins; "": there is none.
    :ivar view: the view of the endpoint ``page`` at ``/x``.
    :ivar cached: the parameters of ``cached``; ``None``: the view is not decorated.
    :ivar settings: the configuration.
    :ivar fields: the fields of the request.
    :ivar url: the URL of the request.
    :ivar hook: runs before each request, if given.
    """

    first: str
    write: str = ""
    view: Callable[[], Any] = lambda: "page"
    cached: Mapping[str, Any] | None = {"max_age": 60, "jitter": 0}
    settings: Mapping[str, Any] = {}
    fields: Mapping[str, str] = {}
    url: str = "/x"
    hook: Callable[[], Any] | None = None


BEYOND = "which this visitor has and the key lacks"
RULE = {"GATEWAY": {"/*": Policy(max_age=60, jitter=0)}}
VIEW = "@cache.cached(max_age=…) directly above it, or give it a rule in STALECACHE_GATEWAY"
SITUATIONS = {
    "cached": Situation("/x is cached: the second request was answered from the store; it is fresh for 60 s"),
    "for-strangers": Situation(
        "/x is cached: the second request was answered from the store; it is fresh for 60 s", view=greeting
    ),
    "undecorated": Situation(f"/x is not cached: nothing stores the answers of its view {HERE}.beta", f"write {VIEW}", beta, None),
    "no-such-page": Situation(
        "/y is not cached: it matches no endpoint of the app, which answered 404 NOT FOUND",
        "give a full URL if the app answers other hosts alone", url="/y",
    ),
    "redirect": Situation(
        "/x is not cached: nothing says how long an answer with status 302 is fresh", view=lambda: redirect("/"), cached=None,
        settings={"GATEWAY": True},
    ),
    "session-at-gateway": Situation(
        "/x is not cached: the response sets a cookie", "it is the session's; change the session in another view", sets_session,
        None, {"GATEWAY": {"/*": Policy(max_age=60)}},
    ),
    "off": Situation(
        "/x is not cached: STALECACHE_ENABLED is false", "set STALECACHE_ENABLED = True", settings={"ENABLED": False}
    ),
    "login": Situation(
        f"/x is not cached: a hook, middleware or decorator answered 302 FOUND before {HERE}.beta", view=beta, hook=needs_login
    ),
    "session": Situation(
        "/x is not cached: the view modified the session", "change the session in another view", sets_session
    ),
    "cookie-set": Situation(
        "/x is not cached: the view's response sets a cookie", "set it in another view, or do not cache this one", sets_cookie
    ),
    "cookie-read": Situation(
        f"/x is not cached for this visitor: it depends on the cookie name, read by {HERE}, {BEYOND}",
        "do not read it", greeting, fields={"Cookie": "name=ann"},
    ),
    "field-read": Situation(
        f"/x is not cached for this visitor: it depends on the field x-beta, read by {HERE}, {BEYOND}",
        "write vary=['x-beta'] in @cache.cached()", beta, fields={"X-Beta": "1"},
    ),
    "field-at-gateway": Situation(
        f"/x is not cached for this visitor: it depends on the field x-beta, read by {HERE}, {BEYOND}",
        "name it in Vary, write vary=['x-beta'] in its rule in STALECACHE_GATEWAY", beta, None, RULE, {"X-Beta": "1"},
    ),
    "authorization": Situation(
        "/x is not cached: the request has an Authorization field", "say Cache-Control: public", fields={"Authorization": "Basic x"}
    ),
    "private": Situation(
        "/x is not cached: Cache-Control: private", "leave it out of its Cache-Control if", says(Cache_Control="private")
    ),
    "stream": Situation("/x is not cached: the response is a stream", "return the whole body", stream),
    "raises": Situation("/x is not cached: its origin raised RuntimeError", view=broken),
    "not-found": Situation(
        "/x is not cached: status 404 is not listed in statuses", "list the status in @cache.cached()", lambda: abort(404)
    ),
    "unless": Situation(
        "/x is not cached for this request: unless said so", "let unless return False", cached={"unless": lambda: True}
    ),
    "key-fails": Situation("/x is not cached for this request: its key can't be made", "let key=", cached={"key": lambda: None}),
    "key-changes": Situation(
        "/x is not cached: each request has another key", "take out of key= or vary=", cached={"key": lambda: next(NUMBERS)}
    ),
    "min-uses": Situation(
        "/x is cached from now on; before, it was asked for 1 of 2 times that min_uses wants", cached={"max_age": 60, "min_uses": 2}
    ),
    "filter": Situation(
        "/x is not cached: response_filter said so", "let the response_filter", cached={"response_filter": lambda response: False}
    ),
    "callback": Situation(
        "/x is not cached: the view registered a callback with after_this_request", "register it in a hook", later
    ),
    "never-fresh": Situation(
        "/x is stored, but is never fresh: its max_age is 0", "give it a max_age",
        cached={"max_age": 0, "stale_while_revalidate": 0, "stale_if_error": 0},
    ),
    "renew": Situation(
        "/x is stored, but renew asks for a new answer at each request", "let renew return False", cached={"renew": lambda: True}
    ),
    "gateway": Situation(
        "/x is cached: the second request was answered from the store; it is fresh for 60 s", cached=None, settings=RULE
    ),
    "nothing-said": Situation(
        "/x is not cached: nothing says how long /x is fresh", "give it a rule in STALECACHE_GATEWAY, or @cache.cached(max_age=…)",
        cached=None, settings={"GATEWAY": True},
    ),
    "all-headers": Situation(
        f"/x is not cached: {HERE} goes through all headers of the request", "read them by name", all_headers, None, RULE
    ),
    "cookie-at-gateway": Situation(
        "/x is not cached: the response sets a cookie", "set it in another view, or write unset=['Set-Cookie'] in its rule in",
        sets_cookie, None, RULE,
    ),
    "confirmed": Situation(
        "/x is stored, but its view runs at each request to confirm it, since it is never fresh", "give it a lifetime",
        lambda: Response(status=304) if request.headers.get("If-None-Match") else Response("page", headers={"ETag": '"1"'}),
        None, {"GATEWAY": True},
    ),
    "behind-gateway": Situation("/x is not cached: the view modified the session", "change", sets_session, settings=RULE),
    "too-large": Situation(
        "/x is not cached: the body is larger than STALECACHE_MAX_ENTRY_SIZE", "raise that limit", lambda: "x" * 2000,
        settings={"MAX_ENTRY_SIZE": 1000},
    ),
    "large-stream": Situation(
        "/x is not cached: the body is larger than STALECACHE_MAX_ENTRY_SIZE", "raise that limit",
        lambda: Response((b"x" * 500 for _ in range(4)), mimetype="text/plain"), None, {**RULE, "MAX_ENTRY_SIZE": 1000},
    ),
    "vary": Situation(
        "/x is not cached: Vary names x-a, which is not in the key", "write vary=['x-a']", says(Vary="X-A")
    ),
}  # fmt: skip


def make_site(make_app: MakeApp, of: Situation) -> tuple[Flask, StaleCache]:
    app, cache = make_app(**of.settings)
    view = of.view if of.cached is None else cache.cached(**of.cached)(of.view)
    app.add_url_rule("/x", "page", view)
    if of.hook is not None:
        app.before_request(of.hook)
    return app, cache


def ask(app: Flask, url: str = "/x", fields: Mapping[str, str] | None = None, cookies: tuple[str, ...] = ()) -> Inquiry:
    with app.app_context():
        return inquire(app, url, fields or {}, cookies)


@pytest.mark.parametrize("of", SITUATIONS.values(), ids=SITUATIONS)
def test_the_first_sentence_is_right(make_app: MakeApp, of: Situation) -> None:
    app, _ = make_site(make_app, of)
    told = ask(app, of.url, of.fields).found
    assert told.first == of.first
    assert told.write.startswith(of.write)
    assert bool(told.write) == bool(of.write)


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, RULE])
def test_who_has_read_what_and_who_is_served(make_app: MakeApp, settings: Mapping[str, Any]) -> None:
    app, _ = make_site(make_app, Situation("", view=greeting, cached=None if settings else {"max_age": 60}, settings=settings))
    account = ask(app).account
    assert account is not None
    assert [read.text for read in account.reads] == [f"the cookie name, read by {HERE}"]
    assert list(tell_visitors(account)) == ["visitors without the cookie name are served the stored page; the others go to the app"]


@pytest.mark.parametrize("settings", [{}, RULE])
def test_a_visitor_with_a_cookie_is_told_apart_from_the_others(make_app: MakeApp, settings: Mapping[str, Any]) -> None:
    app, _ = make_site(make_app, Situation("", view=greeting, cached=None if settings else {"max_age": 60}, settings=settings))
    told = ask(app, cookies=("name=ann", "other=1"))
    assert told.others is not None
    assert (told.others.is_from_store, told.others.status) == (False, CacheStatus.BYPASS)
    assert ask(app, cookies=("other=1",)).others is None


@pytest.mark.parametrize("settings", [{}, RULE])
def test_a_key_of_the_session_is_named_with_its_reader(make_app: MakeApp, settings: Mapping[str, Any]) -> None:
    cached = None if settings else {"max_age": 60}
    app, _ = make_site(make_app, Situation("", view=lambda: f"hello {session.get('user')}", cached=cached, settings=settings))
    signed: Any = SecureCookieSessionInterface().get_signing_serializer(app)
    member = ask(app, cookies=(f"session={signed.dumps({'user': 'ann'})}",))
    assert member.found.first == (
        f"/x is not cached for this visitor: it depends on the session key user, read by {HERE}, {BEYOND}"
    )
    assert ask(app, cookies=(f"session={signed.dumps({'basket': '1'})}",)).found.first.startswith("/x is cached: ")


@pytest.mark.parametrize("cookie", ["name", "a=b; c=d", "a=\n"])
def test_a_cookie_that_is_none_is_refused(make_app: MakeApp, cookie: str) -> None:
    app, _ = make_site(make_app, SITUATIONS["cached"])
    with pytest.raises(ConfigError, match="give a name and a value"):
        ask(app, cookies=(cookie,))


@pytest.mark.parametrize(
    ("settings", "url", "asked"),
    [
        ({}, "/x?a=1", "http://localhost/x?a=1"),
        ({"BASE_URL": "https://shop.example"}, "/x", "https://shop.example/x"),
        ({"BASE_URL": "https://shop.example"}, "http://other.example/x", "http://other.example/x"),
    ],
)
def test_the_host_is_that_of_the_url_or_of_the_app(make_app: MakeApp, settings: Mapping[str, Any], url: str, asked: str) -> None:
    app, _ = make_site(make_app, Situation("", view=lambda: request.host, settings=settings))
    told = ask(app, url)
    assert told.url == asked
    assert told.found.first.startswith("/x is cached")


# -- the sandbox -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, RULE, {"GATEWAY": True}])
def test_nothing_is_left_in_the_live_cache(make_app: MakeApp, settings: Mapping[str, Any]) -> None:
    app, cache = make_site(
        make_app, Situation("", view=greeting, settings=settings, cached=None if settings == RULE else {"max_age": 60})
    )
    stored: list[Any] = []
    entry_stored.connect(lambda sender, **more: stored.append(sender), app, weak=False)
    before = {name: getattr(app, name) for name in ("wsgi_app", "app_ctx_globals_class", "dispatch_request", "process_response")}
    hooks = {name: list(functions) for name, functions in app.after_request_funcs.items()}
    for cookies in ((), ("name=ann",)):
        assert "/x is" in ask(app, cookies=cookies).found.first
    assert before == {name: getattr(app, name) for name in before}
    assert hooks == app.after_request_funcs
    assert stored == []
    with app.app_context():
        stats = cache.stats()
    assert (stats["entries"], stats["requests"]["MISS"], stats["reasons"]) == (0, 0, {})
    assert [visit(app, "/x").page for _ in range(2)] == [("MISS", "hello nobody"), ("HIT", "hello nobody")]
    assert ask(app).visits[0].account.status is CacheStatus.MISS  # type: ignore[union-attr]
    assert visit(app, "/x").word == "HIT"
    assert len(stored) == 1


def test_the_live_entry_is_not_served_and_not_replaced(make_app: MakeApp) -> None:
    app, _ = make_site(make_app, Situation("", view=lambda: f"page {next(NUMBERS)}"))
    before = visit(app, "/x").text
    ask(app)
    assert visit(app, "/x").page == ("HIT", before)


@pytest.mark.parametrize("settings", [{}, {"GATEWAY": {"/*": Policy(max_age=60)}}])
def test_middleware_around_the_cache_is_passed_too(make_app: MakeApp, settings: Mapping[str, Any]) -> None:
    app, _ = make_site(
        make_app, Situation("", view=lambda: request.url, cached=None if settings else {"max_age": 60}, settings=settings)
    )
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    told = ask(app, fields={"X-Forwarded-Proto": "https"})
    assert told.found.first.startswith("/x is cached")
    assert "https://localhost/x" in told.visits[1].account.key  # type: ignore[union-attr]


def test_fetch_functions_have_values_of_their_own(make_app: MakeApp) -> None:
    app, cache = make_app()
    calls: list[int] = []

    @cache.memoize(60, jitter=0)
    def rate() -> int:
        calls.append(1)
        return len(calls)

    app.add_url_rule("/x", "page", cache.cached(60, key=lambda: next(NUMBERS))(lambda: str(rate())))
    visit(app, "/x")
    with app.app_context():
        cache.purge("/y")
        cache.purge("/z")
    ask(app)
    assert len(calls) == 2
    assert visit(app, "/x").text == "1"
