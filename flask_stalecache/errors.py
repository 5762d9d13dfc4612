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
