"""Refreshes one entry as a task of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..core.packets.refresh_data import OriginKind
from ..engine.engine import Engine
from ..engine.origin import Answer, RefreshJob, RefreshResult
from ..stores.base import Copy
from .batch import Outcome
from .warm_request import why_unstored

#: Seconds to wait for another call that refreshes the same entry, and seconds between two attempts.
PATIENCE, POLL = 2.0, 0.05
TOO_LONG = "it took longer than STALECACHE_REFRESH_DEADLINE"


class Renewal(NamedTuple):
    """The way to refresh an entry.

    :ivar job: the refresh.
    :ivar status_of: returns the status of the origin's answer; ``None`` if it has none.
    """

    job: RefreshJob
    status_of: Callable[[Answer], int | None]


class Renewer(Protocol):
    """A front end that can refresh its entries."""

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how to refresh an entry, given its head, or why it can't be refreshed. ``None``: another front end made it."""


def refresh_patiently(engine: Engine, job: RefreshJob, entry: Entry, until: float) -> RefreshResult | None:
    """Refresh an entry in this thread. While another call refreshes it, wait for the end of that call, then try again.

    :param until: when to give up, on the monotonic clock. There is one attempt at least.
    """
    result = engine.runtime.refresh_now(job, entry)
    while (result is None or result.is_busy) and time.monotonic() < until:
        time.sleep(POLL)
        result = engine.runtime.refresh_now(job, entry)
    return result


class RenewTask:
    """Refreshes one entry.

    :param renewal: how to refresh it, or the reason why it can't be refreshed.
    """

    def __init__(self, engine: Engine, entry: Entry, renewal: Renewal | str) -> None:
        self.url = title_of(entry)
        self._engine = engine
        self._entry = entry
        self._renewal = renewal

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Refresh the entry under the lock of its key, unless another thread or process does."""
        if isinstance(self._renewal, str):
            return Outcome(self.url, reason=self._renewal, skipped=True)
        began, before = time.monotonic(), self._engine.answer_writer.load(self._entry.key)
        delegation = self._engine.runtime.delegation
        if delegation.run_elsewhere(self._renewal.job, self._entry):
            return self._outcome_elsewhere(before, self._renewal.job, time.monotonic() - began)
        # A worker that was killed while it ran the refresh holds the lock of the key for a moment longer.
        until = time.monotonic() + PATIENCE if delegation.was_lost(began) else 0.0
        result = refresh_patiently(self._engine, _watched(self._renewal.job, given_up), self._entry, until)
        seconds = time.monotonic() - began
        if result is None or result.is_busy:
            return Outcome(self.url, None, seconds, reason="another call is refreshing it", skipped=True)
        if result.error is not None:
            raise result.error
        if result.answer is None:
            return Outcome(self.url, None, seconds, reason="it was purged or renewed meanwhile", skipped=True)
        return self._outcome(result, result.answer, self._renewal.status_of(result.answer), seconds)

    def _outcome_elsewhere(self, before: Copy, job: RefreshJob, seconds: float) -> Outcome:
        """Return the outcome of a refresh that the worker has run, from the entry and the note that are stored now."""
        after = self._engine.store.load(self._entry.key)
        if after.entry is None:
            return Outcome(self.url, None, seconds, reason="it was purged, or the worker could not store it any more", skipped=True)
        if after.entry.serial != self._entry.serial:
            return Outcome(self.url, None if job.kind is OriginKind.CALL else after.entry.status, seconds, stored=True)
        failed = after.note.failures > before.note.failures
        reason = "its origin failed in the worker, whose log tells why" if failed else "the worker has not stored it"
        return Outcome(self.url, None, seconds, reason=reason, failed=failed)

    def _outcome(self, result: RefreshResult, answer: Answer, status: int | None, seconds: float) -> Outcome:
        failed = answer.verdict.keeps_copy or answer.verdict.is_failure
        reason = "" if result.stored else why_unstored(answer)
        return Outcome(self.url, status, seconds, result.stored, reason, failed=failed)


def _watched(job: RefreshJob, given_up: Callable[[str], None]) -> RefreshJob:
    """Return a forced refresh that runs in a thread of its batch. The batch waits for its end."""

    def give_up() -> None:
        job.given_up()
        given_up(TOO_LONG)

    return replace(
        job, pool=None, fills_missing=False, forced=True, max_wait=None, is_backing_off=lambda copy: False, given_up=give_up
    )
