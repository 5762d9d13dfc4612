"""Visitors for tests in one process: each request is a new visitor's, and its response is closed, as a server does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from flask_stalecache import StaleCache
from flask_stalecache.frontends.pages.watching.request_recorder import plain_environ

MakeApp: TypeAlias = "Callable[..., tuple[Flask, StaleCache]]"


@dataclass(frozen=True)
class Seen:
    """What a visitor was answered.

    :ivar word: ``X-Cache-Status``, or "" without it.
    """

    status: int
    body: bytes
    headers: Headers

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def word(self) -> str:
        return self.headers.get("X-Cache-Status", "")

    @property
    def page(self) -> tuple[str, str]:
        """The status word and the text."""
        return self.word, self.text


def visit(
    app: Flask,
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, Any] | None = None,
    **options: Any,
) -> Seen:
    """Send one request: without cookies and without User-Agent, unless ``headers`` says so.

    :param environ: what the server would set in the environ.
    :param options: what Werkzeug's test client takes: ``method``, ``data``, ``base_url`` and so on.
    """
    with _client(app).open(path, headers=dict(headers or {}), environ_overrides=dict(environ or {}), **options) as response:
        return Seen(response.status_code, response.get_data(), response.headers.copy())


def _client(app: Flask) -> FlaskClient:
    """Return the app's client, which keeps nothing of a visitor: each new one makes a class, and that takes as long as a hit."""
    kind, client = vars(app).get("visits", (None, None))
    if kind is not app.response_class or client is None:
        client = app.test_client(use_cookies=False)
        client.environ_base = {"REMOTE_ADDR": "192.0.2.7"}
        app.visits = app.response_class, client  # type: ignore[attr-defined]
    return client


def words(app: Flask, *visitors: Mapping[str, str] | None) -> list[str]:
    """Let visitors come one after the other, each with their header fields, and return how they were answered."""
    return [visit(app, "/", headers).word for headers in visitors]


def settle(app: Flask, cache: StaleCache, seconds: float = 10) -> None:
    """Wait until the refreshes that were handed over are done."""
    with app.app_context():
        assert cache.drain(seconds), "refreshes are still running"


def unrecorded_environ() -> dict[str, Any]:
    """Return the environ of the current request, for a test that looks at it without the page depending on it."""
    return plain_environ(request._get_current_object())  # type: ignore[attr-defined]


def wire(text: str) -> str:
    """Return text as a WSGI server hands it over: its UTF-8 bytes, taken for latin-1."""
    return text.encode().decode("latin-1")
