"""The WSGI middleware of the gateway. A hit never enters the app.

================ ===============================================================================================================
short way        :meth:`Gateway.__call__`: a plain hit, sent with the fields that the last hit prepared
long way         ``_answer``: everything else; the engine decides between the next two rows
from the store   ``_from_copy``: a stored response: whole, in part, or as a 304
from the app     ``_from_app``: the app's response, passed on as it comes; stored if :mod:`.fetch` allows it
past the store   ``_bypass``: requests that no cache may answer (:func:`_why_bypassed`)
================ ===============================================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from ...batches.renewal import Renewal
from ...batches.warm_request import warming_of
from ...core.addressing.keys import is_key_of_page
from ...core.http.cache_control import response_directives
from ...core.http.fields import end_to_end, first_of
from ...core.http.freshness import must_be_confirmed
from ...core.http.invalidation import SAFE_METHODS
from ...core.http.tags import without_fields
from ...core.http.vary import with_vary
from ...core.model.entry import Entry
from ...core.model.environ import ARRIVED, REFRESHING, REPLAY, REPORT, WARMING
from ...core.model.reasons import BypassReason, MissReason
from ...core.remembered import MIB, Remembered
from ...core.responses.conditional import fields_of_part
from ...core.rules.serving import was_ended
from ...core.rules.status import CacheStatus, forwarded_field, key_and_detail, status_fields
from ...core.rules.variants import Index
from ...engine.origin import Answer, Served, is_served
from ...stats.tally import PLAIN
from ..app_code.hooks import ask
from ..response.status_headers import fields_for_answer, fields_for_copy
from ..setup.probe import Noted, probe_of
from ..wsgi import closing, has_other_processes, why_no_threads
from .backend import Backend
from .bypass import BypassedCall
from .converted_head import NoBody, as_get, discarding
from .deliver import GoneError, PreparedFields, PreparedResponse, send_stored
from .invalidation import Invalidator
from .judging.dependence import fields_of_answer
from .live_response import send_live
from .origin import GatewayOrigin, refresh_of
from .rules import Rule, Rules
from .wsgi_call import AppCall, status_code_of

_clock = time.time
_where = itemgetter("REQUEST_METHOD", "wsgi.url_scheme", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
#: Everything in a request that is part of the key of its URL.
_KeyFields: TypeAlias = "tuple[object, ...]"

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Gateway:
    """WSGI middleware that answers requests from the store where it may, and calls the app for the others.

    :param backend: the app.
    :param rules: the rules for its paths.
    :param chosen: which status fields are sent.
    :raises ConfigError: if a rule and the settings contradict each other.
    """

    def __init__(self, backend: Backend, rules: Rules, chosen: frozenset[str]) -> None:
        rules.check_unset(backend.tag_fields)
        self._backend = backend
        self._engine = backend.engine
        self._rules = rules
        self._chosen = chosen
        self._invalidator = Invalidator(backend, rules)
        self._knows_server = False
        #: Whether ``Cache-Status`` contains the debug detail.
        self._explains = False
        self._lookup = backend.engine.store.lookup
        self._bar = backend.sessions.bar
        #: The keys of URLs whose hits may take the short way.
        self._known: Remembered[_KeyFields, str] = Remembered(most=4096, limit=8 * MIB, longest=8192)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. A plain hit takes the short way, which reuses what the last hit on the long way prepared.

        Three tables make that possible, each checked in this order:

        - ``_known`` maps the request fields that make up a URL's key to the key, so that no key has to be built. The long way adds
          a URL after a hit, unless a rule or the client's Cache-Control has to be evaluated for each request.
        - ``Index.keys`` maps an index and the values of the request fields that a response names in ``Vary`` to the key of the
          variant. A URL without ``Vary`` has no index. ``names`` is ``None`` if responses named different fields: then only the
          long way can choose between them.
        - ``PreparedFields`` are the response fields that may be sent until the ``Age`` or the remaining seconds of freshness
          change, that is for at most a second. They expire before the entry becomes stale, so the short way need not check whether
          it is fresh. For a stale entry whose refresh is pending, the end of the refresh ends them too (:class:`~.Standing`).

        Everything is written inline, since each function call would cost more than its work. Requests that the short way can't
        decide take the long way; :data:`LONG_WAY` lists the variables that lead there.
        """
        get = environ.get
        try:
            fields = (
                _where(environ), get("HTTP_HOST"), get("HTTP_X_FORWARDED_PROTO"), get("HTTP_X_FORWARDED_HOST"),
                get("HTTP_X_FORWARDED_PORT"), get("HTTP_X_FORWARDED_PREFIX"), get("RAW_URI"), get("REQUEST_URI"),
            )  # fmt: skip
        except KeyError:
            # A server may leave out empty variables (PEP 3333).
            return self._answer(environ, start_response, None)
        key = self._known.get(fields)
        if key is not None and (copy := self._lookup(key)) is not None:
            prepared = copy.prepared
            if type(prepared) is Index and prepared.names is not None:
                copy = self._lookup(prepared.keys.get((prepared, *map(get, prepared.names)), ""))
                prepared = None if copy is None else copy.prepared
            if type(prepared) is PreparedResponse:
                now = prepared.fields_now
                standing = now.standing
                if now.since <= _clock() < now.until and not (
                    "HTTP_AUTHORIZATION" in environ
                    or "HTTP_UPGRADE" in environ
                    or "HTTP_TRANSFER_ENCODING" in environ
                    or "REMOTE_USER" in environ
                    or WARMING in environ
                    or get("CONTENT_LENGTH")
                    or (prepared.absent is not None and prepared.absent.present_in(environ))
                    or (prepared.keys and "HTTP_COOKIE" in environ and self._bar(environ, prepared.keys))
                    or (standing is not None and (REFRESHING in environ or standing.is_over()))
                ):
                    if "HTTP_RANGE" in environ:
                        return self._part(environ, start_response, fields, prepared, now)
                    if "HTTP_IF_NONE_MATCH" not in environ and "HTTP_IF_MODIFIED_SINCE" not in environ:
                        prepared.tally.cells[PLAIN if standing is None else standing.count()] += 1
                        start_response(prepared.line, now.whole.copy())
                        return prepared.body  # type: ignore[return-value]  # A body in a file never has prepared fields.
                    if prepared.is_confirmed_by(get):
                        prepared.tally.cells[PLAIN if standing is None else standing.count()] += 1
                        start_response("304 Not Modified", now.confirmed.copy())
                        return ()
        return self._answer(environ, start_response, fields)

    def _part(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        fields: _KeyFields,
        prepared: PreparedResponse,
        now: PreparedFields,
    ) -> Iterable[bytes]:
        """Answer a request for a range that may take the short way."""
        part, body = prepared.part_for(environ.get), prepared.entry.body
        if part is None:
            return self._answer(environ, start_response, fields)
        prepared.tally.cells[PLAIN if now.standing is None else now.standing.count()] += 1
        start_response("206 Partial Content", [*now.part, *fields_of_part(part, len(body)), *now.more])
        return (body[part],)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, fields: _KeyFields | None, *, looks_again: bool = True
    ) -> Iterable[bytes]:
        """Answer a request on the long way.

        :param fields: the fields by which the short way finds the key again; ``None``: nothing is prepared for the short way.
        :param looks_again: whether to look up the entry again if its file has gone.
        """
        if not self._knows_server:
            self._know_server(environ)
        if self._backend.removed:
            start_response = _without(start_response, self._backend.removed)
        if (reason := _why_bypassed(environ)) is not None:
            return self._bypass(environ, start_response, reason)
        if REPORT in environ:
            # If this app is mounted in another one, the gateway of that app must not store the answer a second time.
            environ[REPORT].has_inner_gateway = True
        # Set by the cache of an outer app that this one is mounted in. A refresh of this gateway starts here, and must not use it.
        environ.pop(ARRIVED, None)
        rule = self._rules.of(environ)
        if rule.policy.unless is not None and self._is_excluded(rule.policy.unless, environ):
            return self._bypass(environ, start_response, BypassReason.UNLESS)
        if rule.policy.convert_head and environ["REQUEST_METHOD"] == "HEAD":
            # Without the fields, so that no HEAD takes the short way, which would send a body.
            body = self._look_up(rule, as_get(environ), discarding(start_response), None, looks_again=looks_again)
            return body if body == () else NoBody(body)
        return self._look_up(rule, environ, start_response, fields, looks_again=looks_again)

    def _look_up(
        self, rule: Rule, environ: WSGIEnvironment, start_response: StartResponse, fields: _KeyFields | None, *, looks_again: bool
    ) -> Iterable[bytes]:
        """Answer a request from the store or from the app, as the engine decides."""
        log = self._backend.complaints
        message = "%s is live, since its key can't be made: %s"
        make, where = partial(GatewayOrigin, self._backend, rule, environ, start_response), rule.pattern or "a request"
        origin = make() if not rule.calls_for_key else ask(make, None, log, ("key", where), message, where)
        if origin is None:
            return self._bypass(environ, start_response, BypassReason.KEY)
        if rule.policy.renew is not None and self._renews(rule.policy.renew, environ):
            origin.terms = origin.terms.renewing()
        if origin.said is not None and origin.said.only_if_cached and not is_served(origin, self._engine.look_up(origin.key)):
            origin.tally.served(CacheStatus.MISS, 0.0, why=MissReason.ONLY_IF_CACHED)
            return self._gateway_timeout(start_response, CacheStatus.MISS, "request")
        if self._explains:
            origin.met = self._engine.look_up(origin.key)
        warming = warming_of(environ)
        if warming is not None:
            origin.terms = warming.terms(origin.terms)
        try:
            served = self._engine.serve(origin)
            if warming is not None:
                origin.tell(warming, served)
            if served.answer is None:
                return self._from_copy(origin, served, fields, looks_again=looks_again)
            return self._from_app(origin, served, served.answer)
        except BaseException:
            # Release the requests that wait for this body. The server was given no iterable, so it will not close one.
            origin.break_off()
            origin.close()
            raise

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return the refresh of an entry, made from its head alone, or why there is none; ``None`` if no gateway made the entry."""
        if is_key_of_page(entry.key) or "scheme" not in entry.recipe:
            return None
        refresh = refresh_of(self._backend, self._rules, entry)
        return refresh if isinstance(refresh, str) else Renewal(refresh, _status_of)

    def _is_excluded(self, unless: Callable[..., object], environ: WSGIEnvironment) -> bool:
        """Whether the developer's ``unless`` excludes the request. If it raises, the request is excluded too."""
        log = self._backend.complaints
        return ask(lambda: bool(unless(environ)), True, log, "unless", "a request is live: the unless of its rule raised %r")

    def _renews(self, renew: Callable[..., object], environ: WSGIEnvironment) -> bool:
        """Whether the developer's ``renew`` lets the request replace the stored response. If ``renew`` raises, it does not."""
        log = self._backend.complaints
        return ask(lambda: bool(renew(environ)), False, log, "renew", "a request renews nothing: the renew of its rule raised %r")

    # -- from the store ------------------------------------------------------------------------------------------

    def _from_copy(self, origin: GatewayOrigin, served: Served, fields: _KeyFields | None, *, looks_again: bool) -> Iterable[bytes]:
        """Send a stored response, and prepare the short way for the next hit."""
        copy, now = served.copy, time.time()
        assert copy is not None
        prepared: PreparedResponse | None = copy.prepared
        if prepared is None:
            assert copy.entry is not None
            tally = self._backend.tally_of(copy.entry, origin.rule.pattern)
            prepared = copy.prepared = PreparedResponse(copy.entry, tally, self._backend.removed)
        kept = prepared
        if served.status is not CacheStatus.HIT and was_ended(prepared.entry, now, origin.terms):
            prepared = PreparedResponse(prepared.entry, prepared.tally, self._backend.removed, is_over=True)
        more = fields_for_copy(served, prepared.entry, now, self._chosen, origin.debug_detail(served))
        if fields is not None and prepared.body is not None and not served.refresh and origin.may_take_short_way:
            until, standing = origin.served_alike_until(served, now)
            if until > now:
                kept.fields_now = prepared.fields_at(now, more, until, standing)
                self._known.note(fields, origin.url_key)
        try:
            body = send_stored(origin.environ, origin.start_response, prepared, more)
        except GoneError:
            # Another process has replaced the file since the look-up; or it can't be read, and a second look-up would not help.
            self._engine.answer_writer.load(copy.key)
            if looks_again:
                origin.close()
                return self._answer(origin.environ, origin.start_response, fields, looks_again=False)
            answer = self._engine.bypass(origin)
            return self._from_app(origin, Served(CacheStatus.BYPASS, None, answer, took=0.0), answer)
        if origin.is_visit:
            why = MissReason.WAITED if served.collapsed else None
            prepared.tally.served(served.status, served.took, waited=served.waited, why=why)
        if not served.refresh and origin.fetch is None and not self._engine.runtime.in_line:
            return body
        return self._closing(body, origin, served.refresh)

    def _closing(self, body: Iterable[bytes], origin: GatewayOrigin, refresh: bool = False) -> Iterable[bytes]:
        """Return a body whose close (PEP 3333) closes the app's iterable and queues the refresh: neither delays the response."""
        after: list[Callable[[], Any]] = [origin.close]
        if refresh:
            after.append(partial(self._engine.runtime.submit, origin.refresh()))
        if self._engine.runtime.in_line:
            after.append(self._engine.runtime.look_after_itself)
        return closing(body, after, takes_long=refresh and self._engine.runtime.refresher.workers == 0)

    # -- from the app --------------------------------------------------------------------------------------------

    def _from_app(self, origin: GatewayOrigin, served: Served, answer: Answer) -> Iterable[bytes]:
        if origin.has_body:
            served = served._replace(status=CacheStatus.BYPASS)
        if origin.is_visit:
            origin.tally.served(served.status, served.took, waited=served.waited, why=served.why_no_hit(origin.terms))
            origin.count_when_complete(answer)
        if answer.error is not None:
            origin.note_probe(served)
            return self._failed(origin, served, answer.error)
        if served.collapsed:
            (body, status, fields), code = answer.shared, int(answer.shared[1][:3])
            more = fields_for_answer(served, code, self._chosen, more=origin.debug_detail(served))
            origin.start_response(status, [*fields, *more])
            return body  # type: ignore[no-any-return]
        if answer.entry is not None and (answer.renewed or origin.asks_for_less):
            return self._from_new_entry(origin, served, answer, answer.entry)
        return self._passed_on(origin, served, answer)

    def _failed(self, origin: GatewayOrigin, served: Served, error: BaseException) -> Iterable[bytes]:
        """Raise the app's exception. If a stored response had to be revalidated, answer 504 (RFC 9111 section 5.2.2.2)."""
        copy = self._engine.look_up(origin.key)
        if (
            served.status is not CacheStatus.EXPIRED
            or copy.entry is None
            or not copy.entry.never_stale
            or not must_be_confirmed(response_directives(copy.entry.headers))
        ):
            raise error
        self._backend.complaints.error_every_minute(
            "504", "the app failed, and its answer must be revalidated: %r", error, exc_info=error
        )
        origin.close()
        return self._gateway_timeout(origin.start_response, served.status, "stale")

    def _from_new_entry(self, origin: GatewayOrigin, served: Served, answer: Answer, entry: Entry) -> Iterable[bytes]:
        """Answer the client's conditions from the entry that was just made of the app's response."""
        more = fields_for_answer(served, origin.app_status, self._chosen, origin.reason, origin.debug_detail(served))
        if served.status is CacheStatus.REVALIDATED or first_of(entry.headers, "age") is not None:
            more.append(("Age", str(int(entry.age(time.time())))))
        if served.status is CacheStatus.REVALIDATED:
            # The app's 304 sets these cookies for this visitor. They are not stored.
            more += [("Set-Cookie", value) for value in origin.cookies_set(answer)]
        return self._closing(send_stored(origin.environ, origin.start_response, PreparedResponse(entry), more), origin)

    def _passed_on(self, origin: GatewayOrigin, served: Served, answer: Answer) -> Iterable[bytes]:
        """Pass on the app's response as it comes."""
        fetch = origin.fetch
        assert fetch is not None
        call = fetch.call
        if not call.status:
            # The app has not called start_response. The server reports that as it would without a gateway.
            return call.rest()
        more = (
            [] if fetch.is_ours else fields_for_answer(served, call.code, self._chosen, origin.reason, origin.debug_detail(served))
        )
        # Caches between the gateway and the client must distinguish the visitors too.
        fields = with_vary(fetch.fields_for(answer), fetch.varied(answer))
        body, after = send_live(origin, answer, fields, more)
        if after:
            return closing(body, after, takes_long=False)
        return self._closing(body, origin) if self._engine.runtime.in_line else body

    # -- past the store ------------------------------------------------------------------------------------------

    def _bypass(self, environ: WSGIEnvironment, start_response: StartResponse, reason: BypassReason) -> Iterable[bytes]:
        """Call the app for a request that bypasses the cache. An unsafe one invalidates pages (RFC 9111 section 4.4)."""
        if reason in (BypassReason.UPGRADE, BypassReason.REPLAY):
            return self._backend.app(environ, start_response)
        if (warming := warming_of(environ)) is not None:
            warming.note_bypass(reason.text)
        method = environ["REQUEST_METHOD"]
        # A copy, since middleware of the app may take the script root off the path, and invalidation needs the whole path.
        as_it_came = environ.copy()
        rule = self._rules.of(as_it_came)
        counted = BypassedCall(self._backend, self._engine.instrumentation, environ, rule, reason)
        led_to: list[Entry] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None) -> Callable[[bytes], object]:
            code, seen = status_code_of(status), counted.observe()
            if method not in SAFE_METHODS:
                led_to.extend(self._invalidator.after(as_it_came, seen, method, code, headers))
            ours = first_of(headers, "x-cache-status") is not None or counted.answered(code)
            field = forwarded_field(reason.forwarded, status=code) + (key_and_detail("", reason.text) if self._explains else "")
            if not ours and (probe := probe_of(as_it_came)) is not None:
                probe.note(Noted(self._backend.front_end(seen), seen.label, seen.endpoint or "", rule.pattern, bypass=reason))
            more = [] if ours else status_fields(CacheStatus.BYPASS, field, self._chosen)
            given = () if exc_info is None else (exc_info,)
            varied = fields_of_answer(self._backend, rule, as_it_came, seen, headers, seen.own, bypassed=reason)
            return start_response(status, [*with_vary(end_to_end(headers), varied), *more], *given)

        return self._invalidator.renewing(counted.enter(start), led_to)

    def _gateway_timeout(self, start_response: StartResponse, status: CacheStatus, reason: str) -> Iterable[bytes]:
        """Answer 504: no stored response may be served, and the app may not be called (RFC 9111 sections 4.2.4 and 5.2.1.7)."""
        more = status_fields(status, forwarded_field(reason), self._chosen)
        start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "0"), *more])
        return ()

    def _know_server(self, environ: WSGIEnvironment) -> None:
        self._knows_server = True
        self._explains = self._backend.debugs()
        if self._explains and self._engine.settings.debug_errors:
            self._rules.show_errors()
        if reason := why_no_threads(environ):
            self._engine.runtime.go_in_line(reason)
        if has_other_processes(environ):
            self._engine.runtime.note_other_processes()


