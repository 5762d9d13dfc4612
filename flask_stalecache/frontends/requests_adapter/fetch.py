"""Sends a request to a third party, and judges its answer.

============= ==================================================================================================================
FAILED        the third party can't be reached, breaks off, or answers 429, 500, 502, 503 or 504: the stored response is kept
UNSTORABLE    its headers forbid storing it, or the body is too large or was read already; an answer to a HEAD may end the
              freshness of the stored response
PERSONAL      a caller streams the body: it is stored once it was read, and no other caller waits for that
STORABLE      it is stored now; also a 304, which renews the stored response
============= ==================================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from requests import Response

from ...core.http.cache_control import RequestDirectives, response_directives
from ...core.http.credentials import credentials_in
from ...core.http.dates import retry_after
from ...core.http.fields import content_length
from ...core.http.freshness import is_explicit
from ...core.http.vary import selecting_fields
from ...core.model.entry import Entry
from ...core.model.inputs import NO_NAMES
from ...core.model.policy import TOO_MANY, Windows
from ...core.model.reasons import Refusal, StoreRefusal
from ...core.responses.validators import conditional_fields, confirmed_by_head, renewed
from ...core.rules.serving import ServeOptions
from ...core.rules.shared_cache import Exchange, entry_fields, judge_exchange
from ...core.rules.storability import Judgement, Verdict, is_about_page
from ...core.rules.variant_index import index_with
from ...core.rules.variants import place_of
from ...engine.flights.stream_pace import StreamPace
from ...engine.origin import Answer, Start
from ..request.request_origin import all_fields
from .app_context import AppContext
from .request import CONDITIONS, OutgoingRequest
from .response import BODILESS, ResponseHead, fields_of, is_chunked, is_unread, keep_copy, let_go, phrase, read_whole, response_from
from .rules import UNSAID, SessionRules

NOTHING_SAID = RequestDirectives()


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A request for a third party.

    :param context: the app.
    :param rules: the rules of the session.
    :param outgoing: the request.
    :param url: the URL in the key.
    :param url_key: the key of the URL, without variants.
    :param environ: the request fields under their names in a WSGI environ.
    :param said: the caller's Cache-Control.
    :param terms: the serving options of the app.
    """

    context: AppContext
    rules: SessionRules
    outgoing: OutgoingRequest
    url: str
    url_key: str
    environ: Mapping[str, str]
    said: RequestDirectives
    terms: ServeOptions


@dataclass(frozen=True, slots=True)
class Failed:
    """A response that is a failure, for the callers that waited for it."""

    head: ResponseHead
    body: bytes


