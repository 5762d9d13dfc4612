"""``StaleCache``, the public face of the extension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload
from weakref import WeakSet

from flask import Flask, current_app, has_app_context, has_request_context, request
from flask.views import View

from .app_state import app_of_context, prepare_for_calls, set_up, state_of
from .batches.batch import Batch
from .batches.operations import drain_all_apps
from .batches.purged import Purged
from .batches.selector import Selection
from .batches.warmer import Urls
from .cli.commands import commands
from .config import values as config_values
from .core.model.checks import Duration, unknown_parameter
from .core.model.environ import REFRESHING
from .core.model.flask_caching import METHODS, SETUP
from .core.model.policy import Normaliser, Policy
from .core.rules import cacheability
from .errors import ConfigError
from .frontends.flask_app.flask_gateway import check_gateway_policy, coded
from .frontends.flask_internals.contexts import request_context, request_context_variable
from .frontends.memoize.bound_function import FetchFunction
from .frontends.memoize.function import MemoizedFunction
from .frontends.memoize.policy import DEFAULT_FAILURES, NO_FALLBACK, CallPolicy
from .frontends.memoize.serializers import Serializer, check_serializer
from .frontends.middleware import AfterResponseMiddleware
from .frontends.pages.bound_view import CachedView, stands_for
from .frontends.request.request_hints import give
from .frontends.requests_adapter.factory import make_adapter, make_session, session_rules
from .frontends.response.holes import NOTHING, HoleFunction, HoleFunctions
from .frontends.setup.current_app import NAME
from .jinja import install as install_tag
from .stats.schema import Stats
from .stores.base import Store

if TYPE_CHECKING:
    from requests import Session
    from requests.adapters import BaseAdapter
    from typing_extensions import Never

    from .dashboard.blueprint import Dashboard

P = ParamSpec("P")
R = TypeVar("R")
#: A text that fills a hole.
T = TypeVar("T", bound=str)


class StaleCache:
    """The extension. One object can serve several apps: the state of an app is kept in ``app.extensions``.

    :param app: an app to set up immediately. Default: call :meth:`init_app` later.
    :param store: the store for all apps of this object, or ``"memory"``. Default: ``STALECACHE_STORE``.
    :raises ConfigError: if the app's configuration is not usable.
    """

    def __init__(
        self, app: Flask | None = None, *, store: Store | Literal["file", "memory"] | None = None, **unknown: Never
    ) -> None:
        _check_setup("StaleCache()", unknown, "store")
        self._store: Any = None if store is None else config_values.store("store", store)
        #: Fetch functions, which may be decorated before an app is set up. ``init_app`` checks them.
        self._functions: WeakSet[FetchFunction] = WeakSet()
        #: The middleware of each app. A view with gateway=True that is decorated later opens the gateway there.
        self._middlewares: WeakSet[AfterResponseMiddleware] = WeakSet()
        self._apps: WeakSet[Flask] = WeakSet()
        self._has_gateway_views = False
        #: The functions that fill holes of pages. They may be decorated after an app is set up.
        self._holes = HoleFunctions()
        if app is not None:
            self.init_app(app)

    if not TYPE_CHECKING:  # Hidden, so that type checkers report names that do not exist.

        def __getattr__(self, name: str) -> Never:
            """Raise an error that says what to write instead of a method of Flask-Caching.

            :raises AttributeError: always, since Python calls this only for attributes that do not exist.
            """
            hint = f": {METHODS[name]}" if name in METHODS else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}", name=name, obj=self)

    def init_app(self, app: Flask, **unknown: Never) -> None:
        """Set up an app: read its ``STALECACHE_*`` keys, wrap its ``wsgi_app`` and record what views read of their requests.

        If the app sets ``app.request_class``, it must do so before this call.

        :raises ConfigError: for an unknown key, a value that is not accepted, or a cache directory that can't be used.
        """
        _check_setup("init_app()", unknown, "app")
        middleware = set_up(app, self._store, self._functions, self._holes)
        app.cli.add_command(commands)
        install_tag(app)
        if middleware is None:
            return
        self._middlewares.add(middleware)
        self._apps.add(app)
        if self._has_gateway_views or state_of(app).settings.gateway is not False:
            app.wsgi_app = middleware.open_gateway()  # type: ignore[method-assign,assignment]

    def cached(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        cookies: Sequence[str] | Mapping[str, Normaliser | None] = (),
        session: Sequence[str] | Mapping[str, Callable[[Any], str | None] | None] = (),
        ignored_parameters: Iterable[str] = (),
        sort_query: bool = False,
        key: Callable[[], object] | None = None,
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        unless: Callable[[], object] | None = None,
        renew: Callable[[], object] | None = None,
        response_filter: Callable[[Any], object] | None = None,
        unset: Iterable[str] = (),
        prefer_stale: bool | Callable[[], object] | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        refresh_ahead: Duration | None = None,
        jitter: float | None = None,
        min_uses: int = 1,
        ignore_session: bool = False,
        gateway: bool = False,
        **unknown: Never,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Cache a view. Write it below the route decorator.

        All durations are seconds, or a ``timedelta``.

        :param max_age: how long a page is fresh (RFC 9111 section 4.2). Default: what the response says, else
            ``STALECACHE_MAX_AGE``.
        :param stale_while_revalidate: how long after its freshness a page is served immediately and refreshed after the response
            (RFC 5861 section 3). Default: what the response says, else ``STALECACHE_STALE_WHILE_REVALIDATE``.
        :param stale_if_error: how long after its freshness a page is served if the view fails: raises, or answers 500, 502, 503 or
            504 (RFC 5861 section 4). Default: what the response says, else ``STALECACHE_STALE_IF_ERROR``.
        :param vary: request fields that the page depends on (RFC 9110 section 12.5.5); or a mapping of fields to callables that
            normalise a value (``None`` if the field is absent) to keep the number of variants small.
        :param cookies: cookies that the page depends on: their values are in the key; or a mapping of names to callables that
            normalise a value (``None`` without the cookie).
        :param session: keys of the session whose values the page depends on; or a mapping of keys to callables that make a string
            of a value (``None`` without it).
        :param ignored_parameters: query parameters that the page does not depend on: names, or patterns such as ``utm_*``.
        :param sort_query: ``?a=1&b=2`` and ``?b=2&a=1`` are one page: the order of query parameters is not in the key, but the
            order of several values of one name is. Default false.
        :param key: a callable without arguments. Its result (a string, a number, or a tuple of those) replaces path and query in
            the key.
        :param statuses: a mapping of status to lifetime (``None``: ``max_age``) of more statuses to store. By default 200, 301 and
            308 are stored.
        :param tags: names by which :meth:`purge` finds the page; or a callable that takes the view's arguments and returns names.
        :param unless: a callable without arguments. If it returns a true value, this request bypasses the cache.
        :param renew: a callable without arguments. If it returns a true value, this request skips the stored page and runs the
            view. Its answer replaces the stored page, if it meets the usual conditions for storing.
        :param response_filter: a callable that takes the response. If it returns a false value, the response is not stored.
        :param unset: response fields that are removed from a page before it is stored, such as ``Set-Cookie``, which would keep the
            page out of the store. The visitor whose request made the page does not get these fields either. A page that is not
            stored keeps them. The cookies of sessions and logins are never removed: pages that set them are not stored.
        :param prefer_stale: true: serve a stored page however old it is, and run the view only if none is stored. ``False``: never
            do so. A callable without arguments decides for each request. Default: ``STALECACHE_PREFER_STALE``, or the request's
            ``STALECACHE_PREFER_STALE_HEADER`` or ``_COOKIE``.
        :param wait: how long a visitor waits for the refresh of a page that stale-if-error covers. Then the stored page is served
            and the refresh continues in the background. Default: no limit. With ``STALECACHE_REFRESH_WORKERS = 0`` nothing runs in
            the background, and there is no limit.
        :param lock_timeout: how long to wait for another request's call of the view. Default: ``STALECACHE_LOCK_TIMEOUT``.
        :param refresh_ahead: a hit within this time before the end of freshness starts a refresh; at most half of the freshness.
            Default 0.
        :param jitter: the share of ``max_age``, from 0 to 1, by which freshness is shortened at random. Default 0.1.
        :param min_uses: store a page at its nth request within ``STALECACHE_MIN_USES_WITHIN`` seconds: 1 to 255. Default 1: the
            first answer is stored.
        :param ignore_session: the page does not depend on the session, although code reads it. Default false.
        :param gateway: serve hits before the app is entered, so that no ``before_request`` hook runs. Default false.
        :raises ConfigError: for a value that is not accepted, or an unknown parameter.
        """
        if unknown:
            raise ConfigError(unknown_parameter("cached()", next(iter(unknown)), _names_of(Policy)))
        if callable(max_age):
            raise ConfigError("cached is called without parentheses: write @cache.cached()")
        policy = Policy(
            max_age=max_age,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            vary=vary,
            cookies=cookies or None,
            session=session,
            ignored_parameters=ignored_parameters,
            sort_query=sort_query,
            key=key,
            statuses=statuses,
            tags=tags,
            unless=unless,
            renew=renew,
            response_filter=response_filter,
            unset=unset,
            prefer_stale=prefer_stale,
            wait=wait,
            lock_timeout=lock_timeout,
            refresh_ahead=refresh_ahead,
            jitter=jitter,
            min_uses=min_uses,
            ignore_session=ignore_session,
            gateway=gateway,
        )
        if policy.gateway:
            check_gateway_policy(policy)
            self._has_gateway_views = True
            for middleware in list(self._middlewares):
                middleware.open_gateway()
        return _ViewDecorator(policy)

    def memoize(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        key: Callable[..., object] | None = None,
        ignored_args: Iterable[str] = (),
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        unless: Callable[..., object] | None = None,
        prefer_stale: bool | Callable[..., object] | None = None,
        wait: Duration | None = None,
        fallback: Any = NO_FALLBACK,
        max_concurrency: int | None = None,
        suspend_after: int | None = None,
        suspend_for: Duration | None = None,
        failures: Iterable[type[Exception] | int] | Callable[[Any], object] = DEFAULT_FAILURES,
        cache_failures: Duration | None = None,
        serializer: str | Serializer = "json",
        inherit: bool = True,
        lock_timeout: Duration | None = None,
        refresh_ahead: Duration | None = None,
        jitter: float | None = None,
        **unknown: Never,
    ) -> Callable[[Callable[P, R]], MemoizedFunction[P, R]]:
        """Cache the values of a fetch function by its arguments.

        The function runs in an app context of its own, without a request, since its values are shared by all visitors. All
        callables given here take the function's arguments. All durations are seconds, or a ``timedelta``.

        :param max_age: how long a value is fresh. Default: ``STALECACHE_MAX_AGE``.
        :param stale_while_revalidate: how long after its freshness a value is returned immediately and refreshed in the background
            (RFC 5861 section 3). Default: ``STALECACHE_STALE_WHILE_REVALIDATE``.
        :param stale_if_error: how long after its freshness a value is returned if the function fails (RFC 5861 section 4). Default:
            ``STALECACHE_STALE_IF_ERROR``.
        :param key: its result replaces the arguments in the key. Methods need it, because ``self`` has no canonical form.
        :param ignored_args: parameters that the value does not depend on, such as a session or a client.
        :param tags: names by which :meth:`purge` finds the value and the pages made from it; or a callable that returns names.
        :param unless: if it returns a true value, the function is called and nothing is stored.
        :param prefer_stale: return a stored value however old it is, and refresh it in the background. Default:
            ``STALECACHE_PREFER_STALE``.
        :param wait: how long a caller waits for a missing or expired value, counted from the start of the call. The call runs in a
            thread of the function's own pool and continues afterwards. Default: no limit, and the call runs in the caller's thread.
        :param fallback: a value, or a callable that returns one, for when the function fails, times out or is busy and no stored
            value can be returned. Default: the error is raised.
        :param max_concurrency: how many calls may run at a time in one process. A further call returns the stored value or the
            fallback, or raises :class:`OriginBusy`. Default: no limit; 8 with ``wait``.
        :param suspend_after: after this many failures in a row, over all keys and all workers of the machine, the function is not
            called. Default: it is always called.
        :param suspend_for: how long it is not called. Then one call is tried.
        :param failures: exception classes and HTTP statuses that count as a failure; or a callable that takes the exception or
            value. Default: any exception, and a ``requests.Response`` with 429, 500, 502, 503 or 504. 404 and 410 do not count.
        :param cache_failures: how long a failure is remembered if no value is stored. Default: not at all.
        :param serializer: ``"json"`` (msgspec, decoded to the return annotation), ``"pickle"`` (signed with the app's secret key),
            or an object with ``dumps`` and ``loads``.
        :param inherit: pages made from a value inherit its tags and its freshness. Default true.
        :param lock_timeout: how long to wait for another caller's call. Default: ``STALECACHE_LOCK_TIMEOUT``.
        :param refresh_ahead: a call within this time before the end of freshness starts a refresh. Default 0.
        :param jitter: the share of ``max_age``, from 0 to 1, by which freshness is shortened at random. Default 0.1.
        :raises ConfigError: for a value that is not accepted, or an unknown parameter.
        """
        if unknown:
            known = [*signature(self.memoize).parameters]
            raise ConfigError(unknown_parameter("memoize()", next(iter(unknown)), known))
        if callable(max_age):
            raise ConfigError("memoize is called without parentheses: write @cache.memoize()")
        check_serializer(serializer)
        policy = CallPolicy(
            windows=Policy(
                max_age=max_age,
                stale_while_revalidate=stale_while_revalidate,
                stale_if_error=stale_if_error,
                key=key,
                tags=tags,
                unless=unless,
                prefer_stale=prefer_stale,
                wait=wait,
                lock_timeout=lock_timeout,
                refresh_ahead=refresh_ahead,
                jitter=jitter,
            ),
            ignored_args=ignored_args,
            fallback=fallback,
            max_concurrency=max_concurrency,
            suspend_after=suspend_after,
            suspend_for=suspend_for,
            failures=failures,
            cache_failures=cache_failures,
            serializer=serializer,
            inherit=inherit,
        )
        return lambda function: MemoizedFunction(self._known(_fetch_function(function, policy)))

    def _known(self, function: FetchFunction) -> FetchFunction:
        self._functions.add(function)
        for app in self._apps:
            prepare_for_calls(app)
        return function

    @overload
    def hole(self, function: Callable[P, T], /) -> HoleFunction[P, T]: ...

    @overload
    def hole(
        self, /, *, fallback: str | Callable[..., str] = ..., name: str | None = ...
    ) -> Callable[[Callable[P, T]], HoleFunction[P, T]]: ...

    def hole(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        fallback: Any = NOTHING,
        name: str | None = None,
        **unknown: Never,
    ) -> Any:
        """Fill a part of a cached page for each visitor: who is logged in, how full the basket is.

        While a cached page is made, a call leaves a mark in the page, and the function runs for each visitor who is served the
        page, in the visitor's request. Elsewhere it is a plain call. The function returns a ``str``, which templates escape, or a
        ``Markup``. Its arguments are JSON values.

        :param fallback: a text to show if the function fails, or a callable that takes the arguments and returns one. Default:
            nothing is shown, and the error is logged; with ``app.debug`` it is raised.
        :param name: the name of the hole in stored pages. Default: the names of the function's module and of the function.
        :raises ConfigError: if another function has that name, or for an unknown parameter.
        """
        if unknown:
            raise ConfigError(unknown_parameter("hole()", next(iter(unknown)), ["fallback", "name"]))
        if function is not None:
            return self._holes.add(function, name, fallback)
        return lambda decorated: self._holes.add(decorated, name, fallback)

    def adapter(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        ignored_parameters: Iterable[str] = (),
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] = (),
        prefer_stale: bool | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        inherit: bool = True,
        adapter: BaseAdapter | None = None,
        **unknown: Never,
    ) -> BaseAdapter:
        """Return an adapter for ``requests`` that is a shared HTTP cache: ``session.mount(prefix, adapter)``.

        Third parties control it by their own headers. The windows given here apply where a third party sends none. Make it once,
        for all apps and threads. It caches in app contexts; outside of one every request is sent.

        :param max_age: seconds of freshness of responses that name none. Default: HTTP's heuristic, which gives 0 without a
            Last-Modified.
        :param stale_while_revalidate: for responses that name none: seconds after freshness in which a response is returned
            immediately and refreshed in the background (RFC 5861 section 3). Default 0.
        :param stale_if_error: for responses that name none: seconds after freshness in which a response is returned if the third
            party can't be reached, breaks off, or answers 429, 500, 502, 503 or 504 (RFC 5861 section 4). Default 0.
        :param ignored_parameters: query parameters that are sent but not part of the key: names, or patterns such as ``utm_*``.
        :param vary: request fields that are part of the key, whatever a third party names in ``Vary``, such as a header with an API
            key; or a mapping of fields to callables that normalise a value (``None`` if the field is absent).
        :param statuses: a mapping of status to lifetime in seconds (``None``: ``max_age``) for responses that name none, in
            addition to 200, 301 and 308.
        :param tags: names by which :meth:`purge` finds the responses.
        :param prefer_stale: return a stored response however old it is, and refresh it in the background. Default:
            ``STALECACHE_PREFER_STALE``.
        :param wait: the longest time in seconds to wait for the refresh of a response that stale-if-error covers. Then the stored
            response is returned, and the refresh continues in the background. Default: no limit.
        :param lock_timeout: the longest time in seconds to wait for another caller's request. Default ``STALECACHE_LOCK_TIMEOUT``.
        :param inherit: pages and values made from responses inherit their tags and their freshness. Default true.
        :param adapter: sends requests to third parties, such as ``HTTPAdapter(max_retries=3)``. Default: a new ``HTTPAdapter``.
        :raises ConfigError: for a value that is not accepted, an unknown parameter, or if requests is not installed.
        """
        rules = session_rules(
            "adapter()",
            unknown,
            max_age=max_age,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            ignored_parameters=ignored_parameters,
            vary=vary,
            statuses=statuses,
            tags=tags,
            prefer_stale=prefer_stale,
            wait=wait,
            lock_timeout=lock_timeout,
            inherit=inherit,
        )
        return make_adapter(rules, adapter)

    def session(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        ignored_parameters: Iterable[str] = (),
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] = (),
        prefer_stale: bool | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        inherit: bool = True,
        adapter: BaseAdapter | None = None,
        **unknown: Never,
    ) -> Session:
        """Return a ``requests.Session`` that sends all of its requests through an :meth:`adapter`.

        The parameters are those of :meth:`adapter`.

        :raises ConfigError: for a value that is not accepted, an unknown parameter, or if requests is not installed.
        """
        rules = session_rules(
            "session()",
            unknown,
            max_age=max_age,
            stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error,
            ignored_parameters=ignored_parameters,
            vary=vary,
            statuses=statuses,
            tags=tags,
            prefer_stale=prefer_stale,
            wait=wait,
            lock_timeout=lock_timeout,
            inherit=inherit,
        )
        return make_session(make_adapter(rules, adapter))

    def purge(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        function: MemoizedFunction[..., Any] | str | None = None,
        prefix: str | None = None,
        all: bool = False,
        soft: bool = False,
    ) -> Batch | Purged:
        """Remove stored pages and values. Every worker sees the purge at its next request, and responses under way are not stored.

        A purge takes the same time whatever the number of pages, except with ``prefix``. Needs an app context.

        :param url: a path with its query, for all hosts; or a full URL. Query parameters that pages ignore are ignored here too.
        :param tag: entries with this tag.
        :param endpoint: pages of this endpoint, such as ``"news.article"``.
        :param function: all values of this fetch function: the function under :meth:`memoize`, or its name as ``flask stalecache
            list`` prints it, such as ``"shop.rates"``.
        :param prefix: pages whose path starts with this, for all hosts; or whose full URL does. They are searched for in the
            background.
        :param all: everything in the store, including entries of other apps.
        :param soft: only end the freshness of the entries. They are then served stale and refreshed as their windows allow. Default
            false.
        :return: with ``prefix`` a :class:`Batch` that reports progress. Otherwise the purge is complete, and a :class:`Purged`
            tells whether it matched anything: ``if not cache.purge("/news"): …``
        :raises ConfigError: unless exactly one of ``url``, ``tag``, ``endpoint``, ``function``, ``prefix`` and ``all`` is given,
            with a valid value.
        :raises StoreError: if the store can't be written. The purge may or may not have taken effect: repeat it.
        """
        selection = Selection(url, tag, endpoint, _name_of_function(function), prefix, all)
        return state_of(app_of_context("purge()")).bulk.purge(selection, soft=soft)

    def refresh(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        function: MemoizedFunction[..., Any] | str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Refresh stored pages and values of fetch functions in the background, whether they are fresh or not.

        Returns immediately. Stored entries are served meanwhile, and kept if their refresh fails. Each refresh holds the lock of
        its key, so that only one runs at a time over all workers. Needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many refreshes run at a time, from 1 to 64. Default 4.
        :return: a batch that reports progress and the outcome of each refresh.
        :raises ConfigError: unless exactly one selector is given, with a valid value; or for another ``concurrency``.
        """
        selection = Selection(url, tag, endpoint, _name_of_function(function), prefix, all)
        return state_of(app_of_context("refresh()")).bulk.refresh(selection, concurrency)

    def publish(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        function: MemoizedFunction[..., Any] | str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Purge softly, and refresh the purged entries: the old pages are stale from now on, and are refreshed immediately.

        The purge is complete when this returns, except with ``prefix``. The refreshes run in the background. Needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many refreshes run at a time, from 1 to 64. Default 4.
        :return: a batch that reports progress and the outcome of each refresh.
        :raises ConfigError: unless exactly one selector is given, with a valid value; or for another ``concurrency``.
        :raises StoreError: if the store can't be written. The purge may or may not have taken effect: repeat it.
        """
        selection = Selection(url, tag, endpoint, _name_of_function(function), prefix, all)
        return state_of(app_of_context("publish()")).bulk.publish(selection, concurrency)

    def warm(
        self,
        urls: Urls,
        *,
        concurrency: int = 4,
        force: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Batch:
        """Fill the cache before visitors arrive: request URLs of the app in the background, in the worker or in this process.

        Each request has no cookies, :attr:`refreshing` is true for it, and it is answered like a visitor's: fresh pages are
        skipped, missing and stale ones are made and stored. Redirects are not followed. Needs an app context.

        :param urls: a path as visitors see it, or a full URL; a pair of an endpoint and its values; a list of those; or a sitemap:
            the path of a file, or a path or URL of the app, that ends in ``.xml`` or ``.xml.gz``.
        :param concurrency: how many requests run at a time, from 1 to 64. Default 4.
        :param force: refresh fresh pages too. Default false.
        :param headers: request fields to send, such as ``{"Accept-Language": "de"}`` or the fields that a proxy adds.
        :return: a batch that reports progress and the outcome of each request.
        :raises ConfigError: for a path or an endpoint if neither ``STALECACHE_BASE_URL`` nor ``SERVER_NAME`` is set; for a URL of
            another host, an invalid URL or sitemap, or a value that is not accepted. Then no request was sent.
        """
        return state_of(app_of_context("warm()")).bulk.warm(urls, concurrency, force, headers)

    def run_refresh(self, job: Mapping[str, Any]) -> str:
        """Run a refresh that another process has handed over with ``STALECACHE_REFRESHER``, in this thread.

        The lock of the key is held while the refresh runs, so that a job that a queue delivers twice does no harm. Needs an app
        context.

        :param job: the argument of the refresher's ``submit``.
        :return: ``"stored"``: the new page or value is stored. ``"fresh"``: there was nothing to do, since another process has
            refreshed or purged it, or since its origin failed a short while ago. ``"busy"``: another process is refreshing it.
            ``"failed"``: its origin failed, or its answer can't be stored. ``"expired"``: it is too late, or nothing is stored any
            more.
        :raises RefreshRefused: if the job can't be run here: it belongs to another app or version, or is not a refresh.
        """
        return state_of(app_of_context("run_refresh()")).bulk.run_refresh(job)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait for the refreshes and batches of this process. Return whether all have ended.

        In an app context it waits for those of that app, otherwise for those of all apps.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        return state_of(current_app).bulk.drain(timeout) if has_app_context() else drain_all_apps(timeout)

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the cache directory, including ended ones. Needs an app context.

        The numbers of a killed process are not lost. With a server that hosts share, the numbers are those of all hosts; those of
        the other hosts are as last reported. With a store of your own, they are those of this process only.
        """
        return state_of(app_of_context("stats()")).engine.runtime.stats()

    def tag(self, *names: str) -> None:
        """In a cached view or fetch function: add tags to the entry, by which :meth:`purge` finds it.

        :param names: non-empty strings.
        :raises ConfigError: for anything else.
        """
        give(lambda: cacheability.tag(*names))

    def no_store(self) -> None:
        """In a cached view or fetch function: do not store this result."""
        give(cacheability.no_store)

    def max_age(self, seconds: Duration) -> None:
        """In a cached view or fetch function: limit the freshness of this result.

        It can shorten the freshness that code, response and configuration give, not lengthen it. After several calls, the shortest
        time applies.

        :param seconds: 0 or more; 0 makes the entry stale immediately.
        :raises ConfigError: for anything else.
        """
        give(lambda: cacheability.max_age(seconds))

    @property
    def dashboard(self) -> Dashboard:
        """A new blueprint with a page that shows the state and numbers of the cache. ``authorize`` restricts access to it.

        ``app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)``
        """
        # Not every site shows the dashboard, and its modules take a tenth of the time that importing this package takes.
        from .dashboard.blueprint import Dashboard

        return Dashboard(self._functions)

    @property
    def refreshing(self) -> bool:
        """Whether the current request is a refresh or a warming request. Hooks that count or limit visits skip these."""
        return has_request_context() and REFRESHING in request.environ


class _ViewDecorator:
    """The decorator that ``cached()`` returns. It decorates each view once, however often it is applied to the view.

    A resource of flask-restful or flask-restx applies its ``method_decorators`` to the bound method anew for each request.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._methods: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, view: Callable[P, R]) -> Callable[P, R]:
        """Return the decorated view."""
        if not (isinstance(view, MethodType) and isinstance(view.__self__, View)):
            return _decorated(view, self._policy)
        function = view.__func__
        decorated = self._methods.get(function)
        if decorated is None:
            decorated = self._methods[function] = _decorated(function, self._policy)
        return MethodType(decorated, view.__self__)


