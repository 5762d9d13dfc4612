"""A cached view, before and in an app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.wrappers import Response

from .complaints import Complaints
from .config import Settings
from .guard import KEY_FIELDS
from .policy import NamePatterns, Policy


class CachedView:
    """A view under ``cached``, before any app is known.

    :param view: the view function.
    :param policy: what the developer wrote.
    """

    def __init__(self, view: Callable[..., Any], policy: Policy) -> None:
        self.view = view
        self.policy = policy
        # A callable object has the name of its class.
        named: Any = view if hasattr(view, "__qualname__") else type(view)
        self.name = f"{named.__module__}.{named.__qualname__}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A cached view in one app: the policy under the app's settings.

    :ivar ignored: the query parameters that are not in the key.
    :ivar in_key: the request fields that are, in lower case.
    :ivar uncounted: the request fields whose reading does not count, in lower case.
    :ivar make_response: calls a view, async ones too, and returns its value as a response.
    """

    app: Flask
    cached: CachedView
    settings: Settings
    complaints: Complaints
    ignored: NamePatterns
    in_key: frozenset[str]
    uncounted: frozenset[str]
    lock_timeout: float

    @classmethod
    def of(cls, app: Flask, cached: CachedView, settings: Settings, complaints: Complaints) -> Plan:
        """Return the plan of a view in an app."""
        policy = cached.policy
        ignored = NamePatterns((*policy.ignored_parameters.items, *settings.ignored_parameters.items))
        in_key = KEY_FIELDS | frozenset(policy.vary)
        lock_timeout = settings.lock_timeout if policy.lock_timeout is None else policy.lock_timeout
        return cls(app, cached, settings, complaints, ignored, in_key, in_key | settings.ignored_headers, lock_timeout)

    def call_view(self, args: Any, kwargs: Any) -> Response:
        """Call the view, an async one too, and return its value as a response."""
        return self.app.make_response(self.app.ensure_sync(self.cached.view)(*args, **kwargs))
