"""The seam between the engine and what is cached: an :class:`Origin`, its :class:`Answer`, and how a request is :class:`Served`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from ..core.model.entry import Entry
from ..core.model.inputs import NO_NAMES, RequestInputs
from ..core.model.reasons import Refusal, StoreRefusal
from ..core.rules.serving import Serve, ServeOptions, decide
from ..core.rules.status import CacheStatus
from ..core.rules.storability import Verdict
from ..errors import StoreError
from ..stats.tally import UNCOUNTED, Tally
from ..stores.base import Copy
from .thread_pool import ThreadPool


class Start(NamedTuple):
    """What is noted before an origin is called.

    :ivar seq: the last purge number.
    :ivar started: seconds since the epoch.
    :ivar serial: the random name of this fill.
    :ivar previous: what is stored now.
    :ivar is_marked: what came last could not be stored, whoever asks, or not for who carries what this request carries.
    """

    seq: int
    started: float
    serial: str
    previous: Entry | None
    is_marked: bool = False

    def build_entry(self, options: ServeOptions, **content: Any) -> Entry:
        """Build an entry from the answer to this call.

        This is the only place that makes entries for the store, so that all front ends fill in the fields of the call alike.

        :param options: the serving options, which name the version of the app.
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
            "version": options.version,
            "deployed": options.deployed,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What an origin answered.

    :param verdict: what it is to the store.
    :param value: the front end's own form of it, such as a response.
    :param error: the exception, if it raised.
    :param entry: what may be stored.
    :param carried: the names that kept it from being stored, if it is personal.
    :param anybodys: it could have been any visitor's but theirs who carry ``absent`` names, so that a failure may be shared.
    :param shared: what of a failure's value those who waited are given: frozen, since hooks change the value itself.
    :param absent: names that were read and that the request did not carry.
    :param retry_after: seconds for which it is left alone at least, while something can be served.
    :param silent_for: seconds for which it is left alone whatever can be served.
    :param renewed: the origin confirmed what was stored.
    :param beside: what is to be stored beside the entry, which has another key than was asked for.
    :param later: takes what is to be called once the body is there, with the answer as it is then, or ``None`` if it broke off;
        ``None``: all of it is here.
    :param failed: the origin failed, where that makes no difference to the store: nothing of the answer is for it.
    :param reason: why it is not stored, as far as that is told.
    :param tally: where a refresh is counted, if only its answer tells that.
    """

    verdict: Verdict
    value: Any = None
    error: BaseException | None = None
    entry: Entry | None = None
    carried: RequestInputs = NO_NAMES
    anybodys: bool = True
    shared: Any = None
    absent: RequestInputs = NO_NAMES
    retry_after: float | None = None
    silent_for: float | None = None
    renewed: bool = False
    beside: Entry | None = None
    later: Callable[[Callable[[Answer | None], object]], None] | None = None
    failed: bool = False
    reason: Refusal | None = None
    tally: Tally | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the origin failed."""
        return self.failed or self.verdict is Verdict.FAILED

    @property
    def why_unstored(self) -> str:
        """Why it was not stored, in a few words, for the log."""
        if self.reason is not None:
            return self.reason.text
        return self.verdict.value if self.error is None else repr(self.error)

    @property
    def why_not_stored(self) -> Refusal:
        """Why it was not stored, where it was not."""
        if self.reason is not None:
            return self.reason
        if self.later is not None:
            return Refusal(StoreRefusal.STILL_TO_COME)
        if self.verdict is Verdict.STORABLE:
            return Refusal(StoreRefusal.NOT_WRITTEN)
        if self.carried:
            return Refusal(StoreRefusal.DEPENDS_ON, self.carried.text)
        return Refusal(StoreRefusal.FOR_THIS_REQUEST)


