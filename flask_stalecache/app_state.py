"""Builds the parts of one app, and installs them in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask, has_app_context

from .batches.operations import BulkOperations
from .batches.renewal import Renewal
from .batches.scheduler import BatchScheduler
from .config import settings as config
from .config.settings import Settings
from .core.model.entry import Entry
from .core.model.environ import GIVEN_SESSION, REFRESHING
from .engine.engine import Engine
from .errors import ConfigError
from .frontends.flask_app.first_request import first_request_check
from .frontends.flask_app.flask_gateway import FlaskGatewayFactory
from .frontends.flask_app.flask_urls import identity_of, warm_target
from .frontends.flask_internals.contexts import RequestContext, current_flask_app
from .frontends.flask_internals.sessions import APPS_WITH_OPENER, around_sessions
from .frontends.flask_internals.steps import around_response_processing, around_url_for, around_user_exceptions
from .frontends.flask_internals.versions import check_versions
from .frontends.gateway.handler import Gateway
from .frontends.memoize.bound_function import FetchFunction
from .frontends.memoize.handler import Calls
from .frontends.memoize.places import observe_url_for
from .frontends.middleware import AfterResponseMiddleware
from .frontends.observation.watched_session import hand_out_session, watch_opened
from .frontends.pages.bound_view import is_for_page
from .frontends.pages.error_pages import answer_once
from .frontends.pages.filling_holes.filling import AppHoles
from .frontends.pages.filling_holes.known_holes import KnownHoles
from .frontends.pages.handler import Pages
from .frontends.pages.refresh import AS_VISITOR
from .frontends.pages.watching.request_recorder import observed_request_class, plain_environ
from .frontends.pages.watching.watch import discard_session
from .frontends.request.caller_context import note_beginnings
from .frontends.requests_adapter.app_context import AppContext
from .frontends.response.holes import HoleFunctions
from .frontends.response.template_holes import template_holes
from .frontends.setup.app_version import AppVersion
from .frontends.setup.current_app import NAME, cache_of
from .frontends.setup.default_directory import default_directory
from .frontends.setup.engine_setup import make_engine
from .stats.counters import Counters
from .stats.registry import Registry
from .stores.base import seq_of_request
from .stores.shared.store import RedisStore


@dataclass(frozen=True, slots=True)
class AppState:
    """The parts of one app, kept as ``app.extensions["stalecache"]``.

    :ivar settings: the checked configuration.
    :ivar engine: answers requests.
    :ivar pages: the cached views.
    :ivar calls: the fetch functions; ``None`` if caching is off: they run as if they were not decorated.
    :ivar sessions: engine and threads for sessions of ``requests``; ``None`` if caching is off: their requests are not cached.
    :ivar middleware: the middleware through which requests enter the app; ``None`` if caching is off.
    :ivar scheduler: runs batches.
    :ivar bulk: purges, refreshes and warms many entries.
    :ivar counters: the counts of this process.
    :ivar stats: the counts of all processes that share the directory.
    :ivar holes: the functions that fill holes of pages.
    """

    settings: Settings
    engine: Engine
    pages: Pages
    calls: Calls | None
    sessions: AppContext | None
    middleware: AfterResponseMiddleware | None
    scheduler: BatchScheduler
    bulk: BulkOperations
    counters: Counters
    stats: Registry
    holes: HoleFunctions

    @classmethod
    def of(cls, app: Flask, own: Any, functions: Iterable[FetchFunction], holes: HoleFunctions) -> AppState:
        """Build the parts of an app. The app itself is not changed yet.

        :param own: the store that was given in code; ``None``: the configured one.
        :param functions: the fetch functions decorated so far.
        :param holes: the functions that fill holes of pages.
        """
        settings = config.read(app.config)
        config.check_observed(app.config)
        engine = make_engine(app, settings, app.config, own, default_dir=default_directory(app), default_name=app.name)
        if isinstance(engine.store, RedisStore):
            engine.store.introduction.identify = identity_of(app)
        return cls._of_engine(app, app.wsgi_app, engine, functions, holes)

    @classmethod
    def beside(cls, app: Flask, live: AppState, engine: Engine) -> AppState:
        """Build a second set of an app's parts, which adds explanations to its answers. The set is not installed.

        :param live: the installed set.
        :param engine: the engine of the second set, which has that set's store.
        """
        entered = app.wsgi_app if live.middleware is None else live.middleware.app
        return cls._of_engine(app, entered, engine, (), live.holes, is_installed=False)

    @classmethod
    def _of_engine(
        cls,
        app: Flask,
        entered: Any,
        engine: Engine,
        functions: Iterable[FetchFunction],
        holes: HoleFunctions,
        *,
        is_installed: bool = True,
    ) -> AppState:
        settings = engine.settings
        # Shared by all front ends: with app.debug the version is the time of the start, and all of them must use the same one.
        version = AppVersion(settings.version, time.time(), lambda: app.debug, settings.debug_errors)
        known = KnownHoles(app, settings.holes, settings.hooks_set_g, is_for_page, engine.complaints)
        filling = AppHoles(app, holes, known, template_holes(app), engine.complaints)
        pages = Pages(app, settings, engine, version, filling, explains=not is_installed)
        calls: Calls | None = None
        sessions: AppContext | None = None
        middleware: AfterResponseMiddleware | None = None
        renewing: list[Any] = []
        if settings.enabled:
            calls = Calls(app, settings, engine, version)
            calls.check(functions)
            sessions = AppContext(engine, calls.pool, calls.terms)
            gateways = FlaskGatewayFactory(app, engine, calls.renew, version, is_installed=is_installed)
            middleware = AfterResponseMiddleware(entered, engine, gateways, first_request_check(app, engine, known.prepare))
            renewing = [pages, calls, _GatewayBehind(middleware)]
        scheduler = BatchScheduler(engine, renewing)
        bulk = BulkOperations(scheduler, app.view_functions, lambda: warm_target(app, settings, version.version))
        return cls(settings, engine, pages, calls, sessions, middleware, scheduler, bulk, engine.counters, engine.registry, holes)


def set_up(app: Flask, own: Any, functions: Collection[FetchFunction], holes: HoleFunctions) -> AfterResponseMiddleware | None:
    """Build the parts of an app, install them, and return the middleware; ``None`` if caching is off.

    :param own: the store that was given in code; ``None``: the configured one.
    :param functions: the fetch functions decorated so far.
    :param holes: the functions that fill holes of pages.
    :raises ConfigError: for an unknown key, a value that is not accepted, or a cache directory that can't be used.
    """
    if NAME in app.extensions:
        raise ConfigError(f"the app {app.name!r} has a StaleCache already: call init_app once")
    check_versions()
    state = app.extensions[NAME] = AppState.of(app, own, functions, holes)
    if state.middleware is not None:
        _install(app, state, state.middleware)
        if functions:
            prepare_for_calls(app)
    return state.middleware


def prepare_for_calls(app: Flask) -> None:
    """Let the contexts of an app note when they begin, which its fetch functions need. Without those, hits are spared the cost."""
    note_beginnings(app, seq_of_request(state_of(app).engine.store))


def _install(app: Flask, state: AppState, middleware: AfterResponseMiddleware) -> None:
    """Hook the parts into the request handling of an app."""
    # Even the first hook of an app would be too late: URL matching and the session have read the request object by then.
    app.request_class = observed_request_class(app.request_class, state.settings.ignored_readers)
    # Refreshes are handed over when the server has sent the response and closed it. Hooks and teardown functions end before that.
    app.wsgi_app = middleware  # type: ignore[method-assign]
    # No hook is guaranteed to be the last one before the session is saved, or to see the response as it is sent.
    around_user_exceptions(app, answer_once)
    if state.settings.session_opener is not None:
        APPS_WITH_OPENER.add(app)
    around_sessions(app, watch_opened, hand_out_session)
    around_url_for(app, observe_url_for)
    around_response_processing(app, _discard_visitors_session, state.pages.response_is_finished)


class _GatewayBehind:
    """The gateway of an app, which is opened only if the configuration or a view needs it."""

    def __init__(self, doorway: AfterResponseMiddleware) -> None:
        self._doorway = doorway

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how an entry of the gateway is renewed, or why it can't be renewed; ``None`` if the entry is not the gateway's."""
        gateway = self._doorway.gateway
        return gateway.renewal_of(entry) if isinstance(gateway, Gateway) else None


def state_of(app: Flask) -> AppState:
    """Return the parts of an app; raise :class:`ConfigError` if it was not set up."""
    state: AppState = cache_of(app)
    return state


def app_of_context(what: str) -> Flask:
    """Return the current app; raise :class:`ConfigError` outside an app context.

    :param what: the call that needs the app, for the message.
    """
    if not has_app_context():
        raise ConfigError(f"{what} needs to know the app: call it in a request, or under `with app.app_context():`")
    return current_flask_app()


def _discard_visitors_session(context: RequestContext) -> None:
    """Keep a refresh that carries a visitor's cookies from saving that visitor's session.

    A refresh of the gateway has cookies if the page varies on them.
    """
    environ = plain_environ(context.request)
    if AS_VISITOR.get() or GIVEN_SESSION in environ or (REFRESHING in environ and "HTTP_COOKIE" in environ):
        discard_session(context)
