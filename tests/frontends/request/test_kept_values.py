"""Values that are made for one response, such as nonces: not stored, in any of the four ways to cache a page.

Covers ``frontends.request.request_values``.
"""

from __future__ import annotations

import gzip
import secrets
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import time_machine
from flask import Flask, Response, g, request, stream_with_context

from flask_stalecache import StaleCache
from flask_stalecache.core.model.reasons import StoreRefusal
from flask_stalecache.frontends.gateway.gateway_cache import GatewayCache
from flask_stalecache.frontends.request.kept_values import REMEMBERED, KeptValues, is_random
from support.client import settle, visit
from support.privacy import lines
from support.threads import PATIENCE, go, results
from support.wsgi_apps import wait_for_waiters

KINDS = ["cached", "STALECACHE_GATEWAY", "gateway=True", "GatewayCache"]
Build = Callable[[Flask], Callable[[], Any]]


def app_with(folder: Path, kind: str, build: Build, max_age: int = 60) -> tuple[Flask, StaleCache]:
    app, cache = Flask("shop"), StaleCache()
    app.config.update(STALECACHE_DIR=folder, STALECACHE_GATEWAY=kind == "STALECACHE_GATEWAY", STALECACHE_STALE_WHILE_REVALIDATE=600)
    view = build(app)
    if kind == "GatewayCache":
        app.wsgi_app = GatewayCache(app.wsgi_app, dir=folder)  # type: ignore[method-assign]
    else:
        cache.init_app(app)
        if kind != "STALECACHE_GATEWAY":
            view = cache.cached(max_age, jitter=0, gateway=kind == "gateway=True")(view)
    app.add_url_rule("/", "page", view)
    app.after_request(lambda response: _fresh(response, max_age))
    return app, cache


def _fresh(response: Response, max_age: int) -> Response:
    response.headers["Cache-Control"] = f"max-age={max_age}, stale-while-revalidate=600"
    return response


def policy_hook(app: Flask, value: Callable[[], str], field: str = "Content-Security-Policy") -> None:
    @app.after_request
    def add(response: Response) -> Response:
        response.headers[field] = f"script-src 'self' 'nonce-{value()}'"
        return response


