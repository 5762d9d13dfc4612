"""Whether the gateway could store an answer, by the endpoint of its request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from flask_stalecache.core.model.policy import Windows
from flask_stalecache.core.model.reasons import Refusal, StoreRefusal
from flask_stalecache.core.rules.storability import Judgement, Verdict
from flask_stalecache.engine.log import RateLimitedLog
from flask_stalecache.frontends.flask_app.flask_endpoints import FlaskEndpoints
from support.client import MakeApp

STORABLE = Judgement(Verdict.STORABLE, None, Windows(60.0, 0.0, 0.0))
SILENT = Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.NO_VALIDATOR))
PRIVATE = Judgement(Verdict.UNSTORABLE, Refusal(StoreRefusal.CACHE_CONTROL, "private"))


def wrapping(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view under a decorator that names it."""

    @wraps(view)
    def wrapper(**values: Any) -> Any:
        return view(**values)

    return wrapper


def hiding(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view under a decorator that doesn't name it."""
    return lambda **values: view(**values)


@pytest.fixture
def site(make_app: MakeApp) -> Flask:
    app, cache = make_app()

    def view() -> str:
        return "page"

    for name, made in {
        "plain": view,
        "cached": cache.cached()(view),
        "coded": cache.cached(gateway=True)(view),
        "wrapped": wrapping(cache.cached(gateway=True)(view)),
        "hidden": hiding(cache.cached(gateway=True)(view)),
    }.items():
        app.add_url_rule(f"/{name}", name, made)
    return app


def environ_of(path: str) -> dict[str, Any]:
    return EnvironBuilder(path).get_environ()


def endpoints_of(app: Flask, *, only_coded: bool) -> FlaskEndpoints:
    return FlaskEndpoints(app, RateLimitedLog(), only_coded=only_coded)


@pytest.mark.parametrize(
    ("path", "with_gateway", "only_coded"),
    [
        ("/plain", True, False),
        ("/cached", False, False),
        ("/coded", True, True),
        ("/wrapped", True, True),
        ("/hidden", True, False),
        ("/missing", True, False),
        ("/static/x.css", True, False),
    ],
)
def test_what_is_known_before_the_first_answer(site: Flask, path: str, with_gateway: bool, only_coded: bool) -> None:
    assert endpoints_of(site, only_coded=False).may_store(environ_of(path)) is with_gateway
    assert endpoints_of(site, only_coded=True).may_store(environ_of(path)) is only_coded


@pytest.mark.parametrize(
    ("answers", "may_store"),
    [
        pytest.param([(200, SILENT)], False, id="it never said how long"),
        pytest.param([(404, SILENT)], True, id="an error says nothing about its pages"),
        pytest.param([(200, PRIVATE)], True, id="another page may be public"),
        pytest.param([(200, SILENT), (200, STORABLE)], True, id="then it said so"),
        pytest.param([(200, STORABLE), (200, SILENT)], True, id="it has said so once"),
    ],
)
def test_an_endpoint_that_never_says_how_long_is_not_waited_for(
    site: Flask, answers: list[tuple[int, Judgement]], may_store: bool
) -> None:
    endpoints = endpoints_of(site, only_coded=False)
    for status, judgement in answers:
        endpoints.learn(environ_of("/plain"), "plain", status, judgement)
    assert endpoints.may_store(environ_of("/plain?page=2")) is may_store


def test_the_first_answer_tells_of_a_view_that_a_decorator_hides(site: Flask) -> None:
    endpoints = endpoints_of(site, only_coded=True)
    endpoints.learn(environ_of("/hidden"), "hidden", 200, STORABLE)
    assert endpoints.may_store(environ_of("/hidden"))
    assert not endpoints.may_store(environ_of("/plain"))


def test_where_middleware_changes_paths_nothing_is_known(site: Flask) -> None:
    """Middleware may strip a prefix, for example: to the gateway, /shop/coded is no URL of the app."""
    endpoints = endpoints_of(site, only_coded=True)
    assert not endpoints.may_store(environ_of("/shop/coded"))
    endpoints.learn(environ_of("/shop/coded"), "coded", 200, STORABLE)
    assert endpoints.may_store(environ_of("/shop/coded"))
    assert endpoints.may_store(environ_of("/shop/plain"))
