"""Helpers of the tests of gateways in front of Flask apps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from flask import (
    Flask,
    Response,
    session,
)
from flask.sessions import SecureCookieSessionInterface

Build: TypeAlias = "Callable[[Flask], object]"

Fields: TypeAlias = "Mapping[str, str]"

NOBODY: Fields = {}


def signed(values: dict[str, Any]) -> str:
    """Return the field of somebody who has these values in their session."""
    app = Flask("shop")
    app.secret_key = "not a secret"
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return f"session={signer.dumps(values)}"


ANN: Fields = {"Cookie": f"user=ann; {signed({'user': 'ann', '_user_id': 'ann'})}", "X-User": "ann"}

#: Somebody who carries what no page asks for.
CARL: Fields = {"Cookie": "theme=dark", "X-Other": "1", "User-Agent": "carl/1"}


def fresh(response: Response) -> Response:
    """Add the field that lets the gateway store the page, unless the view has set it."""
    response.headers.setdefault("Cache-Control", "max-age=60")
    return response


def site(show: Callable[[], Any], **hooks: Callable[..., Any]) -> Build:
    """Return a function that sets up an app with one page, whose fields allow a gateway to store it."""

    def build(app: Flask) -> None:
        app.add_url_rule("/", "page", show)
        app.after_request(fresh)
        for name, hook in hooks.items():
            getattr(app, name)(hook)

    return build


def who_by_session() -> str:
    return f"hello {session.get('user', 'stranger')}"
