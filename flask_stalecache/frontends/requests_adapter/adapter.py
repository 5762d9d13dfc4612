"""An adapter for ``requests`` that is a shared HTTP cache, controlled by the headers of the third parties."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter

from ...core.http.fields import Lookup
from ...core.http.invalidation import SAFE_METHODS, invalidated
from ...core.model.entry import Entry
from ...core.model.reasons import BypassReason, MissReason
from ...core.responses.conditional import Extent, select
from ...core.responses.validators import fields_of_304
from ...core.rules import cacheability
from ...core.rules.status import CacheStatus, forwarded_field, status_fields
from ...core.rules.storability import Verdict
from ...engine.origin import Answer, Served, is_served
from ...errors import ConfigError, StoreError
from ...stores.base import Copy
from ..middleware import submit_at_close
from ..request.request_hints import hints_of_request
from ..response.status_headers import fields_for_answer, fields_for_copy
from ..setup.current_app import cache_of_current_app
from .app_context import AppContext
from .fetch import Failed, head_of
from .origin import SessionOrigin
from .request import CONDITIONS, OutgoingRequest, environ_of, has_failed, text_of
from .response import Fields, ResponseHead, fields_of, response_from
from .rules import SessionRules
from .url_key import key_url

#: Request fields that ask for a part, or set a condition that no stored response answers.
_PAST_STORE = ("Range", "If-Range", "If-Match", "If-Unmodified-Since")


class CachingAdapter(BaseAdapter):
    """An adapter for ``requests`` that answers from the store where it may, and sends the other requests through another adapter.

    It caches only in app contexts of apps with caching on. Otherwise it sends every request.

    :param rules: the developer's rules.
    :param adapter: sends requests to third parties.
    """

    def __init__(self, rules: SessionRules, adapter: BaseAdapter) -> None:
        super().__init__()
        self._rules = rules
        self._adapter = adapter

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Answer a request as any adapter does, with ``Cache-Status`` and ``from_cache`` on the response.

        :param stream: the caller reads the body as it comes. It is stored once it was read, if the response has a Content-Length.
        :raises requests.RequestException: if sending fails and no stored response may be returned instead.
        """
        options = {"timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        outgoing = OutgoingRequest(self._adapter, request, stream, options)
        context, url = _plan_of_app(), key_url(request.url or "", self._rules.policy.ignored_parameters)
        if context is None or url is None:
            return _marked(outgoing.send(request, stream), [], from_cache=False)
        if (reason := _why_bypassed(request)) is not None:
            return self._bypass(context, outgoing, url, reason)
        hints = cacheability.current() or hints_of_request()
        origin = SessionOrigin(context, self._rules, outgoing, url, hints is not None and hints.in_background)
        if origin.said is not None and origin.said.only_if_cached and not is_served(origin, context.engine.look_up(origin.key)):
            origin.tally.served(CacheStatus.MISS, 0.0, why=MissReason.ONLY_IF_CACHED)
            return self._gateway_timeout(context, request)
        served = context.engine.serve(origin)
        if served.refresh:
            submit_at_close(context.engine, origin.refresh())
        response, entry = self._respond(context, origin, served)
        if hints is not None and self._rules.inherit and entry is not None:
            cacheability.inherit(hints, entry, time.time(), origin.terms)
        return response

    def close(self) -> None:
        """Close the connections to the third parties."""
        self._adapter.close()

    # -- from the store, or from the third party -------------------------------------------------------------------

    def _respond(self, context: AppContext, origin: SessionOrigin, served: Served) -> tuple[Response, Entry | None]:
        """Return the response, and its entry if it is stored."""
        answer, copy = served.answer, served.copy
        if answer is not None and answer.verdict is Verdict.FAILED and (copy := origin.stands_in()) is not None:
            answer, served = None, served._replace(status=CacheStatus.STALE, copy=copy, answer=None)
            context.engine.instrumentation.stale_served(origin, served)
        why = None if served.took is None else served.why_no_hit(origin.terms)
        origin.tally.served(served.status, served.took, waited=served.waited, why=why)
        if answer is None:
            assert copy is not None
            return self._from_copy(context, origin, served, copy), copy.entry
        if answer.error is not None:
            raise answer.error
        return self._from_answer(context, origin, served, answer), answer.entry

    def _from_copy(self, context: AppContext, origin: SessionOrigin, served: Served, copy: Copy) -> Response:
        entry = copy.entry
        assert entry is not None
        head: ResponseHead | None = copy.prepared
        if head is None:
            head = copy.prepared = head_of(entry)
        more = fields_for_copy(served, entry, time.time(), context.settings.status_headers)
        made = response_from(origin.outgoing.request, head, entry.body, self)
        return _marked(self._confirmed(origin, entry) or made, more, from_cache=True)

    def _from_answer(self, context: AppContext, origin: SessionOrigin, served: Served, answer: Answer) -> Response:
        response: Response = answer.value
        if served.collapsed:
            failed: Failed = answer.shared
            response = response_from(origin.outgoing.request, failed.head, failed.body, self)
        status = 304 if answer.renewed else response.status_code
        more = fields_for_answer(served, status, context.settings.status_headers, origin.reason)
        if answer.renewed and answer.entry is not None:
            more = [("Age", str(int(answer.entry.age(time.time())))), *more]
        if answer.entry is not None:
            response = self._confirmed(origin, answer.entry) or response
        return _marked(response, more, from_cache=answer.renewed)

    def _confirmed(self, origin: SessionOrigin, entry: Entry) -> Response | None:
        """Return a 304 if the caller's own condition matches the entry."""
        request = origin.outgoing.request
        if entry.status != 200 or not any(name in request.headers for name in CONDITIONS):
            return None
        fields = list(head_of(entry).headers.iteritems())
        # Requests with Range bypass the cache, so that a part is never selected here.
        selected = select(request.method or "", _look_up(request), entry.status, fields, entry.answered, len(entry.body))
        if selected.extent is not Extent.NOT_MODIFIED:
            return None
        return response_from(request, ResponseHead.of(304, "Not Modified", fields_of_304(fields)), b"", self)

    # -- a bypassed request ------------------------------------------------------------------------------------------

    def _bypass(self, context: AppContext, outgoing: OutgoingRequest, url: str, reason: BypassReason) -> Response:
        """Send the request. An unsafe one invalidates what it may have changed (RFC 9111 section 4.4)."""
        request = outgoing.request
        response = context.engine.instrumentation.call_bypassed(
            context.tally(url), lambda: outgoing.send(request, outgoing.stream), has_failed, reason
        )
        if request.method not in SAFE_METHODS:
            self._invalidate(context, outgoing, url, response)
        field = forwarded_field(reason.forwarded, status=response.status_code)
        return _marked(response, status_fields(CacheStatus.BYPASS, field, context.settings.status_headers), from_cache=False)

    def _invalidate(self, context: AppContext, outgoing: OutgoingRequest, url: str, response: Response) -> None:
        """Purge the URL, and those in Location and Content-Location if they have the same origin (RFC 9111 section 4.4)."""
        named = invalidated(outgoing.request.method or "", response.status_code, outgoing.request.url or "", fields_of(response))
        fields = environ_of(outgoing.request)
        for each in named:
            asked = key_url(each, self._rules.policy.ignored_parameters) or url
            key = self._rules.url_key(asked, fields, outgoing.route(asked))
            if not context.engine.is_stored_or_coming(key):
                # Each purge writes a record, and an API may have a URL for each of its orders.
                continue
            try:
                context.engine.counters.count("invalidations")
                context.engine.purge(self._rules.names(asked, context.settings)[1], soft=False)
            except StoreError as error:
                context.engine.answer_writer.store_failed(error)

    def _gateway_timeout(self, context: AppContext, request: PreparedRequest) -> Response:
        """Answer 504: no stored response may be returned, and no request may be sent (RFC 9111 section 5.2.1.7)."""
        head = ResponseHead.of(504, "Gateway Timeout", [("Content-Length", "0")])
        more = status_fields(CacheStatus.MISS, forwarded_field("request"), context.settings.status_headers)
        return _marked(response_from(request, head, b"", self), more, from_cache=False)


def _plan_of_app() -> AppContext | None:
    """Return the context of the current app for sessions; ``None`` outside an app context, and where caching is off."""
    cache = cache_of_current_app()
    return None if cache is None else cache.sessions


def _why_bypassed(request: PreparedRequest) -> BypassReason | None:
    """Return why a request bypasses the cache; ``None`` if it does not."""
    if request.method not in ("GET", "HEAD"):
        return BypassReason.METHOD
    if request.body:
        return BypassReason.BODY
    if "Upgrade" in request.headers:
        return BypassReason.UPGRADE
    return BypassReason.PART_OR_CONDITION if any(name in request.headers for name in _PAST_STORE) else None


def _look_up(request: PreparedRequest) -> Lookup:
    return lambda name: text_of(request.headers[name]) if name in request.headers else None


def _marked(response: Response, more: Fields, *, from_cache: bool) -> Response:
    """Add the fields and the attribute that tell how a response was made."""
    for name, value in more:
        before = response.headers.get(name) if name == "Cache-Status" else None
        # After the members of caches nearer to the third party (RFC 9211 section 2).
        response.headers[name] = value if before is None else f"{before}, {value}"
    # Other caches for requests set this attribute, so callers may use it.
    response.from_cache = from_cache  # type: ignore[attr-defined]
    return response


def caching_adapter(rules: SessionRules, adapter: object) -> CachingAdapter:
    """Return an adapter under these rules.

    :param adapter: sends requests to third parties; ``None``: a new ``HTTPAdapter``.
    :raises ConfigError: if it is not an adapter.
    """
    if adapter is None:
        adapter = HTTPAdapter()
    if not isinstance(adapter, BaseAdapter):
        raise ConfigError(f"adapter={adapter!r}: give an adapter of requests, such as HTTPAdapter(max_retries=3)")
    return CachingAdapter(rules, adapter)
