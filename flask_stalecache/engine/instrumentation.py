"""Instrumentation: updates counters and sends signals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..core.model.reasons import BypassReason
from ..core.model.work import Work
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..stats.schema import eviction_reasons
from ..stats.tally import UNCOUNTED, Tally
from . import signals
from .scheduling.lane import Lane
from .scheduling.meter import Meter
from .signals import send

if TYPE_CHECKING:
    from ..core.model.entry import Entry
    from .log import RateLimitedLog
    from .origin import Answer, Origin, RefreshJob, Served

T = TypeVar("T")
#: The least time of computing, in seconds, that is logged.
WORTH_SAYING = 0.25
logger = logging.getLogger("flask_stalecache")
#: The reasons for evictions, by the name of their counter.
_EVICTIONS = eviction_reasons()


class Counted(Protocol):
    """A call to count: of an origin, or by a refresh."""

    @property
    def key(self) -> str:
        """The key of the entry."""

    @property
    def tally(self) -> Tally:
        """The counters of the call. Some origins know them only after the call."""


class Instrumentation:
    """Counts calls of origins, and sends the signals.

    :param lane: the lane of refreshes that compute.
    :param complaints: logs endpoints that compute; ``None``: nothing is logged.
    :ivar sender: the sender of the signals.
    """

    def __init__(self, lane: Lane | None = None, complaints: RateLimitedLog | None = None) -> None:
        self.lane = Lane(None) if lane is None else lane
        self.complaints = complaints
        self.sender: object = None

    def call_origin(self, of: Counted, call: Callable[[], Answer], meter: Meter | None = None) -> Answer:
        """Call an origin, and count the call.

        :param meter: measures it.
        """
        begun, meter = time.perf_counter(), Meter() if meter is None else meter
        gently = self.lane.gently() if of.tally.computes else nullcontext()
        try:
            with gently, meter:
                answer = call()
        except BaseException as error:
            self.count_origin_call(of.key, of.tally, time.perf_counter() - begun, is_failure(error), error)
            raise
        if answer.verdict is not Verdict.REFUSED:
            tally = of.tally if answer.tally is None else answer.tally
            self._note_work(tally, meter.work())
            self.count_origin_call(of.key, tally, time.perf_counter() - begun, answer.has_failed, answer.error)
        return answer

    def _note_work(self, tally: Tally, work: Work) -> None:
        """Count a call that has computed, and log the remedy once for each endpoint."""
        if tally is UNCOUNTED:
            return
        tally.computes = work.computes
        if not work.computes:
            return
        tally.computed(work.seconds)
        if work.seconds >= WORTH_SAYING and self.lane.has_visitors and self.complaints is not None:
            self.complaints.warn_once(
                ("computes", tally.label),
                "%s computes, for %.1f s when it was last made, which slows down the visitors of this process: let a process of "
                "its own refresh it (flask stalecache worker)",
                tally.label or "the app",
                work.seconds,
            )

    def call_bypassed(
        self, tally: Tally, call: Callable[[], T], has_failed: Callable[[T], bool], why: BypassReason, *, is_visit: bool = True
    ) -> T:
        """Make a call that bypasses the cache, and count it.

        :param why: the reason for the bypass.
        :param is_visit: it also counts as a request.
        """
        begun, failed = time.perf_counter(), True
        failure: BaseException | None = None
        try:
            answer = call()
            failed = has_failed(answer)
        except BaseException as error:
            failure, failed = error, is_failure(error)
            raise
        finally:
            took = time.perf_counter() - begun
            if is_visit:
                tally.served(CacheStatus.BYPASS, took, why=why)
            self.count_origin_call("", tally, took, failed, failure)
        return answer

    def count_origin_call(self, key: str, tally: Tally, seconds: float, failed: bool, error: BaseException | None) -> None:
        """Count a call of an origin, and send a signal if it failed."""
        tally.asked(seconds, failed=failed)
        if failed and tally is not UNCOUNTED:
            send(signals.origin_failed, self.sender, key=key, label=tally.label, error=error)

    def notes_each_stale_hit(self) -> bool:
        """Whether each stale hit has to be reported, to a receiver of its signal or to the debug log."""
        return bool(signals.stale_served.receivers) or logger.isEnabledFor(logging.DEBUG)

    def stale_served(self, of: Counted, served: Served) -> None:
        """Send the signal of a stale copy that is served."""
        if signals.stale_served.receivers:
            send(signals.stale_served, self.sender, key=of.key, status=served.status, entry=served.entry, label=of.tally.label)

    def entry_stored(self, entry: Entry) -> None:
        """Send the signal of an entry that was stored."""
        send(signals.entry_stored, self.sender, entry=entry)

    def batch_progress(self, batch: object) -> None:
        """Send the signal of a batch that has progressed."""
        send(signals.scan_moved, self.sender, batch=batch)

    def counted(self, name: str, by: int) -> None:
        """Send a signal if the counter is one of evictions."""
        if (reason := _EVICTIONS.get(name)) is not None:
            send(signals.entry_evicted, self.sender, reason=reason, count=by)

    def purged(self, *names: str, soft: bool) -> None:
        """Send the signal of a purge."""
        send(signals.purged, self.sender, names=names, soft=soft)

    def refreshed(self, job: RefreshJob, seconds: float, answer: Answer, retry_at: Callable[[], float]) -> None:
        """Count a refresh that has ended, and send its signal.

        :param retry_at: returns when the next try is due, in seconds since the epoch. Called only if the signal has a receiver.
        """
        if answer.verdict is Verdict.REFUSED:
            return
        tally = job.tally if answer.tally is None else answer.tally
        failed = answer.verdict.keeps_copy
        tally.refreshed(seconds, failed=failed)
        if not failed:
            send(signals.refresh_done, self.sender, key=job.key, label=tally.label, seconds=seconds)
        elif signals.refresh_failed.receivers:
            send(signals.refresh_failed, self.sender, key=job.key, label=tally.label, error=answer.error, retry_at=retry_at())


def is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure of the origin. An HTTP answer such as 404 is not."""
    code = getattr(error, "code", None)
    return not isinstance(code, int) or code >= 500


def log_served(origin: Origin, served: Served) -> None:
    """Log how a request was served. Not called for plain hits: the check alone would slow them down."""
    logger.debug("%s: %s (%s)", origin.label, _how(served), served.status)


def _how(served: Served) -> str:
    if served.collapsed:
        return "the request waited for another call, and is served its result"
    if served.answer is None:
        return "the stored copy is served"
    if served.stored:
        return "the answer is served and was stored"
    if served.answer.later is not None:
        return "the answer is served, and stored when its body is complete"
    return f"the answer is served and was not stored: {served.answer.log_text}"
