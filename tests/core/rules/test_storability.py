"""Which answers are stored, with which windows, and what they do to the stored entry."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_stalecache import Policy
from flask_stalecache.core.http.cache_control import response_directives
from flask_stalecache.core.model.inputs import RequestInputs
from flask_stalecache.core.model.policy import FAILURE_STATUSES, Windows
from flask_stalecache.core.model.reasons import Refusal, StoreRefusal
from flask_stalecache.core.rules.storability import Action, Facts, Judgement, Verdict, after, judge, speaks_for_itself
from support.serving import NOON

MODIFIED = Refusal(StoreRefusal.MODIFIED_SESSION)

# -- what an answer is to the store ----------------------------------------------------------------------------------


DEFAULTS = Windows(77.0, 600.0, 86400.0)

MAX_SIZE = 1000

IN_KEY = frozenset({"host", "accept-language"})

SESSION = RequestInputs(cookies=("session",))


def judged(
    *headers: tuple[str, str], policy: Policy | None = None, status: int = 200, size: int | None = 10, **facts: Any
) -> Judgement:
    about = Facts(status=status, headers=headers, size=size, directives=response_directives(headers), in_key=IN_KEY, **facts)
    return judge(about, Policy() if policy is None else policy, DEFAULTS, MAX_SIZE, NOON)


def cc(line: str) -> tuple[str, str]:
    return "Cache-Control", line


STORABLE: list[Any] = [
    pytest.param([], {}, id="a page that says nothing"),
    pytest.param([], {"status": 301}, id="301"),
    pytest.param([], {"status": 308}, id="308"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={404: 60})}, id="a listed status"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={404: None})}, id="a status listed without lifetime"),
    pytest.param([], {"size": 0}, id="empty over nothing"),
    pytest.param([], {"had_content": True}, id="content over content"),
    pytest.param([], {"size": 1, "had_content": True}, id="little content over content"),
    pytest.param([], {"size": 0, "had_content": True, "policy": Policy(statuses={200: None})}, id="empty over content, 200 listed"),
    pytest.param([], {"size": 0, "had_content": True, "status": 204, "policy": Policy(statuses={204: 5})}, id="204 listed"),
    pytest.param([], {"size": MAX_SIZE}, id="as large as allowed"),
    pytest.param([cc("public, max-age=5")], {}, id="public"),
    pytest.param([cc("must-revalidate")], {}, id="must-revalidate is stored, and never stale"),
    pytest.param([cc("max-age=0")], {}, id="max-age 0 is stored, and stale at once"),
    pytest.param([cc("no-storey, xprivate")], {}, id="words that begin or end like prohibitions"),
    pytest.param([cc('foo="private, no-store"')], {}, id="prohibitions in quotes"),
    pytest.param([cc("private"), ("Stalecache-Cache-Control", "max-age=5")], {}, id="a targeted field replaces private"),
    pytest.param([("Vary", "Accept-Language")], {}, id="Vary in the key"),
    pytest.param([("Vary", "host"), ("vary", "ACCEPT-LANGUAGE")], {}, id="several Vary in the key, in any case"),
    pytest.param([("Vary", "")], {}, id="an empty Vary"),
    pytest.param([("X-Set-Cookie", "a=1")], {}, id="a field that is not Set-Cookie"),
]


@pytest.mark.parametrize(("headers", "facts"), STORABLE)
def test_an_answer_that_may_be_stored(headers: Iterable[tuple[str, str]], facts: dict[str, Any]) -> None:
    judgement = judged(*headers, **facts)
    assert (judgement.verdict, judgement.reason) == (Verdict.STORABLE, None)


UNSTORABLE: list[Any] = [
    pytest.param([cc("no-store")], {}, "no-store", id="no-store"),
    pytest.param([cc("private")], {}, "private", id="private"),
    pytest.param([cc("no-cache")], {}, "no-cache", id="no-cache"),
    pytest.param([cc("max-age=60"), cc("PRIVATE")], {}, "private", id="private on a second line"),
    pytest.param([cc('private="a, b"')], {}, "private", id="rule2 qualified private"),
    pytest.param([cc('no-cache="a"')], {}, "no-cache", id="rule2 qualified no-cache"),
    pytest.param([cc("max-age=60"), ("Stalecache-Cache-Control", "private")], {}, "private", id="a targeted field says private"),
    pytest.param([("CDN-Cache-Control", "no-store")], {}, "no-store", id="CDN-Cache-Control says no-store"),
    pytest.param([cc("no-store")], {"policy": Policy(max_age=60)}, "no-store", id="no-store against code"),
    pytest.param([cc("private")], {"policy": Policy(statuses={200: 60})}, "private", id="private against listed status"),
    pytest.param([("Set-Cookie", "a=1")], {}, "sets a cookie", id="Set-Cookie"),
    pytest.param([("set-cookie", "a=1")], {}, "sets a cookie", id="set-cookie in lower case"),
    pytest.param([cc("public"), ("Set-Cookie", "a=1")], {}, "sets a cookie", id="Set-Cookie beside public"),
    pytest.param([("Vary", "*")], {}, "*", id="Vary: *"),
    pytest.param([("Vary", "Accept-Language, *")], {}, "*", id="Vary: * among others"),
    pytest.param([("Vary", "Cookie")], {}, "Vary names cookie", id="Vary outside the key"),
    pytest.param([("Vary", "Accept-Language, X-B, X-A")], {}, "vary=['x-a', 'x-b']", id="Vary partly outside the key"),
    pytest.param([("X-A", "€")], {}, "'X-A' can't be sent", id="a value outside Latin-1"),
    pytest.param([], {"size": None}, "stream", id="a stream"),
    pytest.param([], {"size": MAX_SIZE + 1}, "STALECACHE_MAX_ENTRY_SIZE", id="a byte too large"),
    pytest.param([], {"refusal": MODIFIED}, "modified the session", id="a refusal seen while it was made"),
    pytest.param([], {"status": 404, "policy": Policy(statuses={410: 60})}, "404", id="a status not listed"),
    *[
        pytest.param([], {"status": status}, str(status), id=f"status {status}")
        for status in (201, 202, 203, 204, 205, 206, 300, 302, 303, 304, 307, 400, 401, 403, 404, 410, 451, 501, 505)
    ],
]


@pytest.mark.parametrize(("headers", "facts", "reason"), UNSTORABLE)
def test_an_answer_that_can_not_be_stored_says_why(headers: Iterable[tuple[str, str]], facts: dict[str, Any], reason: str) -> None:
    judgement = judged(*headers, **facts)
    assert judgement.verdict is Verdict.UNSTORABLE
    assert judgement.reason is not None
    assert reason in judgement.reason.text


@pytest.mark.parametrize("status", sorted(FAILURE_STATUSES))
@pytest.mark.parametrize(
    ("headers", "facts"),
    [
        ([], {}),
        ([cc("public, max-age=60")], {}),
        ([cc("no-store")], {}),
        ([], {"size": None}),
        ([], {"carried": SESSION}),
        ([], {"refusal": MODIFIED}),
    ],
    ids=["plain", "public", "no-store", "stream", "carried", "refused"],
)
def test_rule18_a_failure_is_a_failure_whatever_else_it_says(
    status: int, headers: Iterable[tuple[str, str]], facts: dict[str, Any]
) -> None:
    assert judged(*headers, status=status, **facts).verdict is Verdict.FAILED


def test_failures_are_those_of_rfc_5861_and_too_many_requests() -> None:
    assert {429, 500, 502, 503, 504} == FAILURE_STATUSES


@pytest.mark.parametrize("carried", [SESSION, RequestInputs(headers=("x-user",))])
def test_an_answer_made_for_who_carries_a_name_is_personal(carried: RequestInputs) -> None:
    assert judged(carried=carried).verdict is Verdict.PERSONAL


@pytest.mark.parametrize(
    ("headers", "facts"),
    [
        ([cc("private")], {}),
        ([cc("no-store")], {}),
        ([("Set-Cookie", "a=1")], {}),
        ([], {"refusal": MODIFIED}),
    ],
    ids=["private", "no-store", "Set-Cookie", "session modified"],
)
def test_what_is_refused_for_who_carries_a_name_says_nothing_of_the_others(
    headers: Iterable[tuple[str, str]], facts: dict[str, Any]
) -> None:
    # A view may say "private" to members only. The anonymous visitors who wait behind a member must not all run it.
    assert judged(*headers, carried=SESSION, **facts).verdict is Verdict.PERSONAL


def test_an_empty_page_does_not_replace_one_with_content() -> None:
    judgement = judged(size=0, had_content=True)
    assert judgement.verdict is Verdict.FAILED
    assert after(judgement.verdict, stored=True) is Action.KEEP


@pytest.mark.parametrize("status", [204, 205])
def test_a_status_without_content_does_not_take_away_a_page_that_had_some(status: int) -> None:
    judgement = judged(status=status, size=0, had_content=True)
    assert judgement.verdict is not Verdict.STORABLE
    assert after(judgement.verdict, stored=True) is Action.KEEP


def test_a_redirect_without_content_replaces_a_page_that_had_some() -> None:
    assert judged(status=301, size=0, had_content=True).verdict is Verdict.STORABLE


@pytest.mark.parametrize("vary", ["*", "Cookie", "X-A, Cookie", "Authorization"])
def test_what_vary_would_refuse_is_not_advised(vary: str) -> None:
    judgement = judged(("Vary", vary))
    assert judgement.reason is not None
    assert "vary=" not in judgement.reason.text


# -- its windows -----------------------------------------------------------------------------------------------------


CODED = Policy(max_age=5, stale_while_revalidate=6, stale_if_error=7)


@pytest.mark.parametrize(
    ("headers", "policy", "status", "windows"),
    [
        pytest.param([], Policy(), 200, (77, 600, 86400), id="nothing said: configured"),
        pytest.param([], Policy(max_age=5), 200, (5, 600, 86400), id="code says max_age"),
        pytest.param([], Policy(max_age=0), 200, (0, 600, 86400), id="code says max_age 0"),
        pytest.param([], CODED, 200, (5, 6, 7), id="code says all"),
        pytest.param([cc("max-age=8")], Policy(), 200, (8, 600, 86400), id="response says max-age"),
        pytest.param([cc("max-age=8")], Policy(max_age=5), 200, (5, 600, 86400), id="code over response"),
        pytest.param([cc("max-age=8, s-maxage=9")], Policy(), 200, (9, 0, 0), id="rule11 s-maxage, bare: no stale windows"),
        pytest.param([("Expires", http_date(NOON + 8))], Policy(), 200, (8, 600, 86400), id="rule11 Expires"),
        pytest.param([cc("max-age=8"), ("CDN-Cache-Control", "max-age=4")], Policy(), 200, (4, 600, 86400), id="rule28 targeted"),
        pytest.param(
            [cc("stale-while-revalidate=8, stale-if-error=9")], Policy(), 200, (77, 8, 9), id="response says stale windows"
        ),
        pytest.param(
            [cc("must-revalidate")], Policy(max_age=5, stale_while_revalidate=6), 200, (5, 0, 0), id="rule16 must-revalidate"
        ),
        pytest.param([], Policy(statuses={404: 3}), 404, (3, 600, 86400), id="a lifetime of a status"),
        pytest.param([cc("max-age=8")], Policy(max_age=5, statuses={404: 3}), 404, (3, 600, 86400), id="a status over all"),
        pytest.param([], Policy(max_age=5, statuses={404: 3}), 200, (5, 600, 86400), id="a status, but another"),
        pytest.param([], Policy(max_age=5, statuses={404: None}), 404, (5, 600, 86400), id="a status without lifetime: max_age"),
        pytest.param(
            [cc("max-age=8")], Policy(statuses={404: None}), 404, (8, 600, 86400), id="a status without lifetime: response"
        ),
        pytest.param([], Policy(max_age=5, statuses={404: 0}), 404, (0, 600, 86400), id="a status with lifetime 0"),
        pytest.param([], Policy(max_age=5, statuses={200: 3}), 200, (3, 600, 86400), id="a lifetime for 200"),
    ],
)
def test_windows_of_what_is_stored(
    headers: Iterable[tuple[str, str]], policy: Policy, status: int, windows: tuple[float, float, float]
) -> None:
    judgement = judged(*headers, policy=policy, status=status)
    assert (judgement.verdict, judgement.windows) == (Verdict.STORABLE, Windows(*windows))


@pytest.mark.parametrize(
    ("said", "headers", "policy", "status", "max_age"),
    [
        pytest.param(None, [], Policy(max_age=5), 200, 5, id="nothing said"),
        pytest.param(3.0, [], Policy(max_age=5), 200, 3, id="shorter than code"),
        pytest.param(5.0, [], Policy(max_age=5), 200, 5, id="as long as code"),
        pytest.param(9.0, [], Policy(max_age=5), 200, 5, id="longer than code: never lengthened"),
        pytest.param(3.0, [cc("max-age=8")], Policy(), 200, 3, id="shorter than the response"),
        pytest.param(9.0, [cc("max-age=8")], Policy(), 200, 8, id="longer than the response"),
        pytest.param(3.0, [cc("max-age=1")], Policy(max_age=5), 200, 3, id="shorter than code, longer than the response"),
        pytest.param(3.0, [cc("s-maxage=8")], Policy(), 200, 3, id="shorter than s-maxage"),
        pytest.param(3.0, [("Expires", http_date(NOON + 8))], Policy(), 200, 3, id="shorter than Expires"),
        pytest.param(3.0, [], Policy(), 200, 3, id="shorter than configured"),
        pytest.param(99.0, [], Policy(), 200, 77, id="longer than configured"),
        pytest.param(3.0, [], Policy(statuses={404: 4}), 404, 3, id="shorter than its status"),
        pytest.param(9.0, [], Policy(max_age=20, statuses={404: 4}), 404, 4, id="longer than its status"),
        pytest.param(0.0, [], Policy(max_age=5), 200, 0, id="nothing at all"),
        pytest.param(0.0, [], Policy(max_age=0), 200, 0, id="nothing of nothing"),
    ],
)
def test_the_origin_shortens_freshness_and_never_lengthens_it(
    said: float | None, headers: Iterable[tuple[str, str]], policy: Policy, status: int, max_age: float
) -> None:
    judgement = judged(*headers, policy=policy, status=status, said_max_age=said)
    assert judgement.verdict is Verdict.STORABLE
    assert judgement.windows == replace(judged(*headers, policy=policy, status=status).windows, max_age=max_age)


LINES = ("private", "no-store", "no-cache", "public", "max-age=5", "s-maxage=5", "must-revalidate", "stale-if-error=9")


@given(
    st.sets(st.sampled_from(LINES)),
    st.sampled_from([200, 204, 206, 301, 302, 404, 500, 503]),
    st.sampled_from([None, 0, 10, MAX_SIZE + 1]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_is_storable_breaks_no_prohibition(
    lines: set[str], status: int, size: int | None, sets_cookie: bool, carried: bool, had_content: bool
) -> None:
    headers = [cc(", ".join(sorted(lines))), *([("Set-Cookie", "a=1")] if sets_cookie else [])]
    names = SESSION if carried else RequestInputs()
    judgement = judged(*headers, status=status, size=size, carried=names, had_content=had_content)
    allowed = (
        not lines & {"private", "no-store", "no-cache"}
        and status in (200, 301)
        and size is not None
        and size <= MAX_SIZE
        and not sets_cookie
        and not carried
        and (size > 0 or not had_content or status == 301)
    )
    assert (judgement.verdict is Verdict.STORABLE) is allowed
    assert bool(judgement.reason) is not allowed


# -- what it does to what is stored ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "is_stored", "anybodys", "action"),
    [
        (Verdict.STORABLE, True, True, Action.REPLACE),
        (Verdict.STORABLE, False, True, Action.REPLACE),
        (Verdict.UNSTORABLE, True, True, Action.DROP),
        (Verdict.UNSTORABLE, True, False, Action.KEEP),
        (Verdict.UNSTORABLE, False, True, Action.KEEP),
        (Verdict.PERSONAL, True, False, Action.KEEP),
        (Verdict.PERSONAL, True, True, Action.KEEP),
        (Verdict.PERSONAL, False, False, Action.KEEP),
        (Verdict.FAILED, True, True, Action.KEEP),
        (Verdict.FAILED, True, False, Action.KEEP),
        (Verdict.FAILED, False, True, Action.KEEP),
    ],
)
def test_an_answer_replaces_keeps_or_drops_what_is_stored(
    verdict: Verdict, is_stored: bool, anybodys: bool, action: Action
) -> None:
    assert after(verdict, stored=is_stored, anybodys=anybodys) is action


@pytest.mark.parametrize(
    ("headers", "status", "action"),
    [
        pytest.param([], 200, Action.REPLACE, id="2xx replaces"),
        pytest.param([], 404, Action.DROP, id="404 takes the page away"),
        pytest.param([], 410, Action.DROP, id="410 takes the page away"),
        pytest.param([cc("private")], 200, Action.DROP, id="now private drops"),
        pytest.param([cc("no-store")], 200, Action.DROP, id="now no-store drops"),
        *[pytest.param([], status, Action.KEEP, id=f"{status} keeps") for status in sorted(FAILURE_STATUSES)],
    ],
)
def test_after_a_refresh(headers: Iterable[tuple[str, str]], status: int, action: Action) -> None:
    assert after(judged(*headers, status=status).verdict, stored=True) is action


def test_a_listed_404_replaces_the_page() -> None:
    verdict = judged(status=404, policy=Policy(statuses={404: 60}), had_content=True).verdict
    assert after(verdict, stored=True) is Action.REPLACE


def test_every_verdict_has_its_action() -> None:
    assert all(isinstance(after(verdict, stored=s), Action) for verdict, s in itertools.product(Verdict, (True, False)))


@pytest.mark.parametrize(
    ("verdict", "keeps_copy", "is_failure"),
    [
        (Verdict.STORABLE, False, False),
        (Verdict.UNSTORABLE, False, False),
        (Verdict.PERSONAL, False, False),
        (Verdict.FAILED, True, True),
        (Verdict.WORSE, True, False),
        (Verdict.REFUSED, False, True),
    ],
)
def test_what_a_verdict_means_to_others(verdict: Verdict, keeps_copy: bool, is_failure: bool) -> None:
    assert (verdict.keeps_copy, verdict.is_failure) == (keeps_copy, is_failure)


# -- what an answer says of itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "control", "more", "speaks"),
    [
        (200, "public, max-age=60", (), True),
        (200, "s-maxage=60", (), True),
        (301, "public, max-age=60", (), True),
        (404, "public, max-age=60", (), True),
        (200, "public", (("Expires", "Mon, 30 Nov 2026 00:00:00 GMT"),), True),
        (200, "public", (), False),
        (200, "max-age=60", (), False),
        (200, "", (), False),
        (200, "public, max-age=60", (("Age", "0"),), False),
        (401, "public, max-age=60", (), False),
        (403, "public, max-age=60", (), False),
        (429, "public, max-age=60", (), False),
    ],
)
def test_an_answer_speaks_for_itself(status: int, control: str, more: tuple[tuple[str, str], ...], speaks: bool) -> None:
    assert speaks_for_itself(status, (("Cache-Control", control), *more)) is speaks
