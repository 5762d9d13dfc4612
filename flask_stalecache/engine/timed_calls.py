"""Origins that are called in threads of their own, for callers who wait so long and no longer."""

from __future__ import annotations

import time
from typing import Protocol

from ..core.model.note import NOTHING
from ..core.rules.storability import Verdict
from ..errors import OriginBusy, OriginTimeout
from ..stores.base import Copy, Store
from .background import ProcessState, RefreshResult
from .fetch_state import POLL, FetchState
from .origin import Answer, Origin, Served


class Driver(Protocol):
    """What looks at what is stored, and serves it: the engine."""

    store: Store
    process: ProcessState

    def look_again(self, visit: FetchState) -> Served | None:
        """Serve what is stored by now; ``None``: it is still to be fetched."""

    def bypass(self, origin: Origin) -> Answer:
        """Call the origin for one visitor alone."""

    def serve_answer(self, visit: FetchState, answer: Answer, stored: bool) -> Served:
        """Serve the origin's answer; or, if it failed and the copy may stand in for it, the copy."""


class TimedCalls:
    """Has origins called apart from who asks.

    :param engine: the driver.
    """

    def __init__(self, engine: Driver) -> None:
        self._engine = engine

    def call(self, visit: FetchState, wait: float) -> Served:
        """Have the origin called in a thread of its own, and wait for that a while: counted from when it was handed over."""
        process, origin = self._engine.process, visit.origin
        if process.flights.is_led_here(origin.key):
            return Served(visit.fetch.status, None, self._engine.bypass(origin))
        refreshes, ours = process.refreshes, None
        landing, until = refreshes.landing(origin.key), refreshes.since(origin.key) + wait
        while True:
            if (served := self._outcome(visit, landing, is_ours=landing is ours)) is not None:
                return served
            # Again where another process has it, and where what it brought is for who handed it over alone.
            if landing is None or landing.done.is_set():
                if refreshes.claim(visit.copy):
                    until = until if ours is not None else refreshes.since(origin.key) + wait
                    landing = ours = refreshes.landing(origin.key)
                    if not refreshes.submit(origin.refresh()):
                        return self._engine.serve_answer(visit, _busy(origin), stored=False)
                    # Where no threads run it is done by now.
                    if (served := self._outcome(visit, landing, is_ours=True)) is not None:
                        return served
                else:
                    landing = refreshes.landing(origin.key)
            left = until - time.monotonic()
            if left <= 0:
                return self._engine.serve_answer(visit, _too_late(origin, wait), stored=False)
            visit.waited = visit.waited or landing is not ours
            if landing is not None and not landing.done.is_set():
                landing.done.wait(min(POLL, left))
            else:
                process.flights.wait(origin.key, min(POLL, left))

    def unqueued(self, visit: FetchState) -> Served:
        """Call an origin for one caller alone: what it answers can't be stored, and is nobody else's."""
        origin, wait = visit.origin, visit.origin.wait or 0.0
        landing = self._engine.process.refreshes.call_apart(origin.refresh(), visit.copy)
        if landing is None:
            return self._engine.serve_answer(visit, _busy(origin), stored=False)
        landing.done.wait(wait)
        return self._engine.serve_answer(visit, landing.answer or _too_late(origin, wait), stored=False)

    def _outcome(self, visit: FetchState, landing: RefreshResult | None, *, is_ours: bool) -> Served | None:
        """Serve what a call brought, or what is stored by now; ``None``: nothing yet, or what is for who handed it over alone."""
        answer = landing.answer if landing is not None and landing.done.is_set() else None
        is_storable = answer is not None and answer.verdict is Verdict.STORABLE
        if answer is not None and (answer.verdict.is_failure or (is_ours and not is_storable)):
            return self._engine.serve_answer(visit, answer, stored=False)
        # A purge may have come since it was begun.
        if self._engine.store.moved(visit.copy) and (served := self._engine.look_again(visit)) is not None:
            return served
        if answer is None or not is_storable:
            return None
        if answer.entry is not None and not is_ours:
            # Nobody's own value is shared; what would have been stored makes one for each.
            return Served(visit.fetch.status, Copy(visit.origin.key, answer.entry, NOTHING, 0, 0), collapsed=True)
        return self._engine.serve_answer(visit, answer, stored=False)


def _busy(origin: Origin) -> Answer:
    return Answer(Verdict.REFUSED, error=OriginBusy(f"{origin.label}: as many calls run as max_concurrency allows"))


def _too_late(origin: Origin, wait: float) -> Answer:
    return Answer(Verdict.REFUSED, error=OriginTimeout(f"{origin.label}: no answer within {wait:g} s"))
