"""Holes: the functions that fill them, and the page that is being made for the store.

While a cached view runs, a hole leaves a mark in the page. Otherwise it is a plain call: outside of a cached view, and in a view
that is called again because its marks were altered.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import Signature, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Generic, ParamSpec, TypeVar

from ...core.model.holes import HoleCall, why_not_json
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import current
from ...core.rules.hole_marks import HoleMark, HoleMarks
from ...errors import ConfigError, StaleCacheError
from ..app_code.function_names import name_of

P = ParamSpec("P")
R = TypeVar("R", bound=str)
#: No fallback was given.
NOTHING: Any = object()


class Making:
    """A page that a cached view is making.

    :param marks: the marks of its holes; ``None``: holes are plain calls in it.
    :param altered: why holes are plain calls in it; "" if they leave marks.
    :ivar has_called: a hole was a plain call in it.
    :ivar asks_functions: a hole function has left a mark.
    :ivar reads_globals: the view has read a value of ``g`` that was set before the view ran.
    """

    __slots__ = ("_altered", "asks_functions", "has_called", "marks", "reads_globals")

    def __init__(self, marks: HoleMarks | None, altered: str = "") -> None:
        self.marks = marks
        self._altered = altered
        self.has_called = False
        self.asks_functions = False
        self.reads_globals = False

    def call_plainly(self) -> None:
        """Note that a hole is a plain call: neither the page nor one around it is stored."""
        self.has_called = True
        if (word := current()) is not None:
            word.forbid()

    @property
    def has_holes(self) -> bool:
        """Whether the page has holes. Tokens of extensions do not count: they get marks whether the page shows them or not."""
        return self.has_called or (self.marks is not None and self.marks.are_shown)

    @property
    def why_altered(self) -> str:
        """How its marks, or those of an earlier attempt, were altered."""
        return self._altered if self.marks is None else self.marks.altered

    def refusal(self) -> Refusal | None:
        """Return why the page is not stored because of its holes: they were plain calls."""
        return Refusal(StoreRefusal.HOLE_ALTERED, self._altered) if self.has_called else None


_making: ContextVar[Making | None] = ContextVar("stalecache_making", default=None)


def with_marks() -> Making:
    """Return a page in which holes leave marks."""
    return Making(HoleMarks(secrets.token_hex(10)))


def without_marks(altered: str) -> Making:
    """Return a page in which holes are plain calls.

    :param altered: how the marks of an earlier attempt were altered.
    """
    return Making(None, altered)


@contextmanager
def being_made(page: Making) -> Iterator[None]:
    """Assign the holes that are called within this context to a page."""
    token = _making.set(page)
    try:
        yield
    finally:
        _making.reset(token)


def page_being_made() -> Making | None:
    """Return the page that a cached view is making now, if any."""
    return _making.get()


def mark_of(call: HoleCall, *, must_show: bool = True) -> HoleMark | None:
    """Return the mark that a hole leaves; ``None`` if it is a plain call.

    :param must_show: the mark has to be in the body.
    """
    page = _making.get()
    if page is None:
        return None
    if page.marks is None:
        page.call_plainly()
        return None
    return page.marks.mark(call, must_show=must_show)


def refuse_marks(values: Iterator[Any], label: str) -> None:
    """Raise :class:`StaleCacheError` if an argument of a fetch function contains a mark: the mark would be stored in its value."""
    page = _making.get()
    if page is None or page.marks is None or not page.marks.calls:
        return
    if any(isinstance(value, str) and page.marks.is_in(str.__str__(value)) for value in values):
        raise StaleCacheError(
            f"{label} was given what a hole returns, which is one visitor's, and its value is for everybody: call {label} in the "
            "hole, or leave the argument out"
        )


def checked_result(result: object, name: str) -> str:
    """Return what a hole has returned.

    :raises StaleCacheError: if it is neither a ``str`` nor a ``Markup``.
    """
    if not isinstance(result, str):
        raise StaleCacheError(
            f"the hole {name} has returned a {type(result).__qualname__}: it returns a str, which is escaped, or a Markup"
        )
    return result


class HoleFunction(Generic[P, R]):
    """A function that is called for each visitor of a page. See :meth:`.StaleCache.hole`.

    :param function: the function.
    :param name: its name in stored pages.
    :param fallback: the text that replaces its result if it fails, or a callable that returns the text.
    """

    def __init__(self, function: Callable[P, R], name: str, fallback: Any) -> None:
        self.function = function
        self.name = name
        self._fallback = fallback
        self._signature = _signature_of(function)
        self.__wrapped__ = function
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, attribute, getattr(function, attribute, None))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the mark of the hole while a page is made for the store; else the result of the function."""
        page = _making.get()
        if page is None or page.marks is None:
            if page is not None:
                page.call_plainly()
            return checked_result(self.function(*args, **kwargs), self.name)  # type: ignore[return-value]
        self._check(args, kwargs)
        page.asks_functions = True
        return page.marks.mark(HoleCall(self.name, args, kwargs))  # type: ignore[return-value]

    def _check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._signature is not None:
            # Wrong arguments raise here, as in a plain call, and not in the request of the next visitor.
            self._signature.bind(*args, **kwargs)
        for value in (*args, *kwargs.values()):
            if why := why_not_json(value):
                raise StaleCacheError(
                    f"the hole {self.name} was given {why}, and its arguments are stored with the page: give it JSON values, such "
                    "as an id, and look the rest up in it"
                )

    def takes(self, call: HoleCall) -> bool:
        """Whether the function takes the arguments of a call. Another version of the app may have given it others."""
        if self._signature is None:
            return True
        try:
            self._signature.bind(*call.args, **call.kwargs)
        except TypeError:
            return False
        return True

    def fill(self, call: HoleCall) -> str:
        """Return the content of the hole for this visitor."""
        function: Any = self.function
        return checked_result(function(*call.args, **call.kwargs), self.name)

    def fall_back(self, call: HoleCall) -> str | None:
        """Return the fallback, if there is one."""
        if self._fallback is NOTHING:
            return None
        given = self._fallback(*call.args, **call.kwargs) if callable(self._fallback) else self._fallback
        return checked_result(given, self.name)


