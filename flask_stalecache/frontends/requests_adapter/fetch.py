"""What a third party is asked when a session needs an answer, and what becomes of that answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from requests import Response

from ...core.http.cache_control import RequestDirectives, response_directives
from ...core.http.dates import retry_after
from ...core.http.fields import content_length
from ...core.http.freshness import is_explicit
from ...core.http.validators import conditional_fields, confirmed_by_head, renewed
from ...core.http.vary import selecting_fields
from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES
from ...core.model.policy import Windows
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.rules.serving import ServeOptions
from ...core.rules.shared_cache import Exchange, entry_fields, judge_exchange
from ...core.rules.storability import Judgement, Verdict
from ...core.rules.variants import index_with, place_of
from ...engine.origin import Answer, Start
from .app_context import AppContext
from .request import CONDITIONS, OutgoingRequest
from .response import BODILESS, Head, fields_of, is_chunked, is_unread, keep_copy, let_go, made_again, phrase, read_whole
from .rules import UNSAID, SessionRules

NOTHING_SAID = RequestDirectives()
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What a third party is asked.

    :param plan: the app.
    :param rules: those of the session.
    :param sending: the request.
    :param url: the URL that is in the key.
    :param url_key: the key of the URL, whatever variants it has.
    :param environ: the request's fields under the names that a WSGI environ has for them.
    :param said: what the caller says of caching.
    :param terms: those of the app.
    """

    plan: AppContext
    rules: SessionRules
    sending: OutgoingRequest
    url: str
    url_key: str
    environ: Mapping[str, str]
    said: RequestDirectives
    terms: ServeOptions


@dataclass(frozen=True, slots=True)
class Failed:
    """What those who waited are given of a failure that is an answer."""

    head: Head
    body: bytes


