"""Whether a response may be stored at all. Test ids name the rules of docs/rules.rst."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stalecache.core.http.cache_control import request_directives, response_directives
from flask_stalecache.core.http.storing import UNDERSTOOD, may_be_shared, refusal

CC, OURS = "Cache-Control", "Stalecache-Cache-Control"
LATER = "Thu, 01 Jan 2037 00:00:00 GMT"
FRESH = "max-age=60"


def refused(
    said: str = FRESH,
    *more: tuple[str, str],
    method: str = "GET",
    status: int = 200,
    asked: str | None = None,
    authorized: bool = False,
    configured: bool = False,
) -> str:
    headers = [(CC, said), *more] if said else list(more)
    found = refusal(
        method=method,
        status=status,
        request=request_directives(asked, None),
        authorized=authorized,
        directives=response_directives(headers),
        headers=iter(headers),
        configured=configured,
    )
    return "" if found is None else found.text


STORED: list[Any] = [
    pytest.param([FRESH], {}, id="rule1-max-age"),
    pytest.param([""], {}, id="rule1-heuristically-cacheable"),
    pytest.param(["no-cache"], {}, id="rule1-no-cache-is-stored-to-be-confirmed"),
    pytest.param(['no-cache="x"'], {}, id="rule2-qualified-no-cache-too"),
    pytest.param(["must-revalidate"], {}, id="rule1-must-revalidate"),
    pytest.param(["max-age=0"], {"status": 403}, id="rule1-said-to-be-stale-is-said"),
    pytest.param([FRESH], {"status": 302}, id="rule1-redirect-with-max-age"),
    pytest.param([FRESH], {"status": 404}, id="rule1-404-with-max-age"),
    pytest.param([FRESH], {"status": 599}, id="rule1-unknown-status-with-max-age"),
    pytest.param([FRESH], {"status": 299}, id="rule1-unknown-success-with-max-age"),
    pytest.param(["s-maxage=5"], {"status": 403}, id="rule1-s-maxage"),
    pytest.param(["public"], {"status": 599}, id="rule1-public"),
    pytest.param(["", ("Expires", LATER)], {"status": 403}, id="rule1-expires"),
    pytest.param(["", ("Expires", "0")], {"status": 403}, id="rule1-expires-in-the-past-is-said-too"),
    pytest.param([""], {"status": 403, "configured": True}, id="rule1-configured"),
    pytest.param([FRESH, ("Pragma", "no-cache")], {}, id="rule1-pragma-of-a-response-means-nothing"),
    pytest.param(["no-store, must-understand, max-age=5"], {}, id="rule3-must-understand-over-no-store"),
    pytest.param(["must-understand, max-age=5"], {"status": 404}, id="rule3-must-understand-alone"),
    pytest.param(["public, max-age=5"], {"authorized": True}, id="rule4-public"),
    pytest.param(["s-maxage=5"], {"authorized": True}, id="rule4-s-maxage"),
    pytest.param(["must-revalidate, max-age=5"], {"authorized": True}, id="rule4-must-revalidate"),
    pytest.param([FRESH, ("Vary", "Accept")], {}, id="rule9-vary"),
    pytest.param(["no-store", (OURS, "max-age=5")], {}, id="rule28-targeted-lifts-a-prohibition"),
    pytest.param([FRESH], {"asked": "no-cache, max-age=0"}, id="rule15-a-reload-may-be-stored"),
]
REFUSED: list[Any] = [
    pytest.param([FRESH], {"method": "HEAD"}, "only an answer to GET", id="rule1-head"),
    pytest.param([FRESH], {"method": "POST"}, "only an answer to GET", id="rule1-post"),
    pytest.param([FRESH], {"method": "get"}, "only an answer to GET", id="rule1-methods-have-a-case"),
    pytest.param([FRESH], {"status": 103}, "status 103 is not final", id="rule1-interim"),
    pytest.param([FRESH], {"status": 600}, "status 600 is not final", id="rule1-no-status"),
    pytest.param(["no-store"], {}, "Cache-Control: no-store", id="rule1-no-store"),
    pytest.param(["No-Store, max-age=5"], {}, "Cache-Control: no-store", id="rule1-no-store-in-any-case"),
    pytest.param(['foo=\\"bar, no-store'], {}, "Cache-Control: no-store", id="rule12-no-store-behind-a-broken-quote"),
    pytest.param([FRESH], {"asked": "no-store"}, "the request says no-store", id="rule1-no-store-in-the-request"),
    pytest.param(["private, max-age=5"], {}, "Cache-Control: private", id="rule1-private"),
    pytest.param(['private="x", max-age=5'], {}, "Cache-Control: private", id="rule2-qualified-private"),
    pytest.param(["private, public"], {}, "Cache-Control: private", id="rule1-private-over-public"),
    pytest.param([""], {"status": 403}, "nothing says how long", id="rule1-not-heuristically-cacheable"),
    pytest.param(["foo"], {"status": 302}, "nothing says how long", id="rule1-redirect-without-freshness"),
    pytest.param(["", (OURS, "foo"), ("Expires", LATER)], {"status": 403}, "nothing says", id="rule28-targeted-replaces-expires"),
    pytest.param(["no-store, must-understand"], {"status": 599}, "must-understand", id="rule3-not-understood"),
    pytest.param(["must-understand, max-age=5"], {"status": 299}, "must-understand", id="rule3-not-understood-without-no-store"),
    pytest.param(["no-store, must-understand"], {"asked": "no-store"}, "the request", id="rule3-the-requests-no-store-still-binds"),
    pytest.param(["no-store, must-understand, private"], {}, "Cache-Control: private", id="rule3-private-still-binds"),
    pytest.param([FRESH], {"authorized": True}, "Authorization", id="rule4-authorization"),
    pytest.param(["proxy-revalidate, max-age=5"], {"authorized": True}, "Authorization", id="rule4-proxy-revalidate-is-no-leave"),
    pytest.param(["public", (OURS, FRESH)], {"authorized": True}, "Authorization", id="rule4-targeted-alone-counts"),
    pytest.param([FRESH, ("set-cookie", "a=b")], {}, "sets a cookie", id="rule6-set-cookie"),
    pytest.param(["public, max-age=5", ("Set-Cookie", "a=b")], {}, "sets a cookie", id="rule6-also-if-public"),
    pytest.param([FRESH], {"status": 206}, "status 206 is a part", id="rule7-206"),
    pytest.param([FRESH], {"status": 304}, "status 304 is a part", id="rule7-304"),
    pytest.param([""], {"status": 206, "configured": True}, "status 206 is a part", id="rule7-206-whatever-is-configured"),
    pytest.param([FRESH, ("Vary", "*")], {}, "Vary: *", id="rule9-star"),
    pytest.param([FRESH, ("Vary", "Accept"), ("Vary", "Foo, *")], {}, "Vary: Accept, Foo, *", id="rule9-star-among-others"),
    pytest.param([FRESH, ("X-A", "1\r\nSet-Cookie: a=b")], {}, "'X-A' can't be sent", id="a-line-end-in-a-value"),
    pytest.param([FRESH, ("X A", "1")], {}, "'X A' can't be sent", id="not-the-name-of-a-field"),
]


@pytest.mark.parametrize(("said", "how"), STORED)
def test_a_response_may_be_stored(said: list[Any], how: dict[str, Any]) -> None:
    assert refused(*said, **how) == ""


@pytest.mark.parametrize(("said", "how", "why"), REFUSED)
def test_a_response_must_not_be_stored(said: list[Any], how: dict[str, Any], why: str) -> None:
    assert why in refused(*said, **how)


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_rule1_these_statuses_may_be_stored_unsaid(status: int) -> None:
    assert refused("", status=status) == ""
    assert status in UNDERSTOOD


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 401, 403, 429, 500, 502, 503, 504, 599])
def test_rule1_these_statuses_must_be_told_so(status: int) -> None:
    assert "nothing says how long" in refused("", status=status)
    assert refused(FRESH, status=status) == ""


def test_rule3_parts_and_interim_answers_are_not_understood() -> None:
    assert not UNDERSTOOD & {100, 101, 103, 206, 299, 304, 499, 599}


@pytest.mark.parametrize(
    ("line", "shared"),
    [("public", True), ("s-maxage=0", True), ("must-revalidate", True), ("max-age=5", False), ("", False), ("publicx", False)],
)
def test_rule4_who_may_be_served_what_an_authorized_request_got(line: str, shared: bool) -> None:
    assert may_be_shared(response_directives([(CC, line)])) is shared


@given(st.text('ab-=",;\\ 019', max_size=20), st.sampled_from(["no-store", "private", 'private="a"']), st.booleans())
def test_rule1_a_prohibition_binds_whatever_stands_before_it(other: str, prohibition: str, configured: bool) -> None:
    assert refused(f"{other},{prohibition}", configured=configured) != ""
