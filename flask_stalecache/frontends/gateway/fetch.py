"""Calls the app behind the gateway, and judges its answer.

One :class:`AppFetch` is one call. Its steps:

============= ==================================================================================================================
call          with the client's conditions replaced by those of the stored response, if the answer may be stored
observe       which parts of the request the app read, and whether a view with ``cached()`` answered
judge         status and fields: by HTTP, by the policy in code, and by the rules
name inputs   the cookies and fields of this request that the answer depends on and that the key does not contain
read          the body: immediately if it is complete, else while the client reads it
repeat        observe, name inputs and judge once more, since the app may read the request while it makes the body
build         the entry
============= ==================================================================================================================

The outcomes:

============= ==================================================================================================================
FAILED, WORSE the stored response is kept; waiting requests share the failure, unless it may be one visitor's own
PERSONAL      the answer depends on something that this request carries: the next visitor without it may fill the store
UNSTORABLE    HTTP, code or a rule forbids storing the answer; one to a HEAD may renew the stored response or end its freshness
STORABLE      the answer is stored: now, or (``later``) once the whole body was sent
============= ==================================================================================================================

A 304 goes through the same steps as the response that it confirms, so both are in this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...core.exhaustive import assert_never
from ...core.http.cache_control import RequestDirectives, response_directives
from ...core.http.fields import content_length, first_of
from ...core.http.unset import sessions_set
from ...core.http.vary import STAR
from ...core.model.entry import Entry
from ...core.model.environ import REFRESHING
from ...core.model.policy import FAILURE_STATUSES, TOO_MANY
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.responses.validators import conditional_fields, confirmed_by_head, renewed
from ...core.rules.cacheability import Cacheability, collected_by, current
from ...core.rules.named import NOTHING_NAMED, NamedValues
from ...core.rules.shared_cache import Exchange
from ...core.rules.storability import Judgement, Verdict, refuses_who_asks
from ...core.rules.variant_index import INDEX
from ...engine.flights.stream_pace import StreamPace
from ...engine.origin import Answer, Start
from ...stats.tally import UNCOUNTED, Tally
from ..request.request_body import has_unannounced_body
from ..request.request_origin import all_fields
from .app_environ import environ_for_app
from .backend import Backend, Observation
from .judging.dependence import fields_of_answer
from .judging.entry_builder import EntryBuilder
from .judging.failures import LIMIT, bare_failure
from .judging.response_judge import ResponseJudge, observed_of
from .judging.visitor_judge import VisitorJudge
from .rules import Rule
from .wsgi_call import AppCall, Copied

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NOTHING_SAID = RequestDirectives()


class AppFetch:
    """One call of the app, and its answer.

    :param backend: the app behind the gateway.
    :param rule: the rule for the path.
    :param environ: the request that the answer is for.
    :param url_key: the key of its URL.
    :param start_response: the server's; ``None`` for a background refresh.
    :param named: the request's cookies and session values that the rule names.
    :ivar call: the app's response.
    :ivar is_ours: a view with ``cached()`` answered, and did its own caching.
    :ivar counts: the counters for why the request was not answered from the store, if that depends on the rest of the body.
    :ivar ended: the answer, once a body that was still to come has ended.
    """

    def __init__(
        self,
        backend: Backend,
        rule: Rule,
        environ: WSGIEnvironment,
        url_key: str,
        start_response: StartResponse | None,
        named: NamedValues = NOTHING_NAMED,
    ) -> None:
        self.backend = backend
        self.rule = rule
        self.environ = environ
        self.url_key = url_key
        self.cacheability = Cacheability(current(), in_background=REFRESHING in environ, is_of_request=True)
        self.call = AppCall(start_response, partial(collected_by, self.cacheability))
        self._response_judge = ResponseJudge(backend, rule, self.cacheability, environ.get("PATH_INFO", ""))
        self._entries = EntryBuilder(backend, rule, environ, url_key, self.cacheability, named)
        self._visitor = VisitorJudge(backend, rule, environ, self._entries)
        self._start_response = start_response
        self._named = named
        self._given: WSGIEnvironment = environ
        self._start: Start | None = None
        self._answered = 0.0
        self._said = NOTHING_SAID
        self.is_ours = False
        self.counts: Tally | None = None
        self.ended: Answer | None = None
        self._has_removed_conditions = False
        #: Whether the request is a GET without a body.
        self._is_plain = False
        #: How fast the client reads a body that is passed on as it comes.
        self._pace = StreamPace()
        self._on_complete: Callable[[Answer | None], object] | None = None

    # -- call ----------------------------------------------------------------------------------------------------

    def call_uncached(self) -> Answer:
        """Call the app as if there were no gateway."""
        self._given = self.backend.observe.hand_in(self.environ.copy())
        try:
            self.call.make(self.backend.app, self._given)
        except Exception as error:
            return replace(self._raised(Verdict.UNSTORABLE, error), failed=True)
        return Answer(Verdict.UNSTORABLE, value=self.call, failed=self.call.code in FAILURE_STATUSES)

    def _raised(self, verdict: Verdict, error: Exception) -> Answer:
        if self.call.is_sent:
            # The app has used write(): no other response can be sent in its place.
            raise error
        # The reads of an app that raises are not all observed, so only requests that are alike may share the failure.
        return Answer(verdict, error=error, asked=all_fields(self.environ))

    def run(self, start: Start, said: RequestDirectives = NOTHING_SAID, *, confirms: bool = True) -> Answer:
        """Call the app and judge its answer.

        :param start: the facts that the engine recorded before the call.
        :param said: the client's Cache-Control, if it is obeyed.
        :param confirms: the app may confirm the stored response with a 304.
        """
        self._start, self._said, previous = start, said, start.previous
        if self._is_stripped and (refusal := self.backend.own_answers.of(self.url_key, self._named)) is not None:
            return replace(self.call_uncached(), anybodys=False, reason=refusal)
        # If the answer can't be stored anyway, the app itself answers the client's conditions.
        is_plain = self.environ["REQUEST_METHOD"] == "GET" and not has_unannounced_body(self.environ)
        self._is_plain = is_plain
        may_store = is_plain and not start.is_marked and not start.is_lasting
        self._has_removed_conditions = may_store
        more = self.backend.refresh_headers if self.cacheability.in_background else {}
        known = previous if confirms else None
        given = environ_for_app(self.environ, self.rule, known, more, removes_conditions=may_store, has_body=not is_plain)
        self._given = self.backend.observe.hand_in(given, partial(self._entries.tell, start))
        try:
            self.call.make(self.backend.app, self._given)
            self._answered = time.time()
            if previous is None or self.call.code != 304 or not may_store:
                answer = self._judge_response(start)
                return self._with_own_cookies(answer) if self._is_stripped else answer
        except Exception as error:
            return self._raised(Verdict.FAILED, error)
        return self._confirmed(start, previous) or self._fetch_without_condition(start)

    # -- the visitor's own answer ----------------------------------------------------------------------------------

    @property
    def _is_stripped(self) -> bool:
        """Whether the visitor has cookies that are hidden from the app when its answer may be stored."""
        cookie = self.environ.get("HTTP_COOKIE")
        return self.rule.hides_cookies and cookie is not None and cookie != self._named.cookie

    def _with_own_cookies(self, answer: Answer) -> Answer:
        """Return the answer. If it can't be stored, return the answer of a second call, with all of the visitor's cookies."""
        if answer.verdict not in (Verdict.UNSTORABLE, Verdict.PERSONAL) or answer.value is not self.call or self.call.is_sent:
            return answer
        is_refused = 400 <= self.call.code < 500 and refuses_who_asks(self.call.code)
        if self._is_plain and answer.verdict is Verdict.UNSTORABLE and not is_refused:
            # The reason is not this visitor, so for a while all visitors get their own answer by the first call.
            self.backend.own_answers.note(self.url_key, self._named, answer.reason)
        self.call.close()
        self.call = AppCall(self._start_response, partial(collected_by, self.cacheability))
        self._has_removed_conditions = False
        own = self.call_uncached()
        return replace(answer, value=own.value, error=own.error, failed=own.failed, entry=None, renewed=False)

    def _fetch_without_condition(self, start: Start) -> Answer:
        """Call the app again, without conditions: its 304 does not confirm the stored response for this request."""
        self.call.close()
        self.call = AppCall(self._start_response, partial(collected_by, self.cacheability))
        return self.run(start._replace(previous=None), self._said)

    # -- observe -------------------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        """Return how the app came to its answer."""
        seen = self.backend.observe(self._given, self.rule.ignored)
        return observed_of(seen, self.call, None if self._start is None else self._start.previous)

    @property
    def tally(self) -> Tally:
        """The counters of the endpoint that answered. A view with ``cached()`` has counted the request itself."""
        seen = self.observe()
        return UNCOUNTED if seen.is_ours else self.backend.tally(seen.endpoint, self.rule.pattern)

    @property
    def answers_conditions(self) -> bool:
        """Whether the gateway answers conditions and range from the app's whole response, since the app and its cache have not."""
        seen = self.observe()
        return self._has_removed_conditions or not (seen.is_ours or (self.backend.only_coded and not seen.policy.gateway))

    def varied(self, answer: Answer) -> set[str]:
        """Return the request fields that the answer depends on by now, in lower case; a star if fields can't express it."""
        seen, fields = self.observe(), self.call.fields
        own = self._entries.own(seen, fields)
        named = fields_of_answer(self.backend, self.rule, self.environ, seen, fields, own)
        # A stream may still read anything. If it is stored, its hits name the fields that it has read.
        return {STAR} if seen.is_stream and answer.entry is None and not seen.is_ours else named

    def _exchange(self, fields: list[tuple[str, str]], status: int = 0) -> Exchange:
        return Exchange(
            method=self.environ["REQUEST_METHOD"],
            authorized="HTTP_AUTHORIZATION" in self.environ,
            request=self._said,
            status=status or self.call.code,
            headers=fields,
            directives=response_directives(fields),
            # A WSGI app is the origin itself: the time that it takes does not count as age.
            requested=self._answered,
            answered=self._answered,
        )

    def _fields_to_store(self, seen: Observation) -> list[tuple[str, str]]:
        return self._response_judge.fields_to_store(self.call.fields, seen)

    def fields_for(self, answer: Answer) -> list[tuple[str, str]]:
        """Return the fields to send to the client: if the answer is stored for others too, without those that are unset."""
        is_shared = answer.verdict is Verdict.STORABLE or (answer.renewed and answer.verdict is not Verdict.PERSONAL)
        seen = self.observe()
        # The visitor whose request fills the store also gets the cookie of their session, if the app has set it.
        return [*self._fields_to_store(seen), *sessions_set(self.call.fields, seen.harmless)] if is_shared else self.call.fields

    # -- judge ---------------------------------------------------------------------------------------------------

    def _judge_response(self, start: Start) -> Answer:
        """Judge the answer by its head, then read its body or leave that to the client."""
        call = self.call
        if not call.status:
            return Answer(Verdict.FAILED, call, reason=Refusal(StoreRefusal.START_RESPONSE_NOT_CALLED))
        seen = self.observe()
        self.is_ours = seen.is_ours
        judgement = self._judge(self._exchange(self._fields_to_store(seen)), seen, start)
        self.backend.endpoints.learn(self.environ, seen.endpoint, call.code, judgement)
        if judgement.verdict.keeps_copy:
            return self._failed(judgement, start)
        if self._visitor.is_refused_refresh(call, seen, judgement):
            reason = Refusal(StoreRefusal.NOT_BY_VIEW, str(call.code))
            return Answer(Verdict.FAILED, call, anybodys=False, retry_after=self._response_judge.pause(call), reason=reason)
        # Before UNSTORABLE: whatever forbids storing (private, a cookie set) may itself be due to this visitor.
        personal = None if seen.is_ours else self._visitor.personal(self.call, seen)
        if personal is not None:
            return personal
        match judgement.verdict:
            case Verdict.STORABLE:
                return self._visitor.own(self.call, seen) or self._visitor.guarded(self.call, seen) or self._read_body(start)
            case Verdict.UNSTORABLE:
                self._visitor.explain(self.call, seen, judgement.reason)
                return self._compared_with_head(start) or self._visitor.unstorable(self.call, seen, judgement.reason)
            case Verdict.FAILED | Verdict.WORSE | Verdict.PERSONAL | Verdict.REFUSED:
                # The first two were returned above, and a response that has arrived is never judged as one of the others.
                raise AssertionError(judgement.verdict)
            case _:
                return assert_never(judgement.verdict)

    def _read_body(self, start: Start) -> Answer:
        """Build the entry if the body is a list or ends with its first chunk; else have it copied while the client reads it."""
        call = self.call
        body = call.whole()
        if body is not None:
            return self._complete(body)
        judged, begun = call.fields, call.begun()
        if call.fields is not judged:
            # The app has called start_response again, with an error: the judged response is not sent.
            return self._judge_response(start)
        if begun is None:
            return Answer(Verdict.UNSTORABLE, call, reason=Refusal(StoreRefusal.NOT_BYTES))
        length = content_length(judged)
        if length is None or len(begun) < length:
            return Answer(Verdict.STORABLE, call, later=self.when_complete, pace=self._pace)
        return self._complete(begun)

    def _judge(self, exchange: Exchange, seen: Observation, start: Start) -> Judgement:
        return self._response_judge.judge(exchange, self.call, seen, start.previous, self._said.stale_if_error or 0.0)

    def _failed(self, judgement: Judgement, start: Start) -> Answer:
        """Return the answer as a failure, with the parts of it that other requests may share."""
        call, judged = self.call, self.call.fields
        if judgement.verdict is Verdict.WORSE:
            return Answer(Verdict.WORSE, call, retry_after=self._response_judge.pause(call), reason=judgement.reason)
        length = content_length(judged)
        if (body := call.whole()) is None and length is not None and length <= LIMIT and self.environ["REQUEST_METHOD"] == "GET":
            body = call.ahead(length)
        if call.fields is not judged:
            # The app has called start_response again, with an error: the judged response is not sent.
            return self._judge_response(start)
        seen = self.observe()
        names = self._entries.beyond_key(seen, judged)
        carried = self._visitor.carried_part(names, seen)
        failed = Answer(judgement.verdict, call, retry_after=self._response_judge.pause(call), reason=judgement.reason)
        if call.code == TOO_MANY:
            # A 429 is about the rate of this visitor's requests.
            return replace(failed, anybodys=False)
        failed = replace(failed, carried=carried, anybodys=not carried, absent=names, bare=bare_failure(call.code, judged))
        if body is None or carried:
            return failed
        return self._visitor.with_page(call, seen, failed, body, self.varied(failed))

    # -- build -----------------------------------------------------------------------------------------------------

    def _complete(self, body: bytes) -> Answer:
        """Observe and judge once more, now that the app has made the whole body, and build the entry."""
        assert self._start is not None
        call, seen = self.call, self.observe()
        kept_out = self._visitor.personal(self.call, seen) or self._visitor.own(self.call, seen)
        if kept_out is not None:
            return kept_out
        exchange = self._exchange(self._fields_to_store(seen))
        judgement = self._judge(exchange, seen, self._start)
        is_whole = content_length(call.fields) in (None, len(body)) and len(body) <= self.backend.max_entry_size
        if judgement.verdict is not Verdict.STORABLE or not is_whole:
            return self._visitor.unstorable(self.call, seen, judgement.reason or Refusal(StoreRefusal.WRONG_LENGTH))
        if (random := self._entries.made_for_one(call.fields, body, seen, self._start.previous)) is not None:
            self._visitor.explain(self.call, seen, random)
            return Answer(Verdict.UNSTORABLE, call, anybodys=False, reason=random)
        if traced := self._entries.traced(exchange.headers, body):
            refusal = Refusal(StoreRefusal.TRACED, " and ".join(traced.headers))
            self._visitor.explain(self.call, seen, refusal)
            return Answer(Verdict.PERSONAL, call, carried=traced, anybodys=False, reason=refusal)
        built = self._entries.build(exchange, seen, judgement.windows, body, self._start)
        if isinstance(built, Refusal):
            self._visitor.explain(self.call, seen, built)
            return Answer(Verdict.UNSTORABLE, call, reason=built)
        entry, pause = built.entry, self._response_judge.pause(call)
        return Answer(Verdict.STORABLE, call, entry=entry, absent=entry.absent, beside=built.beside, retry_after=pause)

    # -- a confirmation --------------------------------------------------------------------------------------------

    def _confirmed(self, start: Start, previous: Entry) -> Answer | None:
        """Renew the stored response with the fields of a 304 (RFC 9111 section 4.3.4); ``None`` if it is about another one."""
        seen = self.observe()
        headers = renewed(previous.headers, self._fields_to_store(seen))
        names = previous.absent | self._entries.beyond_key(seen, self.call.fields)
        if (
            headers is None
            or self._entries.own(seen, self.call.fields)
            or self._visitor.carried_part(names, seen)
            or self._entries.is_elsewhere(headers, previous, seen)
        ):
            return None
        self.is_ours = seen.is_ours
        exchange = self._exchange(list(headers), previous.status)
        judgement = self._judge(exchange, seen, start)
        whole = self._entries.in_memory(previous)
        if whole is None:
            return None
        windows = self._entries.jittered(judgement.windows, seen, exchange)
        entry = self._entries.renewed(exchange, windows, start, replace(whole, absent=names))
        # A response that needs confirming at each use is not written at each use, unless its fields have changed.
        is_same = entry.needs_confirming and previous.needs_confirming and entry.headers == previous.headers
        verdict, carried = Verdict.UNSTORABLE if is_same else judgement.verdict, self._visitor.credentials(seen)
        if carried and (verdict is not Verdict.STORABLE or self._visitor.guarded(self.call, seen)):
            # The fields of the 304 are for this visitor alone.
            verdict = Verdict.PERSONAL
        return Answer(verdict, self.call, entry=entry, renewed=True, carried=carried, anybodys=not carried)

    def _compared_with_head(self, start: Start) -> Answer | None:
        """Renew the stored response if the answer to a HEAD has its validators; end its freshness if a GET would return another.

        RFC 9111 section 4.3.5. An answer without validators confirms nothing.
        """
        call, previous = self.call, start.previous
        if self.environ["REQUEST_METHOD"] != "HEAD" or call.code != 200 or previous is None or previous.status == INDEX:
            return None
        seen = self.observe()
        fields = self._fields_to_store(seen)
        if previous.status != 200 or not confirmed_by_head(previous.headers, previous.length, fields):
            if not seen.own and not self._visitor.credentials(seen):
                self.backend.engine.answer_writer.end_freshness(previous)
            return None
        headers = renewed(previous.headers, fields)
        if headers is None or not conditional_fields(fields) or self._entries.is_elsewhere(headers, previous, seen):
            return None
        if first_of(fields, "set-cookie") is not None:
            # The answer is meant for this visitor, so its fields must not replace those of the response that is stored for all.
            return None
        exchange = replace(self._exchange(list(headers)), method="GET")
        judgement = self._judge(exchange, seen, start)
        names = self._entries.beyond_key(seen, call.fields)
        if judgement.verdict is not Verdict.STORABLE or names != previous.absent:
            return None
        whole, windows = self._entries.in_memory(previous), self._entries.jittered(judgement.windows, seen, exchange)
        if whole is None:
            return None
        return Answer(Verdict.STORABLE, call, entry=self._entries.renewed(exchange, windows, start, whole))

    # -- a body that the client reads ------------------------------------------------------------------------------

    def when_complete(self, callback: Callable[[Answer | None], object]) -> None:
        """Set the callback. It is called with the answer once the body is complete, or with ``None`` if it broke off."""
        self._on_complete = callback

    def copied(self) -> Copied:
        """Return the body for the client. A copy of it is stored once it is complete."""
        copy, limit = self.backend.engine.runtime.begin_copy(self._pace), self.backend.max_entry_size
        return Copied(self.call, copy, limit, content_length(self.call.fields), self._body_ended)

    @property
    def serial(self) -> str:
        """The serial of the entry that its answer becomes."""
        return "" if self._start is None else self._start.serial

    @property
    def finds_nothing(self) -> bool:
        """Whether nothing was stored when the app was called."""
        return self._start is not None and self._start.previous is None

    def break_off(self) -> None:
        """Release the requests that wait for the body: it will not be completed."""
        self._body_ended(None, None)

    def _body_ended(self, body: bytes | None, why: StoreRefusal | None) -> None:
        callback, self._on_complete = self._on_complete, None
        if callback is None:
            return
        cut = None if why is None else self._visitor.cut_short(self.call, self.observe(), why)
        self.ended = answer = cut if body is None else self._complete(body)
        if self.counts is not None:
            self.counts.because(StoreRefusal.BROKEN_OFF if answer is None else answer.why_no_hit)
        callback(answer)
