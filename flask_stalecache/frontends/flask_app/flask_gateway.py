"""The gateway in front of a Flask app, and its views with ``gateway=True``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, Response

from ...core.http.tags import TAG_FIELDS
from ...core.model.checks import tags as checked_tags
from ...core.model.policy import Policy
from ...core.rules import cacheability
from ...core.rules.prefer_stale import preference
from ...engine.engine import Engine
from ...engine.log import RateLimitedLog
from ...errors import ConfigError
from ..app_code.hooks import ask
from ..app_code.login_decorators import login_decorator
from ..flask_internals.contexts import request_context
from ..flask_internals.steps import before_context, before_dispatch
from ..gateway.backend import Backend
from ..gateway.handler import Gateway
from ..gateway.rules import Rules, base_policy
from ..pages.bound_view import CachedView
from ..pages.handler import Pages
from ..setup.app_version import AppVersion
from .flask_endpoints import FlaskEndpoints
from .flask_observer import CODED, Observer, note_call, note_dispatch, note_what_is_left
from .flask_sessions import FlaskSessions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Parameters that need the app at each hit, although the gateway does not enter the app then; and what to write instead.
_NEEDS_THE_APP = {
    "unless": "write a rule for its path in STALECACHE_GATEWAY, whose unless is given the WSGI environ",
    "renew": "write a rule for its path in STALECACHE_GATEWAY, whose renew is given the WSGI environ",
    "key": "a hit has no request to ask: write vary=, or leave gateway out",
    "cookies": "write a rule for its path in STALECACHE_GATEWAY, such as Policy(cookies=['lang'])",
    "session": "write a rule for its path in STALECACHE_GATEWAY, such as Policy(session=['lang'])",
    "ignored_parameters": "name them in STALECACHE_IGNORED_PARAMETERS, or in a rule for its path in STALECACHE_GATEWAY",
    "sort_query": "write a rule for its path in STALECACHE_GATEWAY",
    "prefer_stale": "write a rule for its path in STALECACHE_GATEWAY",
    "wait": "write a rule for its path in STALECACHE_GATEWAY",
    "lock_timeout": "write a rule for its path in STALECACHE_GATEWAY",
    "refresh_ahead": "write a rule for its path in STALECACHE_GATEWAY",
    "min_uses": "write a rule for its path in STALECACHE_GATEWAY",
}


def check_gateway_policy(policy: Policy) -> None:
    """Raise :class:`ConfigError` if the policy of a view with ``gateway=True`` needs the app at each hit."""
    for name, advice in _NEEDS_THE_APP.items():
        value = getattr(policy, name)
        is_said = bool(value) if name in ("ignored_parameters", "refresh_ahead", "session", "sort_query") else value is not None
        if is_said and (name, value) != ("min_uses", 1):
            raise ConfigError(f"{name} has no effect beside gateway=True, since a hit never enters the app: {advice}")
    if hidden := min(policy.unset.intersection(map(str.lower, TAG_FIELDS)), default=None):
        raise ConfigError(
            f"unset contains {hidden!r}, by which the gateway purges the page: STALECACHE_SEND_TAG_FIELDS = False keeps it "
            "from clients"
        )
    for name, normalise in policy.vary.items():
        if normalise is not None:
            raise ConfigError(f"vary[{name!r}] has a normaliser, which a hit of gateway=True can't call: give the name alone")


def coded(cached: CachedView, complaints: RateLimitedLog, app: Flask, pages: Pages, args: Any, kwargs: Any) -> Response:
    """Call a view with ``gateway=True``, and apply the parameters of its decorator to the response.

    :param pages: calls the view. If the response has holes, the app itself stores the next one.
    """
    policy = cached.policy
    request = request_context().request
    request.environ[CODED] = policy
    view = app.view_functions.get(request.endpoint or "")
    if policy.ignore_session and (decorator := login_decorator(view)) is not None:
        complaints.warn_once(
            ("order", cached.name),
            "%s may show a member's page to everybody: it ignores the session, and a hit of the gateway never reaches %s, which "
            "asks who is logged in; leave gateway=True out, and write @cache.cached(ignore_session=True) below it",
            cached.name, decorator,
        )  # fmt: skip
    response: Any = pages.call_for_gateway(cached, request_context(), args, kwargs)
    response.vary.update(name.title() for name in policy.vary)
    is_kept = ask(
        lambda: _tag_and_filter(policy, response, kwargs),
        False,
        complaints,
        ("coded", cached.name),
        "%s is not stored, since its tags or response_filter failed: %r",
        cached.name,
    )
    if not is_kept:
        cacheability.no_store()
    return response  # type: ignore[no-any-return]


def _tag_and_filter(policy: Policy, response: Response, kwargs: Mapping[str, Any]) -> bool:
    """Tag a response with the tags of its view, and return whether the view's ``response_filter`` lets it be stored."""
    if policy.tags:
        cacheability.tag(*(checked_tags("tags", policy.tags(**kwargs)) if callable(policy.tags) else policy.tags))
    return policy.response_filter is None or bool(policy.response_filter(response))


class FlaskGatewayFactory:
    """Makes the gateway of one Flask app, once the configuration or a view asks for it.

    :param app: the app.
    :param engine: the engine of the app.
    :param renew: refreshes values of fetch functions by their keys, and waits for them.
    :param version: the version of the app.
    :param is_installed: the gateway becomes part of the app. Otherwise it only explains answers, beside the installed one.
    """

    def __init__(
        self,
        app: Flask,
        engine: Engine,
        renew: Callable[[tuple[str, ...]], None],
        version: AppVersion,
        *,
        is_installed: bool = True,
    ) -> None:
        self._app = app
        self._engine = engine
        self._renew = renew
        self._version = version
        self._is_installed = is_installed

    def __call__(self, enter: WSGIApplication) -> Gateway:
        """Return the gateway.

        :param enter: the WSGI app behind it.
        """
        app, engine, settings = self._app, self._engine, self._engine.settings
        if self._is_installed:
            # Flask runs the first hook in the list last, so that it sees the final response.
            app.after_request_funcs.setdefault(None, []).insert(0, note_what_is_left)
            before_dispatch(app, note_dispatch)
            before_context(app, note_call)
        refreshes = settings.prefer_stale_refresh
        preferred = preference(settings.prefer_stale, refreshes)
        terms = self._version.serve_options(prefer_stale=preferred)
        is_on = settings.gateway is not False
        sessions = FlaskSessions(app, settings.session_opener, engine.complaints)
        endpoints = FlaskEndpoints(app, engine.complaints, only_coded=not is_on)
        rules = Rules(
            () if isinstance(settings.gateway, bool) else settings.gateway,
            base_policy(settings, app.config),
            settings.ignored_parameters,
            terms,
            preference(True, refreshes),
            endpoints.endpoint_of,
            sessions.check,
        )
        observer = Observer(settings, sessions)
        backend = Backend.of(
            observer.entering(enter),
            engine,
            terms,
            observer,
            self._renew,
            only_coded=not is_on,
            debugs=lambda: app.debug or not self._is_installed,
            endpoints=endpoints,
            sessions=sessions,
        )
        return Gateway(backend, rules, settings.status_headers)
