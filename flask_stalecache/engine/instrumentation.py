"""What is told of what happens: it is counted, and signals are sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..stats.schema import eviction_reasons
from ..stats.tally import UNCOUNTED, Tally
from . import signals
from .signals import send

if TYPE_CHECKING:
    from ..core.model.entry import Entry
    from .origin import Answer, RefreshJob, Served

T = TypeVar("T")
#: Why entries were evicted, by the name of the counter.
_EVICTIONS = eviction_reasons()


class Counted(Protocol):
    """What is counted: an origin, or a refresh of one."""

    @property
    def key(self) -> str:
        """The key of what is asked for."""

    @property
    def tally(self) -> Tally:
        """Where it is counted; it may only be known once the origin was called."""


class Instrumentation:
    """Sees what happens to origins.

    :ivar sender: who sends the signals.
    """

    def __init__(self) -> None:
        self.sender: object = None

    def call_origin(self, of: Counted, call: Callable[[], Answer]) -> Answer:
        """Call an origin, and count that."""
        begun = time.perf_counter()
        try:
            answer = call()
        except BaseException as error:
            self.count_origin_call(of.key, of.tally, time.perf_counter() - begun, is_failure(error), error)
            raise
        if answer.verdict is not Verdict.REFUSED:
            tally = of.tally if answer.tally is None else answer.tally
            self.count_origin_call(of.key, tally, time.perf_counter() - begun, answer.has_failed, answer.error)
        return answer

    def call_bypassed(self, tally: Tally, call: Callable[[], T], has_failed: Callable[[T], bool], *, is_visit: bool) -> T:
        """Call what goes past the cache, and count that.

        :param is_visit: it is a visit or a call of its own.
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
                tally.served(CacheStatus.BYPASS, took)
            self.count_origin_call("", tally, took, failed, failure)
        return answer

    def count_origin_call(self, key: str, tally: Tally, seconds: float, failed: bool, error: BaseException | None) -> None:
        """Count a call of an origin, and tell of it if it failed."""
        tally.asked(seconds, failed=failed)
        if failed and tally is not UNCOUNTED:
            send(signals.origin_failed, self.sender, key=key, label=tally.label, error=error)

    def stale_served(self, of: Counted, served: Served) -> None:
        """Tell of a stale copy that is served."""
        if signals.stale_served.receivers:
            send(signals.stale_served, self.sender, key=of.key, status=served.status, entry=served.entry, label=of.tally.label)

    def entry_stored(self, entry: Entry) -> None:
        """Tell of an entry that was stored."""
        send(signals.entry_stored, self.sender, entry=entry)

    def batch_progress(self, batch: object) -> None:
        """Tell of what goes through many entries: it has moved on."""
        send(signals.scan_moved, self.sender, batch=batch)

    def counted(self, name: str, by: int) -> None:
        """Send the signal of what the store has counted, if there is one: entries were evicted."""
        if (reason := _EVICTIONS.get(name)) is not None:
            send(signals.entry_evicted, self.sender, reason=reason, count=by)

    def purged(self, *names: str, soft: bool) -> None:
        """Tell of a purge."""
        send(signals.purged, self.sender, names=names, soft=soft)

    def refreshed(self, job: RefreshJob, seconds: float, answer: Answer, retry_at: Callable[[], float]) -> None:
        """Count a refresh that has ended, and tell of it.

        :param retry_at: returns when it is tried again, in seconds since the epoch.
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
    """Whether an exception is a failure of the origin: not if it is an HTTP answer such as 404."""
    code = getattr(error, "code", None)
    return not isinstance(code, int) or code >= 500
