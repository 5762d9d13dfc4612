"""``session``: a ``requests.Session`` whose adapter is a shared HTTP cache, by the third parties' own headers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter

from ...core.http.conditional import Extent, select
from ...core.http.fields import Lookup
from ...core.http.invalidation import SAFE_METHODS, invalidated
from ...core.http.validators import fields_of_304
from ...core.model.entry import Entry
from ...core.model.reasons import BypassReason
from ...core.rules import cacheability
from ...core.rules.status import CacheStatus, forwarded_field, status_fields
from ...core.rules.storability import Verdict
from ...engine.origin import Answer, Served, is_served
from ...errors import ConfigError, StoreError
from ...stores.base import Copy
from ..current_app import cache_of_current_app
from ..middleware import submit_at_close
from ..status_headers import fields_for_answer, fields_for_copy
from .app_context import AppContext
from .fetch import Failed, head_of
from .origin import SessionOrigin
from .request import CONDITIONS, OutgoingRequest, environ_of, has_failed, text_of
from .response import Fields, Head, fields_of, response_from
from .rules import SessionRules
from .url_key import key_url

#: Requests that ask for a part, or on a condition that no copy answers.
_PAST_STORE = ("Range", "If-Range", "If-Match", "If-Unmodified-Since")


class CachingAdapter(BaseAdapter):
    """An adapter for ``requests`` that answers from the store what may be, and has another adapter ask for the rest.

    In an app context only, and where caching is on; else everything is asked for.

    :param rules: what the developer wrote.
    :param adapter: asks the third parties.
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
        """Answer a request: as any adapter does, with ``Cache-Status`` and ``from_cache`` on the response.

        :param stream: the body is to be read as it comes. It is stored once it was read, if its length was said before.
        :raises requests.RequestException: what asking raises, where nothing stored may stand in.
        """
        options = {"timeout": timeout, "verify": verify, "cert": cert, "proxies": proxies}
        sending = OutgoingRequest(self._adapter, request, stream, options)
        plan, url = _plan_of_app(), key_url(request.url or "", self._rules.policy.ignored_parameters)
        if plan is None or url is None:
            return _marked(sending.send(request, stream), [], from_cache=False)
        if (reason := _why_past_store(request)) is not None:
            return self._past_store(plan, sending, url, reason)
        word = cacheability.current()
        origin = SessionOrigin(plan, self._rules, sending, url, word is not None and word.in_background)
        if origin.said is not None and origin.said.only_if_cached and not is_served(origin, plan.engine.look_up(origin.key)):
            origin.tally.served(CacheStatus.MISS, 0.0)
            return self._nothing(plan, request)
        served = plan.engine.serve(origin)
        if served.refresh:
            submit_at_close(plan.engine, origin.refresh())
        response, entry = self._of_served(plan, origin, served)
        if word is not None and self._rules.inherit and entry is not None:
            cacheability.inherit(word, entry, origin.terms)
        return response

    def close(self) -> None:
        """Close the connections to the third parties."""
        self._adapter.close()

    # -- from the store, or from the third party -------------------------------------------------------------------

    def _of_served(self, plan: AppContext, origin: SessionOrigin, served: Served) -> tuple[Response, Entry | None]:
        """Return the response, and what is stored of it."""
        answer, copy = served.answer, served.copy
        if answer is not None and answer.verdict is Verdict.FAILED and (copy := origin.stands_in()) is not None:
            answer, served = None, served._replace(status=CacheStatus.STALE, copy=copy, answer=None)
            plan.engine.instrumentation.stale_served(origin, served)
        origin.tally.served(served.status, served.took, waited=served.waited)
        if answer is None:
            assert copy is not None
            return self._from_copy(plan, origin, served, copy), copy.entry
        if answer.error is not None:
            raise answer.error
        return self._from_answer(plan, origin, served, answer), answer.entry

    def _from_copy(self, plan: AppContext, origin: SessionOrigin, served: Served, copy: Copy) -> Response:
        entry = copy.entry
        assert entry is not None
        head: Head | None = copy.prepared
        if head is None:
            head = copy.prepared = head_of(entry)
        more = fields_for_copy(served, entry, time.time(), plan.settings.status_headers)
        made = response_from(origin.outgoing.request, head, entry.body, self)
        return _marked(self._confirmed(origin, entry) or made, more, from_cache=True)

    def _from_answer(self, plan: AppContext, origin: SessionOrigin, served: Served, answer: Answer) -> Response:
        response: Response = answer.value
        if served.collapsed:
            failed: Failed = answer.shared
            response = response_from(origin.outgoing.request, failed.head, failed.body, self)
        status = 304 if answer.renewed else response.status_code
        more = fields_for_answer(served, status, plan.settings.status_headers, origin.reason)
        if answer.renewed and answer.entry is not None:
            more = [("Age", str(int(answer.entry.age(time.time())))), *more]
        if answer.entry is not None:
            response = self._confirmed(origin, answer.entry) or response
        return _marked(response, more, from_cache=answer.renewed)

    def _confirmed(self, origin: SessionOrigin, entry: Entry) -> Response | None:
        """Return a 304 if the caller's own condition says that they have the entry already."""
        request = origin.outgoing.request
        if entry.status != 200 or not any(name in request.headers for name in CONDITIONS):
            return None
        fields = list(head_of(entry).headers.iteritems())
        # Requests with Range bypass the cache, so that a part is never selected here.
        selected = select(request.method or "", _look_up(request), entry.status, fields, entry.answered, len(entry.body))
        if selected.extent is not Extent.NOT_MODIFIED:
            return None
        return response_from(request, Head.of(304, "Not Modified", fields_of_304(fields)), b"", self)

    # -- past the store ------------------------------------------------------------------------------------------

    def _past_store(self, plan: AppContext, sending: OutgoingRequest, url: str, reason: BypassReason) -> Response:
        """Let the third party answer; what an unsafe request has changed is invalid then."""
        request = sending.request
        response = plan.engine.instrumentation.call_bypassed(
            plan.tally(url), lambda: sending.send(request, sending.stream), has_failed, is_visit=True
        )
        if request.method not in SAFE_METHODS:
            self._invalidate(plan, sending, url, response)
        field = forwarded_field(reason.forwarded, status=response.status_code)
        return _marked(response, status_fields(CacheStatus.BYPASS, field, plan.settings.status_headers), from_cache=False)

    def _invalidate(self, plan: AppContext, sending: OutgoingRequest, url: str, response: Response) -> None:
        """Purge the URL that was asked, and those of its origin that the answer names (RFC 9111 section 4.4)."""
        named = invalidated(sending.request.method or "", response.status_code, sending.request.url or "", fields_of(response))
        fields = environ_of(sending.request)
        for each in named:
            asked = key_url(each, self._rules.policy.ignored_parameters) or url
            key = self._rules.url_key(asked, fields, sending.route(asked))
            if not plan.engine.is_stored_or_coming(key):
                # Each purge leaves a record, and there may be a URL for each order.
                continue
            try:
                plan.engine.counters.count("invalidations")
                name = self._rules.names(asked, plan.settings)[1]
                plan.engine.store.purge(name, soft=False)
                plan.engine.instrumentation.purged(name, soft=False)
            except StoreError as error:
                plan.engine.answer_writer.store_failed(error)

    def _nothing(self, plan: AppContext, request: PreparedRequest) -> Response:
        """Say that nothing is stored that may be served, and that nobody else may be asked (RFC 9111 section 5.2.1.7)."""
        head = Head.of(504, "Gateway Timeout", [("Content-Length", "0")])
        more = status_fields(CacheStatus.MISS, forwarded_field("request"), plan.settings.status_headers)
        return _marked(response_from(request, head, b"", self), more, from_cache=False)


def _plan_of_app() -> AppContext | None:
    """Return the current app as sessions know it; ``None`` outside an app context, and where caching is off."""
    cache = cache_of_current_app()
    return None if cache is None else cache.sessions


def _why_past_store(request: PreparedRequest) -> BypassReason | None:
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
    """Say of a response how it came about."""
    for name, value in more:
        before = response.headers.get(name) if name == "Cache-Status" else None
        # Behind what caches nearer to the third party say (RFC 9211 section 2).
        response.headers[name] = value if before is None else f"{before}, {value}"
    # What callers of other caches ask for.
    response.from_cache = from_cache  # type: ignore[attr-defined]
    return response


def caching_adapter(rules: SessionRules, adapter: object) -> CachingAdapter:
    """Return an adapter under these rules.

    :param adapter: asks the third parties; ``None``: one of its own.
    :raises ConfigError: if that is no adapter.
    """
    if adapter is None:
        adapter = HTTPAdapter()
    if not isinstance(adapter, BaseAdapter):
        raise ConfigError(f"adapter={adapter!r}: give an adapter of requests, such as HTTPAdapter(max_retries=3)")
    return CachingAdapter(rules, adapter)
