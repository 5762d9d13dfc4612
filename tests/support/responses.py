"""Helpers of the tests of responses to visitors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

from support.client import MakeApp

PAGE = "0123456789"

#: Fresh for a minute, then stale for two, and for an hour if the view fails.
WINDOWS: Mapping[str, Any] = {"max_age": 60, "stale_while_revalidate": 120, "stale_if_error": 3600, "jitter": 0}

MODIFIED = "Thu, 15 Jan 2026 08:00:00 GMT"


def always() -> str:
    return PAGE


def site(make_app: MakeApp, view: Callable[..., Any] = always, *, policy: Mapping[str, Any] = WINDOWS, **config: Any) -> Flask:
    """An app with one cached view, whose refreshes run in line."""
    app, cache = make_app(**{"REFRESH_WORKERS": 0, **config})
    app.add_url_rule("/", "page", cache.cached(**policy)(view))
    return app


class Switch:
    """A view that answers what the test says: a value, or an exception that it raises."""

    def __init__(self, answer: Any = PAGE) -> None:
        self.answer = answer
        self.runs = 0

    def view(self) -> Any:
        self.runs += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
