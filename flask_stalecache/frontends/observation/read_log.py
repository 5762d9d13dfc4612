"""The reads of one request: which cookies, fields and parameters were read, and by whom."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...core.addressing.keys import FORWARDED_FIELDS
from ...core.http.accept import ACCEPT_FIELDS, AcceptReads
from ...core.http.tracing import TRACING
from ...core.http.vary import STAR
from ...core.model.environ import QUERY_VARIABLES, field_of, is_anybodys
from ..flask_internals.readers import is_in_view
from ..flask_internals.sessions import app_opening_session, loads_sessions_only, session_cookie

_FRAMEWORK = frozenset({"werkzeug", "flask", "flask_stalecache"})
#: Fields that belong to the URL, and that other caches treat as a part of it.
_IN_URL = frozenset({"host", *FORWARDED_FIELDS})

#: Fields whose later reads are recorded too, since they may reveal more than the first one.
_NOTED_AGAIN = TRACING | ACCEPT_FIELDS

#: The attributes of a log that hold what was read.
_RECORDED = ("headers", "accepts", "cookies", "parameters", "variables", "given", "whole")


class Uses:
    """Counts how often an object was handed out to code outside the framework without a recorded read of it.

    Further reads of the same use do not count, so that they don't make up for a later use without a recorded read.

    :ivar open: the uses without a read so far.
    :ivar receiver: the module that got the object last.
    """

    __slots__ = ("open", "receiver")

    def __init__(self) -> None:
        self.open = 0
        self.receiver = ""

    def taken(self, receiver: str) -> None:
        """Count that a module got the object."""
        self.open += 1
        self.receiver = receiver

    def used(self) -> None:
        """Count a recorded read of the object."""
        if self.open:
            self.open -= 1


class ReadLog:
    """The reads of one request, by name.

    :param exempt: packages, and the fields and variables (in lower case) whose reads by them do not count.
    :ivar headers: request fields (in lower case), each with its first reader.
    :ivar accept_read: called with the log after each read of an Accept field, and after another log was added.
    :ivar accepts: how the Accept fields among ``headers`` were read.
    :ivar cookies: cookie names and readers.
    :ivar has_opened: a session interface has read the session's cookie, and may have looked up more than the session's values.
    :ivar parameters: query parameters and readers.
    :ivar traced: tracing fields (in lower case) that were read in a view, and the readers.
    :ivar variables: other variables of the environ, such as REMOTE_ADDR, and readers.
    :ivar given: those of these variables that had a value when they were read.
    :ivar by_key: the request fields that the view's ``key`` callable has read, in lower case; a star if fields can't describe that.
    :ivar changed: the variables of the environ that the app has changed or removed, with the values that they had.
    :ivar whole: kinds that were read as a whole (``headers``, ``cookies``, ``query``, ``environ``) and readers.
    """

    __slots__ = (
        "_paused", "_uses", "accept_read", "accepts", "by_key", "changed", "cookies", "exempt", "given", "has_opened", "headers",
        "parameters", "traced", "variables", "whole",
    )  # fmt: skip

    def __init__(self, exempt: Mapping[str, frozenset[str]]) -> None:
        self.exempt = exempt
        self.headers: dict[str, str] = {}
        self.accepts = AcceptReads()
        self.accept_read: Callable[[ReadLog], object] | None = None
        self.cookies: dict[str, str] = {}
        self.has_opened = False
        self.parameters: dict[str, str] = {}
        self.traced: dict[str, set[str]] = {}
        self.variables: dict[str, str] = {}
        self.given: set[str] = set()
        self.by_key: set[str] = set()
        self.whole: dict[str, str] = {}
        self.changed: dict[str, Any] = {}
        self._uses: dict[str, Uses] = {}
        self._paused = 0

    def uses(self, kind: str) -> Uses:
        """Return the uses of an object: the ``environ``, the ``cookies``, the ``query``, or a parsed Accept field."""
        return self._uses.setdefault(kind, Uses())

    def settle(self) -> None:
        """Record each object that was handed out without a recorded read as read as a whole: C code may have read it."""
        for kind, uses in self._uses.items():
            if not uses.open:
                continue
            if kind not in ACCEPT_FIELDS:
                self.whole.setdefault(kind, uses.receiver)
            elif not self._is_exempt(uses.receiver, kind):
                self.headers.setdefault(kind, uses.receiver)
                self.accepts.parsed.add(kind)

    def header(self, name: str) -> None:
        """Record the read of a field, unless its reader is exempt."""
        name = name.lower()
        if not self._paused and (name not in self.headers or name in _NOTED_AGAIN):
            self._field(name, _reader())

    def _field(self, name: str, reader: str) -> None:
        if not self._is_exempt(reader, name):
            self.headers.setdefault(name, reader)
            if name in ACCEPT_FIELDS:
                self.accepts.raw.add(name)
                self._tell()
            if name in TRACING and is_in_view(sys._getframe(2)):
                self.traced.setdefault(name, set()).add(reader)

    def accept(self, field: str) -> None:
        """Record that more was read of a parsed Accept field than a best match."""
        reader = _reader()
        if not self._paused and not self._is_exempt(reader, field):
            self.headers.setdefault(field, reader)
            self.accepts.parsed.add(field)
            self._tell()

    def _tell(self) -> None:
        if self.accept_read is not None:
            self.accept_read(self)

    def choice(self, field: str, offers: tuple[object, ...], default: object, match: object) -> None:
        """Record that the best match of an Accept field was chosen from a list.

        :param default: the result if nothing matches.
        :param match: the result.
        """
        reader = _reader()
        if not self._paused and not self._is_exempt(reader, field):
            self.headers.setdefault(field, reader)
            if not self.accepts.choose(field, offers, default, match):
                self.accepts.parsed.add(field)
            self._tell()

    def all_headers(self) -> None:
        """Record that all fields were read."""
        if not self._paused and "headers" not in self.whole:
            self.whole["headers"] = _reader()

    def cookie(self, name: str) -> None:
        """Record the read of a cookie.

        While a session is opened, a read of its cookie does not count. It sets ``has_opened``, unless the interface only loads the
        values.
        """
        if self._paused or name in self.cookies:
            return
        app = app_opening_session()
        if app is None or name != session_cookie(app):
            self.cookies[name] = _reader()
        elif not loads_sessions_only(app):
            self.has_opened = True

    def all_cookies(self) -> None:
        """Record that all cookies were read."""
        if not self._paused:
            self.whole.setdefault("cookies", _reader())

    def parameter(self, name: str) -> None:
        """Record the read of a query parameter."""
        if not self._paused and name not in self.parameters:
            self.parameters[name] = _reader()

    def all_parameters(self) -> None:
        """Record that the query was read as a whole."""
        if not self._paused:
            self._query(_reader())

    def address(self, *, has_value: bool) -> None:
        """Record the read of the visitor's address."""
        if not self._paused and "REMOTE_ADDR" not in self.variables:
            self.variable("REMOTE_ADDR", _reader(), has_value=has_value)

    def server(self) -> None:
        """Record the read of the server's address: an app may listen on an address that only some clients can reach."""
        if not self._paused:
            reader = _reader()
            self.variable("SERVER_NAME", reader, has_value=True)
            self.variable("SERVER_PORT", reader, has_value=True)

    def _query(self, reader: str) -> None:
        if not self._is_exempt(reader, "query_string"):
            self.whole.setdefault("query", reader)

    def variable(self, name: str, reader: str, *, has_value: bool) -> None:
        """Record the read of a variable of the environ, which may be a field or the query.

        :param reader: the module that reads.
        :param has_value: whether there is anything to read.
        """
        if self._paused:
            return
        if (field := field_of(name)) is not None:
            self._field(field, reader)
        elif name in QUERY_VARIABLES:
            self._query(reader)
        elif not is_anybodys(name) and not self._is_exempt(reader, name):
            self.variables.setdefault(name, reader)
            if has_value:
                self.given.add(name)

    def traced_by(self, packages: frozenset[str]) -> set[str]:
        """Return the tracing fields that the code of a view has read, rather than a library.

        :param packages: the packages whose code counts as the view's.
        """
        return {name for name, readers in self.traced.items() if any(reader.partition(".")[0] in packages for reader in readers)}

    def fields(self, ignored: frozenset[str]) -> set[str]:
        """Return the request fields that were read, for ``Vary``; a star if fields can't describe what was read.

        :param ignored: fields whose reading does not count.
        """
        if self.given or self.whole.keys() & {"headers", "environ"}:
            return {STAR}
        fields = self.headers.keys() - ignored - _IN_URL
        return {*fields, "cookie"} if self.cookies or "cookies" in self.whole else fields

    def all_variables(self, reader: str) -> None:
        """Record that the environ was read as a whole."""
        if not self._paused:
            self.whole.setdefault("environ", reader)

    @contextmanager
    def set_aside(self) -> Iterator[ReadLog]:
        """Record reads in a separate log for a while, such as those of a ``key`` callable, which the key covers."""
        aside = ReadLog(self.exempt)
        mine = [getattr(self, name) for name in _RECORDED]
        for name in _RECORDED:
            setattr(self, name, getattr(aside, name))
        try:
            yield aside
        finally:
            for name, reads in zip(_RECORDED, mine, strict=True):
                setattr(self, name, reads)

    def add(self, other: ReadLog) -> None:
        """Add what another log has recorded of the same request."""
        for name in ("headers", "cookies", "parameters", "variables", "whole"):
            mine: dict[str, str] = getattr(self, name)
            for key, reader in getattr(other, name).items():
                mine.setdefault(key, reader)
        self.accepts.add(other.accepts)
        self.given |= other.given
        self._tell()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing for a while, since Werkzeug itself reads."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def _is_exempt(self, reader: str, name: str) -> bool:
        name = name.lower()
        return any(
            name in names and (reader == package or reader.startswith(package + ".")) for package, names in self.exempt.items()
        )


def _reader() -> str:
    """Return the module of the first caller outside Werkzeug, Flask and this package."""
    frame = sys._getframe(2)
    while True:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _FRAMEWORK or frame.f_back is None:
            return str(name)
        frame = frame.f_back
