"""The options of a request, as its own Cache-Control changes them (RFC 9111 section 5.2.1).

Whether an exchange may be stored is covered by ``tests/core/http/test_storing.py`` and by the rules of the gateway.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from flask_stalecache.core.http.cache_control import RequestDirectives
from flask_stalecache.core.model.entry import Entry
from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.rules.prefer_stale import PreferStale
from flask_stalecache.core.rules.serving import ServeOptions
from flask_stalecache.core.rules.shared_cache import directives_of, honored
from support.clock import NOON
from support.engine import make_entry

OPTIONS = ServeOptions("", 0.0)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTP_ACCEPT": "*/*"}, None),
        ({"HTTP_CACHE_CONTROL": "no-cache"}, RequestDirectives(no_cache=True)),
        ({"HTTP_CACHE_CONTROL": ""}, RequestDirectives()),
        ({"HTTP_PRAGMA": "no-cache"}, RequestDirectives(no_cache=True)),
        ({"HTTP_CACHE_CONTROL": "no-store", "HTTP_PRAGMA": "no-cache"}, RequestDirectives(no_store=True)),
    ],
)
def test_the_directives_of_a_request(environ: dict[str, str], expected: RequestDirectives | None) -> None:
    assert directives_of(environ) == expected


FRESH = replace(make_entry(), answered=NOON, windows=Windows(60.0, 0.0, 0.0), never_stale=False)
NEVER_STALE = replace(FRESH, never_stale=True)
RELOAD, STALE = OPTIONS.reloading(), OPTIONS._replace(prefer_stale=PreferStale.AND_REFRESH)


@pytest.mark.parametrize(
    ("said", "entry", "age", "expected"),
    [
        (None, FRESH, 10, OPTIONS),
        (RequestDirectives(no_cache=True), None, 10, OPTIONS),
        (RequestDirectives(no_cache=True), FRESH, 10, RELOAD),
        (RequestDirectives(max_age=20), FRESH, 10, OPTIONS),
        (RequestDirectives(max_age=5), FRESH, 10, RELOAD),
        (RequestDirectives(min_fresh=40), FRESH, 10, OPTIONS),
        (RequestDirectives(min_fresh=55), FRESH, 10, RELOAD),
        (RequestDirectives(max_stale=30), FRESH, 70, STALE),
        (RequestDirectives(max_stale=30), NEVER_STALE, 70, OPTIONS),
        (RequestDirectives(max_stale=5), FRESH, 70, RELOAD),
    ],
)
def test_what_a_request_says_changes_its_options(
    said: RequestDirectives | None, entry: Entry | None, age: float, expected: ServeOptions
) -> None:
    assert honored(OPTIONS, said, entry, NOON + age) == expected
