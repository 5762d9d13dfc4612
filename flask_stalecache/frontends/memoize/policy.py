"""The rules of one fetch function, validated and immutable. Windows and more are shared with pages: see ``Policy``."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ...core.model.checks import names, seconds
from ...core.model.policy import FAILURE_STATUSES, Policy
from ...errors import ConfigError

#: The limit of concurrent calls in a process for a function with ``wait`` and without ``max_concurrency``.
DEFAULT_CONCURRENCY = 8
#: The default of ``failures``: any exception, the statuses of RFC 5861, and 429 (RFC 6585 section 4).
DEFAULT_FAILURES: tuple[type[Exception] | int, ...] = (Exception, *sorted(FAILURE_STATUSES - {429}), 429)


class _Nothing:
    """The default of ``fallback``, since ``None`` is a possible fallback."""

    def __repr__(self) -> str:
        return "NO_FALLBACK"


NO_FALLBACK: Any = _Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The windows and rules of a fetch function.

    :param windows: the rules that pages have too. Callables in it take the function's arguments.
    :param ignored_args: parameters that are not in the key.
    :param fallback: the value if the function fails and nothing is stored, or a callable of the function's arguments.
    :param max_concurrency: the limit of concurrent calls in a process; ``None``: no limit.
    :param suspend_after: failures in a row, over all keys, after which calls stop; ``None``: never.
    :param suspend_for: seconds for which they stop.
    :param failures: exception classes and HTTP statuses that count as a failure; or a callable of the exception or value.
    :param cache_failures: seconds for which a failure is remembered if nothing is stored; ``None``: not at all.
    :param serializer: ``json``, ``pickle``, or an object with ``dumps`` and ``loads``.
    :param inherit: pages made from it take over its tags and its freshness.
    :raises ConfigError: naming the parameter, the value and what is accepted.
    """

    windows: Policy
    ignored_args: Any = ()
    fallback: Any = NO_FALLBACK
    max_concurrency: Any = None
    suspend_after: Any = None
    suspend_for: Any = None
    failures: Any = DEFAULT_FAILURES
    cache_failures: Any = None
    serializer: Any = "json"
    inherit: bool = True

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "ignored_args": names("ignored_args", self.ignored_args),
            "max_concurrency": self._concurrency(),
            "suspend_after": None if self.suspend_after is None else _count("suspend_after", self.suspend_after),
            "suspend_for": None if self.suspend_for is None else seconds("suspend_for", self.suspend_for),
            "failures": self.failures if callable(self.failures) else _failures(self.failures),
            "cache_failures": None if self.cache_failures is None else seconds("cache_failures", self.cache_failures),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_fallback()
        if not isinstance(self.inherit, bool):
            raise ConfigError(f"inherit={self.inherit!r}: give True or False")
        if (self.suspend_after is None) != (self.suspend_for is None):
            raise ConfigError(
                "suspend_after and suspend_for belong together: give after how many failures, and for how many seconds"
            )
        if self.windows.key is not None and self.ignored_args:
            raise ConfigError("ignored_args has no effect beside key=, which stands for all arguments: leave one out")

    def _check_fallback(self) -> None:
        if callable(self.fallback):
            return
        try:
            deepcopy(self.fallback)
        except Exception as error:
            raise ConfigError(
                f"fallback={self.fallback!r} can't be copied ({error}), and everyone gets one of their own: give a callable that "
                "returns it"
            ) from error

    def _concurrency(self) -> int | None:
        given = self.max_concurrency
        if given is None:
            return None if self.windows.wait is None else DEFAULT_CONCURRENCY
        return _count("max_concurrency", given)

    def is_failure(self, error: BaseException | None, value: object, status: int | None) -> bool:
        """Whether the outcome of a call is a failure.

        :param error: the exception, if it raised one.
        :param value: what it returned, if it did not.
        :param status: the HTTP status of either, if it has one.
        """
        if callable(self.failures):
            return bool(self.failures(value if error is None else error))
        if status in self.failures:
            return True
        if error is None or (status in _ANSWERS and self.failures is DEFAULT_FAILURES):
            return False
        return isinstance(error, tuple(kind for kind in self.failures if isinstance(kind, type)))


#: Statuses that are an answer ("there is no such thing"), even if they are raised.
_ANSWERS = (404, 410)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")
    return value


def _failures(value: object) -> tuple[type[Exception] | int, ...]:
    if value is DEFAULT_FAILURES:
        return DEFAULT_FAILURES
    kinds = (value,) if isinstance(value, (type, int)) else value
    if not isinstance(kinds, Iterable):
        raise ConfigError(f"failures={value!r}: give exception classes and HTTP statuses, or a callable of the exception or value")
    items = tuple(kinds)
    for item in items:
        is_class = isinstance(item, type) and issubclass(item, Exception)
        is_status = isinstance(item, int) and not isinstance(item, bool) and 400 <= item <= 599
        if not is_class and not is_status:
            raise ConfigError(f"failures contains {item!r}: give exception classes, and HTTP statuses from 400 to 599")
    return items
