"""What can go wrong, as exceptions: :class:`StaleCacheError` and its leaves."""

from __future__ import annotations


class StaleCacheError(Exception):
    """The base of all errors that this package raises."""


class ConfigError(StaleCacheError, ValueError, TypeError):
    """A parameter, a configuration key or the cache directory is not usable as given.

    It is raised at decoration or in :meth:`~flask_stalecache.StaleCache.init_app` and names the thing, its value and what is
    accepted. It is a :class:`ValueError` and a :class:`TypeError` too, since both are what a caller may expect.
    """


class StoreError(StaleCacheError):
    """The store can't be read or written. Visitors never see it: pages are served live, it is counted and logged."""


class BrokenEntry(StaleCacheError):
    """Stored bytes that are not the entry they should be: cut, flipped, of another format or of another key."""


class BrokenValue(StaleCacheError):
    """The stored bytes of a call's value that are not what they should be: tampered with, or not of the type that is asked for."""


class UnstorableValue(StaleCacheError):
    """A value that would not come back from the store as it went in. Callers never see it: they get the value itself."""


class UnkeyableArgument(StaleCacheError, TypeError):
    """An argument of a fetch function has no canonical form, so that no key can be made of it. It names the argument."""


class OriginTimeout(StaleCacheError, TimeoutError):
    """A fetch function did not answer within its ``wait``, nothing is stored that could stand in, and there is no ``fallback``."""


class OriginBusy(StaleCacheError):
    """As many calls of a fetch function run as ``max_concurrency`` allows, nothing can stand in, and there is no ``fallback``."""


class OriginSuspended(StaleCacheError):
    """A fetch function is left alone for a while because it failed, nothing can stand in, and there is no ``fallback``."""