def page(value: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"<script nonce='{value()}'>f()</script>"


def in_g(app: Flask) -> Callable[[], Any]:
    @app.before_request
    def make() -> None:
        g.nonce = secrets.token_urlsafe(16)

    policy_hook(app, lambda: g.nonce)
    return page(lambda: g.nonce)


def as_talisman(app: Flask) -> Callable[[], Any]:
    """As Flask-Talisman does with ``content_security_policy_nonce_in``."""

    @app.before_request
    def make() -> None:
        request.csp_nonce = secrets.token_urlsafe(24)  # type: ignore[attr-defined]

    policy_hook(app, lambda: request.csp_nonce)  # type: ignore[attr-defined]
    return page(lambda: request.csp_nonce)  # type: ignore[attr-defined]


def short(app: Flask) -> Callable[[], Any]:
    @app.before_request
    def make() -> None:
        g.n = secrets.token_hex(4)

    policy_hook(app, lambda: g.n)
    return page(lambda: g.n)


def in_a_variable(app: Flask) -> Callable[[], Any]:
    """The nonce is neither in ``g`` nor in a tag: only the finished response shows it."""
    state = threading.local()

    def show() -> str:
        state.nonce = secrets.token_hex(4)
        return f"var nonce = '{state.nonce}'"

    policy_hook(app, lambda: state.nonce)
    return show


def by_the_view(app: Flask) -> Callable[[], Any]:
    def show() -> Response:
        nonce = secrets.token_urlsafe(8)
        return Response(f"nonce {nonce}", headers={"Content-Security-Policy": f"script-src 'nonce-{nonce}'"})

    return show


def report_only(app: Flask) -> Callable[[], Any]:
    @app.before_request
    def make() -> None:
        g.nonce = secrets.token_hex(4)

    policy_hook(app, lambda: g.nonce, "Content-Security-Policy-Report-Only")
    return lambda: f"nonce {g.nonce}"


def in_meta(app: Flask) -> Callable[[], Any]:
    def show() -> str:
        nonce = secrets.token_hex(8)
        return f"<meta http-equiv=Content-Security-Policy content=\"script-src 'nonce-{nonce}'\"><i>{nonce}</i>"

    return show


def constant(app: Flask) -> Callable[[], Any]:
    """One for all, which makes the policy useless, with or without a cache."""
    policy_hook(app, lambda: "constant")
    return page(lambda: "constant")


NONCES: dict[str, Build] = {
    "in g": in_g,
    "as Flask-Talisman": as_talisman,
    "short": short,
    "in a variable": in_a_variable,
    "by the view": by_the_view,
    "report only": report_only,
    "in a meta tag": in_meta,
    "constant": constant,
}


@pytest.mark.grid
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NONCES)
def test_a_page_with_a_nonce_is_not_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str) -> None:
    app, _ = app_with(tmp_path, kind, NONCES[name])
    seen = [visit(app) for _ in range(4)]
    is_hole = name == "as Flask-Talisman" and kind in ("cached", "gateway=True")
    if is_hole:
        # The nonce is a hole. With gateway=True, the second page is the first that the app stores itself.
        assert [each.word for each in seen] == ["MISS", "HIT" if kind == "cached" else "MISS", "HIT", "HIT"]
    else:
        assert "HIT" not in [each.word for each in seen]
    policies = [
        each.headers.get("Content-Security-Policy") or each.headers.get("Content-Security-Policy-Report-Only") for each in seen
    ]
    for each, policy in zip(seen, policies, strict=True):
        if policy is not None:
            assert policy.partition("'nonce-")[2].rstrip("'") in each.text
    said = [line for line in lines(caplog) if "not stored" in line]
    assert len(said) == (0 if is_hole else 1)
    assert all("do not cache the page" in line for line in said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_nonce_that_no_script_uses_is_harmless(tmp_path: Path, kind: str) -> None:
    def build(app: Flask) -> Callable[[], Any]:
        in_g(app)
        return lambda: "<p>no script</p>"

    app, _ = app_with(tmp_path, kind, build)
    assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("kind", ["STALECACHE_GATEWAY", "gateway=True", "GatewayCache"])
def test_a_stream_is_looked_at_when_it_is_complete(tmp_path: Path, kind: str) -> None:
    def build(app: Flask) -> Callable[[], Any]:
        in_g(app)

        def show() -> Response:
            def chunks() -> Iterable[str]:
                yield "<script "
                yield f"nonce='{g.nonce[:4]}"
                yield f"{g.nonce[4:]}'>"

            return Response(stream_with_context(chunks()))

        return show

    app, _ = app_with(tmp_path, kind, build)
    assert "HIT" not in [visit(app).word for _ in range(3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_a_compressed_body_hides_no_nonce(tmp_path: Path, kind: str, coding: str) -> None:
    def build(app: Flask) -> Callable[[], Any]:
        @app.after_request
        def compress(response: Response) -> Response:
            response.set_data(gzip.compress(response.get_data()) if coding == "gzip" else b"\x0b" + response.get_data()[::-1])
            response.headers["Content-Encoding"] = coding
            return response

        return in_g(app)

    app, _ = app_with(tmp_path, kind, build)
    assert "HIT" not in [visit(app).word for _ in range(3)]


def crowd_behind_the_first(directory: Path, kind: str, others: int, answer: Callable[[str], Any]) -> list[Any]:
    """Let visitors wait while the first one's page with a nonce is made; return what all of them see.

    :param answer: makes the view's answer from the page.
    """
    started, more = threading.Event(), threading.Event()

    def build(app: Flask) -> Callable[[], Any]:
        shown = as_talisman(app)

        def show() -> Any:
            if not started.is_set():
                started.set()
                assert more.wait(PATIENCE)
            return answer(shown())

        return show

    app, _ = app_with(directory, kind, build)
    first = go(visit, app)
    assert started.wait(PATIENCE)
    waiting = [go(visit, app) for _ in range(others)]
    wait_for_waiters(app.wsgi_app if isinstance(app.wsgi_app, GatewayCache) else app, others)
    more.set()
    return results([first, *waiting])


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_gets_a_nonce_of_their_own(tmp_path: Path, kind: str) -> None:
    seen = crowd_behind_the_first(tmp_path, kind, 3, lambda page: page)
    assert len({each.text for each in seen}) == 4
    for each in seen:
        assert each.headers["Content-Security-Policy"].partition("'nonce-")[2].rstrip("'") in each.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_with_a_nonce_is_not_shared(tmp_path: Path, kind: str) -> None:
    seen = crowd_behind_the_first(tmp_path, kind, 2, lambda page: Response(page, 503))
    assert len({each.text for each in seen}) == 3
    for each in seen:
        assert each.headers["Content-Security-Policy"].partition("'nonce-")[2].rstrip("'") in each.text


def test_a_refresh_does_not_store_a_nonce_either(tmp_path: Path, clock: time_machine.Traveller) -> None:
    uses = {"nonce": False}

    def build(app: Flask) -> Callable[[], Any]:
        shown = in_a_variable(app)
        return lambda: shown() if uses["nonce"] else (shown(), "<p>no script</p>")[1]

    app, cache = app_with(tmp_path, "cached", build, max_age=10)
    assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]
    uses["nonce"] = True
    clock.shift(11)
    assert visit(app).word == "STALE"
    settle(app, cache)
    assert visit(app).word == "MISS"


# -- other values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cached", "STALECACHE_GATEWAY", "gateway=True"])
@pytest.mark.parametrize("make", [lambda: secrets.token_hex(16), lambda: secrets.token_urlsafe(24)])
def test_a_random_value_of_a_hook_is_its_visitors(tmp_path: Path, kind: str, make: Callable[[], str]) -> None:
    def build(app: Flask) -> Callable[[], Any]:
        @app.before_request
        def hook() -> None:
            g.visit = make()

        return lambda: f"visit {g.visit}"

    app, _ = app_with(tmp_path, kind, build)
    seen = [visit(app) for _ in range(4)]
    assert len({each.text for each in seen}) == 4


@pytest.mark.parametrize("kind", ["cached", "STALECACHE_GATEWAY", "gateway=True"])
def test_settings_and_what_the_url_says_are_no_random_values(tmp_path: Path, kind: str) -> None:
    def build(app: Flask) -> Callable[[], Any]:
        @app.before_request
        def hook() -> None:
            g.language, g.name, g.path = "de", "Ann's Shop of Things", request.path
            g.visit, g.page = secrets.token_hex(16), "how-to-cook-rice-in-2024"

        return lambda: f"{g.language} {g.name} {g.path} {g.page}"

    app, _ = app_with(tmp_path, kind, build)
    assert [visit(app).word for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("kind", ["cached", "STALECACHE_GATEWAY", "gateway=True"])
def test_a_value_that_stays_the_same_is_a_setting(tmp_path: Path, kind: str) -> None:
    """A hash of the build, for example: the second response of a process tells that it is one."""

    def build(app: Flask) -> Callable[[], Any]:
        app.before_request(lambda: setattr(g, "build", "3f2a9c1b7e5d4c6b8a90"))
        app.add_url_rule("/other", "other", lambda: f"build {g.build}")
        return lambda: f"build {g.build}"

    app, _ = app_with(tmp_path, kind, build)
    assert [visit(app).word for _ in range(3)] == ["MISS", "MISS", "HIT"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3f2a9c1b7e5d4c6b", True),
        ("123e4567-e89b-12d3-a456-426614174000", True),
        ("kX9_aB-cD3fGhIjKlMnOpQ", True),
        ("AbCdEfGhIjKlMnOpQr", True),
        ("eyJhbGciOi.eyJzdWIi.c2ln8X", True),
        ("1234567890123456", False),
        ("how-to-cook-rice-2024", False),
        ("products_category_list", False),
        ("Www.Example.Com.Site", False),
        ("short1A", False),
        ("with spaces 123 ABC xyz", False),
        ("https://shop.example/A1", False),
    ],
)
def test_what_looks_random(value: str, expected: bool) -> None:
    assert is_random(value) is expected


def test_a_value_is_known_from_any_page_or_from_the_copy_of_the_same() -> None:
    values = KeptValues()

    def judged(key: str, value: str, stored: bytes | None = None) -> Any:
        refusal = values.refusal(key, [], value.encode(), [("g.a", value)], lambda: stored)
        return None if refusal is None else refusal.reason

    one, two = "3f2a9c1b7e5d4c6b", "aaaa9c1b7e5d4c6b"
    assert judged("/1", one) is StoreRefusal.SHOWS_MAYBE_RANDOM
    assert judged("/2", one) is None
    assert judged("/2", two) is StoreRefusal.SHOWS_RANDOM
    assert judged("/1", one) is None
    assert judged("/3", "bbbb9c1b7e5d4c6b", b"<bbbb9c1b7e5d4c6b>") is None
    for number in range(2 * REMEMBERED):
        judged("x" * 9000, f"{number:016x}")
        judged(f"/{number}", one)
    assert len(values._last) <= REMEMBERED + 2
