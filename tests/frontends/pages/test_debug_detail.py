"""With ``app.debug``, ``Cache-Status`` also has the key, and why a request was answered as it was. Without it, neither.

Covers ``core.rules.variants``, ``frontends.response.status_headers`` and ``frontends.response.debug_detail``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import http_sf
import pytest
import time_machine
from flask import Flask, Response, request
from flask.cli import FlaskGroup
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache import GatewayCache, Policy, StaleCache
from flask_stalecache.core.addressing.keys import digest, page_key
from flask_stalecache.core.http.accept import Named
from flask_stalecache.core.model.query import NamePatterns
from flask_stalecache.core.rules.status import DETAIL_LENGTH, KEY_LENGTH, key_and_detail, sf_string
from flask_stalecache.core.rules.variant_index import variant_key
from flask_stalecache.frontends.gateway import handler as gateway_cache
from flask_stalecache.frontends.gateway import origin as gateway_origin
from flask_stalecache.frontends.pages import handler
from flask_stalecache.frontends.response.debug_detail import readable_key
from support.client import MakeApp, Seen, visit

SECRET = "s3cr3t-value"
#: Fresh for a minute, then stale for two, and for an hour if the view fails.
WINDOWS: Mapping[str, Any] = {"max_age": 60, "stale_while_revalidate": 120, "stale_if_error": 3600, "jitter": 0}


def members(seen: Seen) -> dict[str, Any]:
    """The parameters of our Cache-Status, as a parser of structured fields reads them."""
    lists: Any = http_sf.parse(", ".join(seen.headers.getlist("Cache-Status")).encode("ascii"), tltype="list")
    return dict(lists[-1][1])


def detail(seen: Seen) -> str:
    return str(members(seen).get("detail", ""))


class Switch:
    """A view that fails, or reads what it should not, when the test says so."""

    def __init__(self) -> None:
        self.answer: Callable[[], Any] = lambda: "page"

    def __call__(self) -> Any:
        return self.answer()


class Site(NamedTuple):
    """An app with one page at ``/``: of a cached view, or of a plain view behind the gateway."""

    app: Flask
    cache: StaleCache
    view: Switch


def make_site(make_app: MakeApp, kind: str, *, debug: bool = True, version: str = "1", **policy: Any) -> Site:
    policy = {**WINDOWS, **policy}
    settings: dict[str, Any] = {"REFRESH_WORKERS": 0, "VERSION": version, "DEBUG_ERRORS": False}
    if kind == "gateway":
        settings["GATEWAY"] = {"/*": Policy(**policy)}
    app, cache = make_app(**settings)
    # As `flask run --debug` and app.run(debug=True) do: after the app was set up.
    app.debug = debug
    view = Switch()
    page = view if kind == "gateway" else cache.cached(**policy)(_named(view))
    app.add_url_rule("/", "page", page, methods=["GET", "POST"])
    return Site(app, cache, view)


def _named(view: Switch) -> Callable[[], Any]:
    def page() -> Any:
        return view()

    page.__qualname__, page.__module__ = "page", "shop"
    return page


def fails() -> str:
    return Response("down", 503)  # type: ignore[return-value]


def reads_cookie() -> str:
    return request.cookies.get("theme", "none")


def reads_field() -> str:
    return request.headers.get("X-Beta", "none")


def says(value: str) -> Callable[[], Any]:
    return lambda: Response("page", headers={"Cache-Control": value})


def sets_cookie() -> Response:
    return Response("page", headers={"Set-Cookie": f"theme={SECRET}", "Cache-Control": "max-age=60"})


class Case(NamedTuple):
    """What happens, what the last visitor sends, and the status word and detail of the answer.

    :ivar first: what the view does for a first visitor. ``None``: there is no first visitor.
    :ivar then: seconds until the last visitor comes.
    :ivar view: what the view does from then on.
    :ivar again: the last visitor comes twice, and the second answer counts.
    :ivar before: called after the first visit.
    """

    id: str
    word: str
    detail: str
    first: Callable[[], Any] | None = lambda: "page"
    then: float = 0.0
    view: Callable[[], Any] = lambda: "page"
    fields: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    policy: Mapping[str, Any] = {}
    again: bool = False
    before: Callable[[Site], None] | None = None
    kinds: tuple[str, ...] = ("page", "gateway")


def softly(site: Site) -> None:
    with site.app.app_context():
        site.cache.purge("/", soft=True)


HANDS_OVER = "this request hands over its refresh"


def past(late: str, *more: str) -> str:
    """Return the detail of a page that has been stale for so long."""
    return "; ".join([f"stale for {late}, since it was fresh for 60 s", *more])


CASES = [
    Case("miss-stored", "MISS", "", first=None),
    Case("hit", "HIT", ""),
    Case("stale-first", "STALE", past("5 s", HANDS_OVER), then=65),
    Case(
        "stale-backing-off", "UPDATING",
        past("5 s", "its origin is not called until 2027-01-15T08:01:07+00:00 (failures so far: 1)"),
        then=65, view=fails, again=True,
    ),
    Case(
        "stale-if-error", "STALE",
        past("4 min", "its origin is not called until 2027-01-15T08:05:02+00:00 (failures so far: 1)"),
        then=300, view=fails,
    ),
    Case("soft-purge", "STALE", f"stale, since a soft purge ended its freshness; {HANDS_OVER}", before=softly, then=1),
    Case("expired", "EXPIRED", past("60.7 min"), then=3700),
    Case(
        "expired-and-fails", "EXPIRED", past("60.7 min", "not stored: status 503"), then=3700, view=fails,
    ),
    Case("failing", "MISS", "not stored: status 503", first=None, view=fails),
    Case("no-store", "MISS", "not stored: Cache-Control: no-store", first=None, view=says("no-store")),
    Case("private", "MISS", "not stored: Cache-Control: private", first=None, view=says("private")),
    Case("sets-a-cookie", "MISS", "not stored: the view's response sets a cookie", first=None, view=sets_cookie, kinds=("page",)),
    Case("sets-a-cookie", "MISS", "not stored: the response sets a cookie", first=None, view=sets_cookie, kinds=("gateway",)),
    Case(
        "reads-a-cookie", "MISS", f"not stored: it was made for this visitor: the cookie theme was read by {__name__}",
        first=None, view=reads_cookie, fields={"Cookie": f"theme={SECRET}"},
    ),
    Case(
        "reads-a-field", "MISS", f"not stored: it was made for this visitor: the field x-beta was read by {__name__}",
        first=None, view=reads_field, fields={"X-Beta": SECRET},
    ),
    Case(
        "absent-cookie", "BYPASS", "the request carries the cookie theme, and what is stored is for those who don't",
        first=reads_cookie, fields={"Cookie": f"other=1; theme={SECRET}"},
    ),
    Case(
        "absent-field", "BYPASS", "the request carries the field x-beta, and what is stored is for those who don't",
        first=reads_field, fields={"X-Beta": SECRET},
    ),
    Case(
        "authorization", "BYPASS", "the request carries the field authorization, and what is stored is for those who don't",
        fields={"Authorization": f"Bearer {SECRET}"},
    ),
    Case("unless", "BYPASS", "unless said so", policy={"unless": lambda *environ: True}),
    Case("body", "BYPASS", "the request has a body", options={"data": b"fat"}),
    Case("known-to-the-server", "BYPASS", "the server knows the user (REMOTE_USER)", options={"environ": {"REMOTE_USER": "ann"}}),
    Case("method", "BYPASS", "it is neither GET nor HEAD", options={"method": "POST"}),
    Case("refresh-ahead", "HIT", HANDS_OVER, then=55, policy={"refresh_ahead": 10}),
    Case(
        "preferred", "STALE", past("2.76 h", HANDS_OVER),
        then=10_000, policy={"prefer_stale": True},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "case"), [pytest.param(kind, case, id=f"{kind}-{case.id}") for case in CASES for kind in case.kinds]
)
def test_what_is_said_more(
    make_app: MakeApp, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, kind: str, case: Case
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    site = make_site(make_app, kind, **case.policy)
    if case.first is not None:
        site.view.answer = case.first
        visit(site.app)
    if case.before is not None:
        case.before(site)
    clock.shift(case.then)
    site.view.answer = case.view
    for _ in range(2 if case.again else 1):
        seen = visit(site.app, "/", case.fields, **case.options)
    assert (seen.word, detail(seen)) == (case.word, case.detail)
    assert SECRET not in seen.headers["Cache-Status"]


@pytest.mark.parametrize("kind", ["page", "gateway"])
def test_a_deploy_is_a_reason(make_app: MakeApp, clock: time_machine.Traveller, kind: str) -> None:
    visit(make_site(make_app, kind).app)
    clock.shift(1)
    newer = make_site(make_app, kind, version="2")
    assert (
        detail(visit(newer.app))
        == "stale, since another version of the app made it ('1', now '2'); this request hands over its refresh"
    )


@pytest.mark.parametrize("kind", ["page", "gateway"])
def test_a_refresh_that_is_pending_is_told(make_app: MakeApp, clock: time_machine.Traveller, kind: str) -> None:
    site = make_site(make_app, kind)
    visit(site.app)
    clock.shift(65)
    engine = site.app.extensions["stalecache"].engine
    environ = site.app.test_request_context("/").request.environ
    named = "gateway" if kind == "gateway" else "shop.page as page"
    assert engine.runtime.process.refreshes.claim(engine.look_up(page_key(named, environ, {}, NamePatterns(()))))
    seen = visit(site.app)
    assert (seen.word, detail(seen)) == ("UPDATING", past("5 s", "its refresh is pending"))


# -- the key ---------------------------------------------------------------------------------------------------------

ENVIRON = {"wsgi.url_scheme": "https", "HTTP_HOST": "shop.example", "SCRIPT_NAME": "/app", "PATH_INFO": "/caf\xc3\xa9 1"}


@pytest.mark.parametrize(
    ("key", "readable"),
    [
        pytest.param(page_key("shop.page as page", ENVIRON, {}, NamePatterns(())),
                     "shop.page as page: https://shop.example/app/caf%C3%A9%201", id="path"),
        pytest.param(page_key("gateway", {**ENVIRON, "RAW_URI": "/app/caf%c3%a9?x=1", "QUERY_STRING": "x=1"}, {}, NamePatterns(())),
                     "gateway: https://shop.example/app/caf%c3%a9?x=1", id="raw-path-and-query"),
        pytest.param(page_key("gateway", {**ENVIRON, "HTTP_X_FORWARDED_PROTO": "http"}, {}, NamePatterns(())),
                     "gateway: https://shop.example/app/caf%C3%A9%201 x-forwarded-proto:http", id="forwarded"),
        pytest.param(page_key("v", {**ENVIRON, "HTTP_ACCEPT_LANGUAGE": "de"}, {"Accept-Language": None}, NamePatterns(())),
                     "v: https://shop.example/app/caf%C3%A9%201 Accept-Language:de", id="vary"),
        pytest.param(page_key("v", ENVIRON, {}, NamePatterns(()), ("ann", 1)),
                     f"v: https://shop.example key={digest(repr(('ann', 1)))[:8]}", id="custom"),
        pytest.param(page_key("v", {**ENVIRON, "HTTP_X_API_KEY": "1"}, {"x-api-key": None}, NamePatterns(())),
                     f"v: https://shop.example/app/caf%C3%A9%201 x-api-key:{digest('1')[:8]}", id="vary-secret"),
        pytest.param(variant_key(page_key("gateway", {**ENVIRON, "PATH_INFO": "/"}, {}, NamePatterns(())),
                                 ("accept-language", "cookie"),
                                 {"HTTP_ACCEPT_LANGUAGE": "de", "HTTP_COOKIE": f"theme={SECRET}"}.get),
                     f"gateway: https://shop.example/app/ accept-language:de cookie:{digest(f'theme={SECRET}')[:8]}", id="variant"),
        pytest.param(variant_key(page_key("gateway", {**ENVIRON, "PATH_INFO": "/"}, {}, NamePatterns(())), ("cookie",), {}.get),
                     "gateway: https://shop.example/app/ cookie:", id="variant-without-the-field"),
        pytest.param(variant_key(page_key("v", ENVIRON, {}, NamePatterns(()), named=(("lang",), ("size",))),
                                 (Named("cookie", "lang"), Named("session", "size")), {"cookie lang": SECRET}.get),
                     f"v: https://shop.example/app/caf%C3%A9%201 cookie lang:{digest(SECRET)[:8]} session size:", id="named"),
        pytest.param(page_key("v", ENVIRON, {}, NamePatterns(()), float("inf")),
                     f"v: https://shop.example key={digest('inf')[:8]}", id="custom-without-a-literal"),
    ],
)  # fmt: skip
def test_a_key_as_one_reads_it(key: str, readable: str) -> None:
    assert readable_key(key) == readable


@pytest.mark.parametrize("kind", ["page", "gateway"])
def test_the_key_is_told_on_a_miss_and_on_a_hit(make_app: MakeApp, kind: str) -> None:
    site = make_site(make_app, kind)
    named = "gateway" if kind == "gateway" else "shop.page as page"
    told = [members(visit(site.app, "/?x=1"))["key"] for _ in range(3)]
    assert told == [f"{named}: http://localhost/?x=1"] * 3


def test_what_a_key_callable_made_of_a_cookie_is_not_told(make_app: MakeApp) -> None:
    site = make_site(make_app, "page", key=lambda: request.cookies.get("user", "nobody"))
    assert members(visit(site.app))["key"] == f"shop.page as page: http://localhost key={digest(repr('nobody'))[:8]}"
    for word in ("MISS", "HIT"):
        seen = visit(site.app, "/", {"Cookie": f"user={SECRET}"})
        assert seen.word == word
        assert SECRET not in str(seen.headers)


# -- the string ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("plain", '"plain"'),
        ('a "b" \\ c', r'"a \"b\" \\ c"'),
        ("caf\xe9\r\nX: y\0\x7f", '"caf%C3%A9%0D%0AX: y%00%7F"'),
        ("\ud800", '"%ED%A0%80"'),
        ("0123456789", '"0123456789"'),
        ("0123456789a", '"0123456..."'),
    ],
)
def test_a_string_of_a_structured_field(text: str, field: str) -> None:
    assert sf_string(text, 10 if text.startswith("0") else 100) == field


@given(st.text(), st.text())
def test_whatever_is_told_can_be_parsed_and_is_short(key: str, detail: str) -> None:
    field = f"stalecache; hit; ttl=1{key_and_detail(key, detail)}"
    [(_, told)] = http_sf.parse(field.encode("ascii"), tltype="list")
    assert (set(told) - {"hit", "ttl"}) == {name for name, text in (("key", key), ("detail", detail)) if text}
    assert len(told.get("key", "")) <= KEY_LENGTH
    assert len(told.get("detail", "")) <= DETAIL_LENGTH


# -- and nothing else ------------------------------------------------------------------------------------------------


def never(*args: Any, **kwargs: Any) -> str:
    raise AssertionError("nothing is to be made for nobody")


@pytest.mark.parametrize("kind", ["page", "gateway"])
def test_without_debug_nothing_is_said_or_made(
    make_app: MakeApp, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module, name in (
        (handler, "debug_detail"),
        (handler, "key_and_detail"),
        (gateway_cache, "key_and_detail"),
        (gateway_origin, "debug_detail"),
    ):
        monkeypatch.setattr(module, name, never)
    site = make_site(make_app, kind, debug=False)
    seen = [visit(site.app), visit(site.app), visit(site.app, "/", {"Authorization": "x"})]
    clock.shift(65)
    seen += [visit(site.app), visit(site.app, "/", method="POST")]
    assert [each.word for each in seen] == ["MISS", "HIT", "BYPASS", "STALE", "BYPASS"]
    assert [set(members(each)) & {"key", "detail"} for each in seen] == [set()] * 5


def test_a_gateway_without_flask_knows_no_debug(directory: Path) -> None:
    def page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"page"]

    told: list[Any] = []
    gateway = GatewayCache(page, dir=directory)
    list(gateway({**ENVIRON, "REQUEST_METHOD": "GET"}, lambda *args: told.append(args)))
    assert dict(told[0][1])["Cache-Status"] == "stalecache; fwd=uri-miss; fwd-status=200; ttl=60; stored"


def routes(app: Flask) -> Any:
    """Run ``flask routes``."""
    return app.test_cli_runner().invoke(FlaskGroup(create_app=lambda: app), ["routes"])


@pytest.mark.parametrize("kind", ["page", "gateway"])
def test_flask_routes_lists_the_app_s_own_routes_alone(make_app: MakeApp, kind: str) -> None:
    site = make_site(make_app, kind)
    plain = Flask("shop", static_folder=None)
    plain.add_url_rule("/", "page", site.view, methods=["GET", "POST"])
    with_cache, without = (routes(app) for app in (site.app, plain))
    assert (with_cache.exit_code, with_cache.output) == (0, without.output)
    assert "page" in with_cache.output
