"""The parts of one app, wired to it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, has_app_context

from . import config
from .batches.operations import BulkOperations
from .batches.renewal import Renewal
from .batches.scheduler import BatchScheduler
from .config import Settings
from .core.model.entry import Entry
from .core.model.environ import REFRESHING
from .engine.engine import Engine
from .errors import ConfigError
from .frontends.app_version import AppVersion
from .frontends.engine_setup import make_engine
from .frontends.flask_gateway import FlaskGatewayFactory
from .frontends.flask_internals import RequestContext, before_response_is_processed, check_versions, current_flask_app
from .frontends.flask_urls import warm_target
from .frontends.gateway.handler import Gateway
from .frontends.memoize.handler import NAME, Calls
from .frontends.memoize.origin import FetchFunction
from .frontends.middleware import AfterResponseMiddleware
from .frontends.pages.handler import Pages
from .frontends.pages.refresh import AS_VISITOR
from .frontends.pages.request_recorder import observed_request_class
from .frontends.pages.watch import discard_session
from .frontends.requests_adapter.app_context import AppContext
from .stats.counters import Counters
from .stats.registry import Registry
from .stores.base import Store


@dataclass(frozen=True, slots=True)
class State:
    """What belongs to one app; it is ``app.extensions["stalecache"]``.

    :ivar settings: the checked configuration.
    :ivar engine: answers requests.
    :ivar pages: the cached views.
    :ivar calls: the fetch functions; ``None``: they run as if they were not decorated.
    :ivar sessions: what sessions of ``requests`` ask; ``None``: nothing they do is cached.
    :ivar scans: runs batches.
    :ivar bulk: purges, refreshes and warms many entries.
    :ivar counters: what happened in this process.
    :ivar stats: what happened in all that share the directory.
    """

    settings: Settings
    engine: Engine
    pages: Pages
    calls: Calls | None
    sessions: AppContext | None
    scans: BatchScheduler
    bulk: BulkOperations
    counters: Counters
    stats: Registry


def set_up(app: Flask, own: Store | None, memos: Iterable[FetchFunction]) -> AfterResponseMiddleware | None:
    """Wire the parts to an app, and return where its requests arrive; ``None`` if caching is off.

    :param own: where entries live; ``None``: as configured.
    :param memos: the fetch functions that are known by now.
    :raises ConfigError: for an unknown key, a value that is not accepted, or a cache directory that can't be used.
    """
    if NAME in app.extensions:
        raise ConfigError(f"the app {app.name!r} has a StaleCache already: call init_app once")
    check_versions()
    settings = config.read(app.config)
    engine = make_engine(app, settings, app.config, own, Path(app.instance_path) / NAME)
    counters = engine.counters
    version = AppVersion(settings.version, time.time(), lambda: app.debug)
    if not settings.enabled:
        scans, pages = BatchScheduler(engine, []), Pages(app, settings, engine, version)
        app.extensions[NAME] = State(settings, engine, pages, None, None, scans, _bulk(app, scans), counters, engine.registry)
        return None
    calls = Calls(app, settings, engine, version)
    calls.check(memos)
    sessions = AppContext(engine, calls.pool, calls.terms)
    pages = Pages(app, settings, engine, version)
    app.request_class = observed_request_class(app.request_class, settings.ignored_readers)
    doorway = AfterResponseMiddleware(app.wsgi_app, engine, FlaskGatewayFactory(app, engine, calls.renew, version))
    scans = BatchScheduler(engine, [pages, calls, _GatewayBehind(doorway)])
    app.extensions[NAME] = State(settings, engine, pages, calls, sessions, scans, _bulk(app, scans), counters, engine.registry)
    app.wsgi_app = doorway  # type: ignore[method-assign]
    before_response_is_processed(app, _discard_visitors_session)
    return doorway


def _bulk(app: Flask, scheduler: BatchScheduler) -> BulkOperations:
    return BulkOperations(scheduler, app.view_functions, lambda: warm_target(app, scheduler.engine.settings))


class _GatewayBehind:
    """The gateway of an app, if it comes to have one."""

    def __init__(self, doorway: AfterResponseMiddleware) -> None:
        self._doorway = doorway

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how something of the gateway's is made again; or why it can't be; ``None``: it is not a gateway's."""
        gateway = self._doorway.gateway
        return gateway.renewal_of(entry) if isinstance(gateway, Gateway) else None


def state_of(app: Flask) -> State:
    """Return what belongs to an app; raise :class:`ConfigError` if it was not set up."""
    try:
        state: State = app.extensions[NAME]
    except KeyError:
        raise ConfigError(f"the app {app.name!r} has no StaleCache: call init_app(app) first") from None
    return state


def app_of_context(what: str) -> Flask:
    """Return the current app; raise :class:`ConfigError` outside an app context.

    :param what: needs it.
    """
    if not has_app_context():
        raise ConfigError(f"{what} needs to know the app: call it in a request, or under `with app.app_context():`")
    return current_flask_app()


def _discard_visitors_session(context: RequestContext) -> None:
    """Keep a refresh that carries its visitor's cookies from acting as the visitor.

    The gateway's refresh has them where a page varies on them.
    """
    environ = context.request.environ
    if AS_VISITOR.get() or (REFRESHING in environ and "HTTP_COOKIE" in environ):
        discard_session(context)