class ThirdPartyFetch:
    """One question to a third party, and its answer.

    :param question: what is asked.
    :param start: what was noted before.
    :param until: when to stop reading the answer, on the monotonic clock; ``None``: as long as it takes.
    """

    def __init__(self, question: FetchRequest, start: Start, until: float | None = None) -> None:
        self.question = question
        self.plan = question.plan
        self._request = question.sending.request
        self.start = start
        self.until = until
        self._requested = self._answered = 0.0

    def answer(self) -> Answer:
        """Ask, and judge what comes."""
        start, sending = self.start, self.question.sending
        previous = None if start.is_marked or self._request.method != "GET" else start.previous
        asks = [] if previous is None else conditional_fields(previous.headers)
        # What can't be stored is the caller's own business, conditions and all.
        request = self._request if start.is_marked else sending.changed(CONDITIONS, asks)
        self._requested = time.time()
        try:
            response = sending.send(request, stream=True)
            self._answered = time.time()
            response.request = self._request
            if previous is not None and asks and response.status_code == 304:
                return self._renewed(response, previous) or self._again(response)
            return self._judged(response)
        except Exception as error:
            return Answer(Verdict.FAILED, error=error)

    def _again(self, response: Response) -> Answer:
        """Ask anew without a condition: the answer to ours can't be used."""
        let_go(response)
        return ThirdPartyFetch(self.question, self.start._replace(previous=None), self.until).answer()

    # -- judging -------------------------------------------------------------------------------------------------

    def _judged(self, response: Response) -> Answer:
        fields = fields_of(response)
        exchange = self._exchange(response.status_code, fields)
        judgement = self._judgement(exchange)
        limit, length = self.plan.settings.max_entry_size, content_length(fields)
        if judgement.verdict is Verdict.FAILED:
            return self._failed(response, exchange)
        if judgement.verdict is Verdict.UNSTORABLE or not is_unread(response) or (length is not None and length > limit):
            self._see_changed(response)
            return Answer(Verdict.UNSTORABLE, response)
        if self.question.sending.stream:
            return self._passed_on(response, exchange, judgement.windows, length)
        body = read_whole(response, limit, self.until)
        if body is None:
            return Answer(Verdict.UNSTORABLE, response)
        if length not in (None, len(body)):
            return Answer(Verdict.FAILED, response)
        return self._storable(response, response.reason or "", exchange, judgement.windows, body)

    def _exchange(self, status: int, fields: list[tuple[str, str]]) -> Exchange:
        return Exchange(
            method=self._request.method or "",
            authorized="HTTP_AUTHORIZATION" in self.question.environ,
            request=self.question.said,
            status=status,
            headers=fields,
            directives=response_directives(fields),
            requested=self._requested,
            answered=self._answered,
        )

    def _judgement(self, exchange: Exchange) -> Judgement:
        previous, now = self.start.previous, self._answered
        if exchange.status == TOO_MANY and not is_explicit(exchange.directives, exchange.headers):
            # It says nothing of what is asked for, only of who asks.
            return Judgement(Verdict.FAILED, Refusal(StoreRefusal.FAILED_STATUS, str(TOO_MANY)))
        has_copy = previous is not None and (previous.in_swr(now) or previous.in_sie(now))
        return judge_exchange(exchange, UNSAID, self.question.rules.policy, has_copy=has_copy)

    def _failed(self, response: Response, exchange: Exchange) -> Answer:
        """Return a failure that is an answer; others may be given it if it is short and has nobody's cookie."""
        field = response.headers.get("Retry-After", "") if exchange.status in (TOO_MANY, 503) else ""
        pause = retry_after(field, self._answered)
        shared = None
        if not self.question.sending.stream and is_unread(response):
            body = read_whole(response, self.plan.settings.max_entry_size, self.until)
            if body is not None and "Set-Cookie" not in response.headers:
                shared = Failed(Head.of(exchange.status, response.reason or "", fields_of(response)), body)
        return Answer(Verdict.FAILED, response, shared=shared, retry_after=pause)

    def _see_changed(self, response: Response) -> None:
        """Drop what is stored if the answer to a HEAD shows that a GET would bring something else (RFC 9111 section 4.3.5)."""
        previous, request = self.start.previous, self._request
        if request.method != "HEAD" or response.status_code != 200 or previous is None:
            return
        if not confirmed_by_head(previous.headers, len(previous.body), fields_of(response)):
            self.plan.engine.answer_writer.remove_if_unlocked(previous.key)

    # -- storing -------------------------------------------------------------------------------------------------

    def _passed_on(self, response: Response, exchange: Exchange, windows: Windows, length: int | None) -> Answer:
        """Let a caller who streams read the body as it comes; what has passed is stored, and nobody waits for that."""
        if length is not None and not is_chunked(response):
            # Nothing here refers to the response: left unread, it is let go of at once, and its connection with it.
            keep_copy(response, length, partial(self._settle, response.reason or "", exchange, windows))
        return Answer(Verdict.PERSONAL, response, anybodys=False)

    def _settle(self, reason: str, exchange: Exchange, windows: Windows, body: bytes) -> None:
        answer = self._storable(None, reason, exchange, windows, body)
        assert answer.entry is not None
        self.plan.engine.answer_writer.write_if_unlocked(answer.entry.key, answer)

    def _storable(self, value: Response | None, reason: str, exchange: Exchange, windows: Windows, body: bytes) -> Answer:
        question = self.question
        fields = tuple(name for name in selecting_fields(exchange.headers) or () if name not in question.rules.policy.vary)
        index = self.plan.engine.look_up(question.url_key).entry
        place = place_of(question.url_key, fields, question.environ.get, index)
        entry = self._entry(place.key, exchange, windows, reason, body)
        beside = None if place.is_known else index_with(fields, index, entry, question.url_key)
        return Answer(Verdict.STORABLE, value, entry=entry, beside=beside)

    def _entry(self, key: str, exchange: Exchange, windows: Windows, reason: str, body: bytes) -> Entry:
        question = self.question
        return self.start.build_entry(
            question.terms,
            key=key,
            names=question.rules.names(question.url, self.plan.settings),
            absent=NO_NAMES,
            varied=(),
            status=exchange.status,
            body=body,
            # Of the request's fields none: they may be secrets, and whoever asks again has them.
            recipe={"url": question.url, "reason": reason},
            **entry_fields(exchange, windows),
        )

    def _renewed(self, response: Response, previous: Entry) -> Answer | None:
        """Renew what is stored with the fields of a 304 (RFC 9111 section 4.3.4); ``None``: it is about something else."""
        headers = renewed(previous.headers, fields_of(response))
        if headers is None:
            return None
        let_go(response)
        exchange = self._exchange(previous.status, list(headers))
        judgement = self._judgement(exchange)
        entry = self.start.renew_entry(previous, self.question.terms, **entry_fields(exchange, judgement.windows))
        made = made_again(self._request, head_of(entry), entry.body, response.connection, response.raw)
        return Answer(judgement.verdict, made, entry=entry, renewed=True)


def head_of(entry: Entry) -> Head:
    """Return the head with which an entry is given to callers."""
    fields = [(name, value) for name, value in entry.headers if name.lower() != "age"]
    if entry.status not in BODILESS:
        fields.append(("Content-Length", str(len(entry.body))))
    reason = entry.recipe.get("reason")
    return Head.of(entry.status, reason if isinstance(reason, str) else phrase(entry.status), fields)
