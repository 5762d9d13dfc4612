"""Which fields are taken away from a response before it is stored."""

from __future__ import annotations

import pytest

from flask_stalecache.core.http.unset import cookie_refusal, cookies_set, sessions_set, without_sessions, without_unset
from flask_stalecache.core.model.reasons import Refusal, StoreRefusal

PLAIN = ("Content-Type", "text/plain")


def setting(*lines: str, **fields: str) -> list[tuple[str, str]]:
    return [PLAIN, *(("Set-Cookie", line) for line in lines), *fields.items()]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("seen=1",),
        ("seen=1; Path=/; HttpOnly", "consent=yes"),
        ("_ga=GA1.2.3",),
        ("AWSALB=x",),
        ("lang=session",),
        ("lesson=1",),
        ("aside=1",),
        ("nameless",),
        ("",),
    ],
)
def test_a_cookie_of_no_session_may_be_taken_away(lines: tuple[str, ...]) -> None:
    assert cookie_refusal(setting(*lines), {"s"}) is None


@pytest.mark.parametrize(
    "name",
    [
        "session",
        "sessionid",
        "PHPSESSID",
        "JSESSIONID",
        "__Host-Session",
        "csrftoken",
        "XSRF-TOKEN",
        "access_token_cookie",
        "remember_token",
        "connect.sid",
        "sid",
        "auth",
        "jwt",
        "my-sso",
        "login",
    ],
)
def test_a_cookie_by_which_a_visitor_is_known_stays(name: str) -> None:
    told = Refusal(StoreRefusal.SETS_SESSION, f"the cookie {name!r}")
    assert cookie_refusal(setting("seen=1", f"{name}=abc; Path=/")) == told
    # Also where the response deletes the cookie: a hit without that field would log nobody out.
    assert cookie_refusal(setting(f"{name}=; Max-Age=0")) == told


def test_the_cookie_of_the_app_s_session_stays_whatever_its_name_is() -> None:
    assert cookie_refusal(setting("s=abc"), {"s"}) == Refusal(StoreRefusal.SETS_SESSION, "the cookie 's'")
    assert cookie_refusal(setting("s=abc"), {"t"}) is None


@pytest.mark.parametrize("varied", ["Cookie", "Accept-Encoding, cookie"])
def test_a_cookie_beside_vary_cookie_stays_unless_the_reads_tell_more(varied: str) -> None:
    fields = setting("seen=1", Vary=varied)
    assert cookie_refusal(fields) == Refusal(StoreRefusal.COOKIE_IN_VARY)
    assert cookie_refusal(fields, is_varied=False) is None
    assert cookie_refusal(setting(Vary=varied)) is None


def test_the_values_of_cookies_are_without_quotes_and_attributes() -> None:
    assert cookies_set(setting('a="b c"; Path=/', " d = e ", "f")) == [("a", "b c"), ("d", "e"), ("f", "")]


def test_fields_are_taken_away_in_any_case_and_on_all_lines() -> None:
    fields = [PLAIN, ("SERVER", "x"), ("Set-Cookie", "a=1"), ("server", "y"), ("set-cookie", "b=2")]
    unset = frozenset({"server", "set-cookie"})
    assert without_unset(fields, unset, None) == [PLAIN]
    kept = [PLAIN, ("Set-Cookie", "a=1"), ("set-cookie", "b=2")]
    assert without_unset(fields, unset, Refusal(StoreRefusal.COOKIE_IN_VARY)) == kept


def test_the_cookies_of_sessions_are_told_from_others() -> None:
    fields = [
        PLAIN,
        ("Set-Cookie", "session=a; Path=/"),
        ("set-cookie", " session =b"),
        ("Set-Cookie", "sessions=c"),
        ("X", "session=d"),
    ]
    assert sessions_set(fields, {"session"}) == [fields[1], fields[2]]
    assert without_sessions(fields, {"session"}) == [PLAIN, fields[3], fields[4]]
    assert (sessions_set(fields, ()), without_sessions(fields, ())) == ([], fields)
