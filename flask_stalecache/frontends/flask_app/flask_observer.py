"""Observes what a Flask app behind a gateway reads of each request, and what the middleware between gateway and app does.

The reads of both, until the response is finished, decide for which visitors the response may be stored. A hit runs neither app nor
middleware, so the reads of middleware while a response is made count like those of the app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Flask, Response
from werkzeug.routing import RequestRedirect

from ...config.settings import Settings
from ...core.http.accept import CODINGS, AcceptReads, codings_named
from ...core.http.fields import vary_names
from ...core.model.environ import GIVEN_SESSION, REPORT
from ...core.model.inputs import RequestInputs
from ...core.model.policy import Policy
from ...core.model.query import NamePatterns
from ...core.model.reasons import Refusal, StoreRefusal, variable_read
from ..flask_internals.contexts import RequestContext, request_context
from ..flask_internals.readers import packages_of_view
from ..flask_internals.sessions import session_cookie, session_of
from ..gateway.backend import UNSAID, Observation
from ..observation.observed_environ import ObservedEnviron
from ..observation.read_log import ReadLog
from ..observation.session_log import MARKS, SessionLog, SessionReads
from ..observation.watched_session import log_of, names_read, plain_values
from ..pages.handler import ANSWERED
from ..pages.watching.hook_reads import count_hook_reads
from ..pages.watching.request_recorder import ObservedRequest
from ..pages.watching.watch import is_changed, names_missed, read_beyond_names
from ..request.request_values import values_kept_for
from .flask_sessions import FlaskSessions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: In the environ: the policy in code of the view that answered.
CODED = "flask_stalecache.coded"
#: The middleware that accepts no subclass of ``dict`` as the environ.
_VALIDATOR = "wsgiref.validate"


class Left(NamedTuple):
    """The parts of a request that are kept beyond its context, since a streamed response may still read the request.

    :ivar log: the reads.
    :ivar session: its session.
    :ivar keys: the log of the session, by key; ``None`` if keys can't describe what was read of it.
    :ivar app: the app that answered.
    :ivar session_cookie: the name of the session's cookie in the app that answered.
    :ivar endpoint: the endpoint that answered.
    :ivar varied: the response had ``Vary: Cookie`` before the session was saved.
    :ivar seen: the environ as the app saw it.
    :ivar coded: the policy in code of the view that answered.
    :ivar kept: names and values of strings that look random and that the app keeps for this request.
    :ivar is_stream: the body is made while it is sent.
    :ivar traced: the tracing fields that the view has read.
    :ivar codings: the codings that the app may answer with.
    :ivar is_redirected: URL matching redirected the request, or would have if no hook had answered.
    """

    log: ReadLog
    session: Any
    session_cookie: str
    keys: SessionLog | None
    app: Flask
    endpoint: str | None
    varied: bool
    seen: Mapping[str, Any]
    coded: Policy
    kept: tuple[tuple[str, str], ...]
    is_stream: bool
    is_redirected: bool
    traced: frozenset[str]
    codings: tuple[str, ...]


class AppReport:
    """The observations of one request that was passed on to the app. Copies of its environ share them.

    :param log: records what middleware reads.
    :param told: called after each read of an Accept field by the app.
    :ivar given: the environ as the gateway passed it on.
    :ivar lefts: the requests that the app answered; middleware may have made several.
    :ivar has_cached: a view under ``cached`` has answered, and stores its own response.
    :ivar has_dispatched: its hooks have let the request through to the view, or to the error of the routing.
    :ivar has_entered: the app has answered, and its hooks have run.
    :ivar is_app_called: the app was called, whether it has answered or not.
    :ivar has_inner_gateway: a gateway behind this one has answered, and stores its own responses.
    :ivar last_seen: the environ as the app saw it last; ``None`` if it was not called.
    """

    __slots__ = (
        "given",
        "has_cached",
        "has_dispatched",
        "has_entered",
        "has_inner_gateway",
        "is_app_called",
        "last_seen",
        "lefts",
        "log",
        "told",
    )

    def __init__(self, given: Mapping[str, Any], log: ReadLog, told: Callable[[ReadLog], object] | None = None) -> None:
        self.told = told
        self.given = given
        self.log = log
        self.lefts: list[Left] = []
        self.has_cached = False
        self.has_dispatched = False
        self.has_entered = False
        self.is_app_called = False
        self.has_inner_gateway = False
        self.last_seen: Mapping[str, Any] | None = None

    def readers(self, ignored_headers: frozenset[str]) -> dict[str, str]:
        """Return the fields that middleware has read, in lower case, and their readers."""
        return {name: reader for name, reader in self.log.headers.items() if name not in ignored_headers}

    def read_beyond_names(self, ignored: NamePatterns) -> Refusal | None:
        """Return the refusal if middleware has read something that no name of a field describes."""
        log = self.log
        if "environ" in log.whole:
            return Refusal(StoreRefusal.READS_ENVIRON, log.whole["environ"])
        # Variables that middleware has set itself don't count: they come from its other reads.
        for name, reader in log.variables.items():
            if name in log.given and name in self.given:
                return Refusal(StoreRefusal.READS_VARIABLE, f"{reader} reads {name}")
        return read_beyond_names(log, self.given, ignored)


def note_call(environ: Mapping[str, Any]) -> None:
    """Note that the app itself was called for a request."""
    report: AppReport | None = environ.get(REPORT)
    if report is not None:
        report.is_app_called = True


def note_dispatch(context: RequestContext) -> None:
    """Note that a request has got past the hooks of its app."""
    report: AppReport | None = context.request.environ.get(REPORT)
    if report is not None:
        report.has_dispatched = True


def note_what_is_left(response: Response) -> Response:
    """Keep the data that only the request context has. This is the last hook that runs before Flask saves the session."""
    context = request_context()
    request = context.request
    environ = request.environ
    report: AppReport | None = environ.get(REPORT)
    if report is None:
        return response
    report.has_entered = True
    count_hook_reads(context)
    report.last_seen = environ
    if ANSWERED in environ:
        report.has_cached = True
    elif isinstance(request, ObservedRequest):
        left = Left(
            log=request.stalecache_reads,
            session=session_of(context),
            session_cookie=session_cookie(context.app),
            keys=log_of(context),
            app=context.app,
            endpoint=request.endpoint,
            varied="cookie" in vary_names(response.headers),
            seen=dict(environ),
            coded=environ.get(CODED, UNSAID),
            kept=values_kept_for(request),
            is_stream=response.is_streamed and not response.direct_passthrough,
            traced=frozenset(request.stalecache_reads.traced_by(packages_of_view(context.app, request.endpoint))),
            codings=_codings_of(context.app),
            is_redirected=isinstance(request.routing_exception, RequestRedirect),
        )
        report.lefts.append(left)
    return response


class Observer:
    """Observes how a Flask app came to its answers.

    :param settings: the app's configuration.
    :param sessions: looks up keys of visitors' sessions.
    """

    def __init__(self, settings: Settings, sessions: FlaskSessions) -> None:
        self._settings = settings
        self._sessions = sessions
        self._wants_dict = False

    def entering(self, app: WSGIApplication) -> WSGIApplication:
        """Return a WSGI app that calls an app, with a plain environ if middleware insists on one, as ``wsgiref.validate`` does."""

        def enter(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if not isinstance(environ, ObservedEnviron):
                return app(environ, start_response)
            if not self._wants_dict:
                try:
                    return app(environ, start_response)
                except AssertionError as error:
                    # The validator looks at the type before it calls anything.
                    if _module_of(error) != _VALIDATOR or environ.get(REPORT).has_entered:
                        raise
                    self._wants_dict = True
            environ.log.all_variables(_VALIDATOR)
            return app(environ.plain, start_response)

        return enter

    def hand_in(self, environ: WSGIEnvironment, told: Callable[[ReadLog], object] | None = None) -> WSGIEnvironment:
        """Return an environ to call the app with, which records its reads."""
        observed = ObservedEnviron(environ, self._new_log())
        environ[REPORT] = AppReport(dict(environ), observed.log, told)
        return observed

    def accompany(self, environ: WSGIEnvironment) -> None:
        """Observe only how the app answers a request whose answer is not stored."""
        if REPORT not in environ:
            environ[REPORT] = AppReport({}, self._new_log())

    def _new_log(self) -> ReadLog:
        return ReadLog(self._settings.ignored_readers)

    def __call__(self, environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
        """Return what was observed of one request.

        :param environ: the environ that the app was called with.
        :param ignored: query parameters that are not part of the key.
        """
        report: AppReport | None = environ.get(REPORT)
        if ANSWERED in environ or (report is not None and report.has_cached):
            return Observation(is_ours=True, last_seen=None if report is None else report.last_seen)
        if report is None or not report.lefts:
            return self._without_app(report, environ, ignored)
        last = report.lefts[-1]
        readers = report.readers(self._settings.ignored_headers)
        names = RequestInputs(headers=tuple(sorted(readers)), variables=tuple(sorted(report.log.variables)))
        owns = [report.read_beyond_names(ignored)]
        accepts = AcceptReads()
        accepts.add(report.log.accepts)
        for left in report.lefts:
            left.log.settle()
            accepts.add(left.log.accepts)
            names |= self._names(left)
            owns.append(_own(left, ignored))
        # Flask adds Cookie to Vary when it saves the session, if the response has used the session or sets its cookie.
        is_answered = (_uses_session(last) or self._keys(last) is not None) and not last.varied
        return Observation(
            names=names,
            own=next(filter(None, owns), None),
            policy=last.coded,
            is_by_view=report.has_dispatched,
            endpoint=last.endpoint,
            answered=frozenset({"cookie"}) if is_answered or last.coded.ignore_session else frozenset(),
            kept=tuple(pair for left in report.lefts for pair in left.kept),
            is_stream=last.is_stream,
            given=report.given,
            seen=tuple(left.seen for left in report.lefts),
            sessions=frozenset(left.session_cookie for left in report.lefts),
            has_changed_session=any(is_changed(left.session) for left in report.lefts),
            harmless=self._harmless(report.lefts),
            holds=partial(_holds, report.lefts),
            last_seen=last.seen,
            accepts=accepts,
            changed=frozenset(name for left in report.lefts for name in left.log.changed),
            codings=last.codings,
            readers=readers,
            held=partial(self._held, report.lefts),
            reader_of=partial(_reader_of, report.lefts),
        )

    def _without_app(self, report: AppReport | None, environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
        """Return what was observed of an answer that the app did not make, or that it made without an observed request."""
        if report is None or report.has_entered:
            return Observation(own=Refusal(StoreRefusal.READS_UNSEEN))
        names = RequestInputs(headers=tuple(sorted(report.readers(self._settings.ignored_headers))))
        own = report.read_beyond_names(ignored)
        unobserved = None
        if not (report.is_app_called or report.has_inner_gateway):
            seen = environ.plain if isinstance(environ, ObservedEnviron) else environ
            unobserved = Observation(is_blind=True, given=report.given, seen=(seen,), last_seen=seen)
        own = own or Refusal(StoreRefusal.ANSWERED_BY_MIDDLEWARE)
        return Observation(names=names, own=own, is_by_view=False, unobserved=unobserved)

    def _names(self, left: Left) -> RequestInputs:
        keys = self._keys(left)
        cookies = {*left.log.cookies, *([left.session_cookie] if keys is None and _uses_session(left) else [])}
        headers = (left.log.headers.keys() - self._settings.ignored_headers) | left.traced
        names = RequestInputs(tuple(sorted(cookies)), tuple(sorted(headers)), tuple(sorted(left.log.variables)))
        names |= names_missed(left.log, left.seen)
        if keys is None or left.coded.ignore_session:
            return names
        # A refresh is given a session with the values that are in the key.
        is_new = not (GIVEN_SESSION in left.seen or RequestInputs(cookies=(left.session_cookie,)).present_in(left.seen))
        return names | names_read(keys, left.session, left.session_cookie, SessionReads(), is_new=is_new)

    def _keys(self, left: Left) -> SessionLog | None:
        """Return the log of a session whose keys can be looked up at hits, too."""
        return left.keys if self._sessions.are_of(left.app) else None

    def _held(self, lefts: Iterable[Left]) -> Iterator[Mapping[str, Any]]:
        """Yield the sessions whose keys can be looked up at hits, as the requests have left them."""
        return (plain_values(left.session) for left in lefts if self._keys(left) is not None)

    def _harmless(self, lefts: Iterable[Left]) -> frozenset[str]:
        """Return the names of the cookies of sessions in which nothing but marks was changed."""
        logs = [(left, self._keys(left)) for left in lefts]
        changed = {left.session_cookie for left, log in logs if log is None or not log.is_unchanged_but(MARKS)}
        return frozenset(left.session_cookie for left, _ in logs) - changed


def _holds(lefts: Iterable[Left], keys: tuple[str, ...]) -> bool:
    """Whether one of the sessions of some requests has, or has had, one of some keys."""
    logs = [(left.keys, left.session) for left in lefts]
    return any(log.is_of(key) or dict.__contains__(session, key) for log, session in logs if log is not None for key in keys)


def _codings_of(app: Flask) -> tuple[str, ...]:
    """Return the codings that an app may answer with: those of Flask-Compress, if it uses that."""
    given = [app.config.get(name) or () for name in ("COMPRESS_ALGORITHM", "COMPRESS_ALGORITHM_STREAMING")]
    names = [name for value in given for name in (value.split(",") if isinstance(value, str) else value)]
    return codings_named(tuple(map(str, names))) if names else CODINGS


def _reader_of(lefts: Iterable[Left], kind: str, name: str) -> str:
    """Return the first module of the app that has read a name; without one, the session if the name is its cookie or key."""
    logs: list[Any] = [left.keys if kind == "session" else left.log for left in lefts]
    found = (getattr(log, "keys" if kind == "session" else kind, {}).get(name) for log in logs)
    return next(filter(None, found), "the session" if kind in ("cookies", "session") else "the app")


def _uses_session(left: Left) -> bool:
    is_used = left.log.has_opened or bool(getattr(left.session, "accessed", True))
    return is_used and not left.coded.ignore_session


def _own(left: Left, ignored: NamePatterns) -> Refusal | None:
    """Return the refusal if an answer is one visitor's own for a reason that no name describes."""
    query = left.seen.get("QUERY_STRING", "")
    refusal = read_beyond_names(left.log, left.seen, ignored) or _variable_read(left.log)
    if refusal is not None or not left.is_redirected:
        return refusal
    # Flask's routing repeats the query in a redirect, and the observed request does not record that read.
    present = ignored.split(query)[1]
    if present:
        return Refusal(StoreRefusal.ROUTED_WITH_IGNORED, ", ".join(sorted(present)))
    return None if ignored.is_in_order(query) else Refusal(StoreRefusal.READS_ORDER, "the app's routing")


def _variable_read(log: ReadLog) -> Refusal | None:
    """Return the refusal for a variable that had a value: middleware may have set it, so hits can't be distinguished by it."""
    name = min(log.given, default=None)
    return None if name is None else variable_read(name, log.variables[name])


def _module_of(error: BaseException) -> str:
    """Return the module of the code that raised an exception."""
    traceback, module = error.__traceback__, ""
    while traceback is not None:
        module, traceback = str(traceback.tb_frame.f_globals.get("__name__", "")), traceback.tb_next
    return module
