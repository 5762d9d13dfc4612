"""In front of an app that can't be observed: rules that name the cookies that matter.

Covers ``frontends.gateway.app_environ`` and ``frontends.gateway.own_answers``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
import time_machine

from flask_stalecache import ConfigError, GatewayCache, Policy
from support.threads import PATIENCE, go, results
from support.wsgi_apps import App, ask

GERMAN, FRENCH = {"HTTP_COOKIE": "lang=de"}, {"HTTP_COOKIE": "lang=fr"}
ANN, BOB = {"HTTP_COOKIE": "sessionid=ann; lang=de; _ga=1"}, {"HTTP_COOKIE": "sessionid=bob; lang=de; _ga=2"}


def cookies_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return cookies as Django reads them: the last one of a name."""
    parts = (part.partition("=") for part in environ.get("HTTP_COOKIE", "").split(";"))
    return {name.strip(): value.strip() for name, _, value in parts if name.strip()}


def speaking(*fields: tuple[str, str], read: Callable[[Mapping[str, Any]], Mapping[str, str]] = cookies_of) -> App:
    """Return an app whose pages depend on two cookies."""

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", list(fields))
        found = read(environ)
        return [f"{found.get('lang', 'en')} for {found.get('sessionid', 'strangers')}".encode()]

    return App(answer)


def cached(app: App, directory: Path, **policy: Any) -> GatewayCache:
    policy = {"max_age": 10, "stale_while_revalidate": 600, "jitter": 0, "cookies": ["lang"], **policy}
    return GatewayCache(app, dir=directory, refresh_workers=0, rules={"/*": Policy(**policy)})


@pytest.mark.parametrize("fields", [(), (("Vary", "Cookie"),), (("Vary", "Cookie, Accept-Language"),)], ids=str)
def test_named_cookies_make_variants_and_others_none(directory: Path, fields: Any) -> None:
    gateway = cached(speaking(*fields), directory)
    pages = [ask(gateway, **visitor).page for visitor in (ANN, BOB, GERMAN, FRENCH, ANN, {}, {"HTTP_COOKIE": "_ga=3; x=1"})]
    assert pages == [
        ("MISS", b"de for strangers"),
        ("HIT", b"de for strangers"),
        ("HIT", b"de for strangers"),
        ("MISS", b"fr for strangers"),
        ("HIT", b"de for strangers"),
        ("MISS", b"en for strangers"),
        ("HIT", b"en for strangers"),
    ]
    assert "Cookie" in dict(ask(gateway, **ANN).fields)["Vary"]


def test_the_values_are_not_in_keys_or_recipes(directory: Path) -> None:
    gateway = cached(speaking(), directory)
    ask(gateway, HTTP_COOKIE="lang=very-secret; sessionid=ann-secret")
    assert "secret" not in repr([stored.entry.key + repr(stored.entry.recipe) for stored in gateway._engine.store.walk()])


@pytest.mark.parametrize(
    ("visitors", "answered"),
    [
        (["lang=de; lang=fr", "lang=fr; lang=de", "lang=de", "lang=de; lang=fr"], "MMMH"),
        (["lang=", "", "x=lang=de", "lang="], "MMHH"),
        (['lang="de"', "lang=de", 'lang="de'], "MMM"),
        (["lang=\xc3\xa9", "lang=\xc3\xa8", "lang=\xc3\xa9"], "MMH"),
        ([" lang = de ;a=b", "lang = de"], "MH"),
        (['x="a; lang=de; b"; lang=fr', "lang=fr", "lang=de; lang=fr"], "MMH"),
    ],
)
def test_what_is_stored_is_what_the_key_says(directory: Path, visitors: list[str], answered: str) -> None:
    app = speaking()
    gateway, said = cached(app, directory), ""
    for cookie in visitors:
        environ = {"HTTP_COOKIE": cookie} if cookie else {}
        seen = ask(gateway, **environ)
        assert seen.body == ask(app, **environ).body
        said += seen.word[0]
    assert said == answered


def _simple(environ: Mapping[str, Any]) -> dict[str, str]:
    return {name: morsel.value for name, morsel in SimpleCookie(environ.get("HTTP_COOKIE", "")).items()}


