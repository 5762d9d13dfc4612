"""Finds out why a page of an app is cached or not: requests it twice in this process, and collects the front ends' accounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any, NamedTuple

from flask import Flask

from ..app_state import AppState, state_of
from ..batches.warm_call import Reply
from ..core.addressing.base_url import Base, environ_fields
from ..core.model.environ import PROBE, REFRESHING, environ_name
from ..core.rules.why import Account, Diagnosis, Outside, explain_outside, explain_two
from ..errors import ConfigError
from ..frontends.flask_app.flask_urls import match_endpoint, warm_target
from ..frontends.pages.bound_view import cached_view
from ..frontends.setup.probe import Probe
from .sandbox import sandboxed

#: The host of the request if none is given.
_NOWHERE = "localhost"
#: The variables of a request that belong to one visitor.
_OWN = ("HTTP_COOKIE", "HTTP_AUTHORIZATION")
#: Fields that may be given here, since a visitor sends them; other requests of this package can't have them.
_FREE = frozenset({"host", "cookie", "authorization"})


class Visit(NamedTuple):
    """One request, and its answer.

    :ivar answer: the status line of the answer, or the exception that the app raised.
    :ivar account: how it was answered; ``None`` if it did not reach a front end.
    """

    answer: str
    account: Account | None


class Inquiry(NamedTuple):
    """Why a page is cached or not.

    :ivar url: the URL that was requested.
    :ivar visits: the two requests.
    :ivar others: how this visitor is answered once others have filled the store; ``None`` if the visitor is like all others.
    :ivar found: the explanation.
    """

    url: str
    visits: tuple[Visit, Visit]
    others: Account | None
    found: Diagnosis

    @property
    def account(self) -> Account | None:
        """The account of the last answer that the app made, with the code that read each name. Without one, the last account."""
        accounts = [visit.account for visit in reversed(self.visits) if visit.account is not None]
        return next((account for account in accounts if not account.is_from_store), accounts[0] if accounts else None)


def inquire(app: Flask, url: str, fields: Mapping[str, str], cookies: Sequence[str]) -> Inquiry:
    """Request a page twice, in a sandbox.

    :param url: a path with its query, or a full URL.
    :param fields: request fields to send.
    :param cookies: cookies to send, as ``name=value``.
    :raises ConfigError: for an invalid URL, field or cookie.
    """
    environ = _environ(app, url, fields, cookies)
    with sandboxed(app) as private:
        one, two = _visit(app, environ, private), _visit(app, environ, private)
        others = _others(app, environ, private, two.account)
    host, path = environ["HTTP_HOST"], environ["RAW_URI"]
    return Inquiry(f"{environ['wsgi.url_scheme']}://{host}{path}", (one, two), others, _explained(app, environ, one, two))


def _explained(app: Flask, environ: dict[str, Any], one: Visit, two: Visit) -> Diagnosis:
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    if one.account is not None and two.account is not None:
        return explain_two(path, one.account, two.account)
    endpoint = match_endpoint(app, environ)
    view: Any = app.view_functions.get(endpoint or "")
    cached = cached_view(view)
    name = cached.name if cached is not None else f"{getattr(view, '__module__', '')}.{getattr(view, '__qualname__', endpoint)}"
    # The default host is the command's own choice, and not one of the app.
    is_known = environ["HTTP_HOST"] != _NOWHERE
    settings = state_of(app).settings
    return explain_outside(path, Outside(endpoint, name, cached is not None, settings.enabled, two.answer, is_known))


def _environ(app: Flask, url: str, fields: Mapping[str, str], cookies: Sequence[str]) -> dict[str, Any]:
    """Return a visitor's request for a URL."""
    target = warm_target(app, state_of(app).settings)
    base = Base.of_url(url, target.root) or target.base or Base("http", _NOWHERE, target.root)
    environ = base.recipe(base.address(url)).to_environ("127.0.0.1")
    for name in (REFRESHING, "HTTP_USER_AGENT"):
        del environ[name]
    own = {environ_name(name): value for name, value in fields.items() if name.lower() in _FREE}
    for cookie in cookies:
        if "=" not in cookie or ";" in cookie or not cookie.isprintable():
            raise ConfigError(f"the cookie {cookie!r}: give a name and a value, such as 'lang=de'")
    if cookies:
        own["HTTP_COOKIE"] = "; ".join([*filter(None, [own.get("HTTP_COOKIE")]), *cookies])
    return {**environ, **environ_fields({name: value for name, value in fields.items() if name.lower() not in _FREE}), **own}


def _visit(app: Flask, environ: dict[str, Any], private: AppState) -> Visit:
    """Send one request, and read its answer."""
    probe, reply = Probe(), Reply()

    def go() -> None:
        try:
            reply.go(app.wsgi_app, {**environ, PROBE: probe}, private.settings.max_entry_size)
        except Exception as error:
            reply.error = error

    # Like a thread of a server: the request does not have the context variables of the caller.
    Context().run(go)
    return Visit(f"{reply.error!r}" if reply.error is not None else reply.status, probe.account())


def _others(app: Flask, environ: dict[str, Any], private: AppState, account: Account | None) -> Account | None:
    """Return how this visitor is answered once others have filled the store."""
    if account is None or account.is_from_store or not any(name in environ for name in _OWN):
        return None
    stranger = {name: value for name, value in environ.items() if name not in _OWN}
    filled = _visit(app, stranger, private).account
    return _visit(app, environ, private).account if filled is not None and filled.is_stored else None
