"""A call of a fetch function as an :class:`~.origin.Origin`."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...core.http.cache_control import Directives
from ...core.http.dates import retry_after
from ...core.model.checks import tags as checked_tags
from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES
from ...core.model.policy import Windows
from ...core.model.purge_names import call_names, tag_name
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import Cacheability, current, run_apart
from ...core.rules.prefer_stale import preference
from ...core.rules.serving import ServeOptions
from ...core.rules.storability import Facts, Verdict, judge
from ...engine.origin import Answer, Origin, RefreshJob, Start
from ...errors import OriginBusy, OriginSuspended, StaleCacheError, UnstorableValue
from ...stats.tally import Tally
from ...stores.base import Copy
from ..flask_internals import is_request_missing
from ..hooks import ask
from .bound_function import BoundFunction
from .policy import NO_FALLBACK


class CallOrigin(Origin):
    """One call of a fetch function.

    :param plan: the function in this app.
    :param in_background: nobody waits for it.
    :raises UnkeyableArgument: if an argument has no canonical form.
    """

    key: str
    terms: ServeOptions

    __slots__ = ("args", "key", "kwargs", "plan", "terms")

    def __init__(self, plan: BoundFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any], in_background: bool) -> None:
        self.plan = plan
        self.args = args
        self.kwargs = kwargs
        self.key = plan.key(args, kwargs)
        #: What is said of serving what is stored to this caller.
        self.terms = plan.in_background if in_background else plan.terms
        if plan.asks_each and not in_background:
            self.terms = self._asked()

    def _asked(self) -> ServeOptions:
        """Ask the developer's ``prefer_stale``."""
        plan = self.plan
        prefers = ask(
            lambda: bool(plan.memo.policy.windows.prefer_stale(*self.args, **self.kwargs)),
            None,
            plan.complaints,
            (self.label, "prefer"),
            "the prefer_stale of %s raised: %r",
            self.label,
        )
        if prefers is None:
            return plan.terms
        return plan.terms._replace(prefer_stale=preference(prefers, plan.settings.prefer_stale_refresh))

    @property
    def label(self) -> str:
        """What a log line calls it."""
        return f"{self.plan.memo.name}()"

    @property
    def tally(self) -> Tally:
        """Where the function is counted."""
        return self.plan.tally

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for another's call at most."""
        return self.plan.lock_timeout

    @property
    def wait(self) -> float | None:
        """Seconds to wait for a missing or expired value at most."""
        return self.plan.memo.policy.windows.wait  # type: ignore[no-any-return]

    @property
    def runs_in_own_threads(self) -> bool:
        """Whether it runs in threads of its own: where its caller may stop waiting."""
        return self.wait is not None

    def refused(self, copy: Copy) -> Answer | None:
        """Return why it is left alone: it failed a short while ago, and there is a fallback or nobody waits, or that is remembered.

        Who waits and has no fallback is not put off: there may be an answer by now.
        """
        if self.plan.suspension.is_on():
            return self._suspended()
        now, note = time.time(), copy.note
        can_wait = self.terms.in_line or self.plan.memo.policy.fallback is not NO_FALLBACK
        if not note.silent(now) and not (can_wait and note.backing_off(now)):
            return None
        left = max(note.retry_at, note.silent_until) - now
        error = OriginSuspended(f"{self.label} failed a short while ago: left alone for {left:.1f} s")
        return Answer(Verdict.REFUSED, error=error, retry_after=left)

    def call_uncached(self) -> Answer:
        """Call the function for this caller alone: nothing of it is stored."""
        value, error = self._run(Cacheability(current()))
        response = value if error is None else getattr(error, "response", None)
        failed = self._is_failure(error, value, _status_of(response))
        return Answer(Verdict.UNSTORABLE, value=value, error=error, failed=failed)

    def refresh(self, *, forced: bool = False) -> RefreshJob:
        """Return the refresh of this value. It also fills a missing one: callers that need the value wait for the refresh."""
        plan, hangs = self.plan, threading.Event()

        def give_up() -> None:
            # A call that hangs counts as one failure, whatever becomes of it.
            hangs.set()
            plan.suspension.learn(failed=True)

        return RefreshJob(
            key=self.key,
            label=self.label,
            terms=plan.terms,
            tally=plan.tally,
            fills_missing=True,
            forced=forced,
            max_wait=self.wait,
            pool=plan.pool,
            run=partial(self.call, is_background=True, is_given_up=hangs.is_set),
            is_backing_off=lambda copy: self.refused(copy) is not None,
            refresh_dependencies=plan.renew,
            given_up=give_up,
        )

    # -- calling the function ------------------------------------------------------------------------------------

    def call(self, start: Start, is_background: bool = False, is_given_up: Callable[[], bool] = lambda: False) -> Answer:
        """Call the function, unless too many calls of it run, and judge its value.

        :param is_background: no caller waits in this thread.
        :param is_given_up: whether the call has passed its deadline, so that its failure is counted already.
        """
        slots = self.plan.slots
        if not slots.take():
            return Answer(Verdict.REFUSED, error=OriginBusy(f"{self.label}: as many calls run as max_concurrency allows"))
        try:
            if not self.plan.suspension.admits():
                return self._suspended()
            word = Cacheability(None, in_background=is_background or self.terms.in_line)
            value, error = self._run(word)
        finally:
            slots.give_back()
        answer = self._judged(value, error, start, word)
        failed = answer.verdict is Verdict.FAILED
        if not (failed and is_given_up()):
            self.plan.suspension.learn(failed=failed)
        return answer

    def _suspended(self) -> Answer:
        policy = self.plan.memo.policy
        why = f"it failed {policy.suspend_after} times in a row, and is left alone for {policy.suspend_for:g} s"
        return Answer(Verdict.REFUSED, error=OriginSuspended(f"{self.label}: {why}"), retry_after=self.plan.suspension.left())

    def _run(self, word: Cacheability) -> tuple[Any, Exception | None]:
        """Run it as in a thread of its own: in another app context, without the visitor's request."""
        try:
            # A context that nothing was set in: what a refresh will not find, a first fill must not find either.
            return run_apart(self._in_app_context, word), None
        except Exception as error:
            return None, error

    def _in_app_context(self) -> Any:
        with self.plan.app.app_context():
            try:
                return self.plan.memo.function(*self.args, **self.kwargs)
            except RuntimeError as error:
                if not is_request_missing(error):
                    raise
                raise StaleCacheError(
                    f"{self.label} uses the request, of which a fetch function knows nothing, since what it returns is for "
                    "everybody: give it what it needs as an argument"
                ) from error

    # -- judging what came out -----------------------------------------------------------------------------------

    def _judged(self, value: Any, error: Exception | None, start: Start, word: Cacheability) -> Answer:
        response = value if error is None else getattr(error, "response", None)
        status = _status_of(response)
        if self._is_failure(error, value, status):
            retry_after = _retry_after_of(response) if status in (429, 503) else None
            silent = retry_after if start.previous is not None else _longest(retry_after, self.plan.memo.policy.cache_failures)
            return Answer(Verdict.FAILED, value, error, retry_after=retry_after, silent_for=silent)
        if error is not None or (status is not None and status not in _STORED):
            return Answer(Verdict.UNSTORABLE, value, error)
        try:
            kind, body = self.plan.codec.encode(value, self.key)
        except UnstorableValue as reason:
            self.plan.complaints.warn_once((self.label, "value"), "what %s returned is not stored: %s", self.label, reason)
            return Answer(Verdict.UNSTORABLE, value, reason=Refusal(StoreRefusal.UNSTORABLE_VALUE, str(reason)))
        tags = self._tags()
        if tags is None:
            return Answer(Verdict.UNSTORABLE, value, reason=Refusal(StoreRefusal.TAGS_UNKNOWN))
        return self._stored(value, kind, body, (*tags, *word.tags), start, word)

    def _is_failure(self, error: Exception | None, value: Any, status: int | None) -> bool:
        policy, log = self.plan.memo.policy, self.plan.complaints
        return ask(
            lambda: policy.is_failure(error, value, status),
            error is not None,
            log,
            (self.label, "failures"),
            "the failures of %s raised: %r",
            self.label,
        )

    def _tags(self) -> tuple[str, ...] | None:
        """Return the function's tags for these arguments; ``None`` if the developer's callable raises, or returns no tags."""
        given = self.plan.memo.policy.windows.tags
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(*self.args, **self.kwargs)),
            None,
            self.plan.complaints,
            (self.label, "tags"),
            "what %s returned is not stored, since it could not be purged by its tags: %s",
            self.label,
        )

    def _stored(self, value: Any, kind: str, body: bytes, tags: tuple[str, ...], start: Start, word: Cacheability) -> Answer:
        plan, now = self.plan, time.time()
        policy = plan.memo.policy.windows
        facts = Facts(
            status=200,
            headers=(),
            size=len(body),
            directives=Directives(),
            in_key=frozenset(),
            refusal=Refusal(StoreRefusal.NO_STORE, "it") if word.forbidden else None,
            said_max_age=word.limit(now),
            stood_in=word.stood_in,
            has_better=start.previous is not None and not start.previous.stood_in,
        )
        judgement = judge(facts, policy, plan.settings.windows, plan.settings.max_entry_size, now)
        if judgement.verdict is not Verdict.STORABLE:
            refusal = judgement.reason
            if judgement.verdict is Verdict.UNSTORABLE and refusal is not None and refusal.reason.is_fixable:
                plan.complaints.warn_once((self.label, refusal.log_key), "%s is not stored: %s", self.label, refusal.log_text)
            return Answer(judgement.verdict, value, reason=refusal)
        windows = judgement.windows.shortened(policy.jitter * random.random())
        return Answer(Verdict.STORABLE, value, entry=self._entry(kind, body, tags, windows, word, start, now))

    def _entry(
        self, kind: str, body: bytes, tags: tuple[str, ...], windows: Windows, word: Cacheability, start: Start, now: float
    ) -> Entry:
        plan = self.plan
        return start.build_entry(
            plan.terms,
            key=self.key,
            names=(*call_names(plan.memo.name, self.key), *map(tag_name, dict.fromkeys(tags))),
            answered=now,
            windows=windows,
            never_stale=False,
            shared=True,
            absent=NO_NAMES,
            varied=(),
            status=200,
            headers=(("Content-Type", kind),),
            body=body,
            recipe={"function": plan.memo.name, "arguments": plan.memo.arguments.to_json(self.args, self.kwargs)},
            calls=tuple(word.calls),
            stood_in=word.stood_in,
        )


#: Statuses of a ``requests.Response`` that are stored.
_STORED = frozenset({*range(200, 206), 300, 301, 302, 303, 307, 308, 404, 410}) - {206}


def _status_of(response: object) -> int | None:
    requests = sys.modules.get("requests")
    if requests is None or not isinstance(response, requests.Response):
        return None
    status: int = response.status_code
    return status


def _retry_after_of(response: Any) -> float | None:
    return retry_after(response.headers.get("Retry-After", ""), time.time())


def _longest(*seconds: float | None) -> float | None:
    return max((each for each in seconds if each is not None), default=None)
