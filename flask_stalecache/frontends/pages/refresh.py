"""The refresh of a page: a new request through the app, made from the recipe, never a copy of the visitor's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, Request

from ...core.addressing.recipe import PageRecipe
from ...core.http.dates import pause_asked
from ...core.model.environ import ARRIVED, REPLAY, url_variables
from ...core.packets.refresh_data import OriginKind
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Verdict
from ...core.wsgi import AppReply
from ...engine.origin import Answer, RefreshJob, Start
from ...errors import StaleCacheError
from ...stats.tally import Tally
from ..observation.watched_session import give_session
from ..setup.current_app import doorway_of, renew_calls
from .bound_view import CachedView

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: Whether the current request is a refresh that carries its visitor's fields. A context variable, since each response reads it.
AS_VISITOR: ContextVar[bool] = ContextVar("stalecache_as_visitor", default=False)


class Maker(Protocol):
    """Makes a page: a known view, or any view of an app."""

    @property
    def app(self) -> Flask:
        """The app."""

    @property
    def cached(self) -> CachedView | None:
        """The view; ``None`` if any view may make the page."""

    @property
    def terms(self) -> ServeOptions:
        """The serving options that hold for all requests."""

    @property
    def remote_addr(self) -> str:
        """The address that refreshes come from."""

    @property
    def refresh_headers(self) -> Mapping[str, str]:
        """The fields that refreshes carry, by their names in lower case."""

    def renew_calls(self, keys: tuple[str, ...]) -> None:
        """Refresh the stale values among those that a page was made from, and wait for them."""


@dataclass(frozen=True, slots=True)
class AnyView:
    """Any view of an app: an entry alone does not tell which view made it."""

    app: Flask
    terms: ServeOptions
    remote_addr: str
    refresh_headers: Mapping[str, str]
    cached: None = None

    def renew_calls(self, keys: tuple[str, ...]) -> None:
        """Refresh the stale values among those that a page was made from, and wait for them."""
        renew_calls(self.app, keys)


class PageReplay:
    """A refresh on its way through the app.

    :ivar arrives: SCRIPT_NAME and PATH_INFO as the visitor's request had them when it reached us.
    :ivar has_entered: Flask was reached.
    :ivar is_met: the view was reached.
    :ivar answer: the view's answer; stays ``None`` if a hook answers instead.
    """

    __slots__ = ("_maker", "_recipe", "answer", "arrives", "cached", "has_entered", "is_met", "key", "start")

    def __init__(self, key: str, maker: Maker, recipe: PageRecipe, start: Start) -> None:
        self.key = key
        self.cached = maker.cached
        self.start = start
        self.has_entered = False
        self.is_met = False
        self.arrives = recipe.script_root, recipe.path
        self._maker = maker
        self._recipe = recipe
        self.answer: Answer | None = None

    def enter(self, kind: type[Request], environ: dict[str, Any]) -> None:
        """Give Flask the same URL variables as in the visitor's request.

        Middleware may have set them because of a field that is not in the key, such as X-Script-Name.

        :param kind: the class of the request; another app's request is not changed.
        :param environ: the environ of the request, changed in place.
        """
        if kind is self._maker.app.request_class:
            self.has_entered = True
            for name, value in self._recipe.seen:
                environ.pop(name, None) if value is None else environ.update({name: value})

    def is_for(self, cached: CachedView) -> bool:
        """Whether a view that is reached is, or may be, the one whose page is refreshed.

        If that view is not known, any view may be it, until one with the key is reached. A view with another key runs, but its
        answer is not stored, since it may call the view with the key.
        """
        return not self.is_met if self.cached is None else self.cached is cached


def page_refresh(
    maker: Maker, key: str, label: str, recipe: PageRecipe, visitor: Mapping[str, str] | None, tally: Tally
) -> RefreshJob:
    """Describe the refresh of a page: a new request through the app, made from the recipe.

    A page that was purged meanwhile is left to the next visitor.

    :param maker: what makes the page.
    :param visitor: the visitor's fields, for pages whose key or view may read them. They are kept in memory only.
    :param tally: its counters.
    """
    return RefreshJob(
        key=key,
        label=label,
        terms=maker.terms,
        tally=tally,
        kind=OriginKind.PAGE if visitor is None else None,
        run=partial(_refreshed, maker, key, recipe, visitor),
        refresh_dependencies=maker.renew_calls,
    )


def _refreshed(maker: Maker, key: str, recipe: PageRecipe, visitor: Mapping[str, str] | None, start: Start) -> Answer:
    """Send the request through the app. Return the view's answer, or a failure if something else answered."""
    # The request of a visitor without cookies and without any field beyond the key: its answer may be anybody's.
    environ = recipe.to_environ(maker.remote_addr, maker.refresh_headers)
    environ.update(visitor or {})
    if recipe.session and visitor is None:
        give_session(environ, maker.app, dict(recipe.session))
    replay = environ[REPLAY] = PageReplay(key, maker, recipe, start)
    token = AS_VISITOR.set(visitor is not None)
    try:
        reply = _through(maker.app, environ, replay)
    except Exception as error:
        return replay.answer or Answer(Verdict.FAILED, error=error)
    finally:
        AS_VISITOR.reset(token)
    if replay.answer is not None:
        return replay.answer
    # If the view is not known, the page may be that of another app in the same store, whose back-off is not ours to write.
    status = reply.status or "no answer"
    is_ours = maker.cached is not None or status[:1] == "5"
    reason = StaleCacheError(f"something else than the view answered: {status}")
    pause = pause_asked(int(status[:3]) if status[:3].isdecimal() else 0, reply.headers, time.time())
    return Answer(Verdict.FAILED if is_ours else Verdict.REFUSED, error=reason, retry_after=pause)