@pytest.mark.parametrize("read", [cookies_of, _simple])
def test_no_visitor_puts_another_page_under_a_normalised_value(
    directory: Path, read: Callable[[Mapping[str, Any]], Mapping[str, str]]
) -> None:
    """What parsers read in different ways is never normalised."""
    normalise: Callable[[str | None], str] = lambda value: value if value in ("de", "fr") else "en"  # noqa: E731
    app = speaking(read=read)
    gateway = cached(app, directory, cookies={"lang": normalise})
    for odd in ('lang="fr; lang=de"', "lang=de; lang=fr", r'lang="\144e"', "lang=de fr", "lang=de,lang=fr", "lang=xx"):
        ask(gateway, HTTP_COOKIE=odd)
    assert ask(gateway, **GERMAN).body == b"de for strangers"
    assert ask(gateway, **FRENCH).body == b"fr for strangers"


def test_a_normaliser_bounds_the_variants(directory: Path) -> None:
    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [normalise(cookies_of(environ).get("lang")).encode()]

    normalise: Callable[[str | None], str] = lambda value: value if value in ("de", "fr") else "en"  # noqa: E731
    gateway = cached(App(answer), directory, cookies={"lang": normalise})
    words = [ask(gateway, HTTP_COOKIE=f"lang=x{number}").word for number in range(40)]
    assert words == ["MISS"] + ["HIT"] * 39
    assert [ask(gateway, **GERMAN).page, ask(gateway, **GERMAN).page] == [("MISS", b"de"), ("HIT", b"de")]


@pytest.mark.parametrize("normalise", [lambda value: 1 / 0, lambda value: b"de"])
def test_a_normaliser_that_fails_makes_no_error(directory: Path, normalise: Any, caplog: pytest.LogCaptureFixture) -> None:
    gateway = cached(speaking(), directory, cookies={"lang": normalise})
    assert [ask(gateway, **ANN).page for _ in range(2)] == [("BYPASS", b"de for ann")] * 2
    assert "/* is live, since its key can't be made: the normaliser cookies['lang']" in caplog.text


@pytest.mark.parametrize("normalise", [lambda value: 1 / 0, lambda value: b"de"])
def test_a_normaliser_of_a_field_that_fails_makes_no_error(
    directory: Path, normalise: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = GatewayCache(speaking(), dir=directory, rules={"/*": Policy(max_age=60, vary={"X-A": normalise})})
    assert [ask(gateway, **GERMAN).page for _ in range(2)] == [("BYPASS", b"de for strangers")] * 2
    assert "/* is live, since its key can't be made" in caplog.text


def test_two_values_are_filled_side_by_side(directory: Path) -> None:
    meet = threading.Barrier(2, timeout=PATIENCE)

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        meet.wait()
        start_response("200 OK", [])
        return [cookies_of(environ)["lang"].encode()]

    gateway = cached(App(answer), directory)
    asking = [go(partial(ask, gateway, HTTP_COOKIE=f"lang={lang}")) for lang in ("de", "fr")]
    assert sorted(got.body for got in results(asking)) == [b"de", b"fr"]
    assert [ask(gateway, **visitor).page for visitor in (GERMAN, FRENCH)] == [("HIT", b"de"), ("HIT", b"fr")]


def test_ever_new_values_are_not_stored(directory: Path) -> None:
    gateway = cached(speaking(), directory)
    for number in range(40):
        ask(gateway, HTTP_COOKIE=f"lang=x{number}; sessionid=ann")
    assert len([*gateway._engine.store.walk()]) == 16
    assert ask(gateway, HTTP_COOKIE="lang=y; sessionid=ann").body == b"y for ann"


# -- what is not stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [("Set-Cookie", "csrftoken=1"), ("Cache-Control", "private"), ("Cache-Control", "no-store")])
def test_a_page_that_is_not_stored_is_the_visitors_own(directory: Path, field: tuple[str, str]) -> None:
    """As it would be without a cache, also at the first request."""
    gateway = cached(speaking(field), directory)
    assert [ask(gateway, **visitor).body for visitor in (ANN, BOB, ANN, {})] == [
        b"de for ann", b"de for bob", b"de for ann", b"en for strangers",
    ]  # fmt: skip


def test_a_redirect_to_the_login_is_for_strangers_alone(directory: Path) -> None:
    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        who = cookies_of(environ).get("sessionid")
        start_response("200 OK" if who else "302 Found", [] if who else [("Location", "/login")])
        return [f"account of {who}".encode()]

    gateway = cached(App(answer), directory)
    assert [ask(gateway, **visitor).body for visitor in (ANN, BOB, GERMAN)] == [
        b"account of ann", b"account of bob", b"account of None",
    ]  # fmt: skip


@pytest.mark.parametrize("field", [("Cache-Control", "no-store"), ("Set-Cookie", "csrftoken=1")])
def test_the_app_is_asked_again_after_a_minute(directory: Path, clock: time_machine.Traveller, field: tuple[str, str]) -> None:
    """A page that was not for everybody may be so by now."""
    fields, calls = [field], []

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ.get("HTTP_COOKIE"))
        start_response("200 OK", list(fields))
        return [b"page"]

    gateway = cached(App(answer), directory)
    for visitor in (ANN, BOB, ANN):
        ask(gateway, **visitor)
    assert calls == ["lang=de", ANN["HTTP_COOKIE"], BOB["HTTP_COOKIE"], ANN["HTTP_COOKIE"]]
    # After a minute, the first visitor makes two calls again, and each later one makes one.
    clock.shift(60)
    calls.clear()
    for visitor in (BOB, ANN):
        ask(gateway, **visitor)
    assert calls == ["lang=de", BOB["HTTP_COOKIE"], ANN["HTTP_COOKIE"]]
    fields.clear()
    assert "HIT" not in [ask(gateway, **visitor).word for visitor in (ANN, BOB)]
    clock.shift(60)
    assert [ask(gateway, **visitor).word for visitor in (ANN, BOB)] == ["MISS", "HIT"]


