"""``StaleCache``: wires the parts to an app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakSet

from flask import Flask, current_app, has_app_context, has_request_context, request

from . import config
from .app_state import app_of_context, set_up, state_of
from .batches.batch import Batch
from .batches.operations import drain_all_apps
from .batches.selector import Selection
from .batches.warmer import Urls
from .cli.commands import commands
from .core.model.checks import Duration, unknown_parameter
from .core.model.environ import REFRESHING
from .core.model.policy import Normaliser, Policy
from .core.rules import cacheability
from .dashboard.blueprint import Dashboard
from .errors import ConfigError
from .frontends.flask_gateway import check_gateway_policy, coded
from .frontends.flask_internals import request_context
from .frontends.memoize.handler import MemoizedFunction
from .frontends.memoize.origin import FetchFunction
from .frontends.memoize.policy import DEFAULT_FAILURES, NO_FALLBACK, CallPolicy
from .frontends.memoize.serializers import Serializer, check_serializer
from .frontends.middleware import AfterResponseMiddleware
from .frontends.pages.bound_view import CachedView, stands_for
from .frontends.requests_adapter.factory import make_adapter, make_session, session_rules
from .stats.schema import Stats
from .stores.base import Store

if TYPE_CHECKING:
    from requests import Session
    from requests.adapters import BaseAdapter
    from typing_extensions import Never

P = ParamSpec("P")
R = TypeVar("R")


class StaleCache:
    """The extension. One object may serve many apps; what belongs to an app lives in ``app.extensions``.

    :param app: an app to set up at once; else call :meth:`init_app`.
    :param store: where entries live, for all apps of this object; else ``STALECACHE_STORE`` says.
    :raises ConfigError: if the app's configuration is not usable.
    """

    def __init__(self, app: Flask | None = None, *, store: Store | None = None) -> None:
        self._store: Store | None = None if store is None else config.store("store", store)
        #: What is known before any app is: checked when one is set up.
        self._memos: WeakSet[FetchFunction] = WeakSet()
        #: Where views that are decorated after an app was set up ask for its gateway.
        self._doorways: WeakSet[AfterResponseMiddleware] = WeakSet()
        self._has_gateway_views = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up an app: read its ``STALECACHE_*`` keys, and see what is read of its requests.

        Set ``app.request_class``, if at all, before this.

        :raises ConfigError: for an unknown key, a value that is not accepted, or a cache directory that can't be used.
        """
        doorway = set_up(app, self._store, self._memos)
        app.cli.add_command(commands)
        if doorway is None:
            return
        self._doorways.add(doorway)
        if self._has_gateway_views or state_of(app).settings.gateway is not False:
            app.wsgi_app = doorway.open_gateway()  # type: ignore[method-assign,assignment]

    def cached(
        self,
        max_age: Duration | None = None,
        stale_while_revalidate: Duration | None = None,
        stale_if_error: Duration | None = None,
        *,
        vary: Sequence[str] | Mapping[str, Normaliser | None] = (),
        ignored_parameters: Iterable[str] = (),
        key: Callable[[], object] | None = None,
        statuses: Mapping[int, Duration | None] | None = None,
        tags: Iterable[str] | Callable[..., Iterable[str]] = (),
        unless: Callable[[], object] | None = None,
        response_filter: Callable[[Any], object] | None = None,
        prefer_stale: bool | Callable[[], object] | None = None,
        wait: Duration | None = None,
        lock_timeout: Duration | None = None,
        refresh_ahead: Duration | None = None,
        jitter: float | None = None,
        ignore_session: bool = False,
        gateway: bool = False,
        **unknown: Never,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Cache a view. Write it below the route decorator.

        :param max_age: seconds a page is fresh (RFC 9111). Default: what the response says, else ``STALECACHE_MAX_AGE``.
        :param stale_while_revalidate: seconds after freshness in which the page is served at once and renewed after the response
            (RFC 5861 section 3). Default: what the response says, else ``STALECACHE_STALE_WHILE_REVALIDATE``.
        :param stale_if_error: seconds after freshness in which it is served if the view fails: raises, or answers 500, 502, 503 or
            504 (RFC 5861 section 4). Default: what the response says, else ``STALECACHE_STALE_IF_ERROR``.
        :param vary: request fields that the page depends on; or a mapping of field to a callable that normalises its value (or
            ``None`` where it is absent), so that variants stay few.
        :param ignored_parameters: query parameters that the page does not depend on: names, or patterns such as ``utm_*``.
        :param key: a callable without arguments; what it returns (a string, a number, a tuple of those) stands for path and query.
        :param statuses: status to lifetime in seconds (``None``: ``max_age``), added to the default 200, 301 and 308.
        :param tags: names on the page, by which :meth:`purge` finds it; or a callable of the view's arguments that returns them.
        :param unless: a callable without arguments; if it returns something true, this request is live.
        :param response_filter: a callable of the response; if it returns something false, it is not stored.
        :param prefer_stale: true: what is stored is served, however old, and the view runs only where nothing is. A callable
            without arguments says it for each request; ``False``: never. Default: as ``STALECACHE_PREFER_STALE`` says, or the
            request's own ``STALECACHE_PREFER_STALE_HEADER`` or ``_COOKIE``.
        :param wait: seconds that a visitor waits for the renewal of a page that stale-if-error covers, at most; the renewal goes on
            in the background, and the stored page is served. Default: as long as it takes. With ``STALECACHE_REFRESH_WORKERS = 0``
            there is no background, and it takes as long as it takes.
        :param lock_timeout: seconds to wait for another request's call of the view at most. Default ``STALECACHE_LOCK_TIMEOUT``.
        :param refresh_ahead: the last seconds of freshness, in which a hit already hands over a refresh; half of the freshness at
            most. Default 0.
        :param jitter: the share of ``max_age``, 0 to 1, by which freshness is shortened at random. Default 0.1.
        :param ignore_session: the page does not depend on the session, although something uses it. Default false.
        :param gateway: hits are served before the app is entered: no ``before_request`` hook runs. Default false.
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
            ignored_parameters=ignored_parameters,
            key=key,
            statuses=statuses,
            tags=tags,
            unless=unless,
            response_filter=response_filter,
            prefer_stale=prefer_stale,
            wait=wait,
            lock_timeout=lock_timeout,
            refresh_ahead=refresh_ahead,
            jitter=jitter,
            ignore_session=ignore_session,
            gateway=gateway,
        )
        if policy.gateway:
            check_gateway_policy(policy)
            self._has_gateway_views = True
            for doorway in list(self._doorways):
                doorway.open_gateway()
        return lambda view: _decorated(view, policy)

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
        """Cache what a fetch function returns, by its arguments. All callables given here take the function's arguments.

        It runs in an app context of its own and knows no request, since what it returns is for everybody.

        :param max_age: seconds a value is fresh. Default: ``STALECACHE_MAX_AGE``.
        :param stale_while_revalidate: seconds after freshness in which it is returned at once and renewed behind (RFC 5861 section
            3). Default: ``STALECACHE_STALE_WHILE_REVALIDATE``.
        :param stale_if_error: seconds after freshness in which it is returned if the function fails (RFC 5861 section 4). Default:
            ``STALECACHE_STALE_IF_ERROR``.
        :param key: what it returns stands for the arguments in the key: for methods, whose ``self`` has no canonical form.
        :param ignored_args: parameters that the value does not depend on, such as a session or a client.
        :param tags: names on the value, by which :meth:`purge` finds it and the pages made from it.
        :param unless: if it returns something true, the function itself is called.
        :param prefer_stale: what is stored is returned, however old, and renewed behind. Default: ``STALECACHE_PREFER_STALE``.
        :param wait: seconds that a caller waits for a missing or expired value at most, counted from when the call began; it runs
            in threads of the function's own, and goes on. Default: as long as it takes, in the caller's thread.
        :param fallback: what is returned where the function fails, hangs or is busy and nothing stored can stand in: a value, or a
            callable. Default: the failure is raised.
        :param max_concurrency: calls of it that run at the same time in a process at most; one more gets what is stored, the
            fallback, or :class:`OriginBusy`. Default: no limit; with ``wait`` 8.
        :param suspend_after: failures in a row, over all keys and all workers of the machine, after which calls stop. Default:
            they don't.
        :param suspend_for: seconds for which they stop; then one is tried.
        :param failures: exception classes and HTTP statuses that count as a failure; or a callable of the exception or value.
            Default: any exception, and a ``requests.Response`` with 429, 500, 502, 503 or 504. 404 and 410 are answers.
        :param cache_failures: seconds for which a failure is remembered where nothing is stored. Default: not at all.
        :param serializer: ``"json"`` (msgspec, decoded to the return annotation), ``"pickle"`` (signed with the app's secret key),
            or an object with ``dumps`` and ``loads``.
        :param inherit: pages made from it take over its tags and its freshness. Default true.
        :param lock_timeout: seconds to wait for another caller's call at most. Default ``STALECACHE_LOCK_TIMEOUT``.
        :param refresh_ahead: the last seconds of freshness, in which it is already renewed behind. Default 0.
        :param jitter: the share of ``max_age``, 0 to 1, by which freshness is shortened at random. Default 0.1.
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
        return lambda function: MemoizedFunction(self._known(_memo(function, policy)))

    def _known(self, memo: FetchFunction) -> FetchFunction:
        self._memos.add(memo)
        return memo

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
        :param stale_while_revalidate: seconds after freshness in which a response is returned immediately and refreshed in the
            background, where it names none (RFC 5861 section 3). Default 0.
        :param stale_if_error: seconds after freshness in which it is returned if the third party can't be reached, breaks off, or
            answers 429, 500, 502, 503 or 504, where it names none (RFC 5861 section 4). Default 0.
        :param ignored_parameters: query parameters that are sent but not part of the key: names, or patterns such as ``utm_*``.
        :param vary: request fields that are part of the key, whatever a third party names in ``Vary``: a header with an API key; or
            a mapping of field to a callable that normalises its value (or ``None`` where it is absent).
        :param statuses: status to lifetime in seconds (``None``: ``max_age``) where the response names none, added to 200, 301 and
            308.
        :param tags: names on the responses, by which :meth:`purge` finds them.
        :param prefer_stale: return a stored response however old it is, and refresh it in the background. Default:
            ``STALECACHE_PREFER_STALE``.
        :param wait: the longest time in seconds to wait for the refresh of a response that stale-if-error covers. The refresh goes
            on in the background, and the stored response is returned. Default: no limit.
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
        prefix: str | None = None,
        all: bool = False,
        soft: bool = False,
    ) -> Batch | None:
        """Drop stored pages: every worker sees it at its next request, whatever is under way.

        It takes the same time however many there are, but for ``prefix``. It needs an app context.

        :param url: a path with its query, on all hosts; or a full URL, on its own. Parameters that the page ignores are left out.
        :param tag: the pages with this tag.
        :param endpoint: the pages of this endpoint, such as ``"news.article"``.
        :param prefix: the pages whose path begins so, on all hosts; or those whose full URL does. They have to be looked for,
            which happens in the background.
        :param all: all pages of the store, those of other apps in it too.
        :param soft: only end their freshness; they are served as stale, and renewed, as their windows say. Default false.
        :return: with ``prefix`` a :class:`Batch`, which tells how far it is; else ``None``: it is done.
        :raises ConfigError: unless exactly one of ``url``, ``tag``, ``endpoint``, ``prefix`` and ``all`` is given, and it makes
            sense.
        :raises StoreError: if the store can't be written. Then it may or may not have taken place: do it again.
        """
        selection = Selection(url, tag, endpoint, prefix, all)
        return state_of(app_of_context("purge()")).bulk.purge(selection, soft=soft)

    def refresh(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Make stored pages and values of fetch functions again, fresh or not, in the background.

        It returns at once. What is stored is served meanwhile, and stays if it can't be made again. Each is made under the lock of
        its key, so once at a time over all workers. It needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are made at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        """
        selection = Selection(url, tag, endpoint, prefix, all)
        return state_of(app_of_context("refresh()")).bulk.refresh(selection, concurrency)

    def publish(
        self,
        url: str | None = None,
        *,
        tag: str | None = None,
        endpoint: str | None = None,
        prefix: str | None = None,
        all: bool = False,
        concurrency: int = 4,
    ) -> Batch:
        """Purge softly, and refresh what that was of: the old pages are stale from now on, and are renewed at once.

        The purge has taken place when it returns, but for ``prefix``; the rest happens in the background. It needs an app context.

        :param url: as for :meth:`purge`, like the other selectors.
        :param concurrency: how many are made at a time, 1 to 64. Default 4.
        :return: how far it is, and what came of each.
        :raises ConfigError: unless exactly one thing is selected, and it makes sense; or for another ``concurrency``.
        :raises StoreError: if the store can't be written. Then it may or may not have taken place: do it again.
        """
        selection = Selection(url, tag, endpoint, prefix, all)
        return state_of(app_of_context("publish()")).bulk.publish(selection, concurrency)

    def warm(
        self,
        urls: Urls,
        *,
        concurrency: int = 4,
        force: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Batch:
        """Fill the store before visitors come: ask the app for URLs, in this process and in the background.

        Each is a visit without cookies, for which :attr:`refreshing` is true, and is answered as a visitor's would be: what is
        fresh is left as it is, what is missing or stale is made and stored. Redirects are not followed. It needs an app context.

        :param urls: a path as visitors see it, or a full URL; a pair of an endpoint and its values; a list of those; or a sitemap:
            the path of a file that ends in ``.xml`` or ``.xml.gz``, or a path or URL of the app that does.
        :param concurrency: how many are asked for at a time, 1 to 64. Default 4.
        :param force: make what is fresh again too. Default false.
        :param headers: request fields to send, where pages depend on some: ``{"Accept-Language": "de"}``, or what a proxy adds.
        :return: how far it is, and what came of each.
        :raises ConfigError: if ``STALECACHE_BASE_URL`` and ``SERVER_NAME`` are missing; for a URL of another host, what is no URL
            or no sitemap, or a value that is not accepted. Then nothing has been asked for.
        """
        return state_of(app_of_context("warm()")).bulk.warm(urls, concurrency, force, headers)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until the refreshes that this process handed over are done, and its batches; return whether they are.

        In an app context those of that app, else those of all apps.

        :param timeout: seconds to wait at most. Default: no limit.
        """
        return state_of(current_app).bulk.drain(timeout) if has_app_context() else drain_all_apps(timeout)

    def stats(self) -> Stats:
        """Return the numbers of all processes that share the cache directory, living and dead. It needs an app context.

        Nothing is lost with a process that is killed. With a store of your own they are those of this process.
        """
        return state_of(app_of_context("stats()")).engine.stats()

    def tag(self, *names: str) -> None:
        """Inside a cached view: add tags to the page, by which :meth:`purge` finds it.

        :param names: non-empty strings.
        :raises ConfigError: for anything else.
        """
        cacheability.tag(*names)

    def no_store(self) -> None:
        """Inside a cached view: keep this page from being stored."""
        cacheability.no_store()

    def max_age(self, seconds: Duration) -> None:
        """Inside a cached view: let this page be fresh for so many seconds at most.

        It shortens what code, response and configuration say, and never lengthens it; of several calls the shortest counts.

        :param seconds: 0 or more; 0 makes it stale at once.
        :raises ConfigError: for anything else.
        """
        cacheability.max_age(seconds)

    @property
    def dashboard(self) -> Dashboard:
        """A new blueprint with a page that shows what the cache does, for who may see it.

        ``app.register_blueprint(cache.dashboard, url_prefix="/stalecache", authorize=is_admin)``
        """
        return Dashboard(self._memos)

    @property
    def refreshing(self) -> bool:
        """Whether the current request is a refresh of ours, and no visit: for hooks that count or limit visits."""
        return has_request_context() and REFRESHING in request.environ


def _decorated(view: Callable[P, R], policy: Policy) -> Callable[P, R]:
    if not callable(view):
        raise ConfigError(f"cached() decorates a view function, and {view!r} is none")
    cached = CachedView(view, policy)

    @wraps(view)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        context = request_context()
        state = state_of(context.app)
        if not state.settings.enabled:
            return context.app.ensure_sync(view)(*args, **kwargs)  # type: ignore[no-any-return]
        if policy.gateway:
            return coded(cached, state.engine.complaints, context.app, args, kwargs)  # type: ignore[return-value]
        return state.pages.respond(cached, context, args, kwargs)  # type: ignore[return-value]

    stands_for(answer, cached)
    return answer


def _memo(function: Callable[..., Any], policy: CallPolicy) -> FetchFunction:
    if not callable(function):
        raise ConfigError(f"memoize() decorates a function, and {function!r} is none: write @classmethod or @staticmethod above it")
    if iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigError(
            f"memoize() can't store what {function!r} returns: decorate a plain function that returns the value itself"
        )
    return FetchFunction(function, policy)


def _names_of(policy: type) -> list[str]:
    return [parameter.name for parameter in fields(policy) if parameter.init]
