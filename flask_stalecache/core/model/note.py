"""The back-off state and the hit-for-miss mark of a key. Pure.

:meth:`Note.failed` is the only place with the exponential back-off. Other pauses are constant: the one after an answer that is no
better than the stored entry (:meth:`Note.put_off`), and the one of a suspended fetch function.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

from .inputs import NO_NAMES, RequestInputs

#: Seconds for which requests do not queue for a page that could not be stored (Varnish: hit-for-miss).
UNSTORABLE_FOR = 10.0


class Lasting(IntEnum):
    """The cause that is likely to keep the answers for a key out of the store for long."""

    NOTHING = 0
    #: Code, rules or response fields forbid it: a confirmation shows when they no longer do.
    FIELDS = 1
    #: The whole answer is too large: only an answer that states its size can show that it no longer is.
    SIZE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The failures of an origin and the marks of its key, stored next to the entry.

    :param written: when it was written, in seconds since the epoch. A note from the future is ignored.
    :param failures: failed calls of the origin in a row.
    :param retry_at: the earliest time of the next call while an entry can be served.
    :param silent_until: the earliest time of the next call even if no entry can be served.
    :param unstorable_until: until then, requests for this key do not queue.
    :param lasts: why an answer could not be stored, if that is likely to last. Until an answer can be stored, conditions and
        ranges of requests are sent to the origin unchanged.
    :param kept_out: names that kept an answer out of the store. A request with one of them bypasses the queue.
    :param names: the names by which the note is purged, like an entry.
    :param seq: the last purge number when it was written. A later hard purge of one of the names ends it.
    """

    written: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    silent_until: float = 0.0
    unstorable_until: float = 0.0
    lasts: Lasting = Lasting.NOTHING
    kept_out: RequestInputs = NO_NAMES
    names: tuple[str, ...] = field(default=(), compare=False)
    seq: int = field(default=0, compare=False)

    def backing_off(self, now: float) -> bool:
        """Whether the next call has to wait. A clock that stepped back ends the pause, so that no pause lasts forever."""
        return self.written <= now < self.retry_at

    def silent(self, now: float) -> bool:
        """Whether the origin must not be called: it sent Retry-After, or its failure is cached."""
        return self.written <= now < self.silent_until

    def pause_left(self, now: float) -> float:
        """Return the seconds until the next call of the origin; 0 if it need not wait."""
        return self.retry_at - now if self.backing_off(now) else 0.0

    def unstorable(self, now: float) -> bool:
        """Whether the last answer could not be stored, a short while ago."""
        return self.written <= now < self.unstorable_until

    def failed(
        self, now: float, backoff: tuple[float, float], stretch: float, retry_after: float = 0.0, silent_for: float = 0.0
    ) -> Note:
        """Return the note after one more failure.

        :param now: the time of the failure.
        :param backoff: the first and the longest pause in seconds. The pause doubles with each failure.
        :param stretch: a random number from 0 to 1, which lengthens the pause by up to a quarter, so that processes retry at
            different times.
        :param retry_after: the least pause, in seconds.
        :param silent_for: seconds without any call.
        """
        first, longest = backoff
        # 2.0**1000 is still a float; the exponent is bounded only so that a year of failures can't overflow it.
        pause = min(longest, first * 2.0 ** min(self.failures, 1000)) * (1 + stretch / 4)
        return replace(
            self,
            written=now,
            failures=self.failures + 1,
            retry_at=now + max(pause, retry_after),
            silent_until=now + silent_for,
        )

    def put_off(self, now: float, pause: float) -> Note:
        """Return the note after an answer that is no failure, and no better than the stored entry.

        :param pause: seconds until the next call.
        """
        return replace(self, written=now, retry_at=now + pause)

    def marked_unstorable(self, now: float, *, lasts: Lasting = Lasting.NOTHING) -> Note:
        """Return the note after an answer that can't be stored for any visitor. The origin answered, which ends its failures.

        :param lasts: the reason, if it is likely to last.
        """
        return replace(self._answered(now), unstorable_until=now + UNSTORABLE_FOR, lasts=lasts or self.lasts)

    def marked_personal(self, now: float, carried: RequestInputs) -> Note:
        """Return the note after an answer that can't be stored because of names that its request carried."""
        return replace(self._answered(now), kept_out=self.kept_out | carried, lasts=self.lasts)

    def marked_storable(self, now: float) -> Note:
        """Return the note after a part of an answer, or a confirmation, if the whole answer could be stored."""
        return self._answered(now)

    def _answered(self, now: float) -> Note:
        return replace(NOTHING, written=now, kept_out=self.kept_out, names=self.names)


NOTHING = Note()
