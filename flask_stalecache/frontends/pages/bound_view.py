"""A cached view: as it is decorated (:class:`CachedView`), and bound to an app (:class:`BoundView`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary

from flask import Flask
from flask.views import View
from werkzeug.wrappers import Response

from ...config.settings import Settings
from ...core.model.environ import REFRESHING
from ...core.model.policy import Policy
from ...core.model.query import NamePatterns, query_in_key
from ...core.rules.cacheability import unheard
from ...core.rules.named import selectors_of
from ...core.rules.prefer_stale import RequestFlag, carried_values, is_set, preference
from ...core.rules.serving import ServeOptions
from ...engine.engine import Engine
from ...engine.log import RateLimitedLog
from ...stats.tally import Tally
from ..app_code.function_names import name_of
from ..app_code.hooks import ask
from ..app_code.login_decorators import login_decorator
from ..app_code.rest_frameworks import make_response
from ..flask_internals.contexts import RequestContext, request_context
from ..request.kept_values import KeptValues
from ..setup.app_version import AppVersion
from ..setup.current_app import renew_calls
from .filling_holes.filling import AppHoles
from .watching.request_recorder import ObservedRequest
from .watching.watch import KEY_FIELDS, unnoticed

#: The qualified name that the functions of all class-based views have.
_CLASS_BASED = f"{View.as_view.__qualname__}.<locals>.view"


class CachedView:
    """A view under ``cached``, not yet bound to an app.

    :param view: the view function.
    :param policy: the arguments of ``cached``.
    """

    def __init__(self, view: Callable[..., Any], policy: Policy) -> None:
        self.view = view
        self.policy = policy
        #: Whether the key is made with callables of the developer's, or from named cookies or session values: both may fail.
        self.calls_for_key = policy.key is not None or any(policy.vary.values()) or bool(policy.named)
        #: The cookies and values of the session that are always in the key.
        self.named = selectors_of(policy)
        self.name = name_of(view)
        #: Whether a page that it made for the gateway had holes. Then the app stores its pages: a gateway's hit enters no app.
        self.has_holes = False
        self.is_class_based = getattr(view, "__qualname__", "") == _CLASS_BASED


#: The views under ``cached``, by the function that replaces them. Keys and values are weak: a view may refer to its whole app.
_standing: WeakKeyDictionary[Callable[..., Any], ReferenceType[CachedView]] = WeakKeyDictionary()


def stands_for(function: Callable[..., Any], cached: CachedView) -> None:
    """Register the function that replaces a view."""
    _standing[function] = ReferenceType(cached)


def cached_view(function: Callable[..., Any] | None) -> CachedView | None:
    """Return the view under ``cached`` that a function replaces, through any decorators; ``None`` if it replaces no such view."""
    while function is not None:
        found = _standing.get(function)
        if found is not None:
            return found()
        function = getattr(function, "__wrapped__", None)
    return None


def decorated_above_routes(app: Flask, apps: Iterable[Flask]) -> list[str]:
    """Return the names of views that are decorated above their routes, so that the app has registered the undecorated ones.

    :param apps: all apps of the process.
    """
    in_use = {id(cached_view(view)) for each in apps for view in list(each.view_functions.values())}
    registered = {id(view) for view in app.view_functions.values()}
    found = [found for found in (each() for each in list(_standing.values())) if found is not None and id(found) not in in_use]
    return sorted({cached.name for cached in found if any(id(view) in registered for view in _unwrapped(cached.view))})


def _unwrapped(view: Callable[..., Any] | None) -> Iterator[Callable[..., Any]]:
    while view is not None:
        yield view
        view = getattr(view, "__wrapped__", None)


def is_dispatched(context: RequestContext, cached: CachedView) -> bool:
    """Whether a view was called for a request by Flask, rather than by another view."""
    view: Any = context.app.view_functions.get(context.request.endpoint or "")
    method = getattr(getattr(view, "view_class", None), context.request.method.lower(), None)
    # A decorator of a resource, named in method_decorators, decorates the method again for each request.
    return cached in (cached_view(view), cached_view(method)) or cached.view is method


def is_for_page(context: RequestContext) -> bool:
    """Whether a request is for a page of a cached view that the app itself stores, rather than a gateway."""
    request = context.request
    if not isinstance(request, ObservedRequest) or request.method not in ("GET", "HEAD"):
        return False
    cached = cached_view(context.app.view_functions.get(request.endpoint or ""))
    return cached is not None and (cached.has_holes or not cached.policy.gateway)


def _check_order(cached: CachedView, complaints: RateLimitedLog) -> None:
    """Warn if a login decorator stands below ``cached(ignore_session=True)``: a hit does not check who is logged in."""
    if cached.policy.ignore_session and cached.policy.key is None and (decorator := login_decorator(cached.view)) is not None:
        complaints.warn_once(
            ("order", cached.name),
            "%s may show a member's page to everybody: @cache.cached(ignore_session=True) stands above %s, which asks who is "
            "logged in; write it below, directly above the function",
            cached.name, decorator,
        )  # fmt: skip


class EndpointCounters(NamedTuple):
    """An endpoint of a cached view.

    :ivar view: the names of the view and the endpoint, as the key has them.
    :ivar tally: its counters.
    """

    view: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class BoundView:
    """A cached view in one app: the policy under the app's settings.

    :ivar ignored: the query parameters that are not in the key, and whether their order is.
    :ivar in_key: the request fields in the key, in lower case.
    :ivar uncounted: the request fields whose reading does not count, in lower case.
    :ivar terms: the serving options that hold for all requests.
    :ivar asks_each: whether each request has serving options of its own.
    :ivar asked_by: the request fields and cookies with which a client prefers a stale page.
    :ivar explains: whether ``Cache-Status`` has a detail: if chosen, or if ``app.debug`` was set at the first request for the view.
    :ivar kept: distinguishes random values from settings.
    :ivar holes: the holes of the app.
    :ivar endpoints: the counters of the endpoints that were requested.
    """

    app: Flask
    cached: CachedView
    engine: Engine
    settings: Settings
    complaints: RateLimitedLog
    ignored: NamePatterns
    in_key: frozenset[str]
    uncounted: frozenset[str]
    lock_timeout: float
    terms: ServeOptions
    asked_by: tuple[RequestFlag, ...]
    asks_each: bool
    explains: bool
    kept: KeptValues
    holes: AppHoles
    endpoints: dict[str | None, EndpointCounters]

    @classmethod
    def of(
        cls,
        app: Flask,
        cached: CachedView,
        engine: Engine,
        settings: Settings,
        version: AppVersion,
        kept: KeptValues,
        holes: AppHoles,
        *,
        explains: bool = False,
    ) -> BoundView:
        """Bind a view to an app.

        :param version: the version of the app.
        :param kept: distinguishes random values from settings.
        :param holes: the holes of the app.
        :param explains: ``Cache-Status`` has a detail, even without ``app.debug``.
        """
        policy = cached.policy
        _check_order(cached, engine.complaints)
        ignored = query_in_key((*policy.ignored_parameters.items, *settings.ignored_parameters.items), is_sorted=policy.sort_query)
        in_key = KEY_FIELDS | frozenset(policy.vary)
        lock_timeout = settings.lock_timeout if policy.lock_timeout is None else policy.lock_timeout
        uncounted = in_key | settings.ignored_headers
        prefers = settings.prefer_stale if policy.prefer_stale is None else policy.prefer_stale is True
        terms = version.serve_options(policy.refresh_ahead or 0.0, preference(prefers, settings.prefer_stale_refresh))
        asked_by = carried_values(settings.prefer_stale_header, settings.prefer_stale_cookie)
        if policy.prefer_stale is not None or prefers:
            asked_by = ()
        asks_each = bool(asked_by) or callable(policy.prefer_stale) or policy.renew is not None
        return cls(
            app,
            cached,
            engine,
            settings,
            engine.complaints,
            ignored,
            in_key,
            uncounted,
            lock_timeout,
            terms,
            asked_by,
            asks_each,
            app.debug or explains,
            kept,
            holes,
            {},
        )

    def terms_of(self, context: RequestContext) -> ServeOptions:
        """Return the serving options of one request."""
        policy = self.cached.policy
        # Not for a refresh of ours: no client has asked for it.
        if policy.renew is not None and REFRESHING not in context.request.environ and self._asks("renew", policy.renew, context):
            return self.terms.renewing()
        asked = policy.prefer_stale
        if callable(asked):
            prefers = self._asks("prefer_stale", asked, context)
            return self.terms._replace(prefer_stale=preference(prefers, self.settings.prefer_stale_refresh))
        environ = context.request.environ
        if is_set(self.asked_by, environ):
            return self.terms._replace(prefer_stale=preference(True, self.settings.prefer_stale_refresh))
        return self.terms

    def _asks(self, parameter: str, asked: Callable[[], object], context: RequestContext) -> bool:
        """Return whether a callable of the developer's is true. Its reads do not count: they do not affect the page."""
        name = self.cached.name
        with unnoticed(context):
            return ask(
                lambda: bool(unheard(asked)),
                False,
                self.complaints,
                (parameter, name),
                "the %s of %s raised: %r",
                parameter,
                name,
            )

    def name_at(self, endpoint: str | None) -> str:
        """Return the name of the view in the log; for a class-based view its endpoint: all such functions have one name."""
        return f"the endpoint {endpoint}" if self.cached.is_class_based and endpoint else self.cached.name

    @property
    def remote_addr(self) -> str:
        """The address that refreshes come from."""
        return self.settings.refresh_remote_addr

    @property
    def refresh_headers(self) -> Mapping[str, str]:
        """The fields that refreshes carry, by their names in lower case."""
        return self.settings.refresh_headers

    def renew_calls(self, keys: tuple[str, ...]) -> None:
        """Refresh the stale values among those that a page was made from, and wait for them."""
        renew_calls(self.app, keys)

    def call_view(self, args: Any, kwargs: Any) -> Response:
        """Call the view, an async one too, and return its value as a response."""
        return make_response(request_context(), self.app.ensure_sync(self.cached.view)(*args, **kwargs), args)
