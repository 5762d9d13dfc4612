"""A WSGI environ that records which of its variables are read, and by whom.

Reads that Werkzeug, Flask and this package make for themselves do not count. The environ is a subclass of ``dict``, as code may
expect. C code reads the items of a dict without calling its methods. So the names are strings that record when they are compared,
which shows the names that are found; and an environ that was handed out without a recorded read counts as read as a whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.model.environ import REPORT, is_anybodys
from ..flask_internals.readers import outside_reader
from .observed_values import NotedName
from .read_log import ReadLog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


_SERVER = ("SERVER_NAME", "SERVER_PORT")


class ObservedEnviron(dict[str, Any]):
    """An environ that records its reads, and writes through to a plain environ.

    :param plain: the plain environ. Reads of it are not recorded.
    :param log: records the reads.
    """

    __slots__ = ("_exempt", "_log", "_plain")

    _log: ReadLog | None

    def __init__(self, plain: WSGIEnvironment, log: ReadLog) -> None:
        self._plain, self._log, self._exempt = plain, log, log.exempt
        super().__init__(self._noted())

    @property
    def plain(self) -> WSGIEnvironment:
        """The plain environ."""
        return self._plain

    @property
    def log(self) -> ReadLog:
        """The log of the reads. That of a request is created at the first read, since most hits read nothing."""
        log = self._log
        if log is None:
            log = self._log = ReadLog(self._exempt)
            report = self._plain.get(REPORT)
            log.accept_read = None if report is None else report.told
        return log

    def hand_out(self, receiver: str) -> ObservedEnviron:
        """Return itself to a module outside the framework, which is expected to read it."""
        self.log.uses("environ").taken(receiver)
        return self

    def note(self, name: object) -> None:
        """Record the read of a variable by the caller of the caller."""
        frame = sys._getframe(2)
        reader = outside_reader(frame)
        if reader is None:
            return
        self.log.uses("environ").used()
        if name in _SERVER and "HTTP_HOST" in self._plain and frame.f_globals.get("__name__") == "werkzeug.wsgi":
            # Werkzeug's functions for hosts and URLs read these first, but use them only without Host.
            return
        if isinstance(name, str):
            self.log.variable(name, reader, has_value=bool(self._plain.get(name)))
        else:
            self.log.all_variables(reader)

    def note_whole(self) -> None:
        """Record that the caller of the caller reads all variables."""
        reader = outside_reader(sys._getframe(2))
        if reader is not None:
            self.log.uses("environ").used()
            self.log.all_variables(reader)

    def _noted(self) -> dict[str, Any]:
        return {name if is_anybodys(name) else NotedName(name, self.note): value for name, value in self._plain.items()}

    # -- reads of one variable -------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        self.note(name)
        return self._plain[name]

    def __contains__(self, name: object) -> bool:
        self.note(name)
        return name in self._plain

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable."""
        self.note(name)
        return self._plain.get(name, default)

    # -- writes ----------------------------------------------------------------------------------------------------------

    def __setitem__(self, name: str, value: Any) -> None:
        self.log.uses("environ").used()
        self._before_change(name)
        self._plain[name] = value
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        # A KeyError reveals that there is no such variable, so this counts as a read.
        self.note(name)
        self._before_change(name)
        del self._plain[name]
        super().pop(name, None)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a variable, and return it."""
        self.note(name)
        self._before_change(name)
        super().pop(name, None)
        return self._plain.pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a variable, and set it first if it is missing."""
        self.note(name)
        super().setdefault(name, default)
        return self._plain.setdefault(name, default)

    def update(self, *others: Any, **more: Any) -> None:
        """Set several variables."""
        for name, value in dict(*others, **more).items():
            self[name] = value

    def __ior__(self, other: Any) -> ObservedEnviron:  # type: ignore[override]
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all variables."""
        for name in self._plain:
            self._before_change(name)
        self._plain.clear()
        super().clear()

    def _before_change(self, name: str) -> None:
        # Entries are chosen by the values that a request had when it arrived.
        if name in self._plain:
            self.log.changed.setdefault(name, self._plain[name])

    # -- copies, which are observed likewise -----------------------------------------------------------------------------

    def copy(self) -> ObservedEnviron:
        """Return a copy, whose reads are recorded in the same log."""
        self.log.uses("environ").used()
        return ObservedEnviron(self._plain.copy(), self.log)

    __copy__ = copy

    def __or__(self, other: Any) -> ObservedEnviron:  # type: ignore[override]
        copied = self.copy()
        copied.update(other)
        return copied

    def __bool__(self) -> bool:
        # Every request has variables, so this reveals nothing.
        return bool(self._plain)


class RequestEnviron(ObservedEnviron):
    """The environ of a request object, with the log of the request.

    Each request makes one, without calling the class, so that it costs little until it is handed out. It does not refer to the
    request: a cycle of references would leave each request to the garbage collector.
    """

    __slots__ = ()

    def hand_out(self, receiver: str) -> ObservedEnviron:
        """Return itself to a module outside the framework. C code finds the variables in it from then on."""
        if not dict.__len__(self):
            dict.update(self, self._noted())
        return super().hand_out(receiver)


def _reading_whole(method: str) -> Callable[..., Any]:
    original = getattr(dict, method)

    def read(self: ObservedEnviron, *args: Any, **kwargs: Any) -> Any:
        self.note_whole()
        return original(self.plain, *args, **kwargs)

    return read


for _method in (
    "__iter__", "__len__", "__eq__", "__ne__", "__repr__", "__reversed__", "__ror__", "__reduce_ex__", "keys", "values", "items",
    "popitem",
):  # fmt: skip
    setattr(ObservedEnviron, _method, _reading_whole(_method))
