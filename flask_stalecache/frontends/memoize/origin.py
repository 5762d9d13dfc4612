"""A call of a fetch function, as the engine's :class:`~flask_stalecache.engine.origin.Origin`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...core.packets.refresh_data import OriginKind
from ...core.rules.prefer_stale import preference
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Verdict
from ...core.rules.variant_index import Fields, is_variant_of
from ...core.rules.variants import Located
from ...engine.origin import Answer, Origin, RefreshJob, Start
from ...errors import OriginSuspended
from ...stats.tally import Tally
from ...stores.base import Copy
from ..app_code.hooks import ask
from ..request.caller_context import CallerContext
from .bound_function import BoundFunction
from .fetch import CallFetch, suspended_answer
from .places import CallerPlace, observed_adapter
from .policy import NO_FALLBACK


class CallOrigin(Origin):
    """One call of a fetch function.

    :param bound: the function in this app.
    :param in_background: it is made in a refresh, so that stale values are renewed and not served.
    :param renews_now: a stale value is renewed before the answer, although a visitor waits.
    :param place: the place that URLs in the value are relative to; ``None``: that of the caller.
    :ivar call_key: the key of the call, without its place.
    :ivar key: the key of the value: of the call, or of a variant for the place.
    :raises UnkeyableArgument: if an argument has no canonical form.
    """

    key: str
    terms: ServeOptions

    __slots__ = ("_located", "_place", "args", "bound", "call_key", "in_background", "key", "kwargs", "terms")

    def __init__(
        self,
        bound: BoundFunction,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        in_background: bool,
        renews_now: bool = False,
        place: CallerPlace | None = None,
    ) -> None:
        self.bound = bound
        self.args = args
        self.kwargs = kwargs
        self.key = self.call_key = bound.key(args, kwargs)
        self._located: Located | None = None
        self._place = place
        self.in_background = in_background
        #: The serving options of this call.
        self.terms = bound.in_background if in_background or renews_now else bound.terms
        if bound.asks_each and not in_background:
            self.terms = self._asked()

    def _asked(self) -> ServeOptions:
        """Return the serving options of this call, as the developer's ``prefer_stale`` decides."""
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
    def place(self) -> CallerPlace:
        """The place that URLs in the value are relative to."""
        if self._place is None:
            self._place = self.bound.places.of_caller()
        return self._place

    @property
    def fields(self) -> Fields:
        """The parts of the place in the key."""
        return () if self._located is None else self._located.fields

    @property
    def may_collapse(self) -> bool:
        """Whether other callers may wait for this call: not if its value is unlikely to be stored."""
        return self._located is None or self._located.has_room

    @property
    def begun(self) -> int | None:
        """The number of the last purge when the caller's app context began, if the call shares it; ``None`` otherwise."""
        caller = CallerContext.of(self.bound.app)
        return None if caller is None else caller.began.seq

    def relocate(self) -> bool:
        """Look up the variant, since another call may have shown that the value depends on the place."""
        before = self.key
        self._located = self.bound.places.locate(self.call_key, lambda: self.place)
        self.key = self.call_key if self._located is None else self._located.key
        return self.key != before

    def stands_for(self, key: str) -> bool:
        """Take over a key. Return false if it is neither that of the call nor that of a variant of it."""
        self.key = key
        return key == self.call_key or is_variant_of(self.call_key, key)

    def tell_caller(self) -> None:
        """Pass the parts of the place that the value depends on to the call that makes this one: its value may contain this one."""
        around = observed_adapter(self.bound.app)
        if around is not None:
            around.note(map(str, self.fields))

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
        """Call the function, unless it is suspended or too many calls of it run, and judge its value."""
        return self._fetch().answer(start, is_background=self.in_background)

    def call_uncached(self) -> Answer:
        """Call the function for this caller alone. Nothing is stored."""
        return self._fetch().answer_uncached()

    def _fetch(self) -> CallFetch:
        around = observed_adapter(self.bound.app)
        return CallFetch(self.bound, self.args, self.kwargs, self.call_key, self.label, self.place, around)

    def refresh(self, *, forced: bool = False) -> RefreshJob:
        """Return the refresh of this value. It also fills a missing one: callers that need the value wait for the refresh."""
        bound, hangs, fetch = self.bound, threading.Event(), self._fetch()
        begun = bound.suspension.seq()

        def give_up() -> None:
            # A call that hangs counts as one failure, even if it fails or succeeds later.
            hangs.set()
            bound.suspension.learn(failed=True, seq=begun)

        return RefreshJob(
            key=self.key,
            label=self.label,
            terms=bound.terms,
            tally=bound.tally,
            kind=OriginKind.CALL,
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
