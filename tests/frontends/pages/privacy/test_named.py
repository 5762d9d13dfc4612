"""Privacy: cookies and values of the session that a view has named. The key has their values, and everything else is as before.

Covers ``frontends.pages.named``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import time_machine
from flask import Flask, Request, g, make_response, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from flask_stalecache import ConfigError, Policy, StaleCache
from flask_stalecache.core.addressing.keys import digest
from support.client import MakeApp, visit
from support.privacy import Fields, UntoldInterface, play, shown

NOBODY: Fields = {}
GERMAN: Fields = {"Cookie": "lang=de"}
FRENCH: Fields = {"Cookie": "lang=fr"}


def signed(**values: Any) -> Fields:
    """Return the fields of a visitor whose session holds some values."""
    app = Flask("shop")
    app.secret_key = "not a secret"
    signer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    return {"Cookie": f"session={signer.dumps(values)}"}


def with_cookie(fields: Fields, more: str) -> Fields:
    return {**fields, "Cookie": f"{fields['Cookie']}; {more}"}


def in_language() -> str:
    return f"in {request.cookies.get('lang', '?')}"


def in_session() -> str:
    return f"in {session.get('lang', '?')}"


# -- cookies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "visitors", "answered"),
    [
        pytest.param(in_language, [GERMAN, FRENCH, GERMAN, FRENCH, NOBODY, NOBODY], "MMHHMH", id="each value has a page"),
        pytest.param(lambda: "all", [GERMAN, FRENCH, GERMAN], "MMH", id="also where it is not read"),
        pytest.param(in_language, [{"Cookie": "lang="}, NOBODY, {"Cookie": "lang="}, NOBODY], "MMHH", id="empty and absent"),
        pytest.param(
            in_language,
            [{"Cookie": "lang=de; lang=fr"}, {"Cookie": "lang=fr; lang=de"}, GERMAN, {"Cookie": "lang=de; lang=fr"}],
            "MMMH",
            id="several of one name",
        ),
        pytest.param(in_language, [{"Cookie": 'lang="de"'}, GERMAN], "MH", id="in quotes"),
        pytest.param(in_language, [{"Cookie": "lang=\xc3\xa9"}, {"Cookie": "lang=\xc3\xa8"}], "MM", id="beyond ASCII"),
        pytest.param(
            in_language,
            [{"Cookie": 'x="a; lang=de; b"; lang=fr'}, FRENCH, {"Cookie": "lang=de; lang=fr"}, GERMAN],
            "MHMM",
            id="a cookie within a value",
        ),
        pytest.param(
            in_language, [{"Cookie": "_ga=1; lang=de"}, {"Cookie": "lang=de; _ga=2"}, GERMAN], "MHH", id="others make no variants"
        ),
    ],
)
def test_a_named_cookie_is_in_the_key(make_app: MakeApp, view: Callable[[], str], visitors: list[Fields], answered: str) -> None:
    said = play(make_app, shown(view, cookies=["lang"]), *visitors)
    assert "".join(word[0] for word in said) == answered


def test_another_cookie_that_is_read_makes_the_page_personal(make_app: MakeApp) -> None:
    build = shown(lambda: f"{in_language()} for {request.cookies.get('user')}", cookies=["lang"])
    ann, bob = {"Cookie": "lang=de; user=ann"}, {"Cookie": "lang=de; user=bob"}
    assert play(make_app, build, ann, bob, GERMAN, ann, GERMAN) == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


def test_a_hook_that_reads_a_named_cookie_is_covered(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def choose() -> None:
            g.lang = request.cookies.get("lang")

        shown(lambda: f"in {g.lang}", cookies=["lang"])(app, cache)

    assert play(make_app, build, GERMAN, FRENCH, NOBODY, GERMAN, FRENCH, NOBODY) == ["MISS"] * 3 + ["HIT"] * 3


def test_a_normaliser_makes_fewer_variants(make_app: MakeApp) -> None:
    normalise = lambda value: value if value in ("de", "fr") else "en"  # noqa: E731
    build = shown(lambda: f"in {normalise(request.cookies.get('lang'))}", cookies={"lang": normalise})
    odd = [{"Cookie": f"lang=x{number}"} for number in range(30)]
    said = play(make_app, build, NOBODY, *odd, GERMAN, {"Cookie": "lang=en"})
    assert said == ["MISS"] + ["HIT"] * 30 + ["MISS", "HIT"]


@pytest.mark.parametrize(
    ("normalise", "told"),
    [
        (lambda value: 1 / 0, "the normaliser cookies['lang'] raised ZeroDivisionError"),
        (lambda value: 7, "the normaliser cookies['lang'] returned int: return a string or None"),
    ],
)
def test_a_normaliser_that_fails_makes_no_page_and_no_error(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, normalise: Callable[[Any], Any], told: str
) -> None:
    assert play(make_app, shown(in_language, cookies={"lang": normalise}), GERMAN, GERMAN) == ["BYPASS"] * 2
    (line,) = [record.getMessage() for record in caplog.records]
    assert told in line


def test_ever_new_values_fill_no_store(make_app: MakeApp) -> None:
    said = play(make_app, shown(in_language, cookies=["lang"]), *[{"Cookie": f"lang=x{number}"} for number in range(40)], GERMAN)
    assert said[:16] == ["MISS"] * 16
    assert said[16:] == ["BYPASS"] * 25


def test_values_of_cookies_are_not_on_disk(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: "page", cookies=["lang"])(app, cache)
    visit(app, "/", {"Cookie": "lang=very-secret"})
    state = app.extensions["stalecache"]
    entries = [stored.entry for stored in state.engine.store.walk()]
    assert [entry.recipe["digests"] for entry in entries] == [[["HTTP_COOKIE", digest("lang=very-secret")]]]
    assert "very-secret" not in repr(entries)


def test_the_vary_of_an_answer_names_the_field(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(lambda: "page", cookies=["lang"])(app, cache)
    assert [visit(app, "/", GERMAN).headers["Vary"] for _ in range(2)] == ["Cookie", "Cookie"]


# -- values of the session ---------------------------------------------------------------------------------------------


def test_a_named_value_of_the_session_is_in_the_key(make_app: MakeApp) -> None:
    german, french = signed(lang="de", user="ann"), signed(lang="fr")
    said = play(make_app, shown(in_session, session=["lang"]), german, french, signed(lang="de", user="bob"), french, NOBODY)
    assert said == ["MISS", "MISS", "HIT", "HIT", "MISS"]


def test_absent_and_none_are_two_values(make_app: MakeApp) -> None:
    build = shown(lambda: f"{'lang' in session} {session.get('lang')}", session=["lang"])
    assert play(make_app, build, NOBODY, signed(lang=None), NOBODY, signed(lang=1), signed(lang=True)) == [
        "MISS", "MISS", "HIT", "MISS", "MISS",
    ]  # fmt: skip


def test_another_value_that_is_read_makes_the_page_personal(make_app: MakeApp) -> None:
    build = shown(lambda: f"{in_session()} for {session.get('user')}", session=["lang"])
    ann, bob, german = signed(lang="de", user="ann"), signed(lang="de", user="bob"), signed(lang="de")
    assert play(make_app, build, ann, bob, german, ann, german) == ["MISS", "MISS", "MISS", "BYPASS", "HIT"]


def test_a_session_that_is_read_as_a_whole_is_no_named_value(make_app: MakeApp) -> None:
    build = shown(lambda: str(sorted(session)), session=["lang"])
    assert play(make_app, build, signed(lang="de", user="ann"), signed(lang="de"), NOBODY) == ["MISS"] * 3


def test_a_value_that_a_hook_writes_is_not_covered(make_app: MakeApp) -> None:
    """The hook may have read what was there before."""

    def build(app: Flask, cache: StaleCache) -> None:
        @app.before_request
        def choose() -> None:
            g.before = session.get("lang")
            session["lang"] = "en"

        shown(lambda: f"was {g.before}, in {session['lang']}", session=["lang"])(app, cache)

    assert "HIT" not in play(make_app, build, signed(lang="de"), signed(lang="fr"), signed(lang="en"), signed(lang="de"))


def test_a_value_that_has_no_form_in_a_key_needs_a_normaliser(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    view = lambda: f"{len(session.get('basket', ()))} things"  # noqa: E731
    two, three = signed(basket=["a", "b"]), signed(basket=["a", "b", "c"])
    assert play(make_app, shown(view, session=["basket"]), two, two) == ["BYPASS", "BYPASS"]
    assert "session={'basket': str}" in caplog.text
    build = shown(view, session={"basket": lambda basket: str(len(basket or ()))})
    assert play(make_app, build, two, three, signed(basket=["x", "y"]), NOBODY) == ["MISS", "MISS", "HIT", "MISS"]


class Sessions(SecureCookieSessionInterface):
    """Sessions of an interface that may look up the visitor."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return super().open_session(app, request)


