"""A small file beside an entry: failures so far, not before when to retry, and "can't be stored" marks. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .inputs import NO_NAMES, RequestInputs

#: Seconds for which a page that can't be stored, whoever asks, does not make its visitors queue (Varnish: hit-for-miss).
UNSTORABLE_FOR = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of a key beside its entry.

    :param written: when it was written, in seconds since the epoch; a note from the future says nothing.
    :param failures: failed calls of the origin in a row.
    :param retry_at: not before when to call it again while something can be served.
    :param silent_until: not before when to call it at all, even if nothing can be served.
    :param unstorable_until: until when nobody queues for this key.
    :param kept_out: names that kept a page from being stored; who carries one goes live without queueing.
    """

    written: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    silent_until: float = 0.0
    unstorable_until: float = 0.0
    kept_out: RequestInputs = NO_NAMES

    def backing_off(self, now: float) -> bool:
        """Whether the origin is left alone for now. A clock that stepped back ends it, so that no pause is eternal."""
        return self.written <= now < self.retry_at

    def silent(self, now: float) -> bool:
        """Whether the origin asked to be left alone, or is remembered to have failed where nothing was stored."""
        return self.written <= now < self.silent_until

    def unstorable(self, now: float) -> bool:
        """Whether the page could not be stored a short while ago, whoever asks."""
        return self.written <= now < self.unstorable_until

    def failed(
        self, now: float, backoff: tuple[float, float], stretch: float, retry_after: float = 0.0, silent_for: float = 0.0
    ) -> Note:
        """Return the note after one more failure.

        :param now: the time of the failure.
        :param backoff: the first and the longest pause in seconds; it doubles with each failure.
        :param stretch: a random number from 0 to 1: the pause is lengthened by up to a quarter.
        :param retry_after: seconds that the pause lasts at least.
        :param silent_for: seconds for which it is not called at all.
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
        """Return the note after an answer that was no failure of the origin's own, and no better than what is stored.

        :param pause: seconds after which it is worth calling it again.
        """
        return replace(self, written=now, retry_at=now + pause)

    def marked_unstorable(self, now: float) -> Note:
        """Return the note after an answer that can't be stored whoever asks. The origin answered, so failures are over."""
        return Note(written=now, unstorable_until=now + UNSTORABLE_FOR, kept_out=self.kept_out)

    def marked_personal(self, now: float, carried: RequestInputs) -> Note:
        """Return the note after an answer that can't be stored only because of what its request carried."""
        return Note(written=now, kept_out=self.kept_out | carried)


NOTHING = Note()
