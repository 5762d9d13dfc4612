"""The reads and changes of one session, by key."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..flask_internals.readers import in_template

#: Packages that read a session for their caller.
_FRAMEWORK = frozenset({"werkzeug", "flask", "flask_stalecache", "flask_session"})
#: Stands, in place of a key, for the session as a whole, which is read for its truth and its length, for example.
WHOLE = object()
#: Modules, and the keys whose reading by them makes no difference to a page.
_EXEMPT: Mapping[str, frozenset[object]] = {
    # It checks whether a session is empty or another browser's. Without a user's id in it, its visitor is a stranger either way.
    "flask_login.login_manager": frozenset({"_id", "_fresh", WHOLE}),
}
#: The key that Flask-Login marks in each session that is not empty, even if nobody has logged in.
HARMLESS = frozenset({"_fresh"})
#: The keys whose change makes no difference to a page that has not read them: the session's lifetime, and Flask-Login's mark.
MARKS = frozenset({"_permanent", "_fresh"})


class SessionReads:
    """The reads of a session by a part of the code.

    :ivar names: the keys that were read.
    :ivar whole: the session was read as a whole, or its class can't be watched.
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
    """The reads and changes of one session since it was opened.

    :param opened: the keys that it had then.
    :ivar keys: the keys that were read, with their first readers.
    :ivar found: the keys that were found in it when they were read. They may have been removed since.
    :ivar whole: the first reader of the session as a whole; "" if only keys were read.
    :ivar written: the keys that were set or removed.
    :ivar is_rewritten: it was changed in a way that keys can't describe.
    :ivar is_ended: the session is not watched any more, since it was handed out to code that may read it without its methods.
    """

    __slots__ = ("_own", "found", "is_ended", "is_rewritten", "keys", "opened", "whole", "written")

    def __init__(self, opened: frozenset[str]) -> None:
        self.opened = opened
        self.keys: dict[str, str] = {}
        self.found: set[str] = set()
        self.whole = ""
        self.written: set[str] = set()
        #: The keys that a view has set itself: to find them reveals nothing about the visitor.
        self._own: set[str] = set()
        self.is_rewritten = False
        self.is_ended = False

    def read(self, key: object, *, is_there: bool) -> None:
        """Record the read of a key by the caller of the caller, unless its module is exempt.

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
        """Record that the caller of the caller has read the session as a whole, unless its module is exempt."""
        if not self.whole and (reader := _reader()) is not None and not is_exempt(reader, WHOLE):
            self.whole = in_template(reader, sys._getframe(2))

    def is_of(self, key: str) -> bool:
        """Whether the visitor's session had a key, when it was opened or when the key was read."""
        return key in self.opened or key in self.found

    def is_unchanged_but(self, keys: frozenset[str]) -> bool:
        """Whether nothing was changed but some keys."""
        return self.written <= keys and not (self.is_rewritten or self.is_ended)

    @contextmanager
    def reads_aside(self) -> Iterator[SessionReads]:
        """Record reads separately for a while. They are known at the end."""
        reads, keys, whole = SessionReads(), self.keys, self.whole
        self.keys, self.whole = {}, ""
        try:
            yield reads
        finally:
            reads.names, reads.whole = set(self.keys), bool(self.whole)
            self.keys, self.whole = keys, whole

    @contextmanager
    def apart(self) -> Iterator[KeysApart]:
        """Record reads separately for a while, with their readers. They are known at the end, for :meth:`count`."""
        read, keys, whole = KeysApart(), self.keys, self.whole
        self.keys, self.whole = {}, ""
        try:
            yield read
        finally:
            read.keys, read.whole = self.keys, self.whole
            self.keys, self.whole = keys, whole

    def count(self, read: KeysApart) -> None:
        """Add reads to the log that were recorded separately."""
        for key, reader in read.keys.items():
            self.keys.setdefault(key, reader)
        self.whole = self.whole or read.whole

    @contextmanager
    def changes_apart(self) -> Iterator[SessionChanges]:
        """Record separately for a while what is changed, and whether the session is read as a whole.

        Both are added to the log of the whole request at the end.
        """
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
    """Reads that were recorded separately.

    :ivar keys: the keys that were read, with their first readers.
    :ivar whole: the first reader of the session as a whole; "" if only keys were read.
    """

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.whole = ""


class SessionChanges:
    """The changes of a session by a part of the code.

    :ivar written: the keys that were set or removed.
    :ivar is_rewritten: the session was changed in a way that keys can't describe.
    :ivar reads_whole: the session was read as a whole.
    """

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.is_rewritten = False
        self.reads_whole = False

    def are_within(self, keys: frozenset[str]) -> bool:
        """Whether something was changed, but nothing except some keys."""
        return bool(self.written) and self.written <= keys and not self.is_rewritten


def is_exempt(reader: str, key: object) -> bool:
    """Whether the reading of a key, or of :data:`WHOLE`, by a module makes no difference."""
    return key in _EXEMPT.get(reader, ())


def _reader() -> str | None:
    """Return the module of the first caller outside the framework; ``None`` if the framework reads the session to save it."""
    frame = sys._getframe(3)
    while True:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _FRAMEWORK or frame.f_back is None:
            # The code of a template is in no module.
            return name or "a template"
        if frame.f_code.co_name == "save_session":
            return None
        frame = frame.f_back