class ThirdPartyFetch:
    """One request to a third party, and its response.

    :param request: the request.
    :param start: what the engine noted before the call.
    :param until: when to stop reading the response, on the monotonic clock; ``None``: no limit.
    """

    def __init__(self, request: FetchRequest, start: Start, until: float | None = None) -> None:
        self.request = request
        self.context = request.context
        self._prepared = request.outgoing.request
        self.start = start
        self.until = until
        self._requested = self._answered = 0.0

    def run(self) -> Answer:
        """Send the request, and judge the response."""
        start, outgoing = self.start, self.request.outgoing
        previous = None if start.is_marked or self._prepared.method != "GET" else start.previous
        conditions = [] if previous is None else conditional_fields(previous.headers)
        # If the response can't be stored anyway, the caller's conditions are between the caller and the third party.
        prepared = self._prepared if start.is_marked else outgoing.changed(CONDITIONS, conditions)
        self._requested = time.time()
        try:
            response = outgoing.send(prepared, stream=True)
            self._answered = time.time()
            response.request = self._prepared
            if previous is not None and conditions and response.status_code == 304:
                return self._confirmed(response, previous) or self._send_without_condition(response)
            return self._judge_response(response)
        except Exception as error:
            return Answer(Verdict.FAILED, error=error)

    def _send_without_condition(self, response: Response) -> Answer:
        """Send the request again: the 304 does not confirm what is stored."""
        let_go(response)
        return ThirdPartyFetch(self.request, self.start._replace(previous=None), self.until).run()

    # -- judging -------------------------------------------------------------------------------------------------

    def _judge_response(self, response: Response) -> Answer:
        fields = fields_of(response)
        exchange = self._exchange(response.status_code, fields)
        judgement = self._judge(exchange)
        limit, length = self.context.settings.max_entry_size, content_length(fields)
        if judgement.verdict is Verdict.FAILED:
            return self._failed(response, exchange)
        if judgement.verdict is Verdict.UNSTORABLE or not is_unread(response) or (length is not None and length > limit):
            self._compare_with_head(response)
            return self._unstorable(response, fields, judgement.reason)
        if self.request.outgoing.stream:
            return self._passed_on(response, exchange, judgement.windows, length)
        body = read_whole(response, limit, self.until)
        if body is None:
            return self._unstorable(response, fields, Refusal(StoreRefusal.TOO_LARGE))
        if length not in (None, len(body)):
            # The connection broke off without an error.
            return Answer(Verdict.FAILED, response)
        return self._storable(response, response.reason or "", exchange, judgement.windows, body)

    def _unstorable(self, response: Response, fields: list[tuple[str, str]], reason: Refusal | None) -> Answer:
        """Return a response that can't be stored. If it may be for its caller alone, it says nothing about the stored response."""
        anybodys = not credentials_in(self.request.environ) and is_about_page(response.status_code, fields)
        return Answer(Verdict.UNSTORABLE, response, anybodys=anybodys, reason=reason)

    def _exchange(self, status: int, fields: list[tuple[str, str]]) -> Exchange:
        return Exchange(
            method=self._prepared.method or "",
            authorized="HTTP_AUTHORIZATION" in self.request.environ,
            request=self.request.said,
            status=status,
            headers=fields,
            directives=response_directives(fields),
            requested=self._requested,
            answered=self._answered,
        )

    def _judge(self, exchange: Exchange) -> Judgement:
        previous, now = self.start.previous, self._answered
        if exchange.status == TOO_MANY and not is_explicit(exchange.directives, exchange.headers):
            # A 429 is about the caller's rate, not about the resource.
            return Judgement(Verdict.FAILED, Refusal(StoreRefusal.FAILED_STATUS, str(TOO_MANY)))
        has_copy = previous is not None and (previous.in_swr(now) or previous.in_sie(now))
        return judge_exchange(exchange, UNSAID, self.request.rules.policy, has_copy=has_copy)

    def _failed(self, response: Response, exchange: Exchange) -> Answer:
        """Return a failed response. Waiting callers with the same request share it if it is not too large and sets no cookie."""
        field = response.headers.get("Retry-After", "") if exchange.status in (TOO_MANY, 503) else ""
        pause = retry_after(field, self._answered)
        shared = None
        if not self.request.outgoing.stream and is_unread(response):
            body = read_whole(response, self.context.settings.max_entry_size, self.until)
            if body is not None and "Set-Cookie" not in response.headers:
                shared = Failed(ResponseHead.of(exchange.status, response.reason or "", fields_of(response)), body)
        bare = Failed(ResponseHead.of(exchange.status, phrase(exchange.status), [("Content-Length", "0")]), b"")
        asked = all_fields(self.request.environ)
        return Answer(Verdict.FAILED, response, shared=shared, bare=bare, asked=asked, retry_after=pause)

    def _compare_with_head(self, response: Response) -> None:
        """Make the stored response stale if a HEAD shows that a GET would return another one (RFC 9111 section 4.3.5)."""
        previous, prepared = self.start.previous, self._prepared
        if prepared.method != "HEAD" or response.status_code != 200 or previous is None:
            return
        if not confirmed_by_head(previous.headers, len(previous.body), fields_of(response)):
            self.context.engine.answer_writer.end_freshness(previous)

    # -- storing -------------------------------------------------------------------------------------------------

    def _passed_on(self, response: Response, exchange: Exchange, windows: Windows, length: int | None) -> Answer:
        """Let a caller that streams read the body as it comes, and store it once it was read."""
        if length is not None and not is_chunked(response):
            # Nothing here refers to the response, so an unread one is freed immediately, together with its connection.
            copy = self.context.engine.runtime.begin_copy(StreamPace())
            keep_copy(response, copy, length, partial(self._write, response.reason or "", exchange, windows))
        return Answer(Verdict.PERSONAL, response, anybodys=False)

    def _write(self, reason: str, exchange: Exchange, windows: Windows, body: bytes) -> None:
        answer = self._storable(None, reason, exchange, windows, body)
        if answer.entry is not None:
            self.context.engine.answer_writer.write_if_unlocked(answer.entry.key, answer)

    def _storable(self, value: Response | None, reason: str, exchange: Exchange, windows: Windows, body: bytes) -> Answer:
        request = self.request
        fields = tuple(name for name in selecting_fields(exchange.headers) or () if name not in request.rules.policy.vary)
        index = self.context.engine.look_up(request.url_key).entry
        place = place_of(request.url_key, fields, request.environ.get, index, self.context.engine.is_in_use)
        if place is None:
            return Answer(Verdict.UNSTORABLE, value, reason=Refusal(StoreRefusal.TOO_MANY_VARIANTS, " and ".join(fields)))
        entry = self._entry(place.key, exchange, windows, reason, body)
        beside = None if place.listing is None else index_with(place.listing, entry, request.url_key)
        return Answer(Verdict.STORABLE, value, entry=entry, beside=beside)

    def _entry(self, key: str, exchange: Exchange, windows: Windows, reason: str, body: bytes) -> Entry:
        request = self.request
        return self.start.build_entry(
            request.terms,
            key=key,
            names=request.rules.names(request.url, self.context.settings),
            absent=NO_NAMES,
            varied=(),
            status=exchange.status,
            body=body,
            # No request fields: they may be secrets, and the next caller brings its own.
            recipe={"url": request.url, "reason": reason},
            **entry_fields(exchange, windows),
        )

    def _confirmed(self, response: Response, previous: Entry) -> Answer | None:
        """Renew the stored response with the fields of a 304 (RFC 9111 section 4.3.4); ``None`` if it is about another one."""
        headers = renewed(previous.headers, fields_of(response))
        if headers is None:
            return None
        let_go(response)
        exchange = self._exchange(previous.status, list(headers))
        judgement = self._judge(exchange)
        entry = self.start.renew_entry(previous, self.request.terms, **entry_fields(exchange, judgement.windows))
        made = response_from(self._prepared, head_of(entry), entry.body, response.connection, response.raw)
        return Answer(judgement.verdict, made, entry=entry, renewed=True)


def head_of(entry: Entry) -> ResponseHead:
    """Return the head of an entry for the response to a caller."""
    fields = [(name, value) for name, value in entry.headers if name.lower() != "age"]
    if entry.status not in BODILESS:
        fields.append(("Content-Length", str(len(entry.body))))
    reason = entry.recipe.get("reason")
    return ResponseHead.of(entry.status, reason if isinstance(reason, str) else phrase(entry.status), fields)
