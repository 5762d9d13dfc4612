"""``MemoizedFunction``: the callable that ``memoize`` puts in the place of a fetch function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, cast

from ...batches.selector import Selection
from ...core.model.flask_caching import ATTRIBUTES
from ...errors import ConfigError
from ..setup.current_app import cache_of_current_app
from .bound_function import FetchFunction
from .handler import Calls

P = ParamSpec("P")
R = TypeVar("R")


class MemoizedFunction(Generic[P, R]):
    """A fetch function under :meth:`~flask_stalecache.StaleCache.memoize`: call it as before.

    In an app context, it returns stored values; outside of one, it calls the function itself.
    """

    def __init__(self, definition: FetchFunction, before: tuple[Any, ...] = ()) -> None:
        self._definition = definition
        self._before = before
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
            if hasattr(definition.function, name):
                setattr(self, name, getattr(definition.function, name))
        self.__wrapped__ = definition.function

    if not TYPE_CHECKING:  # Type checkers must report names that do not exist.

        def __getattr__(self, name: str) -> NoReturn:
            """Raise an error that says what to write instead of an attribute of Flask-Caching's memoized functions.

            :raises AttributeError: always; the attributes that exist are found before.
            """
            hint = f": {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    @property
    def name(self) -> str:
        """The name of the function in keys, lists and statistics: its module and qualified name."""
        return self._definition.name

    def __repr__(self) -> str:
        return f"<MemoizedFunction {self._definition.name}>"

    def __get__(self, instance: object, owner: type | None = None) -> MemoizedFunction[..., R]:
        """Bind it to an object, as Python does with methods."""
        return cast("MemoizedFunction[..., R]", self if instance is None else MemoizedFunction(self._definition, (instance,)))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value of the call."""
        cache = cache_of_current_app()
        if cache is None or (calls := cache.calls) is None:
            return self.uncached(*args, **kwargs)
        return calls.answer(self._definition, self._before + args if self._before else args, kwargs)  # type: ignore[no-any-return]

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Renew the value of a call in the background, even a fresh one, and return at once.

        :return: whether it was queued: false if a refresh of the value is pending.
        :raises ConfigError: outside an app context.
        """
        calls = self._known_calls("refresh")
        return calls is not None and calls.refresh(self._definition, self._before + args, kwargs)

    def purge(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Drop the stored value of a call. Every worker sees the purge at its next call.

        :raises ConfigError: outside an app context.
        :raises StoreError: if the store can't be written.
        """
        calls = self._known_calls("purge")
        if calls is not None:
            calls.purge(self._definition, self._before + args, kwargs)

    def purge_all(self) -> bool:
        """Drop the stored values of all calls, in constant time, and return whether there were any.

        :raises ConfigError: outside an app context.
        :raises StoreError: if the store can't be written.
        """
        cache = self._known_cache("purge_all")
        return bool(cache.bulk.purge(Selection(function=self.name), soft=False))

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the stored value of a call, however old, without calling the function; ``None`` if nothing is stored.

        :raises ConfigError: outside an app context.
        """
        calls = self._known_calls("peek")
        return None if calls is None else calls.peek(self._definition, self._before + args, kwargs)

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as if it were not decorated."""
        return self._definition.function(*self._before, *args, **kwargs)  # type: ignore[no-any-return]

    def _known_calls(self, what: str) -> Calls | None:
        return self._known_cache(what).calls  # type: ignore[no-any-return]

    def _known_cache(self, what: str) -> Any:
        cache = cache_of_current_app()
        if cache is None:
            raise ConfigError(f"{self._definition.name}.{what}() needs to know the app: call it under `with app.app_context():`")
        return cache
