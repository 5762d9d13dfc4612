"""Reasons not to store and to bypass: each has a text of its own, and what a log line says of it."""

from __future__ import annotations

import re

import pytest

from flask_stalecache.core.model.reasons import BypassReason, Refusal, StoreRefusal


@pytest.mark.parametrize(
    ("refusal", "text", "log_text"),
    [
        (Refusal(StoreRefusal.FAILED_STATUS, "503"), "status 503", "status 503"),
        (Refusal(StoreRefusal.CACHE_CONTROL, "private"), "Cache-Control: private", "Cache-Control: private"),
        (
            Refusal(StoreRefusal.SETS_COOKIE, "the response"),
            "the response sets a cookie",
            "the response sets a cookie; set it in another view, or do not cache this one",
        ),
        (
            Refusal(StoreRefusal.VARY_NOT_IN_KEY, "x-a", "write vary=['x-a']"),
            "Vary names x-a, which is not in the key: write vary=['x-a']",
            "Vary names x-a, which is not in the key: write vary=['x-a']",
        ),
        (Refusal(StoreRefusal.UNSTORABLE_VALUE, "it has a {} in it"), "it has a {} in it", "it has a {} in it"),
    ],
)
def test_a_refusal_in_words(refusal: Refusal, text: str, log_text: str) -> None:
    assert (refusal.text, refusal.log_text) == (text, log_text)


@pytest.mark.parametrize(
    ("reason", "are_one"),
    [(StoreRefusal.IGNORED_PARAMETERS, True), (StoreRefusal.VARY_NOT_IN_KEY, False), (StoreRefusal.READS_ALL_HEADERS, False)],
)
def test_subjects_that_visitors_choose_do_not_flood_the_log(reason: StoreRefusal, are_one: bool) -> None:
    assert (Refusal(reason, "a").log_key == Refusal(reason, "b").log_key) is are_one


@pytest.mark.parametrize("reasons", [StoreRefusal, BypassReason])
def test_each_reason_has_a_text_of_its_own(reasons: type[StoreRefusal] | type[BypassReason]) -> None:
    # Members with equal values would be aliases.
    assert len(reasons.__members__) == len(list(reasons)) == len({reason.text for reason in reasons})


@pytest.mark.parametrize("reason", [*StoreRefusal, *BypassReason])
def test_what_can_be_fixed_says_how(reason: StoreRefusal | BypassReason) -> None:
    assert reason.is_fixable is bool(reason.advice)
    assert not re.search(r"[.;]$", reason.advice)


@pytest.mark.parametrize("reason", BypassReason)
def test_cache_status_knows_the_word(reason: BypassReason) -> None:
    assert reason.forwarded in ("bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial")
