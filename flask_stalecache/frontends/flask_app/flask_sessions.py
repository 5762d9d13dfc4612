"""Looks up keys of visitors' sessions at the gateway, from the cookie alone: a hit never enters the app.

==================================  ==============================================================================
session interface                   keys are looked up by
==================================  ==============================================================================
Flask's own, exactly                Flask's signature and serializer; the sessions of Cookie fields are remembered
any other                           the app's ``STALECACHE_SESSION_OPENER``, for each request
any other, without an opener        nothing: pages that read the session are for visitors without its cookie
==================================  ==============================================================================

The session interface may change from one request to the next, so it is checked each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from flask import Flask, Request

from ...core.model.environ import GIVEN_SESSION
from ...core.model.policy import Policy
from ...core.remembered import MIB, Remembered
from ...engine.log import RateLimitedLog
from ...errors import ConfigError
from ..flask_internals.sessions import SavedSession, has_flasks_sessions, saved_session, session_cookie, session_settings
from ..observation.watched_session import GivenSession, give_session
from ..pages.watching.request_recorder import ObservedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_clock = time.time
#: The session of a visitor without one.
NO_SESSION = SavedSession()
#: A permanent session is prolonged by the app once its cookie is older than this share of its lifetime.
_PROLONGED_AFTER = 0.1
#: Estimated bytes of a key in a remembered session.
_KEY = 80


class FlaskSessions:
    """The sessions of the visitors of one app.

    :param app: the app.
    :param opener: opens a session for an app and a request, as ``SessionInterface.open_session`` does, and only reads.
    :param complaints: the log, for failures of the opener.
    """

    def __init__(self, app: Flask, opener: Callable[[Flask, Request], Any] | None, complaints: RateLimitedLog) -> None:
        self._app = app
        self._opener = opener
        self._complaints = complaints
        self._settings: tuple[Any, ...] = ()
        #: The sessions in Cookie fields, by digests of the fields, which are secrets and as long as visitors choose.
        self._known = _remembered()
        #: The keys that rules name, whose values are remembered too.
        self._kept: frozenset[str] = frozenset()

    def are_of(self, app: Flask) -> bool:
        """Whether keys of an app's sessions can be looked up. Those of another app that is mounted in this one can't."""
        return app is self._app and (self._opener is not None or _loads_by_cookie(app))

    def hold(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        """Whether a visitor's session has one of some keys, or may have one."""
        if self._opener is not None:
            return self._opened_holds(environ, keys)
        saved = self._saved(environ)
        return saved is None or not saved.keys.isdisjoint(keys)

    def values(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the values of some keys of a visitor's session, without those that it lacks.

        :raises ConfigError: if they can't be looked up, or if the opener raises.
        """
        given: GivenSession | None = environ.get(GIVEN_SESSION)
        if given is not None and given.app is self._app:
            return {key: value for key, value in given.values.items() if key in keys}
        if self._opener is not None:
            return self._opened_values(self._opener, environ, keys)
        saved = self._saved(environ)
        if saved is None:
            raise ConfigError(f"session={list(keys)}: the sessions of the app can't be looked up; set STALECACHE_SESSION_OPENER")
        return {key: value for key, value in saved.values.items() if key in keys}

    def give(self, environ: WSGIEnvironment, values: Mapping[str, Any]) -> None:
        """Give a refresh a session that has these values only."""
        give_session(environ, self._app, values)

    def check(self, pattern: str, policy: Policy) -> None:
        """Note the keys of the session that a rule names, before the first request.

        :raises ConfigError: if they can't be looked up, or if the rule names the cookie of the session.
        """
        self._kept = self._kept.union(policy.session)
        if policy.session and self._opener is None and not has_flasks_sessions(self._app):
            raise ConfigError(
                f"the rule for {pattern!r} has session={list(policy.session)}, and sessions of the class "
                f"{type(self._app.session_interface).__name__} can't be looked up: set STALECACHE_SESSION_OPENER"
            )
        if (name := session_cookie(self._app)) in (policy.cookies or ()):
            raise ConfigError(
                f"the rule for {pattern!r} has cookies with {name!r}, in which sessions are kept: name values of the session in "
                "session="
            )

    def bar(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        """Whether a request has to be sent to the app: its session may have one of some keys, or a hit would not prolong it."""
        if self._opener is not None:
            return self._opened_holds(environ, keys)
        saved = self._saved(environ)
        return saved is None or not saved.keys.isdisjoint(keys) or self._is_to_be_prolonged(saved)

    def _is_to_be_prolonged(self, saved: SavedSession) -> bool:
        return saved.prolonged_within > 0 and _clock() - saved.signed > saved.prolonged_within * _PROLONGED_AFTER

    def _saved(self, environ: WSGIEnvironment) -> SavedSession | None:
        """Return the session of a Cookie field; ``None`` if it can't be opened."""
        app, field = self._app, environ.get("HTTP_COOKIE")
        if not field:
            return NO_SESSION
        if not _loads_by_cookie(app):
            return None
        # Read before the settings, so that a session opened with older settings can only be noted in an older table.
        known, settings = self._known, session_settings(app.config)
        if settings != self._settings:
            known = self._known = _remembered()
            # A copy, since an app may change its list of old keys in place.
            self._settings = deepcopy(settings)
        if settings[0] not in field:
            return NO_SESSION
        digest = blake2b(field.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        saved = known.get(digest)
        # In whole seconds, like the timestamp of the signature.
        if saved is not None and saved.signed <= int(_clock()) <= saved.valid_until:
            return saved
        return self._open(field, digest, known)

    def _open(self, field: str, digest: bytes, known: Remembered[bytes, SavedSession]) -> SavedSession | None:
        known.pop(digest, None)
        try:
            saved = saved_session(self._app, field, self._kept)
        except Exception:
            # The app will raise it too, and has to answer it itself.
            return None
        if saved is None:
            # Not remembered: a cookie from a host whose clock is ahead becomes valid later.
            return NO_SESSION
        size = len(saved.keys) * _KEY + sum(map(len, saved.keys)) + (len(field) if saved.values else 0)
        return known.note(digest, saved, size)

    def _opened_holds(self, environ: WSGIEnvironment, keys: tuple[str, ...]) -> bool:
        if not environ.get("HTTP_COOKIE"):
            return False
        assert self._opener is not None
        try:
            with self._app.app_context():
                opened = self._opener(self._app, Request(environ.copy()))
            return opened is not None and any(key in opened for key in keys)
        except Exception as error:
            self._complaints.error_every_minute(
                "session-opener", "STALECACHE_SESSION_OPENER raised, so that visitors with cookies are live: %r", error
            )
            return True

    def _opened_values(
        self, opener: Callable[[Flask, Request], Any], environ: WSGIEnvironment, keys: tuple[str, ...]
    ) -> Mapping[str, Any]:
        try:
            with self._app.app_context():
                opened = opener(self._app, Request(environ.copy()))
                if isinstance(opened, Mapping):
                    return {key: opened[key] for key in keys if key in opened}
        except Exception as error:
            raise ConfigError(f"session={list(keys)}: STALECACHE_SESSION_OPENER raised {error!r}") from error
        if opened is None:
            return {}
        raise ConfigError(
            f"session={list(keys)} needs values: let STALECACHE_SESSION_OPENER return the session, not its keys alone"
        )


def _remembered() -> Remembered[bytes, SavedSession]:
    return Remembered(most=16384, limit=8 * MIB, longest=4096)


def _loads_by_cookie(app: Flask) -> bool:
    """Whether an app has Flask's own sessions, and a request class that finds them in the Cookie field."""
    is_plain = has_flasks_sessions(app) and "get_cookie_name" not in app.session_interface.__dict__
    return is_plain and app.request_class.cookies is ObservedRequest.cookies
