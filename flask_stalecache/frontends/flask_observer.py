"""Observes what a Flask app behind a gateway reads of each request.

What the app read, until its response is finished, decides for which visitors the response may be stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response

from ..config import Settings
from ..core.http.fields import vary_names
from ..core.model.inputs import RequestInputs
from ..core.model.policy import Policy
from ..core.model.query import NamePatterns
from ..core.model.reasons import Refusal, StoreRefusal
from .flask_internals import request_context, session_cookie, session_of
from .gateway.backend import UNSAID, Observation
from .pages.handler import ANSWERED
from .pages.request_recorder import ObservedRequest
from .pages.watch import read_beyond_names
from .read_log import ReadLog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: In the environ: what the observer needs of the request after its context has ended.
_LEFT = "flask_stalecache.left"
#: In the environ: the policy in code of the view that answered.
CODED = "flask_stalecache.coded"


class Left(NamedTuple):
    """The parts of a request that outlive its context, since a streamed response may still read it.

    :ivar log: the reads.
    :ivar session: its session.
    :ivar session_cookie: the name of the session's cookie in the app that answered.
    :ivar endpoint: the endpoint that answered.
    :ivar varied: the response had ``Vary: Cookie`` before the session was saved.
    """

    log: ReadLog
    session: Any
    session_cookie: str
    endpoint: str | None
    varied: bool


def note_what_is_left(response: Response) -> Response:
    """Keep what only the request context knows. This is the last hook that runs before Flask saves the session."""
    context = request_context()
    request = context.request
    if isinstance(request, ObservedRequest):
        varied = "cookie" in vary_names(response.headers)
        cookie = session_cookie(context.app)
        request.environ[_LEFT] = Left(request.stalecache_reads, session_of(context), cookie, request.endpoint, varied)
    return response


class Observer:
    """Observes how a Flask app came to its answers.

    :param settings: the app's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, environ: WSGIEnvironment, ignored: NamePatterns) -> Observation:
        """Return what was observed of one request.

        :param environ: the environ that the app was called with.
        :param ignored: query parameters that are not part of the key.
        """
        if ANSWERED in environ:
            return Observation(is_ours=True)
        left: Left | None = environ.get(_LEFT)
        if left is None:
            return Observation(own=Refusal(StoreRefusal.READS_UNSEEN))
        policy: Policy = environ.get(CODED, UNSAID)
        uses_session = bool(getattr(left.session, "accessed", True)) and not policy.ignore_session
        is_answered = uses_session and not left.varied
        return Observation(
            names=self._names(left, uses_session),
            own=read_beyond_names(left.log, environ.get("QUERY_STRING", ""), ignored),
            policy=policy,
            endpoint=left.endpoint,
            answered=frozenset({"cookie"}) if is_answered or policy.ignore_session else frozenset(),
        )

    def _names(self, left: Left, uses_session: bool) -> RequestInputs:
        cookies = {*left.log.cookies, *([left.session_cookie] if uses_session else [])}
        return RequestInputs(tuple(sorted(cookies)), tuple(sorted(left.log.headers.keys() - self._settings.ignored_headers)))
