"""The gateway's WSGI middleware. A hit never enters the app."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from ...batches.renewal import Renewal
from ...batches.warm_request import warming_of
from ...core.http.cache_control import response_directives
from ...core.http.fields import end_to_end, first_of, missing_in_vary
from ...core.http.freshness import must_be_confirmed
from ...core.http.invalidation import SAFE_METHODS
from ...core.model.entry import Entry
from ...core.model.environ import ARRIVED, REPLAY, WARMING
from ...core.model.keys import is_key_of_page
from ...core.model.reasons import BypassReason
from ...core.rules.serving import Verdict
from ...core.rules.status import CacheStatus, forwarded_field, key_and_detail, status_fields
from ...core.rules.variants import Index
from ...engine.origin import Answer, Served, is_served
from ...stats.tally import PLAIN
from ..hooks import ask
from ..status_headers import fields_for_answer, fields_for_copy
from ..wsgi import closing, why_no_threads
from .backend import Backend
from .bypass import Bypass
from .deliver import GoneError, PreparedResponse, send_stored
from .invalidation import Invalidator
from .origin import GatewayOrigin, refresh_of
from .rules import Rules
from .wsgi_call import AppCall, code_of

#: Requests that the short way knows; visitors choose the URLs.
KNOWN = 4096
_now = time.time
_where = itemgetter("REQUEST_METHOD", "wsgi.url_scheme", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
#: All of a request that is in the key of its URL.
_Asked: TypeAlias = "tuple[object, ...]"

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Gateway:
    """WSGI middleware that answers from the store what may be, and asks the app for the rest.

    :param plan: the app.
    :param rules: what holds for its paths.
    :param chosen: which status fields are sent.
    """

    def __init__(self, plan: Backend, rules: Rules, chosen: frozenset[str]) -> None:
        self._plan = plan
        self._engine = plan.engine
        self._rules = rules
        self._chosen = chosen
        self._invalidator = Invalidator(plan.engine, rules)
        self._knows_server = False
        #: Whether ``Cache-Status`` says more.
        self._explains = False
        self._lookup = plan.engine.store.lookup
        #: The keys of URLs whose hits may take the short way, by all of a request that is in a key.
        self._known: dict[_Asked, str] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request.

        A hit takes the short way: what it is answered with was found out at the last hit. It is written out, since a function that
        is called here would cost more than what it does.
        """
        get = environ.get
        try:
            asked = (
                _where(environ), get("HTTP_HOST"), get("HTTP_X_FORWARDED_PROTO"), get("HTTP_X_FORWARDED_HOST"),
                get("HTTP_X_FORWARDED_PORT"), get("HTTP_X_FORWARDED_PREFIX"), get("RAW_URI"), get("REQUEST_URI"),
            )  # fmt: skip
        except KeyError:
            # A server may leave out what is empty (PEP 3333).
            return self._answer(environ, start_response, None)
        key = self._known.get(asked)
        if key is not None and (copy := self._lookup(key)) is not None:
            ready = copy.prepared
            if type(ready) is Index and ready.names is not None:
                copy = self._lookup(ready.keys.get(tuple(map(get, ready.names)), ""))
                ready = None if copy is None else copy.prepared
            if type(ready) is PreparedResponse:
                moment = ready.moment
                if moment.since <= _now() < moment.until and not (
                    "HTTP_AUTHORIZATION" in environ
                    or "HTTP_RANGE" in environ
                    or "HTTP_UPGRADE" in environ
                    or "HTTP_TRANSFER_ENCODING" in environ
                    or "REMOTE_USER" in environ
                    or WARMING in environ
                    or get("CONTENT_LENGTH")
                    or (ready.absent is not None and ready.absent.present_in(environ))
                ):
                    if "HTTP_IF_NONE_MATCH" not in environ and "HTTP_IF_MODIFIED_SINCE" not in environ:
                        ready.tally.cells[PLAIN] += 1
                        start_response(ready.line, moment.whole.copy())
                        return ready.body  # type: ignore[return-value]  # What is in a file has no moment.
                    if ready.is_had_by(get):
                        ready.tally.cells[PLAIN] += 1
                        start_response("304 Not Modified", moment.confirmed.copy())
                        return ()
        return self._answer(environ, start_response, asked)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, asked: _Asked | None, *, looks_again: bool = True
    ) -> Iterable[bytes]:
        """Answer a request on the long way.

        :param asked: what the short way knows a request by; ``None``: it can't know this one.
        :param looks_again: whether to look again if what is found can't be read any more.
        """
        if not self._knows_server:
            self._know_server(environ)
        if (reason := _why_not_for_us(environ)) is not None:
            return self._through(environ, start_response, reason)
        # That of an app further out, in which this one is mounted: a refresh begins here.
        environ.pop(ARRIVED, None)
        rule = self._rules.of(environ)
        if rule.policy.unless is not None and self._is_live(rule.policy.unless, environ):
            return self._through(environ, start_response, BypassReason.UNLESS)
        origin = GatewayOrigin(self._plan, rule, environ, start_response)
        if origin.said is not None and origin.said.only_if_cached and not is_served(origin, self._engine.look_up(origin.key)):
            origin.tally.served(CacheStatus.MISS, 0.0)
            return self._gone(start_response, CacheStatus.MISS, "request")
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
                return self._from_copy(origin, served, asked, looks_again=looks_again)
            return self._from_app(origin, served, served.answer)
        except BaseException:
            # Nobody is to wait for a body that will not come, and no server closes what it was not given.
            origin.break_off()
            origin.close()
            raise

    def renewal_of(self, entry: Entry) -> Renewal | str | None:
        """Return how something is made again, from its entry's head alone; or why it can't be; ``None``: it is not a gateway's."""
        if is_key_of_page(entry.key) or "scheme" not in entry.recipe:
            return None
        refresh = refresh_of(self._plan, self._rules, entry)
        return refresh if isinstance(refresh, str) else Renewal(refresh, _status_of)

    def _is_live(self, unless: Callable[..., object], environ: WSGIEnvironment) -> bool:
        """Ask the developer's ``unless``; where it raises, the request is live."""
        log = self._plan.complaints
        return ask(lambda: bool(unless(environ)), True, log, "unless", "a request is live: the unless of its rule raised %r")

    # -- from the store ------------------------------------------------------------------------------------------

    def _from_copy(self, origin: GatewayOrigin, served: Served, asked: _Asked | None, *, looks_again: bool) -> Iterable[bytes]:
        """Send what is stored."""
        copy, now = served.copy, time.time()
        assert copy is not None
        ready: PreparedResponse | None = copy.prepared
        if ready is None:
            assert copy.entry is not None
            ready = copy.prepared = PreparedResponse(copy.entry, self._plan.tally_of(copy.entry))
        more = fields_for_copy(served, ready.entry, now, self._chosen, origin.debug_detail(served))
        is_plain = served.status is CacheStatus.HIT and not served.refresh and ready.body is not None
        if is_plain and asked is not None and origin.may_be_known:
            ready.note_moment(now, more, origin.terms.refresh_ahead)
            self._know(asked, origin.url_key)
        try:
            body = send_stored(origin.environ, origin.start_response, ready, more)
        except GoneError:
            # Somebody has replaced it since we looked; or it can't be read, however often we look.
            self._engine.answer_writer.load(copy.key)
            if looks_again:
                origin.close()
                return self._answer(origin.environ, origin.start_response, asked, looks_again=False)
            answer = self._engine.bypass(origin)
            return self._from_app(origin, Served(CacheStatus.BYPASS, None, answer, took=0.0), answer)
        if origin.is_visit:
            ready.tally.served(served.status, served.took, waited=served.waited)
        if not served.refresh and origin.asked is None and not self._engine.in_line:
            return body
        return self._closing(body, origin, served.refresh)

    def _know(self, asked: _Asked, url_key: str) -> None:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[asked] = url_key

    def _closing(self, body: Iterable[bytes], origin: GatewayOrigin, refresh: bool = False) -> Iterable[bytes]:
        """Let what comes after the response come after it: at close (PEP 3333)."""
        after: list[Callable[[], Any]] = [origin.close]
        if refresh:
            after.append(partial(self._engine.submit, origin.refresh()))
        if self._engine.in_line:
            after.append(self._engine.look_after_itself)
        return closing(body, after, takes_long=refresh and self._engine.refresher.workers == 0)

    # -- from the app --------------------------------------------------------------------------------------------

    def _from_app(self, origin: GatewayOrigin, served: Served, answer: Answer) -> Iterable[bytes]:
        if origin.is_visit:
            origin.tally.served(served.status, served.took, waited=served.waited)
        if answer.error is not None:
            return self._failed(origin, served, answer.error)
        if served.collapsed:
            (body, status, fields), code = answer.shared, int(answer.shared[1][:3])
            more = fields_for_answer(served, code, self._chosen, more=origin.debug_detail(served))
            origin.start_response(status, [*fields, *more])
            return body  # type: ignore[no-any-return]
        if answer.entry is not None and (answer.renewed or origin.has_conditions):
            return self._whole(origin, served, answer.entry)
        return self._handed_on(origin, served, answer)

    def _failed(self, origin: GatewayOrigin, served: Served, error: BaseException) -> Iterable[bytes]:
        """Tell what the app raised as the server would; but what must be revalidated and can't be is a 504 (RFC 9111 5.2.2.2)."""
        copy = self._engine.look_up(origin.key)
        if (
            served.status is not CacheStatus.EXPIRED
            or copy.entry is None
            or not must_be_confirmed(response_directives(copy.entry.headers))
        ):
            raise error
        self._plan.complaints.error_every_minute(
            "504", "the app failed, and its answer must be revalidated: %r", error, exc_info=error
        )
        origin.close()
        return self._gone(origin.start_response, served.status, "stale")

    def _whole(self, origin: GatewayOrigin, served: Served, entry: Entry) -> Iterable[bytes]:
        """Answer the client's conditions from what the app's answer has become in the store."""
        more = fields_for_answer(served, origin.app_status, self._chosen, origin.reason, origin.debug_detail(served))
        if served.status is CacheStatus.REVALIDATED or first_of(entry.headers, "age") is not None:
            more.append(("Age", str(int(entry.age(time.time())))))
        if served.status is CacheStatus.REVALIDATED:
            # What is stored gets no cookie, but who asked does.
            more += [("Set-Cookie", value) for value in origin.cookies_set]
        return self._closing(send_stored(origin.environ, origin.start_response, PreparedResponse(entry), more), origin)

    def _handed_on(self, origin: GatewayOrigin, served: Served, answer: Answer) -> Iterable[bytes]:
        """Hand on what the app sends, as it comes."""
        asked = origin.asked
        assert asked is not None
        call = asked.call
        if not call.status:
            # It has not called start_response; the server knows what to say of that.
            return call.rest()
        more = (
            [] if asked.is_ours else fields_for_answer(served, call.code, self._chosen, origin.reason, origin.debug_detail(served))
        )
        if answer.verdict is Verdict.STORABLE and (missing := missing_in_vary(call.fields, asked.varied)):
            # Caches further out must not give it to whom it is not for either.
            more = [("Vary", ", ".join(missing)), *more]
        call.send_head(more)
        body = asked.copied() if answer.later is not None else call.rest()
        return self._closing(body, origin) if self._engine.in_line else body

    # -- past the store ------------------------------------------------------------------------------------------

    def _through(self, environ: WSGIEnvironment, start_response: StartResponse, reason: BypassReason) -> Iterable[bytes]:
        """Let the app answer; what an unsafe request has changed is invalid then."""
        if reason in (BypassReason.UPGRADE, BypassReason.REPLAY):
            return self._plan.app(environ, start_response)
        if (warming := warming_of(environ)) is not None:
            warming.note_live(reason.text)
        method = environ["REQUEST_METHOD"]
        counted = Bypass(self._plan, self._engine.instrumentation, environ, self._rules.plain.ignored)
        # Middleware of the app may take the script root off the path, and then nobody could tell what is invalid.
        as_it_came = environ if method in SAFE_METHODS else environ.copy()

        def start(status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None) -> Callable[[bytes], object]:
            code = code_of(status)
            if method not in SAFE_METHODS:
                self._invalidator.after(as_it_came, method, code, headers)
            ours = first_of(headers, "x-cache-status") is not None or counted.answered(code)
            field = forwarded_field(reason.forwarded, status=code) + (key_and_detail("", reason.text) if self._explains else "")
            more = [] if ours else status_fields(CacheStatus.BYPASS, field, self._chosen)
            given = () if exc_info is None else (exc_info,)
            return start_response(status, [*end_to_end(headers), *more], *given)

        return counted.enter(start)

    def _gone(self, start_response: StartResponse, status: CacheStatus, reason: str) -> Iterable[bytes]:
        """Say that nothing may be served and nobody else be asked (RFC 9111 sections 4.2.4 and 5.2.1.7)."""
        more = status_fields(status, forwarded_field(reason), self._chosen)
        start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "0"), *more])
        return ()

    def _know_server(self, environ: WSGIEnvironment) -> None:
        self._knows_server = True
        self._explains = self._plan.debugs()
        if reason := why_no_threads(environ):
            self._engine.go_in_line(reason)


def _status_of(answer: Answer) -> int | None:
    return answer.value.code if isinstance(answer.value, AppCall) and answer.value.status else None


#: A request with one of these in its environ takes the long way, where :func:`_why_not_for_us` and the engine decide. The short way
#: in :meth:`Gateway.__call__` checks each by hand, since a loop would make a hit slower; test_short_way holds that both agree.
LONG_WAY = (
    "CONTENT_LENGTH",
    "HTTP_AUTHORIZATION",
    "HTTP_RANGE",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "REMOTE_USER",
    WARMING,
)


def _why_not_for_us(environ: Mapping[str, Any]) -> BypassReason | None:
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
