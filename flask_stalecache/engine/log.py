"""A rate-limited log: each warning once, each error once a minute. No visitor can forge a line in it."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Hashable, Iterator
from typing import Any

from ..core.formatting import printable

logger = logging.getLogger("flask_stalecache")

#: Seconds between two lines about the same problem.
PAUSE = 60.0
REMEMBERED = 1000
#: The greatest length of a subject; a longer one is remembered by its hash.
_LONGEST = 200


class _Escaped:
    """An argument of a log line, escaped when it is formatted with ``%s`` or ``%r``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value))

    def __repr__(self) -> str:
        return printable(repr(self._value))


class EscapingFilter(logging.Filter):
    """Escapes text that visitors may have chosen in the records of a logger: the arguments, and the exceptions of a traceback.

    It is a filter of the logger, so that it sees each record before all handlers, those of the app included.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape a record, and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_escaped, record.args))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not record.exc_text and any(_is_unsafe(each) for each in _texts(error)):
            record.exc_text = _traceback(error)
        return True


def _escaped(value: object) -> object:
    is_safe = isinstance(value, (int, float)) or (isinstance(value, str) and value.isprintable())
    return value if is_safe else _Escaped(value)


def _traceback(error: BaseException) -> str:
    """Return the traceback of an exception in which the texts of all exceptions are in one line each."""
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    for each in sorted(filter(_is_unsafe, _texts(error)), key=len, reverse=True):
        text = text.replace(each, printable(each))
    return "".join([sign if sign in "\n\t" or sign.isprintable() else printable(sign) for sign in text])


def _is_unsafe(text: str) -> bool:
    return not text.isprintable()


def _texts(error: BaseException) -> Iterator[str]:
    """Yield the texts of an exception, of its notes, of its causes, and of the members of a group."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield _text(each)
        yield from map(str, getattr(each, "__notes__", ()))
        waiting += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # The traceback has a placeholder for it, too.
        return ""


logger.addFilter(EscapingFilter())


class RateLimitedLog:
    """Logs each subject once, or once a minute.

    It remembers :data:`REMEMBERED` subjects at most, since visitors choose the paths in some of them.
    """

    def __init__(self) -> None:
        self._said: dict[Hashable, float] = {}

    def warn_once(self, about: Hashable, message: str, *args: object, level: int = logging.WARNING) -> None:
        """Log a warning the first time only, for problems that the developer can fix."""
        about = _subject(about)
        if about not in self._said:
            self._remember(about)
            logger.log(level, message, *args)

    def error_every_minute(self, about: Hashable, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log an error once a minute, for failures that may last."""
        about = _subject(about)
        last = self._said.get(about)
        if last is None or time.monotonic() - last >= PAUSE:
            self._remember(about)
            logger.error(message, *args, exc_info=exc_info)

    def _remember(self, about: Hashable) -> None:
        if len(self._said) >= REMEMBERED:
            self._said.clear()
        self._said[about] = time.monotonic()


def _subject(about: Hashable) -> Hashable:
    # A visitor can't find two texts with the same hash: each process has a seed of its own for hashes.
    text = about if isinstance(about, str) else ascii(about)
    return about if len(text) <= _LONGEST else hash(text)
