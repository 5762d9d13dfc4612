"""The reads and changes of one session, by key."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..flask_internals.readers import in_template

#: Code that reads a session for its caller.
_FRAMEWORK = frozenset({"werkzeug", "flask", "flask_stalecache", "flask_session"})
#: Stands for reads of all of a session, such as its truth and its length, among the keys that a module may read.
WHOLE = object()
#: Modules, and the keys whose reading by them makes no difference to a page.
_EXEMPT: Mapping[str, frozenset[object]] = {
    # Whether a session is empty or another browser's: a visitor without a user's id in it is a stranger either way.
    "flask_login.login_manager": frozenset({"_id", "_fresh", WHOLE}),
}
#: The key that Flask-Login marks in each session that is not empty, even if nobody has logged in.
HARMLESS = frozenset({"_fresh"})
#: The keys whose change makes no difference to a page that has not read them: how long the session lasts, and that mark.
MARKS = frozenset({"_permanent", "_fresh"})


class SessionReads:
    """The reads of a part of the code.

    :ivar names: the keys that were read.
    :ivar whole: all of the session was read, or its class can't be watched.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.whole = False

    def __bool__(self) -> bool:
        return self.whole or bool(self.names)

    def covers(self, other: SessionReads) -> bool:
        """Whether these reads include all of the other ones."""
        return not other or (not other.whole and other.names <= self.names)


class SessionLog:
    """The reads of one session from the moment when it was opened.

    :param opened: the keys that it had then.
    :ivar keys: the keys that were read, with their first readers.
    :ivar found: the keys that something has found in it. They may have been taken out since.
    :ivar whole: the first reader of all of it; "" if only keys were read.
    :ivar written: the keys that were set or removed.
    :ivar is_rewritten: it was changed in a way that no key tells.
    :ivar is_ended: the session is not watched any more, since code has it that needs no methods to read it.
    """

    __slots__ = ("_own", "found", "is_ended", "is_rewritten", "keys", "opened", "whole", "written")

    def __init__(self, opened: frozenset[str]) -> None:
        self.opened = opened
        self.keys: dict[str, str] = {}
        self.found: set[str] = set()
        self.whole = ""
        self.written: set[str] = set()
        #: The keys that a view has set itself, in which it finds nothing of its visitor's.
        self._own: set[str] = set()
        self.is_rewritten = False
        self.is_ended = False

    def read(self, key: object, *, is_there: bool) -> None:
        """Record the read of a key by the caller of the caller, unless that is exempt.

        :param is_there: whether the session has the key.
        """
        if not isinstance(key, str):
            self.read_whole()
            return
        if is_there and key not in self._own:
            self.found.add(key)
        if key not in self.keys and (reader := _reader()) is not None and not is_exempt(reader, key):
            self.keys[key] = in_template(reader, sys._getframe(2))

    def read_whole(self) -> None:
        """Record that all was read by the caller of the caller, unless that is exempt."""
        if not self.whole and (reader := _reader()) is not None and not is_exempt(reader, WHOLE):
            self.whole = in_template(reader, sys._getframe(2))

    def is_of(self, key: str) -> bool:
        """Whether the visitor's session had a key, when it was opened or meanwhile."""
        return key in self.opened or key in self.found

    def is_unchanged_but(self, keys: frozenset[str]) -> bool:
        """Whether nothing was changed but some keys."""
        return self.written <= keys and not (self.is_rewritten or self.is_ended)

    @contextmanager
    def reads_aside(self) -> Iterator[SessionReads]:
        """Record reads apart for a while. They are known at the end."""
        reads, keys, whole = SessionReads(), self.keys, self.whole
        self.keys, self.whole = {}, ""
        try:
            yield reads
        finally:
            reads.names, reads.whole = set(self.keys), bool(self.whole)
            self.keys, self.whole = keys, whole

    @contextmanager
    def apart(self) -> Iterator[KeysApart]:
        """Record reads apart for a while, with their readers. They are known at the end, and :meth:`count` lets them count."""
        read, keys, whole = KeysApart(), self.keys, self.whole
        self.keys, self.whole = {}, ""
        try:
            yield read
        finally:
            read.keys, read.whole = self.keys, self.whole
            self.keys, self.whole = keys, whole

    def count(self, read: KeysApart) -> None:
        """Let reads count that were recorded apart."""
        for key, reader in read.keys.items():
            self.keys.setdefault(key, reader)
        self.whole = self.whole or read.whole

    @contextmanager
    def changes_apart(self) -> Iterator[SessionChanges]:
        """Tell for a while what is changed, and whether all is read. It counts for the whole request too."""
        changes, written, is_rewritten, whole = SessionChanges(), self.written, self.is_rewritten, self.whole
        self.written, self.is_rewritten, self.whole = changes.written, False, ""
        own, self._own = self._own, changes.written
        try:
            yield changes
        finally:
            changes.is_rewritten, changes.reads_whole = self.is_rewritten, bool(self.whole)
            self.written, self._own = written | changes.written, own
            self.is_rewritten, self.whole = is_rewritten or self.is_rewritten, whole or self.whole


class KeysApart:
    """Reads that were recorded apart.

    :ivar keys: the keys that were read, with their first readers.
    :ivar whole: the first reader of all of the session; "" if only keys were read.
    """

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.whole = ""


class SessionChanges:
    """The changes of a session by a part of the code.

    :ivar written: the keys that were set or removed.
    :ivar is_rewritten: it was changed in a way that no key tells.
    :ivar reads_whole: all of it was read.
    """

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.is_rewritten = False
        self.reads_whole = False

    def are_within(self, keys: frozenset[str]) -> bool:
        """Whether something was changed, and nothing but some keys."""
        return bool(self.written) and self.written <= keys and not self.is_rewritten


def is_exempt(reader: str, key: object) -> bool:
    """Whether the reading of a key, or of :data:`WHOLE`, by a module makes no difference."""
    return key in _EXEMPT.get(reader, ())


def _reader() -> str | None:
    """Return the module of the first caller outside the framework; ``None`` if that saves the session."""
    frame = sys._getframe(3)
    while True:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _FRAMEWORK or frame.f_back is None:
            # The code of a template is in no module.
            return name or "a template"
        if frame.f_code.co_name == "save_session":
            return None
        frame = frame.f_back
