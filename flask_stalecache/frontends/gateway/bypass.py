"""Counts a bypassed request when the app starts its response."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...core.model.environ import REFRESHING
from ...core.model.policy import FAILURE_STATUSES
from ...core.model.reasons import BypassReason
from ...core.rules.status import CacheStatus
from ...engine.instrumentation import Instrumentation, is_failure
from ...stats.tally import UNCOUNTED
from .backend import Backend, Observation
from .rules import Rule

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class BypassedCall:
    """One call of the app for a request that bypasses the cache.

    :param backend: the app behind the gateway.
    :param instrumentation: counts the call.
    :param environ: the request.
    :param rule: the rule for the path.
    :param reason: why it bypasses the cache.
    """

    def __init__(
        self,
        backend: Backend,
        instrumentation: Instrumentation,
        environ: WSGIEnvironment,
        rule: Rule,
        reason: BypassReason,
    ) -> None:
        self._backend = backend
        self._instrumentation = instrumentation
        self._environ = environ
        self._rule = rule
        self._reason = reason
        self._begun = time.perf_counter()
        self._is_counted = False
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            # Caches further out may store the answer, so its Vary has to name what it depends on.
            self._environ = backend.observe.hand_in(environ)
        else:
            backend.observe.accompany(environ)

    def enter(self, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app."""
        try:
            return self._backend.app(self._environ, start_response)
        except BaseException as error:
            # A failed call counts too: the server answers 500.
            self._count(failed=is_failure(error), error=error)
            raise

    def observe(self) -> Observation:
        """Return how the app came to its answer."""
        return self._backend.observe(self._environ, self._rule.ignored)

    def answered(self, code: int) -> bool:
        """Count the answer, unless a view with ``cached()`` has counted it. Return whether a view has."""
        return self._count(failed=code in FAILURE_STATUSES)

    def _count(self, *, failed: bool, error: BaseException | None = None) -> bool:
        seen = self.observe()
        # An app may call start_response again after an error, but it is one call.
        if not seen.is_ours and not self._is_counted:
            tally, took = self._backend.tally(seen.endpoint, self._rule.pattern), time.perf_counter() - self._begun
            (UNCOUNTED if REFRESHING in self._environ else tally).served(CacheStatus.BYPASS, took, why=self._reason)
            self._instrumentation.count_origin_call("", tally, took, failed, error)
        self._is_counted = True
        return seen.is_ours
