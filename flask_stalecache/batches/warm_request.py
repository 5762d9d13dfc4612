"""The record of a warming request, in which front ends note how they answered it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.model.environ import WARMING
from ..core.rules.serving import ServeOptions
from ..core.rules.status import CacheStatus
from ..engine.origin import Answer, Served
from ..errors import StaleCacheError

FRESH = "it is fresh already"
_BACKING_OFF = "it failed a short while ago, and is not tried again yet"


class Warming:
    """The record of one warming request. It is in the environ, under :data:`WARMING`.

    :param force: refresh fresh entries too.
    :ivar is_met: a cached view was reached. Cached views that this view calls do not write to the record.
    :ivar is_fresh: the entry was fresh, and was not refreshed.
    :ivar is_backing_off: the entry was not refreshed, because an earlier refresh failed recently.
    :ivar stored: the response is stored now.
    :ivar failed: the origin failed.
    :ivar reason: why the response was not stored; "" if it was, or if no front end gave a reason.
    :ivar later: returns whether the response was stored, once its body is complete.
    """

    __slots__ = ("_answer", "failed", "force", "is_backing_off", "is_fresh", "is_met", "later", "reason", "stored")

    def __init__(self, force: bool) -> None:
        self.force = force
        self.is_met = False
        self.is_fresh = False
        self.is_backing_off = False
        self.stored = False
        self.failed = False
        self.reason = ""
        self.later: Callable[[], bool] | None = None
        self._answer: Answer | None = None

    def terms(self, terms: ServeOptions) -> ServeOptions:
        """Return the serve options for this request, which waits for the refresh of a stale entry."""
        return (terms.reloading() if self.force else terms)._replace(wait_for_fresh=True)

    def note_answer(self, answer: Answer) -> None:
        """Record the origin's answer. If it failed, the request itself may be answered with a stored copy."""
        self._answer = answer

    def note_bypass(self, reason: str) -> None:
        """Record that the request bypassed the cache."""
        self.reason = reason

    def note(self, served: Served) -> None:
        """Record how the request was answered."""
        answer = served.answer or self._answer
        self.is_fresh = served.answer is None and served.status is CacheStatus.HIT
        self.stored = self.is_fresh or served.stored or (served.collapsed and served.answer is None)
        if self.stored:
            self.reason = FRESH if self.is_fresh else ""
        elif answer is None:
            self.is_backing_off, self.reason = True, _BACKING_OFF
        else:
            self.failed = answer.verdict.keeps_copy or answer.verdict.is_failure
            self.reason = why_unstored(answer)


def why_unstored(answer: Answer) -> str:
    """Return why an answer was not stored. For a failure, this is the error."""
    if isinstance(answer.error, StaleCacheError):
        return str(answer.error)
    return answer.why_not_stored.text if answer.error is None else repr(answer.error)


def warming_of(environ: Mapping[str, Any]) -> Warming | None:
    """Return the record of a warming request, or ``None`` for other requests."""
    return environ.get(WARMING)
