"""How a batch makes one entry again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..core.model.entry import Entry
from ..core.model.titles import title_of
from ..core.rules.storability import Verdict
from ..engine.background import RefreshResult
from ..engine.engine import Engine
from ..engine.origin import Answer, RefreshJob
from .batch import Outcome
from .warm_request import why_unstored

TOO_LONG = "it took longer than STALECACHE_REFRESH_DEADLINE"


class Renewal(NamedTuple):
    """How an entry is made again.

    :ivar job: does it.
    :ivar status_of: returns the status in the origin's answer; ``None``: it has none.
    """

    job: RefreshJob
    status_of: Callable[[Answer], int | None]


class Renewer(Protocol):
    """A front end that can make its entries again."""

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how an entry is made again, from its head alone; or why it can't be; ``None``: it is none of ours."""


class RenewTask:
    """Makes one entry again.

    :param renewal: how; or why not.
    """

    def __init__(self, engine: Engine, entry: Entry, renewal: Renewal | str) -> None:
        self.url = title_of(entry)
        self._engine = engine
        self._entry = entry
        self._renewal = renewal

    def run(self, given_up: Callable[[str], None]) -> Outcome:
        """Make it, if nobody else does, under the lock of its key."""
        if isinstance(self._renewal, str):
            return Outcome(self.url, reason=self._renewal, skipped=True)
        began = time.monotonic()
        job = _watched(self._renewal.job, given_up)
        landing = self._engine.refresh_now(job, self._entry)
        seconds = time.monotonic() - began
        if landing is None or landing.is_busy:
            return Outcome(self.url, None, seconds, reason="somebody else renews it just now", skipped=True)
        if landing.error is not None:
            raise landing.error
        if landing.answer is None:
            return Outcome(self.url, None, seconds, reason="it was purged or renewed meanwhile", skipped=True)
        return self._told(landing, landing.answer, self._renewal.status_of(landing.answer), seconds)

    def _told(self, landing: RefreshResult, answer: Answer, status: int | None, seconds: float) -> Outcome:
        failed = answer.verdict in (Verdict.FAILED, Verdict.WORSE, Verdict.REFUSED)
        reason = "" if landing.stored else why_unstored(answer)
        return Outcome(self.url, status, seconds, landing.stored, reason, failed=failed)


def _watched(job: RefreshJob, given_up: Callable[[str], None]) -> RefreshJob:
    """Return a refresh that runs in a thread of its batch even if the entry is fresh, and whose end the batch waits for."""

    def give_up() -> None:
        job.given_up()
        given_up(TOO_LONG)

    return replace(
        job, pool=None, fills_missing=False, forced=True, max_wait=None, is_backing_off=lambda copy: False, given_up=give_up
    )
