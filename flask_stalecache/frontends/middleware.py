"""The extension's middleware in the WSGI stack of a Flask app: queues refreshes when a response is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from flask import Flask, has_request_context, request

from ..core.model.environ import ARRIVED, REPLAY, url_variables
from ..engine.engine import Engine
from ..engine.origin import RefreshJob
from .request.request_body import watch_body
from .response.conditional_answer import ASKED, asked_of
from .wsgi import closing, has_other_processes, why_no_threads

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: In the environ: the refreshes to queue when the response is closed.
HANDOVER = "flask_stalecache.handover"


def submit_at_close(engine: Engine, job: RefreshJob) -> None:
    """Queue a refresh when the response of the current request is closed; immediately, if there is no request."""
    waiting = request.environ.get(HANDOVER) if has_request_context() else None
    if waiting is None:
        engine.runtime.submit(job)
    else:
        waiting.append(job)


class AfterResponseMiddleware:
    """WSGI middleware that queues refreshes when the response is closed.

    It wraps the WSGI iterable, since ``call_on_close`` never fires for a ``direct_passthrough`` response. It only queues, since
    code that runs at close still occupies the connection, and a worker of a sync server.

    :param app: the previous ``wsgi_app`` of the app.
    :param engine: runs the refreshes.
    :param gateway_of: returns the gateway of the app.
    :param at_first_request: called once, before the first request.
    """

    def __init__(
        self,
        app: WSGIApplication,
        engine: Engine,
        gateway_of: Callable[[WSGIApplication], WSGIApplication],
        at_first_request: Callable[[], None],
    ) -> None:
        self._app = app
        self._engine = engine
        self._gateway_of = gateway_of
        self._at_first_request = at_first_request
        self._gateway: WSGIApplication | None = None
        self._knows_server = False
        # Flask has run the view when ``wsgi_app`` returns. A middleware that is a generator runs only when its first chunk is read.
        self._answers_at_once = getattr(app, "__func__", None) is Flask.wsgi_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a request on to the gateway, if there is one, or to the app."""
        return self._enter(environ, start_response) if self._gateway is None else self._gateway(environ, start_response)

    @property
    def app(self) -> WSGIApplication:
        """The previous ``wsgi_app`` of the app."""
        return self._app

    @property
    def gateway(self) -> WSGIApplication | None:
        """The gateway, if there is one."""
        return self._gateway

    def open_gateway(self) -> WSGIApplication:
        """Put a gateway in front of the app, if there is none yet, and return it, so that it can become the ``wsgi_app``."""
        if self._gateway is None:
            self._gateway = self._gateway_of(self._enter)
        return self._gateway

    def _enter(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a request on to the app."""
        if not self._knows_server:
            self._know_server(environ)
        if REPLAY in environ:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = environ[REPLAY].arrives
        if not self._answers_at_once:
            environ[ARRIVED] = url_variables(environ)
        else:
            # Set by the cache of an app that this one is mounted in.
            environ.pop(ARRIVED, None)
        watch_body(environ)
        asked = None
        # Written out, since a loop would slow down each hit.
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ or "HTTP_RANGE" in environ:
            environ, asked = asked_of(environ, start_response)
        jobs: list[RefreshJob] = []
        environ[HANDOVER] = jobs
        try:
            iterable = self._app(environ, start_response if asked is None else asked.start)
        except BaseException:
            self._submit(jobs, environ)
            raise
        if asked is not None:
            if self._answers_at_once:
                # The view has stored its page in ``asked``. Removed, since the server's start_response may refer to the environ.
                environ.pop(ASKED, None)
            iterable = asked.cut(iterable)
        if self._answers_at_once and not jobs and not self._engine.runtime.in_line and type(iterable) is tuple:
            # A tuple is a stored page: no code of the app runs any more. A stream may still call fetch functions.
            environ.pop(HANDOVER, None)
            return iterable
        takes_long = bool(jobs) and self._engine.runtime.refresher.workers == 0
        return closing(iterable, [partial(self._submit, jobs, environ)], takes_long=takes_long)

    def _submit(self, jobs: list[RefreshJob], environ: WSGIEnvironment) -> None:
        # Without the list, a thread that outlives the view queues its refreshes itself.
        environ.pop(HANDOVER, None)
        # Emptied, since a server may close a response twice.
        while jobs:
            self._engine.runtime.submit(jobs.pop())
        if self._engine.runtime.in_line:
            self._engine.runtime.look_after_itself()

    def _know_server(self, environ: WSGIEnvironment) -> None:
        self._knows_server = True
        self._at_first_request()
        if reason := why_no_threads(environ):
            self._engine.runtime.go_in_line(reason)
        if has_other_processes(environ):
            self._engine.runtime.note_other_processes()