@pytest.mark.parametrize(
    ("interface", "config", "hits"),
    [
        (Sessions, {"SESSION_OPENER": SecureCookieSessionInterface().open_session}, True),
        (Sessions, {}, False),
        (UntoldInterface, {}, False),
    ],
)
def test_sessions_of_another_interface_need_an_opener(
    make_app: MakeApp, interface: type[Any], config: dict[str, Any], hits: bool
) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        app.session_interface = interface()
        shown(in_session, session=["lang"])(app, cache)

    german, french = signed(lang="de", user="ann"), signed(lang="fr")
    said = play(make_app, build, german, french, signed(lang="de", user="bob"), french, **config)
    assert said[2:] == (["HIT", "HIT"] if hits else ["MISS", "MISS"])


def test_a_page_within_a_page_hands_on_what_it_has_named(make_app: MakeApp) -> None:
    def build(app: Flask, cache: StaleCache) -> None:
        inner = cache.cached(60, cookies=["lang"], session=["size"])(lambda: f"{in_language()} {session.get('size')}")
        app.add_url_rule("/inner", "inner", inner)
        app.add_url_rule("/", "page", cache.cached(60)(lambda: f"outer {make_response(inner()).get_data(as_text=True)}"))

    assert play(make_app, build, GERMAN, signed(size="l"), FRENCH, NOBODY, GERMAN, NOBODY) == [
        "MISS", "MISS", "MISS", "MISS", "BYPASS", "HIT",
    ]  # fmt: skip


