"""Helpers of the tests of privacy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import pytest
from flask import (
    Flask,
    Request,
    Response,
    after_this_request,
    make_response,
    request,
    session,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface, SessionInterface, SessionMixin

from flask_stalecache import StaleCache
from support.client import MakeApp, unrecorded_environ, visit

View: TypeAlias = "Callable[..., Any]"

Build: TypeAlias = "Callable[[Flask, StaleCache], None]"

Fields: TypeAlias = "Mapping[str, str]"

NOBODY: Fields = {}

ANN: Fields = {"Cookie": "user=ann", "X-User": "ann"}

BOB: Fields = {"Cookie": "user=bob", "X-User": "bob"}

ANN_AND_MORE: Fields = {"Cookie": "theme=dark; user=ann", "X-User": "ann", "X-More": "1"}


def shown(view: View, path: str = "/", **policy: Any) -> Build:
    """Return what sets up an app with one cached view."""

    def build(app: Flask, cache: StaleCache) -> None:
        app.add_url_rule(path, "page", cache.cached(60, **policy)(view))

    return build


def play(make_app: MakeApp, build: Build, *visitors: Fields, path: str = "/", **config: Any) -> list[str]:
    """Let visitors come, hold each page against the one that the app shows without a cache, and return how they were answered."""
    app, cache = make_app(**config)
    build(app, cache)
    plain, off = make_app(ENABLED=False)
    build(plain, off)
    said: list[str] = []
    for headers in visitors:
        seen, expected = visit(app, path, headers), visit(plain, path, headers)
        assert (seen.status, seen.text) == (expected.status, expected.text), f"after {said}, {dict(headers)}"
        said.append(seen.word)
    return said


def cookie_of(member: str, name: str = "session", key: str = "not a secret") -> str:
    """Return the field of somebody whose session says who they are."""
    app = Flask("shop")
    app.secret_key = key
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return f"{name}={signer.dumps({'user': member})}"


def as_member(member: str, **more: str) -> Fields:
    return {"Cookie": cookie_of(member), **more}


def link() -> str:
    return f"{request.root_url} {url_for('page', _external=True)}"


def raises() -> object:
    raise LookupError("no key today")


counter = {"n": 0}


def number() -> str:
    """Return another text at each call: only a stored page is ever shown twice."""
    counter["n"] += 1
    return f"page {counter['n']}"


def with_cookie() -> Response:
    response = make_response(number())
    response.set_cookie("user", unrecorded_environ().get("HTTP_X_USER", "-"))
    return response


def with_callback() -> str:
    @after_this_request
    def mark(response: Response) -> Response:
        response.headers["X-For"] = unrecorded_environ().get("HTTP_X_USER", "-")
        return response

    return number()


def with_session() -> str:
    session["visits"] = number()
    return str(session["visits"])


def streamed() -> Iterator[str]:
    yield number()
    yield "!"


class Untold(dict[str, Any], SessionMixin):
    """A session that can't tell whether it was changed."""


class UntoldInterface(SessionInterface):
    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        return Untold(user=request.cookies.get(self.get_cookie_name(app), "-"))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """It lives nowhere."""


def who() -> str:
    return request.headers.get("X-User") or request.cookies.get("user") or "-"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("flask_stalecache")]