def _without(start_response: StartResponse, removed: frozenset[str]) -> StartResponse:
    """Return a ``start_response`` that sends no field of these names, which are in lower case."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        return start_response(status, without_fields(headers, removed), *exc_info)

    return start


def _status_of(answer: Answer) -> int | None:
    return answer.value.code if isinstance(answer.value, AppCall) and answer.value.status else None


#: A request with one of these in its environ takes the long way, where :func:`_why_bypassed` and the engine decide. Only a range
#: that :meth:`Gateway._part` can cut does not. The short way in :meth:`Gateway.__call__` checks each variable inline, since a loop
#: would make a hit slower; test_short_way verifies that both agree.
LONG_WAY = (
    "CONTENT_LENGTH",
    "HTTP_AUTHORIZATION",
    "HTTP_RANGE",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "REMOTE_USER",
    WARMING,
)


def _why_bypassed(environ: Mapping[str, Any]) -> BypassReason | None:
    """Return why a request bypasses the cache; ``None`` if it does not."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return BypassReason.METHOD
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        return BypassReason.BODY
    if environ.get("REMOTE_USER"):
        return BypassReason.REMOTE_USER
    if "HTTP_UPGRADE" in environ:
        return BypassReason.UPGRADE
    return BypassReason.REPLAY if REPLAY in environ else None
