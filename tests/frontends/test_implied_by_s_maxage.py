"""``s-maxage`` implies that a response must not be served stale. What the developer has written for it wins over that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import time_machine
from flask import Flask, Response

from flask_stalecache import GatewayCache, Policy, StaleCache
from support.client import visit
from support.wsgi_apps import App, ask

WRITTEN = {"stale_if_error": 1000}
CONFIGURED = {"STALECACHE_STALE_WHILE_REVALIDATE": 100, "STALECACHE_STALE_IF_ERROR": 1000}
LINE = "the configured stale windows do not apply"


class Site(NamedTuple):
    """One page behind one of the front ends.

    :ivar word: visits it, and returns the cache status word.
    :ivar is_down: the app fails once something is in it.
    """

    word: Callable[[], str]
    is_down: list[bool]


def flask_site(folder: Path, said: str, at_view: dict[str, Any] | None = None, **config: Any) -> Site:
    app = Flask("shop")
    is_down: list[bool] = []
    app.config.update(STALECACHE_DIR=folder, **config)
    cache = StaleCache(app)

    def page() -> Response:
        return Response(status=503) if is_down else Response("page", headers={"Cache-Control": said})

    app.add_url_rule("/", "page", page if at_view is None else cache.cached(**at_view)(page))
    return Site(lambda: visit(app).word, is_down)


def wsgi_site(folder: Path, said: str, **how: Any) -> Site:
    is_down: list[bool] = []

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("503 Service Unavailable" if is_down else "200 OK", [] if is_down else [("Cache-Control", said)])
        return [b"page"]

    gateway = GatewayCache(App(answer), dir=folder, **how)
    return Site(lambda: ask(gateway).word, is_down)


BY_RULE = [("/*", Policy(stale_if_error=1000))]
FRONT_ENDS: dict[str, Callable[[Path, str], Site]] = {
    "view": lambda folder, said: flask_site(folder, said, WRITTEN),
    "view of the gateway": lambda folder, said: flask_site(folder, said, {**WRITTEN, "gateway": True}),
    "rule of the gateway": lambda folder, said: flask_site(folder, said, STALECACHE_GATEWAY=BY_RULE),
    "rule before any WSGI app": lambda folder, said: wsgi_site(folder, said, rules=BY_RULE),
}
CONFIGURED_ONLY: dict[str, Callable[[Path, str], Site]] = {
    "view": lambda folder, said: flask_site(folder, said, {}, **CONFIGURED),
    "view of the gateway": lambda folder, said: flask_site(folder, said, {"gateway": True}, **CONFIGURED),
    "gateway": lambda folder, said: flask_site(folder, said, STALECACHE_GATEWAY=True, **CONFIGURED),
    "before any WSGI app": lambda folder, said: wsgi_site(folder, said, stale_while_revalidate=100, stale_if_error=1000),
}


def after_a_failure(site: Site, clock: time_machine.Traveller) -> list[str]:
    """Visit twice, and once more when the page is stale and the app fails; return the cache status words."""
    words = [site.word(), site.word()]
    clock.shift(61)
    site.is_down.append(True)
    return [*words, site.word()]


@pytest.mark.parametrize("make", FRONT_ENDS.values(), ids=FRONT_ENDS)
def test_what_is_written_wins(
    make: Callable[[Path, str], Site], tmp_path: Path, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    assert after_a_failure(make(tmp_path, "s-maxage=60"), clock) == ["MISS", "HIT", "STALE"]
    assert LINE not in caplog.text


@pytest.mark.parametrize("make", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate"])
def test_what_the_response_says_in_words_wins(
    make: Callable[[Path, str], Site], tmp_path: Path, clock: time_machine.Traveller, word: str
) -> None:
    assert after_a_failure(make(tmp_path, f"s-maxage=60, {word}"), clock) == ["MISS", "HIT", "EXPIRED"]


@pytest.mark.parametrize("make", CONFIGURED_ONLY.values(), ids=CONFIGURED_ONLY)
def test_what_is_configured_does_not_win_and_the_log_says_so_once(
    make: Callable[[Path, str], Site], tmp_path: Path, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    site = make(tmp_path, "s-maxage=60")
    with caplog.at_level(logging.WARNING):
        assert site.word() == "MISS"
        clock.shift(61)
        assert site.word() == "EXPIRED"
        assert after_a_failure(site, clock)[-1] == "EXPIRED"
    lines = [record.getMessage() for record in caplog.records if LINE in record.getMessage()]
    assert len(lines) == 1
    assert "stale_if_error=" in lines[0]


@pytest.mark.parametrize("make", CONFIGURED_ONLY.values(), ids=CONFIGURED_ONLY)
def test_what_is_configured_applies_beside_max_age(
    make: Callable[[Path, str], Site], tmp_path: Path, clock: time_machine.Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    assert after_a_failure(make(tmp_path, "max-age=60"), clock) == ["MISS", "HIT", "STALE"]
    assert LINE not in caplog.text
