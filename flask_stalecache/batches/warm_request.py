"""A request that fills what is not stored, on its way through the app: where front ends note how they answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.model.environ import WARMING
from ..core.rules.serving import ServeOptions
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..engine.origin import Answer, Served
from ..errors import StaleCacheError

FRESH = "it is fresh already"
_LEFT_ALONE = "it has failed a short while ago, and is left alone until it may be tried again"


class Warming:
    """What becomes of one such request. It is in the environ, under :data:`WARMING`.

    :param force: what is fresh is made again too.
    :ivar is_met: a cached view has been reached; one that it calls itself has no part in this.
    :ivar is_fresh: it was left as it is, since it is fresh.
    :ivar is_left_alone: it was not made, since it has failed a short while ago.
    :ivar stored: it is stored now.
    :ivar failed: it could not be made.
    :ivar reason: why it was not stored; "" if it was, or if nobody has said anything.
    :ivar later: says whether it was stored, once all of its body has come.
    """

    __slots__ = ("_answer", "failed", "force", "is_fresh", "is_left_alone", "is_met", "later", "reason", "stored")

    def __init__(self, force: bool) -> None:
        self.force = force
        self.is_met = False
        self.is_fresh = False
        self.is_left_alone = False
        self.stored = False
        self.failed = False
        self.reason = ""
        self.later: Callable[[], bool] | None = None
        self._answer: Answer | None = None

    def terms(self, terms: ServeOptions) -> ServeOptions:
        """Return what is said of serving what is stored to this request: what is stale is made again while it waits."""
        return (terms.reloading() if self.force else terms)._replace(in_line=True)

    def note_answer(self, answer: Answer) -> None:
        """Note what the origin has answered: where that failed, a copy may be served in its place."""
        self._answer = answer

    def note_live(self, reason: str) -> None:
        """Note that it went past the store."""
        self.reason = reason

    def note(self, served: Served) -> None:
        """Note how it is answered."""
        answer = served.answer or self._answer
        self.is_fresh = served.answer is None and served.status is CacheStatus.HIT
        self.stored = self.is_fresh or served.stored or (served.collapsed and served.answer is None)
        if self.stored:
            self.reason = FRESH if self.is_fresh else ""
        elif answer is None:
            self.is_left_alone, self.reason = True, _LEFT_ALONE
        else:
            self.failed = answer.verdict in (Verdict.FAILED, Verdict.WORSE, Verdict.REFUSED)
            self.reason = why_unstored(answer)


def why_unstored(answer: Answer) -> str:
    """Return why an answer was not stored: of one that failed, what it failed with."""
    if isinstance(answer.error, StaleCacheError):
        return str(answer.error)
    return answer.why_not_stored.text if answer.error is None else repr(answer.error)


def warming_of(environ: Mapping[str, Any]) -> Warming | None:
    """Return what a request fills, if that is what it is for."""
    return environ.get(WARMING)
