"""The app in which the requests of sessions are cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from ...core.rules.prefer_stale import preference
from ...core.rules.serving import ServeOptions
from ...engine.engine import Engine
from ...engine.scheduling.thread_pool import ThreadPool
from ...stats.tally import Tally
from .rules import SessionRules
from .url_key import host_of_url


class AppContext:
    """The app in which the requests of sessions are cached.

    :param engine: the engine of the app.
    :param pool: the threads that refresh.
    :param terms_of: returns the serving options of the app.
    """

    def __init__(self, engine: Engine, pool: ThreadPool, terms_of: Callable[[], ServeOptions]) -> None:
        self.engine = engine
        self.pool = pool
        self.settings = engine.settings
        self._terms_of = terms_of

    def tally(self, url: str) -> Tally:
        """Return the counters of a third party.

        :param url: as :func:`~.url_key.key_url` returns it.
        """
        return self.engine.registry.tally("host", host_of_url(url))

    @cached_property
    def _terms(self) -> ServeOptions:
        # Not before the first request: until then the app may still be configured.
        return self._terms_of()

    def terms(self, rules: SessionRules) -> ServeOptions:
        """Return the serving options under the rules of a session."""
        given = rules.policy.prefer_stale
        prefers = self.settings.prefer_stale if given is None else given
        return self._terms._replace(prefer_stale=preference(prefers, self.settings.prefer_stale_refresh))

    def lock_timeout(self, rules: SessionRules) -> float:
        """Return the longest time in seconds to wait for another caller's request."""
        given: float | None = rules.policy.lock_timeout
        return self.settings.lock_timeout if given is None else given
