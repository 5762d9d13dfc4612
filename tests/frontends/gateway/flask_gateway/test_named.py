"""A gateway in front of Flask apps: rules that name cookies and values of the session. The app is observed as before.

Covers ``core.rules.named`` and ``core.http.cookies`` too, with ``test_named_cookies``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, g, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_stalecache import ConfigError, Policy, StaleCache
from support.client import MakeApp, visit
from support.flask_gateway import NOBODY, Fields, signed

NOON = 1_800_000_000
GERMAN, FRENCH = {"Cookie": "lang=de"}, {"Cookie": "lang=fr"}


def holding(**values: Any) -> Fields:
    return {"Cookie": signed(values)}


def in_language() -> str:
    return f"in {request.cookies.get('lang', '?')}"


def in_session() -> str:
    return f"in {session.get('lang', '?')}"


def site(app: Flask, show: Callable[[], Any], *fields: tuple[str, str]) -> None:
    app.add_url_rule("/", "page", show)

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.extend(fields)
        return response


def play(make_app: MakeApp, show: Callable[[], Any], named: Mapping[str, Any], *visitors: Fields, fields: Any = ()) -> list[str]:
    """Make the visits, compare each page with the one without a cache, and return the cache status words."""
    app, plain = make_app(GATEWAY={"/*": Policy(max_age=60, **named)})[0], make_app(ENABLED=False)[0]
    for each in (app, plain):
        site(each, show, *fields)
    said: list[str] = []
    for visitor in visitors:
        seen, expected = visit(app, "/", visitor), visit(plain, "/", visitor)
        assert (seen.status, seen.text) == (expected.status, expected.text), (said, visitor)
        said.append(seen.word)
    return said


ANN, BOB = {"Cookie": "lang=de; user=ann; _ga=1"}, {"Cookie": "lang=de; user=bob; _ga=2"}


@pytest.mark.parametrize("fields", [(), (("Vary", "Cookie"),)], ids=["plain", "Vary"])
def test_named_cookies_make_variants_and_others_none(make_app: MakeApp, fields: Any) -> None:
    said = play(make_app, in_language, {"cookies": ["lang"]}, ANN, BOB, GERMAN, FRENCH, NOBODY, FRENCH, fields=fields)
    assert said == ["MISS", "HIT", "HIT", "MISS", "MISS", "HIT"]


def test_another_cookie_that_is_read_makes_the_page_personal(make_app: MakeApp) -> None:
    show = lambda: f"{in_language()} for {request.cookies.get('user')}"  # noqa: E731
    said = play(make_app, show, {"cookies": ["lang"]}, ANN, BOB, GERMAN, ANN, GERMAN, FRENCH, fields=[("Vary", "Cookie")])
    assert said == ["MISS", "MISS", "MISS", "BYPASS", "HIT", "MISS"]


def test_a_member_with_a_session_is_no_stranger(make_app: MakeApp) -> None:
    ann = {"Cookie": f"lang=de; {signed({'user': 'ann'})}"}
    said = play(make_app, lambda: f"{in_language()} {session.get('user')}", {"cookies": ["lang"]}, ann, GERMAN, ann, GERMAN)
    assert said == ["MISS", "MISS", "BYPASS", "HIT"]


def test_named_values_of_the_session_make_variants(make_app: MakeApp) -> None:
    german, french, bob = holding(lang="de", user="ann"), holding(lang="fr"), holding(lang="de", user="bob")
    said = play(make_app, in_session, {"session": ["lang"]}, german, french, bob, NOBODY, holding(user="eve"), french)
    assert said == ["MISS", "MISS", "HIT", "MISS", "HIT", "HIT"]


def test_another_value_that_is_read_makes_the_page_personal(make_app: MakeApp) -> None:
    ann, bob, german = holding(lang="de", user="ann"), holding(lang="de", user="bob"), holding(lang="de")
    show = lambda: f"{in_session()} for {session.get('user')}"  # noqa: E731
    assert play(make_app, show, {"session": ["lang"]}, ann, bob, german, ann, german) == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


@pytest.mark.parametrize("forged", ["session=forged", "session=", 'session="', "session=\xff"])
def test_a_forged_session_holds_nothing(make_app: MakeApp, forged: str) -> None:
    said = play(make_app, in_session, {"session": ["lang"]}, holding(lang="de"), {"Cookie": forged}, NOBODY, {"Cookie": forged})
    assert said == ["MISS", "MISS", "HIT", "HIT"]


def test_cookie_session_and_accept_together(make_app: MakeApp) -> None:
    show = lambda: f"{in_language()} {in_session()} {request.accept_languages.best_match(['en', 'de'])}"  # noqa: E731
    visitors = [
        {"Cookie": f"lang={lang}; {signed({'lang': kept})}", "Accept-Language": accepted}
        for lang in ("de", "fr")
        for kept in ("x", "y")
        for accepted in ("en", "de")
    ]
    said = play(make_app, show, {"cookies": ["lang"], "session": ["lang"]}, *visitors, *visitors)
    assert said == ["MISS"] * 8 + ["HIT"] * 8


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"session": {"lang": lambda value: 1 / 0}}, "the normaliser session['lang'] raised"),
        ({"cookies": {"lang": lambda value: 7}}, "the normaliser cookies['lang'] returned int"),
        ({"session": ["basket"]}, "session={'basket': str}"),
    ],
)
def test_what_fails_is_live_and_said(
    make_app: MakeApp, named: Mapping[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    ann = holding(lang="de", basket=["a"])
    assert play(make_app, in_session, named, ann, ann) == ["BYPASS", "BYPASS"]
    assert told in caplog.text


# -- refreshes ---------------------------------------------------------------------------------------------------------


def stale_site(make_app: MakeApp, show: Callable[[], Any], **named: Any) -> tuple[Flask, StaleCache]:
    rule = Policy(max_age=10, stale_while_revalidate=600, jitter=0, **named)
    app, cache = make_app(GATEWAY={"/*": rule}, REFRESH_WORKERS=0)
    app.add_url_rule("/", "page", show)
    return app, cache


def test_a_refresh_has_what_is_named_and_nothing_else(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    held: list[Any] = []

    def show() -> str:
        if cache.refreshing:
            held.append((dict(request.cookies), dict(session)))
        return f"{in_language()} {in_session()} {len(held)}"

    app, cache = stale_site(make_app, show, cookies=["lang"], session=["lang"])
    visitors = [{"Cookie": f"lang=de; x={name}; {signed({'lang': 'fr', 'user': name})}"} for name in ("ann", "bob", "eve")]
    assert visit(app, "/", visitors[0]).page == ("MISS", "in de in fr 0")
    clock.shift(20)
    assert visit(app, "/", visitors[1]).page == ("STALE", "in de in fr 0")
    assert held == [({"lang": "de"}, {"lang": "fr"})]


def test_a_refresh_renews_its_own_variant(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    calls: list[bool] = []

    def show() -> str:
        calls.append(cache.refreshing)
        return f"{in_session()} {len(calls)}"

    app, cache = stale_site(make_app, show, session=["lang"])
    german, french = holding(lang="de", user="ann"), holding(lang="fr")
    visit(app, "/", german), visit(app, "/", french)
    clock.shift(20)
    assert visit(app, "/", holding(lang="de", user="bob")).page == ("STALE", "in de 1")
    assert [visit(app, "/", visitor).page for visitor in (german, french)] == [("HIT", "in de 3"), ("STALE", "in fr 2")]
    assert calls == [False, False, True, True]


def test_publish_leaves_hidden_values_to_visitors(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache = stale_site(make_app, in_session, session=["lang"])
    german = holding(lang="de")
    visit(app, "/", german), visit(app, "/", NOBODY)
    with app.app_context():
        batch = cache.publish("/")
        cache.drain()
    told = "the value of the session key lang is not kept: the next visitor who sends it has it refreshed"
    assert sorted(outcome.reason for outcome in batch.outcomes) == ["", told]
    assert [visit(app, "/", visitor).word for visitor in (NOBODY, german, german)] == ["HIT", "STALE", "HIT"]


def with_inner(inner: Any, directory: Path, rule: Policy) -> Flask:
    """Return an app that has ``inner`` mounted at ``/inner``."""
    app = Flask("shop", static_folder=None)
    app.secret_key = "not a secret"
    app.config.update(STALECACHE_DIR=directory, STALECACHE_GATEWAY={"/*": rule}, STALECACHE_REFRESH_WORKERS=0)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    StaleCache(app)
    return app


def test_a_mounted_app_gets_no_session_of_ours(directory: Path, clock: time_machine.Traveller) -> None:
    inner = Flask("inner")
    inner.secret_key = "another secret"
    seen: list[str | None] = []

    @inner.get("/")
    def page() -> Response:
        seen.append(session.get("lang"))
        return Response("inner", headers={"Cache-Control": "public, max-age=10, stale-while-revalidate=600"})

    app = with_inner(inner, directory, Policy(max_age=10, session=["lang"]))
    german = holding(lang="de")
    visit(app, "/inner/", german)
    clock.shift(20)
    visit(app, "/inner/", german)
    assert set(seen) == {None}


# -- sessions that are kept elsewhere ----------------------------------------------------------------------------------


class Kept(SecureCookieSessionInterface):
    """Sessions that a server keeps, under the value of the cookie."""

    values: dict[str, dict[str, Any]]

    def open_session(self, app: Flask, request: Any) -> SecureCookieSession:
        return SecureCookieSession(self.values.get(request.cookies.get("session", ""), {}))

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        """Keep what there is."""


def test_sessions_kept_elsewhere_need_an_opener(make_app: MakeApp) -> None:
    def set_interface(app: Flask) -> None:
        app.session_interface = Kept()

    app = Flask("shop")
    set_interface(app)
    app.config["STALECACHE_GATEWAY"] = {"/*": Policy(max_age=60, session=["lang"])}
    with pytest.raises(ConfigError, match="sessions of the class Kept can't be looked up: set STALECACHE_SESSION_OPENER"):
        StaleCache(app)


def test_sessions_whose_interface_is_set_later_are_live(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, session=["lang"])})
    interface = app.session_interface = Kept()
    interface.values = {"ann": {"lang": "de"}, "bob": {"lang": "fr"}}
    site(app, in_session)
    ann, bob = {"Cookie": "session=ann"}, {"Cookie": "session=bob"}
    assert [visit(app, "/", visitor).page for visitor in (ann, bob, ann)] == [
        ("BYPASS", "in de"), ("BYPASS", "in fr"), ("BYPASS", "in de"),
    ]  # fmt: skip
    assert "set STALECACHE_SESSION_OPENER" in caplog.text


def test_a_session_that_changes_between_key_and_app_fills_no_variant(make_app: MakeApp) -> None:
    interface = Kept()
    interface.values = {"ann": {"lang": "de"}}

    def opener(app: Flask, request: Any) -> Any:
        opened = interface.open_session(app, request)
        # Another request of the visitor changes it before the app opens it.
        interface.values["ann"] = {"lang": changed[0]}
        return opened

    changed = ["fr"]
    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, session=["lang"])}, SESSION_OPENER=opener)
    app.session_interface = interface
    site(app, in_session)
    ann = {"Cookie": "session=ann"}
    assert visit(app, "/", ann).text == "in fr"
    interface.values["bob"] = {"lang": "de"}
    assert visit(app, "/", {"Cookie": "session=bob"}).page == ("MISS", "in de")
    assert visit(app, "/", {"Cookie": "session=bob"}).page == ("HIT", "in de")


def test_an_opener_that_raises_makes_visitors_live(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    def opener(app: Flask, request: Any) -> Any:
        raise OSError("the server of sessions is down")

    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, session=["lang"])}, SESSION_OPENER=opener)
    site(app, in_session)
    assert visit(app, "/", holding(lang="de")).page == ("BYPASS", "in de")
    assert "STALECACHE_SESSION_OPENER raised" in caplog.text


def test_an_opener_that_returns_keys_alone_is_not_enough(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, session=["lang"])}, SESSION_OPENER=lambda app, request: {"lang"})
    site(app, in_session)
    assert visit(app, "/", holding(lang="de")).page == ("BYPASS", "in de")
    assert "let STALECACHE_SESSION_OPENER return the session, not its keys alone" in caplog.text


def test_a_hit_does_not_let_a_permanent_session_end(make_app: MakeApp) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        app, _ = make_app(GATEWAY={"/*": Policy(max_age=600, jitter=0, session=["lang"])})
        app.permanent_session_lifetime = timedelta(seconds=100)
        site(app, in_session)
        ann = holding(lang="de", _permanent=True)
        assert [visit(app, "/", ann).word for _ in range(2)] == ["MISS", "HIT"]
        clock.shift(20)
        assert visit(app, "/", ann).word == "BYPASS"


def test_a_hook_that_reads_what_is_named_is_covered(make_app: MakeApp) -> None:
    app, _ = make_app(GATEWAY={"/*": Policy(max_age=60, cookies=["lang"], session=["size"])})

    @app.before_request
    def choose() -> None:
        g.lang, g.size = request.cookies.get("lang"), session.get("size")

    site(app, lambda: f"{g.lang} {g.size}")
    visitors = [GERMAN, FRENCH, {"Cookie": f"lang=de; {signed({'size': 'l'})}"}]
    assert [visit(app, "/", visitor).word for visitor in (*visitors, *visitors)] == ["MISS"] * 3 + ["HIT"] * 3


def test_the_cookie_of_the_session_is_not_named(make_app: MakeApp) -> None:
    with pytest.raises(ConfigError, match="in which sessions are kept: name values of the session in session="):
        make_app(GATEWAY={"/*": Policy(max_age=60, cookies=["session"])})


def test_another_app_within_is_no_observed_one(directory: Path) -> None:
    """A mounted app gets all cookies, and its reads are not seen: its ``Vary: Cookie`` means the whole field."""

    def inner(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "public, max-age=60"), ("Vary", "Cookie")])
        return [environ.get("HTTP_COOKIE", "nobody").encode()]

    app = with_inner(inner, directory, Policy(max_age=60, cookies=["lang"]))
    pages = [visit(app, "/inner/", visitor).text for visitor in (ANN, BOB, GERMAN, ANN, NOBODY)]
    assert pages == [ANN["Cookie"], BOB["Cookie"], "lang=de", ANN["Cookie"], "nobody"]
