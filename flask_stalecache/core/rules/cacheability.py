"""What an origin itself says of what it makes: it may shorten, forbid and tag, and never lengthen. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TypeVar

from ..model.checks import seconds, tags
from ..model.entry import Entry
from ..model.purge_names import tags_in
from .serving import ServeOptions

T = TypeVar("T")


class Cacheability:
    """What was said while an origin ran; also said of the page around it, which is made of it.

    :param around: the word on what is made around this, if anything is.
    :param in_background: nobody waits for it.
    :ivar forbidden: it must not be stored.
    :ivar max_age: the longest that it may be fresh, in seconds; ``None``: nothing was said.
    :ivar tags: names that it can be purged by.
    :ivar fresh_until: when what it is made of ends to be fresh, in seconds since the epoch; ``None``: it is made of nothing.
    :ivar calls: the keys of the values that it is made from.
    :ivar stood_in: something stands in it for what could not be had.
    :ivar retry_at: when the first of what could not be had may be there, in seconds since the epoch.
    """

    __slots__ = ("_around", "calls", "forbidden", "fresh_until", "in_background", "max_age", "retry_at", "stood_in", "tags")

    def __init__(self, around: Cacheability | None, *, in_background: bool = False) -> None:
        self._around = around
        self.in_background = in_background
        self.fresh_until: float | None = None
        self.stood_in = False
        self.retry_at = 0.0
        self.calls: dict[str, None] = {}
        self.forbidden = False
        self.max_age: float | None = None
        self.tags: dict[str, None] = {}

    def forbid(self) -> None:
        """Keep it from being stored."""
        self.forbidden = True
        if self._around is not None:
            self._around.forbid()

    def shorten(self, limit: float) -> None:
        """Let it be fresh for so many seconds at most; of several limits the shortest counts."""
        self.max_age = limit if self.max_age is None else min(self.max_age, limit)
        if self._around is not None:
            self._around.shorten(limit)

    def made_from(self, key: str) -> None:
        """Note the key of a value that it is made from."""
        self.calls[key] = None
        if self._around is not None:
            self._around.made_from(key)

    def expire(self, fresh_until: float) -> None:
        """Let it be fresh until then at most, in seconds since the epoch: what it is made of is not fresh for longer."""
        self.fresh_until = fresh_until if self.fresh_until is None else min(self.fresh_until, fresh_until)
        if self._around is not None:
            self._around.expire(fresh_until)

    def stand_in(self, retry_at: float) -> None:
        """Note that it is made with a fallback.

        :param retry_at: when what it stands for may be tried again, in seconds since the epoch.
        """
        self.retry_at = min(self.retry_at, retry_at) if self.stood_in else retry_at
        self.stood_in = True
        if self._around is not None:
            self._around.stand_in(retry_at)

    def pause(self, now: float, first: float) -> float | None:
        """Return the seconds after which it is worth making it again, if it is made of what was stale or missing; else ``None``.

        :param first: seconds at least: at once it would come out no better.
        """
        return max(first, self.retry_at - now) if self.is_outdated(now) else None

    def limit(self, now: float) -> float | None:
        """Return for how many seconds from now on it may be fresh at most; ``None``: nothing limits it."""
        limits = [] if self.max_age is None else [self.max_age]
        if self.stood_in:
            limits.append(0.0)
        if self.fresh_until is not None:
            limits.append(max(0.0, self.fresh_until - now))
        return min(limits, default=None)

    def is_outdated(self, now: float) -> bool:
        """Whether it is made of what was stale already, or missing."""
        return self.stood_in or (self.fresh_until is not None and self.fresh_until <= now)

    def tag(self, names: Iterable[str]) -> None:
        """Add tags."""
        names = tuple(names)
        self.tags.update(dict.fromkeys(names))
        if self._around is not None:
            self._around.tag(names)


# A context variable, since nothing of a request is passed to an origin; the thread that it starts itself has it only under
# copy_context().
_spoken: ContextVar[Cacheability | None] = ContextVar("stalecache_last_word", default=None)


def current() -> Cacheability | None:
    """Return the word on what is being made in this context, if anything is."""
    return _spoken.get()


@contextmanager
def collecting(*, in_background: bool = False) -> Iterator[Cacheability]:
    """Listen to what is said meanwhile.

    :param in_background: nobody waits for what is made.
    """
    word = Cacheability(_spoken.get(), in_background=in_background)
    with collected_by(word):
        yield word


@contextmanager
def collected_by(word: Cacheability) -> Iterator[None]:
    """Let a word hear what is said meanwhile: what it is said of comes in pieces."""
    token = _spoken.set(word)
    try:
        yield
    finally:
        _spoken.reset(token)


def run_apart(function: Callable[[], T], word: Cacheability) -> T:
    """Run a function in a context in which nothing is set but that a word listens to it: as if in a thread of its own."""

    def run() -> T:
        _spoken.set(word)
        return function()

    return Context().run(run)


def inherit(word: Cacheability, entry: Entry, options: ServeOptions) -> None:
    """Give what is made from a stored result the tags of that result, and no longer freshness."""
    word.tag(tags_in(entry.names))
    is_over = entry.ended or (entry.version != options.version and entry.deployed <= options.deployed)
    word.expire(0.0 if is_over else entry.fresh_until)


def no_store() -> None:
    """Keep what is being made from being stored; nothing, where nothing is."""
    word = _spoken.get()
    if word is not None:
        word.forbid()


def max_age(duration: object) -> None:
    """Let what is being made be fresh for so long at most; raise :class:`ConfigError` if that is no duration."""
    limit, word = seconds("max_age", duration), _spoken.get()
    if word is not None:
        word.shorten(limit)


def tag(*given: object) -> None:
    """Tag what is being made; raise :class:`ConfigError` if a tag is not a non-empty string."""
    checked, word = tags("tag", given), _spoken.get()
    if word is not None:
        word.tag(checked)