def _through(app: Flask, environ: dict[str, Any], replay: PageReplay) -> AppReply:
    """Send a request through all middleware of an app. If that finds no such page, leave out the middleware around ours, then all.

    Middleware that found the page by a field that is not in the key does not find it without that field.
    """
    # For outer middleware, which may have taken the script root off the path: here the path is whole again.
    outside = {**environ, "SCRIPT_NAME": "", "PATH_INFO": environ["SCRIPT_NAME"] + environ["PATH_INFO"]}
    reply = _send(app.wsgi_app, outside, replay)
    flask = partial(type(app).wsgi_app, app)
    for entrance in (doorway_of(app), flask):
        if replay.has_entered or reply.status[:3] not in _NO_SUCH_PAGE:
            break
        reply = _send(entrance, {**environ, ARRIVED: url_variables(environ)}, replay)
    return reply


#: Statuses with which middleware says that it has nothing at a path.
_NO_SUCH_PAGE = frozenset({"301", "308", "404", "405"})


def _send(app: WSGIApplication, environ: dict[str, Any], replay: PageReplay) -> AppReply:
    """Send a request through the app until the view has answered, close the response, and return status and fields."""
    reply = AppReply()
    with reply.of(app, environ) as body:
        # A middleware that is a generator runs nothing before it is asked for the first chunk.
        chunks = iter(body)
        while replay.answer is None and next(chunks, None) is not None:
            pass
    return reply


def visitor_fields(environ: Mapping[str, Any], variables: Iterable[str]) -> dict[str, str]:
    """Return the visitor's request fields without Host, which is in the recipe, and without conditions and Range.

    Conditions and Range are answered from the copy.

    :param variables: variables of the environ that the key is made from.
    """
    fields = {
        name: value
        for name, value in environ.items()
        if name.startswith("HTTP_") and not name.startswith("HTTP_IF_") and name not in ("HTTP_HOST", "HTTP_RANGE")
    }
    return fields | {name: environ[name] for name in variables if isinstance(environ.get(name), str)}
