"""Calls a fetch function, and judges whether its value is stored.

======================================================  =======================================================
outcome of the call                                     verdict
======================================================  =======================================================
``max_concurrency`` reached, or the function suspended  refused: it is not called
an exception or status among ``failures``               failed: the stored value is kept, Retry-After is obeyed
another exception or status                             unstorable: its caller gets it
a value that can't be serialized, or tags that raise    unstorable, with a line in the log
any other value                                         :func:`~flask_stalecache.core.rules.storability.judge`
======================================================  =======================================================
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core.addressing.purge_names import call_names, tag_name
from ...core.http.cache_control import Directives
from ...core.http.dates import retry_after
from ...core.model.checks import tags as checked_tags
from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES
from ...core.model.policy import Windows
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import Cacheability, current, run_apart
from ...core.rules.storability import Facts, Verdict, judge
from ...core.rules.variant_index import INDEX, index_with
from ...core.rules.variants import StoragePlace
from ...engine.origin import Answer, Start
from ...errors import OriginBusy, OriginSuspended, StaleCacheError, UnstorableValue
from ..app_code.hooks import ask
from ..flask_internals.contexts import is_host_missing, is_request_missing
from ..request.caller_context import CallerContext
from ..response.holes import refuse_marks
from .bound_function import BoundFunction
from .places import CallerPlace, ObservedAdapter


@dataclass(frozen=True, slots=True)
class CallFetch:
    """One call of a fetch function.

    :param bound: the function in this app.
    :param key: the key of the call, without its place.
    :param label: its name in log lines.
    :param place: the place that its URLs are relative to.
    :param around: observes the call that makes this one, if any.
    """

    bound: BoundFunction
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    key: str
    label: str
    place: CallerPlace
    around: ObservedAdapter | None = None

    def answer(self, start: Start, is_background: bool, is_given_up: Callable[[], bool] = lambda: False) -> Answer:
        """Call the function, unless it is suspended or too many calls of it run, and judge its value.

        :param is_background: no caller waits in this thread.
        :param is_given_up: whether the call has passed its deadline, so that its failure is counted already.
        """
        slots, suspension = self.bound.slots, self.bound.suspension
        slot = slots.take()
        if slot is None:
            return Answer(Verdict.REFUSED, error=OriginBusy(f"{self.label}: as many calls run as max_concurrency allows"))
        try:
            if not suspension.admits():
                return suspended_answer(self.bound, self.label)
            word, caller = Cacheability(None, in_background=is_background), CallerContext.of(self.bound.app)
            urls = self._observed()
            value, error = self._run(word, caller, urls)
        finally:
            slots.give_back(slot)
        if caller is not None:
            start = caller.begun_with(start, self.bound.settings.refresh_deadline)
        answer = self._judged(value, error, start, word, urls)
        failed = answer.verdict is Verdict.FAILED
        if not (failed and is_given_up()):
            suspension.learn(failed=failed, seq=start.seq)
        return answer

    def answer_uncached(self) -> Answer:
        """Call the function for this caller alone. Nothing is stored."""
        value, error = self._run(Cacheability(current()), CallerContext.of(self.bound.app), self._observed())
        response = value if error is None else getattr(error, "response", None)
        failed = self._is_failure(error, value, _status_of(response))
        return Answer(Verdict.UNSTORABLE, value=value, error=error, failed=failed)

    def _observed(self) -> ObservedAdapter:
        return ObservedAdapter(self.bound.app, self.place, self.label, self.around)

    def _run(self, word: Cacheability, caller: CallerContext | None, urls: ObservedAdapter) -> tuple[Any, Exception | None]:
        """Call the function without the visitor's request: in the app context of its caller, else in one of its own.

        A second app context would also end the caller's database session when it ends.
        """

        def run() -> Any:
            return self._in_own_context(urls) if caller is None else caller.enter(self._call, urls)

        refuse_marks(iter((*self.args, *self.kwargs.values(), self.key)), self.label)
        try:
            # With empty context variables, so that a function that needs one fails at the first call, not in a later refresh.
            return run_apart(run, word), None
        except Exception as error:
            return None, error

    def _in_own_context(self, urls: Any) -> Any:
        with self.bound.app.app_context() as context:
            context.url_adapter = urls
            return self._call()

    def _call(self) -> Any:
        try:
            return self.bound.definition.function(*self.args, **self.kwargs)
        except RuntimeError as error:
            if is_host_missing(error):
                raise StaleCacheError(
                    f"{self.label} uses url_for in an app context of its own, in which nothing tells the host: set SERVER_NAME, or "
                    "use it outside of that context"
                ) from error
            if not is_request_missing(error):
                raise
            raise StaleCacheError(
                f"{self.label} uses the request, of which a fetch function knows nothing, since what it returns is for "
                "everybody: give it what it needs as an argument"
            ) from error

    def names(self) -> tuple[str, ...]:
        """Return the names by which a value, or the memory of a failure, is purged."""
        return (*call_names(self.bound.definition.name, self.key), *map(tag_name, self._tags() or ()))

    # -- judging its value ---------------------------------------------------------------------------------------

    def _judged(self, value: Any, error: Exception | None, start: Start, word: Cacheability, urls: ObservedAdapter) -> Answer:
        response = value if error is None else getattr(error, "response", None)
        status = _status_of(response)
        if self._is_failure(error, value, status):
            retry_after = _retry_after_of(response) if status in (429, 503) else None
            silent = (
                retry_after if start.previous is not None else _longest(retry_after, self.bound.definition.policy.cache_failures)
            )
            return Answer(Verdict.FAILED, value, error, retry_after=retry_after, silent_for=silent, names=self.names())
        if error is not None or (status is not None and status not in _STORED):
            return Answer(Verdict.UNSTORABLE, value, error)
        stored = self._place_of_value(urls, start)
        if stored is None:
            return self._refused_for_places(value, urls)
        try:
            kind, body = self.bound.codec.encode(value, stored.key)
        except UnstorableValue as reason:
            self.bound.complaints.warn_once((self.label, "value"), "what %s returned is not stored: %s", self.label, reason)
            return Answer(Verdict.UNSTORABLE, value, reason=Refusal(StoreRefusal.UNSTORABLE_VALUE, str(reason)))
        tags = self._tags()
        if tags is None:
            return Answer(Verdict.UNSTORABLE, value, reason=Refusal(StoreRefusal.TAGS_UNKNOWN))
        return self._stored(value, kind, body, (*tags, *word.tags), start, word, stored)

    def _place_of_value(self, urls: ObservedAdapter, start: Start) -> StoragePlace | None:
        """Return where a value is stored; ``None`` if values for too many places are stored."""
        fields = tuple(sorted(urls.read))
        previous = start.previous
        if not fields and (previous is None or (previous.key == self.key and previous.status != INDEX)):
            return StoragePlace(self.key, (), None)
        return self.bound.places.of_value(self.key, fields, self.place)

    def _refused_for_places(self, value: Any, urls: ObservedAdapter) -> Answer:
        refusal = Refusal(StoreRefusal.TOO_MANY_VARIANTS, " and ".join(sorted(urls.read)), fix=_NAME_HOSTS)
        self.bound.complaints.warn_once((self.label, refusal.log_key), "%s is not stored: %s", self.label, refusal.log_text)
        return Answer(Verdict.UNSTORABLE, value, reason=refusal)

    def _is_failure(self, error: Exception | None, value: Any, status: int | None) -> bool:
        policy, log = self.bound.definition.policy, self.bound.complaints
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
        given = self.bound.definition.policy.windows.tags
        if not callable(given):
            return given  # type: ignore[no-any-return]
        return ask(
            lambda: checked_tags("tags", given(*self.args, **self.kwargs)),
            None,
            self.bound.complaints,
            (self.label, "tags"),
            "what %s returned is not stored, since it could not be purged by its tags: %s",
            self.label,
        )

    def _stored(
        self, value: Any, kind: str, body: bytes, tags: tuple[str, ...], start: Start, word: Cacheability, stored: StoragePlace
    ) -> Answer:
        bound, now = self.bound, time.time()
        policy = bound.definition.policy.windows
        facts = Facts(
            status=200,
            headers=(),
            size=len(body),
            directives=Directives(),
            in_key=frozenset(),
            refusal=Refusal(StoreRefusal.NO_STORE, "it") if word.forbidden else None,
            said_max_age=word.limit(now),
            stood_in=word.stood_in,
            has_better=start.previous is not None and start.previous.status != INDEX and not start.previous.stood_in,
        )
        judgement = judge(facts, policy, bound.settings.windows, bound.settings.max_entry_size, now)
        if judgement.verdict is not Verdict.STORABLE:
            refusal = judgement.reason
            if judgement.verdict is Verdict.UNSTORABLE and refusal is not None and refusal.reason.is_fixable:
                bound.complaints.warn_once((self.label, refusal.log_key), "%s is not stored: %s", self.label, refusal.log_text)
            return Answer(judgement.verdict, value, reason=refusal)
        windows = judgement.windows.shortened(policy.jitter * random.random())
        entry = self._entry(kind, body, tags, windows, word, start, now, stored)
        beside = None if stored.listing is None else index_with(stored.listing, entry, self.key)
        return Answer(Verdict.STORABLE, value, entry=entry, beside=beside)

    def _entry(
        self,
        kind: str,
        body: bytes,
        tags: tuple[str, ...],
        windows: Windows,
        word: Cacheability,
        start: Start,
        now: float,
        stored: StoragePlace,
    ) -> Entry:
        bound = self.bound
        recipe: dict[str, Any] = {
            "function": bound.definition.name,
            "arguments": bound.definition.arguments.to_json(self.args, self.kwargs),
        }
        if stored.fields:
            recipe["place"] = self.place.to_json()
        return start.build_entry(
            bound.terms,
            key=stored.key,
            names=(*call_names(bound.definition.name, self.key), *map(tag_name, dict.fromkeys(tags))),
            answered=now,
            windows=windows,
            never_stale=False,
            shared=True,
            absent=NO_NAMES,
            varied=(),
            status=200,
            headers=(("Content-Type", kind),),
            body=body,
            recipe=recipe,
            calls=tuple(word.calls),
            stood_in=word.stood_in,
        )


def suspended_answer(bound: BoundFunction, label: str) -> Answer:
    """Return the answer to calls of a function that is suspended."""
    policy = bound.definition.policy
    why = f"it failed {policy.suspend_after} times in a row, and is suspended for {policy.suspend_for:g} s"
    return Answer(Verdict.REFUSED, error=OriginSuspended(f"{label}: {why}"), retry_after=bound.suspension.left())


_NAME_HOSTS = "name the hosts of the app in TRUSTED_HOSTS, or set STALECACHE_BASE_URL"

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
