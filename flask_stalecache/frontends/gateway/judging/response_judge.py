"""Judges whether the response of an app may be stored: by HTTP, by the policy in code, and by the rule for its path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ....core.http.dates import pause_asked
from ....core.http.fields import content_length, first_of, is_event_stream, lines_of
from ....core.http.freshness import S_MAXAGE, is_explicit, switches_off
from ....core.http.storing import PARTS
from ....core.http.unset import SET_COOKIE, cookie_refusal, without_sessions, without_unset
from ....core.model.entry import Entry
from ....core.model.policy import Policy, Windows
from ....core.model.reasons import Refusal, StoreRefusal
from ....core.model.titles import endpoint_of
from ....core.responses.ranges import whole_size
from ....core.responses.validators import renewed
from ....core.rules.advice import fix_of_reason
from ....core.rules.cacheability import Cacheability
from ....core.rules.shared_cache import Exchange, judge_exchange
from ....core.rules.storability import Judgement, Verdict, speaks_for_itself
from ...app_code.hooks import ask
from ..backend import Backend, Observation
from ..rules import Rule, default_policy
from ..wsgi_call import AppCall

TOO_LARGE = Refusal(StoreRefusal.TOO_LARGE)
#: Reasons that say nothing about the whole response: some apps leave fields out of a 206 or 304.
_MISSING_IN_PART = frozenset({StoreRefusal.NO_LIFETIME, StoreRefusal.NOTHING_SAID, StoreRefusal.NO_VALIDATOR})


def observed_of(seen: Observation, call: AppCall, previous: Entry | None) -> Observation:
    """Return the observation by which an answer is judged, now that its status and fields are known.

    Another WSGI app within, such as a mounted one, may say that its answer is for everybody. Then its fields decide, as for an app
    that can't be observed. They also decide whether an earlier answer of this kind stays in the store.

    :param call: the answer.
    :param previous: the entry that is stored now.
    """
    if seen.unobserved is None or not isinstance(call.status, str):
        return seen
    status, fields = call.code, call.fields
    if status == 304 and previous is not None:
        # A 304 may leave out fields of the stored response.
        status, fields = previous.status, list(renewed(previous.headers, fields) or fields)
    if speaks_for_itself(status, fields):
        return seen.unobserved
    if previous is not None and endpoint_of(previous) is None and speaks_for_itself(previous.status, previous.headers):
        return replace(seen.unobserved, refused=seen.own)
    return seen


class ResponseJudge:
    """Judges the responses to one request by their status and fields.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param hints: the cacheability hints of the code that makes the response.
    :param path: the path of the request, for the log.
    """

    def __init__(self, backend: Backend, rule: Rule, hints: Cacheability, path: str) -> None:
        self._backend = backend
        self._rule = rule
        self._hints = hints
        self._path = path

    def judge(self, exchange: Exchange, call: AppCall, seen: Observation, previous: Entry | None, if_error: float) -> Judgement:
        """Return whether a response may be stored.

        :param exchange: the request, and the response as it would be stored.
        :param call: the response as it came.
        :param seen: how the app came to it.
        :param previous: the entry that is stored now.
        :param if_error: seconds of stale-if-error that the client accepts.
        """
        if exchange.status in PARTS and exchange.method == "GET":
            return Judgement(Verdict.UNSTORABLE, self._reason_of_part(replace(exchange, status=200), call, seen))
        now = exchange.answered
        refusal = self._refusal(call, seen)
        if refusal is not None:
            return Judgement(Verdict.UNSTORABLE, refusal)
        has_copy = previous is not None and (previous.in_swr(now) or previous.in_sie(now) or previous.within(if_error, now))
        configured = default_policy(self._rule.policy, seen.policy, self._backend.engine.settings.windows)
        judgement = judge_exchange(
            exchange,
            seen.policy,
            configured,
            has_copy=has_copy,
            ruled=self._rule.written,
            failures=self._backend.engine.settings.failure_statuses,
        )
        if judgement.reason is not None:
            judgement = judgement._replace(reason=self._in_full(judgement.reason, call, seen))
        if judgement.verdict is Verdict.STORABLE:
            self._explain_windows(exchange, seen, judgement, configured)
        is_worse = has_copy and self._hints.stood_in and previous is not None and not previous.stood_in
        if judgement.verdict is Verdict.STORABLE and is_worse:
            return Judgement(Verdict.WORSE, Refusal(StoreRefusal.FALLBACK_OVER_BETTER))
        limit = self._hints.limit(now)
        if limit is not None and judgement.windows.max_age > limit:
            judgement = judgement._replace(windows=replace(judgement.windows, max_age=limit))
        return judgement

    def _in_full(self, refusal: Refusal, call: AppCall, seen: Observation) -> Refusal:
        """Return a refusal that comes from the response's fields, completed with what only the front end knows."""
        if refusal.reason is StoreRefusal.SETS_COOKIE:
            return self._cookie_refusal(call.fields, seen) or _of_session(refusal, call.fields, seen)
        if refusal.reason is StoreRefusal.NOTHING_SAID:
            return replace(refusal, subject=self._path, fix=fix_of_reason(refusal.reason, self._backend.front_end(seen)))
        return refusal

    def pause(self, call: AppCall) -> float | None:
        """Return how long the next refresh waits: as the app asks, or because this one could not renew the values of the page."""
        asked = pause_asked(call.code, call.fields, time.time())
        if asked is not None:
            return asked
        first = self._backend.engine.settings.refresh_backoff[0]
        return self._hints.pause(time.time(), first) if self._hints.in_background else None

    def fields_to_store(self, fields: list[tuple[str, str]], seen: Observation) -> list[tuple[str, str]]:
        """Return the fields of a response as they are stored.

        The fields that the rule or the view unsets are left out, and the cookie of a session that the app has not changed.

        :param fields: the fields as they came.
        :param seen: how the app came to the response.
        """
        unset = self._unset(seen)
        if seen.harmless:
            fields = without_sessions(fields, seen.harmless)
        return without_unset(fields, unset, self._cookie_refusal(fields, seen)) if unset else fields

    def _unset(self, seen: Observation) -> frozenset[str]:
        unset: frozenset[str] = self._rule.policy.unset | seen.policy.unset
        return unset

    def _cookie_refusal(self, fields: list[tuple[str, str]], seen: Observation) -> Refusal | None:
        """Return why ``unset`` does not remove the cookies of a response; ``None`` if it does, or is not about cookies."""
        if SET_COOKIE not in self._unset(seen) or first_of(fields, SET_COOKIE) is None:
            return None
        if seen.has_changed_session:
            return Refusal(StoreRefusal.SETS_SESSION, "the session")
        return cookie_refusal(fields, seen.sessions, is_varied="cookie" not in seen.answered)

    def _reason_of_part(self, whole: Exchange, call: AppCall, seen: Observation) -> Refusal:
        """Return why a 206 or 304 is not stored: for the same reason as the whole, if its fields forbid storing that.

        A 206 or 304 has fields of the whole response (RFC 9110 sections 15.3.7, 15.4.5).

        :param whole: the exchange as if the whole had been sent.
        """
        size = whole_size(call.fields)
        if size is not None and size > self._backend.max_entry_size:
            return TOO_LARGE
        judgement = self.judge(whole, call, seen, None, 0.0)
        if judgement.reason is not None and judgement.reason.reason not in _MISSING_IN_PART:
            return judgement.reason
        told = StoreRefusal.PARTIAL_STATUS
        if judgement.verdict is Verdict.STORABLE:
            told = StoreRefusal.PART_OF_UNSIZED if size is None else StoreRefusal.PART_OF_STORABLE
            if not is_explicit(whole.directives, whole.headers):
                # Some apps leave fields of the whole out of its parts.
                told = StoreRefusal.PART_OF_UNSAID
        return Refusal(told, str(call.code))

    def _explain_windows(self, exchange: Exchange, seen: Observation, judgement: Judgement, configured: Policy) -> None:
        """Warn if the stale windows of the configuration do not apply, although the response does not forbid them in words."""
        defaults = Windows(0.0, configured.stale_while_revalidate or 0.0, configured.stale_if_error or 0.0)
        if switches_off(exchange.directives, judgement.windows, defaults):
            self._backend.complaints.warn_once(("s-maxage", seen.endpoint), S_MAXAGE, seen.label)

    def _refusal(self, call: AppCall, seen: Observation) -> Refusal | None:
        """Return the reason other than HTTP that forbids storing the answer; ``None`` if there is none."""
        if seen.is_ours:
            return Refusal(StoreRefusal.ANSWERED_BY_CACHED)
        if self._backend.only_coded and seen.policy.gateway is not True:
            return Refusal(StoreRefusal.NOT_CODED)
        if seen.refused is not None:
            return seen.refused
        if self._hints.forbidden:
            return Refusal(StoreRefusal.NO_STORE, "the app")
        if call.has_written:
            return Refusal(StoreRefusal.USED_WRITE)
        if is_event_stream(call.fields):
            # Requests that wait for the end of the stream would never be answered.
            return Refusal(StoreRefusal.EVENT_STREAM)
        length = content_length(call.fields)
        if length is None and first_of(call.fields, "content-length") is not None:
            return Refusal(StoreRefusal.INVALID_LENGTH)
        if length is not None and length > self._backend.max_entry_size:
            return TOO_LARGE
        keep = self._rule.policy.response_filter
        return Refusal(StoreRefusal.RESPONSE_FILTER) if keep is not None and not self._keeps(keep, call) else None

    def _keeps(self, keep: Callable[..., object], call: AppCall) -> bool:
        status, fields = call.status, list(call.fields)
        log = self._backend.complaints
        return ask(lambda: bool(keep(status, fields)), False, log, "filter", "the response_filter of a rule raised: %r")


def _of_session(refusal: Refusal, fields: list[tuple[str, str]], seen: Observation) -> Refusal:
    """Return the refusal of a response that sets a cookie. If it is the session's alone, ``unset`` is no remedy."""
    names = {value.partition("=")[0].strip() for value in lines_of(fields, SET_COOKIE)}
    if not seen.has_changed_session or not names <= seen.sessions:
        return refusal
    return replace(refusal, fix="it is the session's; change the session in another view, or do not cache this one")