def test_no_visitor_keeps_the_pages_of_others_out_of_the_store(directory: Path) -> None:
    """Requests whose answers are not stored for another reason (HEAD, Authorization, a 403) say nothing about other visitors."""

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        is_bot = environ.get("HTTP_USER_AGENT") == "bot"
        start_response("403 Forbidden" if is_bot else "200 OK", [])
        return [b"no" if is_bot else b"page"]

    gateway = cached(App(answer), directory)
    ask(gateway, method="HEAD", **ANN)
    ask(gateway, HTTP_AUTHORIZATION="Bearer of ann", **ANN)
    ask(gateway, HTTP_USER_AGENT="bot", **ANN)
    assert [ask(gateway, **visitor).word for visitor in (BOB, ANN)][-1] == "HIT"


def test_other_methods_keep_all_cookies(directory: Path) -> None:
    gateway = cached(speaking(), directory)
    assert ask(gateway, method="POST", **ANN).body == b"de for ann"


# -- refreshes ---------------------------------------------------------------------------------------------------------


def test_a_refresh_has_the_named_cookies_alone(directory: Path, clock: time_machine.Traveller) -> None:
    seen: list[str | None] = []

    def answer(environ: Mapping[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ.get("HTTP_COOKIE"))
        start_response("200 OK", [])
        return [f"{cookies_of(environ).get('lang')} {len(seen)}".encode()]

    gateway = cached(App(answer), directory)
    ask(gateway, **ANN), ask(gateway, **FRENCH)
    clock.shift(20)
    assert ask(gateway, **BOB).page == ("STALE", b"de 1")
    assert seen == ["lang=de", "lang=fr", "lang=de"]
    assert [ask(gateway, **visitor).page for visitor in (ANN, FRENCH)] == [("HIT", b"de 3"), ("STALE", b"fr 2")]


def test_what_has_a_value_is_renewed_behind_a_visitor(directory: Path, clock: time_machine.Traveller) -> None:
    app = speaking()
    gateway = cached(app, directory)
    ask(gateway, **ANN), ask(gateway)
    batch = gateway.publish("/")
    gateway.drain()
    assert sorted(outcome.reason for outcome in batch.outcomes) == [
        "", "the value of Cookie is not kept: the next visitor who sends it has it refreshed",
    ]  # fmt: skip
    assert [ask(gateway, **visitor).word for visitor in ({}, BOB, BOB)] == ["HIT", "STALE", "HIT"]


def test_purges_reach_all_variants(directory: Path) -> None:
    gateway = cached(speaking(), directory)
    for visitor in (ANN, FRENCH, {}):
        ask(gateway, **visitor)
    gateway.purge("/")
    assert [ask(gateway, **visitor).word for visitor in (ANN, FRENCH, {})] == ["MISS"] * 3
    ask(gateway, method="POST")
    assert [ask(gateway, **visitor).word for visitor in (ANN, FRENCH, {})] == ["MISS"] * 3


def test_values_of_a_session_are_unknown(directory: Path) -> None:
    with pytest.raises(ConfigError, match="knows nothing of the sessions of its app: name cookies in cookies="):
        GatewayCache(speaking(), dir=directory, rules={"/*": Policy(session=["lang"])})
    with pytest.raises(ConfigError, match="session_opener"):
        GatewayCache(speaking(), dir=directory, session_opener=lambda app, request: None)
