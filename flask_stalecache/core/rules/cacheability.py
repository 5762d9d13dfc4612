"""Cacheability hints, set by the code that builds a response. They can only restrict how it is stored. Pure.

Hints also apply to responses that are built around this one: a page inherits the hints of the values that it is made from.

=============================== =====================================================================
hint                            effect
=============================== =====================================================================
``forbid`` (no_store)           not stored
``shorten`` (max_age)           fresh for at most so many seconds
``expire``                      not fresher than a stored value that it is made from
``tag``                         purged by these names
``made_from``                   the refresh first refreshes these values
``stand_in``                    not fresh, and refreshed when the failed call may be retried
=============================== =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TypeVar

from ..addressing.purge_names import tags_in
from ..model.checks import seconds, tags
from ..model.entry import Entry
from .serving import ServeOptions, was_ended

T = TypeVar("T")


class Cacheability:
    """The hints collected during one call of an origin.

    :param around: the hints of the response around this one, if any. They receive the same hints.
    :param in_background: the call is a refresh, for which no client waits.
    :param is_of_request: the hints are for a whole request: those given before its view runs also apply to the page of the view.
    :ivar forbidden: the response must not be stored.
    :ivar max_age: the longest freshness, in seconds; ``None``: no limit was set.
    :ivar tags: names by which it can be purged.
    :ivar fresh_until: when the first value in it stops being fresh, in seconds since the epoch; ``None``: it has none.
    :ivar calls: the keys of the values that it is made from.
    :ivar stood_in: a fallback replaces a part of it.
    :ivar retry_at: when the first failed call may be retried, in seconds since the epoch.
    """

    __slots__ = (
        "_around",
        "calls",
        "forbidden",
        "fresh_until",
        "in_background",
        "is_of_request",
        "max_age",
        "retry_at",
        "stood_in",
        "tags",
    )

    def __init__(self, around: Cacheability | None, *, in_background: bool = False, is_of_request: bool = False) -> None:
        self._around = around
        self.in_background = in_background
        self.is_of_request = is_of_request
        self.fresh_until: float | None = None
        self.stood_in = False
        self.retry_at = 0.0
        self.calls: dict[str, None] = {}
        self.forbidden = False
        self.max_age: float | None = None
        self.tags: dict[str, None] = {}

    def forbid(self) -> None:
        """Forbid storing the response."""
        self.forbidden = True
        if self._around is not None:
            self._around.forbid()

    def shorten(self, limit: float) -> None:
        """Limit its freshness to so many seconds. The shortest limit counts."""
        self.max_age = limit if self.max_age is None else min(self.max_age, limit)
        if self._around is not None:
            self._around.shorten(limit)

    def made_from(self, key: str) -> None:
        """Add the key of a value that it is made from."""
        self.calls[key] = None
        if self._around is not None:
            self._around.made_from(key)

    def expire(self, fresh_until: float) -> None:
        """Limit its freshness to a moment, in seconds since the epoch."""
        self.fresh_until = fresh_until if self.fresh_until is None else min(self.fresh_until, fresh_until)
        if self._around is not None:
            self._around.expire(fresh_until)

    def stand_in(self, retry_at: float) -> None:
        """Record that a fallback replaces a part of it.

        :param retry_at: when the failed call may be retried, in seconds since the epoch.
        """
        self.retry_at = min(self.retry_at, retry_at) if self.stood_in else retry_at
        self.stood_in = True
        if self._around is not None:
            self._around.stand_in(retry_at)

    def absorb(self, other: Cacheability) -> None:
        """Add the hints that another object has collected so far."""
        self.tag(other.tags)
        for key in other.calls:
            self.made_from(key)
        if other.fresh_until is not None:
            self.expire(other.fresh_until)
        if other.max_age is not None:
            self.shorten(other.max_age)
        if other.stood_in:
            self.stand_in(other.retry_at)
        if other.forbidden:
            self.forbid()

    def pause(self, now: float, first: float) -> float | None:
        """Return the seconds until a refresh may improve it; ``None`` if no part of it was stale or missing.

        :param first: the least number of seconds, since an immediate refresh would not find anything better.
        """
        return max(first, self.retry_at - now) if self.is_outdated(now) else None

    def limit(self, now: float) -> float | None:
        """Return its longest freshness in seconds from now on; ``None`` if there is no limit."""
        limits = [] if self.max_age is None else [self.max_age]
        if self.stood_in:
            limits.append(0.0)
        if self.fresh_until is not None:
            limits.append(max(0.0, self.fresh_until - now))
        return min(limits, default=None)

    def is_outdated(self, now: float) -> bool:
        """Whether a part of it was stale or missing."""
        return self.stood_in or (self.fresh_until is not None and self.fresh_until <= now)

    def tag(self, names: Iterable[str]) -> None:
        """Add tags."""
        names = tuple(names)
        self.tags.update(dict.fromkeys(names))
        if self._around is not None:
            self._around.tag(names)


class _Unheard(Cacheability):
    """Hints that are not collected."""

    __slots__ = ()

    def forbid(self) -> None:
        """Do nothing."""

    def shorten(self, limit: float) -> None:
        """Do nothing."""

    def made_from(self, key: str) -> None:
        """Do nothing."""

    def expire(self, fresh_until: float) -> None:
        """Do nothing."""

    def stand_in(self, retry_at: float) -> None:
        """Do nothing."""

    def tag(self, names: Iterable[str]) -> None:
        """Do nothing."""


_UNHEARD = _Unheard(None)


# A context variable, since origins are called without arguments of ours. A thread that an origin starts sees it only if it runs
# under copy_context().
_spoken: ContextVar[Cacheability | None] = ContextVar("stalecache_last_word", default=None)


def current() -> Cacheability | None:
    """Return the hints of the call that runs in this context, if any."""
    return _spoken.get()


@contextmanager
def collecting(*, in_background: bool = False) -> Iterator[Cacheability]:
    """Collect the hints that are given in this block.

    :param in_background: no client waits for the response.
    """
    word = Cacheability(_spoken.get(), in_background=in_background)
    with collected_by(word):
        yield word


@contextmanager
def collected_by(word: Cacheability) -> Iterator[None]:
    """Collect hints with an existing object, for a response that is built in several steps."""
    before = _spoken.get()
    try:
        # Inside the try: a signal's handler may raise as soon as it is set. If it were not reset, later hints would be added here.
        _spoken.set(word)
        yield
    finally:
        _spoken.set(before)


def unheard(function: Callable[[], T]) -> T:
    """Call a function and ignore its hints, since they are for no response: a callable that decides about the cache."""
    with collected_by(_UNHEARD):
        return function()


def run_apart(function: Callable[[], T], word: Cacheability) -> T:
    """Run a function in an empty context, as a new thread would, and collect its hints."""

    def run() -> T:
        _spoken.set(word)
        return function()

    return Context().run(run)


def inherit(word: Cacheability, entry: Entry, now: float, options: ServeOptions) -> None:
    """Pass on the tags and the end of freshness of a stored result to the response that is made from it."""
    word.tag(tags_in(entry.names))
    word.expire(0.0 if was_ended(entry, now, options) else entry.fresh_until)


def no_store() -> None:
    """Forbid storing the response that is being built. Without one, do nothing."""
    word = _spoken.get()
    if word is not None:
        word.forbid()


def max_age(duration: object) -> None:
    """Limit the freshness of the response that is being built; raise :class:`ConfigError` for a value that is no duration."""
    limit, word = seconds("max_age", duration), _spoken.get()
    if word is not None:
        word.shorten(limit)


def tag(*given: object) -> None:
    """Tag the response that is being built; raise :class:`ConfigError` if a tag is not a non-empty string."""
    checked, word = tags("tag", given), _spoken.get()
    if word is not None:
        word.tag(checked)
