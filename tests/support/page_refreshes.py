"""Helpers of the tests of refreshes of pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import time_machine
from flask import (
    Flask,
)

from flask_stalecache import StaleCache
from support.client import settle, unrecorded_environ, visit

if TYPE_CHECKING:
    pass


MINUTE = 61

#: Fresh for a minute, then stale for ten; no jitter, so that a test knows the moment.
WINDOWS = {"max_age": 60, "stale_while_revalidate": 600, "stale_if_error": 6000, "jitter": 0}


class Origin:
    """What the view under test answers, and what it saw."""

    def __init__(self) -> None:
        self.runs = 0
        self.fails: Exception | None = None
        self.answer: Callable[[], Any] | None = None
        self.seen: list[dict[str, Any]] = []

    def view(self, **_: object) -> Any:
        self.runs += 1
        self.seen.append({name: value for name, value in unrecorded_environ().items() if isinstance(value, str)})
        if self.fails is not None:
            raise self.fails
        return f"run {self.runs}" if self.answer is None else self.answer()


def cached(app: Flask, cache: StaleCache, view: Callable[..., Any], path: str = "/", **policy: Any) -> None:
    app.add_url_rule(path, "page", cache.cached(**{**WINDOWS, **policy})(view))


def stale(app: Flask, cache: StaleCache, clock: time_machine.Traveller, path: str = "/", *args: Any, **options: Any) -> None:
    """Fill a page, let it become stale, visit it so that its refresh is handed over, and wait for the refresh."""
    assert visit(app, path, *args, **options).word == "MISS"
    clock.shift(MINUTE)
    assert visit(app, path, *args, **options).word == "STALE"
    settle(app, cache)