class Origin(Protocol):
    """What is cached, for one request or call: a view, a fetch function, an app, a third party.

    Front ends inherit from it. The first seven members have no default; the rest are for origins that need them.
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
        """Where it is counted. The engine asks after the call, since some front ends do not know before."""

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another caller's call at most."""

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
        """Seconds to wait for a refresh at most where a copy can be served instead; ``None``: as long as it takes."""
        return None

    @property
    def runs_in_own_threads(self) -> bool:
        """Whether it is only called in threads of its own, never in the caller's. It has a ``wait`` then."""
        return False

    @property
    def may_collapse(self) -> bool:
        """Whether it may wait for the call of another request, and other requests for its call."""
        return True

    def is_barred_from(self, entry: Entry) -> bool:
        """Whether the entry can't be served to this request: it carries a name that was absent when the entry was made."""
        return False

    def carries(self, names: RequestInputs) -> bool:
        """Whether the request carries one of these names."""
        return False

    def relocate(self) -> bool:
        """Find the key again, since the store may know more variants by now. Return whether it has changed."""
        return False

    def refused(self, copy: Copy) -> Answer | None:
        """Return an answer with the reason why the origin is not called now; ``None``: it may be called."""
        return None


def _never(copy: Copy) -> bool:
    return False


def _nothing_to_refresh(keys: tuple[str, ...]) -> None:
    pass


def _nothing_to_give_up() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshJob:
    """One refresh. It holds nothing of the visitor's request.

    What describes it is plain data, so that it can be sent to another process; what calls back into the front end comes last.

    :param key: the key of the entry.
    :param label: its name in log lines.
    :param terms: the serving options for requests of any visitor. They tell whether the entry is due.
    :param tally: where it is counted, unless its answer names another one.
    :param fills_missing: it also runs where nothing is stored.
    :param forced: it runs even if the entry is fresh or is backing off.
    :param max_wait: seconds that a caller waits for it. It only runs in threads of its own then. ``None``: as long as it takes.
    :param pool: the threads that run it; ``None``: those that refresh pages.
    :param run: calls the origin and judges its answer. Exceptions of the origin are part of the answer.
    :param is_backing_off: whether a copy's origin is not called now, even where no entry can be served instead.
    :param refresh_dependencies: refreshes the stale values among these keys of fetch functions, and waits for them. The entry was
        made from them.
    :param given_up: called when the refresh has passed its deadline. It may still be running.
    """

    key: str
    label: str
    terms: ServeOptions
    tally: Tally = UNCOUNTED
    fills_missing: bool = False
    forced: bool = False
    max_wait: float | None = None
    pool: ThreadPool | None = None
    run: Callable[[Start], Answer]
    is_backing_off: Callable[[Copy], bool] = _never
    refresh_dependencies: Callable[[tuple[str, ...]], object] = _nothing_to_refresh
    given_up: Callable[[], object] = _nothing_to_give_up


class RefreshResult:
    """Where those who wait for a refresh learn what it brought.

    :ivar answer: the origin's answer; ``None`` if it was not called, or nothing is known yet.
    :ivar stored: whether that was stored.
    :ivar is_busy: somebody else was at it.
    :ivar error: what the store failed with.
    """

    __slots__ = ("answer", "done", "error", "is_busy", "stored")

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.stored = False
        self.is_busy = False
        self.error: StoreError | None = None
        self.done = threading.Event()


class Served(NamedTuple):
    """How a request is answered: from the copy, or with the origin's own answer.

    :ivar copy: what is stored; served unless there is an answer.
    :ivar answer: the origin's answer.
    :ivar refresh: this request hands over the copy's refresh when its response is closed.
    :ivar stored: the answer was stored.
    :ivar collapsed: the request waited for another's call of the origin.
    :ivar waited: it did, whatever came of it.
    :ivar took: seconds until there was something to serve; ``None`` for a fresh copy out of memory, which is not worth a clock.
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
        """What is stored of what the request is answered with."""
        if self.answer is not None:
            return self.answer.entry
        return None if self.copy is None else self.copy.entry


def is_served(origin: Origin, copy: Copy) -> bool:
    """Whether what is stored may be served to a request as it is: what ``only-if-cached`` asks (RFC 9111 section 5.2.1.7)."""
    if copy.entry is not None and origin.is_barred_from(copy.entry):
        return False
    return isinstance(decide(copy.entry, copy.note, time.time(), origin.terms, pending=False), Serve)