def _decorated(view: Callable[P, R], policy: Policy) -> Callable[P, R]:
    if not callable(view):
        raise ConfigError(f"cached() decorates a view function, not {view!r}")
    cached = CachedView(view, policy)

    @wraps(view)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        # Read directly, since every hit gets here. request_context() and state_of() return the same, or raise an error.
        context = request_context_variable.get(None) or request_context()
        state = context.app.extensions.get(NAME) or state_of(context.app)
        if not state.settings.enabled:
            return context.app.ensure_sync(view)(*args, **kwargs)  # type: ignore[no-any-return]
        if policy.gateway and not cached.has_holes:
            return coded(cached, state.engine.complaints, context.app, state.pages, args, kwargs)  # type: ignore[return-value]
        return state.pages.respond(cached, context, args, kwargs)  # type: ignore[return-value]

    stands_for(answer, cached)
    return answer


def _check_setup(what: str, unknown: Iterable[str], known: str) -> None:
    """Raise :class:`ConfigError` if a call that sets up an app was given an unknown parameter."""
    for name in unknown:
        raise ConfigError(f"{what} has no parameter {name!r}: {SETUP.get(name, f'the nearest is {known}')}")


def _fetch_function(function: Callable[..., Any], policy: CallPolicy) -> FetchFunction:
    if not callable(function):
        raise ConfigError(f"memoize() decorates a function, not {function!r}: write @classmethod or @staticmethod above it")
    if iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigError(
            f"memoize() can't store what {function!r} returns: decorate a plain function that returns the value itself"
        )
    return FetchFunction(function, policy)


def _name_of_function(function: object) -> object:
    if isinstance(function, MemoizedFunction):
        return function.name
    if function is not None and not isinstance(function, str):
        raise ConfigError(f"function={function!r} has no stored values: give a function under memoize(), or its name")
    return function


def _names_of(policy: type) -> list[str]:
    return [parameter.name for parameter in fields(policy) if parameter.init]