# -- refreshes ---------------------------------------------------------------------------------------------------------


def refreshed_site(make_app: MakeApp, view: Callable[[], str], **named: Any) -> tuple[Flask, StaleCache, list[dict[str, Any]]]:
    """Return an app with refreshes in line, its cache, and for each call of its view the cookies and whether it is a refresh."""
    app, cache = make_app(REFRESH_WORKERS=0)
    calls: list[dict[str, Any]] = []

    def seen() -> str:
        page = f"{view()} {len(calls)}"
        environ = request.environ["werkzeug.request"].__dict__["environ"]._plain
        calls.append({"cookie": environ.get("HTTP_COOKIE"), "refreshes": cache.refreshing})
        return page

    app.add_url_rule("/", "page", cache.cached(10, 600, jitter=0, **named)(seen))
    return app, cache, calls


def test_a_refresh_has_the_named_cookies_alone(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, _, calls = refreshed_site(make_app, in_language, cookies=["lang"])
    ann = {"Cookie": "user=ann; lang=de; _ga=1"}
    visit(app, "/", ann), visit(app, "/", FRENCH)
    clock.shift(20)
    assert visit(app, "/", {"Cookie": "user=bob; lang=de"}).page == ("STALE", "in de 0")
    assert calls[2:] == [{"cookie": "lang=de", "refreshes": True}]
    assert [visit(app, "/", ann).page, visit(app, "/", FRENCH).page] == [("HIT", "in de 2"), ("STALE", "in fr 1")]


def test_a_refresh_has_a_session_of_the_named_values_alone(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    held: list[dict[str, Any]] = []

    def view() -> str:
        held.append(dict(session.items()) if app.extensions["stalecache"] and _refreshing() else {})
        return in_session()

    def _refreshing() -> bool:
        return cache.refreshing

    app, cache, calls = refreshed_site(make_app, view, session=["lang"])
    visit(app, "/", signed(lang="de", user="ann"))
    clock.shift(20)
    answer = visit(app, "/", signed(lang="de", user="bob"))
    assert answer.page == ("STALE", "in de 0")
    assert (calls[1], held[1]) == ({"cookie": None, "refreshes": True}, {"lang": "de"})


def test_what_a_refresh_changes_in_its_session_is_not_saved(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app, cache, _ = refreshed_site(make_app, in_session, session=["lang"])
    saved: list[Any] = []

    @app.before_request
    def count() -> None:
        if cache.refreshing:
            session["seen"] = 1

    save = app.session_interface.save_session
    app.session_interface.save_session = lambda *given: saved.append(given[1]) or save(*given)  # type: ignore[method-assign,func-returns-value]
    visit(app, "/", signed(lang="de"))
    clock.shift(20)
    visit(app, "/", signed(lang="de"))
    assert visit(app, "/", signed(lang="de")).page == ("HIT", "in de 1")
    assert not any(kept.modified and "seen" in kept for kept in saved)


@pytest.mark.parametrize(
    ("named", "who", "told"),
    [
        ({"cookies": ["lang"]}, lambda: GERMAN, "the value of Cookie is not kept"),
        ({"session": ["lang"]}, lambda: signed(lang="de"), "the value of the session key lang is not kept"),
    ],
)
def test_what_is_not_kept_is_renewed_behind_a_visitor(
    make_app: MakeApp, clock: time_machine.Traveller, named: dict[str, Any], who: Callable[[], Fields], told: str
) -> None:
    ann = who()
    app, cache, calls = refreshed_site(make_app, lambda: "page", **named)
    visit(app, "/", ann), visit(app, "/", NOBODY)
    with app.app_context():
        batch = cache.publish("/")
        cache.drain()
    assert len(calls) == 3
    reason = f"{told}: the next visitor who sends it has it refreshed"
    assert sorted(outcome.reason for outcome in batch.outcomes) == ["", reason]
    assert visit(app, "/", NOBODY).page == ("HIT", "page 2")
    assert visit(app, "/", ann).page == ("STALE", "page 0")
    assert visit(app, "/", ann).page == ("HIT", "page 3")


def test_a_purge_of_the_url_reaches_all_variants(make_app: MakeApp) -> None:
    app, cache = make_app()
    shown(in_language, cookies=["lang"])(app, cache)
    for visitor in (GERMAN, FRENCH, NOBODY):
        visit(app, "/", visitor)
    with app.app_context():
        assert cache.purge("/")
    assert [visit(app, "/", visitor).word for visitor in (GERMAN, FRENCH, NOBODY)] == ["MISS"] * 3


# -- what can't be named -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cookies": "lang"}, "cookies='lang' is not a sequence of names"),
        ({"cookies": ["a b"]}, "cookies contains 'a b', which no cookie can be named"),
        ({"cookies": ["a=b"]}, "cookies contains 'a=b'"),
        ({"cookies": [1]}, "cookies contains 1"),
        ({"cookies": {"lang": "de"}}, r"cookies\['lang'\]='de' is not a normaliser"),
        ({"session": "lang"}, "session='lang' is not a sequence of names"),
        ({"session": [""]}, "session contains ''"),
        ({"session": {"lang": 1}}, r"session\['lang'\]=1 is not a normaliser"),
        ({"session": ["_flashes"]}, "messages are shown once"),
        ({"session": ["csrf_token"]}, "another one for each visitor"),
        ({"vary": ["Cookie"]}, r"name those that matter, such as cookies=\['lang'\]"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Policy(**given)


def test_the_cookie_of_the_session_is_not_named(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    assert play(make_app, shown(in_session, cookies=["session"]), signed(lang="de")) == ["BYPASS"]
    assert "name values of the session in session=" in caplog.text


@pytest.mark.parametrize("named", [{"cookies": ["lang"]}, {"session": ["lang"]}])
def test_a_view_of_the_gateway_needs_a_rule(make_app: MakeApp, named: dict[str, Any]) -> None:
    _, cache = make_app()
    with pytest.raises(ConfigError, match="write a rule for its path in STALECACHE_GATEWAY"):
        cache.cached(60, gateway=True, **named)
