"""What a WSGI app is asked when the gateway needs an answer, and what becomes of that answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from ...core.http.cache_control import RequestDirectives, response_directives
from ...core.http.fields import content_length, first_of, is_event_stream
from ...core.http.freshness import is_explicit
from ...core.http.validators import CONDITIONS, conditional_fields, confirmed_by_head, renewed
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING, environ_name
from ...core.model.inputs import RequestInputs
from ...core.model.policy import FAILURE_STATUSES, Policy
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.cacheability import Cacheability, collected_by, current
from ...core.rules.serving import Judgement, Verdict
from ...core.rules.shared_cache import Exchange, judge_exchange
from ...core.rules.variants import INDEX
from ...engine.origin import Answer, Start
from ...stats.tally import UNCOUNTED, Tally
from ..hooks import ask
from .backend import Backend, Observation
from .entry_builder import EntryBuilder
from .rules import Rule
from .wsgi_call import AppCall, Copied

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NOTHING_SAID = RequestDirectives()
_TOO_LARGE = Refusal(StoreRefusal.TOO_LARGE)


class AppFetch:
    """One question to the app, and its answer.

    :param plan: the app behind the gateway.
    :param rule: what holds for the path.
    :param environ: the request that the answer is for.
    :param url_key: the key of its URL.
    :param start_response: the server's; ``None`` if nobody waits.
    :ivar call: what the app answers.
    :ivar is_ours: a decorator of ours has answered in the app.
    """

    def __init__(
        self, plan: Backend, rule: Rule, environ: WSGIEnvironment, url_key: str, start_response: StartResponse | None
    ) -> None:
        self.plan = plan
        self.rule = rule
        self.environ = environ
        self.url_key = url_key
        self.word = Cacheability(current(), in_background=REFRESHING in environ)
        self.call = AppCall(start_response, partial(collected_by, self.word))
        self._filing = EntryBuilder(plan, rule, environ, url_key, self.word)
        self._start_response = start_response
        self._given: WSGIEnvironment = environ
        self._start: Start | None = None
        self._answered = 0.0
        self._said = NOTHING_SAID
        self.is_ours = False
        self._landing: Callable[[Answer | None], object] | None = None

    # -- asking --------------------------------------------------------------------------------------------------

    def live(self) -> Answer:
        """Let the app answer as if there were no gateway."""
        self._given = self.environ.copy()
        try:
            self.call.make(self.plan.app, self._given)
        except Exception as error:
            return replace(self._raised(Verdict.UNSTORABLE, error), failed=True)
        return Answer(Verdict.UNSTORABLE, value=self.call, failed=self.call.code in FAILURE_STATUSES)

    def _raised(self, verdict: Verdict, error: Exception) -> Answer:
        if self.call.is_sent:
            # It has used write(): nothing can be sent in its place.
            raise error
        return Answer(verdict, error=error)

    def answer(self, start: Start, said: RequestDirectives = NOTHING_SAID) -> Answer:
        """Ask the app and judge what it answers.

        :param start: what was noted before.
        :param said: what the client says of caching, as far as that is obeyed.
        """
        self._start, self._said = start, said
        previous = start.previous
        # What can't be stored is the client's own business, conditions and all.
        is_ours = self._fills and not start.is_marked
        # A copy in any case: middleware of the app may take the script root off the path.
        self._given = self._without_conditions(previous) if is_ours else self.environ.copy()
        try:
            self.call.make(self.plan.app, self._given)
            self._answered = time.time()
            if previous is None or self.call.code != 304 or not is_ours:
                return self._judged(start)
        except Exception as error:
            return self._raised(Verdict.FAILED, error)
        return self._renewed(start, previous) or self._again(start)

    @property
    def tally(self) -> Tally:
        """Where it is counted: not here, if a decorator of ours has answered in the app."""
        seen = self._seen()
        return UNCOUNTED if seen.is_ours else self.plan.tally(seen.endpoint)

    @property
    def _fills(self) -> bool:
        return bool(self.environ["REQUEST_METHOD"] == "GET")

    def _without_conditions(self, previous: Entry | None) -> WSGIEnvironment:
        """Return the request without the client's conditions, and with ours if something is stored (RFC 9111 section 4.3.1)."""
        environ = {name: value for name, value in self.environ.items() if name not in CONDITIONS}
        if previous is not None:
            environ.update((environ_name(name), value) for name, value in conditional_fields(previous.headers))
        return environ

    def _again(self, start: Start) -> Answer:
        """Ask anew without a condition: the answer to ours can't be used."""
        self.call.close()
        self.call = AppCall(self._start_response, partial(collected_by, self.word))
        return self.answer(start._replace(previous=None), self._said)

    # -- judging -------------------------------------------------------------------------------------------------

    def _judged(self, start: Start) -> Answer:
        call = self.call
        if not call.status:
            return Answer(Verdict.FAILED, call, reason=Refusal(StoreRefusal.START_RESPONSE_NOT_CALLED))
        seen = self._seen()
        judgement = self._judgement(self._exchange(call.fields), seen, start)
        if judgement.verdict in (Verdict.FAILED, Verdict.WORSE):
            shared, pause = self._frozen(), self._pause()
            return Answer(judgement.verdict, call, shared=shared, retry_after=pause, reason=judgement.reason)
        carried = self._filing.beyond_key(seen, self.call.fields).carried_part(self.environ)
        if carried and not seen.is_ours:
            self._explain_names(seen, carried)
            # Whatever else is said of it (private, a cookie set) may be because of this visitor too.
            return Answer(Verdict.PERSONAL, call, carried=carried, anybodys=False)
        if judgement.verdict is Verdict.UNSTORABLE:
            self._explain(seen, judgement.reason)
            return self._seen_by_head(start) or Answer(Verdict.UNSTORABLE, call, reason=judgement.reason)
        body = call.whole()
        if body is not None:
            return self._stored(body)
        judged, begun = call.fields, call.begun()
        if call.fields is not judged:
            # It has called start_response once more, with its error.
            return self._judged(start)
        if begun is None:
            return Answer(Verdict.UNSTORABLE, call, reason=Refusal(StoreRefusal.NOT_BYTES))
        length = content_length(judged)
        if length is None or len(begun) < length:
            return Answer(Verdict.STORABLE, call, later=self.land_later)
        return self._stored(begun)

    def _exchange(self, fields: list[tuple[str, str]], status: int = 0) -> Exchange:
        return Exchange(
            method=self.environ["REQUEST_METHOD"],
            authorized="HTTP_AUTHORIZATION" in self.environ,
            request=self._said,
            status=status or self.call.code,
            headers=fields,
            directives=response_directives(fields),
            # A WSGI app is the origin itself: its time to answer is no age.
            requested=self._answered,
            answered=self._answered,
        )

    def _seen(self) -> Observation:
        return self.plan.observe(self._given, self.rule.ignored)

    def _judgement(self, exchange: Exchange, seen: Observation, start: Start) -> Judgement:
        """Judge status and fields, by what the app, its code and the rules say."""
        now, previous = self._answered, start.previous
        refusal = self._refusal(seen)
        if refusal is not None:
            return Judgement(Verdict.UNSTORABLE, refusal)
        has_copy = previous is not None and (
            previous.in_swr(now) or previous.in_sie(now) or previous.within(self._said.stale_if_error or 0.0, now)
        )
        judgement = judge_exchange(exchange, seen.policy, self._configured(seen), has_copy=has_copy)
        is_worse = has_copy and self.word.stood_in and previous is not None and not previous.stood_in
        if judgement.verdict is Verdict.STORABLE and is_worse:
            return Judgement(Verdict.WORSE, Refusal(StoreRefusal.FALLBACK_OVER_BETTER))
        limit = self.word.limit(now)
        if limit is not None and judgement.windows.max_age > limit:
            judgement = judgement._replace(windows=replace(judgement.windows, max_age=limit))
        return judgement

    def _configured(self, seen: Observation) -> Policy:
        """Return what holds where code and response say nothing: the rule; and the configuration, where code asks for storing."""
        rule, windows = self.rule.policy, self.plan.engine.settings.windows
        if not seen.policy.gateway:
            return rule
        return replace(rule, **{name: given for name, given in asdict(windows).items() if getattr(rule, name) is None})

    def _refusal(self, seen: Observation) -> Refusal | None:
        call, limit = self.call, self.plan.max_entry_size
        self.is_ours = seen.is_ours
        if seen.is_ours:
            return Refusal(StoreRefusal.ANSWERED_BY_CACHED)
        if self.plan.only_coded and seen.policy.gateway is not True:
            return Refusal(StoreRefusal.NOT_CODED)
        if self.word.forbidden:
            return Refusal(StoreRefusal.NO_STORE, "the app")
        if call.has_written:
            return Refusal(StoreRefusal.USED_WRITE)
        if is_event_stream(call.fields):
            # Others would wait for its end, and it has none.
            return Refusal(StoreRefusal.EVENT_STREAM)
        length = content_length(call.fields)
        if length is None and first_of(call.fields, "content-length") is not None:
            return Refusal(StoreRefusal.INVALID_LENGTH)
        if length is not None and length > limit:
            return _TOO_LARGE
        keep = self.rule.policy.response_filter
        return Refusal(StoreRefusal.RESPONSE_FILTER) if keep is not None and not self._keeps(keep) else None

    def _keeps(self, keep: Callable[..., object]) -> bool:
        status, fields = self.call.status, list(self.call.fields)
        log = self.plan.complaints
        return ask(lambda: bool(keep(status, fields)), False, log, "filter", "the response_filter of a rule raised: %r")

    def _explain(self, seen: Observation, refusal: Refusal | None) -> None:
        """Say once what keeps an answer from being stored that says itself how long it is fresh, if the developer can mend it."""
        fields = self.call.fields
        if refusal is not None and refusal.reason.is_fixable and is_explicit(response_directives(fields), fields):
            about = seen.endpoint, refusal.log_key
            self.plan.complaints.warn_once(about, "%s is not stored by the gateway: %s", _label(seen), refusal.log_text)

    def _explain_names(self, seen: Observation, carried: RequestInputs) -> None:
        for name in carried.headers:
            self.plan.complaints.warn_once(
                (seen.endpoint, "header", name),
                "%s is not stored by the gateway: the request field %s was read and is not in Vary; add it there, or name it in "
                "STALECACHE_IGNORED_HEADERS if the page does not depend on it",
                _label(seen), name,
            )  # fmt: skip

    def _frozen(self) -> tuple[tuple[bytes, ...], str, list[tuple[str, str]]] | None:
        """Return what others may be given of a failure: body, status, fields; ``None`` if it may be one visitor's own."""
        body, fields = self.call.whole(), list(self.call.fields)
        directives = response_directives(fields)
        # What an app reads is not always seen.
        is_own = "HTTP_COOKIE" in self.environ or any(name.lower() in ("set-cookie", "vary") for name, _ in fields)
        if body is None or is_own or "private" in directives or "no-store" in directives:
            return None
        return (body,), self.call.status, fields

    # -- storing -------------------------------------------------------------------------------------------------

    def _stored(self, body: bytes) -> Answer:
        """Judge once more, now that all of it is here and everything that was read for it is known."""
        assert self._start is not None
        call, seen = self.call, self._seen()
        carried = self._filing.beyond_key(seen, self.call.fields).carried_part(self.environ)
        if carried:
            self._explain_names(seen, carried)
            return Answer(Verdict.PERSONAL, call, carried=carried, anybodys=False)
        if seen.own:
            self._explain(seen, seen.own)
            return Answer(Verdict.UNSTORABLE, call, anybodys=False, reason=seen.own)
        exchange = self._exchange(call.fields)
        judgement = self._judgement(exchange, seen, self._start)
        is_whole = content_length(call.fields) in (None, len(body)) and len(body) <= self.plan.max_entry_size
        if judgement.verdict is not Verdict.STORABLE or not is_whole:
            return Answer(Verdict.UNSTORABLE, call, reason=judgement.reason or Refusal(StoreRefusal.WRONG_LENGTH))
        filed = self._filing.filed(exchange, seen, judgement.windows, body, self._start)
        if filed is None:
            return Answer(Verdict.UNSTORABLE, call, reason=Refusal(StoreRefusal.TAGS_UNKNOWN))
        entry = filed.entry
        return Answer(Verdict.STORABLE, call, entry=entry, absent=entry.absent, beside=filed.beside, retry_after=self._pause())

    @property
    def varied(self) -> tuple[str, ...]:
        """The request fields that the answer depends on, as far as is known by now, beside those that it names itself."""
        return self._filing.varied(self._seen(), self.call.fields)

    def _pause(self) -> float | None:
        """Return for how long it is not made again, since its refresh has tried to renew what it is made of."""
        first = self.plan.engine.settings.refresh_backoff[0]
        return self.word.pause(time.time(), first) if self.word.in_background else None

    # -- a confirmation -------------------------------------------------------------------------------------------

    def _renewed(self, start: Start, previous: Entry) -> Answer | None:
        """Renew what is stored with the fields of a 304 (RFC 9111 section 4.3.4); ``None``: it is not for this request."""
        headers, seen = renewed(previous.headers, self.call.fields), self._seen()
        names = previous.absent | self._filing.beyond_key(seen, self.call.fields)
        if headers is None or seen.own or names.carried_part(self.environ) or self._filing.is_elsewhere(headers, previous, seen):
            return None
        exchange = self._exchange(list(headers), previous.status)
        judgement = self._judgement(exchange, seen, start)
        whole = self._filing.in_memory(previous)
        if whole is None:
            return None
        windows = self._filing.jittered(judgement.windows, seen, exchange)
        entry = self._filing.renewed(headers, exchange, windows, start, replace(whole, absent=names))
        # Where each use is confirmed anew there is nothing to remember of it, unless something has changed.
        is_same = entry.needs_confirming and previous.needs_confirming and entry.headers == previous.headers
        return Answer(Verdict.UNSTORABLE if is_same else judgement.verdict, self.call, entry=entry, renewed=True)

    def _seen_by_head(self, start: Start) -> Answer | None:
        """Renew what is stored if the answer to a HEAD has its validators, drop it if a GET would bring something else.

        RFC 9111 section 4.3.5. An answer without validators confirms nothing.
        """
        call, previous = self.call, start.previous
        if self.environ["REQUEST_METHOD"] != "HEAD" or call.code != 200 or previous is None or previous.status == INDEX:
            return None
        if previous.status != 200 or not confirmed_by_head(previous.headers, previous.length, call.fields):
            self.plan.engine.answer_writer.remove_if_unlocked(previous.key)
            return None
        headers, seen = renewed(previous.headers, call.fields), self._seen()
        if headers is None or not conditional_fields(call.fields) or self._filing.is_elsewhere(headers, previous, seen):
            return None
        if first_of(call.fields, "set-cookie") is not None:
            # It is for who asked, and may say more of them than what is stored for all.
            return None
        exchange = replace(self._exchange(list(headers)), method="GET")
        judgement = self._judgement(exchange, seen, start)
        if (
            judgement.verdict is not Verdict.STORABLE
            or seen.own
            or self._filing.beyond_key(seen, self.call.fields) != previous.absent
        ):
            return None
        whole, windows = self._filing.in_memory(previous), self._filing.jittered(judgement.windows, seen, exchange)
        if whole is None:
            return None
        return Answer(Verdict.STORABLE, call, entry=self._filing.renewed(headers, exchange, windows, start, whole))

    # -- a body that is still to come -----------------------------------------------------------------------------

    def land_later(self, landing: Callable[[Answer | None], object]) -> None:
        """Note what is to be called once the body is there."""
        self._landing = landing

    def copied(self) -> Copied:
        """Return the body to hand on; what comes through is stored once it is whole."""
        return Copied(self.call, self.plan.max_entry_size, content_length(self.call.fields), self._over)

    @property
    def serial(self) -> str:
        """The name of what is stored of its answer."""
        return "" if self._start is None else self._start.serial

    @property
    def finds_nothing(self) -> bool:
        """Whether nothing was stored when the app was asked."""
        return self._start is not None and self._start.previous is None

    def break_off(self) -> None:
        """Tell who waits for the body that it will not come."""
        self._over(None, False)

    def _over(self, body: bytes | None, is_too_large: bool) -> None:
        landing, self._landing = self._landing, None
        if landing is None:
            return
        if body is not None:
            landing(self._stored(body))
        else:
            landing(Answer(Verdict.UNSTORABLE, self.call, reason=_TOO_LARGE) if is_too_large else None)


def _label(seen: Observation) -> str:
    return "a response" if seen.endpoint is None else f"the endpoint {seen.endpoint}"