def _signature_of(function: Callable[..., Any]) -> Signature | None:
    """Return the signature of a function; ``None`` if Python can't determine it."""
    try:
        return signature(function)
    except (TypeError, ValueError):
        return None


class HoleFunctions:
    """The functions under ``hole`` of one extension object, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, HoleFunction[Any, Any]] = {}

    def get(self, call: HoleCall) -> HoleFunction[Any, Any] | None:
        """Return the function that a call names, if there is one and it takes the arguments of the call."""
        function = self._by_name.get(call.name)
        return function if function is not None and function.takes(call) else None

    def add(self, function: Callable[P, R], name: str | None, fallback: Any) -> HoleFunction[P, R]:
        """Register a function.

        :raises ConfigError: if another function has its name, or if it can't be a hole.
        """
        if not callable(function):
            raise ConfigError("hole decorates functions")
        if iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function):
            raise ConfigError(f"{name_of(function)} is async or a generator: a hole is a plain function that returns its text")
        named = name_of(function) if name is None else name
        if not isinstance(named, str) or not named or "#" in named or not named.isprintable():
            raise ConfigError(f"name={name!r}: write a short text without # in it")
        if named in self._by_name:
            raise ConfigError(f"two holes are named {named!r}: write @cache.hole(name=…) at one of them")
        if fallback is not NOTHING and not isinstance(fallback, str) and not callable(fallback):
            raise ConfigError("fallback= is a str, a Markup, or a callable that returns one")
        hole = self._by_name[named] = HoleFunction(function, named, fallback)
        return hole
