"""The seam between the engine and the front ends.

A front end turns each request or call into an :class:`Origin` and gives it to ``Engine.serve``. The engine knows neither Flask nor
HTTP; the origin knows neither locks nor the store. The life of a request:

1. The engine looks the key up. A fresh copy is served at once: this is the hit path, without a lock or a system call.
2. Otherwise it decides (``core.rules.serving``): serve the copy and refresh it, or call the origin.
3. One request leads the flight of the key; the others wait for it. The leader has a :class:`Start` and calls :meth:`Origin.call`.
4. The origin returns an :class:`Answer`: the value to send, and a verdict on storing it. ``answer_writer`` writes it.
5. The engine returns :class:`Served`: a copy or an answer. The front end sends it, and submits the :class:`RefreshJob` of
   :meth:`Origin.refresh` when the response is closed, if ``Served.refresh`` is set.

=================== ================ ==================================================
class               made by          for
=================== ================ ==================================================
:class:`Origin`     front end        one request
:class:`Start`      engine           one call of the origin, before it
:class:`Answer`     front end        one call of the origin, after it
:class:`Served`     engine           one request: what to send
:class:`RefreshJob` front end        one refresh
=================== ================ ==================================================

Only :meth:`Origin.call` and :meth:`Origin.call_uncached` do I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from ..core.model.entry import Entry
from ..core.model.inputs import NO_NAMES, RequestInputs
from ..core.model.reasons import MissReason, Reason, Refusal, StoreRefusal, reason_of_names
from ..core.packets.refresh_data import OriginKind
from ..core.rules.serving import Serve, ServeOptions, decide
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..core.rules.variant_index import Fields
from ..errors import StoreError
from ..stats.tally import UNCOUNTED, Tally
from ..stores.base import Copy
from .flights.latch import Latch
from .flights.stream_pace import StreamPace
from .scheduling.meter import Meter
from .scheduling.thread_pool import ThreadPool

#: Refusals of answers that depend on names in their requests, whether the text states these names or not.
_OF_NAMES = frozenset({StoreRefusal.MADE_FOR_VISITOR, StoreRefusal.READ_BY, StoreRefusal.DEPENDS_ON})


def _tell_nobody(fields: Fields) -> None:
    pass


#: For calls that are not measured.
NOT_MEASURED = Meter()


class Start(NamedTuple):
    """The facts of one call, recorded before the origin is called.

    :ivar seq: the number of the last purge. An answer is not stored if something was purged since.
    :ivar started: the beginning of the call, in seconds since the epoch.
    :ivar serial: a random identifier of this call and its entry.
    :ivar previous: the entry that is stored now.
    :ivar is_marked: the answer is unlikely to be stored, for anyone or for requests like this one: by the key's note, by a mark of
        this process, or as the front end knows.
    :ivar is_lasting: an answer could not be stored, however long ago, for a reason that is likely to last, and none was stored
        since.
    :ivar called: the beginning of the call, in seconds since the start of the machine.
    :ivar depends_on: called with the selectors in the key of the answer, as soon as they are known.
    :ivar meter: measures the call.
    """

    seq: int
    started: float
    serial: str
    previous: Entry | None
    is_marked: bool = False
    is_lasting: bool = False
    called: float | None = None
    depends_on: Callable[[Fields], object] = _tell_nobody
    meter: Meter = NOT_MEASURED

    def build_entry(self, options: ServeOptions, **content: Any) -> Entry:
        """Build an entry from the answer to this call.

        All entries for the store are built here, so that all front ends fill in the fields of the call in the same way.

        :param options: the serving options, which contain the version of the app.
        :param content: the fields of :class:`Entry` that are the front end's own.
        """
        return Entry(**content, **self._call_fields(options))

    def renew_entry(self, previous: Entry, options: ServeOptions, **content: Any) -> Entry:
        """Build an entry from one that the origin has confirmed, with the fields that have changed."""
        return replace(previous, ended=False, **content, **self._call_fields(options))

    def _call_fields(self, options: ServeOptions) -> dict[str, Any]:
        return {
            "serial": self.serial,
            "seq": self.seq,
            "started": self.started,
            "called": self.called,
            "work": self.meter.work(),
            "version": options.version,
            "deployed": options.deployed,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an origin, with a verdict on storing it.

    :param verdict: whether it may be stored, and why not.
    :param value: the answer in the front end's own form, such as a response.
    :param error: the exception, if the origin raised one.
    :param entry: the entry to store.
    :param carried: the names in the request that the answer depends on, if it is personal.
    :param anybodys: every request without the ``absent`` names would get the same answer, so that waiters may share a failure.
    :param shared: the value of a failure for the waiters. It is frozen, since hooks change ``value`` itself.
    :param bare: likewise, without anything that the origin may have made for one visitor.
    :param asked: the request that failed, as the front end compares requests. Set if only requests like it may share the failure.
    :param absent: names that were read and that the request did not carry.
    :param retry_after: seconds of back-off at least, while an entry can be served.
    :param silent_for: seconds of back-off at least, even if no entry can be served.
    :param renewed: the origin has confirmed the stored entry (304).
    :param beside: an index entry to store too, if the entry has another key than the request.
    :param later: registers a callback for a body that is still to come. The callback gets the complete answer, or ``None`` if the
        body was cut short. ``None``: the answer is complete.
    :param pace: how fast the client reads a body that is still to come.
    :param failed: the origin failed, for answers that are never stored.
    :param reason: why it is not stored, if the front end gives a reason.
    :param tally: the counters of the refresh, if only its answer determines them.
    :param names: the names by which the memory of a failure is purged, if no entry with names is stored.
    """

    verdict: Verdict
    value: Any = None
    error: BaseException | None = None
    entry: Entry | None = None
    carried: RequestInputs = NO_NAMES
    anybodys: bool = True
    shared: Any = None
    bare: Any = None
    asked: Any = None
    absent: RequestInputs = NO_NAMES
    retry_after: float | None = None
    silent_for: float | None = None
    renewed: bool = False
    beside: Entry | None = None
    later: Callable[[Callable[[Answer | None], object]], None] | None = None
    pace: StreamPace | None = None
    failed: bool = False
    reason: Refusal | None = None
    tally: Tally | None = None
    names: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the origin failed."""
        return self.failed or self.verdict is Verdict.FAILED

    @property
    def may_be_shared(self) -> bool:
        """Whether requests that waited may be given this failure, unless something in them differs."""
        if self.verdict is Verdict.REFUSED:
            return True
        return self.anybodys and (self.error is not None or self.shared is not None)

    @property
    def log_text(self) -> str:
        """The reason, the error or the verdict, for the debug log."""
        if self.reason is not None:
            return self.reason.text
        return self.verdict.value if self.error is None else repr(self.error)

    @property
    def why_not_stored(self) -> Refusal:
        """Why it was not stored. Only for answers that were not."""
        if self.reason is not None:
            return self.reason
        if self.error is not None:
            is_called = self.verdict is not Verdict.REFUSED
            return Refusal(StoreRefusal.RAISED if is_called else StoreRefusal.NOT_CALLED, type(self.error).__name__)
        if self.later is not None:
            return Refusal(StoreRefusal.STILL_TO_COME)
        if self.verdict is Verdict.STORABLE:
            return Refusal(StoreRefusal.NOT_WRITTEN)
        if self.carried:
            return Refusal(StoreRefusal.DEPENDS_ON, self.carried.text)
        return Refusal(StoreRefusal.FAILED if self.has_failed else StoreRefusal.FOR_THIS_REQUEST)

    @property
    def counted_reason(self) -> StoreRefusal:
        """The reason under which the counters record that it was not stored. For names, it depends on their kind."""
        reason = self.why_not_stored.reason
        return reason_of_names(self.carried) if self.carried and reason in _OF_NAMES else reason

    @property
    def why_no_hit(self) -> Reason:
        """Why a request with this complete answer was not answered from the store."""
        return MissReason.NOTHING_STORED if self.verdict is Verdict.STORABLE else self.counted_reason


class Origin(Protocol):
    """A cached view, fetch function, app or third party, for one request or call.

    Front ends inherit from it. The members up to ``refresh`` have no default. The others are optional.
    """

    __slots__ = ()

    @property
    def key(self) -> str:
        """The key of the entry."""

    @property
    def label(self) -> str:
        """Its name in log lines."""

    @property
    def tally(self) -> Tally:
        """The counters of the origin. The engine reads them after the call, since some front ends do not know them before."""

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait at most for another caller's call."""

    @property
    def terms(self) -> ServeOptions:
        """The serving options of this request."""

    def call(self, start: Start) -> Answer:
        """Call the origin and judge its answer. Exceptions of the origin are part of the answer."""

    def call_uncached(self) -> Answer:
        """Call the origin for this request alone. Nothing is stored."""

    def refresh(self) -> RefreshJob:
        """Return the background refresh of the entry."""

    @property
    def wait(self) -> float | None:
        """Seconds to wait at most for a refresh if a copy can be served instead; ``None``: no limit."""
        return None

    @property
    def runs_in_own_threads(self) -> bool:
        """Whether it is only called in threads of its own, never in the caller's. If so, it has a ``wait``."""
        return False

    @property
    def may_collapse(self) -> bool:
        """Whether it may wait for the call of another request, and other requests for its call."""
        return True

    @property
    def begun(self) -> int | None:
        """The number of the last purge when the caller's context began, if its call counts as begun then; ``None`` otherwise."""
        return None

    @property
    def min_uses(self) -> int:
        """The number of requests for a key that it takes until an answer is stored."""
        return 1

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry can't be served to this request: it carries a name that was absent when the entry was made."""
        return False

    def barred_by(self, entry: Entry) -> RequestInputs:
        """Return the names because of which an entry can't be served to this request."""
        return NO_NAMES

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these names."""
        return False

    def share_of(self, failure: Answer, *, again: bool) -> Answer | None:
        """Return the failure of another request in the form that this request may get; ``None`` if it may not get it.

        :param again: this request has met a failure before.
        """
        return failure if failure.may_be_shared and not self.carries(failure.absent) else None

    def relocate(self) -> bool:
        """Compute the key again, since more variants may be stored now. Return whether it has changed."""
        return False

    def key_by(self, fields: Fields) -> str | None:
        """Return the key of the first answer to such requests, now that the selectors that distinguish them are known.

        ``None`` if the URL has an entry already, from which requests get the selectors.

        :param fields: the selectors.
        """
        return None

    def refused(self, copy: Copy) -> Answer | None:
        """Return an answer with the reason why the origin is not called now; ``None``: it may be called."""
        return None


def _never(copy: Copy) -> bool:
    return False


def _nothing_to_refresh(keys: tuple[str, ...]) -> None:
    pass


def _nothing_to_give_up() -> None:
    pass


def _no_names() -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshJob:
    """One refresh. It holds no part of the visitor's request, unless its ``kind`` is ``None``.

    The fields up to ``max_wait`` are plain data. The others are a thread pool and callables of the front end. Another process makes
    a new job from the stored entry.

    :param key: the key of the entry.
    :param label: its name in log lines.
    :param terms: the serving options for any visitor. They determine whether the entry is due.
    :param tally: its counters, unless its answer names others.
    :param kind: the front end, if another process can make the job from the entry alone; ``None``: only this process can, since
        the job has request fields of a visitor.
    :param fills_missing: it also runs if nothing is stored.
    :param forced: it runs even if the entry is fresh or is backing off.
    :param max_wait: seconds that a caller waits for it. If set, it only runs in the threads of its own pool. ``None``: no limit.
    :param pool: the thread pool that runs it; ``None``: the pool for pages.
    :param run: calls the origin and judges its answer. Exceptions of the origin are part of the answer.
    :param is_backing_off: whether a copy's origin must not be called now, even if no entry can be served instead.
    :param refresh_dependencies: refreshes the stale values among the given keys, and waits for them. They are the values of fetch
        functions that the entry was made from.
    :param given_up: called when the refresh has passed its deadline. It may still be running.
    :param names: returns the names by which the memory of a failure is purged, for a failure without an answer.
    """

    key: str
    label: str
    terms: ServeOptions
    tally: Tally = UNCOUNTED
    kind: OriginKind | None = None
    fills_missing: bool = False
    forced: bool = False
    max_wait: float | None = None
    pool: ThreadPool | None = None
    run: Callable[[Start], Answer]
    is_backing_off: Callable[[Copy], bool] = _never
    refresh_dependencies: Callable[[tuple[str, ...]], object] = _nothing_to_refresh
    given_up: Callable[[], object] = _nothing_to_give_up
    names: Callable[[], tuple[str, ...]] = _no_names


class RefreshResult:
    """The result of a refresh, for waiting requests. All fields are set before ``done``.

    :ivar answer: the origin's answer; ``None`` if it was not called or has not answered yet.
    :ivar stored: whether the answer was stored.
    :ivar is_busy: another thread or process was refreshing the key.
    :ivar error: the error of the store, if it failed.
    :ivar waiting: a request waits for it, and gets a failure itself, so that the failure need not be logged.
    """

    __slots__ = ("answer", "done", "error", "is_busy", "stored", "waiting")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.stored = False
        self.is_busy = False
        self.error: StoreError | None = None
        self.waiting = False
        self.done = Latch()


class Served(NamedTuple):
    """How to answer a request: from a copy, or with the origin's own answer.

    :ivar copy: the stored copy; served unless there is an answer.
    :ivar answer: the origin's answer.
    :ivar refresh: this request submits the refresh of the copy when its response is closed.
    :ivar stored: the answer was stored.
    :ivar collapsed: it is the result of another request's call.
    :ivar waited: the request waited for another request's call, with or without success.
    :ivar took: seconds until there was something to serve; ``None`` for a copy in memory that is fresh, or served by a standing
        decision, to save reading the clock.
    """

    status: CacheStatus
    copy: Copy | None = None
    answer: Answer | None = None
    refresh: bool = False
    stored: bool = False
    collapsed: bool = False
    waited: bool = False
    took: float | None = None

    @property
    def entry(self) -> Entry | None:
        """The stored entry that the request is answered with, if any."""
        if self.answer is not None:
            return self.answer.entry
        return None if self.copy is None else self.copy.entry

    def why_no_hit(self, terms: ServeOptions) -> Reason | None:
        """Return why the request was not answered from the store; ``None`` if it was, or if that depends on the rest of the body.

        :param terms: the serving options of the request.
        """
        answer = self.answer
        if answer is None:
            return MissReason.WAITED if self.collapsed else None
        if answer.later is not None:
            return None
        if not self.stored and not answer.renewed:
            return answer.counted_reason
        if self.status is CacheStatus.REVALIDATED:
            return MissReason.CONFIRMED
        if self.status is not CacheStatus.EXPIRED:
            return MissReason.NOTHING_STORED
        return MissReason.RENEWED if terms.renews or terms.reload else MissReason.TOO_OLD


def is_served(origin: Origin, copy: Copy) -> bool:
    """Whether the copy may be served as it is, for ``only-if-cached`` (RFC 9111 section 5.2.1.7)."""
    if copy.entry is not None and origin.is_barred_from(copy.entry):
        return False
    return isinstance(decide(copy.entry, copy.note, time.time(), origin.terms, pending=False), Serve)
