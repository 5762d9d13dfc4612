"""The exceptions of this package: :class:`StaleCacheError` and its subclasses."""

from __future__ import annotations


class StaleCacheError(Exception):
    """The base of all errors that this package raises."""


class ConfigError(StaleCacheError, ValueError, TypeError):
    """A parameter, a configuration key or the cache directory is not usable.

    Raised at decoration or in :meth:`~flask_stalecache.StaleCache.init_app`. The message names the parameter or key, its value
    and the accepted values. It is also a :class:`ValueError` and a :class:`TypeError`, since callers may expect either.
    """


class StoreError(StaleCacheError):
    """The store can't be read or written. Visitors never see this: requests bypass the cache, and it is counted and logged."""


class PurgedHereOnly(StoreError):
    """A purge has reached only this host, since the server that hosts share can't be used. Other hosts purge once it is back."""


class BatchQueueFull(StoreError):
    """A batch was not begun, and nothing was purged or refreshed: too many other batches of this process wait for their turn.

    It is a :class:`StoreError`, so that code that handles a failed purge handles this error too.
    """


class RefreshRefused(StaleCacheError, ValueError):
    """A refresh that another process has handed over can't be run here: it belongs to another app or version, or is not a refresh.

    Raised by :meth:`~flask_stalecache.StaleCache.run_refresh`. The message names the part that is wrong.
    """


class BrokenEntry(StaleCacheError):
    """The stored bytes of an entry are truncated, corrupt, of another format or of another key."""


class BrokenValue(StaleCacheError):
    """The stored bytes of a value have an invalid signature, or do not have the expected type."""


class UnstorableValue(StaleCacheError):
    """A value that the store would not return unchanged. Callers never see this error: they get the value itself."""


class UnkeyableArgument(StaleCacheError, TypeError):
    """An argument of a fetch function has no canonical form for the key. The message names the argument."""


class OriginTimeout(StaleCacheError, TimeoutError):
    """A fetch function did not return within its ``wait``, and there is no stored value and no ``fallback`` to return instead."""


class OriginBusy(StaleCacheError):
    """A fetch function reached its ``max_concurrency``, and there is no stored value and no ``fallback`` to return instead."""


class OriginSuspended(StaleCacheError):
    """A fetch function is suspended after failures, and there is no stored value and no ``fallback`` to return instead."""
