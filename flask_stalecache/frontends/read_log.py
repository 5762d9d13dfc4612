"""The reads of one request: which cookies, fields and parameters were read, and by whom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .flask_internals import app_opening_session, session_cookie

_FRAMEWORK = frozenset({"werkzeug", "flask", "flask_stalecache"})


class ReadLog:
    """The reads of one request, by name.

    :ivar headers: request fields (in lower case), each with its first reader.
    :ivar cookies: cookie names and readers.
    :ivar parameters: query parameters and readers.
    :ivar whole: kinds that were read as a whole (``headers``, ``cookies``, ``query``) and readers.
    """

    __slots__ = ("_paused", "cookies", "exempt", "headers", "parameters", "whole")

    def __init__(self, exempt: frozenset[str]) -> None:
        self.exempt = exempt
        self.headers: dict[str, str] = {}
        self.cookies: dict[str, str] = {}
        self.parameters: dict[str, str] = {}
        self.whole: dict[str, str] = {}
        self._paused = 0

    def header(self, name: str) -> None:
        """Record the read of a field, unless an exempt package reads it."""
        name = name.lower()
        if not self._paused and name not in self.headers:
            reader = _reader()
            # The Cookie field holds all cookies, so that no package is exempt.
            if name == "cookie" or not self._is_exempt(reader):
                self.headers[name] = reader

    def all_headers(self) -> None:
        """Record that all fields were read."""
        if not self._paused and "headers" not in self.whole:
            reader = _reader()
            if not self._is_exempt(reader):
                self.whole["headers"] = reader

    def cookie(self, name: str) -> None:
        """Record the read of a cookie. That Flask opens the session, which reads its cookie, does not count."""
        if not self._paused and name not in self.cookies and not _is_opening_of_session(name):
            self.cookies[name] = _reader()

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
            self.whole.setdefault("query", _reader())

    @contextmanager
    def set_aside(self) -> Iterator[ReadLog]:
        """Record in a separate log for a while: the key covers the reads of a ``key`` callable."""
        mine = (self.headers, self.cookies, self.parameters, self.whole)
        aside = ReadLog(self.exempt)
        self.headers, self.cookies, self.parameters, self.whole = aside.headers, aside.cookies, aside.parameters, aside.whole
        try:
            yield aside
        finally:
            self.headers, self.cookies, self.parameters, self.whole = mine

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not record the reads that Werkzeug itself makes."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def _is_exempt(self, reader: str) -> bool:
        return any(reader == package or reader.startswith(package + ".") for package in self.exempt)


def _reader() -> str:
    """Return the module of the first caller outside Werkzeug, Flask and this package."""
    frame = sys._getframe(2)
    while True:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _FRAMEWORK or frame.f_back is None:
            return str(name)
        frame = frame.f_back


def _is_opening_of_session(cookie: str) -> bool:
    app = app_opening_session()
    return app is not None and cookie == session_cookie(app)
