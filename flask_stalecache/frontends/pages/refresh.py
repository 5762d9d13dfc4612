"""The refresh of a page: a new request through the app, made from the recipe, never a copy of the visitor's."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flask import Flask

from ...core.model.environ import REPLAY
from ...core.model.recipe import PageRecipe
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Verdict
from ...core.wsgi import AppReply
from ...engine.origin import Answer, RefreshJob, Start
from ...errors import StaleCacheError
from ...stats.tally import Tally
from ..current_app import renew_calls
from .bound_view import CachedView

#: Whether the current request is a refresh that carries its visitor's fields. Asked for every response, so it is no environ look.
AS_VISITOR: ContextVar[bool] = ContextVar("stalecache_as_visitor", default=False)


class Maker(Protocol):
    """What makes a page."""

    @property
    def app(self) -> Flask:
        """The app."""

    @property
    def cached(self) -> CachedView | None:
        """The view; ``None``: whichever makes the page of this key."""

    @property
    def terms(self) -> ServeOptions:
        """What is said of serving the page, whoever asks."""

    def renew_calls(self, keys: tuple[str, ...]) -> None:
        """Renew what is stale of the values that a page was made from, and wait for that."""


@dataclass(frozen=True, slots=True)
class AnyView:
    """Whichever view of an app makes a page: from its entry alone nobody knows."""

    app: Flask
    terms: ServeOptions
    cached: None = None

    def renew_calls(self, keys: tuple[str, ...]) -> None:
        """Renew what is stale of the values that a page was made from, and wait for that."""
        renew_calls(self.app, keys)


class Replay:
    """A refresh on its way through the app.

    :ivar arrives: SCRIPT_NAME and PATH_INFO as the visitor's request had them when it reached us.
    :ivar is_met: the view was found, and has begun.
    :ivar answer: what the view answered; stays ``None`` if a hook answered in its place.
    """

    __slots__ = ("answer", "arrives", "cached", "is_met", "key", "start")

    def __init__(self, key: str, cached: CachedView | None, start: Start) -> None:
        self.key = key
        self.cached = cached
        self.start = start
        self.is_met = False
        self.arrives = ("", "")
        self.answer: Answer | None = None

    def is_for(self, cached: CachedView) -> bool:
        """Whether a view that is reached has to do with it.

        Where nobody knows which view it is of, all have until it is found: one with another key runs, and nothing of it is stored,
        since within it the one may be called that is meant.
        """
        return not self.is_met if self.cached is None else self.cached is cached


def page_refresh(
    plan: Maker, key: str, label: str, recipe: PageRecipe, visitor: Mapping[str, str] | None, tally: Tally
) -> RefreshJob:
    """Describe the refresh of a page: a new request through the app, made from the recipe.

    A page that was purged meanwhile is left to the next visitor.

    :param plan: what makes the page.
    :param visitor: the visitor's fields, for pages whose key or view may look at them. They are kept in memory only.
    :param tally: where it is counted.
    """
    return RefreshJob(
        key=key,
        label=label,
        terms=plan.terms,
        tally=tally,
        run=partial(_refreshed, plan, key, recipe, visitor),
        refresh_dependencies=plan.renew_calls,
    )


def _refreshed(plan: Maker, key: str, recipe: PageRecipe, visitor: Mapping[str, str] | None, start: Start) -> Answer:
    """Send the request through the app, and return the view's answer, if it was the view that answered."""
    environ = recipe.to_environ()
    environ.update(visitor or {})
    replay = environ[REPLAY] = Replay(key, plan.cached, start)
    replay.arrives = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    # For middleware further out, which may have taken the script root off the path.
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    token = AS_VISITOR.set(visitor is not None)
    try:
        status = _send(plan.app, environ, replay)
    except Exception as error:
        return replay.answer or Answer(Verdict.FAILED, error=error)
    finally:
        AS_VISITOR.reset(token)
    if replay.answer is not None:
        return replay.answer
    # Without the view, the page may be another app's in the same store: its back-off is not ours to write.
    is_ours = plan.cached is not None or status[:1] == "5"
    reason = StaleCacheError(f"something else than the view answered: {status}")
    return Answer(Verdict.FAILED if is_ours else Verdict.REFUSED, error=reason)


def _send(app: Flask, environ: dict[str, Any], replay: Replay) -> str:
    """Send a request through the app up to the view's answer, close it, and return the status."""
    reply = AppReply()
    with reply.of(app.wsgi_app, environ) as body:
        # A middleware that is a generator runs nothing before it is asked for the first chunk.
        chunks = iter(body)
        while replay.answer is None and next(chunks, None) is not None:
            pass
    return reply.status or "no answer"


def visitor_fields(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the visitor's request fields, but for those that are answered from the copy."""
    return {
        name: value
        for name, value in environ.items()
        if name.startswith("HTTP_") and not name.startswith("HTTP_IF_") and name != "HTTP_RANGE"
    }
