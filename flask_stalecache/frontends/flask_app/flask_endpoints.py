"""Predicts from the endpoint of a request whether the gateway could store its answer, so that requests don't queue for nothing.

=========================================================== ================================================================
endpoint                                                    its answers
=========================================================== ================================================================
a view with ``cached()``                                    are not stored by the gateway
a view with ``cached(gateway=True)``                        may be stored
any other, without ``STALECACHE_GATEWAY``                   can't be stored
any other, with it                                          may be stored, unless they never said how long they are fresh
none: the URL matches nothing                               may be stored with ``STALECACHE_GATEWAY``
=========================================================== ================================================================

This only affects queueing: each answer is judged by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from ...core.model.reasons import StoreRefusal
from ...core.rules.storability import Judgement, Verdict
from ...engine.log import RateLimitedLog
from ..pages.bound_view import cached_view
from .flask_urls import match_endpoint

#: Refusals of answers for which neither their fields nor anything else says how long they are fresh.
_NOTHING_SAID = frozenset({StoreRefusal.NO_LIFETIME, StoreRefusal.NOTHING_SAID, StoreRefusal.NO_VALIDATOR})


class FlaskEndpoints:
    """The endpoints of a Flask app, and whether their answers could be stored so far.

    :param app: the app.
    :param complaints: the log.
    :param only_coded: only views with ``gateway=True`` are stored.
    """

    def __init__(self, app: Flask, complaints: RateLimitedLog, *, only_coded: bool) -> None:
        self._app = app
        self._complaints = complaints
        self._only_coded = only_coded
        #: Endpoints of which an answer could be stored, and those of which none could, since they don't say how long. The number
        #: of endpoints of the app limits both, whatever visitors request.
        self._stored: set[str] = set()
        self._silent: set[str] = set()
        #: Whether middleware of the app changes paths, so that the gateway can't determine endpoints.
        self._is_misled = False

    def endpoint_of(self, environ: Mapping[str, Any]) -> str | None:
        """Return the endpoint of a request; ``None`` if its URL matches nothing."""
        try:
            return match_endpoint(self._app, environ)
        except Exception as error:
            # A URL converter of the app may need data that only a request has.
            self._complaints.error_every_minute(
                "endpoint", "rules for endpoints do not hold where a URL can't be matched: %r", error, exc_info=error
            )
            return None

    def may_store(self, environ: Mapping[str, Any]) -> bool:
        """Whether the answer to a request may be stored, as far as is known before it."""
        if self._is_misled:
            return True
        endpoint = self.endpoint_of(environ)
        if endpoint is None:
            return not self._only_coded
        cached = cached_view(self._app.view_functions.get(endpoint))
        if cached is not None:
            return bool(cached.policy.gateway)
        # A decorator may hide a view with gateway=True; then its first answer shows that it is stored.
        return endpoint in self._stored if self._only_coded else endpoint not in self._silent

    def learn(self, environ: Mapping[str, Any], endpoint: str | None, status: int, judgement: Judgement) -> None:
        """Note how an answer was judged by its head.

        :param environ: its request, as the gateway got it.
        :param endpoint: the endpoint that answered.
        :param status: its status.
        """
        if endpoint is None or endpoint in self._stored:
            return
        if judgement.verdict is Verdict.STORABLE:
            self._is_misled = self._is_misled or self.endpoint_of(environ) != endpoint
            self._stored.add(endpoint)
            self._silent.discard(endpoint)
        elif 200 <= status <= 299 and judgement.reason is not None and judgement.reason.reason in _NOTHING_SAID:
            # Errors and redirects don't count: they seldom say how long, while the pages of the endpoint may.
            self._silent.add(endpoint)
