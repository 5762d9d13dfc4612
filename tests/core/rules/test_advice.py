"""What to write so that an answer is stored: the line is right for the front end that it is given at."""

from __future__ import annotations

import pytest

from flask_stalecache.core.model.reasons import REASONS, Refusal, StoreRefusal
from flask_stalecache.core.rules.advice import FrontEnd, InputKind, fix_of, fix_of_name, fix_of_reason, log_text_at

VIEW, CODED, RULES, WSGI = FrontEnd


@pytest.mark.parametrize(
    ("reason", "front", "fix"),
    [
        (StoreRefusal.NOTHING_SAID, RULES, "give it a rule in STALECACHE_GATEWAY, or @cache.cached(max_age=…)"),
        (StoreRefusal.NOTHING_SAID, WSGI, "give it a rule in GatewayCache(rules=…), or let it say Cache-Control: max-age=…"),
        (StoreRefusal.NOT_CODED, CODED, "write @cache.cached(max_age=…, gateway=True) at its view, or set STALECACHE_GATEWAY"),
        (StoreRefusal.STATUS_NOT_LISTED, VIEW, "list the status in @cache.cached(): statuses={STATUS: seconds}"),
        (StoreRefusal.NO_LIFETIME, RULES, "list the status in its rule in STALECACHE_GATEWAY: statuses={STATUS: seconds}"),
        (StoreRefusal.SETS_COOKIE, VIEW, "set it in another view, or do not cache this one"),
        (
            StoreRefusal.SETS_COOKIE, RULES,
            "set it in another view, or write unset=['Set-Cookie'] in its rule in STALECACHE_GATEWAY if no visitor needs it",
        ),
        (StoreRefusal.TOO_LARGE, VIEW, "raise that limit, or do not cache it"),
        (StoreRefusal.TOO_LARGE, WSGI, "give GatewayCache a larger max_entry_size, or send a smaller body"),
        (StoreRefusal.NOT_GET, VIEW, ""),
    ],
)  # fmt: skip
def test_each_front_end_has_its_own_line(reason: StoreRefusal, front: FrontEnd, fix: str) -> None:
    assert fix_of_reason(reason, front) == fix_of(Refusal(reason), front) == fix


@pytest.mark.parametrize("front", FrontEnd)
def test_no_line_has_a_hole(front: FrontEnd) -> None:
    assert [reason for reason in REASONS if "{}" in fix_of_reason(reason, front)] == []
    told = {reason: log_text_at(Refusal(reason, "x"), front) for reason in REASONS if isinstance(reason, StoreRefusal)}
    assert len(told) > 30
    assert [text for reason, text in told.items() if not text.startswith(Refusal(reason, "x").text) or "{}" in text] == []


@pytest.mark.parametrize(
    ("kind", "name", "front", "fix"),
    [
        (InputKind.FIELD, "x-beta", VIEW, "write vary=['x-beta'] in @cache.cached(), or name it in STALECACHE_IGNORED_HEADERS"),
        (InputKind.FIELD, "x-beta", RULES, "name it in Vary, write vary=['x-beta'] in its rule in STALECACHE_GATEWAY, or name it"),
        (InputKind.FIELD, "x-beta", CODED, "name it in Vary, write vary=['x-beta'] in @cache.cached(gateway=True), or"),
        (InputKind.FIELD, "x-beta", WSGI, "write vary=['x-beta'] in its rule in GatewayCache(rules=…), or name it in Vary"),
        (InputKind.FIELD, "authorization", RULES, "requests with Authorization are always served live"),
        (InputKind.FIELD, "traceparent", VIEW, "read it in hooks and libraries alone"),
        (
            InputKind.COOKIE, "lang", VIEW,
            "do not read it if the page does not depend on it, or write cookies=['lang'] in @cache.cached() if it has few values",
        ),
        (InputKind.COOKIE, "lang", CODED, "do not read it if the page does not depend on it, or write cookies=['lang'] in a rule"),
        (InputKind.COOKIE, "lang", WSGI, "do not read it if the page does not depend on it, or write cookies=['lang'] in its rule"),
        (InputKind.SESSION, "csrf_token", VIEW, "leave the form out of the page, or fetch its token by a request of its own"),
        (
            InputKind.SESSION, "size", VIEW,
            "write ignore_session=True if the page does not depend on the session, or do not read it in the view, or write "
            "session=['size'] in @cache.cached() if it has few values",
        ),
        (InputKind.SESSION, "size", RULES, "do not read it if the page does not depend on it, or write session=['size'] in its"),
        (InputKind.VARIABLE, "REMOTE_ADDR", VIEW, "put what the page takes from it into key="),
    ],
)  # fmt: skip
def test_a_name_has_a_line(kind: InputKind, name: str, front: FrontEnd, fix: str) -> None:
    assert fix_of_name(kind, name, front).startswith(fix)
    assert kind.word in ("cookie", "session key", "field", "variable")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (InputKind.SESSION, "_user_id"),
        (InputKind.COOKIE, "session"),
        (InputKind.COOKIE, "remember_token"),
        (InputKind.COOKIE, "sid"),
    ],
)
def test_nobody_is_told_to_name_what_differs_for_each_visitor(kind: InputKind, name: str) -> None:
    assert all(f"{kind.value}=[" not in fix_of_name(kind, name, front) for front in FrontEnd)


def test_a_fix_for_one_case_is_kept() -> None:
    refusal = Refusal(StoreRefusal.VARY_NOT_IN_KEY, "x-a", "write vary=['x-a']")
    assert fix_of(refusal, VIEW) == "write vary=['x-a']"
    assert log_text_at(refusal, VIEW) == "Vary names x-a, which is not in the key: write vary=['x-a']"


@pytest.mark.parametrize(
    ("status", "fix"),
    [("404", "list the status in @cache.cached(): statuses={404: seconds}"), ("302", ""), ("401", ""), ("500", "")],
)
def test_only_the_status_of_a_page_is_worth_a_lifetime(status: str, fix: str) -> None:
    assert fix_of(Refusal(StoreRefusal.STATUS_NOT_LISTED, status), VIEW) == fix
