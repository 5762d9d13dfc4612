"""A call of a fetch function, as the engine's :class:`~flask_stalecache.engine.origin.Origin`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...core.rules.prefer_stale import preference
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Verdict
from ...engine.origin import Answer, Origin, RefreshJob, Start
from ...errors import OriginSuspended
from ...stats.tally import Tally
from ...stores.base import Copy
from ..hooks import ask
from .bound_function import BoundFunction
from .fetch import CallFetch, suspended_answer
from .policy import NO_FALLBACK


class CallOrigin(Origin):
    """One call of a fetch function.

    :param bound: the function in this app.
    :param in_background: it is made in a refresh, so that stale values are renewed and not served.
    :param renews_now: a stale value is renewed before the answer, although a visitor waits.
    :raises UnkeyableArgument: if an argument has no canonical form.
    """

    key: str
    terms: ServeOptions

    __slots__ = ("args", "bound", "in_background", "key", "kwargs", "terms")

    def __init__(
        self,
        bound: BoundFunction,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        in_background: bool,
        renews_now: bool = False,
    ) -> None:
        self.bound = bound
        self.args = args
        self.kwargs = kwargs
        self.key = bound.key(args, kwargs)
        self.in_background = in_background
        #: The serving options of this call.
        self.terms = bound.in_background if in_background or renews_now else bound.terms
        if bound.asks_each and not in_background:
            self.terms = self._asked()

    def _asked(self) -> ServeOptions:
        """Ask the developer's ``prefer_stale``."""
        bound = self.bound
        prefers = ask(
            lambda: bool(bound.definition.policy.windows.prefer_stale(*self.args, **self.kwargs)),
            None,
            bound.complaints,
            (self.label, "prefer"),
            "the prefer_stale of %s raised: %r",
            self.label,
        )
        if prefers is None:
            return bound.terms
        return bound.terms._replace(prefer_stale=preference(prefers, bound.settings.prefer_stale_refresh))

    @property
    def label(self) -> str:
        """Its name in log lines."""
        return f"{self.bound.definition.name}()"

    @property
    def tally(self) -> Tally:
        """The counters of the function."""
        return self.bound.tally

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for the call of another caller at most."""
        return self.bound.lock_timeout

    @property
    def wait(self) -> float | None:
        """Seconds to wait for a missing or expired value at most."""
        return self.bound.definition.policy.windows.wait  # type: ignore[no-any-return]

    @property
    def runs_in_own_threads(self) -> bool:
        """Whether it runs in threads of its own: with ``wait``, its caller may stop waiting before it ends."""
        return self.wait is not None

    def refused(self, copy: Copy) -> Answer | None:
        """Return the answer to a call that is not made: the function is suspended, or the call failed a short while ago.

        Back-off does not stop a call whose caller waits and has no fallback: the third party may be up again. A failure that is
        remembered (``cache_failures``, Retry-After) does.
        """
        if self.bound.suspension.is_on():
            return suspended_answer(self.bound, self.label)
        now, note = time.time(), copy.note
        can_wait = self.in_background or self.bound.definition.policy.fallback is not NO_FALLBACK
        if not note.silent(now) and not (can_wait and note.backing_off(now)):
            return None
        left = max(note.retry_at, note.silent_until) - now
        error = OriginSuspended(f"{self.label} failed a short while ago, and is not called again for {left:.1f} s")
        return Answer(Verdict.REFUSED, error=error, retry_after=left)

    def call(self, start: Start) -> Answer:
        """Call the function, unless too many calls of it run, and judge its value."""
        return self._fetch().answer(start, is_background=self.in_background)

    def call_uncached(self) -> Answer:
        """Call the function for this caller alone: nothing of it is stored."""
        return self._fetch().answer_uncached()

    def _fetch(self) -> CallFetch:
        return CallFetch(self.bound, self.args, self.kwargs, self.key, self.label)

    def refresh(self, *, forced: bool = False) -> RefreshJob:
        """Return the refresh of this value. It also fills a missing one: callers that need the value wait for the refresh."""
        bound, hangs, fetch = self.bound, threading.Event(), self._fetch()

        def give_up() -> None:
            # A call that hangs counts as one failure, even if it fails or succeeds later.
            hangs.set()
            bound.suspension.learn(failed=True)

        return RefreshJob(
            key=self.key,
            label=self.label,
            terms=bound.terms,
            tally=bound.tally,
            fills_missing=True,
            forced=forced,
            max_wait=self.wait,
            pool=bound.pool,
            run=partial(fetch.answer, is_background=True, is_given_up=hangs.is_set),
            is_backing_off=lambda copy: self.refused(copy) is not None,
            refresh_dependencies=bound.renew,
            given_up=give_up,
            names=fetch.names,
        )
