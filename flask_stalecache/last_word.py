"""What an origin itself says of what it makes: it may shorten, forbid and tag, and never lengthen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .policy import seconds, tags


class LastWord:
    """What was said while an origin ran; also said of the page around it, which is made of it.

    :param around: the word on what is made around this, if anything is.
    :ivar forbidden: it must not be stored.
    :ivar max_age: the longest that it may be fresh, in seconds; ``None``: nothing was said.
    :ivar tags: names that it can be purged by.
    """

    __slots__ = ("_around", "forbidden", "max_age", "tags")

    def __init__(self, around: LastWord | None) -> None:
        self._around = around
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

    def tag(self, names: Iterable[str]) -> None:
        """Add tags."""
        names = tuple(names)
        self.tags.update(dict.fromkeys(names))
        if self._around is not None:
            self._around.tag(names)


# A context variable, since nothing of a request is passed to an origin; the thread that it starts itself has it only under
# copy_context().
_spoken: ContextVar[LastWord | None] = ContextVar("stalecache_last_word", default=None)


@contextmanager
def listening() -> Iterator[LastWord]:
    """Listen to what is said meanwhile."""
    word = LastWord(_spoken.get())
    token = _spoken.set(word)
    try:
        yield word
    finally:
        _spoken.reset(token)


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
