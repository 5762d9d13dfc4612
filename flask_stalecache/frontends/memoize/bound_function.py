"""A fetch function under ``memoize``: its definition, and the function in one app."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask

from ...config.settings import Settings
from ...core.addressing.keys import call_key
from ...core.remembered import Remembered
from ...core.rules.serving import ServeOptions
from ...engine.log import RateLimitedLog
from ...engine.scheduling.thread_pool import ThreadPool
from ...stats.tally import Tally
from ..app_code.function_names import name_of
from .arguments import Arguments, canonical
from .circuit_breaker import CircuitBreaker, ConcurrencyLimit
from .places import Places
from .policy import CallPolicy
from .serializers import Codec

#: The fetch functions of this process by name. Those that a factory makes share one name.
_definitions: dict[str, weakref.WeakSet[FetchFunction]] = {}


def definition_named(name: str) -> FetchFunction | None:
    """Return the fetch function with this name; ``None`` if there is not exactly one."""
    alive = list(_definitions.get(name, ()))
    return alive[0] if len(alive) == 1 else None


class FetchFunction:
    """A function under ``memoize``, before any app is known.

    :param function: the fetch function.
    :param policy: the rules that the developer wrote.
    :param name: its name, if it is not the function's.
    """

    def __init__(self, function: Callable[..., Any], policy: CallPolicy, name: str | None = None) -> None:
        self.function = function
        self.policy = policy
        self.name = name_of(function) if name is None else name
        self.arguments = Arguments(function, self.name, policy.ignored_args)
        _definitions.setdefault(self.name, weakref.WeakSet()).add(self)


@dataclass(frozen=True, slots=True, eq=False)
class BoundFunction:
    """A fetch function in one app.

    :ivar codec: encodes its values.
    :ivar slots: limits its concurrent calls.
    :ivar suspension: stops its calls after failures.
    :ivar pool: the threads of its refreshes, and of its calls with ``wait``.
    :ivar places: the places of its callers and values.
    :ivar renew: renews values by their keys, and waits for them.
    :ivar terms: the serving options for callers that wait.
    :ivar in_background: the serving options in a refresh.
    :ivar keys: a cache of the keys of calls with plain arguments.
    :ivar tally: its counters.
    """

    app: Flask
    definition: FetchFunction
    settings: Settings
    complaints: RateLimitedLog
    codec: Codec
    slots: ConcurrencyLimit
    suspension: CircuitBreaker
    pool: ThreadPool
    places: Places
    renew: Callable[[tuple[str, ...]], None]
    lock_timeout: float
    terms: ServeOptions
    in_background: ServeOptions
    asks_each: bool
    keys: Remembered[tuple[Any, ...], str]
    tally: Tally

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the key of a call.

        :raises UnkeyableArgument: if an argument has no canonical form.
        """
        if kwargs or not _PLAIN.issuperset(map(type, args)):
            return self._key(args, kwargs)
        key = self.keys.get(args)
        if key is None:
            key = self.keys.note(args, self._key(args, kwargs))
        return key

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        definition, own = self.definition, self.definition.policy.windows.key
        if own is None:
            return call_key(definition.name, definition.arguments.key_part(args, kwargs))
        return call_key(definition.name, canonical(own(*args, **kwargs), "key", definition.name))


#: No value of one of these types equals a value of another, so a dict distinguishes them, as it does not for 1, 1.0 and True.
_PLAIN = frozenset({str, int, type(None)})
