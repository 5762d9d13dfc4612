"""A site whose pages have holes, and visitors of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import time_machine
from flask import Flask, session
from flask.sessions import SecureCookieSessionInterface
from jinja2 import DictLoader

from flask_stalecache import StaleCache
from support.client import MakeApp, Seen, visit
from support.clock import NOON

BASE = """<title>{{ title }}</title>{% hole %}{% if session.user %}hello {{ session.user }}{% else %}log in{% endif %}{% endhole %}
{% block main %}{% endblock %}"""


def cookie(**values: Any) -> Mapping[str, str]:
    """Return the field of a visitor whose session has some values."""
    app = Flask("shop")
    app.secret_key = "not a secret"
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    with time_machine.travel(NOON, tick=False):
        return {"Cookie": f"session={signer.dumps(values)}"}


ANN, BOB, NOBODY = cookie(user="ann <&'\"\\>"), cookie(user="bob"), dict[str, str]()
VISITORS = (ANN, BOB, NOBODY)


def who(*args: Any, **kwargs: Any) -> str:
    """Fill a hole with what only this visitor has."""
    return f"{session.get('user', 'nobody')}{list(args) or ''}{kwargs or ''}"


def templates(app: Flask, **texts: str) -> None:
    """Give an app its templates; ``a`` is ``a.html``."""
    app.jinja_loader = DictLoader({f"{name}.html": text for name, text in texts.items()})


Build = Callable[[Flask, StaleCache], object]


def compare(
    make_app: MakeApp,
    build: Build,
    *visitors: Mapping[str, str],
    path: str = "/",
    more: Mapping[str, Any] | None = None,
    method: str = "GET",
) -> list[Seen]:
    """Let visitors come twice, hold each page against the one that the app shows without a cache, and return the second answers."""
    (app, cache), (plain, off) = make_app(**(more or {})), make_app(ENABLED=False)
    build(app, cache)
    build(plain, off)
    seen: list[Seen] = []
    for headers in (*visitors, *visitors):
        answer, expected = visit(app, path, headers, method=method), visit(plain, path, headers, method=method)
        assert (answer.status, answer.body) == (expected.status, expected.body), (dict(headers), [each.word for each in seen])
        seen.append(answer)
    return seen[len(visitors) :]


def said(answers: list[Seen]) -> list[str]:
    """Return how visitors were answered."""
    return [each.word for each in answers]
